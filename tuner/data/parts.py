"""Validation and test parts that lie in files of their own, joined to the data they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import arrays, audio, frames, images, labels, room, sequence_folders, sequence_tables, tables
from tuner.data.dataset import Dataset
from tuner.data.layout import Layout
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted
from tuner.records import DataSpec, Form

__all__ = ["Part", "read_part", "with_parts"]

Array = npt.NDArray[Any]

# The readers that read a part as they read the data, by form.
_READERS: dict[Form, Callable[..., Dataset]] = {
    "image_folder": images.read,
    "audio_folder": audio.read,
    "long_table": sequence_tables.read_long,
    "recording": sequence_tables.read_recording,
    "sequence_folder": sequence_folders.read_folder,
}


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of a part, their targets coded as in the data that it belongs to; the rest is as in `Dataset`."""

    x: Array
    y: Array
    row_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    facts: dict[str, Array] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def with_parts(
    dataset: Dataset, validation: Path | None, test: Path | None, *, options: ReadOptions, layout: Layout | None = None
) -> Dataset:
    """Add the rows of a validation and a test file, which then are those parts of the split.

    Args:
        dataset: What was read from the main file or folder; all of its rows are left to the other parts.
        validation: A file or folder of the same form, or None.
        test: The same.
        options: What the user said of the data.
        layout: Where parts lie that were found beside the data; those that were given come first.

    Raises:
        DataError: A part cannot be read like the data, or the data has a test part of its own already.
    """
    if test is not None and dataset.test_rows is not None:
        raise DataError(f"{dataset.name!r} has a test part of its own; remove --test {str(test)!r}, or x_test from it.")
    for name, path in (("validation", validation), ("test", test)):
        if path is not None:
            dataset = _with_part(dataset, name, path, options, reading={name: str(path)})
        elif layout is not None and name in layout.parts:
            found = layout.parts[name]
            dataset = _with_part(dataset, name, found, options, reading={f"{name}_part": found.name})
    if layout is None:
        return dataset
    reading = dataset.spec.reading | {"train_part": layout.parts["train"].name}
    return dataclasses.replace(
        dataset,
        name=layout.root.resolve().name,
        spec=dataclasses.replace(dataset.spec, reading=reading),
        notes=(layout.note, *dataset.notes),
    )


def _with_part(dataset: Dataset, name: str, path: Path, options: ReadOptions, *, reading: dict[str, str]) -> Dataset:
    part = read_part(path, dataset.spec, options)
    rows = np.arange(len(dataset.x), len(dataset.x) + len(part.x))
    joined: dict[str, Any] = {
        "x": room.joined([dataset.x, part.x], dataset.x.dtype),
        "y": np.concatenate([dataset.y, part.y]),
        "row_names": (*dataset.row_names, *(f"{path.name}:{row}" for row in part.row_names)),
        f"{name}_rows": rows,
        # Rows that have a part already are not dealt to others: they need no place in time, and no group but their own.
        "order": None if dataset.order is None else np.append(dataset.order, np.full(len(rows), np.nan)),
        "groups": None if dataset.groups is None else np.append(dataset.groups, dataset.groups.max() + 1 + rows),
        "spec": dataclasses.replace(dataset.spec, reading=dataset.spec.reading | reading),
        "facts": {
            fact: np.append(values, part.facts.get(fact, _unknown(values, len(rows))))
            for fact, values in dataset.facts.items()
        },
        "unreadable": dataset.unreadable | {f"{path.name}:{file}": why for file, why in part.unreadable.items()},
        "notes": (
            *dataset.notes,
            f"{name.capitalize()} part: {counted(len(rows), 'samples')} of {str(path)!r}.",
            *(f"{name.capitalize()} part: {note}" for note in part.notes if note not in dataset.notes),
        ),
    }
    return dataclasses.replace(dataset, **joined)


def _unknown(values: Array, count: int) -> Array:
    """Facts of samples of which they are not known."""
    return np.full(count, np.nan if values.dtype.kind == "f" else "")


def read_part(path: Path, spec: DataSpec, options: ReadOptions) -> Part:
    """Read samples with their targets in the way that other data was read.

    Args:
        path: A file or folder of the same form.
        spec: How the other data was read.
        options: What the user said of them.

    Raises:
        DataError: It has another form, or labels that the other data does not have.
    """
    if spec.form in ("table", "text_table") and path.suffix.lower() in frames.TABLE_SUFFIXES and path.is_file():
        return Part(*tables.read_labelled(path, spec))
    if spec.form == "npz" and path.suffix.lower() in arrays.ARRAY_SUFFIXES:
        return Part(*arrays.read_labelled(path, spec))
    is_fitting = path.is_dir() if spec.form.endswith("_folder") else path.suffix.lower() in frames.TABLE_SUFFIXES
    if spec.form not in _READERS or not is_fitting:
        raise DataError(
            f"{str(path)!r} does not have the form of the data, which is read as {spec.form.replace('_', ' ')}. Give a "
            "validation or test part in the same form."
        )
    # Columns that were dropped may be missing here; of those that are there, the ones of the data are taken.
    same = dataclasses.replace(options, kind=spec.kind, task=spec.task, target=spec.target, group=None, drop=None)
    found = _READERS[spec.form](path, same, like=spec)
    return Part(found.x, _coded(found, spec, path), found.row_names, found.notes, found.facts, found.unreadable)


def _coded(found: Dataset, spec: DataSpec, path: Path) -> Array:
    """The targets of a part in the class codes of the data."""
    if found.spec.class_names == spec.class_names or not found.spec.class_names:
        return found.y
    names = np.array(found.spec.class_names, object)
    return labels.encode_like(names[found.y], spec, where=f"{'folder' if path.is_dir() else 'file'} {path.name!r}")
