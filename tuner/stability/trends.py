"""Detectors of slow faults: not learning, too slow, over-fitting, a plateau, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.records import Finding, FloatArray
from tuner.stability.signals import (
    LONG_LOG_FRAC,
    LOSS_FLOOR_FRAC,
    MEDIAN_NOISE_FACTOR,
    Signals,
    running_median,
    spread_of,
)
from tuner.stability.symptoms import NotAssessed, graded, symptom

__all__ = [
    "find_no_learning",
    "find_over_fitting",
    "huge_first_loss",
    "noisy_batches",
    "not_learning",
    "over_fitting",
    "plateau",
    "too_slow",
    "validation_never_learns",
    "validation_spike",
]

# A run whose best smoothed loss stays above this share of the chance loss after this share of its budget, and so many
# epochs, has learned nothing. Source: the design of the detectors.
NOT_LEARNING_FRAC, NOT_LEARNING_BUDGET_FRAC, NOT_LEARNING_EPOCHS = 0.98, 0.3, 3
# Steps (at least an epoch of them) and epochs whose median is the level of the loss: the luckiest of many short
# stretches is no learning. Source: convention.
LEVEL_STEPS, LEVEL_EPOCHS = 50, 3
# Validation loss this far above its best, for so many epochs running, is over-fitting; the median of so many epochs is
# looked at. Trainings of up to SHORT_EPOCHS: fewer. Source: the design; as a stopping rule on 40 public histories it
# returned the best model in 29 of 29 over-fitted runs and cut 0 of 11 healthy ones.
OVER_FITTING_RISE_NATS = math.log(1.046)
OVER_FITTING_MEDIAN, OVER_FITTING_EPOCHS = 5, 10
SHORT_EPOCHS, SHORT_MEDIAN, SHORT_RUNNING = 20, 3, 3
# Standard errors of the validation median that are no rise. Source: convention; jittery validation losses of small
# parts were flagged without it (tests/stability/test_detectors.py).
OVER_FITTING_ERRORS = 3.0
# Rises of the validation loss below this share of the chance loss do not matter. Source: convention.
OVER_FITTING_LEVEL_FRAC = 0.02
# Still falling: this share of the whole fall happened in the last fifth. Source: the design; a straight line has 0.2.
SLOW_LAST_FRAC, SLOW_SHARE = 0.2, 0.2
# A rate that drops by this factor in that fifth makes a fall of its own, which says nothing. Source: convention.
SLOW_RATE_DROP_FACTOR = 3.0
# Blocks whose medians are compared, as a share of the steps; at least so many steps. Source: convention.
BLOCK_FRAC, MIN_BLOCK_STEPS = 0.1, 10
# Flat: the loss fell by less than this in the last part. Source: convention.
PLATEAU_NATS, PLATEAU_PART_FRAC = 0.02, 0.4
# A plateau this high means that the net could not do better; this gap is none. Source: convention.
PLATEAU_LEVEL_FRAC, PLATEAU_GAP_NATS = 0.3, math.log(1.1)
# Noise of a batch loss from which on batches are called small. Source: convention; 32 samples have 0.1 to 0.2.
NOISY_BATCH_NATS = 0.35
# Noise of batches of one or two, and the level of the loss, as a share of chance, below which noise does not matter.
# Source: the tuning half of the zoo (benchmarks/diagnosis.py): 1.0 to 1.5; convention.
VERY_NOISY_NATS, NOISY_LEVEL_FRAC = 1.0, 0.05
# Validation never came below this share of chance, while training came below that one. Source: convention.
NEVER_LEARNS_FRAC, NEVER_LEARNS_TRAIN_FRAC, NEVER_LEARNS_EPOCHS = 0.9, 0.6, 3
# A first loss this many times chance means that outputs (or inputs) have the wrong size. Source: convention; a net
# with He initialisation and standardised inputs starts at 1 to 3 times.
HUGE_FIRST_FACTOR = 10.0
# Steps whose median is the first loss. Source: convention.
FIRST_STEPS = 5
# An epoch whose loss lies this many standard deviations, and this factor, above the median of the epochs before it.
# Source: 149 healthy public curves of 40 epochs, of which none is flagged (tests/stability/test_detectors.py).
EPOCH_SPIKE_SIGMAS, EPOCH_SPIKE_NATS = 8.0, math.log(1.35)
# Jumps to less than this share of the chance loss do no harm. Source: convention.
EPOCH_SPIKE_LEVEL_FRAC = 0.1
# How many epochs before it are looked at for their level and for their noise, and how many must be there. Source:
# convention.
EPOCH_SPIKE_BEFORE, EPOCH_SPREAD_BEFORE, EPOCH_SPIKE_MIN_BEFORE = 5, 15, 4
# In long logs the noise is taken from more epochs, up to so many. Source: as `LONG_LOG_FRAC`; the noise of 200 is
# known within 7 %.
MAX_SPREAD_BEFORE = 200


def not_learning(signals: Signals) -> tuple[Finding, ...]:
    """The loss stayed at chance level."""
    best = _best_level(signals)
    needed = max(NOT_LEARNING_EPOCHS, NOT_LEARNING_BUDGET_FRAC * signals.planned_epochs)
    if signals.num_epochs < needed or best < NOT_LEARNING_FRAC:
        return ()
    is_creeping = find_no_learning(signals) is None
    told = "still creeps down, far too slowly" if is_creeping else "hardly gets below it"
    level = f"at {best:.2f} of" if best < 2 else f"{best:.3g} times"
    return (
        symptom(
            "not_learning",
            f"After {signals.num_epochs} of {signals.planned_epochs} epochs the loss is {level} what the best "
            f"constant answer gets, and {told}.",
            severity=0.7 if is_creeping else 0.9,
            confidence=0.8 if is_creeping else 0.95,
            evidence={"best_level": best, "num_epochs": signals.num_epochs, "is_creeping": float(is_creeping)},
        ),
    )


def find_no_learning(signals: Signals) -> float | None:
    """Best loss as a share of chance, if it is sure that this training never leaves it; else None.

    Not sure are trainings in which the rate still rises, or whose losses fall fast enough to leave it in the budget.
    """
    needed = max(NOT_LEARNING_EPOCHS, NOT_LEARNING_BUDGET_FRAC * signals.planned_epochs)
    best = _best_level(signals)
    if best < NOT_LEARNING_FRAC or signals.num_epochs - signals.first_judged_epoch < needed:
        return None
    remaining = signals.planned_epochs - signals.num_epochs
    for losses in (signals.train, signals.validation):
        if len(losses) >= 2:
            level = np.exp(losses) - LOSS_FLOOR_FRAC
            half = len(level) // 2
            slope = (float(np.mean(level[half:])) - float(np.mean(level[:half]))) / (len(level) / 2)
            if float(level[-1]) + slope * remaining < NOT_LEARNING_FRAC:
                return None
    return best


def _best_level(signals: Signals) -> float:
    """Lowest smoothed loss so far, as a share of the chance loss.

    Raises:
        NotAssessed: No loss was recorded.
    """
    epoch = max(LEVEL_STEPS, signals.steps_per_epoch)
    windows = ((signals.steps, epoch), (signals.train, LEVEL_EPOCHS), (signals.validation, LEVEL_EPOCHS))
    levels = [running_median(curve, window)[min(window, len(curve)) - 1 :] for curve, window in windows if len(curve)]
    if not levels:
        raise NotAssessed("no loss recorded")
    return math.exp(min(float(np.min(level)) for level in levels)) - LOSS_FLOOR_FRAC


@dataclass(frozen=True)
class OverFitting:
    """Validation loss that rose and stayed up while the training loss fell.

    Attributes:
        best_epoch: Zero-based, of the lowest loss.
        rise_nats: Of the median of the last epochs above the best median.
        rise_frac: The same, as a share of the chance loss.
        num_epochs: How many epochs running.
        is_train_falling: None if there is no training loss to tell.
    """

    best_epoch: int
    rise_nats: float
    rise_frac: float
    num_epochs: int
    is_train_falling: bool | None


def over_fitting(signals: Signals) -> tuple[Finding, ...]:
    """Validation loss rises while the training loss falls."""
    found = find_over_fitting(signals)
    if found is None or found.is_train_falling is False:
        return _getting_worse(found)
    is_small = found.rise_frac < OVER_FITTING_LEVEL_FRAC
    severity = graded(found.rise_nats, start=OVER_FITTING_RISE_NATS, end=math.log(2), low=0.35, high=0.8)
    told = "while the training loss fell" if found.is_train_falling else "(no training loss was recorded)"
    return (
        symptom(
            "over_fitting",
            f"The validation loss was lowest in epoch {found.best_epoch + 1}; smoothed, it has been above its best for "
            f"{found.num_epochs} epochs, now by {math.expm1(found.rise_nats):.0%}, {told}.",
            where=f"epoch {found.best_epoch + 1}",
            severity=0.2 if is_small else severity,
            confidence=0.9 if found.is_train_falling else 0.6,
            evidence={
                "best_epoch": found.best_epoch + 1,
                "rise_frac": math.expm1(found.rise_nats),
                "num_epochs": found.num_epochs,
            },
            examples=(f"epoch {found.best_epoch + 1}",),
        ),
    )


def _getting_worse(found: OverFitting | None) -> tuple[Finding, ...]:
    """The same rise of the validation loss, but the training loss rose with it: no over-fitting, an unstable end."""
    if found is None or found.rise_frac < OVER_FITTING_LEVEL_FRAC:
        return ()
    return (
        symptom(
            "getting_worse",
            f"Training and validation loss were best in epoch {found.best_epoch + 1} and have been higher since, now "
            f"by {math.expm1(found.rise_nats):.0%}.",
            where=f"epoch {found.best_epoch + 1}",
            severity=graded(found.rise_nats, start=OVER_FITTING_RISE_NATS, end=math.log(2), low=0.35, high=0.8),
            confidence=0.8,
            evidence={"best_epoch": found.best_epoch + 1, "rise_frac": math.expm1(found.rise_nats)},
        ),
    )


def find_over_fitting(signals: Signals) -> OverFitting | None:
    """Whether the rule for over-fitting holds at the end of the trace.

    Raises:
        NotAssessed: There are too few validation losses.
    """
    losses = signals.validation[signals.first_judged_epoch :]
    is_short = signals.planned_epochs <= SHORT_EPOCHS
    median, running = (SHORT_MEDIAN, SHORT_RUNNING) if is_short else (OVER_FITTING_MEDIAN, OVER_FITTING_EPOCHS)
    median = max(median, math.ceil(LONG_LOG_FRAC * len(losses)))
    if len(losses) < median + running:
        raise NotAssessed(f"fewer than {median + running} validation losses since the rate was last raised")
    level = running_median(losses, median)[median - 1 :]
    error = OVER_FITTING_ERRORS * MEDIAN_NOISE_FACTOR * spread_of(losses) / math.sqrt(median)
    best = np.minimum.accumulate(level)[:-1]
    is_above = level[1:] - best > OVER_FITTING_RISE_NATS + error
    num_epochs = len(is_above) if is_above.all() else int(np.argmin(is_above[::-1]))
    if num_epochs < running:
        return None
    at = int(np.argmin(level))
    # Not of the lowest median: the weights that are kept are those of the lowest loss.
    best_epoch = signals.first_judged_epoch + int(np.argmin(losses))
    return OverFitting(
        best_epoch=best_epoch,
        rise_nats=float(level[-1] - level[at]),
        rise_frac=float(math.exp(level[-1]) - math.exp(level[at])),
        num_epochs=num_epochs,
        is_train_falling=_is_train_falling(signals, since=best_epoch, median=median),
    )


def _is_train_falling(signals: Signals, *, since: int, median: int) -> bool | None:
    train = signals.train[: len(signals.validation)]
    if len(train) <= since:
        return None
    return bool(np.median(train[-median:]) < train[since])


def too_slow(signals: Signals) -> tuple[Finding, ...]:
    """At the end of its budget the loss still falls as fast as before."""
    if signals.num_epochs < signals.planned_epochs or not len(signals.steps):
        raise NotAssessed("the training has not reached its planned end, or there are no single steps")
    rate = signals.trace.learning_rate
    last = max(1, math.ceil(SLOW_LAST_FRAC * len(rate)) + 1)
    if len(rate) > last and _largest_drop(rate[-last:]) > SLOW_RATE_DROP_FACTOR:
        raise NotAssessed("the learning rate dropped near the end")
    block = max(MIN_BLOCK_STEPS, round(BLOCK_FRAC * len(signals.steps)))
    start, before, end = (_block_level(signals.steps, at, block) for at in (0.0, 1 - SLOW_LAST_FRAC, 1.0))
    share = (before - end) / max(start - end, 1e-12)
    error = MEDIAN_NOISE_FACTOR * float(np.median(signals.noise)) * end * math.sqrt(2 / block)
    is_validation_rising = bool(len(signals.validation) and signals.validation[-1] > signals.validation.min() + 0.05)
    if share <= SLOW_SHARE or before - end <= 3 * error or start <= end or is_validation_rising:
        return ()
    return (
        symptom(
            "too_slow",
            f"{share:.0%} of the whole fall of the loss came in the last fifth of the training: it is not finished.",
            where=f"epoch {signals.num_epochs}",
            severity=0.15 + 0.5 * min(1.0, share) * min(1.0, end),
            confidence=graded(share, start=SLOW_SHARE, end=2 * SLOW_SHARE, low=0.6, high=0.9),
            evidence={"last_fifth_share": share, "level": end},
        ),
    )


def _largest_drop(rate: FloatArray) -> float:
    """Largest factor by which the rate fell between two epochs; a cosine reaches zero, which is no drop."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factors = rate[:-2] / rate[1:-1] if len(rate) > 2 else np.empty(0)
    factors = factors[np.isfinite(factors)]
    return float(factors.max(initial=1.0))


