"""Reads the scalars of TensorBoard event files, without TensorFlow.

Keras writes one folder for each part: `train/` and `validation/`, each with an event file for each call of `fit` and
the scalars `epoch_loss`, `epoch_learning_rate` and `epoch_` + metric. Others write one file with names of their own.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import DataError, package_faults
from tuner.grammar import counted
from tuner.stability.history import Column, History, listed

__all__ = ["event_files", "read_events"]

# A record of scalars is far smaller: longer ones (graphs, images, histograms) are skipped. Source: convention.
MAX_RECORD_BYTES = 1 << 16
# Files and trainings that are read of one folder; of more, the last ones. Source: convention.
MAX_FILES, MAX_TRAININGS = 400, 40

# Length and checksum before a record, checksum after it. Source: TFRecord format, tensorflow/core/lib/io/record_writer.
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
# Tags of Keras that count batches, not epochs; its batch loss is a running mean within the epoch.
_BATCH_PREFIXES, _BATCH_SUFFIX = ("batch_", "evaluation_"), "_vs_iterations"
_TRAIN, _VALIDATION = "train", "validation"


@dataclass(frozen=True)
class _Scalar:
    """One number of an event file; `fit` counts the times that the steps of its tag started anew before it."""

    tag: str
    fit: tuple[int, int]
    step: int
    value: float
    seconds: float


def event_files(folder: Path) -> list[Path]:
    """The event files below a folder, in the order of their names, which begin with the time."""
    return sorted(file for file in folder.rglob("*tfevents*") if file.is_file())


def read_events(path: Path) -> tuple[History, ...]:
    """Read an event file, or all trainings below a folder.

    Args:
        path: The file or folder; it exists.

    Raises:
        DataError: There are no event files, or no scalars in them.
        EnvironmentFault: The package tensorboard is not installed.
    """
    if path.is_file():
        notes: list[str] = []
        scalars = _scalars([path], notes)
        _require(scalars, path)
        return (_history(path.name, scalars, [], notes),)
    files = event_files(path)
    if not files:
        raise DataError(f"Folder {str(path)!r} holds no TensorBoard event files (their names have 'tfevents' in them).")
    histories = []
    for folder, folders in list(_trainings(files[-MAX_FILES:], path).items())[-MAX_TRAININGS:]:
        notes = []
        train = _scalars(folders.get(_TRAIN, []), notes)
        validation = _scalars(folders.get(_VALIDATION, []), notes)
        if train or validation:
            name = path.name if folder == path else str(folder.relative_to(path))
            histories.append(_history(name or str(path), train or validation, validation if train else [], notes))
    _require(histories, path)
    return tuple(histories)


def _require(found: Sequence[Any], path: Path) -> None:
    if not found:
        raise DataError(
            f"{str(path)!r} holds no scalars: no epoch was finished, or the file is damaged. "
            "Expected what keras.callbacks.TensorBoard writes."
        )


def _trainings(files: Sequence[Path], root: Path) -> dict[Path, dict[str, list[Path]]]:
    """Files of each training by part. The folder above `train` and `validation` is the training."""
    found: dict[Path, dict[str, list[Path]]] = {}
    for file in files:
        is_part = file.parent.name in (_TRAIN, _VALIDATION) and file.parent != root
        folder = file.parent.parent if is_part else file.parent
        part = file.parent.name if is_part else _TRAIN
        found.setdefault(folder, {}).setdefault(part, []).append(file)
    return found


# --- Records


def _scalars(files: Sequence[Path], notes: list[str]) -> list[_Scalar]:
    """All scalars of the files of one folder, in their order."""
    if not files:
        return []
    with package_faults():
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event
    scalars: list[_Scalar] = []
    for number, file in enumerate(files):
        before: dict[str, tuple[int, int]] = {}
        num_bad = 0
        for record in _records(file, notes):
            try:
                event = Event.FromString(record)
            except DecodeError:
                num_bad += 1
                continue
            for tag, value in _values(event.summary):
                last, fit = before.get(tag, (-1, 0))
                fit += event.step <= last
                before[tag] = (event.step, fit)
                scalars.append(_Scalar(tag, (number, fit), event.step, value, event.wall_time))
        if num_bad:
            notes.append(f"{file.name}: {counted(num_bad, 'damaged records', 'are')} left out.")
    return scalars


def _records(file: Path, notes: list[str]) -> Iterator[bytes]:
    """The records of a file up to the first that is damaged or cut short."""
    with package_faults():
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    try:
        stream = file.open("rb")
    except OSError as error:
        raise DataError(f"{str(file)!r} cannot be read: {error.strerror or error}.") from error
    with stream:
        while header := stream.read(_HEADER.size):
            if len(header) < _HEADER.size:
                break
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                notes.append(
                    f"{file.name} is damaged, or no event file, from byte {stream.tell() - _HEADER.size:,} on."
                )
                return
            if length > MAX_RECORD_BYTES:
                stream.seek(min(length, 1 << 62) + _FOOTER.size, 1)
                continue
            record = stream.read(length)
            footer = stream.read(_FOOTER.size)
            if len(footer) < _FOOTER.size:
                break
            if masked_crc32c(record) == _FOOTER.unpack(footer)[0]:
                yield record
            else:
                notes.append(f"{file.name}: a damaged record before byte {stream.tell():,} is left out.")
        else:
            return
    notes.append(f"{file.name} ends inside a record: it is still being written, or was cut short.")


def _values(summary: Any) -> Iterator[tuple[str, float]]:
    """Tag and number of each scalar in an event."""
    from tensorboard.util import tensor_util

    for value in summary.value:
        if value.tag.startswith(_BATCH_PREFIXES) and value.tag.endswith(_BATCH_SUFFIX):
            continue
        if value.HasField("simple_value"):
            yield value.tag, float(value.simple_value)
        elif value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("", "scalars"):
            # What a hostile tensor can do: sizes that do not fit, types that are not known.
            with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError, OverflowError):
                number = np.asarray(tensor_util.make_ndarray(value.tensor))
                if number.size == 1 and number.dtype.kind in "fiu":
                    yield value.tag, float(number.reshape(()))


# --- Rows


def _history(name: str, train: Sequence[_Scalar], validation: Sequence[_Scalar], notes: list[str]) -> History:
    """Scalars as columns: a row for each step of each fit; validation joins the row of its step, nearest in time."""
    if any(scalar.tag.startswith("epoch_") for scalar in train):
        train = [scalar for scalar in train if scalar.tag.startswith("epoch_")]
        validation = [scalar for scalar in validation if scalar.tag.startswith("epoch_")]
    elif any(not scalar.tag.startswith("batch_") for scalar in train):
        train = [scalar for scalar in train if not scalar.tag.startswith("batch_")]
    if not validation and any(scalar.tag.startswith("batch_") for scalar in train):
        notes.append("The log counts batches, not epochs; its rows count as epochs here.")
    places = {key: row for row, key in enumerate(sorted({(scalar.fit, scalar.step) for scalar in train}))}
    values: dict[str, dict[int, float]] = {}
    times: dict[int, list[tuple[float, int]]] = {}
    for scalar in train:
        row = places[scalar.fit, scalar.step]
        column = scalar.tag.removeprefix("epoch_")
        if row not in values.setdefault(column, {}):
            times.setdefault(scalar.step, []).append((scalar.seconds, row))
        values[column][row] = scalar.value
    num_lost = 0
    for scalar in validation:
        rows = times.get(scalar.step)
        if rows is None:
            num_lost += 1
            continue
        row = min(rows, key=lambda pair: abs(pair[0] - scalar.seconds) if math.isfinite(pair[0]) else math.inf)[1]
        values.setdefault(f"val_{scalar.tag.removeprefix('epoch_')}", {})[row] = scalar.value
    if num_lost:
        notes.append(f"{counted(num_lost, 'validation values', 'belong')} to no epoch of the training; left out.")
    columns = {column: _column(found, len(places)) for column, found in values.items()}
    epochs = np.array([step for _, step in places], dtype=np.int64)
    _note_tags(columns, name, notes)
    return History(name, epochs, columns, notes=tuple(notes))


def _column(found: dict[int, float], num_rows: int) -> Column:
    values = np.full(num_rows, math.nan)
    is_recorded = np.zeros(num_rows, dtype=bool)
    rows = np.fromiter(found, dtype=np.int64, count=len(found))
    values[rows] = np.fromiter(found.values(), dtype=float, count=len(found))
    is_recorded[rows] = True
    return Column(values, is_recorded)


def _note_tags(columns: dict[str, Column], name: str, notes: list[str]) -> None:
    if name in (_TRAIN, _VALIDATION) and not any(column.startswith("val_") for column in columns):
        notes.append(f"Only the part {name!r} was read ({listed(columns)}); give the folder above for both parts.")
