"""Samples that are there more than once, exactly or nearly: copies on two sides of a split make its figures too good.

- Any data: equal values.
- Text: equal but for case, punctuation and digits, or most runs of four characters in common (`near_texts`).
- Images: their 16 x 16 thumbnails, freed of brightness and contrast, correlate at `NEAR_CORRELATION` or more: the same
  picture in another size, file format, or exposure.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import near_texts
from tuner.data.dataset import Dataset

__all__ = ["MAX_COPIES_FRAC", "NEAR_CORRELATION", "copies", "digests", "joined", "near_images", "thumbnail_vectors"]

# Least correlation of two thumbnails that counts as the same picture. Source: measured on 14,000 images of
# Fashion-MNIST, 4,000 of CIFAR-10 and 1,797 digits: 28, 0 and 0 images have such a neighbour; after JPEG of quality 75
# 95 % of the copies still reach 0.9975, of quality 30 half of them 0.995.
NEAR_CORRELATION = 0.995

# Side of a thumbnail in pixels. Source: the same measurement; at 8 px 695 images of Fashion-MNIST have a neighbour.
THUMBNAIL_PX = 16

# With a larger share of copies, equal values are the nature of the data (few, coarse columns) and no accident.
# Source: convention.
MAX_COPIES_FRAC = 0.5

# Images whose neighbours are looked for at a time.
_BLOCK = 1024

# Directions by which most pairs are told apart without a full comparison. Source: measured; 100,000 images of noise,
# which differ in all directions alike, take 11 s with 32, 14 s with 16, and 79 s without (two cores).
_NUM_DIRECTIONS = 32

# What rounding may take from a bound in float32.
_ROUNDING = 1e-4

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def copies(dataset: Dataset) -> Codes | None:
    """A code for each sample, equal for copies of each other; None if there are none, or too many to be accidents."""
    if dataset.spec.kind == "text":
        texts = _normalised(dataset.x)
        codes, near = _codes(texts), _near_texts(texts)
    else:
        codes = _codes(digests(dataset.x))
        near = near_images(dataset.x) if dataset.spec.kind == "image" else None
    if near is not None:
        together = _connected(len(codes), _links(codes), near)
        codes = together if _frac(together) <= MAX_COPIES_FRAC else codes
    return codes if 0 < _frac(codes) <= MAX_COPIES_FRAC else None


def digests(x: Array) -> npt.NDArray[np.bytes_]:
    """A sum of the values of each sample, equal for equal samples."""
    contents = (row.encode("utf-8", "surrogatepass") if isinstance(row, str) else row.tobytes() for row in x)
    return np.array([hashlib.blake2b(each, digest_size=16).digest() for each in contents], dtype="V16").view("S16")


def near_images(x: Array) -> Array:
    """Pairs of rows, shape (pairs, 2), of images that show the same picture.

    Each is compared with those alone that lie near it along the direction in which thumbnails differ most: two unit
    vectors of correlation c are sqrt(2 - 2c) apart, and no farther along any direction. Of these, the first few
    directions and the lengths of what remains bound the correlation (Cauchy and Schwarz). So none is missed.
    """
    thumbnails = thumbnail_vectors(x)
    _, directions = np.linalg.eigh(thumbnails.T @ thumbnails)
    seen = thumbnails @ directions[:, -_NUM_DIRECTIONS:]
    order = np.argsort(seen[:, -1])
    thumbnails, seen = thumbnails[order], seen[order]
    remains = np.sqrt(np.maximum(0, np.square(thumbnails).sum(axis=1) - np.square(seen).sum(axis=1)))
    bounding, places = np.column_stack([remains, seen]), seen[:, -1]
    reach = float(np.sqrt(2 - 2 * NEAR_CORRELATION))
    pairs = []
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        last = int(np.searchsorted(places, places[stop - 1] + reach, side="right"))
        is_possible = bounding[start:stop] @ bounding[start:last].T >= NEAR_CORRELATION - _ROUNDING
        rows, others = (start + np.flatnonzero(is_possible.any(axis=axis)) for axis in (1, 0))
        first, second = np.nonzero(thumbnails[rows] @ thumbnails[others].T >= NEAR_CORRELATION)
        first, second = rows[first], others[second]
        pairs.append(np.stack([order[first[first < second]], order[second[first < second]]], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def joined(*codes: Codes) -> Codes:
    """A code for each row, equal for those that any of some codes puts together, directly or through others."""
    return _connected(len(codes[0]), *map(_links, codes))


def _connected(num_rows: int, *pairs: Array) -> Codes:
    """A code for each row, equal for those that pairs connect, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.concatenate(pairs)
    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(num_rows, num_rows))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _links(codes: Codes) -> Array:
    """Pairs that connect each row with the first of its code."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.stack([first[inverse], np.arange(len(codes))], axis=1)


def _codes(values: Array) -> Codes:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _frac(codes: Codes) -> float:
    """Share of the samples that are a copy of another one."""
    return 1 - len(np.unique(codes)) / max(1, len(codes))


def _normalised(texts: Array) -> Array:
    """Without case, punctuation and the values of digits; a text of nothing else stays as it is."""
    found = (" ".join(re.sub(r"\d", "0", re.sub(r"[\W_]+", " ", str(text).casefold())).split()) for text in texts)
    return np.array([normal or str(text) for normal, text in zip(found, texts, strict=True)], dtype=object)


def _near_texts(texts: Array) -> Array | None:
    """Pairs of rows of nearly the same texts; None if most have such a neighbour."""
    different, rows = np.unique(texts, return_index=True)
    pairs = near_texts.pairs(different.tolist(), most=int(MAX_COPIES_FRAC * len(texts)))
    return None if pairs is None else rows[pairs]


def thumbnail_vectors(x: Array) -> npt.NDArray[np.float32]:
    """Grey thumbnails as vectors of mean 0 and length 1 (0 for an image of one colour), shape (images, pixels)."""
    rows = []
    for start in range(0, len(x), _BLOCK):
        pixels = x[start : start + _BLOCK].astype(np.float32)
        grey = np.nan_to_num(pixels, copy=False, posinf=0.0, neginf=0.0).mean(axis=-1)
        for axis in (1, 2):
            size = grey.shape[axis]
            edges = np.linspace(0, size, min(THUMBNAIL_PX, size) + 1).astype(int)
            shape = [-1 if other == axis else 1 for other in range(3)]
            grey = np.add.reduceat(grey, edges[:-1], axis=axis) / np.diff(edges).reshape(shape).astype(np.float32)
        flat = grey.reshape(len(grey), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        rows.append(np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3))
    return np.concatenate(rows)
