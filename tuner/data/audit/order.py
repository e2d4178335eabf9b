"""Checks of what the order of rows tells: runs of labels, neighbours alike, values that move, parts that differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.audit.leakage import is_identifier
from tuner.data.audit.sample import Array, Columns, Sample, graded
from tuner.grammar import counted
from tuner.records import Finding, Remedy

__all__ = ["drift", "is_sorted", "neighbour_scores", "num_runs", "shifted_parts", "sorted_labels", "time_leak"]

# Rows are sorted by label if there are at most this many runs of equal labels for each class. Source: convention.
RUNS_PER_CLASS = 1.5

# Rows follow each other in time if the labels come in fewer runs than this share of what a random order gives, or, in
# a regression, if neighbouring targets correlate by this much. Source: EEG eye state has 24 runs, 0.3 % of that; the
# bound is 2,000 standard errors away for 10,000 rows.
RUNS_FRAC = 0.5
NEIGHBOUR_CORRELATION = 0.5

# By so much the nearest neighbours must be better on rows dealt at random than on rows kept in blocks (balanced
# accuracy, or R2). Source: measured, docs/audit.md.
LEAK_GAP = 0.1

# Kolmogorov-Smirnov distance between first and last third of the rows: largest difference of the shares below a value.
# Source: convention; two normal distributions a standard deviation apart have 0.38.
DRIFT_DISTANCE = 0.4

# Significance that all columns together must have, so that few rows do not look like drift.
DRIFT_ALPHA = 0.001

# Area under the ROC curve of a linear model that tells training rows from validation or test rows. Source: convention;
# measured on random splits of all data sets below 0.6.
SHIFT_AUC = 0.75

# Fewest rows that any of this is said of.
MIN_ROWS = 60

NUM_FOLDS = 5
NUM_NEIGHBOURS = 5


def sorted_labels(sample: Sample) -> Finding | None:
    """Rows that are sorted by their label."""
    if not sample.is_in_order or not is_sorted(sample):
        return None
    return Finding(
        code="sorted_labels",
        where="",
        severity=0.1,
        confidence=0.9,
        evidence={"num_runs": float(num_runs(sample.dataset.y[sample.own_rows]))},
        cause="The rows are sorted by their label. A random split, as it is made, is right; the first rows alone would "
        "lack classes.",
        examples=(),
        remedies=(Remedy("data", "no --split time", "The last rows would be of other classes than the first."),),
    )


def is_sorted(sample: Sample) -> bool:
    """Whether the labels of the file come in hardly more runs than there are classes."""
    y = sample.dataset.y[sample.own_rows]
    if sample.dataset.spec.task != "classification" or len(y) < MIN_ROWS:
        return False
    return num_runs(y) <= RUNS_PER_CLASS * len(np.unique(y))


def num_runs(y: Array) -> int:
    """Runs of equal values."""
    return 1 + int(np.count_nonzero(y[1:] != y[:-1]))


def time_leak(sample: Sample) -> Finding | None:
    """Neighbouring rows so alike that a random split asks what was already answered."""
    if not sample.is_in_order or len(sample.own_rows) < MIN_ROWS or is_sorted(sample):
        return None
    told = _order_told(sample)
    if told is None:
        return None
    is_own = np.isin(sample.model_rows, sample.own_rows)
    rows, vectors = sample.model_rows[is_own], sample.vectors[is_own]
    if not vectors.shape[1]:
        return None
    blocks = np.arange(len(rows)) * NUM_FOLDS // len(rows)
    dealt, kept = neighbour_scores(sample, vectors, rows=rows, groups=blocks)
    # What is no better than a guess on rows dealt at random gives nothing away.
    num_classes = sample.dataset.spec.num_classes
    gap = dealt - max(kept, 1 / num_classes if num_classes else 0.0)
    if gap < LEAK_GAP:
        return None
    sentence, evidence = told
    unit = "balanced accuracy" if sample.dataset.spec.task == "classification" else "share of variance (R2)"
    return Finding(
        code="time_leak",
        where="",
        severity=graded(2 * gap, low=0.5, high=0.85),
        confidence=0.8,
        evidence={"random_score": dealt, "blocks_score": kept, **evidence, "num_rows_examined": float(len(rows))},
        cause=f"{sentence}, and neighbouring rows are alike: nearest neighbours reach a {unit} of {dealt:.2f} on rows "
        f"dealt at random, of {kept:.2f} on rows kept in blocks. A random split looks better than the truth.",
        examples=(),
        remedies=(Remedy("data", "--split time", "Trains on the first rows and judges by the last."),),
    )


def _order_told(sample: Sample) -> tuple[str, dict[str, float]] | None:
    """Why the rows must follow each other in time, or None."""
    y = sample.dataset.y[sample.own_rows]
    if sample.dataset.spec.task == "classification":
        shares = np.bincount(y) / len(y)
        expected = 1 + len(y) * float(1 - np.square(shares).sum())
        found = num_runs(y)
        if found >= RUNS_FRAC * expected:
            return None
        return f"The labels come in {found:,} runs ({expected:,.0f} in a random order)", {"num_runs": float(found)}
    if np.ptp(y) == 0:
        return None
    correlation = float(np.corrcoef(y[1:], y[:-1])[0, 1])
    if correlation < NEIGHBOUR_CORRELATION:
        return None
    return f"Each target resembles the next (correlation {correlation:.2f})", {"neighbour_correlation": correlation}


def neighbour_scores(
    sample: Sample, vectors: Columns, *, rows: npt.NDArray[np.int64], groups: Array
) -> tuple[float, float]:
    """How well nearest neighbours do on folds dealt at random, and on folds that keep groups together.

    Args:
        sample: For targets and task.
        vectors: Of the rows.
        rows: Of the data.
        groups: A code for each of the rows.

    Returns:
        Balanced accuracy, or R2, of both.
    """
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    y = sample.dataset.y[rows]
    is_classes = sample.dataset.spec.task == "classification"
    model = (KNeighborsClassifier if is_classes else KNeighborsRegressor)(NUM_NEIGHBOURS, algorithm="brute")
    kept_together = GroupKFold(min(NUM_FOLDS, len(np.unique(groups))))
    found = [
        cross_val_predict(model, vectors, y, cv=KFold(NUM_FOLDS, shuffle=True, random_state=0)),
        cross_val_predict(model, vectors, y, cv=kept_together, groups=groups),
    ]
    if not is_classes:
        return float(r2_score(y, found[0])), float(r2_score(y, found[1]))
    dealt, kept = (
        float((np.bincount(y, each == y)[counts > 0] / counts[counts > 0]).mean())
        for each in found
        for counts in [np.bincount(y)]
    )
    return dealt, kept


def drift(sample: Sample) -> Finding | None:
    """Columns whose values move along the rows."""
    if not sample.is_in_order or not sample.has_row_values or is_sorted(sample):
        return None
    is_own = np.isin(sample.rows, sample.own_rows)
    columns, rows = sample.columns[is_own], sample.rows[is_own]
    third = len(rows) // 3
    if third < MIN_ROWS // 3:
        return None
    y = sample.dataset.y[rows] if sample.dataset.spec.task == "classification" else np.zeros(len(rows))
    distances, num_compared = _distances_by_class(
        (columns[:third], y[:third]), (columns[-third:], y[-third:]), num_columns=columns.shape[1]
    )
    numbers_rows = np.array([is_identifier(column, num_rows=len(sample.dataset.x)) for column in columns.T])
    moved = ~numbers_rows & (
        distances >= max(DRIFT_DISTANCE, _critical(num_compared, num_compared, num_columns=len(distances)))
    )
    if not moved.any():
        return None
    worst = sample.worst(distances, moved)
    return Finding(
        code="drift",
        where=worst[0],
        severity=graded(float(moved.mean()), low=0.25, high=0.55),
        confidence=0.7,
        evidence={
            "largest_distance": float(distances[moved].max()),
            "num_columns": float(moved.sum()),
            "columns_frac": float(moved.mean()),
            "num_rows_examined": float(len(columns)),
        },
        cause=f"{counted(int(moved.sum()), 'columns', 'move', of=len(moved))} along the rows, {worst[0]!r} most: its "
        f"first and last third share {1 - distances[moved].max():.0%} of their distribution. Later data may be unlike "
        "those learned.",
        examples=worst,
        remedies=(Remedy("data", "--split time", "Shows how a network does on later rows than it was trained on."),),
    )


def _distances_by_class(
    first: tuple[Columns, Array], last: tuple[Columns, Array], *, num_columns: int
) -> tuple[Columns, int]:
    """Mean distance of each column between rows of the same class, so that runs of labels are not taken for drift.

    Returns:
        Distances, and the rows of the smaller side that were compared; 0 if no class is large enough on both.
    """
    total, compared = np.zeros(num_columns), 0
    for code in np.unique(first[1]):
        before, after = first[0][first[1] == code], last[0][last[1] == code]
        size = min(len(before), len(after))
        if size >= MIN_ROWS // 3:
            total += size * ks_distances(before, after)
            compared += size
    return total / max(1, compared), compared


def ks_distances(first: Columns, last: Columns) -> Columns:
    """Kolmogorov-Smirnov distance of each column between two samples; missing values count as large ones."""
    both = np.concatenate([first, last])
    both = np.where(np.isnan(both), np.inf, both)
    order = np.argsort(both, axis=0, kind="stable")
    steps = np.where(order < len(first), 1 / len(first), -1 / len(last))
    heights = np.abs(np.cumsum(steps, axis=0))
    ordered = np.take_along_axis(both, order, axis=0)
    # Within equal values the height is not that of a distribution.
    ends = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, both.shape[1]), bool)])
    return np.asarray(np.where(ends, heights, 0.0).max(axis=0), np.float64)


def _critical(num_first: int, num_last: int, *, num_columns: int) -> float:
    """The distance that chance exceeds in any of the columns with the probability `DRIFT_ALPHA`."""
    if min(num_first, num_last) == 0:
        return float("inf")
    return float(
        np.sqrt(-0.5 * np.log(DRIFT_ALPHA / 2 / max(1, num_columns)) * (num_first + num_last) / num_first / num_last)
    )


def shifted_parts(sample: Sample) -> Finding | None:
    """A validation or test part that a linear model can tell from the training part."""
    if sample.dataset.groups is not None:
        # Whoever splits by group wants parts that are unlike.
        return None
    parts = {"validation": sample.split.validation, "test": sample.split.test}
    found = {name: _auc(sample, rows) for name, rows in parts.items()}
    name = max(found, key=lambda each: found[each])
    if found[name] < SHIFT_AUC:
        return None
    where, also = _moved_most(sample, parts[name])
    return Finding(
        code="shifted_parts",
        where=where,
        severity=graded((found[name] - 0.5) * 2, low=0.3, high=0.7),
        confidence=0.7,
        evidence={f"{each}_auc": value for each, value in found.items()},
        cause=f"The {name} part is unlike the training part: a linear model tells them apart (AUC "
        f"{found[name]:.2f}){also}. What is learned may not hold there.",
        examples=(where,) if where else (),
        remedies=(
            Remedy("data", "train on data like those to predict, or --drop what moves", "A network only interpolates."),
        ),
    )


def _auc(sample: Sample, rows: npt.NDArray[np.int64]) -> float:
    """How well a linear model tells rows of a part from training rows, on folds that it was not fitted on."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    is_part = np.isin(sample.model_rows, rows)
    is_used = is_part | np.isin(sample.model_rows, sample.split.train)
    if min(is_part.sum(), (is_used & ~is_part).sum()) < MIN_ROWS or not sample.vectors.shape[1]:
        return 0.5
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    codes = is_part[is_used].astype(int)
    told = cross_val_predict(RidgeClassifier(), sample.vectors[is_used], codes, cv=folds, method="decision_function")
    return float(roc_auc_score(codes, told))


def _moved_most(sample: Sample, rows: npt.NDArray[np.int64]) -> tuple[str, str]:
    """The column that differs most between a part and the training part, and a clause that names it."""
    if not sample.has_row_values:
        return "", ""
    is_part, is_train = np.isin(sample.rows, rows), np.isin(sample.rows, sample.split.train)
    distances = ks_distances(sample.columns[is_train], sample.columns[is_part])
    name = sample.names[int(distances.argmax())]
    return name, f", most by {name!r}"
