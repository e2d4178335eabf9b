"""What the checks of sounds measure: a few numbers of each recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Sample
from tuner.data.transformers import TrimSilence

__all__ = ["Numbers", "Waves", "measure"]

# Values of recordings that are looked at; of more, some are drawn with a fixed seed. Source: convention; a second or
# two.
MAX_WAVE_VALUES = 25_000_000

_CHUNK_VALUES = 4_000_000

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Waves:
    """Numbers of each recording, as it was read; full scale is 1.

    Attributes:
        rows: Of the data; all other arrays are in this order.
        peak: Largest absolute value.
        offset: Mean.
        loudness: Root mean square about the mean.
        silent_frac: Share of it that is silence at its ends, as the choice `trim` cuts it off.
    """

    rows: npt.NDArray[np.int64]
    peak: Numbers
    offset: Numbers
    loudness: Numbers
    silent_frac: Numbers


def measure(sample: Sample) -> Waves:
    """Measure the recordings of a sample."""
    x = sample.dataset.x
    rows = np.arange(len(x))
    most = max(1, MAX_WAVE_VALUES // max(1, x.shape[1]))
    if most < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    trim = TrimSilence(sample_rate_hz=sample.dataset.spec.sample_rate_hz or 16_000).fit(x[:1])
    step = max(1, _CHUNK_VALUES // max(1, x.shape[1]))
    chunks = [_of_chunk(x[rows[start : start + step]], trim) for start in range(0, len(rows), step)]
    return Waves(rows, *(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _of_chunk(x: npt.NDArray[np.float32], trim: TrimSilence) -> tuple[Numbers, ...]:
    present = ~np.isnan(x)
    count = np.maximum(present.sum(axis=1), 1)
    values = np.where(present, x, 0).astype(np.float64)
    offset = values.sum(axis=1) / count
    power = np.square(values).sum(axis=1) / count - offset**2
    kept = (~np.isnan(trim.transform(x))).sum(axis=1)
    return np.abs(values).max(axis=1), offset, np.sqrt(np.maximum(power, 0)), 1 - kept / count
