"""Detectors that need a probe channel: size of the updates, gradients by layer, dead units, inputs."""

from __future__ import annotations

import math

import numpy as np

from tuner.records import Finding
from tuner.stability.signals import Signals
from tuner.stability.symptoms import NotAssessed, graded, require_channel, symptom

__all__ = [
    "class_ignored",
    "dead_units",
    "exploding_gradient",
    "regularisation_dominates",
    "step_too_large",
    "step_too_small",
    "unscaled_input",
    "vanishing_gradient",
]

# log10 of |weight change| / |weight| in a step. Source: the design of the detectors; 1e-3 is the usual rule of thumb.
LARGE_UPDATE_LOG10, SMALL_UPDATE_LOG10 = -1.0, -4.0
# Gradient norm of the first layer over the last's. Source: the design of the detectors.
VANISHING_RATIO, EXPLODING_RATIO = 1e-3, 70.0
# The median gradient norm of an epoch doubles so many times in a row. Source: "norm doubling per check" in the design;
# three in a row are x8, which trainings with a falling loss do not show.
DOUBLING_EPOCHS = 3
# Share of activations that are zero, and of units that are zero for every sample. Source: the design; ReLU nets that
# train well have zero shares of about a half.
ZERO_FRAC, DEAD_FRAC = 0.7, 0.5
# Recall of the worst class at the end. Source: the design of the diagnosis.
RECALL_MIN = 0.3
# A network of a lower accuracy is weak in all, and that it misses one class wholly says nothing of the class. Source:
# convention; seen on Fashion-MNIST, whose classes are equal: accuracy 0.39 after six epochs, recall 0.02 of one class.
MOSTLY_RIGHT = 0.6
# Up to here a class is as good as never recognised, which is a fault; between the two it is a hard class. Source: the
# tuning half of the zoo (benchmarks/diagnosis.py); the shirts of Fashion-MNIST have 0.08 to 0.5 in healthy trainings.
RECALL_NONE = 0.05
# Inputs further from mean 0, or further from deviation 1 by this factor, were not scaled. Source: convention; inputs
# scaled to 0..1 (mean 0.5, deviation 0.3) train well and must pass.
INPUT_MEAN, INPUT_STD_FACTOR = 3.0, 10.0
# Share of the loss that is regularisation. Source: convention; the design says "dominates".
REGULARISATION_FRAC = 0.5
# Epochs at the end whose median counts. Source: convention.
LAST_EPOCHS = 3


def step_too_large(signals: Signals) -> tuple[Finding, ...]:
    """A step changes the weights by more than a tenth."""
    ratio = float(np.median(require_channel(signals, "update_ratio")["update_ratio"]))
    if ratio <= LARGE_UPDATE_LOG10:
        return ()
    return (
        symptom(
            "step_too_large",
            f"A single step changes the weights by {10 ** min(ratio, 4.0):.0%} of their size; 0.1 % is usual.",
            severity=graded(ratio, start=LARGE_UPDATE_LOG10, end=0.0, low=0.4, high=0.8),
            confidence=0.8,
            evidence={"update_ratio_log10": ratio},
        ),
    )


def step_too_small(signals: Signals) -> tuple[Finding, ...]:
    """A step hardly changes the weights."""
    ratio = float(np.median(require_channel(signals, "update_ratio")["update_ratio"]))
    if ratio >= SMALL_UPDATE_LOG10:
        return ()
    return (
        symptom(
            "step_too_small",
            f"A step changes the weights by only {10 ** max(ratio, -30.0):.1e} of their size; 1e-3 is usual.",
            severity=graded(ratio, start=SMALL_UPDATE_LOG10, end=-6.0, low=0.3, high=0.5),
            confidence=0.8,
            evidence={"update_ratio_log10": ratio},
        ),
    )


def vanishing_gradient(signals: Signals) -> tuple[Finding, ...]:
    """The first layer gets hardly any gradient."""
    ratio = float(np.median(require_channel(signals, "layer_grad_ratio")["layer_grad_ratio"]))
    if ratio >= VANISHING_RATIO:
        return ()
    return (
        symptom(
            "vanishing_gradient",
            f"The gradient of the first layer is {ratio:.1e} of the last layer's: the first layers do not learn.",
            severity=graded(-math.log10(max(ratio, 1e-12)), start=3.0, end=6.0, low=0.5, high=0.85),
            confidence=0.9,
            evidence={"layer_grad_ratio": ratio},
        ),
    )


def exploding_gradient(signals: Signals) -> tuple[Finding, ...]:
    """The gradient grows from the last layer to the first, or from epoch to epoch."""
    ratios = signals.channel("layer_grad_ratio")
    if ratios is not None and float(np.median(ratios)) > EXPLODING_RATIO:
        ratio = float(np.median(ratios))
        told = f"The gradient of the first layer is {ratio:,.0f} times the last layer's: it grows on its way back."
        severity = graded(math.log10(ratio), start=math.log10(EXPLODING_RATIO), end=4.0, low=0.5, high=0.85)
        return (
            symptom(
                "exploding_gradient", told, severity=severity, confidence=0.9, evidence={"layer_grad_ratio": ratio}
            ),
        )
    doublings, factor = _doublings(signals)
    if doublings < DOUBLING_EPOCHS:
        if ratios is None and not signals.grad_norm.size:
            raise NotAssessed("no layer_grad_ratio and no gradient norm recorded")
        return ()
    return (
        symptom(
            "exploding_gradient",
            f"The gradient at least doubled in {doublings} epochs in a row, to {factor:,.0f} times its size.",
            severity=graded(math.log(factor), start=math.log(8), end=math.log(1000), low=0.4, high=0.8),
            confidence=0.8,
            evidence={"num_doublings": doublings, "factor": factor},
        ),
    )


