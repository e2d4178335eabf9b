"""What every reader returns: samples and targets in memory, and how they were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.records import DataSpec

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set as it was read, before any split or cleaning.

    Attributes:
        name: Short name, for the run folder and the report.
        spec: How it was read.
        x: Images (n, height, width, channels) in uint8 or float32; tables (n, columns) in float with NaN for what is
            missing; series (n, steps) or (n, steps, channels) in float.
        y: int64 class codes, or float64 values.
        row_names: File name, or zero-based row of the file, of each sample.
        test_rows: Rows of a test part that the source itself defines, or None.
        notes: Decisions taken on the way that the user should know.
    """

    name: str
    spec: DataSpec
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    row_names: tuple[str, ...]
    test_rows: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