def _block_level(log_loss: FloatArray, at_frac: float, block: int) -> float:
    """Loss, as a share of chance, of the block of steps that ends (or, at the start, begins) there."""
    end = min(len(log_loss), max(block, round(at_frac * len(log_loss))))
    return math.exp(float(np.median(log_loss[max(0, end - block) : end]))) - LOSS_FLOOR_FRAC


def plateau(signals: Signals) -> tuple[Finding, ...]:
    """Training and validation loss are both high and flat: good to know, no fault of the training."""
    train, validation = signals.train, signals.validation
    part = max(3, math.ceil(PLATEAU_PART_FRAC * signals.planned_epochs))
    if len(train) < part + 2 or len(validation) < len(train):
        raise NotAssessed(f"fewer than {part + 2} epochs with training and validation loss")
    level = math.exp(float(np.median(train[-3:]))) - LOSS_FLOOR_FRAC
    fall = (
        float(np.median(train[-part : -part + 3]) - np.median(train[-3:])) if part > 3 else float(train[-3] - train[-1])
    )
    gap = float(np.median(validation[-3:]) - np.median(train[-3:]))
    if not PLATEAU_LEVEL_FRAC <= level < NOT_LEARNING_FRAC or abs(fall) > PLATEAU_NATS or gap > PLATEAU_GAP_NATS:
        return ()
    return (
        symptom(
            "plateau",
            f"Training and validation loss stand still at {level:.2f} of chance, close together: the network, as it "
            "is, cannot do better.",
            where=f"epoch {len(train) - part + 1}",
            severity=0.25,
            confidence=0.6,
            evidence={"level": level, "gap_nats": gap, "fall_nats": fall},
        ),
    )


