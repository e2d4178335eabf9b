"""What cures a spike: the same batches once more from a checkpoint, at a lower rate, or without the spike's batch.

Correlation is no cause; this intervention tells the learning rate from the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tuner.records import FloatArray
from tuner.stability.alarm import FOLLOWING_STEPS, Alarm, end_level, find_alarm, is_at_chance, is_better, stands_out
from tuner.training.gate import Checkpoint, UpdateGate, restore, snapshot
from tuner.training.order import Deal

__all__ = ["Attempt", "Cause", "Cure", "Passage", "Replay", "find_cure", "is_same_step"]

# The rate is halved at most so often in one search for a cure: to 1/64. Source: benchmarks/guard.py (x 30).
MAX_HALVINGS = 6
# So many batches of a stretch may be bad, each with its spike: one bad row comes once an epoch. Source: convention.
MAX_BAD_BATCHES = 4
# A repeated first step is the same step when its loss differs by less than this share. Source: convention; measured 0
# on a CPU, and parallel sums on a GPU differ in the last digits.
SAME_LOSS_FRAC = 1e-3

Cause = Literal["learning_rate", "data", "unknown"]


@dataclass(frozen=True)
class Passage:
    """The stretch of a training that is to be cured.

    Attributes:
        before: Losses from the last known event to the checkpoint; shape (steps,).
        losses: From the checkpoint to where the training stands; shape (steps,).
        alarm: Its `start` counted from the checkpoint.
        chance_loss, steps_per_epoch, is_weighted: Of the training.
        is_birth: Whether the checkpoint is the beginning of the training.
    """

    before: FloatArray
    losses: FloatArray
    alarm: Alarm
    chance_loss: float
    steps_per_epoch: int
    is_birth: bool = False
    is_weighted: bool = False

    @property
    def is_isolated(self) -> bool:
        """Whether all that is wrong are single losses that are not finite; the gate has kept the weights from them."""
        return not self.alarm.is_finite and self._alarm(self.losses) is None

    @property
    def suspects(self) -> tuple[int, ...]:
        """The steps to skip: those that are not finite; or the first raised one, and the one whose update it saw."""
        if self.is_isolated:
            return tuple(int(step) for step in np.flatnonzero(~np.isfinite(self.losses)))
        return _before_and_at(self.alarm.start)

    def later_suspects(self, losses: FloatArray, skipped: Collection[int]) -> tuple[int, ...]:
        """The steps to skip as well, after a repetition without some; none if it went wrong where they were."""
        found = self._alarm(losses)
        if found is None:
            return ()
        kept = [step for step in range(len(self.losses)) if step not in skipped]
        start = kept[max(0, found.start - len(self.before))]
        return _before_and_at(start) if start > max(skipped) + FOLLOWING_STEPS else ()

    def is_cured(self, losses: FloatArray) -> bool:
        """Whether the stretch is sound with these losses."""
        return self._alarm(losses) is None and (not self.is_isolated or bool(np.isfinite(losses).all()))

    def level(self, losses: FloatArray) -> float:
        """Log-loss at the end of the stretch."""
        return end_level(losses, chance_loss=self.chance_loss, steps_per_epoch=self.steps_per_epoch)

    def _alarm(self, losses: FloatArray) -> Alarm | None:
        so_far = np.concatenate((self.before, losses))
        return find_alarm(
            so_far,
            chance_loss=self.chance_loss,
            steps_per_epoch=self.steps_per_epoch,
            is_weighted=self.is_weighted,
        )


def _before_and_at(step: int) -> tuple[int, ...]:
    return tuple(range(max(0, step - 1), step + 1))


@dataclass(frozen=True)
class Attempt:
    """One repetition of a passage.

    Attributes:
        scale: Factor on the rate.
        skipped: Steps that were left out, counted from the start of the passage.
        losses: Of its steps; shape (steps,).
        state: Of the model afterwards.
    """

    scale: float
    skipped: tuple[int, ...]
    losses: FloatArray
    state: Checkpoint


@dataclass(frozen=True)
class Cure:
    """What came out of the probes.

    Attributes:
        cause: `unknown` if nothing cured.
        winner: The repetition to go on from; None if nothing cured.
        is_cured_by_half, is_cured_by_skip: The answers of the two probes.
        num_replays: Repetitions made.
    """

    cause: Cause
    winner: Attempt | None
    is_cured_by_half: bool
    is_cured_by_skip: bool
    num_replays: int


def find_cure(passage: Passage, repeat: Callable[[float, Collection[int]], Attempt], *, scale: float) -> Cure:
    """Probe half the rate against skipping the batch; if the rate is the cause, search for the one that cures.

    Both may cure. Then the batch is the cause if it still stands out at half the rate, which is no better at the end;
    else the rate: skipping a batch also changes the noise that set a spike off.

    Args:
        passage: What went wrong.
        repeat: Repeats the passage at a factor on the rate, without some of its steps (numbers counted from its start).
        scale: The present factor.
    """
    skip, num_skips = _without_bad_batches(passage, repeat, scale=scale)
    half = repeat(scale / 2, ())
    by_skip, by_half = passage.is_cured(skip.losses), passage.is_cured(half.losses)
    is_half_better = is_better(passage.level(half.losses), passage.level(skip.losses))
    is_outlier = stands_out(half.losses, passage.alarm.start) and not is_half_better
    # Where nothing is learned without the batch either, it was not the batch.
    is_learning = passage.is_isolated or not is_at_chance(passage.level(skip.losses))
    if by_skip and is_learning and (not by_half or is_outlier):
        return Cure("data", skip, by_half, by_skip, num_skips + 1)
    best, num_replays = (half if by_half else None), num_skips + 1
    for halvings in range(2, MAX_HALVINGS + 1):
        level = np.inf if best is None else passage.level(best.losses)
        lower = repeat(scale / 2**halvings, ())
        num_replays += 1
        is_lower = is_better(passage.level(lower.losses), level, is_birth=passage.is_birth)
        if passage.is_cured(lower.losses) and is_lower:
            best = lower
        elif best is not None and not is_at_chance(level):
            break
    return Cure("unknown" if best is None else "learning_rate", best, by_half, by_skip, num_replays)


def _without_bad_batches(
    passage: Passage, repeat: Callable[[float, Collection[int]], Attempt], *, scale: float
) -> tuple[Attempt, int]:
    """The repetition without the spike's batch, and without those of later spikes; and how many it took."""
    attempt, num_replays = repeat(scale, passage.suspects), 1
    while num_replays < MAX_BAD_BATCHES and (more := passage.later_suspects(attempt.losses, attempt.skipped)):
        attempt = repeat(scale, tuple(sorted({*attempt.skipped, *more})))
        num_replays += 1
    return attempt, num_replays


