"""Checks of exact copies: how many, on both sides of the split, with different labels."""

from __future__ import annotations

import numpy as np

from tuner.data.audit.sample import Sample, graded
from tuner.records import Finding, Remedy

__all__ = ["conflicting_labels", "duplicates", "leaking_copies"]

# Share of rows that repeat another, and of rows with contradicting copies from which on nothing can be learned.
# Source: convention.
DUPLICATE_FRAC = 0.005
CONFLICT_SEVERE_FRAC = 0.5


def duplicates(sample: Sample) -> Finding | None:
    """Samples that are exact copies of another."""
    _, first, inverse = np.unique(sample.digests, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[inverse] != np.arange(len(inverse)))
    share = len(copies) / len(inverse)
    if share < DUPLICATE_FRAC:
        return None
    return Finding(
        code="duplicates",
        where="",
        severity=graded(share, low=0.2, high=0.7),
        confidence=1.0,
        evidence={"duplicates_frac": share, "num_duplicates": float(len(copies))},
        cause=f"{len(copies):,} samples ({share:.1%}) are exact copies of another.",
        examples=sample.examples(copies),
        remedies=(Remedy("data", "keep one of each", "Copies count twice and can stand on both sides of the split."),),
    )


def leaking_copies(sample: Sample) -> Finding | None:
    """Validation or test samples that have an exact copy in the training part."""
    train = np.unique(sample.digests[sample.split.train])
    held_out = np.concatenate([sample.split.validation, sample.split.test])
    leaked = held_out[np.isin(sample.digests[held_out], train)]
    share = len(leaked) / max(1, len(held_out))
    if share < DUPLICATE_FRAC:
        return None
    return Finding(
        code="leaking_copies",
        where="",
        severity=graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"leaked_frac": share, "num_leaked": float(len(leaked))},
        cause=f"{len(leaked):,} validation and test samples ({share:.1%}) have an exact copy in the training part, so "
        "results look better than they are.",
        examples=sample.examples(leaked),
        remedies=(Remedy("data", "keep one of each", "Then no copy can stand on both sides of the split."),),
    )


def conflicting_labels(sample: Sample) -> Finding | None:
    """Exact copies that carry different labels; of several labels, copies that do not have all in common."""
    y = sample.dataset.y
    codes = np.unique(y, axis=0, return_inverse=True)[1].ravel() if y.ndim == 2 else y
    _, inverse, counts = np.unique(sample.digests, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[inverse] > 1)
    groups = inverse[repeated]
    lowest = np.full(len(counts), np.iinfo(np.int64).max)
    highest = np.full(len(counts), -1)
    np.minimum.at(lowest, groups, codes[repeated])
    np.maximum.at(highest, groups, codes[repeated])
    conflicting = repeated[lowest[groups] != highest[groups]]
    if not len(conflicting):
        return None
    share = len(conflicting) / len(inverse)
    return Finding(
        code="conflicting_labels",
        where="",
        severity=0.95 if share >= CONFLICT_SEVERE_FRAC else graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"conflicting_frac": share, "num_conflicting": float(len(conflicting))},
        cause=f"{len(conflicting):,} samples ({share:.1%}) have an exact copy with another label.",
        examples=sample.examples(conflicting),
        remedies=(Remedy("data", "correct or remove these labels", "No model can be right on both."),),
    )