def noisy_batches(signals: Signals) -> tuple[Finding, ...]:
    """Losses of neighbouring batches differ a lot: good to know, no fault of the training."""
    if not len(signals.noise):
        raise NotAssessed("no single steps")
    # Near the end of a good training every batch differs from the next, on a scale that does not matter.
    matters = signals.smooth > math.log(NOISY_LEVEL_FRAC)
    matters[: signals.warm_up_steps] = False
    noise = float(np.median(signals.noise[matters])) if matters.any() else 0.0
    if noise < NOISY_BATCH_NATS:
        return ()
    return (
        symptom(
            "noisy_batches",
            f"The loss of a batch differs from the next by {math.expm1(noise):.0%} on average.",
            severity=graded(noise, start=NOISY_BATCH_NATS, end=VERY_NOISY_NATS, low=0.2, high=0.35),
            confidence=0.7,
            evidence={"noise_nats": noise},
        ),
    )


def validation_never_learns(signals: Signals) -> tuple[Finding, ...]:
    """The training loss falls, but the validation loss never came below chance."""
    train, validation = signals.train, signals.validation
    if min(len(train), len(validation)) < NEVER_LEARNS_EPOCHS:
        raise NotAssessed(f"fewer than {NEVER_LEARNS_EPOCHS} epochs with training and validation loss")
    train_level, level = (math.exp(float(curve.min())) - LOSS_FLOOR_FRAC for curve in (train, validation))
    if level < NEVER_LEARNS_FRAC or train_level > NEVER_LEARNS_TRAIN_FRAC:
        return ()
    return (
        symptom(
            "validation_never_learns",
            f"The training loss fell to {train_level:.2f} of chance, the validation loss never below {level:.2f}: what "
            "is learned does not hold for the validation part.",
            severity=graded(level, start=NEVER_LEARNS_FRAC, end=1.2, low=0.5, high=0.85),
            confidence=0.85,
            evidence={"train_level": train_level, "validation_level": level},
        ),
    )


