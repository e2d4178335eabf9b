"""Training, validation and test rows: seeded, stratified, and the same as two calls of scikit-learn."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import DataError

__all__ = [
    "TEST_FRAC",
    "VALIDATION_FRAC",
    "Rows",
    "Split",
    "check_sizes",
    "fingerprint",
    "make_split",
    "min_class_size",
]

# Share of all rows for the test part; validation gets as many. Source: convention.
TEST_FRAC = 0.15

# Share for validation of what an existing test part leaves. Source: convention.
VALIDATION_FRAC = 0.15

# Fewest rows that a regression can be split into three parts with. Source: convention (7 + 1 + 2).
MIN_REGRESSION_ROWS = 10

# At most this many classes are named in a message.
MAX_NAMED = 10

_CHUNK_BYTES = 64 * 2**20

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts; together they are all rows, none twice.

    Attributes:
        train: What pipelines and networks are fitted on.
        validation: What the search judges by.
        test: What only the export touches, once.
    """

    train: Rows
    validation: Rows
    test: Rows


def make_split(y: npt.NDArray[Any], *, task: str, seed: int, test_rows: Rows | None = None) -> Split:
    """Split 70/15/15, or, where a test part exists already, the rest 85/15.

    These are plain calls of scikit-learn's `train_test_split`, which anyone can repeat:

        rest, test = train_test_split(rows, test_size=0.15, random_state=seed, stratify=y)
        train, validation = train_test_split(rest, test_size=len(test), random_state=seed, stratify=y[rest])

    With a test part of its own, only the second, with `test_size=0.15`; for regression, without `stratify`.

    Args:
        y: Class codes, or values; shape (rows,).
        task: `classification` splits every class in proportion.
        seed: Decides who goes where.
        test_rows: Rows of an existing test part, kept as they are.

    Raises:
        DataError: There are too few rows for that.
    """
    from sklearn.model_selection import train_test_split

    check_sizes(y, task=task, test_rows=test_rows)
    is_classification = task == "classification"
    rows = np.arange(len(y))
    validation_size: float | int = VALIDATION_FRAC
    if test_rows is None:
        rest, test = train_test_split(
            rows, test_size=TEST_FRAC, random_state=seed, stratify=y if is_classification else None
        )
        validation_size = len(test)
    else:
        rest, test = np.delete(rows, test_rows), test_rows
    train, validation = train_test_split(
        rest, test_size=validation_size, random_state=seed, stratify=y[rest] if is_classification else None
    )
    return Split(*(np.asarray(part, np.int64) for part in (train, validation, test)))


def min_class_size(*, has_test_part: bool) -> int:
    """Fewest rows of a class outside an existing test part: one for training, one for each part to be split off."""
    return 2 if has_test_part else 3


def check_sizes(
    y: npt.NDArray[Any],
    *,
    task: str,
    test_rows: Rows | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Refuse data with too few rows, or classes with too few, to be split.

    Args:
        y: Class codes, or values.
        task: `classification` or `regression`.
        test_rows: Rows of an existing test part.
        class_names: For the message; codes are shown without.

    Raises:
        DataError: Naming the classes that are too small.
    """
    rest = y if test_rows is None else np.delete(y, test_rows)
    if task != "classification":
        if len(rest) < MIN_REGRESSION_ROWS:
            raise DataError(
                f"The data has {len(rest)} rows to learn from; at least {MIN_REGRESSION_ROWS} are needed to split them "
                "into training, validation and test. Add more."
            )
        return
    codes = np.unique(y)
    counts = np.bincount(rest.astype(np.int64), minlength=int(codes.max()) + 1)[codes]
    names = [class_names[code] if class_names else str(code) for code in codes.tolist()]
    # Splitting off a part of fewer rows than there are classes cannot give each class one.
    frac = TEST_FRAC if test_rows is None else VALIDATION_FRAC
    if math.ceil(frac * len(rest)) < len(codes):
        needed = next(size for size in itertools.count(len(rest)) if math.ceil(frac * size) >= len(codes))
        raise DataError(
            f"{len(rest)} samples are too few for {len(codes)} classes ({_listed(names)}): at least {needed} are "
            "needed, so that training, validation and test each get some of every class. Add samples, merge classes, "
            "or choose another target; for a target that is a number, give --task regression."
        )
    least = min_class_size(has_test_part=test_rows is not None)
    small = [f"{name} has {count}" for name, count in zip(names, counts.tolist(), strict=True) if count < least]
    if small:
        raise DataError(
            f"Some classes have too few samples to be split into training, validation and test: {_listed(small)}; "
            f"each needs at least {least}. Add samples, merge these classes or remove them."
        )


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_NAMED:,} more" if len(items) > MAX_NAMED else ""
    return ", ".join(items[:MAX_NAMED]) + more


def fingerprint(x: npt.NDArray[Any], y: npt.NDArray[Any], split: Split) -> str:
    """Sum of all values, targets and the split as sha256 hex; another data set or split has another one.

    It reads the samples in pieces, so a memory-mapped array stays on the disk.
    """
    digest = hashlib.sha256()
    for array in (x, y, split.train, split.validation, split.test):
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()
