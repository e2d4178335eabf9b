"""What a person sees of a search: live on a terminal, plain lines elsewhere, a summary; and events for machines."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from tuner.config import SearchConfig
from tuner.records import (
    FINISHED_OUTCOMES,
    Adaptation,
    Claim,
    ConfirmPlan,
    DatasetRecord,
    Finding,
    Outcome,
    RateRange,
    SeedRun,
    StabilityMargin,
    TrialRecord,
)
from tuner.search.plan import SEEDS
from tuner.stability.adaptation import adaptation_lines
from tuner.stability.baseline import baseline_sentence
from tuner.stability.explanation import explained, frequent_causes
from tuner.stability.margin import SMALL_MARGIN
from tuner.stability.ranking import STABLE, best_trial, median_seed_run, rank, rivals
from tuner.stability.remedies import told
from tuner.store import storage_errors
from tuner.tasks import METRIC_TITLES, TASKS

if TYPE_CHECKING:
    from tuner.data.cache import Estimate

__all__ = [
    "PROGRAM",
    "AuditProgress",
    "Events",
    "Progress",
    "audit_lines",
    "cause_lines",
    "claim_line",
    "describe_data",
    "duration",
    "leaders_table",
    "metric_text",
    "preparation_line",
    "range_line",
    "result",
    "summary_lines",
    "worker_text",
]

# What a user types before the name of a command; the Makefile knows that no environment is active.
PROGRAM = os.environ.get("TUNER_PROGRAM", "python -m tuner")
NOT_CONFIRMED = " (one seed; not confirmed on fresh seeds)"
# From here on it is said before a search starts what the preprocessing costs. Source: convention.
WORTH_SAYING_BYTES = 100_000_000
WORTH_SAYING_S = 10.0
# From here on the checks of an audit are told one by one. Source: convention.
AUDIT_SAYS_AFTER_S = 3.0
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


class Progress:
    """Shows a running search.

    Args:
        console: Where to; live if it is a terminal, else one line for each finished trial.
        config: The search.
        detail: `quiet` shows nothing, `trials` a line for each trial, `epochs` one for each epoch too.
    """

    def __init__(
        self, console: Console, config: SearchConfig, *, detail: Literal["quiet", "trials", "epochs"] = "trials"
    ) -> None:
        self._console = console
        self._config = config
        self._detail = detail
        self._epochs_shown: dict[int, int] = {}
        self._started = time.monotonic()
        self._shown: set[int] = set()
        self._fresh_shown: set[tuple[int, int]] = set()
        self._finished_before: int | None = None
        self._range_is_shown = False
        self._steps_shown = 0
        self._preparing_frac: float | None = None
        self._claims: Sequence[Claim] = ()
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal and detail != "quiet"
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, trials: Sequence[TrialRecord], plan: ConfirmPlan | None = None) -> None:
        """Show where search and confirmation stand now."""
        finished = [trial for trial in trials if trial.outcome in FINISHED_OUTCOMES]
        if self._finished_before is None:
            self._finished_before = len(finished) + len(_fresh_runs(finished))
            self._shown = {trial.number for trial in finished}
            self._fresh_shown = {(run.trial, run.seed_index) for run in _fresh_runs(finished)}
        if self._detail == "quiet":
            return
        best = best_trial(trials)
        if self._detail == "epochs":
            self._show_epochs(trials)
        for trial in finished:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self._console.print(_finished_line(trial, best), highlight=False, markup=False, soft_wrap=True)
        for run in _fresh_runs(finished):
            if (run.trial, run.seed_index) not in self._fresh_shown:
                self._fresh_shown.add((run.trial, run.seed_index))
                self._console.print(_fresh_line(run), highlight=False, markup=False, soft_wrap=True)
        if self._live:
            self._live.update(self._picture(trials, len(finished), best, plan))

    def show_adaptation(self, found: Adaptation) -> None:
        """Say once of each step how the search narrows or widens what it proposes from."""
        for line in _step_lines(found, first=self._steps_shown) if self._detail != "quiet" else ():
            self._console.print(f"adapting: {line}", highlight=False, markup=False, soft_wrap=True)
        self._steps_shown = len(found.steps)

    def show_preparation(self, done_frac: float | None) -> None:
        """Show how much of the preprocessing that a worker is busy with is done; None if it is with none."""
        self._preparing_frac = done_frac

    def show_claims(self, claims: Sequence[Claim]) -> None:
        """Show with the next update what the workers have taken of the confirmation."""
        self._claims = claims

    def show_range(self, found: RateRange | None) -> None:
        """Say once which learning-rate range the search has measured."""
        if found is not None and not self._range_is_shown and self._detail != "quiet":
            self._range_is_shown = True
            self._console.print(range_line(found), highlight=False, markup=False, soft_wrap=True)

    def _show_epochs(self, trials: Sequence[TrialRecord]) -> None:
        for trial in trials:
            shown = self._epochs_shown.get(trial.number, len(trial.epoch_losses) if trial.number in self._shown else 0)
            for epoch, loss in enumerate(trial.epoch_losses[shown:], start=shown + 1):
                line = f"trial {trial.number}: epoch {epoch} of {self._config.epochs}, validation loss {loss:.4g}"
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._epochs_shown[trial.number] = len(trial.epoch_losses)

    def _picture(
        self, trials: Sequence[TrialRecord], num_finished: int, best: TrialRecord | None, plan: ConfirmPlan | None
    ) -> RenderableType:
        bar = Bar(
            TextColumn("{task.fields[what]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
        )
        fresh = _fresh_runs(trials)
        planned = self._config.trials + (len(plan.finalists) * plan.seeds if plan else SEEDS * self._config.confirm)
        left = self._time_left(num_finished + len(fresh), planned)
        bar.add_task(left, total=self._config.trials, completed=num_finished, what="trials")
        if plan is not None:
            done = sum(run.trial in plan.finalists and run.seed_index <= plan.seeds for run in fresh)
            bar.add_task("fresh seeds", total=len(plan.finalists) * plan.seeds, completed=done, what="confirming")
        if self._preparing_frac is not None:
            bar.add_task("per cent", total=100, completed=int(100 * self._preparing_frac), what="preparing data")
        lines: list[RenderableType] = [bar]
        running = [trial for trial in trials if trial.outcome is Outcome.RUNNING]
        for trial in running:
            losses = trial.epoch_losses
            last = f", validation loss {losses[-1]:.4g}" if losses else ""
            lines.append(
                Text(
                    f"trial {trial.number}{worker_text(self._config, trial.worker)}: epoch {len(losses) + 1} of "
                    f"{self._config.epochs}{last}",
                    style="dim",
                )
            )
        lines += [Text(claim_line(self._config, claim), style="dim") for claim in self._claims]
        if not running and plan is None and num_finished < self._config.trials:
            sweeping = ", then sweeping the learning rate" if self._config.lr_range == "auto" else ""
            lines.append(Text(f"starting the worker (loading TensorFlow){sweeping} ...", style="dim"))
        if best is not None:
            lines.append(Text(f"best so far: trial {best.number}, {metric_text(best)}"))
        return Group(*lines)

    def _time_left(self, num_done: int, num_planned: int) -> str:
        """Of trials and fresh trainings alike; before the confirmation is planned, its upper bound counts."""
        done_here = num_done - (self._finished_before or 0)
        elapsed = time.monotonic() - self._started
        if done_here < 1:
            return f"{duration(elapsed)} elapsed"
        left = elapsed / done_here * max(0, num_planned - num_done)
        return f"{duration(elapsed)} elapsed, about {duration(left)} left"


class Events:
    """Appends one JSON line for each event to a file, for machines.

    Args:
        file: Where to, or None for nowhere.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[int, tuple[Outcome, int]] | None = None
        self._fresh_known: set[tuple[int, int]] = set()
        self._num_steps = 0

    def emit(self, event: str, **values: Any) -> None:
        """Append one event."""
        if self._file is not None:
            with storage_errors(self._file):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open(self._file, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"event": event, "time": time.time()} | values) + "\n")

    def update(self, trials: Sequence[TrialRecord], adaptation: Adaptation | None = None) -> None:
        """Append what has happened since the last call; what had ended before the first call is no event."""
        steps = adaptation.steps if adaptation else ()
        if self._known is None:
            self._num_steps = len(steps)
            self._fresh_known = {(run.trial, run.seed_index) for run in _fresh_runs(trials)}
            self._known = {trial.number: (trial.outcome, 0) for trial in trials if trial.outcome in FINISHED_OUTCOMES}
        for trial in trials:
            if trial.outcome is Outcome.RUNNING and not (trial.hyperparameters or trial.epoch_losses):
                continue  # It is still being proposed.
            outcome, num_epochs = self._known.get(trial.number, (Outcome.WAITING, 0))
            self._known[trial.number] = (trial.outcome, len(trial.epoch_losses))
            if outcome in FINISHED_OUTCOMES:
                continue
            if trial.outcome is not Outcome.WAITING and outcome is Outcome.WAITING:
                self.emit("trial_started", trial=trial.number, hyperparameters=trial.hyperparameters)
            for epoch in range(num_epochs, len(trial.epoch_losses)):
                self.emit("epoch", trial=trial.number, epoch=epoch, val_loss=_finite(trial.epoch_losses[epoch]))
            if trial.outcome in FINISHED_OUTCOMES:
                self.emit(
                    "trial_finished",
                    trial=trial.number,
                    outcome=str(trial.outcome),
                    objective=trial.objective,
                    stability=trial.stability,
                )
        for step in steps[self._num_steps :]:
            ranges = [
                {"parameter": each.parameter, "side": each.side, "bound": each.bound, "cause": each.cause}
                for each in step.ranges
            ]
            self.emit("adaptation", since=step.since, ranges=ranges)
        self._num_steps = len(steps)
        for run in _fresh_runs(trials):
            if (run.trial, run.seed_index) not in self._fresh_known:
                self._fresh_known.add((run.trial, run.seed_index))
                self.emit(
                    "confirmation",
                    trial=run.trial,
                    seed_index=run.seed_index,
                    outcome=str(run.outcome),
                    error=run.error,
                    stability=run.score.stability,
                )


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
    return f"{_metrics_text(trial)}, stability {trial.stability or 0.0:.2f}{worst}"