def huge_first_loss(signals: Signals) -> tuple[Finding, ...]:
    """The first losses are far above chance."""
    if not len(signals.steps):
        raise NotAssessed("no single steps")
    level = math.exp(float(np.median(signals.steps[:FIRST_STEPS])))
    if level < HUGE_FIRST_FACTOR:
        return ()
    return (
        symptom(
            "huge_first_loss",
            f"The training began {level:,.0f} times above the loss of a constant answer: inputs, target or initial "
            "weights have the wrong size.",
            where="epoch 1, step 1",
            severity=graded(math.log10(level), start=1.0, end=4.0, low=0.35, high=0.8),
            confidence=0.9,
            evidence={"level": level},
        ),
    )


def validation_spike(signals: Signals) -> tuple[Finding, ...]:
    """The validation loss jumps in single epochs."""
    losses = signals.validation if len(signals.validation) else signals.train
    if len(losses) <= EPOCH_SPIKE_MIN_BEFORE:
        raise NotAssessed(f"fewer than {EPOCH_SPIKE_MIN_BEFORE + 1} epochs")
    found: dict[int, float] = {}
    spread_before = max(EPOCH_SPREAD_BEFORE, min(MAX_SPREAD_BEFORE, math.ceil(LONG_LOG_FRAC * len(losses))))
    for epoch in range(max(EPOCH_SPIKE_MIN_BEFORE, signals.first_judged_epoch + 1), len(losses)):
        before = float(np.median(losses[max(0, epoch - EPOCH_SPIKE_BEFORE) : epoch]))
        rise = float(losses[epoch]) - before
        spread = spread_of(losses[max(0, epoch - spread_before) : epoch])
        is_continued = epoch - 1 in found
        is_harmless = math.exp(float(losses[epoch])) < EPOCH_SPIKE_LEVEL_FRAC
        if rise > max(EPOCH_SPIKE_SIGMAS * spread, EPOCH_SPIKE_NATS) and not is_continued and not is_harmless:
            found[epoch] = rise
    if not found:
        return ()
    worst = max(found, key=lambda epoch: found[epoch])
    return (
        symptom(
            "validation_spike",
            f"The validation loss jumped to {math.exp(found[worst]):.1f} times what it was in epoch {worst + 1}.",
            where=f"epoch {worst + 1}",
            severity=min(
                0.7,
                graded(found[worst], start=EPOCH_SPIKE_NATS, end=math.log(4), low=0.32, high=0.6) + 0.05 * len(found),
            ),
            confidence=0.8,
            evidence={"num_spikes": len(found), "largest_factor": math.exp(found[worst])},
            examples=tuple(f"epoch {epoch + 1}" for epoch in found),
        ),
    )
