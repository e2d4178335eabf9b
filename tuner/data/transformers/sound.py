"""Transformers of recorded sound (n, samples), mono; recordings shorter than the longest end in NaN."""

# scikit-learn's own names, which its tools rely on: capital X for the samples.
# ruff: noqa: N803, N806

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len, rfft
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .channels import is_value
from .columns import Array

__all__ = ["LogMel", "NormalizeLoudness", "TrimSilence", "mel_filters", "num_frames"]

# Blocks whose loudness decides what is silence, and how far below the loudest block silence lies. Source: convention;
# librosa's `trim` has 60 dB, which in noisy rooms finds none.
SILENCE_BLOCK_MS = 10.0
SILENCE_DB = 40.0

# Root mean square that recordings are brought to, where full scale is 1, and the largest gain. Source: -20 dB of full
# scale, as EBU R 128 has -23; more than 40 dB would make noise of an empty recording.
LOUDNESS_RMS = 0.1
LARGEST_GAIN = 100.0

# Full scale is 1: values beyond this are no sound, and count as missing. Source: convention; squares fit float32.
LOUDEST = 1e9

# Added to the power of each band before the logarithm. Source: convention, 80 dB below a sine of full scale; the
# rounding noise of 16 bits lies lower.
POWER_FLOOR = 1e-8

# Values that are transformed at a time: 2 MB in complex64, which stay in the processor's cache.
CHUNK_VALUES = 250_000

Waves = npt.NDArray[np.float32]


class _OfWaves(TransformerMixin, BaseEstimator):
    """What the three have in common: they learn nothing but the number of samples."""

    def fit(self, X: Array, y: Array | None = None) -> Any:
        """Remember the number of samples; nothing is learned."""
        self._checked(X, reset=True)
        return self

    def _checked(self, X: Array, *, reset: bool) -> Waves:
        """float32, with NaN only behind the end; what is missing within a recording is silent."""
        X = validate_data(self, X, dtype=[np.float32, np.float64], ensure_all_finite=False, reset=reset)
        with np.errstate(invalid="ignore"):
            waves: Waves = np.where(np.abs(X) <= LOUDEST, X, np.nan).astype(np.float32)
        missing = np.isnan(waves)
        if missing.any():
            waves[missing & is_value(waves)] = 0.0
        return waves

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class TrimSilence(_OfWaves):
    """Cut silence from both ends; what is left begins at the first sample, and NaN fills the end.

    Args:
        sample_rate_hz: Of the recordings.
        silence_db: A block this far below the loudest one is silent.

    Example:
        >>> TrimSilence(sample_rate_hz=100).fit_transform([[0.0, 0.0, 1.0, 0.5, 0.0]]).tolist()
        [[1.0, 0.5, nan, nan, nan]]
    """

    def __init__(self, *, sample_rate_hz: int = 16_000, silence_db: float = SILENCE_DB) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.silence_db = silence_db

    def transform(self, X: Array) -> Waves:
        """Return the trimmed recordings."""
        check_is_fitted(self)
        waves = self._checked(X, reset=False)
        block = max(1, round(self.sample_rate_hz * SILENCE_BLOCK_MS / 1000))
        starts = np.arange(0, waves.shape[1], block)
        power = np.add.reduceat(np.nan_to_num(waves) ** 2, starts, axis=1)
        is_loud = power > power.max(axis=1, keepdims=True) * 10 ** (-self.silence_db / 10)
        is_loud[~is_loud.any(axis=1)] = True  # Silent throughout: nothing is cut.
        first = is_loud.argmax(axis=1) * block
        end = (len(starts) - is_loud[:, ::-1].argmax(axis=1)) * block
        shifted = np.full_like(waves, np.nan)
        for row, (begin, behind) in enumerate(zip(first.tolist(), end.tolist(), strict=True)):
            kept = waves[row, begin:behind]
            shifted[row, : len(kept)] = kept
        return shifted


