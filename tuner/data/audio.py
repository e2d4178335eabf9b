"""Reader of sound: one sub-folder of WAV, FLAC or Ogg files per class, or a table of labels beside the files.

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
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import folders, label_files, padding, roles, room
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted, verb
from tuner.records import DataSpec

__all__ = ["AUDIO_SUFFIXES", "read", "read_features"]

AUDIO_SUFFIXES = (".aif", ".aiff", ".flac", ".oga", ".ogg", ".opus", ".wav")

# Highest rate without --sample-rate. Source: convention for speech, whose energy lies below 8 kHz (ITU-T G.722).
MAX_RATE_HZ = 16_000

# A file of fewer samples holds no sound that could be told from another. Source: convention (2 ms at 8 kHz).
MIN_SAMPLES = 16

# A recording is clipped where it stays at full scale, at the same value, for so many samples or more. Source:
# Audacity's "Find Clipping" has 3; 8 bits reach 127 / 128 of full scale.
FULL_SCALE = 0.99
CLIPPED_RUN = 3

# Sounds that differ by less have one length: resampling rounds.
LENGTH_TOLERANCE_S = 0.001

# Sizes from here on stand in the header of files that were written as a stream, when the length was not known.
_STREAMED_BYTES = 0x7FFF0000

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Header:
    """What a file says of itself."""

    rate_hz: int
    num_frames: int
    num_channels: int
    encoding: str

    @property
    def seconds(self) -> float:
        return self.num_frames / self.rate_hz


def read(root: Path, options: ReadOptions, *, like: DataSpec | None = None) -> Dataset:
    """Read a folder of class folders, or of files beside a table of labels.

    Args:
        root: The folder; without a table of labels (`label_files`) each of its sub-folders is a class, at any depth.
        options: `sample_rate` in Hz, None for the usual one; `group` by path.
        like: How other data was read, whose rate and length these sounds get.

    Raises:
        DataError: There are no class folders or sounds, fewer than two classes, or too many files cannot be read.
    """
    found = label_files.find(root, AUDIO_SUFFIXES, options, noun="sounds", like=like)
    readable = folders.Readable(root, found.files, noun="sounds")
    headers = readable.each(_header)
    header_of = dict(zip(readable.files, headers, strict=True))
    rates_hz = [header.rate_hz for header in headers]
    rate_hz = (like and like.sample_rate_hz) or options.sample_rate or min(MAX_RATE_HZ, _usual(rates_hz))
    lengths_s = {name: header.seconds for name, header in zip(readable.names, headers, strict=True)}
    if like is not None:
        _refuse_short(lengths_s, like, root)
    length_s = like.input_shape[0] / rate_hz if like else padding.common_length(np.array(list(lengths_s.values())))
    num_samples = like.input_shape[0] if like else math.ceil(length_s * rate_hz)
    clipped_frac: dict[Path, float] = {}
    x = _decoded(readable, rate_hz, num_samples, clipped_frac=clipped_frac)
    kept = [header_of[file] for file in readable.files]  # without those whose waves cannot be read
    notes = (
        readable.note,
        _rate_note([header.rate_hz for header in kept], rate_hz),
        _channel_note([header.num_channels for header in kept]),
        padding.note({name: lengths_s[name] for name in readable.names}, length_s, noun="sounds", unit="s"),
    )
    encoded = found.encoded(readable.files)
    groups, group_notes = roles.groups_of_files(readable.names, options.group)
    return Dataset(
        name=root.resolve().name,
        spec=DataSpec(
            "audio_folder",
            "audio",
            encoded.task,
            x.shape[1:],
            encoded.class_names,
            sample_rate_hz=rate_hz,
            is_padded=bool(np.isnan(x[:, -1]).any()),
            target=found.target.name if found.target else None,
            reading=found.reading | ({"group": options.group} if options.group else {}),
        ),
        x=x,
        y=encoded.y,
        row_names=readable.names,
        groups=groups,
        notes=(*found.notes, *filter(None, notes), *group_notes, *encoded.notes),
        facts=_facts(kept) | {"clipped_frac": np.array([clipped_frac[file] for file in readable.files])},
        unreadable=readable.unreadable,
    )


def read_features(path: Path, spec: DataSpec, notes: list[str]) -> tuple[Wave, tuple[str, ...]]:
    """Read sounds to predict: one file, or all below a folder, at the rate and length of the training data.

    Args:
        path: A sound file or a folder.
        spec: How the training data was read.
        notes: What is decided is added.

    Raises:
        DataError: There are no sounds, or too many of them cannot be read.
    """
    readable = folders.to_predict(path, AUDIO_SUFFIXES, noun="sounds")
    headers = readable.each(_header)
    lengths_s = {name: header.seconds for name, header in zip(readable.names, headers, strict=True)}
    rate_hz = spec.sample_rate_hz or MAX_RATE_HZ
    longest_s = spec.input_shape[0] / rate_hz + LENGTH_TOLERANCE_S
    notes += padding.cut_note(lengths_s, longest_s, noun="sounds", unit="s")
    x = _decoded(readable, rate_hz, spec.input_shape[0])
    notes += filter(None, [readable.note])
    return x, readable.names


def _refuse_short(lengths_s: dict[str, float], spec: DataSpec, root: Path) -> None:
    """Refuse sounds that would end in silence, where a network has not learned to leave it out."""
    length_s = spec.input_shape[0] / (spec.sample_rate_hz or MAX_RATE_HZ)
    short = [name for name, seconds in lengths_s.items() if seconds < length_s - LENGTH_TOLERANCE_S]
    if short and not spec.is_padded:
        raise DataError(
            f"{root.name!r}: {counted(len(short), 'sounds', 'are')} shorter than the {length_s:.2f} s of the training "
            f"data, which all have that length, such as {short[0]!r} with {lengths_s[short[0]]:.2f} s. Fill them up "
            "with silence."
        )


def _header(file: Path) -> _Header | str:
    import soundfile

    try:
        info = soundfile.info(str(file))
    except (soundfile.SoundFileError, OSError) as error:
        return _reason(file, error)
    problem = _truncated(info.extra_info) or _too_short(info.frames)
    return problem or _Header(info.samplerate, info.frames, info.channels, info.subtype)


def _facts(headers: Sequence[_Header]) -> dict[str, npt.NDArray[Any]]:
    return {
        "seconds": np.array([header.seconds for header in headers]),
        "rate_hz": np.array([header.rate_hz for header in headers], np.float64),
        "num_channels": np.array([header.num_channels for header in headers], np.float64),
        "encoding": np.array([header.encoding for header in headers]),
    }


def _too_short(num_frames: int) -> str:
    return f"it holds {counted(num_frames, 'samples')}, which is no sound" if num_frames < MIN_SAMPLES else ""


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


def _decoded(
    readable: folders.Readable, rate_hz: int, num_samples: int, *, clipped_frac: dict[Path, float] | None = None
) -> Wave:
    """Sounds as one array (n, num_samples), NaN behind their end; the clipped share of each is noted if asked for."""
    import soundfile

    def mono(file: Path) -> Wave | str:
        try:
            wave, found_hz = soundfile.read(str(file), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            return _reason(file, error)
        if clipped_frac is not None:
            clipped_frac[file] = _clipped_frac(wave)
        problem = _too_short(len(wave)) or ("" if np.isfinite(wave).all() else "it holds values that are no numbers")
        return problem or _resampled(wave.mean(axis=1), found_hz, rate_hz)[:num_samples]

    x = room.allocated((len(readable.files), num_samples), np.float32)
    for piece in room.pieces(x):
        piece[:] = np.nan
    return readable.into(x, mono)


def _clipped_frac(wave: Wave) -> float:
    """Share of the samples that lie in runs of at least `CLIPPED_RUN` equal ones at full scale; (frames, channels)."""
    is_flat = (np.abs(wave[:-1]) >= FULL_SCALE) & (wave[:-1] == wave[1:])
    num_starts = len(wave) - CLIPPED_RUN + 1
    if num_starts < 1 or not np.any(is_flat):
        return 0.0
    starts = np.lib.stride_tricks.sliding_window_view(is_flat, CLIPPED_RUN - 1, axis=0).all(axis=-1)
    is_clipped = np.zeros(wave.shape, bool)
    for place in range(CLIPPED_RUN):
        is_clipped[place : place + num_starts] |= starts
    return float(is_clipped.mean())


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
        return f"{counted(len(rates_hz), 'sounds')} at {rate_hz:,} Hz (--sample-rate changes it)."
    listed = ", ".join(f"{count:,} at {found_hz:,} Hz" for found_hz, count in counts.most_common())
    return f"{counted(len(rates_hz), 'sounds')} ({listed}) resampled to {rate_hz:,} Hz (--sample-rate changes it)."


def _channel_note(channels: Sequence[int]) -> str:
    num_mixed = sum(count > 1 for count in channels)
    if not num_mixed:
        return ""
    told = counted(num_mixed, "sounds", of=len(channels))
    return f"{told} {verb(num_mixed, 'have')} several channels, which were averaged."
