"""Room for samples: in memory, or, where that could run out, in a file without a name that is mapped into it.

Readers write samples here, and steps that copy or convert many of them go through it, piece by piece. The file lies in
`$TMPDIR`, else in `/var/tmp`, which systems keep on a disk (`/tmp` often is memory), and goes with the array.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import EnvironmentFault
from tuner.store import storage_errors

__all__ = ["MAX_IN_MEMORY_BYTES", "allocated", "joined", "pieces", "taken"]

# Arrays up to this size are kept in memory. Source: convention; some copies of it pass by, and it is little beside the
# 1.2 GB that are reckoned with for a worker.
MAX_IN_MEMORY_BYTES = 2**28

# Bytes that are copied at a time. Source: convention.
PIECE_BYTES = 2**26

Array = npt.NDArray[Any]


def allocated(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A new array, its values not set.

    Raises:
        EnvironmentFault: The disk is full.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if size_bytes <= MAX_IN_MEMORY_BYTES or np.dtype(dtype).hasobject:
        return np.empty(shape, dtype)
    folder = _scratch_folder()
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise EnvironmentFault(
            f"Reading the data needs {size_bytes / 1e9:,.2f} GB in {str(folder)!r}, whose disk has "
            f"{free_bytes / 1e9:,.2f} GB free. Free some space, or set TMPDIR to a folder on another disk."
        )
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as stream:
        # Now, because a disk that is full when a page is written back kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size_bytes)
        return np.memmap(stream, dtype, mode="w+", shape=shape)


def _scratch_folder() -> Path:
    if "TMPDIR" not in os.environ and Path("/var/tmp").is_dir():
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


def pieces(x: Array) -> Iterator[Array]:
    """The rows of an array in order, so many at a time that a copy of them is small."""
    step = _rows_of_piece(x)
    for start in range(0, len(x), step):
        yield x[start : start + step]


def _rows_of_piece(x: Array) -> int:
    return max(1, PIECE_BYTES // max(1, x[:1].nbytes))


def joined(arrays: Sequence[Array], dtype: npt.DTypeLike | None = None) -> Array:
    """The rows of arrays one after the other, as NumPy's `concatenate`; a single one of the right type is not copied.

    Args:
        arrays: Of one shape but for the rows.
        dtype: Of the result; None for that of the arrays.

    Raises:
        EnvironmentFault: The disk is full.
    """
    dtype = np.result_type(*arrays) if dtype is None else np.dtype(dtype)
    if len(arrays) == 1 and arrays[0].dtype == dtype:
        return arrays[0]
    x = allocated((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype)
    start = 0
    for array in arrays:
        for piece in pieces(array):
            x[start : start + len(piece)] = piece
            start += len(piece)
    return x


def taken(x: Array, rows: npt.NDArray[np.int64]) -> Array:
    """A copy of some rows of an array, in any order, also more than once.

    Raises:
        EnvironmentFault: The disk is full.
    """
    found = allocated((len(rows), *x.shape[1:]), x.dtype)
    step = _rows_of_piece(x)
    for start in range(0, len(rows), step):
        found[start : start + step] = x[rows[start : start + step]]
    return found
