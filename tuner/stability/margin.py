"""The stability margin: how far a configuration is from the learning rate at which it breaks.

A training can look perfect while the next seed dies at birth. A short sweep, in which the rate rises exponentially
from nothing until the training breaks, shows how far away that is:

    margin = rate at which the sweep diverges / highest rate of the training

All decisions here are functions of recorded losses; `tuner.training.margin` records them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np

from tuner.records import FloatArray, RateSweep

__all__ = [
    "HIGHEST_RATE",
    "LOWEST_RATE",
    "MAX_PENALTY_NATS",
    "NUM_STEPS",
    "SMALL_MARGIN",
    "diverging_rate",
    "penalty",
    "rate_range",
    "sweep_rates",
]

# The sweep: from a rate at which nothing moves to one at which everything breaks. Source: first measurement of this
# margin (30 configurations x 4 seeds on CIFAR-10); networks with normalisation may survive even the highest rate.
LOWEST_RATE, HIGHEST_RATE = 1e-5, 30.0
NUM_STEPS = 150
# The loss is smoothed by the median of this many steps: one outlier batch is no divergence, and a rise is seen five
# steps late, a factor of 1.7 in the rate. Source: 600 simulated sweeps of a loss of 3 L0 in lognormal noise of 30 and
# 50 %, with the limits below: 0.3 and 1 % diverge by chance; with 5 steps it is 6 and 11 %.
SMOOTHING_STEPS = 9
# Rise of the smoothed loss above its best that counts as diverged: the largest of this share of the chance loss, this
# share of the best, and so many standard deviations of one step. Source: the first two from the first measurement of
# this margin; they alone call 88 % of these simulated sweeps in 30 % noise diverged, with 3 deviations it is 2.5 %.
DIVERGED_CHANCE_FRAC = 0.5
DIVERGED_BEST_FRAC = 0.5
DIVERGED_NOISE_STDS = 4.0
# Standard deviation of a step from the median of absolute differences of neighbours. Source: normal distribution.
STD_OF_MEDIAN_DIFFERENCE = 1.4826 / math.sqrt(2)

# Margin below which a finalist is warned of, and from which on nothing is added to the objective. Where the line lies
# is a constant of this sweep, not of nature. Source: benchmarks/margin.py (docs/stability.md).
SMALL_MARGIN = 30.0
# The most that is added at a weight of 1: what a margin of 1 costs.
MAX_PENALTY_NATS = math.log(SMALL_MARGIN)

# The learning-rate range that sweeps of some configurations of a space propose: their median diverging rate over this
# is its upper end, that over the second figure its lower end. Source: benchmarks/margin.py; with these, 17 of the 18
# best rates (six on each of three datasets) lie inside, in the spaces' own range 11 (docs/stability.md).
UPPER_RATE_DIVISOR = 10.0
RANGE_RATIO = 1000.0
# No rate outside these is proposed, whatever the sweeps say. Source: convention.
RATE_LIMITS = (1e-6, 1.0)


def sweep_rates() -> FloatArray:
    """The learning rate of each step of a sweep."""
    return np.geomspace(LOWEST_RATE, HIGHEST_RATE, NUM_STEPS)


def diverging_rate(step_loss: FloatArray, *, grad_norm: FloatArray, chance_loss: float) -> float | None:
    """The rate at which a sweep diverged.

    Args:
        step_loss: Plain loss of each step of the sweep so far; what comes after the last step of a sweep is ignored.
        grad_norm: Gradient norm of each step, or empty. The loss can hide what it shows: ReLU makes 0 of NaN.
        chance_loss: L0, loss of the best constant answer.

    Returns:
        The rate of the first step whose loss or gradient is not finite, or whose smoothed loss has left its best; None
        if there is none.
    """
    losses = np.asarray(step_loss[:NUM_STEPS], dtype=float)
    bad = [np.flatnonzero(~np.isfinite(values[:NUM_STEPS])) for values in (losses, grad_norm)]
    end = min((int(steps[0]) for steps in bad if steps.size), default=None)
    risen = np.flatnonzero(_rise(losses[:end]) > _allowed_rise(losses[:end], chance_loss))
    first = int(risen[0]) if risen.size else end
    return None if first is None else float(sweep_rates()[first])


def _smoothed(losses: FloatArray) -> FloatArray:
    """Running median of the last steps; infinite before the first full window."""
    if len(losses) < SMOOTHING_STEPS:
        return np.full(len(losses), np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(losses, SMOOTHING_STEPS)
    return np.concatenate([np.full(SMOOTHING_STEPS - 1, np.inf), np.median(windows, axis=1)])


def _rise(losses: FloatArray) -> FloatArray:
    """Of each step's smoothed loss above the best so far."""
    smoothed = _smoothed(losses)
    with np.errstate(invalid="ignore"):  # infinite minus infinite, before the first full window
        return np.nan_to_num(smoothed - np.minimum.accumulate(smoothed), nan=0.0)


def _allowed_rise(losses: FloatArray, chance_loss: float) -> FloatArray:
    """Up to which a step's smoothed loss has not left its best; the noise is that of the steps before the window."""
    best = np.minimum.accumulate(_smoothed(losses))
    differences = np.abs(np.diff(losses))
    noise = [
        STD_OF_MEDIAN_DIFFERENCE * np.median(differences[: step - SMOOTHING_STEPS])
        if step >= 2 * SMOOTHING_STEPS
        else np.inf
        for step in range(len(losses))
    ]
    limits = [DIVERGED_BEST_FRAC * np.abs(best), DIVERGED_NOISE_STDS * np.array(noise)]
    return np.maximum(np.maximum(*limits), DIVERGED_CHANCE_FRAC * abs(chance_loss))


def rate_range(sweeps: Iterable[RateSweep]) -> tuple[float, float]:
    """The learning-rate range for a search, from sweeps of a few of its configurations.

    The upper end is a tenth of the median diverging rate, where some configurations still break, so that the search
    sees the edge; the lower end a thousandth of that.

    Args:
        sweeps: At least one.

    Returns:
        (low, high), rounded to two digits.
    """
    high = statistics.median(sweep.diverging_rate for sweep in sweeps) / UPPER_RATE_DIVISOR
    low, high = (min(max(rate, RATE_LIMITS[0]), RATE_LIMITS[1]) for rate in (high / RANGE_RATIO, high))
    return float(f"{low:.1e}"), float(f"{max(high, 2 * low):.1e}")


def penalty(margin: float | None) -> float:
    """What a small margin adds to the objective at weight 1: ln(SMALL_MARGIN / margin), bounded on both sides.

    Args:
        margin: Times the rate could be higher; None (the training failed, or could not be swept): the most.

    Returns:
        Nats in [0, MAX_PENALTY_NATS].
    """
    if margin is None or margin <= 0:
        return MAX_PENALTY_NATS
    return min(max(-math.log(margin / SMALL_MARGIN), 0.0), MAX_PENALTY_NATS)
