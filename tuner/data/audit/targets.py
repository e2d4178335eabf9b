"""Checks of the target of a regression."""

from __future__ import annotations

import numpy as np

from tuner.data.audit.sample import Sample, graded
from tuner.data.audit.values import OUTLIER_FRAC, OUTLIER_IQR, SKEW, sentinel_of, skewness
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = ["few_target_values", "target_outliers", "target_sentinel", "target_skew"]

# A target with at most this many different values, each taken by this many samples in the mean, may be classes.
# Source: convention.
FEW_TARGET_VALUES = 10
SAMPLES_PER_VALUE = 20


def few_target_values(sample: Sample) -> Finding | None:
    """A target of numbers that takes few values, like classes."""
    y = sample.dataset.y
    values, counts = np.unique(y, return_counts=True)
    if len(values) > FEW_TARGET_VALUES or counts.mean() < SAMPLES_PER_VALUE:
        return None
    shown = ", ".join(f"{value:g}" for value in values)
    return Finding(
        code="few_target_values",
        where=_name(sample),
        severity=0.4,
        confidence=0.6,
        evidence={"num_values": float(len(values)), "smallest": float(counts.min())},
        cause=f"The target takes only {len(values)} different values ({shown}): are they classes?",
        examples=(),
        remedies=(Remedy("data", "--task classification", "If the values are names of classes, not amounts."),),
    )


def target_outliers(sample: Sample) -> Finding | None:
    """Target values far outside the bulk."""
    y = sample.dataset.y
    low, high = np.quantile(y, [0.25, 0.75])
    if high == low or sentinel_of(y) is not None:
        return None
    distance = np.maximum(low - y, y - high) / (high - low)
    far = distance > OUTLIER_IQR
    share = float(far.mean())
    if share < OUTLIER_FRAC:
        return None
    worst = np.argsort(-distance, kind="stable")[: int(far.sum())]
    return Finding(
        code="target_outliers",
        where=_name(sample),
        severity=graded(20 * share, low=0.35, high=0.7),
        confidence=0.8,
        evidence={
            "outlier_frac": share,
            "num_outliers": float(far.sum()),
            "largest_distance_iqr": float(distance.max()),
        },
        cause=f"{counted(int(far.sum()), 'target values')} ({share:.1%}) {verb(int(far.sum()), 'lie')} more than "
        f"{OUTLIER_IQR:g} interquartile ranges outside the quartiles, the farthest is {y[worst[0]]:g}: a squared error "
        "sees little else.",
        examples=sample.examples(worst),
        remedies=(
            Remedy("data", "correct or remove these rows, or learn the logarithm", "The target is only scaled."),
        ),
    )


def target_skew(sample: Sample) -> Finding | None:
    """A target with a long tail."""
    found = float(skewness(sample.dataset.y[:, np.newaxis])[0])
    if abs(found) <= SKEW or sentinel_of(sample.dataset.y) is not None:
        return None
    return Finding(
        code="target_skew",
        where=_name(sample),
        severity=0.35,
        confidence=0.7,
        evidence={"skewness": found},
        cause=f"The target is skewed (skewness {found:.1f}): most of the error comes from its tail.",
        examples=(),
        remedies=(
            Remedy("data", "learn the logarithm or the root of it", "The target is only scaled, not transformed."),
        ),
    )


def target_sentinel(sample: Sample) -> Finding | None:
    """A code for a missing value among the targets."""
    found = sentinel_of(sample.dataset.y)
    if found is None:
        return None
    code, is_code = found
    return Finding(
        code="target_sentinel",
        where=_name(sample),
        severity=graded(10 * float(is_code.mean()), low=0.6, high=0.95),
        confidence=0.9,
        evidence={"code": code, "code_frac": float(is_code.mean()), "num_rows": float(is_code.sum())},
        cause=f"{counted(int(is_code.sum()), 'targets')} ({is_code.mean():.1%}) {verb(int(is_code.sum()), 'are')} "
        f"{code:g}, far from all others: probably a code for a missing value. A network would learn to predict it.",
        examples=sample.examples(np.flatnonzero(is_code)),
        remedies=(Remedy("data", f"--na {code:g}", "Rows without a target are then left out."),),
    )


def _name(sample: Sample) -> str:
    return sample.dataset.spec.target or "target"
