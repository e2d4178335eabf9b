"""Detectors of sudden faults: outlier batches, spikes of loss and gradient, divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tuner.grammar import counted
from tuner.records import Finding, FloatArray
from tuner.stability.score import first_failure
from tuner.stability.signals import LONG_LOG_FRAC, MEDIAN_NOISE_FACTOR, MIN_STEPS, Signals, noise_around, running_median
from tuner.stability.symptoms import NotAssessed, graded, symptom

__all__ = [
    "Divergence",
    "Spike",
    "divergence",
    "find_divergence",
    "find_spikes",
    "gradient_spike",
    "loss_spike",
    "outlier_batch",
]

# A step stands out when it lies this many standard deviations, and this factor, above the running median before it.
# Source: the design of the detectors; 6 s are never reached by chance in a whole training of normal noise.
SUDDEN_SIGMAS, SUDDEN_RISE_NATS = 6.0, math.log(1.25)
# It is a spike and no outlier when the median of the next five steps is still this many standard errors, and this
# factor, above. Source: the design (1.7 s at a window of 50, which are 3 standard errors of the two medians).
FOLLOWING_STEPS, RAISED_ERRORS, RAISED_NATS = 5, 3.0, math.log(1.1)
# In noisy losses no single step stands out, but five together do. Source: tests/stability/test_detectors.py: a spike
# x8 in 50 % batch noise is found, and none in 200 healthy traces.
BROAD_ERRORS = 5.0
# Spikes that stay below this share of the chance loss do no harm. Source: convention; shown, but never severe.
HARMLESS_LEVEL_FRAC = 0.05
# Rise of the smoothed log-loss above its best that counts as divergence, in nats (ln 2 = twice the loss).
# Source: TheDeepChecker uses x2.
DIVERGENCE_RISE_NATS = math.log(2)
# Standard errors of the smoothed loss that are no divergence. Source: the allowance of the score.
DIVERGENCE_ERRORS = 4.0
# A loss below this share of the chance loss has not diverged, whatever its best was. Source: convention.
DIVERGENCE_LEVEL_FRAC = 0.1
# Back at this share of the chance loss, after a best this far below, all learning is lost, even after a scheduled rise
# of the rate. Source: the score (0.98); convention (a best at 0.78 or less).
COLLAPSE_FRAC, COLLAPSE_RISE_NATS = 0.98, math.log(1.25)
# Without single steps, the median of this many epochs is looked at. Source: convention; one epoch is no trend.
DIVERGENCE_EPOCHS = 3
# A loss that fell by this in an epoch is on its way back. Source: convention.
FALLING_NATS = 0.05
# A gradient stands out at this many standard deviations of its logarithm, and this factor. Source: the design (6);
# the factor keeps out the last digits of converged trainings.
GRADIENT_SIGMAS, GRADIENT_RISE_NATS = 6.0, math.log(3.0)
# Without a loss spike after it, only this factor is worth a line. Source: convention; gradient norms have heavy tails,
# and at 3 a third of the healthy synthetic traces got one.
GRADIENT_ALONE_NATS = math.log(10.0)
# Larger factors are told as this one. Source: convention; keeps them finite.
MAX_TOLD_NATS = math.log(1e12)
# A gradient spike belongs to a loss spike that starts at most so many steps later. Source: the design ("one before").
GRADIENT_LEAD_STEPS = 3


@dataclass(frozen=True)
class Spike:
    """A stretch of raised loss.

    Attributes:
        start, end: First step, and the first that is back (the number of steps if none is).
        rise_nats: Of the median of five steps above the running median before.
        level_frac: Highest median of five steps, as a share of the chance loss.
    """

    start: int
    end: int
    rise_nats: float
    level_frac: float


@dataclass(frozen=True)
class Divergence:
    """The smoothed loss left its best, and stayed away.

    Attributes:
        step: Where it left.
        rise_nats: Above the best, at most.
        is_recovered: Whether it came back before the trace ends.
        num_steps: How long it stayed away.
        is_falling: Whether it is on its way back.
    """

    step: int
    rise_nats: float
    is_recovered: bool
    num_steps: int
    is_falling: bool


def outlier_batch(signals: Signals) -> tuple[Finding, ...]:
    """Single batches far above their neighbours, after which all is as before: for the report only."""
    _, outliers = find_spikes(signals)
    if not outliers:
        return ()
    rises = [float(signals.steps[step] - signals.smooth[step - 1]) for step in outliers]
    worst = int(np.argmax(rises))
    return (
        symptom(
            "outlier_batch",
            f"{counted(len(outliers), 'single batches')} had a loss far above the others "
            f"({math.exp(rises[worst]):.1f} times at most), and the training went on as before.",
            where=signals.place(outliers[worst]),
            severity=graded(len(outliers), start=1, end=20, low=0.1, high=0.25),
            confidence=0.8,
            evidence={"num_outliers": len(outliers), "largest_factor": math.exp(rises[worst])},
            examples=tuple(signals.place(step) for step in outliers),
        ),
    )


def loss_spike(signals: Signals) -> tuple[Finding, ...]:
    """The loss jumps, and the batches after it are still raised."""
    spikes, _ = find_spikes(signals)
    if not spikes:
        return ()
    worst = max(spikes, key=lambda spike: spike.rise_nats)
    num_steps = sum(spike.end - spike.start for spike in spikes)
    severity = graded(worst.rise_nats, start=0.0, end=math.log(8), low=0.2, high=0.65)
    severity = min(0.85, severity + 0.1 * (len(spikes) - 1))
    is_harmless = max(spike.level_frac for spike in spikes) < HARMLESS_LEVEL_FRAC
    return (
        symptom(
            "loss_spike",
            f"The loss jumped {counted(len(spikes), 'times')}, to {math.exp(worst.rise_nats):.1f} times what "
            f"it was at {signals.place(worst.start)}, and needed {counted(num_steps, 'steps')} to come back.",
            where=signals.place(worst.start),
            severity=min(severity, 0.25) if is_harmless else severity,
            confidence=graded(worst.rise_nats, start=0.0, end=math.log(2), low=0.6, high=0.95),
            evidence={
                "num_spikes": len(spikes),
                "largest_factor": math.exp(worst.rise_nats),
                "num_steps": num_steps,
                "first_step": spikes[0].start,
            },
            examples=tuple(signals.place(spike.start) for spike in spikes),
        ),
    )


def find_spikes(signals: Signals) -> tuple[list[Spike], list[int]]:
    """Spikes, and the steps of single outlier batches.

    Raises:
        NotAssessed: There are no single steps.
    """
    steps = _require_steps(signals)
    before, noise = signals.smooth[:-FOLLOWING_STEPS], signals.noise[:-FOLLOWING_STEPS]
    # Entry t of all of these belongs to step t + 1, so that nothing looks at the step that it judges.
    now = steps[1 : len(before) + 1] - before
    five = np.lib.stride_tricks.sliding_window_view(steps[1:], FOLLOWING_STEPS)
    five_median = np.median(five, axis=1)
    following = np.concatenate((five_median[1:], five_median[-1:]))[: len(before)] - before
    error = MEDIAN_NOISE_FACTOR * noise * math.sqrt(1 / FOLLOWING_STEPS + 1 / signals.window)
    is_sudden = now > np.maximum(SUDDEN_SIGMAS * noise, SUDDEN_RISE_NATS)
    raised = np.maximum(RAISED_ERRORS * error, RAISED_NATS)
    is_broad = five_median[: len(before)] - before > np.maximum(BROAD_ERRORS * error, SUDDEN_RISE_NATS)
    is_judged = _judged_steps(signals)[1 : len(before) + 1]
    is_start = is_judged & ((is_sudden & (following > raised)) | is_broad)
    spikes = _grouped(is_start, five_median=five_median, before=before, raised=raised, signals=signals)
    inside = np.zeros(len(steps), dtype=bool)
    for spike in spikes:
        inside[max(0, spike.start - 1) : spike.end + FOLLOWING_STEPS] = True
    outliers = np.flatnonzero(is_judged & is_sudden & ~is_start) + 1
    return spikes, [int(step) for step in outliers if not inside[step]]


def _grouped(
    is_start: npt.NDArray[np.bool_],
    *,
    five_median: FloatArray,
    before: FloatArray,
    raised: FloatArray,
    signals: Signals,
) -> list[Spike]:
    """One spike for each stretch from a start until the median of five is back."""
    spikes: list[Spike] = []
    is_judged = _judged_steps(signals)
    end = 0
    for start in np.flatnonzero(is_start):
        if start < end:
            continue
        limit = before[start] + raised[start]
        back = np.flatnonzero(five_median[start + 1 :] <= limit)
        end = int(start + 1 + back[0]) if back.size else len(signals.steps) - 1
        # Five steps are raised when three of them are: the first that is itself may come two steps later.
        first = int(start + 1 + np.argmax(signals.steps[start + 1 : start + 1 + FOLLOWING_STEPS] > limit))
        if not is_judged[first]:
            continue
        peak = float(five_median[start : max(start + 1, end)].max())
        rise = peak - float(before[start])
        spikes.append(Spike(first, max(first + 1, min(end + 1, len(signals.steps))), rise, math.exp(peak)))
    return spikes


def gradient_spike(signals: Signals) -> tuple[Finding, ...]:
    """The gradient norm jumps; often one step before the loss."""
    norms = signals.grad_norm
    if len(norms) < MIN_STEPS:
        raise NotAssessed(f"no gradient norm of at least {MIN_STEPS} steps recorded")
    smooth = running_median(norms, signals.window)
    spread = noise_around(norms, smooth, signals.window)
    rise = norms[1:] - smooth[:-1]
    allowed = np.maximum(GRADIENT_SIGMAS * spread[:-1], GRADIENT_RISE_NATS)
    is_judged = _judged_steps(signals)[1 : len(norms)]
    found = np.flatnonzero((rise > allowed)[: len(is_judged)] & is_judged) + 1
    if not found.size:
        return ()
    starts = [spike.start for spike in find_spikes(signals)[0]]
    leading = [step for step in found if any(0 <= start - step <= GRADIENT_LEAD_STEPS for start in starts)]
    worst = int(found[int(np.argmax(rise[found - 1]))])
    if not leading and rise[worst - 1] < GRADIENT_ALONE_NATS:
        return ()
    largest = math.exp(min(float(rise[worst - 1]), MAX_TOLD_NATS))
    told = f", {len(leading)} of them just before a jump of the loss" if leading else ""
    return (
        symptom(
            "gradient_spike",
            f"The gradient jumped {counted(len(found), 'times')}, to {largest:,.0f} times "
            f"its usual size at {signals.place(worst)}{told}.",
            where=signals.place(worst),
            severity=graded(len(leading), start=1, end=4, low=0.4, high=0.6) if leading else 0.15,
            confidence=0.9 if leading else 0.6,
            evidence={
                "num_spikes": len(found),
                "num_before_loss_spike": len(leading),
                "largest_factor": largest,
            },
            examples=tuple(signals.place(int(step)) for step in found),
        ),
    )


def divergence(signals: Signals) -> tuple[Finding, ...]:
    """Loss or gradient is no number any more, or the loss left its best by a factor of two and stayed there."""
    failed_at = first_failure(signals.trace)
    if failed_at is not None:
        return (
            symptom(
                "divergence",
                f"The loss or its gradient became infinite or no number at {signals.place(failed_at)}: the weights are "
                "lost.",
                where=signals.place(failed_at),
                severity=1.0,
                confidence=1.0,
                evidence={"failed_step": failed_at, "is_finite": 0.0},
                examples=(signals.place(failed_at),),
            ),
        )
    found = find_divergence(signals)
    if found is None or (found.is_recovered and _is_spike(found, signals)):
        return ()
    told = "came back later" if found.is_recovered else "never came back"
    return (
        symptom(
            "divergence",
            f"From {signals.place(found.step)} on the loss stood up to {math.exp(found.rise_nats):.1f} times above its "
            f"best for {counted(found.num_steps, 'steps')}, and {told}.",
            where=signals.place(found.step),
            severity=0.5 if found.is_recovered else 0.95,
            confidence=0.9,
            evidence={
                "factor": math.exp(found.rise_nats),
                "num_steps": found.num_steps,
                "is_recovered": float(found.is_recovered),
                "is_finite": 1.0,
            },
            examples=(signals.place(found.step),),
        ),
    )


def _is_spike(found: Divergence, signals: Signals) -> bool:
    """Whether a stretch of raised loss began as a spike, which is reported as such."""
    if not len(signals.steps):
        return False
    hold = max(2 * signals.window, signals.steps_per_epoch // 2)
    return any(
        found.step - hold <= spike.start <= found.step + found.num_steps and spike.start + hold >= found.step
        for spike in find_spikes(signals)[0]
    )


def find_divergence(signals: Signals) -> Divergence | None:
    """The stretch at the end in which the smoothed loss stands far above its best; else the longest that ended.

    Raises:
        NotAssessed: Neither steps nor epochs were recorded.
    """
    if len(signals.steps):
        hold = max(2 * signals.window, signals.steps_per_epoch // 2)
        first = signals.first_judged_epoch * signals.steps_per_epoch
        level = running_median(signals.steps, hold)[hold - 1 :]
        error = MEDIAN_NOISE_FACTOR * signals.noise[hold - 1 :] / math.sqrt(hold)
        return _stretch(level, error, hold=hold, first=max(first, signals.warm_up_steps), signals=signals)
    losses = signals.train if len(signals.train) else signals.validation
    if len(losses) < DIVERGENCE_EPOCHS:
        raise NotAssessed(f"no single steps, and fewer than {DIVERGENCE_EPOCHS} epochs")
    hold = max(DIVERGENCE_EPOCHS, math.ceil(LONG_LOG_FRAC * len(losses)))
    level = running_median(losses, hold)[hold - 1 :]
    found = _stretch(level, np.zeros(len(level)), hold=hold, first=signals.first_judged_epoch, signals=signals)
    if found is None:
        return None
    per_epoch = signals.steps_per_epoch
    return replace(found, step=found.step * per_epoch, num_steps=found.num_steps * per_epoch)


def _stretch(level: FloatArray, error: FloatArray, *, hold: int, first: int, signals: Signals) -> Divergence | None:
    """Find the stretch in a smoothed log-loss whose entry t is the median of the steps (or epochs) t to t + hold - 1.

    Only stretches that begin at `first` or later are compared with each other.
    """
    if len(level) < 2:
        return None
    rise = np.full(len(level), -np.inf)
    best = np.minimum.accumulate(level[first:])[:-1]
    rise[first + 1 :] = level[first + 1 :] - best
    is_above = (rise - DIVERGENCE_ERRORS * error > DIVERGENCE_RISE_NATS) & (level > math.log(DIVERGENCE_LEVEL_FRAC))
    # A scheduled rise of the rate may cost something, but not everything.
    overall = np.concatenate(([0.0], level[1:] - np.minimum.accumulate(level)[:-1]))
    is_lost = (overall - DIVERGENCE_ERRORS * error > COLLAPSE_RISE_NATS) & (level >= math.log(COLLAPSE_FRAC))
    rise = np.maximum(rise, overall * is_lost)
    stretches = _stretches(is_above | is_lost)
    if not stretches:
        return None
    longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    left, right = stretches[-1] if stretches[-1][1] == len(level) else longest
    span = min(right - left, max(hold, signals.steps_per_epoch if len(signals.steps) else 1))
    return Divergence(
        step=left + hold - 1 - hold // 2,
        rise_nats=float(rise[left:right].max()),
        is_recovered=right < len(level),
        num_steps=right - left + hold // 2,
        is_falling=bool(level[right - 1] < level[right - span] - FALLING_NATS),
    )


def _stretches(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _require_steps(signals: Signals) -> FloatArray:
    if not len(signals.steps):
        raise NotAssessed("no single steps")
    return signals.steps


def _judged_steps(signals: Signals) -> npt.NDArray[np.bool_]:
    """Which steps are judged: not the start, and not the epochs in which the schedule raised the rate."""
    judged = np.ones(len(signals.steps), dtype=bool)
    judged[: signals.warm_up_steps] = False
    for epoch in signals.rate_rises:
        judged[epoch * signals.steps_per_epoch : (epoch + 1) * signals.steps_per_epoch] = False
    return judged
