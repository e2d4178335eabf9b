"""Validation and test parts that lie in files of their own, joined to the data they belong to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import arrays, frames, images, labels, tables
from tuner.data.dataset import Dataset
from tuner.errors import DataError
from tuner.records import DataSpec

__all__ = ["read_part", "with_parts"]

Array = npt.NDArray[Any]


def with_parts(dataset: Dataset, validation: Path | None, test: Path | None) -> Dataset:
    """Add the rows of a validation and a test file, which then are those parts of the split.

    Args:
        dataset: What was read from the main file or folder; all of its rows are left to the other parts.
        validation: A file or folder of the same form, or None.
        test: The same.

    Raises:
        DataError: A part cannot be read like the data, or the data has a test part of its own already.
    """
    if test is not None and dataset.test_rows is not None:
        raise DataError(f"{dataset.name!r} has a test part of its own; remove --test {str(test)!r}, or x_test from it.")
    for name, path in (("validation", validation), ("test", test)):
        if path is not None:
            dataset = _with_part(dataset, name, path)
    return dataset


def _with_part(dataset: Dataset, name: str, path: Path) -> Dataset:
    x, y, row_names = read_part(path, dataset.spec)
    rows = np.arange(len(dataset.x), len(dataset.x) + len(x))
    joined: dict[str, Any] = {
        "x": np.concatenate([dataset.x, x.astype(dataset.x.dtype, copy=False)]),
        "y": np.concatenate([dataset.y, y]),
        "row_names": (*dataset.row_names, *(f"{path.name}:{row}" for row in row_names)),
        f"{name}_rows": rows,
        # Rows that have a part already are not dealt to others: they need no place in time, and no group but their own.
        "order": None if dataset.order is None else np.append(dataset.order, np.full(len(x), np.nan)),
        "groups": None if dataset.groups is None else np.append(dataset.groups, dataset.groups.max() + 1 + rows),
        "spec": dataclasses.replace(dataset.spec, reading=dataset.spec.reading | {name: str(path)}),
        "facts": {fact: _with_unknown(values, len(x)) for fact, values in dataset.facts.items()},
        "notes": (*dataset.notes, f"{name.capitalize()} part: {len(x):,} samples of {str(path)!r}."),
    }
    return dataclasses.replace(dataset, **joined)


def _with_unknown(values: Array, count: int) -> Array:
    """Facts of the samples, and of others of which they are not known."""
    return np.append(values, np.full(count, np.nan if values.dtype.kind == "f" else ""))


def read_part(path: Path, spec: DataSpec) -> tuple[Array, Array, tuple[str, ...]]:
    """Read samples with their targets in the way that other data was read.

    Args:
        path: A file or folder of the same form.
        spec: How the other data was read.

    Returns:
        Samples, targets coded as in the other data, and names of the rows.

    Raises:
        DataError: It has another form, or labels that the other data does not have.
    """
    if spec.form in ("table", "text_table") and path.suffix.lower() in frames.TABLE_SUFFIXES:
        return tables.read_labelled(path, spec)
    if spec.form == "npz" and path.suffix.lower() == ".npz":
        return arrays.read_labelled(path, spec)
    if spec.form == "image_folder" and path.is_dir():
        x, names = images.read_features(path, spec)
        folders = np.array([name.partition("/")[0] for name in names], object)
        return x, labels.encode_like(folders, spec, where=f"folder {path.name!r}"), names
    raise DataError(
        f"{str(path)!r} does not have the form of the data, which is read as {spec.form.replace('_', ' ')}. Give a "
        "validation or test part in the same form."
    )
