"""Checks of several labels for one sample: rare ones, those that never vary, and how many a sample has."""

from __future__ import annotations

import numpy as np

from tuner.data.audit.classes import FEW_SAMPLES
from tuner.data.audit.sample import MAX_EXAMPLES, Sample, graded
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = ["constant_labels", "label_cardinality", "rare_labels"]

# Share of samples without any label from which on they may be samples that nobody labelled. Source: convention; half
# of them; in AudioSet, MS-COCO and reuters all or nearly all samples have one.
BARE_FRAC = 0.5


def rare_labels(sample: Sample) -> Finding | None:
    """Labels that hardly any training sample has, though some sample has them."""
    names, y = sample.dataset.spec.class_names, sample.dataset.y
    counts = y[sample.split.train].sum(axis=0, dtype=np.int64)
    rare = np.flatnonzero((counts < FEW_SAMPLES) & y.any(axis=0))
    if not len(rare):
        return None
    order = rare[np.argsort(counts[rare], kind="stable")].tolist()
    return Finding(
        code="rare_labels",
        where=names[order[0]],
        severity=graded(len(rare) / len(names), low=0.3, high=0.7),
        confidence=0.9,
        evidence={"num_labels": float(len(rare)), "fewest": float(counts[order[0]])},
        cause=f"{counted(len(rare), 'labels', 'are', of=len(names))} on fewer than {FEW_SAMPLES} training samples, "
        f"{names[order[0]]!r} on {counts[order[0]]:,}.",
        examples=tuple(names[label] for label in order[:MAX_EXAMPLES]),
        remedies=(Remedy("data", "add samples, or leave these labels out", "Too few to learn from and to judge by."),),
    )


def constant_labels(sample: Sample) -> Finding | None:
    """Labels that no sample has, or every one."""
    names, y = sample.dataset.spec.class_names, sample.dataset.y
    never, always = np.flatnonzero(~y.any(axis=0)).tolist(), np.flatnonzero(y.all(axis=0)).tolist()
    constant = [*never, *always]
    if not constant:
        return None
    return Finding(
        code="constant_labels",
        where=names[constant[0]],
        severity=graded(len(constant) / len(names), low=0.4, high=0.8),
        confidence=1.0,
        evidence={"num_never": float(len(never)), "num_always": float(len(always))},
        cause=f"Of {len(names)} labels, {len(never)} {verb(len(never), 'are')} on no sample and {len(always)} on every "
        f"one; {names[constant[0]]!r} is one of them.",
        examples=tuple(names[label] for label in constant[:MAX_EXAMPLES]),
        remedies=(Remedy("data", "leave these labels out", "What never varies cannot be learned, nor judged."),),
    )


def label_cardinality(sample: Sample) -> Finding | None:
    """Most samples without any label, or all with exactly one, which then are classes."""
    counts = sample.dataset.y.sum(axis=1, dtype=np.int64)
    bare_frac, is_single = float(np.mean(counts == 0)), bool((counts == 1).all())
    if bare_frac < BARE_FRAC and not is_single:
        return None
    single = "Every sample has exactly one label, so these are classes."
    bare = f"{bare_frac:.0%} of the samples have no label: perhaps nobody labelled them."
    return Finding(
        code="label_cardinality",
        where="",
        severity=0.3 if is_single else graded(bare_frac, low=0.3, high=0.6),
        confidence=0.8,
        evidence={"labels_per_sample": float(counts.mean()), "bare_frac": bare_frac},
        cause=single if is_single else bare,
        examples=() if is_single else sample.examples(np.flatnonzero(counts == 0)),
        remedies=(
            Remedy("task", "classification", "Softmax knows that there is one, and no more.")
            if is_single
            else Remedy("data", "remove samples that were not labelled", "They teach that nothing is there."),
        ),
    )
