"""The stability score of one training, its parts, and the objective that a search minimises.

The drawdown of the log-loss beyond its own noise unites spikes, oscillation, divergence and over-fitting;
on the validation loss it is the generalisation loss GL of Prechelt, "Early Stopping - But When?" (1998).

All parts are in nats of relative loss: an instability of 0.1 reads "as if the loss had been 10 % above its
best all along".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tuner.records import FloatArray, Outcome, StabilityScore, Trace

__all__ = [
    "failed_objective",
    "failed_score",
    "first_failure",
    "is_learning",
    "objective",
    "outcome_of",
    "score",
    "smoothed_end",
]

# Rises far below this share of the chance loss do not matter. Source: convention (design of the score).
LOSS_FLOOR_FRAC = 1e-3
# A training that ends this many times above the chance loss has diverged, though float32 still holds the number.
# Source: convention; an unscaled regression may start there, so only the last epoch decides.
EXPLODED_FACTOR = 1e6
# A loss beyond this multiple of the chance loss is as bad as a loss can be. Source: convention; keeps sums finite.
MAX_RELATIVE_LOSS = 1e12
# Length of the running median in steps: a tenth of an epoch, within these limits. Source: convention.
MIN_WINDOW_STEPS, MAX_WINDOW_STEPS = 9, 50
# Length of the running median over epochs, and of the smoothing of the end of a run. Source: convention.
WINDOW_EPOCHS = 3
# The noise is taken from the quietest stretch of this many running-median windows; shorter stretches under-estimate it
# (clean runs with 30 % batch noise then scored 0.82 instead of 0.96: tests/stability/test_score.py).
NOISE_WINDOWS = 10
# Noise beyond a factor of 1.5 from step to step is taken for instability, not for noise. Source: convention.
MAX_NOISE_NATS = math.log(1.5)
# Standard deviation over median absolute deviation of a normal distribution. Source: 1 / (the 75 % quantile).
MAD_TO_SIGMA = 1.4826
# A running median of w values has 1.25 / sqrt(w) of the noise of one; three of those are allowed.
# Source: asymptotic variance of the median, pi / 2; three standard errors by convention.
MEDIAN_NOISE_FACTOR, ALLOWED_SIGMAS = 1.25, 4.0
# A single batch counts only beyond this many standard deviations. Source: convention.
BATCH_SIGMAS = 6.0
# Start of a training that is not judged, as a share of the planned budget (at least two windows). Source: convention.
WARM_UP_FRAC = 0.02
# Share of the training whose median is "the end". Source: convention.
END_FRAC = 0.05
# Upper end of the instability. Source: convention; exp(-5) = 0.007.
MAX_INSTABILITY_NATS = 5.0
# A run whose best smoothed loss stays above this share of the chance loss has learned nothing. Source: convention.
NOT_LEARNING_FRAC = 0.98
# Fewer than these cannot be judged. Source: convention ("a few dozen steps, fewer than 4 epochs").
MIN_STEPS, MIN_EPOCHS = 48, 4
# An error beyond this multiple of the chance error counts no worse: the objective is bounded. Source: convention.
MAX_RELATIVE_ERROR = 10.0
# A relative error below this counts no better (a perfect validation score of 1e6 samples). Source: convention.
MIN_RELATIVE_ERROR = 1e-6


@dataclass(frozen=True)
class _Drawdown:
    """Depth times time below water, and what never recovered; both in nats."""

    depth: float
    unrecovered: float


def score(trace: Trace) -> StabilityScore:
    """Score the stability of one training.

    Args:
        trace: The recorded numbers; without step losses the epoch losses are judged instead.

    Returns:
        Finite and bounded for every trace: `stability` in [-1, 1], `instability` in [0, 5].
    """
    failed_at = first_failure(trace)
    if failed_at is not None:
        planned = max(1, trace.planned_epochs * trace.steps_per_epoch)
        return _failed(min(1.0, failed_at / planned))
    not_assessed: list[str] = []
    train = _training_drawdown(trace, not_assessed)
    validation = _validation_drawdown(trace, not_assessed)
    gap = _gap_growth(trace)
    instability = min(
        MAX_INSTABILITY_NATS,
        (train.depth + train.unrecovered if train else 0.0)
        + ((validation.depth + validation.unrecovered) / 2 if validation else 0.0)
        + (gap or 0.0) / 4,
    )
    stability = math.exp(-instability)
    return StabilityScore(
        stability=stability if is_learning(trace) else stability / 2,
        instability=instability,
        drawdown=train.depth if train else None,
        unrecovered=train.unrecovered if train else None,
        validation_drawdown=validation.depth if validation else None,
        validation_unrecovered=validation.unrecovered if validation else None,
        gap_growth=gap,
        not_assessed=tuple(not_assessed),
    )


def first_failure(trace: Trace) -> int | None:
    """Step at which loss or gradient stopped being a finite number of any use, or None if they never did.

    The gradient counts because the loss can hide it: on a CPU, ReLU makes 0 of NaN, so that a network with NaN weights
    goes on with a finite loss at chance level (measured: tests/training/test_monitor.py).
    """
    bad = [np.flatnonzero(~np.isfinite(values)) for values in (trace.step_loss, trace.grad_norm)]
    bad_steps = [int(steps[0]) for steps in bad if steps.size]
    if bad_steps:
        return min(bad_steps)
    epochs = [np.flatnonzero(~np.isfinite(losses)) for losses in (trace.train_loss, trace.validation_loss)]
    bad_epochs = [int(bad[0]) for bad in epochs if bad.size]
    if bad_epochs:
        return (min(bad_epochs) + 1) * trace.steps_per_epoch
    return _explosion(trace)


def _explosion(trace: Trace) -> int | None:
    """Step at which the loss went beyond all measure, if it is still there in the last epoch."""
    limit = EXPLODED_FACTOR * trace.chance_loss
    if not trace.train_loss.size or trace.train_loss[-1] <= limit:
        return None
    beyond = np.flatnonzero(trace.step_loss > limit)
    return int(beyond[0]) if beyond.size else trace.num_epochs * trace.steps_per_epoch


def is_learning(trace: Trace) -> bool:
    """Whether the best smoothed loss came below chance level; True when there is nothing to judge by."""
    if trace.step_loss.size >= MIN_STEPS:
        best = float(np.min(_running_median(trace.step_loss, _window_steps(trace))))
    elif trace.train_loss.size:
        best = float(np.min(trace.train_loss))
    else:
        return True
    return best < NOT_LEARNING_FRAC * trace.chance_loss


def outcome_of(trace: Trace) -> Outcome:
    """How a training that ran to its end is to be called."""
    if first_failure(trace) is not None:
        return Outcome.DIVERGED
    return Outcome.COMPLETED if is_learning(trace) else Outcome.NOT_LEARNING


def smoothed_end(values: npt.ArrayLike) -> float:
    """Mean of the last three epochs: never the best epoch, because that is what hides a spike."""
    return float(np.mean(np.asarray(values, dtype=float)[-WINDOW_EPOCHS:]))


def objective(error: float, *, chance_error: float, instability: float, weight: float) -> float:
    """J = ln(error / chance error) + weight * instability, minimised.

    `exp(weight * instability)` is a multiplier on the error, so J trades the two in one unit.

    Args:
        error: Error at the end, larger is worse, in the unit of `chance_error`.
        chance_error: Error of the best constant answer; > 0.
        instability: In nats, in [0, 5].
        weight: Lambda, >= 0.

    Returns:
        A number in [ln 1e-6, ln 10 + 5 * weight].
    """
    relative = error / chance_error if math.isfinite(error) else MAX_RELATIVE_ERROR
    return math.log(min(max(relative, MIN_RELATIVE_ERROR), MAX_RELATIVE_ERROR)) + weight * instability


def failed_objective(progress_frac: float, *, weight: float) -> float:
    """J of a run that failed: worse than any finished run, a little better the later it failed.

    Args:
        progress_frac: Share of the planned budget done when it failed, in [0, 1].
        weight: Lambda, as in `objective`.
    """
    worst = math.log(MAX_RELATIVE_ERROR) + weight * MAX_INSTABILITY_NATS
    return worst + 1.0 - min(max(progress_frac, 0.0), 1.0)


def failed_score(progress_frac: float) -> StabilityScore:
    """The score of a run that left no trace to judge: an exception, or a worker that died."""
    return _failed(min(max(progress_frac, 0.0), 1.0))


def _failed(progress_frac: float) -> StabilityScore:
    return StabilityScore(
        stability=-1.0 + progress_frac,
        instability=MAX_INSTABILITY_NATS,
        drawdown=None,
        unrecovered=None,
        validation_drawdown=None,
        validation_unrecovered=None,
        gap_growth=None,
        not_assessed=("loss or gradient did not stay finite",),
    )


def _window_steps(trace: Trace) -> int:
    return int(np.clip(trace.steps_per_epoch / 10, MIN_WINDOW_STEPS, MAX_WINDOW_STEPS))


def _training_drawdown(trace: Trace, not_assessed: list[str]) -> _Drawdown | None:
    if trace.step_loss.size >= MIN_STEPS:
        planned = max(trace.step_loss.size, trace.planned_epochs * trace.steps_per_epoch)
        return _drawdown(trace.step_loss, trace.chance_loss, window=_window_steps(trace), planned=planned)
    if trace.train_loss.size >= MIN_EPOCHS:
        not_assessed.append("single steps (epoch-level only)")
        return _epoch_drawdown(trace.train_loss, trace)
    not_assessed.append(f"training loss (fewer than {MIN_STEPS} steps and {MIN_EPOCHS} epochs)")
    return None


def _validation_drawdown(trace: Trace, not_assessed: list[str]) -> _Drawdown | None:
    if trace.validation_loss.size >= MIN_EPOCHS:
        return _epoch_drawdown(trace.validation_loss, trace)
    reason = f"fewer than {MIN_EPOCHS} epochs" if trace.validation_loss.size else "none recorded"
    not_assessed.append(f"validation loss ({reason})")
    return None


def _epoch_drawdown(losses: FloatArray, trace: Trace) -> _Drawdown:
    return _drawdown(losses, trace.chance_loss, window=WINDOW_EPOCHS, planned=max(len(losses), trace.planned_epochs))


def _drawdown(losses: FloatArray, chance_loss: float, *, window: int, planned: int) -> _Drawdown:
    """Drawdown of a loss above its running best, beyond its noise.

    Args:
        losses: Finite; shape (n,).
        chance_loss: L0.
        window: Length of the running median.
        planned: Length of the planned budget: a long run does not dilute a spike.
    """
    with np.errstate(over="ignore"):
        relative = np.clip(losses / chance_loss, 0.0, MAX_RELATIVE_LOSS)
    log_loss = np.log(relative + LOSS_FLOOR_FRAC)
    smooth = _running_median(log_loss, window)
    noise = _noise(log_loss, NOISE_WINDOWS * window)
    allowance = ALLOWED_SIGMAS * MEDIAN_NOISE_FACTOR * noise / math.sqrt(window)
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(smooth)[:-1]))
    depth = np.maximum(smooth - best_before - allowance, log_loss - best_before - allowance - BATCH_SIGMAS * noise)
    depth = np.maximum(depth, 0.0)
    depth[: _warm_up(window, planned)] = 0.0
    return _Drawdown(
        depth=float(np.sqrt(np.sum(depth**2) / planned)),
        unrecovered=_unrecovered(
            log_loss, float(noise[-1]), minimum_length=WINDOW_EPOCHS if window == WINDOW_EPOCHS else window
        ),
    )


def _warm_up(window: int, planned: int) -> int:
    return 1 if window == WINDOW_EPOCHS else max(2 * window, round(WARM_UP_FRAC * planned))


def _running_median(values: FloatArray, window: int) -> FloatArray:
    """Trailing running median: entry t looks back over at most `window` values, so it never sees the future."""
    padded = ndimage.median_filter(values, size=window, mode="nearest", origin=(window - 1) // 2)
    for end in range(1, min(window, len(values))):
        padded[end - 1] = np.median(values[:end])
    return np.asarray(padded, dtype=float)


def _noise(log_loss: FloatArray, window: int) -> FloatArray:
    """Standard deviation of one value, in the quietest window so far.

    Robustly from second differences, so that a steady fall, or the steady rise of over-fitting, is no noise.
    """
    if len(log_loss) < 3:
        return np.zeros(len(log_loss))
    spread = MAD_TO_SIGMA * _running_median(np.abs(np.diff(log_loss, n=2)), window) / math.sqrt(6)
    settled = np.minimum.accumulate(spread[min(window, len(spread)) - 1 :])
    full = np.concatenate((np.full(len(log_loss) - len(settled), settled[0]), settled))
    return np.asarray(np.minimum(full, MAX_NOISE_NATS))


def _unrecovered(log_loss: FloatArray, noise: float, *, minimum_length: int) -> float:
    """Median of the end above the lowest median of any earlier block of the same length."""
    length = max(round(END_FRAC * len(log_loss)), minimum_length)
    if len(log_loss) < 2 * length:
        length = max(1, len(log_loss) // 2)
    medians = _running_median(log_loss, length)[length - 1 :]
    allowance = ALLOWED_SIGMAS * MEDIAN_NOISE_FACTOR * noise / math.sqrt(length)
    return max(0.0, float(medians[-1] - np.min(medians) - allowance))


def _gap_growth(trace: Trace) -> float | None:
    """Growth of (validation - training loss) / chance loss since the best validation epoch."""
    if trace.validation_loss.size < MIN_EPOCHS:
        return None
    gap = (trace.validation_loss - trace.train_loss[: trace.validation_loss.size]) / trace.chance_loss
    best = int(np.argmin(trace.validation_loss))
    return max(0.0, float(np.median(gap[-WINDOW_EPOCHS:]) - gap[best]))
