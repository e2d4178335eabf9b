"""Checks of numbers in columns and channels: missing, coded, infinite, constant, far out, skewed, of unlike size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Array, Columns, Sample, graded
from tuner.data.transformers import LARGEST_INPUT
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = [
    "OUTLIER_FRAC",
    "OUTLIER_IQR",
    "SKEW",
    "constant_columns",
    "constant_series",
    "infinite_values",
    "missing_values",
    "outliers",
    "scale_spread",
    "sentinel_of",
    "sentinel_values",
    "skew",
    "skewness",
    "zero_codes",
]

# Codes that instruments and surveys write for a missing value. Source: the data sets of the UCI repository.
SENTINELS = (-200.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0)

# A sentinel is believed if it takes this share of a column and lies this many interquartile ranges from its other
# values. Source: AirQualityUCI has 3.9 % or more of -200, tens of ranges away.
SENTINEL_FRAC = 0.001
SENTINEL_DISTANCE_IQR = 3.0

# Zeros are doubted in a column where they are at most this share, with at least so many other values, all of one sign,
# and farther from 0 than so many interquartile ranges of theirs. Source: convention; the sensors of AirQualityUCI and
# SECOM that are far from 0 have none, and light that is 0 at night begins near it.
MAX_ZERO_FRAC = 0.5
MIN_ZERO_VALUES = 10
ZERO_DISTANCE_IQR = 1.0

# Share of missing cells in the worst column that is worth a line, and the share over all from which nothing is left.
MISSING_FRAC = 0.001
MISSING_SEVERE_FRAC = 0.99

# Outlier: beyond this many interquartile ranges outside the quartiles (Tukey's "far out"); reported from this share
# of cells on, or one this many ranges away. Source: 2e-6 of a normal distribution; ecg5000 has 0.65 %, eeg 1.8 %.
OUTLIER_IQR = 3.0
OUTLIER_FRAC = 0.001
GIANT_IQR = 100.0

# Fewest steps of a series that can be called constant, and share of such series that is worth a line. Source:
# convention; a table of a few columns may well have a row of equal values.
MIN_STEPS = 16
FLAT_FRAC = 0.001

# Sample skewness of a column. Source: convention; an exponential distribution has 2.
SKEW = 2.0

# Largest over smallest standard deviation of the columns. Source: convention; SECOM has 4e7.
SCALE_RATIO = 1e3


def missing_values(sample: Sample) -> Finding | None:
    """Cells that are empty (or infinite, which the pipeline treats the same)."""
    if sample.dataset.x.dtype.kind != "f":
        return None
    missing = np.isnan(sample.columns)
    shares = missing.mean(axis=0)
    total = float(missing.mean())
    if shares.max(initial=0.0) < MISSING_FRAC:
        return None
    worst = sample.worst(shares, shares > 0)
    severity = 0.95 if total >= MISSING_SEVERE_FRAC else graded(total, low=0.3, high=0.85)
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
        severity=graded(share, low=0.5, high=0.85),
        confidence=1.0,
        evidence={"rows_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{share:.1%} of the rows hold numbers that are infinite or beyond {LARGEST_INPUT:.0e}.",
        examples=sample.examples(sample.rows[infinite]),
        remedies=(Remedy("imputer", "median or mean", "They are treated as missing."),),
    )


def sentinel_values(sample: Sample) -> Finding | None:
    """Codes such as -200 or -999 that stand for a missing value and are taken for a measurement."""
    shares = np.zeros(len(sample.names))
    codes = np.zeros(len(sample.names))
    suspects = {code: (sample.columns == code).mean(axis=0) for code in SENTINELS}
    for code, code_shares in suspects.items():
        columns = np.flatnonzero(code_shares >= SENTINEL_FRAC)
        distances = np.array([_distance_iqr(sample.columns[:, column], code) for column in columns])
        # A code that is sure in one column is believed in others that it lies outside of.
        if (distances > SENTINEL_DISTANCE_IQR).any():
            believed = columns[distances > 0]
            codes[believed], shares[believed] = code, code_shares[believed]
    if not shares.any():
        return None
    worst = sample.worst(shares, shares > 0)
    code = codes[int(shares.argmax())]
    return Finding(
        code="sentinel_values",
        where=worst[0],
        severity=graded(float(shares.max()), low=0.6, high=0.85),
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
        remedies=(Remedy("data", f"--na {code:g}", "Missing values are filled; codes are taken for measurements."),),
    )


def sentinel_of(values: Columns) -> tuple[float, npt.NDArray[np.bool_]] | None:
    """The most frequent code for a missing value in one column, and where it stands; None if there is none."""
    found = [(code, values == code) for code in SENTINELS]
    believed = [
        (code, is_code)
        for code, is_code in found
        if is_code.mean() >= SENTINEL_FRAC and _distance_iqr(values, code) > SENTINEL_DISTANCE_IQR
    ]
    return max(believed, key=lambda each: int(each[1].sum()), default=None)


def zero_codes(sample: Sample) -> Finding | None:
    """Exact zeros in a column whose other values stay far from zero."""
    is_zero = sample.columns == 0
    shares = is_zero.mean(axis=0)
    suspects = np.flatnonzero((shares >= SENTINEL_FRAC) & (shares <= MAX_ZERO_FRAC))
    shares = np.where(
        np.isin(np.arange(len(shares)), [each for each in suspects if _is_apart(sample.columns[:, each])]), shares, 0.0
    )
    if not shares.any():
        return None
    worst = sample.worst(shares, shares > 0)
    return Finding(
        code="zero_codes",
        where=worst[0],
        severity=graded(2 * float(shares.max()), low=0.3, high=0.6),
        confidence=0.5,
        evidence={
            "worst_column_frac": float(shares.max()),
            "num_columns": float(np.count_nonzero(shares)),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{shares.max():.1%} of {worst[0]!r} are exactly 0, and no other value comes near: perhaps 0 stands for "
        "a missing value.",
        examples=worst,
        remedies=(
            Remedy("data", "if so, empty these cells in the file", "Missing values are filled; --na 0 empties all 0."),
        ),
    )


def _is_apart(values: Columns) -> bool:
    """Whether the values beside 0 are many, of one sign, and farther from 0 than their middle half is wide."""
    others = np.abs(values[(values != 0) & np.isfinite(values)])
    if len(np.unique(others)) < MIN_ZERO_VALUES or np.unique(np.sign(values[values != 0])).size > 1:
        return False
    low, high = np.quantile(others, [0.25, 0.75])
    return bool(others.min() > ZERO_DISTANCE_IQR * (high - low))


def _distance_iqr(values: Columns, code: float) -> float:
    """How far a code lies outside the other values of a column, in their interquartile range; below 0 for inside."""
    others = values[(values != code) & np.isfinite(values)]
    if not len(others):
        return -1.0
    low, high = np.quantile(others, [0.25, 0.75])
    distance = max(float(others.min()) - code, code - float(others.max()))
    return distance / max(float(high - low), 1e-12)


def constant_columns(sample: Sample) -> Finding | None:
    """Columns that hold a single value, and so no information."""
    constant = _spread(sample.columns, np.nanmax) == _spread(sample.columns, np.nanmin)
    count = int(np.count_nonzero(constant))
    if count == 0:
        return None
    share = count / len(constant)
    worst = sample.worst(constant.astype(float), constant)
    return Finding(
        code="constant_columns",
        where=worst[0],
        severity=0.95 if share == 1 else graded(share, low=0.1, high=0.5),
        confidence=1.0,
        evidence={"num_columns": float(count), "columns_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{counted(count, 'columns', 'hold', of=len(constant))} a single value.",
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
    worst = sample.worst(shares, shares > 0)
    giant = 0.25 if largest >= GIANT_IQR else 0.0
    return Finding(
        code="outliers",
        where=worst[0],
        severity=graded(20 * share, low=0.25 + giant, high=0.6 + giant),
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
        examples=sample.examples(sample.rows[far.any(axis=1)]) if sample.dataset.x.ndim == 2 else worst,
        remedies=(
            Remedy("outliers", "clip", "Clips each column at three interquartile ranges."),
            Remedy("scaler", "robust", "Scales by median and quartiles, which outliers do not move."),
        ),
    )


def skew(sample: Sample) -> Finding | None:
    """Columns with a long tail."""
    found = np.abs(skewness(sample.columns))
    skewed = found > SKEW
    if not skewed.any():
        return None
    worst = sample.worst(found, skewed)
    share = float(skewed.mean())
    num_skewed = int(np.count_nonzero(skewed))
    return Finding(
        code="skew",
        where=worst[0],
        severity=graded(share, low=0.15, high=0.45),
        confidence=0.7,
        evidence={
            "num_columns": float(num_skewed),
            "columns_frac": share,
            "largest_skewness": float(found.max()),
            "num_rows_examined": float(len(sample.rows)),
        },
        cause=f"{counted(num_skewed, 'columns', 'are', of=len(skewed))} skewed (skewness beyond {SKEW:g}), "
        f"{worst[0]!r} most.",
        examples=worst,
        remedies=(Remedy("skew", "yeo-johnson", "Makes skewed columns symmetric; the search starts with it."),),
    )


def skewness(columns: Columns) -> Columns:
    """Sample skewness of each column, 0 for one that is constant."""
    mean = _spread(columns, np.nanmean)
    centred = columns - mean
    deviation = np.sqrt(_spread(centred**2, np.nanmean))
    # Rounding leaves a constant column with a tiny spread and a skewness of noise.
    varies = deviation > 1e-9 * (np.abs(mean) + 1e-30)
    cubes = _spread((centred / np.where(varies, deviation, 1.0)) ** 3, np.nanmean)
    return np.where(varies, cubes, 0.0)


def constant_series(sample: Sample) -> Finding | None:
    """Series that never change, in one of their channels or in all."""
    x = sample.dataset.x[sample.rows]
    steps = x if x.ndim > 2 else x[:, :, np.newaxis]
    if steps.shape[1] < MIN_STEPS or not np.issubdtype(x.dtype, np.number):
        return None
    filled = np.where(
        np.isnan(steps), np.nanmin(np.where(np.isnan(steps), np.inf, steps), axis=1, keepdims=True), steps
    )
    flat = filled.max(axis=1) == filled.min(axis=1)
    # A channel that is constant in all of them is a finding of `constant_columns`.
    flat &= ~flat.all(axis=0)
    is_flat = flat.any(axis=1)
    share = float(is_flat.mean())
    if share < FLAT_FRAC:
        return None
    return Finding(
        code="constant_series",
        where="",
        severity=graded(share, low=0.25, high=0.8),
        confidence=0.8,
        evidence={"flat_frac": share, "num_flat": float(is_flat.sum()), "num_rows_examined": float(len(sample.rows))},
        cause=f"{counted(int(is_flat.sum()), 'series')} ({share:.1%}) {verb(int(is_flat.sum()), 'hold')} a single "
        f"value from end to end{', in one channel at least' if steps.shape[2] > 1 else ''}: a sensor that was off?",
        examples=sample.examples(sample.rows[is_flat]),
        remedies=(Remedy("data", "remove these series", "What never changes tells nothing of its class."),),
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
