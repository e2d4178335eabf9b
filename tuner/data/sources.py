"""The door to all data: looks at what it was given and hands it to the right reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import arrays, images, split, tables
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.errors import DataError, did_you_mean
from tuner.records import DataSpec, Form, Kind

__all__ = ["Dataset", "ReadOptions", "load", "load_features"]

# What each form is called in messages, and the kinds that it may hold.
_FORM_NAMES: dict[Form, str] = {
    "digits": "the handwritten digits",
    "npz": "NumPy archives",
    "image_folder": "folders of images",
    "table": "tables",
}
_KINDS: dict[Form, tuple[Kind, ...]] = {
    "digits": ("image",),
    "npz": ("image", "series"),
    "image_folder": ("image",),
    "table": ("series",),
}

# Forms whose targets are always classes.
_CLASS_FORMS: tuple[Form, ...] = ("digits", "image_folder")

# The forms that an option means something for; an option that is not here suits all.
_MEANT_FOR: dict[str, tuple[Form, ...]] = {
    "target": ("table",),
    "image_size": ("image_folder",),
}

BY_LOOKING = ReadOptions()

_KNOWN = "a folder with one sub-folder of images per class, or a .npz, .csv, .tsv or .parquet file"


def load(source: str | None, options: ReadOptions = BY_LOOKING) -> Dataset:
    """Read data to learn from.

    Args:
        source: Path of a folder or file; None for scikit-learn's handwritten digits.
        options: What the user said of it; what means nothing for these data is refused.

    Raises:
        DataError: The data cannot be read, or cannot be learned from, as it is.
    """
    path = _existing(source) if source is not None else Path("digits")
    form = _form(path) if source is not None else "digits"
    _refuse_options(path, form, options)
    dataset = _read(path, form, options)
    spec = dataset.spec
    split.check_sizes(dataset.y, task=spec.task, test_rows=dataset.test_rows, class_names=spec.class_names)
    return dataset


def _read(path: Path, form: Form, options: ReadOptions) -> Dataset:
    if form == "digits":
        return _digits()
    if form == "image_folder":
        return images.read(path, image_size=options.image_size)
    if form == "npz":
        return arrays.read(path, kind=options.kind, task=options.task)
    return tables.read(path, target=options.target, task=options.task)


def load_features(source: str, spec: DataSpec) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Read samples to predict, in the shape that the model was trained on; targets are ignored.

    Args:
        source: Path of a table or .npz file, an image, or a folder of images.
        spec: How the training data was read.

    Returns:
        The samples, and the file name or row number of each.

    Raises:
        DataError: The data cannot be read, or does not fit the model.
    """
    path = _existing(source)
    if path.is_dir() or path.suffix.lower() in images.IMAGE_SUFFIXES:
        if spec.kind != "image" or spec.form == "digits":
            raise DataError(
                f"{source!r} holds images, but the model was trained on "
                f"{'8x8 scans with values 0 to 16' if spec.form == 'digits' else 'series'}. Give a "
                f"{'.npz' if spec.form != 'table' else '.csv, .tsv or .parquet'} file."
            )
        return images.read_features(path, spec)
    if path.suffix.lower() == ".npz":
        return arrays.read_features(path, spec)
    if path.suffix.lower() in tables.TABLE_SUFFIXES:
        if len(spec.input_shape) != 1:
            shape = "x".join(map(str, spec.input_shape))
            raise DataError(f"{source!r} is a table, but the model was trained on {shape} samples. Give a .npz file.")
        return tables.read_features(path, spec)
    raise DataError(_unknown_type(path))


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        if not os.access(path, os.R_OK):
            raise DataError(f"{source!r} may not be read: permission denied. Change its permissions, or copy it.")
        return path
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"{source!r} does not exist, nor does its folder {str(parent)!r}. Check the path.")
    neighbours = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    hint = did_you_mean(path.name, neighbours) or f" In {str(parent)!r}: {', '.join(neighbours[:10]) or 'nothing'}."
    raise DataError(f"{source!r} does not exist.{hint} Give {_KNOWN}.")


def _form(path: Path) -> Form:
    if path.is_dir():
        return "image_folder"
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return "npz"
    if suffix in tables.TABLE_SUFFIXES:
        return "table"
    raise DataError(_unknown_type(path))


def _unknown_type(path: Path) -> str:
    shown = f"type {path.suffix!r}" if path.suffix else "no suffix"
    return f"{path.name!r} has {shown}, which cannot be read. Expected: {_KNOWN}."


def _refuse_options(path: Path, form: Form, options: ReadOptions) -> None:
    """Options that mean nothing for these data are mistakes; all are named at once."""
    problems = []
    if options.kind not in ("auto", *_KINDS[form]):
        problems.append(f"--kind {options.kind} does not fit {_FORM_NAMES[form]}, which can be {_listed(_KINDS[form])}")
    if form in _CLASS_FORMS and options.task == "regression":
        problems.append("--task regression does not fit classes: put the samples and values into a .npz file")
    for name, value in options.given.items():
        if name in _MEANT_FOR and form not in _MEANT_FOR[name]:
            suited = _listed([_FORM_NAMES[suitable] for suitable in _MEANT_FOR[name]])
            problems.append(f"--{name.replace('_', '-')} {value} is for {suited}: remove it")
    if problems:
        raise DataError(f"{str(path)!r}: {'; '.join(problems)}.")


def _listed(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Dataset(
        name="digits",
        spec=DataSpec("digits", "image", "classification", (8, 8, 1), tuple(map(str, range(10)))),
        x=digits.images.astype(np.uint8)[..., np.newaxis],
        y=digits.target.astype(np.int64),
        row_names=tuple(map(str, range(len(digits.target)))),
        notes=("No data given: scikit-learn's 1,797 real handwritten digits of 8x8 pixels.",),
    )
