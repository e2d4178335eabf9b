"""Texts that are nearly the same: a typing error, another greeting, a line more in a long text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NEAR_JACCARD", "pairs"]

# Least share of the runs of `_RUN` characters of two texts, taken together, that both have for them to count as one.
# Source: measured. Of 10,003 questions of Banking77, where different ones differ by a word, 19 pairs reach it, all of
# one label and of the same meaning; at 0.91 the first pair of two labels appears, at 0.8 there are six. One letter may
# differ from about 100 characters on, a word of four letters from about 170 on.
NEAR_JACCARD = 0.92
_RUN = 4

# Texts whose neighbours are looked for at a time.
_BLOCK = 512

# Runs of characters of the pairs that are compared at a time: many long texts that are alike would take gigabytes.
_MAX_RUNS = 2_000_000

Rows = npt.NDArray[np.int64]


def pairs(texts: Sequence[str], *, most: int) -> Rows | None:
    """Pairs of rows, shape (pairs, 2), of texts whose runs of characters overlap by `NEAR_JACCARD` or more.

    None is missed: two such texts have one of the rarest runs of each in common (prefix filtering: Bayardo, Ma and
    Srikant, Scaling Up All Pairs Similarity Search, 2007), so the others are never compared.

    Args:
        texts: All different.
        most: With more texts than this that have a neighbour, it ends at once and returns None.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if not any(len(text) >= _RUN for text in texts):
        return np.empty((0, 2), np.int64)
    runs = CountVectorizer(analyzer="char", ngram_range=(_RUN, _RUN), lowercase=False, binary=True, dtype=np.float32)
    has = runs.fit_transform(texts)
    sizes = np.diff(has.indptr)
    rarest = _rarest(has, sizes)
    transposed = rarest.T.tocsc()
    found: list[Rows] = []
    is_near = np.zeros(len(texts), bool)
    num_at_once = max(1, _MAX_RUNS // int(sizes.max()))
    for start in range(0, len(texts), _BLOCK):
        candidates = (rarest[start : start + _BLOCK] @ transposed).tocoo()
        first, second = start + candidates.row, candidates.col
        is_possible = (first < second) & (
            np.minimum(sizes[first], sizes[second]) >= NEAR_JACCARD * np.maximum(sizes[first], sizes[second])
        )
        first, second = first[is_possible], second[is_possible]
        for chosen in range(0, len(first), num_at_once):
            found.append(_near(has, sizes, first[chosen : chosen + num_at_once], second[chosen : chosen + num_at_once]))
            is_near[found[-1].ravel()] = True
            if is_near.sum() > most:
                return None
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _near(has: Any, sizes: Rows, first: Rows, second: Rows) -> Rows:
    """Those of some pairs whose runs overlap enough."""
    both = np.asarray(has[first].multiply(has[second]).sum(axis=1)).ravel()
    near = both >= NEAR_JACCARD * (sizes[first] + sizes[second] - both)
    return np.stack([first[near], second[near]], axis=1).astype(np.int64)


def _rarest(has: Any, sizes: Rows) -> Any:
    """The same matrix with those of the rarest runs of each row alone, one of which near texts share."""
    from scipy.sparse import csr_array

    order = np.argsort(np.argsort(np.bincount(has.indices, minlength=has.shape[1]), kind="stable"), kind="stable")
    rows = np.repeat(np.arange(len(sizes)), sizes)
    by_rarity = np.lexsort((order[has.indices], rows))
    place = np.arange(len(rows)) - np.repeat(has.indptr[:-1], sizes)
    kept = by_rarity[place < (sizes - np.ceil(NEAR_JACCARD * sizes).astype(int) + 1)[rows]]
    return csr_array((np.ones(len(kept), np.float32), (rows[kept], has.indices[kept])), shape=has.shape)
