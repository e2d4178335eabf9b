"""Checks of copies: how many, on both sides of the split, with different labels; of rows equal but for a little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Array, Columns, Sample, graded
from tuner.data.transformers import LARGEST_INPUT
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = ["conflicting_labels", "copies_but_one", "duplicates", "leaking_copies", "near_copies"]

# Share of rows that repeat another, and of rows with contradicting copies from which on nothing can be learned.
# Source: convention.
DUPLICATE_FRAC = 0.005
CONFLICT_SEVERE_FRAC = 0.5

# Rows are near copies if they differ in each column by at most this many of its interquartile ranges, and in some.
# Source: convention; what rounding to five digits or another float leaves. No two rows of AirQualityUCI, ECG5000, EEG
# eye state, occupancy or SECOM that are not equal are so near (measured).
NEAR_IQR = 1e-4

# Columns of which most values differ that a table must have: in fewer, rows are near by chance. Source: convention;
# of 20,000 rows of three such columns, 2e8 pairs, a few in 1e4 are.
MIN_FINE_COLUMNS = 3
FINE_FRAC = 0.5

# Rows that follow in the order of a random projection and are compared with each one, and values looked at.
_NUM_NEIGHBOURS = 16
_MAX_VALUES = 20_000_000


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
        cause=f"{counted(len(copies), 'samples')} ({share:.1%}) "
        f"{'is an exact copy' if len(copies) == 1 else 'are exact copies'} of another.",
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
        cause=f"{counted(len(leaked), 'validation and test samples')} ({share:.1%}) {verb(len(leaked), 'have')} an "
        "exact copy in the training part, so results look better than they are.",
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
        cause=f"{counted(len(conflicting), 'samples')} ({share:.1%}) {verb(len(conflicting), 'have')} an exact copy "
        "with another label.",
        examples=sample.examples(conflicting),
        remedies=(Remedy("data", "correct or remove these labels", "No model can be right on both."),),
    )


def near_copies(sample: Sample) -> Finding | None:
    """Rows that equal another but for rounding, which a search for exact copies misses."""
    found = _telling(sample)
    if found is None:
        return None
    return _of_pairs(
        sample,
        _near_pairs(found[0], sample),
        code="near_copies",
        confidence=0.9,
        but_for="but for rounding",
        remedies=(Remedy("data", "keep one of each", "Copies count twice and can stand on both sides of the split."),),
    )


def copies_but_one(sample: Sample) -> Finding | None:
    """Rows that equal another in all columns but one: samples that have a number, or were entered again."""
    found = _telling(sample)
    if found is None:
        return None
    scaled, is_fine = found
    pairs, columns = _pairs_but_one(scaled, is_fine & _is_measured(sample.dataset.x))
    worst = sample.names[int(np.bincount(columns, minlength=scaled.shape[1]).argmax())]
    return _of_pairs(
        sample,
        pairs,
        code="copies_but_one",
        where=worst,
        confidence=0.8,
        but_for=f"in all columns but one, mostly {worst!r}",
        remedies=(
            Remedy("data", "keep one of each, the right one", "Copies can stand on both sides of the split."),
            Remedy("data", f"--drop {worst}", "If it only numbers the rows: equal rows then stay on one side."),
        ),
    )


def _telling(sample: Sample) -> tuple[Columns, npt.NDArray[np.bool_]] | None:
    """The columns in their interquartile ranges, and which hold values that rows hardly share by chance.

    None for what is no table, or too large, or has too few such columns.
    """
    x = sample.dataset.x
    if x.ndim != 2 or x.size > _MAX_VALUES or len(x) < 2:
        return None
    scaled, is_fine = _in_iqr(x)
    return (scaled, is_fine) if np.count_nonzero(is_fine) >= MIN_FINE_COLUMNS else None


def _of_pairs(
    sample: Sample,
    pairs: npt.NDArray[np.int64],
    *,
    code: str,
    confidence: float,
    but_for: str,
    remedies: tuple[Remedy, ...],
    where: str = "",
) -> Finding | None:
    """The finding on pairs of rows, shape (pairs, 2), that are nearly the same; None for a few.

    Args:
        but_for: In what they differ, for a sentence.
    """
    copies = np.unique(pairs.max(axis=1)) if len(pairs) else np.empty(0, np.int64)
    share = len(copies) / len(sample.dataset.x)
    if share < DUPLICATE_FRAC:
        return None
    is_train = np.isin(pairs, sample.split.train)
    num_leaking = int(np.count_nonzero(is_train.any(axis=1) & ~is_train.all(axis=1)))
    return Finding(
        code=code,
        where=where,
        severity=graded(share, low=0.25, high=0.7),
        confidence=confidence,
        evidence={
            f"{code}_frac": share,
            f"num_{code}": float(len(copies)),
            "num_leaking_pairs": float(num_leaking),
        },
        cause=f"{counted(len(copies), 'rows')} ({share:.1%}) {verb(len(copies), 'equal')} another {but_for}; "
        f"{counted(num_leaking, 'such pairs', 'lie')} on both sides of the split.",
        examples=sample.examples(copies),
        remedies=remedies,
    )


def _is_measured(x: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(x) <= LARGEST_INPUT)


def _pairs_but_one(
    scaled: Columns, is_telling: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of rows, shape (pairs, 2), that differ in one column alone, and that column.

    Each is found by a sum over the digests of its cells, less that of one column.

    Args:
        scaled: Columns in their interquartile ranges.
        is_telling: Cells that two rows hardly share by chance, of which `MIN_FINE_COLUMNS` must be equal.
    """
    total = np.zeros(len(scaled), np.uint64)
    for column in range(scaled.shape[1]):
        total += _cell_digests(scaled[:, column], column)
    pairs, columns = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    num_telling = is_telling.sum(axis=1)
    for column in range(scaled.shape[1]):
        rest = total - _cell_digests(scaled[:, column], column)
        order = np.argsort(rest, kind="stable")
        is_same = rest[order[1:]] == rest[order[:-1]]
        first, second = order[:-1][is_same], order[1:][is_same]
        differs = np.abs(scaled[first, column] - scaled[second, column]) > NEAR_IQR
        is_sure = num_telling[first] - is_telling[first, column] >= MIN_FINE_COLUMNS
        chosen = differs & is_sure
        pairs.append(np.stack([first[chosen], second[chosen]], axis=1))
        columns.append(np.full(int(chosen.sum()), column))
    return np.concatenate(pairs), np.concatenate(columns)


