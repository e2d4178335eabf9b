"""What a person sees of a search while it runs: live on a terminal, plain lines elsewhere; and events for machines."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.status import Status
from rich.text import Text

from tuner.config import SearchConfig
from tuner.data import watching
from tuner.records import (
    FINISHED_OUTCOMES,
    Adaptation,
    Claim,
    ConfirmPlan,
    Outcome,
    RateRange,
    TrialRecord,
)
from tuner.search.seeds import NUM_FRESH_SEEDS
from tuner.stability.ranking import best_trial
from tuner.store import storage_errors

if TYPE_CHECKING:
    pass

from tuner.wording import (
    claim_line,
    duration,
    finished_line,
    finite,
    fresh_line,
    fresh_runs,
    metric_text,
    range_line,
    step_lines,
    worker_text,
)

__all__ = ["AuditProgress", "Events", "Progress", "ReadingProgress"]

# From here on the checks of an audit are told one by one. Source: convention.
AUDIT_SAYS_AFTER_S = 3.0
# The same for the reading of files; how often it is said on a terminal, and elsewhere. Source: convention.
READING_SAYS_AFTER_S = 3.0
LIVE_INTERVAL_S = 0.25
READING_INTERVAL_S = 10.0


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
            self._finished_before = len(finished) + len(fresh_runs(finished))
            self._shown = {trial.number for trial in finished}
            self._fresh_shown = {(run.trial, run.seed_index) for run in fresh_runs(finished)}
        if self._detail == "quiet":
            return
        best = best_trial(trials)
        if self._detail == "epochs":
            self._show_epochs(trials)
        for trial in finished:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self._console.print(finished_line(trial, best), highlight=False, markup=False, soft_wrap=True)
        for run in fresh_runs(finished):
            if (run.trial, run.seed_index) not in self._fresh_shown:
                self._fresh_shown.add((run.trial, run.seed_index))
                self._console.print(fresh_line(run), highlight=False, markup=False, soft_wrap=True)
        if self._live:
            self._live.update(self._picture(trials, len(finished), best, plan))

    def show_adaptation(self, found: Adaptation) -> None:
        """Say once of each step how the search narrows or widens what it proposes from."""
        for line in step_lines(found, first=self._steps_shown) if self._detail != "quiet" else ():
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
        fresh = fresh_runs(trials)
        planned = self._config.trials + (
            len(plan.finalists) * plan.seeds if plan else NUM_FRESH_SEEDS * self._config.confirm
        )
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
            self._fresh_known = {(run.trial, run.seed_index) for run in fresh_runs(trials)}
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
                self.emit("epoch", trial=trial.number, epoch=epoch, val_loss=finite(trial.epoch_losses[epoch]))
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
        for run in fresh_runs(trials):
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


class ReadingProgress:
    """Says how far the reading or predicting of much data is, and about how long it will take, once it takes long.

    On a terminal one line that changes and goes away in the end, elsewhere a line from time to time.

    Args:
        console: Where to.
        is_quiet: Say nothing.
    """

    def __init__(
        self, console: Console, *, is_quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._is_quiet = is_quiet
        self._clock = clock
        self._started = self._said = 0.0
        self._doing = ""
        self._status: Status | None = None
        self._watching = contextlib.ExitStack()

    def __enter__(self) -> ReadingProgress:
        if not self._is_quiet:
            self._watching.enter_context(watching.watched(self.tell))
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.close()
        self._end()

    def tell(self, doing: str, done: int, total: int, unit: str = "") -> None:
        """After a piece was done.

        Args:
            doing: What is being done; another one begins anew.
            done: How many pieces are.
            total: How many there are.
            unit: Of the pieces.
        """
        now = self._clock()
        if done <= 1 or doing != self._doing:
            self._doing = doing
            self._started = now
            self._said = now + READING_SAYS_AFTER_S - self._interval_s
        if done == total:
            self._end()
        elif now - self._said >= self._interval_s:
            self._said = now
            left = (now - self._started) / max(1, done - 1) * (total - done)
            self._say(f"{doing}: {done:,} of {total:,}{unit}, about {duration(left)} left")

    @property
    def _interval_s(self) -> float:
        return LIVE_INTERVAL_S if self._console.is_terminal else READING_INTERVAL_S

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif self._status is None:
            self._status = self._console.status(Text(line))
            self._status.start()
        else:
            self._status.update(Text(line))

    def _end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


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
