"""Transformers of the columns of a table (rows, columns)."""

# scikit-learn's own names, which its tools rely on: capital X for the samples.
# ruff: noqa: N803, N806

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import QuantileTransformer
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = [
    "LARGEST_INPUT",
    "LARGEST_OUTPUT",
    "OutlierFlag",
    "OverflowToMissing",
    "RankToNormal",
    "SignedLog",
    "Winsorizer",
    "as_finite_float32",
    "without_overflow",
]

# Values beyond this many (scaled) units are clipped: they tell a network nothing more, and overflow float32 soon.
# Source: convention; a spike of 700,000 in a signal of standard deviation 30 still passes unchanged.
LARGEST_OUTPUT = 1e6

# Raw values beyond this count as missing: their squares overflow float64 sums long before they mean anything.
# Source: convention; below the largest float32, 3.4e38.
LARGEST_INPUT = 1e30

# Points of the distribution that `RankToNormal` keeps of each column. Source: scikit-learn's default is 1000; 100 make
# a bundle ten times smaller and move no value by more than the distance of two percentiles.
NUM_QUANTILES = 100

Array = npt.NDArray[Any]


def as_finite_float32(values: Array) -> npt.NDArray[np.float32]:
    """Round to float32 without ever passing on NaN or infinity."""
    bounded = np.nan_to_num(np.asarray(values), nan=0.0, posinf=LARGEST_OUTPUT, neginf=-LARGEST_OUTPUT)
    return np.asarray(np.clip(bounded, -LARGEST_OUTPUT, LARGEST_OUTPUT), np.float32)


def without_overflow(values: Array) -> Array:
    """Return a floating copy with NaN in place of what is infinite or absurdly large."""
    values = np.asarray(values)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) <= LARGEST_INPUT, values, values.dtype.type(np.nan))


class _OfColumns(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """What transformers of columns of float64 or float32 have in common."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class OverflowToMissing(_OfColumns):
    """Mark infinite and absurdly large values as missing (NaN), for the imputer behind it.

    Example:
        >>> OverflowToMissing().fit_transform([[1.0], [float("inf")]]).tolist()
        [[1.0], [nan]]
    """

    def fit(self, X: Array, y: Array | None = None) -> OverflowToMissing:
        """Remember the number of columns; nothing is learned."""
        validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False)
        return self

    def transform(self, X: Array) -> Array:
        """Return a copy with NaN in place of what cannot be used."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=False)
        return without_overflow(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.requires_fit = False
        return tags


class Winsorizer(_OfColumns):
    """Clip every column to limits learned from the training rows.

    The limits lie `reach` times the distance between two quantiles outside these quantiles: by default three
    interquartile ranges beyond the quartiles; with `reach=0` at the quantiles themselves. A column whose two
    quantiles are equal (most values the same) is clipped to its training range only, because its rare values are
    its information.

    Args:
        lower_quantile: In [0, 1].
        upper_quantile: In [0, 1], not below `lower_quantile`.
        reach: At least 0.

    Attributes:
        lower_, upper_: Limits of each column.

    Example:
        >>> Winsorizer().fit([[1.0], [2.0], [3.0]]).transform([[99.0]]).tolist()
        [[5.5]]
    """

    def __init__(self, *, lower_quantile: float = 0.25, upper_quantile: float = 0.75, reach: float = 3.0) -> None:
        self.lower_quantile = lower_quantile
        self.upper_quantile = upper_quantile
        self.reach = reach

    def fit(self, X: Array, y: Array | None = None) -> Winsorizer:
        """Learn the limits of each column.

        Raises:
            ValueError: The parameters make no interval.
        """
        if not 0 <= self.lower_quantile <= self.upper_quantile <= 1 or not self.reach >= 0:
            raise ValueError(
                f"lower_quantile={self.lower_quantile}, upper_quantile={self.upper_quantile}, reach={self.reach} are "
                "no limits: give 0 <= lower_quantile <= upper_quantile <= 1 and reach >= 0."
            )
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        low, high = np.quantile(X, [self.lower_quantile, self.upper_quantile], axis=0)
        distance = self.reach * (high - low)
        is_flat = high == low
        self.lower_ = np.where(is_flat, X.min(axis=0), low - distance).astype(X.dtype)
        self.upper_ = np.where(is_flat, X.max(axis=0), high + distance).astype(X.dtype)
        return self

    def transform(self, X: Array) -> Array:
        """Return a clipped copy."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        clipped: Array = np.clip(X, self.lower_.astype(X.dtype), self.upper_.astype(X.dtype))
        return clipped


class OutlierFlag(Winsorizer):
    """1 where a value lies outside the limits of a `Winsorizer`, 0 elsewhere.

    Example:
        >>> OutlierFlag().fit([[1.0], [2.0], [3.0]]).transform([[99.0], [2.0]]).tolist()
        [[1.0], [0.0]]
    """

    def transform(self, X: Array) -> Array:
        """Return the flags, in the type of the values."""
        clipped = super().transform(X)
        return np.asarray(np.asarray(X) != clipped, clipped.dtype)


class SignedLog(_OfColumns):
    """Compress long tails on both sides: `sign(x) * log(1 + |x| / size)`.

    The size of each column is its median absolute value other than 0 in training, so the unit does not matter.

    Attributes:
        size_: Of each column.

    Example:
        >>> SignedLog().fit([[-1.0], [1.0], [1.0]]).transform([[-1.0], [0.0], [99.0]]).round(2).tolist()
        [[-0.69], [0.0], [4.61]]
    """

    def fit(self, X: Array, y: Array | None = None) -> SignedLog:
        """Learn the size of each column."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        sizes = [np.median(column[column > 0]) if column.any() else 1.0 for column in np.abs(X).T]
        self.size_ = np.asarray(sizes, X.dtype)
        return self

    def transform(self, X: Array) -> Array:
        """Return a compressed copy."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        size = np.maximum(self.size_.astype(X.dtype), np.finfo(X.dtype).tiny)
        with np.errstate(divide="ignore"):
            # log(1 + |x| / size) where the quotient itself would overflow.
            magnitude = np.logaddexp(X.dtype.type(0), np.log(np.abs(X)) - np.log(size))
        compressed: Array = np.sign(X) * magnitude
        return compressed


class RankToNormal(QuantileTransformer):
    """scikit-learn's `QuantileTransformer` to a normal distribution, for any number of rows without a warning."""

    def __init__(self, *, n_quantiles: int = NUM_QUANTILES, random_state: int = 0) -> None:
        super().__init__(n_quantiles=n_quantiles, output_distribution="normal", random_state=random_state)

    def fit(self, X: Array, y: Array | None = None) -> RankToNormal:
        """Learn the quantiles of each column; as many as there are rows, at most."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="n_quantiles", category=UserWarning)
            super().fit(X, y)
        return self
