"""The stability score of one training, its parts, and the objective that a search minimises.

The drawdown of the log-loss beyond its own noise unites spikes, oscillation, divergence and over-fitting;
on the validation loss it is the generalisation loss GL of Prechelt, "Early Stopping - But When?" (1998).

All parts are in nats of relative loss: an instability of 0.1 reads "as if the loss had been 10 % above its
best all along". docs/stability.md has the definition in words, what it is measured to do, and its limits.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
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

# "contract" in a source below: tests/stability/test_contract.py, figures by benchmarks/score_contract.py.

# Rises far below this share of the chance loss do not matter. Source: convention (design of the score).
LOSS_FLOOR_FRAC = 1e-3
# A training that ends this many times above the chance loss has diverged, though float32 still holds the number.
# Source: convention; an unscaled regression may start there, so only the last epoch decides.
EXPLODED_FACTOR = 1e6
# A loss beyond this multiple of the chance loss is as bad as a loss can be. Source: convention; keeps sums finite.
MAX_RELATIVE_LOSS = 1e12
# Depths are averaged over the budget with this power: 1 makes a spike too cheap to see (x8 for 2 % of the budget:
# 0.04), 2 makes four of them dearer than an oscillation by a factor of two. Source: contract, point 4.
DEPTH_POWER = 1.5
# Window of the running best: this share of the planned budget in steps, within these limits. Source: contract, point 3
# (wider ones lag behind a steep fall, narrower ones take noise for a best).
BEST_WINDOW_FRAC, MIN_BEST_WINDOW_STEPS, MAX_BEST_WINDOW_STEPS = 1 / 25, 17, 257
# Medians down to half of that window take part in the running best, but none of fewer steps than this: the lower
# tail of five to nine losses with 50 % noise reaches 3 nats (clean steps then scored 0.37 to 0.71). Source: contract,
# point 1.
BEST_WINDOW_SPAN, LEAST_BEST_WINDOW_STEPS = 2, 17
# The noise is the smallest spread of second differences over these lags: an oscillation of period 2, 3 or 4 cancels in
# one of them, and so is not taken for noise. Source: contract, point 4.
NOISE_LAGS = (1, 2, 3, 4)
# Noise below this is not believed, in nats. Source: convention; wiggles of a few per cent are no event.
MIN_NOISE_NATS = 0.02
# Noise beyond this at chance level is instability, in nats; below it the limit grows as 1 / sqrt(loss), as the
# noise does where few samples make up the loss (measured 0.3 to 1.2 nats on healthy trainings at 1 to 20 % of L0:
# docs/stability.md). Source: contract, point 1 (50 % noise is 0.5 nats).
MAX_NOISE_NATS = math.log(1.8)
# Standard deviation over median absolute deviation of a normal distribution. Source: 1 / (the 75 % quantile).
MAD_TO_SIGMA = 1.4826
# A median of w values has 1.25 / sqrt(w) of the noise of one. Source: its asymptotic variance, pi / 2.
MEDIAN_NOISE_FACTOR = 1.25
# Widths of the means, in steps, whose recurring rise is an oscillation. Source: contract, periods 2 and 40.
SWING_WIDTHS_STEPS = (1, 2, 4, 8, 16, 32)
# The rises are judged over this share of the planned budget, at least so many steps and twelve widths.
# Source: contract, point 1.
SWING_FRAC, MIN_SWING_STEPS, MIN_SWING_WIDTHS = 0.1, 200, 12
# It is an oscillation when the upper quartile of the rises is beyond that of independent noise by the first number
# plus the second times sqrt(width / steps that differ): an epoch at most, as batches may come in the same order in
# every epoch. Source: contract, points 1 and 4.
SWING_FACTOR, SWING_FEW_FACTOR = 1.5, 2.5
# Single losses are cut to so many standard deviations for it. Source: contract, point 1 (heavy tails).
SWING_CLIP_SIGMAS = 2.5
# Depth of an oscillation over the upper quartile of its rises: for single steps, for means. Source: contract, point 4;
# a factor-2 square wave then costs the same whether each of its waves is seen or only the recurrence.
SWING_DEPTH_STEP, SWING_DEPTH_MEAN = 0.75, 1.4
# Length of the smoothing of the end of a run, in epochs. Source: convention.
END_EPOCHS = 3
# Share of the training that is "the end" (medians of the running best's window). Source: convention.
END_FRAC = 0.05
# Upper end of the instability. Source: convention; exp(-5) = 0.007.
MAX_INSTABILITY_NATS = 5.0
# Weights of V, E and G beside U and R. Source: contract, points 2 and 4 (over-fitting is dearer than oscillation).
VALIDATION_DRAWDOWN_WEIGHT, VALIDATION_UNRECOVERED_WEIGHT, GAP_WEIGHT = 0.5, 1.0, 0.25
# The validation loss is at its best from where it comes within this share of it. Source: convention; on a plateau the
# lowest epoch is chance.
AT_BEST_FRAC = 0.01
# A run whose best smoothed loss stays above this share of the chance loss has learned nothing. Source: convention.
NOT_LEARNING_FRAC = 0.98
# Fewer than these cannot be judged. Source: convention ("a few dozen steps, fewer than 4 epochs").
MIN_STEPS, MIN_EPOCHS = 48, 4
# An error beyond this multiple of the chance error counts no worse: the objective is bounded. Source: convention.
MAX_RELATIVE_ERROR = 10.0
# A relative error below this counts no better (a perfect validation score of 1e6 samples). Source: convention.
MIN_RELATIVE_ERROR = 1e-6


@dataclass(frozen=True)
class _Sensitivity:
    """What counts as beyond the noise, for single steps or for epochs.

    Attributes:
        windows: Widths of the medians that look for a rise, narrow for short and high ones, wide for long and low ones.
        noise_window: Values from which the noise is taken.
        few_values: The noise of k values is taken 1 + few_values / k times as high.
        single_sigmas, median_sigmas: A single value, or a median, is a rise beyond so many standard deviations.
        best_sigmas: A median is believed so many standard deviations above itself: the lowest of many is low by chance.
        end_sigmas: Allowance of what never recovered.
    """

    windows: tuple[int, ...]
    noise_window: int
    few_values: float
    single_sigmas: float
    median_sigmas: float
    best_sigmas: float
    end_sigmas: float


# Source: contract, points 1 and 3. Epochs are few, so their limits are lower: fewer of them exceed a limit by chance.
STEPS = _Sensitivity((1, 3, 5, 9, 17, 33, 65, 129, 257), 100, 6.0, 5.0, 4.5, 3.0, 3.5)
EPOCHS = _Sensitivity((1, 3), 20, 1.5, 4.0, 3.0, 2.0, 2.3)


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
    gap = _gap_growth(trace, not_assessed)
    if not all(_is_relative(losses, trace.chance_loss) for losses in (trace.step_loss, trace.validation_loss)):
        not_assessed.append("losses relative to chance (some are negative, or chance is; judged on a signed scale)")
    instability = min(
        MAX_INSTABILITY_NATS,
        (train.depth + train.unrecovered if train else 0.0)
        + (VALIDATION_DRAWDOWN_WEIGHT * validation.depth if validation else 0.0)
        + (VALIDATION_UNRECOVERED_WEIGHT * validation.unrecovered if validation else 0.0)
        + GAP_WEIGHT * (gap or 0.0),
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
    if not trace.train_loss.size:
        return None
    limit = EXPLODED_FACTOR * _unit(trace.chance_loss, trace.train_loss)
    if trace.train_loss[-1] <= limit:
        return None
    beyond = np.flatnonzero(trace.step_loss > limit)
    return int(beyond[0]) if beyond.size else trace.num_epochs * trace.steps_per_epoch


def is_learning(trace: Trace) -> bool:
    """Whether the best smoothed loss came below chance level; True when there is nothing to judge by."""
    if trace.step_loss.size >= MIN_STEPS:
        width = min(max(_best_window_steps(trace), trace.steps_per_epoch), trace.step_loss.size // 2) // 2 * 2 + 1
        best = float(np.min(_trailing(_median(trace.step_loss, width), width)))
    elif trace.train_loss.size:
        best = float(np.min(trace.train_loss))
    else:
        return True
    return best < trace.chance_loss - (1.0 - NOT_LEARNING_FRAC) * abs(trace.chance_loss)


def outcome_of(trace: Trace) -> Outcome:
    """How a training that ran to its end is to be called."""
    if first_failure(trace) is not None:
        return Outcome.DIVERGED
    return Outcome.COMPLETED if is_learning(trace) else Outcome.NOT_LEARNING


def smoothed_end(values: npt.ArrayLike) -> float:
    """Mean of the last three epochs: never the best epoch, because that is what hides a spike."""
    return float(np.mean(np.asarray(values, dtype=float)[-END_EPOCHS:]))


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


def _training_drawdown(trace: Trace, not_assessed: list[str]) -> _Drawdown | None:
    if trace.step_loss.size >= MIN_STEPS:
        return _drawdown(
            _log_loss(trace.step_loss, trace.chance_loss),
            _planned_steps(trace),
            best_window=_best_window_steps(trace),
            epoch_steps=max(1, trace.steps_per_epoch),
            restarts=[step for step, _ in trace.events],
        )
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
    return _drawdown(
        _log_loss(losses, trace.chance_loss),
        max(len(losses), trace.planned_epochs),
        best_window=max(EPOCHS.windows),
        epoch_steps=None,
        restarts=[step // max(1, trace.steps_per_epoch) for step, _ in trace.events],
    )


def _planned_steps(trace: Trace) -> int:
    return max(1, trace.step_loss.size, trace.planned_epochs * trace.steps_per_epoch)


def _best_window_steps(trace: Trace) -> int:
    """The largest window of `STEPS` that does not exceed its share of the budget."""
    share = np.clip(BEST_WINDOW_FRAC * _planned_steps(trace), MIN_BEST_WINDOW_STEPS, MAX_BEST_WINDOW_STEPS)
    return max(window for window in STEPS.windows if window <= share)


def _unit(chance_loss: float, losses: FloatArray) -> float:
    """What losses are measured by: the chance loss, or their own size where that is 0."""
    return abs(chance_loss) or float(np.max(np.abs(losses))) or 1.0


def _is_relative(losses: FloatArray, chance_loss: float) -> bool:
    return chance_loss > 0 and bool(np.all(losses >= 0))


def _log_loss(losses: FloatArray, chance_loss: float) -> FloatArray:
    """The loss in nats relative to the chance loss; signed and linear near 0 where losses are negative."""
    losses = np.asarray(losses, dtype=float)
    if _is_relative(losses, chance_loss):
        with np.errstate(over="ignore"):
            relative = np.minimum(losses / chance_loss, MAX_RELATIVE_LOSS)
        return np.asarray(np.log(relative + LOSS_FLOOR_FRAC), dtype=float)
    unit = _unit(chance_loss, losses)
    with np.errstate(over="ignore"):
        relative = np.clip(losses / unit, -MAX_RELATIVE_LOSS, MAX_RELATIVE_LOSS)
    return np.asarray(np.arcsinh(relative), dtype=float)


def _drawdown(
    log_loss: FloatArray, planned: int, *, best_window: int, epoch_steps: int | None, restarts: Sequence[int] = ()
) -> _Drawdown:
    """Drawdown of a loss above its running best, beyond its noise.

    Every entry of the depth is settled by what came before and the half window after it, so that a longer look at
    the same training never takes anything back.

    Args:
        log_loss: Finite; shape (n,).
        planned: Length of the planned budget: a long run does not dilute a spike.
        best_window: Width of the widest medians; stretches of fewer values are not judged.
        epoch_steps: Steps of an epoch, or None if the values are epochs.
        restarts: Where running best and noise begin anew.
    """
    area, unrecovered = 0.0, 0.0
    for stretch in np.split(log_loss, sorted({at for at in restarts if 0 < at < len(log_loss)})):
        if len(stretch) <= best_window:
            continue
        depth, unrecovered = _stretch_depth(stretch, planned, best_window=best_window, epoch_steps=epoch_steps)
        area += math.fsum(depth**DEPTH_POWER)
    return _Drawdown(depth=(area / planned) ** (1 / DEPTH_POWER), unrecovered=unrecovered)


def _stretch_depth(
    log_loss: FloatArray, planned: int, *, best_window: int, epoch_steps: int | None
) -> tuple[FloatArray, float]:
    """Depth at each time, and what never recovered, of a loss without restarts."""
    limits = EPOCHS if epoch_steps is None else STEPS
    medians = {window: _median(log_loss, window) for window in limits.windows if window <= best_window}
    level = _trailing(medians[best_window], best_window)
    noise = _noise(log_loss, np.minimum.accumulate(level), limits)
    best = _running_best(medians, noise, best_window, limits)
    depth = _depth(medians, best, noise, limits)
    if epoch_steps is not None:
        depth = np.maximum(depth, _swing_depth(log_loss, level, noise, planned=planned, epoch_steps=epoch_steps))
    depth[:best_window] = 0.0
    return depth, _unrecovered(medians[best_window], float(noise[-1]), best_window, limits)


def _median(values: FloatArray, window: int) -> FloatArray:
    """Running median, centred; the first and last half window is not settled yet."""
    return np.asarray(ndimage.median_filter(values, size=window, mode="nearest"), dtype=float)


def _trailing(centred: FloatArray, window: int) -> FloatArray:
    """The same running median where it looks back only; before the first full window, the first full one."""
    half = window // 2
    settled = centred[half : len(centred) - half]
    return np.concatenate((np.full(window - 1, settled[0]), settled))


def _noise(log_loss: FloatArray, best_level: FloatArray, limits: _Sensitivity) -> FloatArray:
    """Standard deviation of one value at each time, from what came before.

    Second differences, so that neither a steady fall nor the steady rise of over-fitting is noise.
    """
    noise = np.full(len(log_loss), MAX_NOISE_NATS)
    for lag in NOISE_LAGS:
        bends = np.abs(log_loss[2 * lag :] - 2 * log_loss[lag:-lag] + log_loss[: -2 * lag])
        if not bends.size:
            break
        spread = MAD_TO_SIGMA / math.sqrt(6) * _median_so_far(bends, limits.noise_window)
        few = 1 + limits.few_values / np.minimum(np.arange(1, len(bends) + 1), limits.noise_window)
        noise[2 * lag :] = spread * few if lag == 1 else np.minimum(noise[2 * lag :], spread * few)
    limit = MAX_NOISE_NATS * np.exp(-np.minimum(best_level, 0.0) / 2)
    return np.asarray(np.clip(noise, MIN_NOISE_NATS, limit), dtype=float)


def _median_so_far(values: FloatArray, window: int) -> FloatArray:
    """Median of the last `window` values, of fewer at the start."""
    width = min(window, len(values))
    medians = ndimage.median_filter(values, size=width, mode="nearest", origin=(width - 1) // 2)
    seen: list[float] = []
    for end in range(width - 1):
        bisect.insort(seen, float(values[end]))
        medians[end] = (seen[end // 2] + seen[(end + 1) // 2]) / 2
    return np.asarray(medians, dtype=float)


def _running_best(
    medians: dict[int, FloatArray], noise: FloatArray, best_window: int, limits: _Sensitivity
) -> FloatArray:
    """Lowest level so far; infinite until one is known."""
    best = np.full(len(noise), np.inf)
    least = min(best_window, max(LEAST_BEST_WINDOW_STEPS, best_window / BEST_WINDOW_SPAN))
    for window, median in medians.items():
        if window < least or len(noise) <= window:
            continue
        half = window // 2
        believed = median + limits.best_sigmas * MEDIAN_NOISE_FACTOR * noise / math.sqrt(window)
        lowest = np.minimum.accumulate(believed[half : len(noise) - half])
        best[window:] = np.minimum(best[window:], lowest[: len(noise) - window])
    return best


def _depth(medians: dict[int, FloatArray], best: FloatArray, noise: FloatArray, limits: _Sensitivity) -> FloatArray:
    """Height above the running best where any window shows that it is no noise; else 0.

    The whole height counts, not what exceeds the noise: the same spike costs the same at any noise.
    """
    depth = np.zeros(len(noise))
    for window, median in medians.items():
        rise = median - best
        limit = limits.single_sigmas * noise
        if window > 1:
            limit = limits.median_sigmas * MEDIAN_NOISE_FACTOR / math.sqrt(window) * noise
        is_settled = np.arange(len(noise)) < len(noise) - window // 2
        depth = np.where((rise > limit) & is_settled, np.maximum(depth, rise), depth)
    return depth


def _swing_depth(
    log_loss: FloatArray, level: FloatArray, noise: FloatArray, *, planned: int, epoch_steps: int
) -> FloatArray:
    """Depth of an oscillation whose single waves drown in the noise: rises that recur more than chance has them."""
    span = max(MIN_SWING_STEPS, round(SWING_FRAC * planned))
    depth = np.zeros(len(log_loss))
    reach = SWING_CLIP_SIGMAS * noise
    sums = np.concatenate(([0.0], np.cumsum(level + np.clip(log_loss - level, -reach, reach))))
    for width in SWING_WIDTHS_STEPS:
        stride = max(1, width // 4)
        count = span // stride
        start = (count - 1) * stride + 2 * width - 1
        if width * MIN_SWING_WIDTHS > span or start >= len(log_loss):
            break
        means = (sums[width:] - sums[:-width]) / width
        rises = (means[width:] - means[:-width])[::stride]
        upper = ndimage.percentile_filter(rises, 75, size=count)[count // 2 :][: len(rises) - count + 1]
        upper = np.repeat(upper, stride)[: len(log_loss) - start]
        factor = SWING_FACTOR + SWING_FEW_FACTOR * math.sqrt(width / min(span, epoch_steps))
        limit = factor / MAD_TO_SIGMA * math.sqrt(2 / width) * noise[start:]
        scale = SWING_DEPTH_STEP if width == 1 else SWING_DEPTH_MEAN
        depth[start:] = np.maximum(depth[start:], np.where(upper > limit, scale * upper, 0.0))
    return depth


def _unrecovered(median: FloatArray, noise: float, window: int, limits: _Sensitivity) -> float:
    """Lowest level of the end above the lowest before it."""
    settled = median[window // 2 : len(median) - window // 2]
    end = min(max(1, round(END_FRAC * len(median))), len(settled) // 2)
    if not end:
        return 0.0
    allowance = limits.end_sigmas * MEDIAN_NOISE_FACTOR * noise * math.sqrt(2 / window)
    return max(0.0, float(np.min(settled[-end:]) - np.min(settled[:-end]) - allowance))


def _gap_growth(trace: Trace, not_assessed: list[str]) -> float | None:
    """Growth of (validation - training loss) / chance loss since the validation loss came to its best."""
    epochs = trace.validation_loss.size
    if epochs < MIN_EPOCHS:
        return None
    if epochs != trace.train_loss.size:
        not_assessed.append(f"gap growth ({trace.train_loss.size} training and {epochs} validation epochs)")
        return None
    unit = _unit(trace.chance_loss, trace.validation_loss)
    with np.errstate(over="ignore"):
        gap = np.clip((trace.validation_loss - trace.train_loss) / unit, -MAX_RELATIVE_LOSS, MAX_RELATIVE_LOSS)
    validation = _median(trace.validation_loss, END_EPOCHS)
    lowest = float(np.min(validation))
    best = int(np.argmax(validation <= lowest + AT_BEST_FRAC * abs(lowest)))
    return max(0.0, float(np.median(gap[-END_EPOCHS:]) - _median(gap, END_EPOCHS)[best]))
