"""Drawing a part of rows that have several labels each, so that every label is in it in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["draw_in_proportion"]

Rows = npt.NDArray[np.int64]


def draw_in_proportion(y: npt.NDArray[Any], frac: float, *, seed: int) -> tuple[Rows, Rows]:
    """Divide rows into the rest and a part, labels in proportion in both: iterative stratification.

    The label with the fewest rows left is dealt first, each of its rows to the side that lacks it most; so rare labels,
    which later rows could not mend, are dealt while there is a choice.

    Args:
        y: 0 and 1; shape (rows, labels).
        frac: Share of the rows for the part.
        seed: Decides the order of rows and who gets one that both sides lack alike.

    Returns:
        Positions of the rest and of the part, sorted.

    Example:
        >>> rest, part = draw_in_proportion(np.eye(2)[[0, 0, 0, 0, 1, 1]], 0.5, seed=0)
        >>> np.eye(2)[[0, 0, 0, 0, 1, 1]][part].sum(axis=0).tolist()
        [2.0, 1.0]

    Source: Sechidis, Tsoumakas & Vlahavas 2011 ("On the stratification of multi-label data"), algorithm 1.
    """
    generator = np.random.default_rng(seed)
    y = y.astype(bool)
    shares = np.array([1 - frac, frac])
    # What each side lacks still: of each label, and in rows.
    lacking, rows_lacking = shares[:, None] * y.sum(axis=0), shares * len(y)
    side = np.full(len(y), -1)
    counts = y.sum(axis=0)
    while counts.any():
        label = int(np.where(counts > 0, counts, len(y) + 1).argmin())
        for row in generator.permutation(np.flatnonzero(y[:, label] & (side < 0))).tolist():
            chosen = _neediest(lacking[:, label], rows_lacking, generator)
            side[row] = chosen
            lacking[chosen, y[row]] -= 1
            rows_lacking[chosen] -= 1
            counts -= y[row]
    # Rows without a label go where rows are lacking.
    bare = generator.permutation(np.flatnonzero(side < 0))
    num_part = int(np.clip(round(rows_lacking[1]), 0, len(bare)))
    side[bare] = 0
    side[bare[:num_part]] = 1
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def _neediest(lacking: npt.NDArray[Any], rows_lacking: npt.NDArray[Any], generator: np.random.Generator) -> int:
    """The side that lacks most of a label; of equal ones that which lacks more rows, or either."""
    for needs in (lacking, rows_lacking):
        if needs[0] != needs[1]:
            return int(needs.argmax())
    return int(generator.integers(2))
