"""What the checks of images measure: a few numbers of each image, as the network will see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Array, Sample
from tuner.data.transformers import LARGEST_INPUT

__all__ = ["Numbers", "Pictures", "measure"]

# Values of images that are looked at; of more, images are drawn with a fixed seed. Source: convention; a second or two.
MAX_PICTURE_VALUES = 25_000_000

# Share of the values that may lie beyond the ends of the range from black to white. Source: convention.
_BEYOND_FRAC = 0.001

# Full scale of uint8; values that stay below half of it are counted from something else (digits from 0 to 16).
_FULL_SCALE = 255
_LEVELS = 256

_CHUNK_VALUES = 4_000_000

# Weights of red, green and blue in brightness. Source: ITU-R BT.601, as Pillow's mode L.
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Numbers of each image; brightness is 0 for the black and 1 for the white of the data.

    Attributes:
        rows: Of the data; all other arrays are in this order.
        lowest, highest: Value in the unit of the data.
        darkest, brightest: Brightness that 1 % of the pixels do not exceed, and that 99 % do not.
        contrast: Standard deviation of the brightness.
        entropy_bits: Of the brightness in 256 levels.
        sharpness: Deviation of the second differences over the root mean square of the first ones: it falls when an
            image is blurred, whatever its contrast. Infinite for images of fewer than three pixels a side.
        chroma: Largest difference of two channels, but for 1 % of the pixels, as a share of the range; 0 for grey.
    """

    rows: npt.NDArray[np.int64]
    lowest: Numbers
    highest: Numbers
    darkest: Numbers
    brightest: Numbers
    contrast: Numbers
    entropy_bits: Numbers
    sharpness: Numbers
    chroma: Numbers

    @property
    def is_blank(self) -> npt.NDArray[np.bool_]:
        """Whether an image shows a single value."""
        return np.equal(self.lowest, self.highest)


def measure(sample: Sample) -> Pictures:
    """Measure the images of a sample."""
    x, rows = sample.dataset.x, sample.rows
    most = max(1, MAX_PICTURE_VALUES * len(x) // max(1, x.size))
    if most < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    black, white = _range(x, rows)
    step = max(1, _CHUNK_VALUES * len(x) // max(1, x.size))
    chunks = [_of_chunk(x[rows[start : start + step]], black, white) for start in range(0, len(rows), step)]
    return Pictures(rows, *(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _range(x: Array, rows: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The values of black and white."""
    seen = x[rows[np.linspace(0, len(rows) - 1, min(len(rows), 500)).astype(int)]].astype(np.float64)
    seen = seen[np.abs(seen) <= LARGEST_INPUT]
    if not len(seen):
        return 0.0, 1.0
    low, high = np.quantile(seen, [_BEYOND_FRAC, 1 - _BEYOND_FRAC])
    if x.dtype == np.uint8 and high > _FULL_SCALE / 2:
        return 0.0, float(_FULL_SCALE)
    low = min(0.0, float(low))
    return low, float(high) if high > low else low + 1.0


def _of_chunk(x: Array, black: float, white: float) -> tuple[Numbers, ...]:
    values = np.where(np.abs(x) <= LARGEST_INPUT, x, np.nan) if x.dtype.kind == "f" else x
    flat = values.reshape(len(x), -1)
    # An image without a single number counts as blank.
    present = np.where(np.isnan(flat).all(axis=1, keepdims=True), 0.0, flat) if x.dtype.kind == "f" else flat
    scaled = np.clip((np.nan_to_num(values.astype(np.float32), nan=black) - black) / (white - black), 0, 1)
    bright = scaled @ _BRIGHTNESS if x.shape[-1] == 3 else scaled.mean(axis=-1)
    levels = _histogram(bright)
    return (
        np.nanmin(present, axis=1).astype(np.float64),
        np.nanmax(present, axis=1).astype(np.float64),
        _quantile(levels, 0.01),
        _quantile(levels, 0.99),
        bright.std(axis=(1, 2)).astype(np.float64),
        _entropy_bits(levels),
        _sharpness(bright),
        _quantile(_histogram(scaled.max(axis=-1) - scaled.min(axis=-1)), 0.99),
    )


def _histogram(bright: Array) -> npt.NDArray[np.int64]:
    """Pixels of each level, shape (images, levels)."""
    level = np.rint(bright.reshape(len(bright), -1) * (_LEVELS - 1)).astype(np.int64)
    level += _LEVELS * np.arange(len(bright))[:, np.newaxis]
    return np.bincount(level.ravel(), minlength=_LEVELS * len(bright)).reshape(len(bright), _LEVELS)


def _quantile(levels: npt.NDArray[np.int64], frac: float) -> Numbers:
    """The lowest level that this share of the pixels does not exceed, in 0 to 1."""
    reached = np.cumsum(levels, axis=1) >= frac * levels.sum(axis=1, keepdims=True)
    return np.asarray(reached.argmax(axis=1) / (_LEVELS - 1))


def _entropy_bits(levels: npt.NDArray[np.int64]) -> Numbers:
    share = levels / levels.sum(axis=1, keepdims=True)
    return np.asarray(-(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1))


def _sharpness(bright: Array) -> Numbers:
    if min(bright.shape[1:]) < 3:
        return np.full(len(bright), np.inf)
    down, right = np.diff(bright, axis=1), np.diff(bright, axis=2)
    second = np.diff(down, axis=1)[:, :, 1:-1] + np.diff(right, axis=2)[:, 1:-1]
    slope = np.sqrt(np.square(down).mean(axis=(1, 2)) + np.square(right).mean(axis=(1, 2)))
    sharpness = second.std(axis=(1, 2)) / np.where(slope > 0, slope, 1)
    return np.asarray(np.where(slope > 0, sharpness, np.inf), np.float64)
