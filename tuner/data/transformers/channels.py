"""Transformers of samples with a channel axis: images (n, height, width, channels) and series (n, steps, channels)."""

# scikit-learn's own names, which its tools rely on: capital X for the samples.
# ruff: noqa: N803, N806

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from .columns import Array, as_finite_float32, without_overflow

__all__ = ["CHUNK_VALUES", "FIT_VALUES", "PADDINGS", "AddChannel", "PerChannel", "StandardizeEach", "is_value"]

# Rows of one channel that a fit looks at. Source: convention; the standard error of a mean is then 0.1 % of the
# standard deviation.
FIT_VALUES = 1_000_000

# Values that are transformed at a time: 8 MB in float64.
CHUNK_VALUES = 1_000_000

# What `PerChannel` does with the end of a short sequence.
PADDINGS = (None, "zero", "flag")


def is_value(X: Array) -> npt.NDArray[np.bool_]:
    """Which steps of sequences (n, steps, ...) are before their end; behind it all channels are NaN.

    Example:
        >>> is_value(np.array([[[1.0], [np.nan], [2.0], [np.nan]]])).tolist()
        [[True, True, True, False]]
    """
    present = np.asarray(~np.isnan(X.reshape(*X.shape[:2], -1)).all(axis=2))
    lengths = np.where(present.any(axis=1), X.shape[1] - present[:, ::-1].argmax(axis=1), 0)
    reached: npt.NDArray[np.bool_] = np.arange(X.shape[1]) < lengths[:, np.newaxis]
    return reached


class PerChannel(TransformerMixin, BaseEstimator):
    """Apply a transformer of columns to the channels of images (n, h, w, c) or series (n, steps, c).

    Every pixel (or step) of every sample is one row for it. It is fitted on at most `FIT_VALUES` of these rows,
    drawn with a fixed seed, and transforms piece by piece, so memory stays near the size of the result.

    Args:
        transformer: Any scikit-learn transformer; it may give more columns than it gets.
        padding: None where all samples are of full length. `zero` leaves the padding at the end of sequences out of
            the fit and makes it 0 in the result; `flag` adds a last channel, too, which is 1 where the sequence has
            values and 0 in its padding.
        seed: Decides which rows the fit sees.

    Attributes:
        transformer_: The fitted copy.
        num_channels_: Channels it was fitted on.
    """

    def __init__(self, transformer: Any, *, padding: str | None = None, seed: int = 0) -> None:
        self.transformer = transformer
        self.padding = padding
        self.seed = seed

    def fit(self, X: Array, y: Array | None = None) -> PerChannel:
        """Fit a copy of the transformer on the channels.

        Raises:
            ValueError: The array has no channel axis, or no values; or `padding` is none of `PADDINGS`.
        """
        if self.padding not in PADDINGS:
            raise ValueError(f"padding={self.padding!r} is unknown. Expected one of {PADDINGS}.")
        self.num_channels_ = self._checked(X).shape[-1]
        self.transformer_ = clone(self.transformer).fit(self.rows(X, most=FIT_VALUES))
        return self

    def rows(self, X: Array, *, most: int | None = None) -> npt.NDArray[np.float64]:
        """Return the rows that the transformer learns from, padding left out.

        Args:
            X: Samples.
            most: If there are more, so many are drawn.

        Raises:
            ValueError: The array has no channel axis, or no values.
        """
        X = self._checked(X)
        values = X.reshape(-1, X.shape[-1])
        rows = np.flatnonzero(is_value(X)) if self.padding else None
        if rows is not None and not len(rows):
            rows = np.zeros(1, np.int64)  # Nothing but padding: the transformer makes of NaN what it can.
        count = len(values) if rows is None else len(rows)
        if most is not None and count > most:
            drawn = np.sort(np.random.default_rng(self.seed).choice(count, most, replace=False, shuffle=False))
            rows = drawn if rows is None else rows[drawn]
        return (values if rows is None else values[rows]).astype(np.float64)

    def transform(self, X: Array) -> npt.NDArray[np.float32]:
        """Return the transformed samples, in finite float32.

        Raises:
            ValueError: The number of channels is another than in `fit`.
        """
        check_is_fitted(self)
        X = self._checked(X)
        if X.shape[-1] != self.num_channels_:
            raise ValueError(f"X has {X.shape[-1]} channels, but this was fitted on {self.num_channels_}.")
        step = max(1, CHUNK_VALUES // max(1, X[0].size))
        pieces = [self._transformed(X[start : start + step]) for start in range(0, len(X), step)]
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]

    def _transformed(self, X: Array) -> npt.NDArray[np.float32]:
        if self.padding is None:
            return self._of_rows(X.reshape(-1, X.shape[-1])).reshape(*X.shape[:-1], -1)
        mask = is_value(X)
        # One row at least, which says how many columns there will be.
        some = self._of_rows(X[mask]) if mask.any() else self._of_rows(X[:1, 0])[:0]
        result = np.zeros((*mask.shape, some.shape[1] + (self.padding == "flag")), np.float32)
        result[mask, : some.shape[1]] = some
        if self.padding == "flag":
            result[..., -1] = mask
        return result

    def _of_rows(self, rows: Array) -> npt.NDArray[np.float32]:
        return as_finite_float32(self.transformer_.transform(rows.astype(np.float64)))

    def _checked(self, X: Array) -> Array:
        X = np.asarray(X)
        if X.ndim < 3 or X.size == 0:
            raise ValueError(f"X has shape {X.shape}; (n, height, width, channels) or (n, steps, channels) is needed.")
        return X