class Replay:
    """Repeats steps of a training with its own compiled function; what the training recorded stays as it is.

    Args:
        deal: The batches.
        model: In the middle of its `fit`.
        train_function: The model's own.
        gate: Scales the rate.
        read_losses: The losses so far, those of the last steps included.
    """

    def __init__(
        self,
        deal: Deal,
        model: Any,
        *,
        train_function: Callable[[Any], Any],
        gate: UpdateGate,
        read_losses: Callable[[], FloatArray],
    ) -> None:
        self._deal = deal
        self._model = model
        self._train_function = train_function
        self._gate = gate
        self._read_losses = read_losses

    def run(
        self,
        start: Checkpoint,
        steps: range,
        *,
        orders: Mapping[int, npt.NDArray[np.int64]],
        scale: float,
        skipped: Collection[int] = (),
    ) -> Attempt:
        """Repeat steps.

        Args:
            start: The model before them.
            steps: Their numbers in the training.
            orders: Of the epochs that they are in.
            scale: Factor on the rate.
            skipped: Steps to leave out, counted from the first.

        Returns:
            What came of it; the model is left in that state.
        """
        recorded = snapshot(self._model.metrics_variables)
        restore(start)
        self._gate.scale.assign(scale)
        wanted = [step for number, step in enumerate(steps) if number not in skipped]
        losses: list[FloatArray] = [np.empty(0)]
        for epoch in sorted({step // self._deal.num_batches for step in wanted}):
            batches = [step % self._deal.num_batches for step in wanted if step // self._deal.num_batches == epoch]
            iterator = self._deal.again(orders[epoch], batches)
            for _ in range(0, len(batches), self._model.steps_per_execution):
                self._train_function(iterator)
            losses.append(self._read_losses()[-len(batches) :])
        restore(recorded)
        return Attempt(scale, tuple(skipped), np.concatenate(losses), snapshot(self._gate.variables()))


def is_same_step(first: float, second: float) -> bool:
    """Whether two losses are those of the same batch at the same weights."""
    return bool(np.isclose(first, second, rtol=SAME_LOSS_FRAC, atol=0.0, equal_nan=True))
