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
from tuner.stability.alarm import Alarm, end_level, find_alarm, is_at_chance, is_better, stands_out
from tuner.training.gate import Checkpoint, UpdateGate, restore, snapshot
from tuner.training.order import Deal

__all__ = ["Attempt", "Cause", "Cure", "Passage", "Replay", "find_cure", "is_same_step"]

# The rate is halved at most so often in one search for a cure: to 1/64. Source: benchmarks/guard.py (x 30).
MAX_HALVINGS = 6
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
        chance_loss, steps_per_epoch: Of the training.
    """

    before: FloatArray
    losses: FloatArray
    alarm: Alarm
    chance_loss: float
    steps_per_epoch: int

    @property
    def is_isolated(self) -> bool:
        """Whether all that is wrong are single losses that are not finite; the gate has kept the weights from them."""
        return not self.alarm.is_finite and self._alarm(self.losses) is None

    @property
    def suspects(self) -> tuple[int, ...]:
        """The steps to skip: those that are not finite; or the first raised one, and the one whose update it saw."""
        if self.is_isolated:
            return tuple(int(step) for step in np.flatnonzero(~np.isfinite(self.losses)))
        return tuple(range(max(0, self.alarm.start - 1), self.alarm.start + 1))

    def is_cured(self, losses: FloatArray) -> bool:
        """Whether the stretch is sound with these losses."""
        return self._alarm(losses) is None and (not self.is_isolated or bool(np.isfinite(losses).all()))

    def level(self, losses: FloatArray) -> float:
        """Log-loss at the end of the stretch."""
        return end_level(losses, chance_loss=self.chance_loss, steps_per_epoch=self.steps_per_epoch)

    def _alarm(self, losses: FloatArray) -> Alarm | None:
        so_far = np.concatenate((self.before, losses))
        return find_alarm(so_far, chance_loss=self.chance_loss, steps_per_epoch=self.steps_per_epoch)


@dataclass(frozen=True)
class Attempt:
    """One repetition of a passage.

    Attributes:
        scale: Factor on the rate.
        losses: Of its steps; shape (steps,).
        state: Of the model afterwards.
    """

    scale: float
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
    skip, half = repeat(scale, passage.suspects), repeat(scale / 2, ())
    by_skip, by_half = passage.is_cured(skip.losses), passage.is_cured(half.losses)
    is_half_better = is_better(passage.level(half.losses), passage.level(skip.losses))
    is_outlier = stands_out(half.losses, passage.alarm.start) and not is_half_better
    if by_skip and (not by_half or is_outlier):
        return Cure("data", skip, by_half, by_skip, 2)
    best, num_replays = (half if by_half else None), 2
    for halvings in range(2, MAX_HALVINGS + 1):
        level = np.inf if best is None else passage.level(best.losses)
        lower = repeat(scale / 2**halvings, ())
        num_replays += 1
        if passage.is_cured(lower.losses) and is_better(passage.level(lower.losses), level):
            best = lower
        elif best is not None and not is_at_chance(level):
            break
    return Cure("unknown" if best is None else "learning_rate", best, by_half, by_skip, num_replays)


class Replay:
    """Repeats steps of a training with its own compiled function; what the training recorded stays as it is.

    Args:
        deal: The batches.
        model: In the middle of its `fit`.
        train_function: The model's own.
        gate: Scales the rate.
        read_losses: The losses of the running epoch.
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
        return Attempt(scale, np.concatenate(losses), snapshot(self._gate.variables()))


def is_same_step(first: float, second: float) -> bool:
    """Whether two losses are those of the same batch at the same weights."""
    return bool(np.isclose(first, second, rtol=SAME_LOSS_FRAC, atol=0.0, equal_nan=True))