def _cell_digests(values: npt.NDArray[np.float64], column: int) -> npt.NDArray[np.uint64]:
    """64 bits that are equal for equal values of a column. Source: the finaliser of splitmix64 (Steele et al. 2014)."""
    salt = np.uint64(0x9E3779B97F4A7C15 * (column + 1) % 2**64)
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64) + salt
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _in_iqr(x: Array) -> tuple[Columns, npt.NDArray[np.bool_]]:
    """Columns in their interquartile ranges, missing values as one far value; and which have mostly different ones."""
    is_missing = ~_is_measured(x)
    values = np.where(is_missing, 0.0, x).astype(np.float64)
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    scaled = values / np.where(high > low, high - low, 1.0)
    scaled[is_missing] = np.abs(scaled).max(initial=1.0) * 2
    num_different = (np.diff(np.sort(values, axis=0), axis=0) > 0).sum(axis=0) + 1
    return scaled, num_different > FINE_FRAC * len(x)


def _near_pairs(scaled: Columns, sample: Sample) -> npt.NDArray[np.int64]:
    """Pairs of rows, shape (pairs, 2), that are near but not equal; such rows follow each other on any line."""
    line = scaled @ np.random.default_rng(0).normal(size=scaled.shape[1])
    order = np.argsort(line, kind="stable")
    found = [np.empty((0, 2), np.int64)]
    for distance in range(1, min(_NUM_NEIGHBOURS, len(order) - 1) + 1):
        first, second = order[:-distance], order[distance:]
        bound = NEAR_IQR * scaled.shape[1] * 5  # no projection of near rows is farther apart
        close = np.abs(line[first] - line[second]) <= bound
        first, second = first[close], second[close]
        is_near = np.abs(scaled[first] - scaled[second]).max(axis=1, initial=0.0) <= NEAR_IQR
        is_equal = sample.digests[first] == sample.digests[second]
        chosen = is_near & ~is_equal
        found.append(np.stack([first[chosen], second[chosen]], axis=1))
    return np.concatenate(found)