def _metrics_text(trial: TrialRecord) -> str:
    runs = [run for run in trial.judged_runs if not run.outcome.is_failed]
    known = [(f"val_{name}", METRIC_TITLES[name], ".3f") for task in TASKS.values() for name in task.metrics]
    known.append(("val_loss", METRIC_TITLES["loss"], ".4g"))
    parts = [
        f"{label} {_spread_text([run.metrics[name] for run in runs], digits)}"
        for name, label, digits in known
        if runs and all(name in run.metrics for run in runs)
    ]
    return ", ".join(parts) + (f" over {_seeds_text(trial)}" if trial.is_confirmed else "")


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


def _finished_line(trial: TrialRecord, best: TrialRecord | None) -> str:
    spent = f" in {duration(trial.finished - trial.started)}" if trial.finished and trial.started else ""
    if trial.outcome.is_failed or trial.outcome in (Outcome.NOT_LEARNING, Outcome.PRUNED):
        told = f"{trial.outcome.replace('_', ' ')}{spent}. {_failure_text(trial)}"
    else:
        told = f"{metric_text(trial)}{spent}" + (f". {trial.message}" if trial.message else "")
    told = f"{told.removesuffix('.')}. {explained(trial).capitalize()}" if explained(trial) else told
    mark = "  <- best so far" if best is not None and best.number == trial.number else ""
    return f"trial {trial.number}: {told}{mark}"


