"""What runs, trials, data and findings are called when they are told to a person: sentences, tables, a summary."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from tuner.config import SearchConfig
from tuner.records import (
    Adaptation,
    Claim,
    DatasetRecord,
    Finding,
    Outcome,
    RateRange,
    SeedRun,
    StabilityMargin,
    TrialRecord,
)
from tuner.stability.adaptation import adaptation_lines
from tuner.stability.baseline import baseline_sentence
from tuner.stability.explanation import explained, frequent_causes
from tuner.stability.margin import SMALL_MARGIN
from tuner.stability.ranking import STABLE, best_trial, median_seed_run, pareto_front, rank, rivals
from tuner.stability.remedies import told
from tuner.tasks import METRIC_TITLES, TASKS

if TYPE_CHECKING:
    from tuner.data.cache import Estimate

__all__ = [
    "PROGRAM",
    "audit_lines",
    "cause_lines",
    "claim_line",
    "describe_data",
    "duration",
    "finished_line",
    "finite",
    "fresh_line",
    "fresh_runs",
    "front_lines",
    "leaders_table",
    "metric_text",
    "preparation_line",
    "range_line",
    "result",
    "step_lines",
    "summary_lines",
    "worker_text",
]

# What a user types before the name of a command; the Makefile knows that no environment is active.
PROGRAM = os.environ.get("TUNER_PROGRAM", "python -m tuner")
NOT_CONFIRMED = " (one seed; not confirmed on fresh seeds)"
# From here on it is said before a search starts what the preprocessing costs. Source: convention.
WORTH_SAYING_BYTES = 100_000_000
WORTH_SAYING_S = 10.0
# Trials that `status` lists.
NUM_LEADERS = 10


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48 s`, `3 m 20 s`, `2 h 05 m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def worker_text(config: SearchConfig, worker: int | None) -> str:
    """Which worker it is, where there may be several."""
    return "" if worker is None or config.workers == 1 else f" (worker {worker})"


def claim_line(config: SearchConfig, claim: Claim) -> str:
    """What a worker is doing for the confirmation."""
    who = worker_text(config, claim.worker)
    if claim.seed_index is None:
        return f"measuring the stability margin of trial {claim.trial}{who}"
    return f"confirming trial {claim.trial}, fresh seed {claim.seed_index}{who}"


def metric_text(trial: TrialRecord) -> str:
    """The numbers of a finished trial as a person reads them: of one seed, or mean and spread over fresh ones."""
    if not trial.seed_runs:
        return trial.outcome.meaning
    worst = " (worst)" if trial.is_confirmed else ""
    return f"{_judged_text(trial)}, stability {trial.stability or 0.0:.2f}{worst}"


def _judged_text(trial: TrialRecord) -> str:
    return _metrics_text(trial.judged_runs) + (f" over {_seeds_text(trial)}" if trial.is_confirmed else "")


def _metrics_text(runs: Sequence[SeedRun]) -> str:
    """The metrics of trainings at their ends; of several, mean and spread of those that did not fail."""
    runs = [run for run in runs if not run.outcome.is_failed]
    known = [(f"val_{name}", METRIC_TITLES[name], ".3f") for task in TASKS.values() for name in task.metrics]
    known.append(("val_loss", METRIC_TITLES["loss"], ".4g"))
    parts = [
        f"{label} {_spread_text([run.metrics[name] for run in runs], digits)}"
        for name, label, digits in known
        if runs and all(name in run.metrics for run in runs)
    ]
    return ", ".join(parts)


def _spread_text(values: Sequence[float], digits: str) -> str:
    """A number, or mean and standard deviation of several."""
    mean = f"{statistics.fmean(values):{digits}}"
    return f"{mean} +- {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def _seeds_text(trial: TrialRecord) -> str:
    """How many fresh seeds, and how many of them failed."""
    failed = sum(run.outcome.is_failed for run in trial.fresh_runs)
    splits = sum(run.split_seed is not None for run in trial.fresh_runs)
    on_splits = f" ({splits} with a split of their own)" if splits else ""
    return f"{len(trial.fresh_runs)} fresh seeds{on_splits}" + (f", {failed} of which failed" if failed else "")


def _failure_text(trial: TrialRecord) -> str:
    return trial.message or trial.outcome.meaning


def finished_line(trial: TrialRecord, best: TrialRecord | None) -> str:
    """How a trial ended, in a line; the best so far is marked."""
    spent = f" in {duration(trial.finished - trial.started)}" if trial.finished and trial.started else ""
    if trial.outcome.is_failed or trial.outcome in (Outcome.NOT_LEARNING, Outcome.PRUNED):
        told = f"{trial.outcome.replace('_', ' ')}{spent}. {_failure_text(trial)}"
    else:
        told = f"{metric_text(trial)}{spent}" + (f". {trial.message}" if trial.message else "")
    told = f"{told.removesuffix('.')}. {explained(trial).capitalize()}" if explained(trial) else told
    mark = "  <- best so far" if best is not None and best.number == trial.number else ""
    return f"trial {trial.number}: {told}{mark}"


def fresh_runs(trials: Sequence[TrialRecord]) -> list[SeedRun]:
    """The trainings of the confirmation."""
    return [run for trial in trials for run in trial.fresh_runs]


def fresh_line(run: SeedRun) -> str:
    """How a training of the confirmation ended, in a line."""
    told = f"{_metrics_text([run]) or 'failed'}, stability {run.score.stability:.2f} in {duration(run.seconds)}"
    return f"confirming trial {run.trial}, fresh seed {run.seed_index}: {told}"


def describe_data(dataset: DatasetRecord) -> list[str]:
    """The data of a run in a few lines."""
    spec = dataset.spec
    shape = " x ".join(map(str, spec.input_shape))
    what = f"{spec.num_classes} {TASKS[spec.task].noun}" if spec.num_classes else "regression"
    lines = [
        f"{dataset.source}: {spec.kind} data, {shape}{', ' if shape else ''}{what}; "
        f"{dataset.num_train:,} rows to train, {dataset.num_validation:,} to validate, "
        f"{dataset.num_test:,} kept for the test"
    ]
    lines += [f"note: {note}" for note in dataset.notes]
    lines += [f"audit: {finding.cause}" for finding in dataset.findings]
    return [*lines, *_decision_lines(dataset)]


def audit_lines(dataset: DatasetRecord) -> list[str]:
    """The data and all that its audit found, worst first, with examples and remedies."""
    found = [line for finding in dataset.findings for line in _finding_lines(finding)]
    known = describe_data(dataclasses.replace(dataset, findings=()))
    return [*known, "", *(found or ["No faults found: every check of the audit passed."])]


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"{finding.code.replace('_', ' ')} (severity {finding.severity:.2f}): {finding.cause}"]
    # Samples of a table are named by their row alone.
    noun = "rows " if all(example.isdigit() for example in finding.examples) else ""
    lines += [f"    such as {noun}{', '.join(finding.examples)}"] if finding.examples else []
    return lines + [f"    {told(remedy)}. {remedy.reason}" for remedy in finding.remedies]


def _decision_lines(dataset: DatasetRecord) -> list[str]:
    """Where the search starts, and what it is judged by."""
    lines = []
    if dataset.proposed:
        starts = ", ".join(f"{name}={value}" for name, value in dataset.proposed.items())
        lines.append(f"the search starts from {starts}, as these data suggest")
    judged = METRIC_TITLES[dataset.metric] + (" (classes are unequal)" if dataset.metric == "balanced_accuracy" else "")
    return [*lines, f"judged by {judged}; a constant answer has error {dataset.chance_error:.3f}"]


def preparation_line(cost: Estimate) -> str:
    """What each distinct preprocessing costs, in a line; empty if it is next to nothing."""
    if cost.size_bytes < WORTH_SAYING_BYTES and cost.seconds < WORTH_SAYING_S:
        return ""
    return (
        f"each distinct preprocessing is done once and takes about {duration(max(1.0, cost.seconds))} and "
        f"{cost.size_bytes / 1e9:,.2f} GB on the disk, which has {cost.free_bytes / 1e9:,.1f} GB free"
    )


def range_line(found: RateRange) -> str:
    """The learning-rate range that sweeps proposed, in a line."""
    rates = ", ".join(f"{'above ' if sweep.is_bound else ''}{sweep.diverging_rate:.2g}" for sweep in found.sweeps)
    return (
        f"learning rate: {found.low:g} to {found.high:g}, from sweeps of {len(found.sweeps)} configurations, which "
        f"broke at {rates} (another range: --range learning_rate=LOW:HIGH without --lr-range)"
    )


def cause_lines(trials: Sequence[TrialRecord], adaptation: Adaptation) -> list[str]:
    """What made trials unstable so far, the most frequent cause first, and how the search adapts to it."""
    lines = [
        f"unstable, {likelihood} {cause}: trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for likelihood, cause, numbers in frequent_causes(trials)
    ]
    current = dataclasses.replace(adaptation, steps=adaptation.steps[-1:])
    return lines + [f"adapting: {line} (--no-adapt switches this off)" for line in step_lines(current, first=0)]


def step_lines(adaptation: Adaptation, *, first: int) -> list[str]:
    """All steps from one on, in sentences."""
    steps = adaptation.steps
    return [
        line
        for index in range(first, len(steps))
        for line in adaptation_lines(steps[index], steps[index - 1] if index else None)
    ]


def leaders_table(trials: Sequence[TrialRecord]) -> Table:
    """The best finished trials as a table."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("trial", "objective", "stability", "margin"):
        table.add_column(heading, justify="right")
    table.add_column("result")
    table.add_column("why unstable, and what to try")
    for trial in rank(trials)[:NUM_LEADERS]:
        stability = "" if trial.stability is None else f"{trial.stability:.2f}"
        told = _judged_text(trial) if trial.seed_runs and not trial.outcome.is_failed else _failure_text(trial)
        told = f"pruned at {told}" if trial.outcome is Outcome.PRUNED else told
        objective = "" if trial.objective is None else f"{trial.objective:.3f}"
        # Text: messages of exceptions have brackets in them, which rich would take for markup.
        margin = trial.margin.text if trial.margin else ""
        number = f"{trial.number} (baseline)" if trial.is_baseline else str(trial.number)
        table.add_row(number, objective, stability, margin, Text(told), Text(explained(trial)))
    return table


