"""What every reader returns: samples and targets in memory, and how they were read."""

from __future__ import annotations

from dataclasses import dataclass, field
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
            missing; series (n, steps) or (n, steps, channels) in float; sound (n, steps) in float32; text (n,) in
            object (str). Samples that are shorter than the longest end in NaN (`spec.is_padded`).
        y: int64 class codes, shape (n,); int8 0 and 1 of several labels, (n, labels); or float64 values, (n,).
        row_names: File name, or zero-based row of the file, of each sample.
        test_rows: Rows of a test part that the source, or a file of its own, defines, or None.
        validation_rows: The same for validation.
        groups: Codes of what must stay on one side of a split (speaker, recording, duplicates), shape (n,); or None.
        order: Place in time of each sample, shape (n,), for data that is split in time; or None.
        span: Length of a sample in the unit of `order`; parts of a split in time lie at least that far apart.
        notes: Decisions taken on the way that the user should know.
        facts: What was known of each sample's file and is lost in `x`, by name, each of shape (n,); NaN or an empty
            text where it is not known. Images: `width_px` and `height_px` (upright), `mode` and `format` as Pillow
            names them, `orientation` (EXIF). Sound: `seconds`, `rate_hz`, `num_channels`, `encoding` as libsndfile
            names it, `clipped_frac` (share of the samples that are flat at full scale).
        unreadable: Why each file that was left out could not be read, by name.
    """

    name: str
    spec: DataSpec
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    row_names: tuple[str, ...]
    test_rows: npt.NDArray[np.int64] | None = None
    validation_rows: npt.NDArray[np.int64] | None = None
    groups: npt.NDArray[np.int64] | None = None
    order: npt.NDArray[np.float64] | None = None
    span: float = 0.0
    notes: tuple[str, ...] = ()
    facts: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
