"""Reader of sound: one sub-folder of WAV, FLAC or Ogg files per class.

All files become one array of mono samples at one rate:

- rate: the most common one of the folder, at most `MAX_RATE_HZ`; `--sample-rate` sets it instead;
- length: that of the longest file, or of 99 % of the files where a few are far longer; longer ones are cut at the
  end, shorter ones end in NaN;
- several channels are averaged.

Files that are empty, truncated or no sound are left out and listed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tuner.data import folders, padding, roles
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.records import DataSpec

__all__ = ["AUDIO_SUFFIXES", "read", "read_features"]

AUDIO_SUFFIXES = (".aif", ".aiff", ".flac", ".oga", ".ogg", ".opus", ".wav")

# Highest rate without --sample-rate. Source: convention for speech, whose energy lies below 8 kHz (ITU-T G.722).
MAX_RATE_HZ = 16_000

# A file of fewer samples holds no sound that could be told from another. Source: convention (2 ms at 8 kHz).
MIN_SAMPLES = 16

# Sizes from here on stand in the header of files that were written as a stream, when the length was not known.
_STREAMED_BYTES = 0x7FFF0000

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Header:
    """What a file says of itself; `problem` is empty if it can be opened."""

    rate_hz: int = 0
    num_frames: int = 0
    num_channels: int = 0
    problem: str = ""

    @property
    def seconds(self) -> float:
        return self.num_frames / self.rate_hz


def read(root: Path, options: ReadOptions) -> Dataset:
    """Read a folder of class folders.

    Args:
        root: The folder; each of its sub-folders is a class, at any depth below.
        options: `sample_rate` in Hz, None for the usual one; `group` by path.

    Raises:
        DataError: There are no class folders or sounds, fewer than two classes, or too many files cannot be read.
    """
    found = folders.find(root, AUDIO_SUFFIXES, noun="sounds")
    headers = dict(zip(found.files, folders.in_threads(_header, found.files), strict=True))
    problems = {file: header.problem for file, header in headers.items() if header.problem}
    folders.unreadable(root, problems, num_files=len(headers), noun="sounds")
    headers = {file: header for file, header in headers.items() if not header.problem}
    rate_hz = options.sample_rate or min(MAX_RATE_HZ, _usual([header.rate_hz for header in headers.values()]))
    seconds = np.array([header.seconds for header in headers.values()])
    length_s = padding.common_length(seconds)
    x, undecoded = _decode(list(headers), rate_hz, math.ceil(length_s * rate_hz))
    problems |= undecoded
    files = [file for file in headers if file not in undecoded]
    notes = (
        folders.unreadable(root, problems, num_files=len(found.files), noun="sounds"),
        _rate_note([header.rate_hz for header in headers.values()], rate_hz),
        _channel_note([header.num_channels for header in headers.values()]),
        padding.note(
            dict(zip(map(found.name_of, headers), seconds.tolist(), strict=True)), length_s, noun="sounds", unit="s"
        ),
    )
    names = tuple(map(found.name_of, files))
    groups, group_notes = roles.groups_of_files(names, options.group)
    return Dataset(
        name=root.resolve().name,
        spec=DataSpec(
            "audio_folder",
            "audio",
            "classification",
            x.shape[1:],
            found.class_names,
            sample_rate_hz=rate_hz,
            is_padded=bool(np.isnan(x[:, -1]).any()),
            reading={"group": options.group} if options.group else {},
        ),
        x=x,
        y=found.codes(files),
        row_names=names,
        groups=groups,
        notes=(*found.notes, *filter(None, notes), *group_notes),
    )


def read_features(path: Path, spec: DataSpec) -> tuple[Wave, tuple[str, ...]]:
    """Read sounds to predict: one file, or all below a folder, at the rate and length of the training data.

    Args:
        path: A sound file or a folder.
        spec: How the training data was read.

    Raises:
        DataError: There are no sounds, or some cannot be read.
    """
    root = path if path.is_dir() else path.parent
    files = folders.files_below(path, AUDIO_SUFFIXES)[0] if path.is_dir() else [path]
    if not files:
        raise DataError(f"{str(path)!r} holds no sounds. Expected: files ending in {', '.join(AUDIO_SUFFIXES)}.")
    x, problems = _decode(files, spec.sample_rate_hz or MAX_RATE_HZ, spec.input_shape[0])
    folders.unreadable(root, problems, num_files=len(files), noun="sounds", most=0)
    return x, tuple(file.relative_to(root).as_posix() for file in files)


def _header(file: Path) -> _Header:
    import soundfile

    try:
        info = soundfile.info(str(file))
    except (soundfile.SoundFileError, OSError) as error:
        return _Header(problem=_reason(file, error))
    problem = _truncated(info.extra_info)
    if not problem and info.frames < MIN_SAMPLES:
        problem = f"it holds {info.frames} samples, which is no sound"
    return _Header(info.samplerate, info.frames, info.channels, problem)


def _truncated(extra_info: str) -> str:
    """Why a WAV file counts as truncated, from what libsndfile notes of its header."""
    match = re.search(r"^data : (\d+) \(should be (\d+)\)", extra_info, re.MULTILINE)
    if match is None or not int(match[2]) < int(match[1]) < _STREAMED_BYTES:
        return ""
    return f"truncated: its header promises {int(match[1]):,} bytes of sound, {int(match[2]):,} are there"


def _reason(file: Path, error: BaseException) -> str:
    try:
        if file.stat().st_size == 0:
            return "the file is empty"
    except OSError as missing:
        return missing.strerror or str(missing)
    if "Format not recognised" in str(error):
        return "not a sound, whatever its name says"
    return str(error).rpartition(": ")[2].strip() or type(error).__name__


def _usual(rates_hz: Sequence[int]) -> int:
    """The most common rate; of equally common ones the higher."""
    counts = Counter(rates_hz)
    return max(counts, key=lambda rate_hz: (counts[rate_hz], rate_hz))


def _decode(files: Sequence[Path], rate_hz: int, num_samples: int) -> tuple[Wave, dict[Path, str]]:
    """Those files that can be read as one array (n, num_samples), NaN behind their end; and why the others cannot."""
    import soundfile

    x = np.full((len(files), num_samples), np.nan, np.float32)

    def decode(row: int) -> str:
        try:
            wave, found_hz = soundfile.read(str(files[row]), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            return _reason(files[row], error)
        if len(wave) < MIN_SAMPLES:
            return f"it holds {len(wave)} samples, which is no sound"
        if not np.isfinite(wave).all():
            return "it holds values that are no numbers"
        mono = _resampled(wave.mean(axis=1), found_hz, rate_hz)[:num_samples]
        x[row, : len(mono)] = mono
        return ""

    reasons = folders.in_threads(decode, range(len(files)))
    problems = {file: reason for file, reason in zip(files, reasons, strict=True) if reason}
    return x[[not reason for reason in reasons]] if problems else x, problems


def _resampled(wave: Wave, found_hz: int, rate_hz: int) -> Wave:
    if found_hz == rate_hz:
        return wave
    from scipy.signal import resample_poly

    divisor = math.gcd(found_hz, rate_hz)
    resampled: Wave = resample_poly(wave, rate_hz // divisor, found_hz // divisor)
    return resampled.astype(np.float32)


def _rate_note(rates_hz: Sequence[int], rate_hz: int) -> str:
    counts = Counter(rates_hz)
    if set(counts) == {rate_hz}:
        return f"{len(rates_hz):,} sounds at {rate_hz:,} Hz (--sample-rate changes it)."
    listed = ", ".join(f"{count:,} at {found_hz:,} Hz" for found_hz, count in counts.most_common())
    return f"{len(rates_hz):,} sounds ({listed}) resampled to {rate_hz:,} Hz (--sample-rate changes it)."


def _channel_note(channels: Sequence[int]) -> str:
    num_mixed = sum(count > 1 for count in channels)
    return f"{num_mixed:,} of {len(channels):,} sounds have several channels, which were averaged." if num_mixed else ""