def summary_lines(
    trials: Sequence[TrialRecord], *, report: Path | None, root: Path, is_pareto: bool = False
) -> list[str]:
    """What a search says at its end; of the objective `pareto` with its front."""
    best = best_trial(trials)
    counts = Counter(str(trial.outcome).replace("_", " ") for trial in trials)
    lines = ["Trials: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())]
    if best is None:
        lines.append("No trial finished with a usable model; the report and the log say why.")
    elif best.outcome is Outcome.NOT_LEARNING:
        lines.append(
            f"No trial learned anything: even the best, trial {best.number}, is no better than a constant answer "
            f"({metric_text(best)}). The report says why. More --epochs, other --range learning_rate=..., or data in "
            f"which the target can be seen: {PROGRAM} audit."
        )
    else:
        lines += _best_lines(best, trials, is_pareto=is_pareto)
    if report is not None:
        lines.append(f"Report: {report}")
    if best is not None and best.outcome is not Outcome.NOT_LEARNING:
        lines.append(f"Next:   {PROGRAM} export {shlex.quote(str(root))} -o bundle")
    return lines


def _best_lines(best: TrialRecord, trials: Sequence[TrialRecord], *, is_pareto: bool) -> list[str]:
    """The best configuration, how stable it is, and what it is better than."""
    stability = best.stability if best.stability is not None else -1.0
    lines = [
        f"Best: trial {best.number}, {metric_text(best)}{'' if best.is_confirmed else NOT_CONFIRMED}",
        *(f"  {name} = {_value(value)}" for name, value in best.hyperparameters.items()),
        "Stable: the loss stayed close to its best all along."
        if stability >= STABLE
        else f"Not stable (below {STABLE}): try more trials, or lower rates with --range learning_rate=...",
    ]
    lines += [_margin_line(best.margin)] if best.margin else []
    lines += filter(None, [baseline_sentence(trials)])
    lines += front_lines(trials) if is_pareto else []
    calmer = next((trial for trial in rivals(trials) if (trial.stability or -1.0) >= STABLE), None)
    if stability < STABLE and calmer is not None:
        lines.append(f"Best of the stable ones: trial {calmer.number}, {metric_text(calmer)} (export takes --trial)")
    return lines


def front_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """The Pareto front: trials that no other one beats in error and in instability at once."""
    lines = [
        f"  trial {trial.number}: error {run.error:.4g}, instability {run.score.instability:.3f}"
        for trial in pareto_front(trials)
        if (run := trial.search_run) is not None
    ]
    title = f"Pareto front of error and instability, {len(lines)} of {len(trials)} trials (export takes --trial):"
    return [title, *lines] if lines else []


def result(trials: Sequence[TrialRecord], *, root: Path, seconds: float, is_pareto: bool = False) -> dict[str, Any]:
    """The result of a search or its status, for `--json`."""
    best = best_trial(trials)
    outcomes = Counter(str(trial.outcome) for trial in trials)
    return {
        "run": str(root),
        "trials": {"total": len(trials), **outcomes},
        "best": None if best is None else _best(best),
        **({"front": [trial.number for trial in pareto_front(trials)]} if is_pareto else {}),
        "seconds": round(seconds, 3),
    }


def _margin_line(margin: StabilityMargin) -> str:
    """The stability margin of the best configuration, with a warning if it is small."""
    how = "the sweep did not break it" if margin.sweep.is_bound else f"broke at {margin.sweep.diverging_rate:.2g}"
    line = f"Margin: {margin.text} (learning rate up to {margin.peak_rate:.2g}; {how})"
    if margin.ratio >= SMALL_MARGIN:
        return line
    return f"{line}. Small (below x{SMALL_MARGIN:g}): another seed may fail; prefer a lower learning rate."


def _best(best: TrialRecord) -> dict[str, Any]:
    metrics = median_seed_run(best).metrics if best.seed_runs else {}
    errors = [run.error for run in best.fresh_runs if run.error is not None]
    fresh = {
        "seeds": len(best.fresh_runs),
        "failed": sum(run.outcome.is_failed for run in best.fresh_runs),
        "error_mean": statistics.fmean(errors) if errors else None,
        "error_std": statistics.stdev(errors) if len(errors) > 1 else None,
    }
    return {
        "trial": best.number,
        "hyperparameters": best.hyperparameters,
        "objective": best.objective,
        "stability": best.stability,
        "margin": _margin(best.margin),
        **{name: finite(value) for name, value in metrics.items() if name.startswith("val_")},
        "confirmed": best.is_confirmed,
        **({"fresh": fresh} if best.is_confirmed else {}),
    }


def _margin(margin: StabilityMargin | None) -> dict[str, Any] | None:
    if margin is None:
        return None
    return {
        "ratio": margin.ratio,
        "is_lower_bound": margin.sweep.is_bound,
        "diverging_rate": margin.sweep.diverging_rate,
        "peak_rate": margin.peak_rate,
    }


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finite(value: float) -> float | None:
    """The number, or None where JSON has none for it."""
    return value if math.isfinite(value) else None
