"""Checks of a data set before the first training second; each gives at most one finding.

Severity: below 0.3 good to know, below 0.6 costs accuracy or stability, below `SEVERE` likely to spoil the result,
from `SEVERE` on a search would be pointless. A check is a function of `Sample` and speaks only when its threshold
is passed, so that clean data give no findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.dataset import Dataset
from tuner.data.duplicates import digests
from tuner.data.split import Split
from tuner.data.transformers import LARGEST_INPUT
from tuner.data.transformers.channels import is_value
from tuner.records import Finding, Remedy

__all__ = ["SEVERE", "audit"]

# From this severity on a search refuses to start.
SEVERE = 0.9

# Rows (or values of a channel) that the statistics look at; more are drawn with a fixed seed. Source: convention; a
# share of 0.1 % is still seen in 20 of them.
MAX_ROWS = 20_000

# Values that a check may copy at a time, in rows of large images. Source: convention; 200 MB in float32.
MAX_VALUES = 50_000_000

# Codes that instruments and surveys write for a missing value. Source: the data sets of the UCI repository.
SENTINELS = (-200.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0)

# A sentinel is believed if it takes this share of a column and lies this many interquartile ranges from its other
# values. Source: AirQualityUCI has 3.9 % or more of -200, tens of ranges away.
SENTINEL_FRAC = 0.001
SENTINEL_DISTANCE_IQR = 3.0

# Share of missing cells in the worst column that is worth a line, and the share over all from which nothing is left.
MISSING_FRAC = 0.001
MISSING_SEVERE_FRAC = 0.99

# Outlier: beyond this many interquartile ranges outside the quartiles (Tukey's "far out"); reported from this share
# of cells on, or one this many ranges away. Source: 2e-6 of a normal distribution; ecg5000 has 0.65 %, eeg 1.8 %.
OUTLIER_IQR = 3.0
OUTLIER_FRAC = 0.001
GIANT_IQR = 100.0

# Sample skewness of a column. Source: convention; an exponential distribution has 2.
SKEW = 2.0

# Largest over smallest standard deviation of the columns. Source: convention; SECOM has 4e7.
SCALE_RATIO = 1e3

# Largest over smallest class. Source: convention; 3:1 is also where balanced accuracy becomes the metric.
IMBALANCE_RATIO = 3.0

# Fewest training samples of a class that a network can be expected to learn from. Source: convention.
FEW_SAMPLES = 20

# Share of rows that repeat another, of blank images, and of rows with contradicting copies.
DUPLICATE_FRAC = 0.005
BLANK_FRAC = 0.001
CONFLICT_SEVERE_FRAC = 0.5

# Kinds whose single values say nothing: no statistics of columns are made of them.
_WITHOUT_COLUMNS = ("text", "audio")

# At most this many examples with a finding.
MAX_EXAMPLES = 5

Array = npt.NDArray[Any]
Columns = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """What the checks look at.

    Attributes:
        dataset: All of it.
        split: Its parts.
        rows: The rows that the statistics were restricted to, in order.
        columns: Values by feature, NaN for missing or infinite; (rows, features). For images, and series of several
            channels, a feature is a channel.
        names: Of the features.
        digests: A digest of every sample, for finding copies.
    """

    dataset: Dataset
    split: Split
    rows: npt.NDArray[np.int64]
    columns: Columns
    names: tuple[str, ...]
    digests: npt.NDArray[np.bytes_]


def audit(dataset: Dataset, split: Split) -> tuple[Finding, ...]:
    """Check a data set and its split.

    Args:
        dataset: As `sources.load` gave it.
        split: As `split.make_split` gave it.

    Returns:
        Findings, worst first; none for clean data.
    """
    sample = _sample(dataset, split)
    findings = [finding for check in _checks(dataset) if (finding := check(sample)) is not None]
    return tuple(sorted(findings, key=lambda finding: -finding.severity))


def _checks(dataset: Dataset) -> tuple[Callable[[Sample], Finding | None], ...]:
    checks: tuple[Callable[[Sample], Finding | None], ...] = (duplicates, leaking_copies)
    if dataset.spec.kind not in _WITHOUT_COLUMNS:
        checks += (missing_values, infinite_values)
    if dataset.spec.task == "classification":
        checks += (conflicting_labels, class_imbalance, few_samples)
    if dataset.spec.kind == "image":
        return (*checks, blank_images)
    if dataset.spec.kind in _WITHOUT_COLUMNS:
        return checks
    return (*checks, sentinel_values, constant_columns, outliers, skew, scale_spread)


def _sample(dataset: Dataset, split: Split) -> Sample:
    x = dataset.x
    rows = np.arange(len(x))
    if dataset.spec.kind in _WITHOUT_COLUMNS:
        return Sample(dataset, split, rows, np.empty((len(x), 0)), (), digests(x))
    generator = np.random.default_rng(0)
    num_rows = min(len(rows), MAX_ROWS, max(1, MAX_VALUES * len(x) // max(1, x.size)))
    if num_rows < len(rows):
        rows = np.sort(generator.choice(rows, num_rows, replace=False))
    values = x[rows] if num_rows < len(x) else x
    if x.ndim > 2:
        # The padding behind the end of a series is not missing.
        values = values[is_value(values)] if dataset.spec.is_padded else values
        values = values.reshape(-1, x.shape[-1])
        if len(values) > MAX_ROWS:
            values = values[np.sort(generator.choice(len(values), MAX_ROWS, replace=False, shuffle=False))]
    columns = values.astype(np.float64)
    columns[np.abs(columns) > LARGEST_INPUT] = np.nan
    noun = "channel" if x.ndim > 2 else "step"
    names = dataset.spec.feature_names or tuple(f"{noun} {number}" for number in range(columns.shape[1]))
    return Sample(dataset, split, rows, columns, names, digests(x))


def _examples(sample: Sample, rows: Array) -> tuple[str, ...]:
    return tuple(sample.dataset.row_names[row] for row in rows[:MAX_EXAMPLES].tolist())


def _worst(sample: Sample, badness: Array, is_bad: Array) -> tuple[str, ...]:
    """Names of the worst features, worst first."""
    order = [int(column) for column in np.argsort(-badness, kind="stable") if is_bad[column]]
    return tuple(sample.names[column] for column in order[:MAX_EXAMPLES])


def _graded(share: float, *, low: float, high: float) -> float:
    """Severity between `low` (share 0) and `high` (share 1)."""
    return float(low + (high - low) * min(1.0, max(0.0, share)))


def missing_values(sample: Sample) -> Finding | None:
    """Cells that are empty (or infinite, which the pipeline treats the same)."""
    if sample.dataset.x.dtype.kind != "f":
        return None
    missing = np.isnan(sample.columns)
    shares = missing.mean(axis=0)
    total = float(missing.mean())
    if shares.max(initial=0.0) < MISSING_FRAC:
        return None
    worst = _worst(sample, shares, shares > 0)
    severity = 0.95 if total >= MISSING_SEVERE_FRAC else _graded(total, low=0.3, high=0.85)
    return Finding(
        code="missing_values",
        where=worst[0],
        severity=severity,
        confidence=1.0,
        evidence={
            "missing_frac": total,
            "worst_missing_frac": float(shares.max()),
            "num_columns": float(np.count_nonzero(shares)),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{total:.1%} of all values are missing, {shares.max():.0%} in {worst[0]!r}.",
        examples=worst,
        remedies=(
            Remedy("imputer", "median or mean", "Fills the gaps; the search tries both."),
            Remedy("data", "drop columns that are mostly empty", "What was never measured cannot be learned from."),
        ),
    )


def infinite_values(sample: Sample) -> Finding | None:
    """Infinite numbers, which usually come from a division by zero, and numbers absurdly large."""
    x = sample.dataset.x
    if x.dtype.kind != "f":
        return None
    infinite = (np.abs(x[sample.rows]) > LARGEST_INPUT).reshape(len(sample.rows), -1).any(axis=1)
    if not infinite.any():
        return None
    share = float(infinite.mean())
    return Finding(
        code="infinite_values",
        where="",
        severity=_graded(share, low=0.5, high=0.85),
        confidence=1.0,
        evidence={"rows_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{share:.1%} of the rows hold numbers that are infinite or beyond {LARGEST_INPUT:.0e}.",
        examples=_examples(sample, sample.rows[infinite]),
        remedies=(Remedy("imputer", "median or mean", "They are treated as missing."),),
    )


def sentinel_values(sample: Sample) -> Finding | None:
    """Codes such as -200 or -999 that stand for a missing value and are taken for a measurement."""
    shares = np.zeros(len(sample.names))
    codes = np.zeros(len(sample.names))
    for code in SENTINELS:
        is_code = sample.columns == code
        for column in np.flatnonzero(is_code.mean(axis=0) >= SENTINEL_FRAC):
            if _is_far(sample.columns[:, column], is_code[:, column]):
                shares[column] += float(is_code[:, column].mean())
                codes[column] = code
    if not shares.any():
        return None
    worst = _worst(sample, shares, shares > 0)
    code = codes[int(shares.argmax())]
    return Finding(
        code="sentinel_values",
        where=worst[0],
        severity=_graded(float(shares.max()), low=0.6, high=0.85),
        confidence=0.9,
        evidence={
            "code": float(code),
            "worst_column_frac": float(shares.max()),
            "num_columns": float(np.count_nonzero(shares)),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{shares.max():.1%} of {worst[0]!r} are {code:g}, far from its other values: probably a code for a "
        "missing value.",
        examples=worst,
        remedies=(Remedy("data", f"replace {code:g} by an empty cell", "Missing values are filled; codes are not."),),
    )


def _is_far(values: Columns, is_code: npt.NDArray[np.bool_]) -> bool:
    others = values[~is_code & np.isfinite(values)]
    if not len(others):
        return False
    low, high = np.quantile(others, [0.25, 0.75])
    code = float(values[is_code][0])
    distance = max(float(others.min()) - code, code - float(others.max()))
    return distance > SENTINEL_DISTANCE_IQR * max(float(high - low), 1e-12)


def constant_columns(sample: Sample) -> Finding | None:
    """Columns that hold a single value, and so no information."""
    constant = _spread(sample.columns, np.nanmax) == _spread(sample.columns, np.nanmin)
    count = int(np.count_nonzero(constant))
    if count == 0:
        return None
    share = count / len(constant)
    worst = _worst(sample, constant.astype(float), constant)
    return Finding(
        code="constant_columns",
        where=worst[0],
        severity=0.95 if share == 1 else _graded(share, low=0.1, high=0.5),
        confidence=1.0,
        evidence={"num_columns": float(count), "columns_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{count} of {len(constant)} columns hold a single value.",
        examples=worst,
        remedies=(Remedy("data", "drop these columns", "They tell nothing and cost time."),),
    )


def _spread(columns: Columns, statistic: Callable[..., Array]) -> Array:
    """A NaN-aware statistic of each column, 0 for a column without values."""
    filled = np.where(np.isnan(columns).all(axis=0), 0.0, columns)
    return np.asarray(statistic(filled, axis=0))


def outliers(sample: Sample) -> Finding | None:
    """Values far outside the bulk of their column."""
    low, high = np.nanquantile(
        np.where(np.isnan(sample.columns).all(axis=0), 0.0, sample.columns), [0.25, 0.75], axis=0
    )
    iqr = high - low
    has_bulk = iqr > 0
    if not has_bulk.any():
        return None
    distance = np.maximum(low - sample.columns, sample.columns - high)[:, has_bulk] / iqr[has_bulk]
    present = ~np.isnan(distance)
    far = np.where(present, distance, 0.0) > OUTLIER_IQR
    share = float(far.sum() / max(1, present.sum()))
    largest = float(np.where(present, distance, 0.0).max())
    if share < OUTLIER_FRAC and largest < GIANT_IQR:
        return None
    shares = np.zeros(len(sample.names))
    shares[has_bulk] = far.mean(axis=0)
    worst = _worst(sample, shares, shares > 0)
    giant = 0.25 if largest >= GIANT_IQR else 0.0
    return Finding(
        code="outliers",
        where=worst[0],
        severity=_graded(20 * share, low=0.25 + giant, high=0.6 + giant),
        confidence=0.8,
        evidence={
            "outlier_frac": share,
            "worst_column_frac": float(shares.max()),
            "largest_distance_iqr": largest,
            "num_columns": float(np.count_nonzero(shares)),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{share:.2%} of the values lie more than {OUTLIER_IQR:g} interquartile ranges outside their column's "
        f"quartiles, the farthest {largest:,.0f} ranges.",
        examples=_examples(sample, sample.rows[far.any(axis=1)]) if sample.dataset.x.ndim == 2 else worst,
        remedies=(
            Remedy("outliers", "clip", "Clips each column at three interquartile ranges."),
            Remedy("scaler", "robust", "Scales by median and quartiles, which outliers do not move."),
        ),
    )


def skew(sample: Sample) -> Finding | None:
    """Columns with a long tail."""
    centred = sample.columns - _spread(sample.columns, np.nanmean)
    deviation = np.sqrt(_spread(centred**2, np.nanmean))
    # Rounding leaves a constant column with a tiny spread and a skewness of noise.
    varies = deviation > 1e-9 * (np.abs(_spread(sample.columns, np.nanmean)) + 1e-30)
    cubes = _spread((centred / np.where(varies, deviation, 1.0)) ** 3, np.nanmean)
    skewness = np.where(varies, cubes, 0.0)
    skewed = np.abs(skewness) > SKEW
    if not skewed.any():
        return None
    worst = _worst(sample, np.abs(skewness), skewed)
    share = float(skewed.mean())
    return Finding(
        code="skew",
        where=worst[0],
        severity=_graded(share, low=0.15, high=0.45),
        confidence=0.7,
        evidence={
            "num_columns": float(np.count_nonzero(skewed)),
            "columns_frac": share,
            "largest_skewness": float(np.abs(skewness).max()),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{np.count_nonzero(skewed)} of {len(skewed)} columns are skewed (skewness beyond {SKEW:g}), "
        f"{worst[0]!r} most.",
        examples=worst,
        remedies=(Remedy("skew", "yeo-johnson", "Makes skewed columns symmetric; the search starts with it."),),
    )


def scale_spread(sample: Sample) -> Finding | None:
    """Columns of very different size."""
    centred = sample.columns - _spread(sample.columns, np.nanmean)
    deviation = np.sqrt(_spread(centred**2, np.nanmean))
    varying = np.where(deviation > 0, deviation, np.nan)
    if np.count_nonzero(deviation > 0) < 2:
        return None
    ratio = float(np.nanmax(varying) / np.nanmin(varying))
    if ratio < SCALE_RATIO:
        return None
    largest, smallest = sample.names[int(np.nanargmax(varying))], sample.names[int(np.nanargmin(varying))]
    return Finding(
        code="scale_spread",
        where=largest,
        severity=0.2,
        confidence=1.0,
        evidence={"ratio": ratio, "num_rows_examined": float(len(sample.rows))},
        cause=f"{largest!r} varies {ratio:.1e} times as much as {smallest!r}.",
        examples=(largest, smallest),
        remedies=(Remedy("scaler", "standard, robust or minmax", "Always applied: every column gets the same size."),),
    )


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
        severity=_graded(np.log10(ratio) / 3, low=0.25, high=0.85),
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
        severity=_graded(len(few) / len(names), low=0.4, high=0.8),
        confidence=0.9,
        evidence={"num_classes": float(len(few)), "smallest": float(counts.min())},
        cause=f"{len(few)} of {len(names)} classes have fewer than {FEW_SAMPLES} training samples, {smallest!r} "
        f"{counts.min():,}.",
        examples=tuple(names[int(code)] for code in few[:MAX_EXAMPLES]),
        remedies=(Remedy("data", "add samples, or merge rare classes", "Too few to learn from and to judge by."),),
    )


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
        severity=_graded(share, low=0.2, high=0.7),
        confidence=1.0,
        evidence={"duplicates_frac": share, "num_duplicates": float(len(copies))},
        cause=f"{len(copies):,} samples ({share:.1%}) are exact copies of another.",
        examples=_examples(sample, copies),
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
        severity=_graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"leaked_frac": share, "num_leaked": float(len(leaked))},
        cause=f"{len(leaked):,} validation and test samples ({share:.1%}) have an exact copy in the training part, so "
        "results look better than they are.",
        examples=_examples(sample, leaked),
        remedies=(Remedy("data", "keep one of each", "Then no copy can stand on both sides of the split."),),
    )


def conflicting_labels(sample: Sample) -> Finding | None:
    """Exact copies that carry different labels."""
    _, inverse, counts = np.unique(sample.digests, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[inverse] > 1)
    groups = inverse[repeated]
    lowest = np.full(len(counts), np.iinfo(np.int64).max)
    highest = np.full(len(counts), -1)
    np.minimum.at(lowest, groups, sample.dataset.y[repeated])
    np.maximum.at(highest, groups, sample.dataset.y[repeated])
    conflicting = repeated[lowest[groups] != highest[groups]]
    if not len(conflicting):
        return None
    share = len(conflicting) / len(inverse)
    return Finding(
        code="conflicting_labels",
        where="",
        severity=0.95 if share >= CONFLICT_SEVERE_FRAC else _graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"conflicting_frac": share, "num_conflicting": float(len(conflicting))},
        cause=f"{len(conflicting):,} samples ({share:.1%}) have an exact copy with another label.",
        examples=_examples(sample, conflicting),
        remedies=(Remedy("data", "correct or remove these labels", "No model can be right on both."),),
    )


def blank_images(sample: Sample) -> Finding | None:
    """Images of a single colour."""
    pixels = sample.dataset.x[sample.rows].reshape(len(sample.rows), -1)
    blank = pixels.min(axis=1) == pixels.max(axis=1)
    share = float(blank.mean())
    if share < BLANK_FRAC:
        return None
    return Finding(
        code="blank_images",
        where="",
        severity=0.95 if share == 1 else _graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"blank_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{share:.1%} of the images show a single colour.",
        examples=_examples(sample, sample.rows[blank]),
        remedies=(Remedy("data", "remove these images", "They tell nothing about their class."),),
    )
