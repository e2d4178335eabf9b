"""Checks of the classes: how unequal they are, and whether each has enough samples."""

from __future__ import annotations

import numpy as np

from tuner.data.audit.sample import MAX_EXAMPLES, Sample, graded
from tuner.grammar import counted
from tuner.records import Finding, Remedy

__all__ = ["FEW_SAMPLES", "class_imbalance", "few_samples"]

# Largest over smallest class. Source: convention; 3:1 is also where balanced accuracy becomes the metric.
IMBALANCE_RATIO = 3.0

# Fewest training samples of a class that a network can be expected to learn from. Source: convention.
FEW_SAMPLES = 20


def class_imbalance(sample: Sample) -> Finding | None:
    """Classes of very different size."""
    names = sample.dataset.spec.class_names
    counts = np.bincount(sample.dataset.y, minlength=len(names))
    ratio = float(counts.max() / max(1, counts.min()))
    if ratio <= IMBALANCE_RATIO:
        return None
    smallest = names[int(counts.argmin())]
    return Finding(
        code="class_imbalance",
        where=smallest,
        severity=graded(np.log10(ratio) / 3, low=0.25, high=0.85),
        confidence=1.0,
        evidence={"ratio": ratio, "largest": float(counts.max()), "smallest": float(counts.min())},
        cause=f"The largest class has {ratio:.1f} times the samples of the smallest, {smallest!r} ({counts.min():,}).",
        examples=tuple(names[int(code)] for code in np.argsort(counts, kind="stable")[:MAX_EXAMPLES]),
        remedies=(
            Remedy("balance", "class_weights", "Rare classes weigh more; the default from 3:1 on."),
            Remedy("metric", "balanced_accuracy", "Counts every class the same; the default from 3:1 on."),
        ),
    )


def few_samples(sample: Sample) -> Finding | None:
    """Classes with hardly any training samples."""
    names = sample.dataset.spec.class_names
    counts = np.bincount(sample.dataset.y[sample.split.train], minlength=len(names))
    few = np.flatnonzero(counts < FEW_SAMPLES)
    if not len(few):
        return None
    smallest = names[int(counts.argmin())]
    return Finding(
        code="few_samples",
        where=smallest,
        severity=graded(len(few) / len(names), low=0.4, high=0.8),
        confidence=0.9,
        evidence={"num_classes": float(len(few)), "smallest": float(counts.min())},
        cause=f"{counted(len(few), 'classes', 'have', of=len(names))} fewer than {FEW_SAMPLES} training samples, "
        f"{smallest!r} {counts.min():,}.",
        examples=tuple(names[int(code)] for code in few[:MAX_EXAMPLES]),
        remedies=(Remedy("data", "add samples, or merge rare classes", "Too few to learn from and to judge by."),),
    )
