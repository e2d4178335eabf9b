"""When to act during a training: a spike or a divergence that is certain, seen in the losses of single steps so far.

Rarer than what `tuner.stability.spikes` reports: acting changes the training, so the loss must have doubled and stayed
up for five steps. What comes back by itself, and batches that stand out alone, are left to the report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.records import FloatArray
from tuner.stability.signals import (
    LOSS_FLOOR_FRAC,
    MAD_TO_SIGMA,
    MEDIAN_NOISE_FACTOR,
    noise_around,
    running_median,
)

__all__ = [
    "FOLLOWING_STEPS",
    "MAX_RELATIVE_LOSS",
    "ROLLBACK",
    "Alarm",
    "end_level",
    "find_alarm",
    "is_at_chance",
    "is_better",
    "stands_out",
]

# Kind of the event of a trace where a training went back to a checkpoint. Source: convention.
ROLLBACK = "rollback"
# The median of so many steps must be raised: one batch is no spike. Source: the spike detector.
FOLLOWING_STEPS = 5
# Rise of that median above the best level before it, in nats (ln 2 = twice the loss), and in standard errors.
# Source: no alarm in the healthy recorded trainings (tests/stability/test_alarm.py); the errors are the score's 6 s.
ALARM_RISE_NATS, ALARM_ERRORS = math.log(2), 6.0
# While there is no best level yet, the loss must reach this multiple of the first loss and of chance, in nats.
# Source: tests/stability/test_alarm.py (a sound start stays below twice).
BIRTH_RISE_NATS = math.log(3)
# A single doubling at the birth has killed the network if the loss stands at chance for so many steps after.
# Source: measured, small CNNs on CIFAR-10 at 30 times a sane rate (benchmarks/guard.py).
DEAD_STEPS = 40
# Below this share of the chance loss a spike does no harm. Source: the divergence detector.
HARMLESS_LEVEL_FRAC = 0.1
# Back at this share of chance, from a best this far below: what was learned is lost. Source: the divergence detector.
LOST_FRAC, LOST_RISE_NATS, LOST_ERRORS = 0.98, math.log(1.25), 4.0
# Length of the running median in steps: a tenth of an epoch, within these limits. Source: the detectors.
MIN_WINDOW_STEPS, MAX_WINDOW_STEPS = 9, 50
# A loss that is lower by this much is better, in nats. Source: convention.
BETTER_NATS = math.log(1.25)
# A batch stands out at this multiple of its neighbours' median loss. Source: convention (as the alarm).
OUTLIER_FACTOR = 2.0
# A loss beyond this multiple of the chance loss is as bad as a loss can be. Source: the score.
MAX_RELATIVE_LOSS = 1e12


@dataclass(frozen=True)
class Alarm:
    """A rise of the loss that is certain.

    Attributes:
        start: First raised step.
        factor: Highest level over the level before; infinite if the losses are not finite.
    """

    start: int
    factor: float

    @property
    def is_finite(self) -> bool:
        """Whether the losses are numbers."""
        return math.isfinite(self.factor)


def find_alarm(
    losses: FloatArray, *, chance_loss: float, steps_per_epoch: int, is_weighted: bool = False
) -> Alarm | None:
    """Find the first certain rise of the loss.

    Single losses that are not finite are passed over: their updates are not applied. Five in a row at the end are an
    alarm: then the weights themselves are lost, or every batch is.

    Args:
        losses: Of each step so far, as they are minimised; shape (steps,).
        chance_loss: L0 of the same.
        steps_per_epoch: n.
        is_weighted: Whether rows weigh differently. The loss then jumps with the rows of rare classes in a batch, and
            stands far below chance without them, so that only what lasts above chance counts.

    Returns:
        None also when there is too little to judge, or losses are negative.
    """
    is_finite = np.isfinite(losses)
    if len(losses) >= FOLLOWING_STEPS and not is_finite[-FOLLOWING_STEPS:].any():
        finite = np.flatnonzero(is_finite)
        return Alarm(int(finite[-1]) + 1 if finite.size else 0, math.inf)
    kept = np.flatnonzero(is_finite)
    found = _rise(losses[kept], chance_loss, window=_window(steps_per_epoch), is_weighted=is_weighted)
    return None if found is None else Alarm(int(kept[found.start]), found.factor)


def _window(steps_per_epoch: int) -> int:
    return int(np.clip(steps_per_epoch // 10, MIN_WINDOW_STEPS, MAX_WINDOW_STEPS))


def _log_loss(losses: FloatArray, chance_loss: float) -> FloatArray:
    return np.asarray(np.log(np.minimum(losses / chance_loss, MAX_RELATIVE_LOSS) + LOSS_FLOOR_FRAC))


def _rise(losses: FloatArray, chance_loss: float, *, window: int, is_weighted: bool) -> Alarm | None:
    if len(losses) <= FOLLOWING_STEPS or losses.min() < 0 or not chance_loss > 0:
        return None
    log_loss = _log_loss(losses, chance_loss)
    if is_weighted:
        log_loss = np.maximum(log_loss, 0.0)
    elif (dead := _death_at_birth(log_loss, window=window)) is not None:
        return dead
    smooth = running_median(log_loss, window)
    noise = noise_around(log_loss, smooth, window)
    best = smooth.copy()
    best[: window - 1] = _level_at_birth(log_loss)
    best = np.minimum.accumulate(best)
    # Entry t of all that follows is about the steps from t + 1 on, held against what was known at t.
    five = np.median(np.lib.stride_tricks.sliding_window_view(log_loss[1:], FOLLOWING_STEPS), axis=1)
    known, error = best[: len(five)], MEDIAN_NOISE_FACTOR * noise[: len(five)]
    is_birth = np.arange(len(five)) < window - 1
    beyond_noise = ALARM_ERRORS * error * math.sqrt(1 / FOLLOWING_STEPS + 1 / window)
    # At the birth the rise itself would be taken for noise.
    allowed = np.where(is_birth, BIRTH_RISE_NATS, np.maximum(ALARM_RISE_NATS, beyond_noise))
    is_raised = (five - known > allowed) & (five > math.log(HARMLESS_LEVEL_FRAC))
    is_raised |= _is_lost(smooth, known, error, window=window)
    if not is_raised.any():
        return None
    first = int(np.argmax(is_raised))
    reference = float(known[first])
    # Five steps are raised when three are: the first that is itself may come two steps later.
    limit = reference + allowed[first] / 2
    start = first + 1 + int(np.argmax(log_loss[first + 1 :] > limit))
    return Alarm(start, math.exp(float(five[first:].max()) - reference))


def _level_at_birth(log_loss: FloatArray) -> float:
    """Chance, or the first losses where they are higher; the very first batch may be the bad one."""
    return max(0.0, float(log_loss[:3].min()))


def _death_at_birth(log_loss: FloatArray, *, window: int) -> Alarm | None:
    """A jump in the first steps after which nothing is learned."""
    later = log_loss[window : window + DEAD_STEPS]
    if len(later) < DEAD_STEPS or np.median(later) < math.log(LOST_FRAC):
        return None
    first = _level_at_birth(log_loss)
    jump = float(log_loss[:window].max()) - first
    spread = MAD_TO_SIGMA * float(np.median(np.abs(later - np.median(later))))
    if jump <= max(ALARM_RISE_NATS, ALARM_ERRORS * spread):
        return None
    return Alarm(int(np.argmax(log_loss > first + ALARM_RISE_NATS / 2)), math.exp(jump))


def _is_lost(smooth: FloatArray, known: FloatArray, error: FloatArray, *, window: int) -> npt.NDArray[np.bool_]:
    """Whether the window after a step is back at chance level, after a best well below it."""
    later = np.full(len(known), -math.inf)
    ahead = smooth[window:][: len(known)]
    later[: len(ahead)] = ahead
    allowed = LOST_RISE_NATS + LOST_ERRORS * error * math.sqrt(2 / window)
    return np.asarray((later >= math.log(LOST_FRAC)) & (np.minimum(later, 0.0) - known > allowed))


def end_level(losses: FloatArray, *, chance_loss: float, steps_per_epoch: int) -> float:
    """Median log-loss of the last steps; infinite if there is none that is finite."""
    finite = losses[np.isfinite(losses)][-_window(steps_per_epoch) :]
    return float(np.median(_log_loss(np.maximum(finite, 0.0), chance_loss))) if finite.size else math.inf


def is_at_chance(level: float) -> bool:
    """Whether a level of `end_level` shows that nothing is learned."""
    return level >= math.log(LOST_FRAC)


def is_better(level: float, than: float, *, is_birth: bool = False) -> bool:
    """Whether a level of `end_level` is clearly below another; at chance level, and at the birth, any lower one is.

    Later in a training any lower rate gains a little; at its birth a rate that is too low loses.
    """
    return level < than - (0.0 if is_birth or is_at_chance(than) else BETTER_NATS)


def stands_out(losses: FloatArray, step: int) -> bool:
    """Whether the loss of a step, or of the one before it, is alone above those before and after, or is not finite."""
    suspects = losses[max(0, step - 1) : step + 1]
    if not np.isfinite(suspects).all():
        return True
    sides = (losses[max(0, step - 1 - FOLLOWING_STEPS) : max(0, step - 1)], losses[step + 1 :][:FOLLOWING_STEPS])
    medians = [float(np.median(side[np.isfinite(side)])) for side in sides if np.isfinite(side).any()]
    return bool(medians and suspects.max() > OUTLIER_FACTOR * max(medians))