def _checked(estimator: Any, X: Array, *, reset: bool) -> Array:
    """Numbers of any shape that may be missing."""
    checked: Array = validate_data(
        estimator, X, dtype=[np.float64, np.float32], ensure_all_finite=False, allow_nd=True, reset=reset
    )
    return checked


class StandardizeEach(TransformerMixin, BaseEstimator):
    """Give every single series mean 0 and deviation 1, in each of its channels; nothing is learned from others.

    Missing values stay missing and do not count; a series without variation becomes 0. Use it when only the shape of a
    series tells its class, not its level or size.

    Example:
        >>> StandardizeEach().fit_transform([[1.0, 3.0], [700.0, 500.0]]).round(3).tolist()
        [[-1.0, 1.0], [1.0, -1.0]]
    """

    def fit(self, X: Array, y: Array | None = None) -> StandardizeEach:
        """Remember the number of steps; nothing is learned."""
        _checked(self, X, reset=True)
        return self

    def transform(self, X: Array) -> Array:
        """Return a scaled copy of series (n, steps) or (n, steps, channels)."""
        X = without_overflow(_checked(self, X, reset=False))
        present = ~np.isnan(X)
        counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
        # Scaled to its largest value first, a series of any size can be squared.
        size = np.max(np.abs(X), axis=1, keepdims=True, initial=0.0, where=present)
        X = X / np.where(size > 0, size, 1.0).astype(X.dtype)
        centred = X - np.sum(X, axis=1, keepdims=True, where=present) / counts
        deviation = np.sqrt(np.sum(centred**2, axis=1, keepdims=True, where=present) / counts)
        # Rounding leaves a constant series a tiny spread.
        varies = deviation > 10 * np.finfo(X.dtype).eps
        scaled: Array = np.where(varies, centred / np.where(varies, deviation, 1.0), centred * 0).astype(X.dtype)
        return scaled

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AddChannel(TransformerMixin, BaseEstimator):
    """Put a channel axis behind the others, in finite float32: rows (n, steps) become series (n, steps, 1).

    Args:
        num_channels: More than 1 where the columns are several blocks of equal size, one after the other, which
            become channels: (n, channels x steps) becomes (n, steps, channels).
        keeps_missing: NaN stays NaN, for a transformer behind it.

    Attributes:
        n_features_in_: Columns it was fitted on.
    """

    def __init__(self, *, num_channels: int = 1, keeps_missing: bool = False) -> None:
        self.num_channels = num_channels
        self.keeps_missing = keeps_missing

    def fit(self, X: Array, y: Array | None = None) -> AddChannel:
        """Remember the number of columns; nothing is learned.

        Raises:
            ValueError: The columns cannot be divided into so many channels.
        """
        X = _checked(self, X, reset=True)
        if X.shape[1] % self.num_channels:
            raise ValueError(f"{X.shape[1]} columns cannot be divided into {self.num_channels} channels of equal size.")
        return self

    def transform(self, X: Array) -> npt.NDArray[np.float32]:
        """Return the values with a channel axis."""
        check_is_fitted(self)
        X = _checked(self, X, reset=False)
        X = without_overflow(X).astype(np.float32) if self.keeps_missing else as_finite_float32(X)
        if self.num_channels == 1:
            return X[..., np.newaxis]
        return np.moveaxis(X.reshape(len(X), self.num_channels, -1), 1, 2)
