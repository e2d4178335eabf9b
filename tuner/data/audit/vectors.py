"""Every sample as a short vector, for what needs a cheap model: label errors, leaks of the split.

No network would be content with them; a linear model or a nearest neighbour is. Numbers are filled, clipped and scaled;
long samples are averaged over blocks; images are thumbnails, texts TF-IDF, sounds energies in bands of frequency.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.dataset import Dataset
from tuner.data.duplicates import thumbnail_vectors
from tuner.data.transformers import LARGEST_INPUT
from tuner.data.transformers.channels import is_value

__all__ = ["LENGTH", "vectors"]

# Components that are kept of longer vectors. Source: the floor of Fashion-MNIST was measured on 60.
LENGTH = 50

# Scaled values are cut here, in interquartile ranges. Source: as `clip` cuts, three ranges outside the quartiles.
CLIP_IQR = 3.5

# Columns that are looked at; of more some are drawn. Source: convention; `LENGTH` components are kept of them.
MAX_COLUMNS = 2_000

# Blocks that a series or sound is averaged over, and bands of frequency. Source: convention; a spoken digit of half a
# second has eight blocks of 60 ms.
NUM_BLOCKS = 8
NUM_BANDS = 20

# Words of the TF-IDF. Source: convention.
MAX_WORDS = 20_000

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def vectors(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Floats:
    """Vectors of mean 0 of some rows, shape (rows, at most `LENGTH`).

    Args:
        dataset: Of any kind.
        rows: At most some thousands.
    """
    x = dataset.x[rows]
    if dataset.spec.kind == "text":
        return _shortened(_of_texts(x))
    if dataset.spec.kind == "image":
        return _shortened(thumbnail_vectors(x).astype(np.float64))
    if dataset.spec.kind == "audio":
        return _shortened(_scaled(np.stack([_of_sound(each) for each in x])))
    return _shortened(_scaled(np.stack([_of_series(each) for each in x]) if x.ndim > 2 else x.astype(np.float64)))


def _scaled(values: Floats) -> Floats:
    """Each column by its median and quartiles, missing values at the median, the far ones cut."""
    if values.shape[1] > MAX_COLUMNS:
        chosen = np.random.default_rng(0).choice(values.shape[1], MAX_COLUMNS, replace=False)
        values = values[:, np.sort(chosen)]
    values = np.where(np.abs(values) <= LARGEST_INPUT, values, np.nan)
    values = values[:, ~np.isnan(values).all(axis=0)]
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
    iqr = high - low
    deviation = np.nanstd(values, axis=0)
    size = np.where(iqr > 0, iqr, deviation)
    values = np.clip((values - middle)[:, size > 0] / size[size > 0], -CLIP_IQR, CLIP_IQR)
    return np.nan_to_num(values)


def _shortened(values: Floats) -> Floats:
    from sklearn.decomposition import PCA

    values = values - values.mean(axis=0) if values.size else values
    length = min(LENGTH, *values.shape)
    if length == 0 or values.shape[1] <= LENGTH:
        return values
    solver = "randomized" if max(values.shape) > 500 else "full"
    return np.asarray(PCA(length, svd_solver=solver, random_state=0).fit_transform(values), np.float64)


def _of_series(series: Array) -> Floats:
    """Mean of each channel over blocks of what is there, its spread, and the length."""
    there = series[is_value(series[np.newaxis])[0]].astype(np.float64)
    if not len(there):
        return np.zeros((NUM_BLOCKS + 1) * series.shape[-1] + 1)
    blocks = np.array_split(there, NUM_BLOCKS) if len(there) >= NUM_BLOCKS else [there] * NUM_BLOCKS
    means = np.concatenate([block.mean(axis=0) for block in blocks])
    return np.concatenate([means, there.std(axis=0), [len(there)]])


def _of_sound(sound: Array) -> Floats:
    """Logarithm of the energy in bands of frequency, over blocks of time."""
    from scipy.fft import next_fast_len

    there = sound[~np.isnan(sound)].astype(np.float64)
    length = len(there) // NUM_BLOCKS
    if length < 2 * NUM_BANDS:
        return np.zeros(NUM_BLOCKS * NUM_BANDS)
    blocks = there[: length * NUM_BLOCKS].reshape(NUM_BLOCKS, length) * np.hanning(length)
    # A length of small factors: of a large prime the transform takes many times as long.
    power = np.abs(np.fft.rfft(blocks, next_fast_len(length, real=True))) ** 2 / length
    edges = np.geomspace(1, power.shape[1], NUM_BANDS + 1).astype(int)
    sums = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
    ends = np.maximum(edges[1:], edges[:-1] + 1)
    means = (sums[:, np.minimum(ends, power.shape[1])] - sums[:, edges[:-1]]) / (ends - edges[:-1])
    return np.asarray(np.log(np.maximum(means, 0) + 1e-9).ravel(), np.float64)


def _of_texts(texts: Array) -> Floats:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    frequencies = TfidfVectorizer(
        max_features=MAX_WORDS, sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]"
    ).fit_transform([str(text) for text in texts])
    length = min(2 * LENGTH, frequencies.shape[1] - 1, len(texts) - 1)
    return np.asarray(TruncatedSVD(max(1, length), random_state=0).fit_transform(frequencies), np.float64)
