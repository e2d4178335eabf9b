"""Checks of columns that are no measurements: what gives the label away, and what numbers the rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Array, Columns, Sample, graded
from tuner.data.audit.values import OUTLIER_IQR
from tuner.records import Finding, Remedy

__all__ = ["column_scores", "giveaway_column", "identifier_columns", "is_identifier"]

# A column gives the label away if by itself it predicts so much of it (balanced accuracy, or R2), ...
GIVEAWAY_SCORE = 0.999
# ... and nearly so from here on, if its error is at most this share of the next column's. Source: occupancy's Light
# has 0.98 and a seventh of the error of the next; petal length of the irises 0.95, and petal width the same.
NEARLY_SCORE = 0.95
ERROR_RATIO = 1 / 3

# Bins that a column is cut into, and fewest samples in each. Source: convention.
MAX_BINS = 32
ROWS_PER_BIN = 20

# An identifier: whole numbers, all different, in a range of at most so many times their count. Source: convention.
DENSE_RANGE = 2.0

# Of more columns only those that go most with the target are judged, by class for up to so many classes. Source:
# convention.
MAX_COLUMNS = 500
MAX_TARGETS = 50

# Fewest rows that any of this is said of, and rows that columns are judged by.
MIN_ROWS = 100
MAX_ROWS = 5_000


def giveaway_column(sample: Sample) -> Finding | None:
    """A single column that predicts the label, alone or nearly so."""
    if not sample.has_row_values or len(sample.rows) < MIN_ROWS:
        return None
    scores = column_scores(sample)
    best, second = int(scores.argmax()), float(np.partition(scores, -2)[-2]) if len(scores) > 1 else 0.0
    score = float(scores[best])
    is_sure = score >= GIVEAWAY_SCORE
    if not is_sure and (score < NEARLY_SCORE or 1 - score > ERROR_RATIO * (1 - second)):
        return None
    is_class = sample.dataset.spec.task == "classification"
    given, unit = ("label", "balanced accuracy") if is_class else ("target", "R2")
    num = int(np.count_nonzero(scores >= GIVEAWAY_SCORE))
    others = f" (as do {num - 1} others)" if num > 1 else ""
    name = sample.names[best]
    return Finding(
        code="giveaway_column",
        where=name,
        severity=0.85 if is_sure else graded((score - NEARLY_SCORE) / (1 - NEARLY_SCORE), low=0.5, high=0.7),
        confidence=0.7,
        evidence={"score": score, "next_score": second, "num_columns": float(max(1, num))},
        cause=f"{name!r} alone {'gives' if is_sure else 'nearly gives'} the {given} away{others}: {unit} {score:.3f}, "
        f"the next column {second:.3f}. Is it known when the {given} is not?",
        examples=sample.worst(scores, scores >= min(score, GIVEAWAY_SCORE)),
        remedies=(Remedy("data", f"--drop {name}", f"If it is measured after the {given}, or is made from it."),),
    )


def column_scores(sample: Sample) -> Columns:
    """How well each column alone predicts the target: cut into bins on one half of the rows, judged on the other.

    Returns:
        Balanced accuracy, or R2 (0 for less), of each column.
    """
    chosen = np.random.default_rng(0).permutation(len(sample.rows))
    if sample.dataset.spec.task == "regression":
        # Codes such as -200, in column and target at once, would make any column predict the target.
        y = sample.dataset.y[sample.rows[chosen]]
        low, high = np.quantile(y, [0.25, 0.75])
        is_usual = np.maximum(low - y, y - high) <= OUTLIER_IQR * (high - low)
        chosen = chosen[is_usual]
    chosen = chosen[:MAX_ROWS]
    columns, y = sample.columns[chosen], sample.dataset.y[sample.rows[chosen]]
    suspects = _suspects(columns, y) if columns.shape[1] > MAX_COLUMNS else np.arange(columns.shape[1])
    half = len(chosen) // 2
    num_bins = int(np.clip(half // ROWS_PER_BIN, 2, MAX_BINS))
    score = _class_score if sample.dataset.spec.task == "classification" else _value_score
    scores = np.zeros(columns.shape[1])
    scores[suspects] = [score(_bins(column, half, num_bins), y, half=half) for column in columns[:, suspects].T]
    if sample.dataset.spec.task == "regression":
        scores[suspects] = np.maximum(scores[suspects], _correlations(columns[:, suspects], y) ** 2)
    return scores


def _correlations(columns: Columns, y: Array) -> Columns:
    """Of each column with the target, by values or by ranks: bins alone do not tell a copy from a relative."""
    from scipy.stats import rankdata

    found = np.zeros(columns.shape[1])
    for number, column in enumerate(columns.T):
        known = ~np.isnan(column)
        if known.mean() > 0.5 and np.ptp(column[known]) > 0 and np.ptp(y[known]) > 0:
            ranks = rankdata(column[known]), rankdata(y[known])
            pairs = (ranks, (column[known], y[known]))
            found[number] = max(abs(float(np.corrcoef(*pair)[0, 1])) for pair in pairs)
    return found


def _suspects(columns: Columns, y: Array) -> npt.NDArray[np.int64]:
    """The columns that, or whose distances from their median, go most with any class or with the target."""
    filled = np.where(
        np.isnan(columns), np.nanmedian(np.where(np.isnan(columns).all(axis=0), 0.0, columns), axis=0), columns
    )
    # Ranks, so that a single giant does not hide the rest.
    ranks = np.argsort(np.argsort(filled, axis=0), axis=0) / len(filled) - 0.5
    codes = np.unique(y)
    targets = y[:, np.newaxis] == codes if len(codes) <= MAX_TARGETS else y[:, np.newaxis]
    targets = targets - targets.mean(axis=0)
    found = [
        np.abs(targets.T @ values).max(axis=0) / (np.linalg.norm(values, axis=0) + 1e-12)
        for values in (ranks, np.abs(ranks) - np.abs(ranks).mean(axis=0))
    ]
    return np.argsort(-np.maximum(*found), kind="stable")[:MAX_COLUMNS]


def _bins(column: Array, half: int, num_bins: int) -> npt.NDArray[np.int64]:
    """The bin of each value; edges between different values of the first half, missing values in one of their own."""
    known = column[:half][~np.isnan(column[:half])]
    values = np.unique(known)
    middles = (values[1:] + values[:-1]) / 2
    if len(middles) >= num_bins:
        middles = np.unique(np.quantile(known, np.linspace(0, 1, num_bins + 1)[1:-1]))
    return np.where(np.isnan(column), len(middles) + 1, np.searchsorted(middles, column))


def _class_score(bins: npt.NDArray[np.int64], y: Array, *, half: int) -> float:
    counts = np.zeros((int(bins.max()) + 1, int(y.max()) + 1))
    np.add.at(counts, (bins[:half], y[:half]), 1)
    answers = (counts / np.maximum(1, counts.sum(axis=0))).argmax(axis=1)
    asked = y[half:]
    sizes = np.bincount(asked)
    right = np.bincount(asked, answers[bins[half:]] == asked)
    return float((right[sizes > 0] / sizes[sizes > 0]).mean())


def _value_score(bins: npt.NDArray[np.int64], y: Array, *, half: int) -> float:
    sizes = np.bincount(bins[:half], minlength=int(bins.max()) + 1)
    means = np.bincount(bins[:half], y[:half], minlength=len(sizes)) / np.maximum(1, sizes)
    asked = y[half:]
    spread = float(np.square(asked - asked.mean()).sum())
    error = float(np.square(asked - means[bins[half:]]).sum())
    return max(0.0, 1 - error / spread) if spread > 0 else 0.0


def identifier_columns(sample: Sample) -> Finding | None:
    """Columns that number the rows, or their subjects: nothing to learn from, much to learn by heart."""
    if not sample.has_row_values or sample.dataset.spec.form != "table" or len(sample.rows) < MIN_ROWS:
        return None
    found = np.array([is_identifier(column, num_rows=len(sample.dataset.x)) for column in sample.columns.T])
    if not found.any():
        return None
    names = sample.worst(found.astype(float), found)
    shown = ", ".join(map(repr, names)) + (" ..." if found.sum() > len(names) else "")
    return Finding(
        code="identifier_columns",
        where=names[0],
        severity=0.45,
        confidence=0.7,
        evidence={"num_columns": float(found.sum()), "num_rows_examined": float(len(sample.rows))},
        cause=f"{shown} {'has' if found.sum() == 1 else 'have'} a value of its own in every row, in order or without "
        "gaps: a number of the row, an identifier or a time, not a measurement.",
        examples=names,
        remedies=(Remedy("data", f"--drop {','.join(names)}", "New rows have numbers that were never seen."),),
    )


def is_identifier(column: Array, *, num_rows: int) -> bool:
    """Whether a column numbers the rows: all values differ, and they are in order or whole without wide gaps."""
    if np.isnan(column).any() or len(np.unique(column)) < len(column):
        return False
    steps = np.diff(column)
    if (steps > 0).all() or (steps < 0).all():
        return True
    return bool((column == np.round(column)).all() and np.ptp(column) + 1 <= DENSE_RANGE * num_rows)
