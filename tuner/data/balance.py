"""Classes of unequal size, made to count alike in training: by weights, or by rows that are repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["class_weights", "oversampled_rows"]


def class_weights(y: npt.NDArray[Any]) -> dict[int, float]:
    """Weight of each class code: rows / (classes x rows of the class), scikit-learn's "balanced".

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]))
        {0: 0.6666666666666666, 1: 2.0}
    """
    codes, counts = np.unique(y, return_counts=True)
    weights = len(y) / (len(codes) * counts)
    return dict(zip(codes.tolist(), weights.tolist(), strict=True))


def oversampled_rows(y: npt.NDArray[Any], *, seed: int) -> npt.NDArray[np.int64]:
    """Positions of rows such that every class has as many as the largest: all rows once, then rows drawn again.

    For the training part only, as imbalanced-learn's `RandomOverSampler`.

    Args:
        y: Class codes.
        seed: Decides which rows are repeated.

    Example:
        >>> oversampled_rows(np.array([0, 0, 0, 1]), seed=0).tolist()
        [0, 1, 2, 3, 3, 3]
    """
    generator = np.random.default_rng(seed)
    codes, counts = np.unique(y, return_counts=True)
    drawn = [
        generator.choice(np.flatnonzero(y == code), counts.max() - count)
        for code, count in zip(codes, counts, strict=True)
    ]
    return np.concatenate([np.arange(len(y)), *drawn])