def _fresh_runs(trials: Sequence[TrialRecord]) -> list[SeedRun]:
    return [run for trial in trials for run in trial.fresh_runs]


def _fresh_line(run: SeedRun) -> str:
    error = "failed" if run.error is None else f"error {run.error:.3g}"
    told = f"{error}, stability {run.score.stability:.2f} in {duration(run.seconds)}"
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


class AuditProgress:
    """Says which check of the audit runs, once it takes long."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._started: float | None = None

    def tell(self, code: str, number: int, total: int) -> None:
        """Before a check runs.

        Args:
            code: Of the check.
            number: From 0.
            total: How many there are.
        """
        now = self._clock()
        self._started = now if self._started is None else self._started
        if now - self._started >= AUDIT_SAYS_AFTER_S:
            line = f"auditing: {code.replace('_', ' ')} ({number + 1} of {total})"
            self._console.print(line, highlight=False, markup=False)


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
        f"unstable, probably {cause}: trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for cause, numbers in frequent_causes(trials)
    ]
    current = dataclasses.replace(adaptation, steps=adaptation.steps[-1:])
    return lines + [f"adapting: {line} (--no-adapt switches this off)" for line in _step_lines(current, first=0)]


def _step_lines(adaptation: Adaptation, *, first: int) -> list[str]:
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
        told = _metrics_text(trial) if trial.seed_runs and not trial.outcome.is_failed else _failure_text(trial)
        told = f"pruned at {told}" if trial.outcome is Outcome.PRUNED else told
        objective = "" if trial.objective is None else f"{trial.objective:.3f}"
        # Text: messages of exceptions have brackets in them, which rich would take for markup.
        margin = trial.margin.text if trial.margin else ""
        number = f"{trial.number} (baseline)" if trial.is_baseline else str(trial.number)
        table.add_row(number, objective, stability, margin, Text(told), Text(explained(trial)))
    return table


def summary_lines(trials: Sequence[TrialRecord], *, report: Path | None, root: Path) -> list[str]:
    """What a search says at its end."""
    best = best_trial(trials)
    counts = Counter(str(trial.outcome).replace("_", " ") for trial in trials)
    lines = ["Trials: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())]
    if best is None:
        lines.append("No trial finished with a usable model; the report and the log say why.")
    else:
        stability = best.stability if best.stability is not None else -1.0
        lines += [
            f"Best: trial {best.number}, {metric_text(best)}{'' if best.is_confirmed else NOT_CONFIRMED}",
            *(f"  {name} = {_value(value)}" for name, value in best.hyperparameters.items()),
            "Stable: the loss stayed close to its best all along."
            if stability >= STABLE
            else f"Not stable (below {STABLE}): try more trials, or lower rates with --range learning_rate=...",
        ]
        lines += [_margin_line(best.margin)] if best.margin else []
        lines += filter(None, [baseline_sentence(trials)])
        calmer = next((trial for trial in rivals(trials) if (trial.stability or -1.0) >= STABLE), None)
        if stability < STABLE and calmer is not None:
            lines.append(
                f"Best of the stable ones: trial {calmer.number}, {metric_text(calmer)} (export takes --trial)"
            )
    if report is not None:
        lines.append(f"Report: {report}")
    if best is not None:
        lines.append(f"Next:   {PROGRAM} export {shlex.quote(str(root))} -o bundle")
    return lines


def result(trials: Sequence[TrialRecord], *, root: Path, seconds: float) -> dict[str, Any]:
    """The result of a search or its status, for `--json`."""
    best = best_trial(trials)
    outcomes = Counter(str(trial.outcome) for trial in trials)
    return {
        "run": str(root),
        "trials": {"total": len(trials), **outcomes},
        "best": None if best is None else _best(best),
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
        **{name: _finite(value) for name, value in metrics.items() if name.startswith("val_")},
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