def _doublings(signals: Signals) -> tuple[int, float]:
    """Longest row of epochs in which the median gradient norm doubled while the loss did not fall, and its factor."""
    per_epoch, norms = signals.steps_per_epoch, signals.grad_norm
    epochs = len(norms) // per_epoch
    if epochs < DOUBLING_EPOCHS + 1 or not len(signals.steps):
        return 0, 1.0
    medians = np.median(norms[: epochs * per_epoch].reshape(epochs, per_epoch), axis=1)
    losses = np.median(signals.steps[: epochs * per_epoch].reshape(epochs, per_epoch), axis=1)
    grows = (np.diff(medians) >= math.log(2)) & (np.diff(losses) > 0)
    longest = current = 0
    factor = 1.0
    for epoch, is_growing in enumerate(grows):
        current = current + 1 if is_growing else 0
        if current > longest:
            longest = current
            factor = math.exp(min(float(medians[epoch + 1] - medians[epoch + 1 - current]), 700.0))
    return longest, factor


def dead_units(signals: Signals) -> tuple[Finding, ...]:
    """Units that are zero for every sample, or activations that are nearly all zero."""
    found = require_channel(signals, "zero_frac", "dead_frac")
    shares = {name: float(np.median(values[-LAST_EPOCHS:])) for name, values in found.items()}
    dead, zero = shares.get("dead_frac", 0.0), shares.get("zero_frac", 0.0)
    if dead <= DEAD_FRAC and zero < ZERO_FRAC:
        return ()
    told = f"{dead:.0%} of the units are zero for every sample" if dead > DEAD_FRAC else f"{zero:.0%} are zero"
    return (
        symptom(
            "dead_units",
            f"Too few activations are alive: {told}. Dead units never learn again.",
            severity=max(
                graded(dead, start=DEAD_FRAC, end=1.0, low=0.4, high=0.9) if dead > DEAD_FRAC else 0.0,
                graded(zero, start=ZERO_FRAC, end=1.0, low=0.35, high=0.85) if zero >= ZERO_FRAC else 0.0,
            ),
            confidence=0.9 if dead > DEAD_FRAC else 0.7,
            evidence=shares,
        ),
    )


def class_ignored(signals: Signals) -> tuple[Finding, ...]:
    """A class that is hardly ever recognised, though most of the others are."""
    recall = float(np.median(require_channel(signals, "class_recall_min")["class_recall_min"][-LAST_EPOCHS:]))
    accuracy = signals.trace.metrics.get("accuracy", signals.trace.metrics.get("balanced_accuracy", np.empty(0)))
    is_weak = accuracy.size > 0 and float(np.median(accuracy[-LAST_EPOCHS:])) < MOSTLY_RIGHT
    if recall >= RECALL_MIN or is_weak:
        return ()
    return (
        symptom(
            "class_ignored",
            f"Of the worst class only {recall:.0%} are recognised.",
            severity=0.25 if recall > RECALL_NONE else 0.4,
            confidence=0.8,
            evidence={"class_recall_min": recall},
        ),
    )


def unscaled_input(signals: Signals) -> tuple[Finding, ...]:
    """The network is fed numbers far from mean 0 and deviation 1."""
    found = require_channel(signals, "input_mean", "input_std")
    mean = float(np.median(found.get("input_mean", [0.0])))
    deviation = float(np.median(found.get("input_std", [1.0])))
    factor = max(deviation, 1 / max(deviation, 1e-12))
    if abs(mean) <= INPUT_MEAN and factor <= INPUT_STD_FACTOR:
        return ()
    return (
        symptom(
            "unscaled_input",
            f"The network is fed numbers of mean {mean:.3g} and standard deviation {deviation:.3g}; 0 and 1 are meant.",
            severity=max(
                graded(abs(mean), start=INPUT_MEAN, end=100.0, low=0.35, high=0.75),
                graded(math.log10(factor), start=1.0, end=3.0, low=0.35, high=0.75),
            ),
            confidence=0.9,
            evidence={"input_mean": mean, "input_std": deviation},
        ),
    )


def regularisation_dominates(signals: Signals) -> tuple[Finding, ...]:
    """Most of the loss that is minimised is regularisation."""
    share = float(np.median(require_channel(signals, "regularisation_frac")["regularisation_frac"]))
    if share <= REGULARISATION_FRAC:
        return ()
    # A net that has fitted its data keeps little else; only one that has not is held back.
    is_held_back = bool(len(signals.train)) and float(np.min(signals.train)) > math.log(0.3)
    return (
        symptom(
            "regularisation_dominates",
            f"{share:.0%} of the loss that is minimised is regularisation.",
            severity=graded(share, start=REGULARISATION_FRAC, end=1.0, low=0.35, high=0.7) if is_held_back else 0.2,
            confidence=0.8 if is_held_back else 0.4,
            evidence={"regularisation_frac": share},
        ),
    )
