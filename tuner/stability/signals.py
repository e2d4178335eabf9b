"""What the detectors look at: the curves of a trace as logarithms, smoothed, with their noise and running best.

Everything at a step is computed from the steps before it, so that a detector sees during the training what it sees
afterwards.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tuner.records import FloatArray, Trace

__all__ = [
    "LONG_LOG_FRAC",
    "LOSS_FLOOR_FRAC",
    "MAD_TO_SIGMA",
    "MEDIAN_NOISE_FACTOR",
    "MIN_STEPS",
    "Signals",
    "finite_head",
    "noise_around",
    "read_signals",
    "running_median",
    "spread_of",
]

# Added to the relative loss before its logarithm. Source: the design of the score; rises far below do not matter.
LOSS_FLOOR_FRAC = 1e-3
# A loss beyond this multiple of the chance loss is as bad as a loss can be. Source: convention; keeps sums finite.
MAX_RELATIVE_LOSS = 1e12
# Values of a probe channel beyond this are cut. Source: convention; keeps logarithms and powers finite.
MAX_CHANNEL = 1e12
# Length of the running median in steps: a tenth of an epoch, within these limits. Source: the design of the score.
MIN_WINDOW_STEPS, MAX_WINDOW_STEPS = 9, 50
# The noise of a step is taken from this many windows before it. Source: convention; enough for a scale within 10 %.
NOISE_WINDOWS = 10
# Medians over epochs look at this share of them at least: the lowest of thousands of short medians lies far below the
# others by chance. Source: synthetic logs of 1,000 to 100,000 epochs at 5 to 30 % noise (tests/stability).
LONG_LOG_FRAC = 0.02
# Standard deviation over median absolute deviation of a normal distribution. Source: 1 / (the 75 % quantile).
MAD_TO_SIGMA = 1.4826
# A median of w values has 1.25 / sqrt(w) of the noise of one. Source: asymptotic variance of the median, pi / 2.
MEDIAN_NOISE_FACTOR = 1.2533
# Fewer steps than these are not judged. Source: convention ("a few dozen steps").
MIN_STEPS = 48
# Start of a training that is not judged, as a share of the planned budget (at least two windows). Source: convention.
WARM_UP_FRAC = 0.02
# An epoch that ends at this multiple of the rate of the epoch before it was raised by a schedule: what was best before
# no longer counts. Source: convention; a warm restart is x10 and more, a plateau callback never raises.
RATE_RISE_FACTOR = 1.2


@dataclass(frozen=True, eq=False)
class Signals:
    """The curves of one trace, ready to be judged.

    All losses are `ln(loss / chance loss + 1e-3)`, cut before the first number that is not finite.

    Attributes:
        trace: What they were made of, with a chance loss above 0.
        chance_loss: L0 of the trace, or the first loss where the trace has none.
        steps: Log-loss of each step; empty if there are too few, or negative ones.
        grad_norm: Natural logarithm of the gradient norm of each step, cut like `steps`.
        train, validation: Log-loss of each epoch; empty if missing or negative.
        window: Length of the running median in steps.
        warm_up_steps: Steps at the start that are not judged.
        not_assessed: What is missing and why.
    """

    trace: Trace
    chance_loss: float
    steps: FloatArray
    grad_norm: FloatArray
    train: FloatArray
    validation: FloatArray
    window: int
    warm_up_steps: int
    not_assessed: tuple[str, ...]

    @property
    def steps_per_epoch(self) -> int:
        """At least one."""
        return max(1, self.trace.steps_per_epoch)

    @property
    def num_epochs(self) -> int:
        """Epochs of which any loss was recorded."""
        return max(len(self.trace.train_loss), len(self.trace.validation_loss))

    @property
    def planned_epochs(self) -> int:
        """Epochs of the budget; never fewer than were trained."""
        return max(self.num_epochs, self.trace.planned_epochs)

    @functools.cached_property
    def smooth(self) -> FloatArray:
        """Running median of `steps`."""
        return running_median(self.steps, self.window)

    @functools.cached_property
    def noise(self) -> FloatArray:
        """Standard deviation of one step around the running median before it."""
        return noise_around(self.steps, self.smooth, self.window)

    @functools.cached_property
    def rate_rises(self) -> tuple[int, ...]:
        """Epochs (zero-based) in which the schedule raised the learning rate."""
        rate = self.trace.learning_rate
        with np.errstate(invalid="ignore", over="ignore"):
            rises = np.flatnonzero(rate[1:] > RATE_RISE_FACTOR * rate[:-1]) + 1
        return tuple(int(epoch) for epoch in rises)

    @functools.cached_property
    def first_judged_epoch(self) -> int:
        """The epoch in which the learning rate was last raised; 0 if it never was."""
        return self.rate_rises[-1] if self.rate_rises else 0

    def place(self, step: int) -> str:
        """Where a step is, for a user: epochs and steps count from one."""
        epoch = step // self.steps_per_epoch
        return f"epoch {epoch + 1}, step {step - epoch * self.steps_per_epoch + 1}"

    def channel(self, name: str) -> FloatArray | None:
        """The finite values of a probe channel, cut to a sane size, or None if there is none."""
        values = np.asarray(self.trace.channels.get(name, ()), dtype=float)
        values = np.clip(values[np.isfinite(values)], -MAX_CHANNEL, MAX_CHANNEL)
        return values if values.size else None


def read_signals(trace: Trace) -> Signals:
    """Prepare a trace for the detectors.

    Args:
        trace: Any; lengths may disagree, numbers may be missing, infinite or negative.

    Raises:
        ValueError: An array has more than one dimension, or a count is negative.
    """
    _validate(trace)
    not_assessed: list[str] = []
    chance_loss = _chance_loss(trace, not_assessed)
    raw = np.asarray(trace.step_loss, dtype=float)
    steps = _log_loss(raw, chance_loss, name="single steps", not_assessed=not_assessed)
    if 0 < len(steps) < MIN_STEPS:
        not_assessed.append(f"single steps (fewer than {MIN_STEPS})")
        steps = steps[:0]
    window = int(np.clip(trace.steps_per_epoch / 10, MIN_WINDOW_STEPS, MAX_WINDOW_STEPS))
    planned_steps = max(len(steps), trace.planned_epochs * trace.steps_per_epoch)
    return Signals(
        trace=dataclasses.replace(trace, chance_loss=chance_loss),
        chance_loss=chance_loss,
        steps=steps,
        grad_norm=_log_norm(trace, len(steps), not_assessed),
        train=_log_loss(trace.train_loss, chance_loss, name="training loss", not_assessed=not_assessed),
        validation=_log_loss(trace.validation_loss, chance_loss, name="validation loss", not_assessed=not_assessed),
        window=window,
        warm_up_steps=max(2 * window, round(WARM_UP_FRAC * planned_steps)),
        not_assessed=tuple(not_assessed),
    )


def _validate(trace: Trace) -> None:
    arrays = {
        "step_loss": trace.step_loss,
        "grad_norm": trace.grad_norm,
        "train_loss": trace.train_loss,
        "validation_loss": trace.validation_loss,
        "learning_rate": trace.learning_rate,
    }
    problems = [
        f"{name} has shape {np.shape(values)}, expected one dimension"
        for name, values in arrays.items()
        if np.ndim(values) != 1
    ]
    counts = {"steps_per_epoch": trace.steps_per_epoch, "planned_epochs": trace.planned_epochs}
    problems += [f"{name} is {count}, expected 0 or more" for name, count in counts.items() if count < 0]
    if problems:
        raise ValueError(f"This trace cannot be judged: {'; '.join(problems)}. Record it again.")


def _chance_loss(trace: Trace, not_assessed: list[str]) -> float:
    if math.isfinite(trace.chance_loss) and trace.chance_loss > 0:
        return trace.chance_loss
    not_assessed.append("level of the loss (no chance loss: the first loss stands for it)")
    for losses in (trace.train_loss, trace.validation_loss, trace.step_loss):
        if losses.size and math.isfinite(losses[0]) and losses[0] > 0:
            return float(losses[0])
    return 1.0


def _log_loss(losses: FloatArray, chance_loss: float, *, name: str, not_assessed: list[str]) -> FloatArray:
    head = finite_head(losses)
    if not head.size:
        not_assessed.append(f"{name} (none recorded)" if not losses.size else f"{name} (no finite number)")
    elif head.min() < 0:
        not_assessed.append(f"{name} (negative losses have no logarithm)")
        return head[:0]
    with np.errstate(over="ignore"):
        relative = np.minimum(head / chance_loss, MAX_RELATIVE_LOSS)
    return np.asarray(np.log(relative + LOSS_FLOOR_FRAC))


def _log_norm(trace: Trace, num_steps: int, not_assessed: list[str]) -> FloatArray:
    norms = finite_head(trace.grad_norm)[:num_steps]
    if not norms.size:
        not_assessed.append("gradient norm (none recorded)")
    return np.asarray(np.log(np.maximum(norms, np.finfo(float).tiny)))


def finite_head(values: npt.ArrayLike) -> FloatArray:
    """The values before the first that is NaN or infinite.

    Args:
        values: Shape (n,).
    """
    numbers = np.asarray(values, dtype=float)
    bad = np.flatnonzero(~np.isfinite(numbers))
    return numbers[: bad[0]] if bad.size else numbers


def running_median(values: FloatArray, window: int) -> FloatArray:
    """Trailing running median: entry t is the median of the last `window` values up to t (fewer at the start).

    Of an even number of values it is the upper of the two in the middle.
    """
    if not len(values):
        return np.empty(0)
    window = min(window, len(values))
    result = ndimage.median_filter(values, size=window, mode="nearest", origin=(window - 1) // 2).astype(float)
    for end in range(1, window):
        result[end - 1] = np.partition(values[:end], end // 2)[end // 2]
    return np.asarray(result)


def noise_around(log_loss: FloatArray, smooth: FloatArray, window: int) -> FloatArray:
    """Robust standard deviation of the values around the median before them, from the last `NOISE_WINDOWS` windows."""
    if len(log_loss) < 2:
        return np.zeros(len(log_loss))
    residual = np.abs(log_loss[1:] - smooth[:-1])
    spread = MAD_TO_SIGMA * running_median(residual, NOISE_WINDOWS * window)
    return np.concatenate((spread[:1], spread))


def spread_of(values: FloatArray) -> float:
    """Standard deviation of the noise on a short curve, robustly from second differences: trends are no noise.

    Args:
        values: Shape (n,).

    Returns:
        0 for fewer than four values.
    """
    if len(values) < 4:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(np.diff(values, n=2))) / math.sqrt(6))
