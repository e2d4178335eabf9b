"""Detectors of loss that swings: with a period in steps, in every epoch alike, or from epoch to epoch."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from tuner.records import Finding, FloatArray
from tuner.stability.signals import MAD_TO_SIGMA, Signals
from tuner.stability.symptoms import NotAssessed, graded, symptom

__all__ = ["oscillation", "same_order"]

# A wave is believed when its spectral peak is this many times the median of its neighbourhood. Source: the peak of
# 1,000 bins of noise reaches 20 times the median once in 1,000 trainings (exponential distribution); three
# times that, since the median of a neighbourhood is uncertain itself (at 40, 1 of 150 healthy traces was flagged).
WAVE_PEAK_RATIO = 60.0
# Bins on each side that are its neighbourhood. Source: convention.
WAVE_NEIGHBOURS = 25
# Amplitude (half of top to bottom) of a wave that matters. Source: the design of the detectors (5 %).
WAVE_AMPLITUDE_NATS = math.log(1.05)
# Steps that are needed to see a wave. Source: convention.
WAVE_MIN_STEPS = 120
# A period within this of an epoch comes from the order of the samples, not from the rate. Source: convention.
EPOCH_PERIOD_TOLERANCE = 0.04
# Epoch to epoch: share of turning points that is no chance (independent noise has 2/3), and how many standard
# deviations above chance. Source: the design (0.8); Bienayme's turning point test for the second.
TURNING_FRAC, TURNING_SIGMAS, TURNING_MIN_EPOCHS = 0.8, 3.0, 10
# Correlation of the noise with that of the epoch before from which on the batches are the same ones, and how far above
# the correlation at any shorter lag. Source: 36 recorded trainings without reshuffling have 0.4 to 0.95, shuffled ones
# have -0.1 to 0.1.
REPEAT_CORRELATION, REPEAT_MARGIN, REPEAT_ERRORS = 0.3, 0.2, 4.0
# Standard deviation of what repeats from which on it is a fault: batches then differ in what they hold, as in rows
# sorted by class. Source: the tuning half of the zoo (benchmarks/diagnosis.py): 0.4 and more when sorted, 0.2 and less
# in a random order that repeats.
REPEAT_SWING_NATS = 0.3
# Steps an epoch, and epochs, that are needed for it. Source: convention.
REPEAT_MIN_STEPS, REPEAT_MIN_EPOCHS = 8, 4


def oscillation(signals: Signals) -> tuple[Finding, ...]:
    """The loss swings up and down, from step to step, with a period, or from epoch to epoch."""
    if not len(signals.steps) and max(len(signals.train), len(signals.validation)) < TURNING_MIN_EPOCHS:
        raise NotAssessed(f"no single steps, and fewer than {TURNING_MIN_EPOCHS} epochs")
    return _wave(signals) or _zigzag(signals)


def _residual(signals: Signals) -> FloatArray:
    """Log-loss of the steps after the start, without its trend and without what stands out; empty if too short."""
    steps = signals.steps[signals.warm_up_steps :]
    if len(steps) < WAVE_MIN_STEPS:
        return steps[:0]
    length = min(2 * signals.steps_per_epoch + 1, len(steps) // 3)
    size = max(length, 41)
    middle = ndimage.median_filter(steps, size=size, mode="nearest")
    limit = 4 * MAD_TO_SIGMA * float(np.median(np.abs(steps - middle))) + 1e-12
    # Only to cut what stands out: the median itself would follow the wave.
    cut = np.clip(steps, middle - limit, middle + limit)
    return np.asarray(cut - ndimage.uniform_filter1d(cut, size=size, mode="nearest"))


def _repetition(residual: FloatArray, per_epoch: int) -> float | None:
    """Correlation of the noise with that of the epoch before, if no shorter lag comes near it."""
    if per_epoch < REPEAT_MIN_STEPS or len(residual) < REPEAT_MIN_EPOCHS * per_epoch:
        return None
    centred = residual - residual.mean()
    padded = np.fft.rfft(centred, 2 * len(centred))
    products = np.fft.irfft(np.abs(padded) ** 2)[: per_epoch + 1]
    overlap = len(centred) - np.arange(per_epoch + 1)
    correlation = products / overlap / max(float(products[0]) / len(centred), 1e-300)
    repeated, others = float(correlation[per_epoch]), float(correlation[2 : per_epoch - 1].max())
    needed = max(REPEAT_CORRELATION, REPEAT_ERRORS / math.sqrt(len(centred)))
    return repeated if repeated > needed and repeated - others > REPEAT_MARGIN else None


def same_order(signals: Signals) -> tuple[Finding, ...]:
    """The noise of the loss repeats from epoch to epoch: the batches hold the same samples each time."""
    residual = _residual(signals)
    if len(residual) < REPEAT_MIN_EPOCHS * signals.steps_per_epoch or signals.steps_per_epoch < REPEAT_MIN_STEPS:
        raise NotAssessed(f"fewer than {REPEAT_MIN_EPOCHS} epochs of {REPEAT_MIN_STEPS} steps after the start")
    repeated = _repetition(residual, signals.steps_per_epoch)
    if repeated is None:
        return ()
    swing = float(np.std(residual - _without_profile(residual, signals.steps_per_epoch)))
    return (
        symptom(
            "same_order",
            f"The ups and downs of the loss are the same in every epoch (correlation {repeated:.2f}): the batches hold "
            "the same samples each time.",
            severity=graded(swing, start=REPEAT_SWING_NATS, end=2 * REPEAT_SWING_NATS, low=0.25, high=0.5),
            confidence=graded(repeated, start=REPEAT_CORRELATION, end=0.6, low=0.7, high=0.95),
            evidence={"correlation": repeated, "swing_nats": swing},
        ),
    )


def _wave(signals: Signals) -> tuple[Finding, ...]:
    """A peak in the spectrum of the step losses, after the trend and what repeats in every epoch were taken away."""
    residual = _residual(signals)
    if not len(residual):
        return ()
    if _repetition(residual, signals.steps_per_epoch) is not None:
        residual = _without_profile(residual, signals.steps_per_epoch)
    taper = np.hanning(len(residual))
    power = np.abs(np.fft.rfft(residual * taper)) ** 2
    lowest = math.ceil(len(residual) / max(1.2 * signals.steps_per_epoch, 20))
    if len(power) - lowest < 2 * WAVE_NEIGHBOURS:
        return ()
    neighbourhood = ndimage.median_filter(power, size=2 * WAVE_NEIGHBOURS + 1, mode="mirror")
    ratio = power / np.maximum(neighbourhood, 1e-300)
    peak = lowest + int(np.argmax(power[lowest:]))
    period = len(residual) / peak
    wave = power[max(0, peak - 2) : peak + 3]
    # A wave of period 2 is its own mirror image: up to five sixths of its power lie on this side, not a quarter.
    share = 2 / 3 if peak >= len(power) - 2 else 1 / 4
    amplitude = math.sqrt(float(wave.sum()) / (share * len(residual) * float(np.sum(taper**2))))
    if ratio[peak] < WAVE_PEAK_RATIO or amplitude < WAVE_AMPLITUDE_NATS:
        return ()
    if _is_whole_fraction(signals.steps_per_epoch / period, tolerance=signals.steps_per_epoch / len(residual)):
        return ()
    return _step_period(period, amplitude, float(ratio[peak]))


def _without_profile(residual: FloatArray, per_epoch: int) -> FloatArray:
    """The residual without the median of the same step of all epochs."""
    phase = np.arange(len(residual)) % per_epoch
    profile = np.array([np.median(residual[phase == step]) for step in range(per_epoch)])
    return np.asarray(residual - profile[phase])


def _is_whole_fraction(ratio: float, *, tolerance: float) -> bool:
    """Whether an epoch holds one or a few whole periods (its overtones): then the order of the samples repeats."""
    return round(ratio) in (1, 2, 3) and abs(ratio - round(ratio)) < max(EPOCH_PERIOD_TOLERANCE * ratio, tolerance)


def _step_period(period: float, amplitude: float, ratio: float) -> tuple[Finding, ...]:
    return (
        symptom(
            "oscillation",
            f"The loss swings by {math.expm1(amplitude):.0%} up and down, every {period:.1f} steps.",
            severity=graded(amplitude, start=WAVE_AMPLITUDE_NATS, end=math.log(2), low=0.35, high=0.7),
            confidence=0.85,
            evidence={"period_steps": period, "amplitude_nats": amplitude, "peak_ratio": min(ratio, 1e9)},
        ),
    )


def _zigzag(signals: Signals) -> tuple[Finding, ...]:
    """Too many turning points from epoch to epoch."""
    for name, losses in (("training", signals.train), ("validation", signals.validation)):
        losses = losses[signals.first_judged_epoch :]
        if len(losses) < TURNING_MIN_EPOCHS:
            continue
        slopes = np.diff(losses)
        turning = int(np.count_nonzero(slopes[1:] * slopes[:-1] < 0))
        chances = len(losses) - 2
        expected, spread = 2 * chances / 3, math.sqrt((16 * len(losses) - 29) / 90)
        swing = float(np.median(np.abs(slopes))) / 2
        is_regular = turning > TURNING_FRAC * chances and turning >= expected + min(
            TURNING_SIGMAS * spread, chances / 3
        )
        if is_regular and swing > max(WAVE_AMPLITUDE_NATS, 3 * _epoch_error(signals, name)):
            return (
                symptom(
                    "oscillation",
                    f"The {name} loss goes up and down from epoch to epoch, by {math.expm1(swing):.0%}.",
                    severity=graded(swing, start=WAVE_AMPLITUDE_NATS, end=math.log(2), low=0.35, high=0.7),
                    confidence=0.75,
                    evidence={"turning_frac": turning / chances, "amplitude_nats": swing},
                ),
            )
    return ()


def _epoch_error(signals: Signals, name: str) -> float:
    """Standard error of a mean training loss of an epoch; 0 where it is not known."""
    if name != "training" or not len(signals.noise):
        return 0.0
    return float(np.median(signals.noise)) / math.sqrt(signals.steps_per_epoch)
