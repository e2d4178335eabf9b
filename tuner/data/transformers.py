"""The transformers that scikit-learn does not have. They import NumPy and scikit-learn only.

An exported bundle carries a copy of this file as `preprocessing.py`, so that it retrains without this package.
"""

# scikit-learn's own names, which its tools rely on: capital X for the samples.
# ruff: noqa: N803, N806

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["LARGEST_INPUT", "AddChannel", "OverflowToMissing", "PerChannel", "Winsorizer"]

# Values beyond this many (scaled) units are clipped: they tell a network nothing more, and overflow float32 soon.
# Source: convention; a spike of 700,000 in a signal of standard deviation 30 still passes unchanged.
LARGEST_OUTPUT = 1e6

# Raw values beyond this count as missing: their squares overflow float64 sums long before they mean anything.
# Source: convention; below the largest float32, 3.4e38.
LARGEST_INPUT = 1e30

# Values of one channel that a fit looks at. Source: convention; the standard error of a mean is then 0.1 % of the
# standard deviation.
FIT_VALUES = 1_000_000

# Values that are transformed at a time: 8 MB in float64.
CHUNK_VALUES = 1_000_000

Array = npt.NDArray[Any]


def as_finite_float32(values: Array) -> npt.NDArray[np.float32]:
    """Round to float32 without ever passing on NaN or infinity."""
    bounded = np.nan_to_num(np.asarray(values), nan=0.0, posinf=LARGEST_OUTPUT, neginf=-LARGEST_OUTPUT)
    return np.asarray(np.clip(bounded, -LARGEST_OUTPUT, LARGEST_OUTPUT), np.float32)


class OverflowToMissing(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
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
        with np.errstate(invalid="ignore"):
            return np.where(np.abs(X) <= LARGEST_INPUT, X, X.dtype.type(np.nan))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class Winsorizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class PerChannel(TransformerMixin, BaseEstimator):
    """Apply a transformer of columns to the channels of images (n, h, w, c) or series (n, steps, c).

    Every pixel (or step) of every sample is one row for it. It is fitted on at most `FIT_VALUES` of these rows,
    drawn with a fixed seed, and transforms piece by piece, so memory stays near the size of the result.

    Args:
        transformer: Any scikit-learn transformer that keeps the number of columns.
        seed: Decides which rows the fit sees.

    Attributes:
        transformer_: The fitted copy.
        num_channels_: Channels it was fitted on.
    """

    def __init__(self, transformer: Any, *, seed: int = 0) -> None:
        self.transformer = transformer
        self.seed = seed

    def fit(self, X: Array, y: Array | None = None) -> PerChannel:
        """Fit a copy of the transformer on the channels.

        Raises:
            ValueError: The array has no channel axis, or no values.
        """
        values = self._rows(X)
        if len(values) > FIT_VALUES:
            drawn = np.random.default_rng(self.seed).choice(len(values), FIT_VALUES, replace=False, shuffle=False)
            values = values[np.sort(drawn)]
        self.num_channels_ = values.shape[1]
        self.transformer_ = clone(self.transformer).fit(values.astype(np.float64))
        return self

    def transform(self, X: Array) -> npt.NDArray[np.float32]:
        """Return the transformed samples in the same shape, in finite float32.

        Raises:
            ValueError: The number of channels is another than in `fit`.
        """
        check_is_fitted(self)
        values = self._rows(X)
        if values.shape[1] != self.num_channels_:
            raise ValueError(f"X has {values.shape[1]} channels, but this was fitted on {self.num_channels_}.")
        result = np.empty(values.shape, np.float32)
        step = max(1, CHUNK_VALUES // self.num_channels_)
        for start in range(0, len(values), step):
            piece = self.transformer_.transform(values[start : start + step].astype(np.float64))
            result[start : start + step] = as_finite_float32(piece)
        return result.reshape(np.shape(X))

    def _rows(self, X: Array) -> Array:
        X = np.asarray(X)
        if X.ndim < 3 or X.size == 0:
            raise ValueError(f"X has shape {X.shape}; (n, height, width, channels) or (n, steps, channels) is needed.")
        return X.reshape(-1, X.shape[-1])


class AddChannel(TransformerMixin, BaseEstimator):
    """Turn rows (n, steps) into series of one channel (n, steps, 1), in finite float32.

    Attributes:
        n_features_in_: Steps it was fitted on.
    """

    def fit(self, X: Array, y: Array | None = None) -> AddChannel:
        """Remember the number of steps; nothing is learned."""
        validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False)
        return self

    def transform(self, X: Array) -> npt.NDArray[np.float32]:
        """Return the values with a channel axis."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=False)
        return as_finite_float32(X)[..., np.newaxis]