class NormalizeLoudness(_OfWaves):
    """Bring every recording to mean 0 and the same root mean square, with a limit on the gain.

    Example:
        >>> NormalizeLoudness().fit_transform([[0.5, -0.5]]).astype(float).round(3).tolist()
        [[0.1, -0.1]]
    """

    def transform(self, X: Array) -> Waves:
        """Return the recordings at equal loudness."""
        check_is_fitted(self)
        waves = self._checked(X, reset=False)
        present = ~np.isnan(waves)
        counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
        centred = waves - (np.sum(waves, axis=1, keepdims=True, where=present) / counts).astype(np.float32)
        rms = np.sqrt(np.sum(centred**2, axis=1, keepdims=True, where=present) / counts)
        gain = np.minimum(LOUDNESS_RMS / np.maximum(rms, np.finfo(np.float32).tiny), LARGEST_GAIN)
        return np.asarray(centred * gain, np.float32)


class LogMel(_OfWaves):
    """Turn recordings into the logarithm of the power in mel bands over time, (n, frames, mels) in float32.

    A frame lies every `hop_ms` and is two to three hops long; frames behind the end of a recording are NaN.

    Args:
        sample_rate_hz: Of the recordings.
        num_mels: Bands.
        hop_ms: Distance of two frames.
        window_ms: Length of a frame.

    Attributes:
        n_features_in_: Samples it was fitted on.

    Source: 25 ms windows every 10 ms are the convention of speech recognition (Davis & Mermelstein 1980 have 6.4 ms
    hops); mel scale as in O'Shaughnessy 1987, `2595 log10(1 + f / 700)`.
    """

    def __init__(
        self, *, sample_rate_hz: int = 16_000, num_mels: int = 64, hop_ms: float = 10.0, window_ms: float = 25.0
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.num_mels = num_mels
        self.hop_ms = hop_ms
        self.window_ms = window_ms

    def transform(self, X: Array) -> Waves:
        """Return the log-mel spectrograms."""
        check_is_fitted(self)
        waves = self._checked(X, reset=False)
        window, hop = _samples(self.window_ms, self.sample_rate_hz), _samples(self.hop_ms, self.sample_rate_hz)
        frames = num_frames(waves.shape[1], self.sample_rate_hz, hop_ms=self.hop_ms, window_ms=self.window_ms)
        # Twice as long as the window, so that even the narrow low bands have a frequency of their own.
        size = next_fast_len(2 * window, real=True)
        filters = mel_filters(self.num_mels, self.sample_rate_hz, size=size)
        result = np.full((len(waves), frames, self.num_mels), np.nan, np.float32)
        # A frame counts if its first sample lies before the end.
        rows, columns = np.nonzero(~np.isnan(waves[:, : frames * hop : hop][:, :frames]))
        padded = np.pad(np.nan_to_num(waves, copy=False), ((0, 0), (0, window)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)
        step = max(1, CHUNK_VALUES // size)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            taken = windows[rows[some], columns[some] * hop]
            result[rows[some], columns[some]] = _log_power(taken, size=size, filters=filters)
        return result


def num_frames(num_samples: int, sample_rate_hz: int, *, hop_ms: float, window_ms: float = 25.0) -> int:
    """Frames of a recording: as many whole windows as fit, and at least one.

    Example:
        >>> num_frames(8000, 8000, hop_ms=10.0)
        98
    """
    window, hop = _samples(window_ms, sample_rate_hz), _samples(hop_ms, sample_rate_hz)
    return 1 + max(0, num_samples - window) // hop


def mel_filters(num_mels: int, sample_rate_hz: int, *, size: int) -> npt.NDArray[np.float32]:
    """Triangular filters, equally wide on the mel scale, from 0 to half the sample rate: (size // 2 + 1, num_mels).

    Args:
        num_mels: Bands.
        sample_rate_hz: Of the recordings.
        size: Of the Fourier transform.
    """
    top = 2595 * np.log10(1 + sample_rate_hz / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, num_mels + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate_hz)[:, np.newaxis]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _samples(duration_ms: float, sample_rate_hz: int) -> int:
    return max(1, round(duration_ms * sample_rate_hz / 1000))


def _log_power(windows: Waves, *, size: int, filters: npt.NDArray[np.float32]) -> Waves:
    """The logarithm of the power in each band of windows (n, samples)."""
    taper = np.hanning(windows.shape[1] + 2)[1:-1].astype(np.float32)
    spectrum = rfft(windows * taper, n=size, axis=1)
    # A sine of full scale has a power of 1 at its frequency.
    power = (spectrum.real**2 + spectrum.imag**2) * np.float32(4 / taper.sum() ** 2)
    return np.asarray(np.log(power @ filters + np.float32(POWER_FLOOR)), np.float32)
