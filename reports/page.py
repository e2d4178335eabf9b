"""The page: what is shown, in which order, in which words. `render` is pure; `write_report` reads and writes."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import curves, figures, formats, landscape, parameters, shell, standings, summary, tradeoff
from reports.audit import data_rows
from tuner.config import SearchConfig, dump_config
from tuner.errors import RunError
from tuner.grammar import counted
from tuner.records import Adaptation, DatasetRecord, Trace, TrialRecord
from tuner.stability import explanation
from tuner.stability.adaptation import adaptation_lines
from tuner.stability.baseline import baseline_sentence
from tuner.stability.margin import SMALL_MARGIN
from tuner.stability.ranking import STABLE, rank
from tuner.store import RunFolder, write_text
from tuner.tasks import METRIC_TITLES

__all__ = ["render", "write_report"]

NOT_ADAPTED = Adaptation()

# Rows of a table that are shown at once; the rest folds. Source: convention.
MAX_ROWS_OPEN = 20

# Hyperparameters in the parallel coordinates, and with a scatter plot each; the most important. Source: legibility.
MAX_PARALLEL, MAX_SCATTERS = 10, 6

# Options that a repeated search is given on its command line, where they differ from the default.
_COMMAND_KEYS = tuple(
    name for name in SearchConfig.model_fields if name not in ("data", "range", "fix", "baseline", "force")
)
_NO_ADAPTATION = Adaptation()
_WITHOUT_MODEL = (standings.Band.PRUNED, standings.Band.FAILED)


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` into a run folder, of whatever has finished, and return its path.

    Args:
        folder: A run, finished or still going on.

    Raises:
        RunError: The folder has no readable configuration, dataset or study.
        EnvironmentFault: The page cannot be written.
    """
    from tuner.search.quarantine import find_damaged
    from tuner.search.study import load_trials

    trials = load_trials(folder)
    traces, faults = _load_traces(folder, rank(trials))
    faults = [fault for trial in trials for fault in trial.faults] + faults
    # Records and traces are named where they are read.
    others = (path for path in find_damaged(folder) if path.suffix == ".json" and path.name != "record.json")
    faults += [f"{str(path)!r} is damaged." for path in others]
    page = render(
        str(folder.root),
        config=folder.load_config(),
        dataset=folder.load_dataset(),
        trials=trials,
        traces=traces,
        environment=folder.load_environment(),
        adaptation=folder.load_adaptation(),
        ending=folder.load_ending(),
        trace_faults=faults,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_text(folder.report_file, page)
    return folder.report_file


def render(
    run: str,
    *,
    config: SearchConfig,
    dataset: DatasetRecord,
    trials: Sequence[TrialRecord],
    traces: Mapping[int, Trace],
    environment: Mapping[str, str],
    adaptation: Adaptation = _NO_ADAPTATION,
    ending: str = "",
    trace_faults: Sequence[str] = (),
    written: str = "",
) -> str:
    """The page as HTML text.

    Args:
        run: Path of the run folder, as the commands on the page name it.
        config: The resolved configuration.
        dataset: What is known of the data.
        trials: All trials, in any order, finished or not.
        traces: By trial number, of the trials that `curves.choose_trials` names.
        environment: Versions, hardware, command.
        adaptation: How the search narrowed its ranges by itself.
        ending: Why the search ended before its budget was used up, if it did.
        trace_faults: What could not be read, a sentence each.
        written: When the page was made, for the foot.
    """
    ranked = rank(trials)
    best = ranked[0] if ranked and standings.band(ranked[0]) not in _WITHOUT_MODEL else None
    scripts = shell.page_scripts()
    plots = shell.Plots()
    context: dict[str, Any] = {
        "title": Path(run).name or run,
        "written": written,
        "policy": shell.content_policy(scripts.values()),
        "scripts": scripts,
        "config": config,
        "dataset": dataset,
        "summary": _summary(trials, ranked, config, dataset, ending),
        "best": _best(best, run, config, dataset) if best else None,
        "leaderboard": _leaderboard(ranked, config, dataset),
        "failures": _failures(ranked),
        "causes": _causes(ranked, adaptation),
        "curves": _curves(plots, ranked, traces, best),
        "trace_faults": trace_faults,
        "space": _space(plots, ranked, config, dataset),
        "data": data_rows(dataset),
        "environment": sorted(environment.items(), key=lambda item: item[0] == "command"),
        "commands": _commands(run, config, best, environment),
        "parts": standings.PARTS,
        "stable": STABLE,
        "small_margin": f"{SMALL_MARGIN:g}",
        "metric_name": METRIC_TITLES[dataset.metric],
        "max_open": MAX_ROWS_OPEN,
        "plots": plots.sources,
    }
    return shell.template("report.html.j2").render(context)


# --- Reading


def _load_traces(folder: RunFolder, ranked: Sequence[TrialRecord]) -> tuple[dict[int, Trace], list[str]]:
    """The traces that the figures need, and a sentence for each that cannot be read."""
    traces: dict[int, Trace] = {}
    faults: list[str] = []
    for trial in _traced_trials(ranked):
        run = standings.shown_run(trial)
        if run is None:
            continue
        try:
            traces[trial.number] = folder.load_trace(trial.number, run.seed_index)
        except RunError as error:
            faults.append(f"Trial {trial.number}: {error}")
    return traces, faults


def _traced_trials(ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    chosen = curves.choose_trials(ranked)
    return chosen + [trial for trial in _compared(ranked) if trial not in chosen]


def _compared(ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trial and the least stable one, whose steps are shown side by side."""
    trained = [trial for trial in ranked if curves.has_curves(trial)]
    if not trained:
        return []
    worst = min(trained, key=lambda trial: (trial.stability or 0.0, -trial.number))
    return [trained[0]] if worst is trained[0] else [trained[0], worst]


# --- Sections


@dataclass(frozen=True)
class _Row:
    """One row of the leaderboard, as text."""

    place: int
    trial: int
    metric: str
    validation_loss: str
    objective: str
    stability: str
    margin: str
    standing: standings.Band
    symbol: str
    instability: str
    parts: tuple[str, ...]
    outcome: str
    seconds: str
    num_parameters: str
    hyperparameters: tuple[tuple[str, str], ...]


def _summary(
    trials: Sequence[TrialRecord],
    ranked: Sequence[TrialRecord],
    config: SearchConfig,
    dataset: DatasetRecord,
    ending: str,
) -> dict[str, Any]:
    is_good, verdict = summary.verdict(ranked)
    sentences = summary.best_sentences(ranked, dataset)
    figures_of_merit = []
    if sentences:
        best = ranked[0]
        assessed = standings.band(best) is not standings.Band.NOT_ASSESSED
        figures_of_merit = [
            (
                METRIC_TITLES[dataset.metric],
                summary.metric_text(best, dataset),
                f"trial {best.number}, {'' if best.is_confirmed else 'not '}confirmed",
            ),
            (
                "stability",
                formats.fixed(best.stability) if assessed else formats.MISSING,
                standings.band(best).label,
            ),
        ]
    if ranked:
        num_stable = sum(standings.band(trial).is_stable for trial in ranked)
        figures_of_merit += [
            ("stable configurations", f"{num_stable} of {len(ranked)}", f"stability of {STABLE} or more"),
            ("training time", summary.elapsed(trials), counted(len(ranked), "finished trials")),
        ]
    return {
        "progress": summary.progress_sentence(trials, config, ending),
        "outcomes": summary.outcome_sentence(trials) + (f" The search ended early: {ending}." if ending else ""),
        "sentences": [*sentences, *filter(None, [baseline_sentence(trials)])],
        "verdict": verdict,
        "is_good": is_good,
        "figures": figures_of_merit,
    }


def _best(best: TrialRecord, run: str, config: SearchConfig, dataset: DatasetRecord) -> dict[str, Any]:
    fixed = {name: str(value) for name, value in best.hyperparameters.items() if value is not None}
    words = [
        "python",
        "-m",
        "tuner",
        "search",
        *_data_words(config),
        *_option_words(config, skip=("trials", "lr_range")),
    ]
    words += ["--trials", "1", "--run", f"{run}-repeat"]
    for name, value in fixed.items():
        words += ["--fix", f"{name}={value}"]
    repeated = config.model_copy(update={"fix": fixed, "range": {}, "lr_range": "space", "trials": 1, "baseline": {}})
    seed_run = standings.shown_run(best)
    return {
        "trial": best.number,
        "hyperparameters": [(name, parameters.show(value), str(value)) for name, value in best.hyperparameters.items()],
        "command": formats.command(words),
        "yaml": dump_config(repeated),
        "run": seed_run,
        "num_parameters": formats.count(seed_run.num_parameters) if seed_run else formats.MISSING,
        "seconds": formats.duration(seed_run.seconds if seed_run else None),
    }


def _leaderboard(ranked: Sequence[TrialRecord], config: SearchConfig, dataset: DatasetRecord) -> list[_Row]:
    return [_row(place, trial, config, dataset) for place, trial in enumerate(ranked, start=1)]


def _row(place: int, trial: TrialRecord, config: SearchConfig, dataset: DatasetRecord) -> _Row:
    run, standing = standings.shown_run(trial), standings.band(trial)
    score, metric = run.score if run else None, standings.metric_value(trial, dataset)
    is_known = standing is not standings.Band.NOT_ASSESSED
    return _Row(
        place=place,
        trial=trial.number,
        metric=formats.number(metric) if dataset.metric == "loss" else formats.fixed(metric, 3),
        validation_loss=formats.number(standings.validation_loss(trial)),
        objective=formats.number(trial.objective)
        if config.objective.startswith("val_")
        else formats.fixed(trial.objective),
        stability=formats.fixed(trial.stability) if is_known else formats.MISSING,
        margin=trial.margin.text if trial.margin else formats.MISSING,
        standing=standing,
        symbol=figures.band_symbol(standing),
        instability=formats.fixed(score.instability) if score and is_known else formats.MISSING,
        parts=tuple(
            formats.fixed(getattr(score, part.field)) if score else formats.MISSING for part in standings.PARTS
        ),
        outcome=summary.outcome_words(trial, config),
        seconds=formats.duration(sum(run.seconds for run in trial.seed_runs)) if trial.seed_runs else formats.MISSING,
        num_parameters=formats.count(run.num_parameters) if run else formats.MISSING,
        hyperparameters=tuple((name, parameters.show(value)) for name, value in trial.hyperparameters.items()),
    )


def _failures(ranked: Sequence[TrialRecord]) -> list[tuple[str, str, str]]:
    """Trials, what it means and the message, one entry for all that failed in the same way."""
    groups: dict[tuple[str, str], list[int]] = {}
    for trial in ranked:
        if trial.outcome.is_failed:
            groups.setdefault((trial.outcome.meaning, _message(trial)), []).append(trial.number)
    return [(", ".join(map(str, sorted(numbers))), *texts) for texts, numbers in groups.items()]


def _causes(ranked: Sequence[TrialRecord], adaptation: Adaptation) -> dict[str, Any]:
    """What was unstable, why, and what to change: over all trials, trial by trial, and what the search did about it."""
    steps = adaptation.steps
    return {
        "frequent": [
            (likelihood, cause, ", ".join(map(str, numbers)))
            for likelihood, cause, numbers in explanation.frequent_causes(ranked)
        ],
        "trials": [_cause_row(trial) for trial in ranked if explanation.alarms(trial) or _was_ended(trial)],
        "adaptation": [
            line
            for index, step in enumerate(steps)
            for line in adaptation_lines(step, steps[index - 1] if index else None)
        ],
    }


def _was_ended(trial: TrialRecord) -> bool:
    return bool(trial.search_run and trial.search_run.ended_by)


def _cause_row(trial: TrialRecord) -> dict[str, Any]:
    cause = explanation.top_cause(trial)
    return {
        "trial": trial.number,
        "happened": [(explanation.words(finding), finding.cause) for finding in explanation.alarms(trial)],
        "message": trial.message if _was_ended(trial) else "",
        "cause": cause,
        "name": explanation.words(cause) if cause else "",
        "confidence": formats.percent(cause.confidence) if cause else "",
        "advice": explanation.advice(cause, trial.hyperparameters) if cause else "",
        "remedies": [remedy for remedy in cause.remedies if not remedy.change.startswith(("upper ", "lower "))]
        if cause
        else [],
    }


def _message(trial: TrialRecord) -> str:
    return trial.message or next((run.message for run in trial.seed_runs if run.message), "")


def _curves(
    plots: shell.Plots, ranked: Sequence[TrialRecord], traces: Mapping[int, Trace], best: TrialRecord | None
) -> dict[str, Any]:
    info = curves.loss_curves_info(ranked, traces)
    compared = [
        curves.step_loss_info(trial, traces[trial.number]) for trial in _compared(ranked) if trial.number in traces
    ]
    infos = [step_info for step_info in compared if step_info is not None]
    limits = curves.step_limits(infos) if infos else None
    steps = []
    for step_info in infos:
        is_first = step_info.trial == ranked[0].number
        title = ("best" if best else "got furthest") if is_first else "least stable"
        name = plots.add(f"steps-{step_info.trial}", curves.draw_step_loss(step_info, limits)) if limits else ""
        steps.append((name, title, step_info, formats.fixed(step_info.stability)))
    return {
        "info": info,
        "name": plots.add("loss-curves", curves.draw_loss_curves(info)) if info else "",
        "has_validation": bool(info) and any(loss is not None for curve in info.curves for loss in curve.validation)
        if info
        else False,
        "steps": steps,
    }


def _space(
    plots: shell.Plots, ranked: Sequence[TrialRecord], config: SearchConfig, dataset: DatasetRecord
) -> dict[str, Any]:
    usable = [trial for trial in ranked if standings.band(trial) is not standings.Band.FAILED]
    varied = parameters.axes(ranked)
    info = landscape.parallel_info(ranked, varied[:MAX_PARALLEL], _results(usable, dataset)) if usable else None
    scatters: list[tuple[str, parameters.Axis, landscape.ScatterInfo]] = []
    for axis in varied[:MAX_SCATTERS] if usable else ():
        scatter = landscape.scatter_info(ranked, axis, _objective_name(config))
        if scatter:
            name = plots.add(f"scatter-{len(scatters) + 1}", landscape.draw_scatter(scatter))
            scatters.append((name, axis, scatter))
    tradeoff_ = tradeoff.tradeoff_info(ranked, _error_name(dataset))
    return {
        "name": plots.add("parallel", landscape.draw_parallel(info)) if info else "",
        "info": info,
        "scatters": scatters,
        "tradeoff": tradeoff_,
        "tradeoff_name": plots.add("tradeoff", tradeoff.draw_tradeoff(tradeoff_)) if tradeoff_ else "",
        "left_out": [axis.name for axis in varied[MAX_PARALLEL:]],
        "constants": [(name, parameters.show(value)) for name, value in parameters.constants(ranked).items()]
        if len(ranked) > 1
        else [],
        "is_ranked": len(ranked) >= parameters.MIN_TRIALS_FOR_IMPORTANCE,
        "why_empty": _why_no_space(ranked, usable, varied),
        "bands": [
            (standing, figures.band_symbol(standing))
            for standing in standings.Band
            if any(standings.band(trial) is standing for trial in ranked)
        ],
        "has_edge": any(scatter.edge is not None for _, _, scatter in scatters),
    }


def _results(usable: Sequence[TrialRecord], dataset: DatasetRecord) -> list[landscape.Result]:
    """The metric (a loss upside down, so that up is better) and the stability."""
    found = {trial.number: standings.metric_value(trial, dataset) for trial in usable}
    metric = {number: value for number, value in found.items() if value is not None and math.isfinite(value)}
    low, high = min(metric.values(), default=0.0), max(metric.values(), default=1.0)
    ends = (high, low) if dataset.metric == "loss" else (low, high)
    stability = {
        trial.number: trial.stability
        for trial in usable
        if trial.stability is not None and standings.band(trial) is not standings.Band.NOT_ASSESSED
    }
    return [
        landscape.Result(METRIC_TITLES[dataset.metric], metric, *ends, ticks=(low, (low + high) / 2, high)),
        landscape.Result("stability", stability, 0.0, 1.0, ticks=(0.0, 0.5, STABLE, 1.0)),
    ]


def _why_no_space(
    ranked: Sequence[TrialRecord], usable: Sequence[TrialRecord], varied: Sequence[parameters.Axis]
) -> str:
    if not ranked:
        return "No trial has finished yet."
    if not usable:
        return "Every finished trial failed, so there is no result to hold against the hyperparameters."
    if len(ranked) == 1:
        return "Only one trial has finished; a comparison needs two."
    return "" if varied else "All finished trials had the same hyperparameters."


def _commands(
    run: str, config: SearchConfig, best: TrialRecord | None, environment: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What to do, and the command that does it."""
    search = ["python", "-m", "tuner", "search", *_data_words(config), *_option_words(config)]
    for option, values in (("--range", config.range), ("--fix", config.fix)):
        for name, value in values.items():
            search += [option, f"{name}={value}"]
    if config.baseline:
        search += ["--baseline", ",".join(f"{name}={value}" for name, value in config.baseline.items())]
    commands = []
    if environment.get("command"):
        commands.append(("The command that made this run", environment["command"]))
    commands.append(
        (
            "The same search again, in a new run folder",
            formats.command([*search, *(["--force"] if config.force else []), "--run", f"{run}-again"]),
        )
    )
    if best:
        bundle = f"{run}-bundle"
        commands += [
            (
                "Export the best configuration: model, preprocessing, training script, checksums",
                formats.command(["python", "-m", "tuner", "export", run, "-o", bundle]),
            ),
            (
                "Train it again from its exported configuration",
                formats.command(["python", "-m", "tuner", "train", f"{bundle}/config.yaml", *_data_words(config)]),
            ),
        ]
    commands.append(("This page again", formats.command(["python", "-m", "tuner", "report", run])))
    return commands


def _data_words(config: SearchConfig) -> list[str]:
    return [] if config.data is None else [config.data if not config.data.startswith("-") else f"./{config.data}"]


def _option_words(config: SearchConfig, skip: Sequence[str] = ()) -> list[str]:
    """Options that differ from their default, as flags."""
    words: list[str] = []
    for name in _COMMAND_KEYS:
        value = getattr(config, name)
        if name in skip or value == SearchConfig.model_fields[name].default:
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
            continue
        words += [f"--{name.replace('_', '-')}", f"{value:g}s" if name == "time_limit" else str(value)]
    return words


def _error_name(dataset: DatasetRecord) -> str:
    return "validation loss" if dataset.metric == "loss" else f"error (1 - {dataset.metric.replace('_', ' ')})"


def _objective_name(config: SearchConfig) -> str:
    return "objective J" if config.objective in ("stable", "pareto") else f"objective ({config.objective})"
