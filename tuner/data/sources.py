"""The door to all data: looks at what it was given and hands it to the right reader."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import (
    archives,
    arrays,
    audio,
    folders,
    frames,
    images,
    layout,
    parts,
    sequence_folders,
    sequence_tables,
    split,
    tables,
    tfds,
)
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
    "audio_folder": "folders of sounds",
    "long_table": "long tables (--series-id)",
    "recording": "recordings (--window)",
    "sequence_folder": "folders of tables",
    "tfds": "data of TensorFlow Datasets",
}
_KINDS: dict[Form, tuple[Kind, ...]] = {
    "digits": ("image",),
    "npz": ("image", "series"),
    "image_folder": ("image",),
    "table": ("series", "text"),
    "audio_folder": ("audio",),
    "long_table": ("series",),
    "recording": ("series",),
    "sequence_folder": ("series",),
    "tfds": ("image", "series", "text"),
}

_TABLES: tuple[Form, ...] = ("table", "long_table", "recording")
_FOLDERS: tuple[Form, ...] = ("image_folder", "audio_folder", "sequence_folder")

# Folders of files, which may have a table of labels (`label_files`).
_LABELLED: tuple[Form, ...] = ("image_folder", "audio_folder")

# Forms whose targets are always classes.
_CLASS_FORMS: tuple[Form, ...] = ("digits",)

# Forms that may have several labels for each sample.
_MULTILABEL_FORMS: tuple[Form, ...] = ("npz", "table", *_LABELLED, "tfds")

# Options that name columns of a table.
_COLUMN_OPTIONS = ("target", "text", "series_id", "time", "group", "drop")

# The forms that an option means something for; an option that is not here suits all.
_MEANT_FOR: dict[str, tuple[Form, ...]] = {
    "target": (*_TABLES, *_FOLDERS),
    "label_sep": ("table", *_LABELLED),
    "labels": _LABELLED,
    "text": ("table",),
    "drop": (*_TABLES, "sequence_folder"),
    "sep": (*_TABLES, *_FOLDERS),
    "decimal": (*_TABLES, *_FOLDERS),
    "na": (*_TABLES, *_FOLDERS),
    "encoding": (*_TABLES, *_FOLDERS),
    "series_id": ("long_table", "recording"),
    "time": _TABLES,
    "window": ("recording",),
    "group": ("npz", *_FOLDERS, *_TABLES),
    "sample_rate": ("audio_folder",),
    "validation": ("npz", *_FOLDERS, *_TABLES),
    "test": ("npz", *_FOLDERS, *_TABLES),
    "image_size": ("image_folder",),
}

# Files by what they hold.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "arrays": arrays.ARRAY_SUFFIXES,
    "images": images.IMAGE_SUFFIXES,
    "sounds": audio.AUDIO_SUFFIXES,
    "tables": frames.TABLE_SUFFIXES,
}

# What predictions can be made from, by the form of the training data.
_PREDICTED_FROM: dict[Form, str] = {
    "digits": "a .npz file",
    "npz": "a .npz file",
    "image_folder": "an image, a folder of images, or a .npz file",
    "audio_folder": "a sound or a folder of sounds",
    "table": "a table with the same columns",
    "text_table": "a table with the same columns",
    "long_table": "a table with the same columns",
    "recording": "a table with the same columns",
    "sequence_folder": "a table with the same columns, or a folder of these",
    "tfds": "a .npz file, images, or a table with a column text, as in training",
}

BY_LOOKING = ReadOptions()

_KNOWN = (
    "a folder with one sub-folder of images or sounds per class, a folder of tables, or a .npz, .npy, .csv, .tsv, "
    ".parquet or .xlsx file"
)


def load(source: str | None, options: ReadOptions = BY_LOOKING) -> Dataset:
    """Read data to learn from.

    Args:
        source: Path of a folder or file, or `tfds:NAME`; None for scikit-learn's handwritten digits.
        options: What the user said of it; what means nothing for these data is refused.

    Raises:
        DataError: The data cannot be read, or cannot be learned from, as it is.
    """
    path, form, found = _place(source, options)
    _refuse_options(path, form, options)
    try:
        dataset = _read(path, form, options)
    except MemoryError as error:
        raise DataError(
            f"{str(path)!r} does not fit into memory ({error or 'there is not enough of it'}). Only folders of images "
            "or sounds, and arrays in .npy files, may be larger: save the samples as x.npy and the targets as y.npy in "
            "one folder, or give fewer rows."
        ) from error
    dataset = parts.with_parts(dataset, _part(options.validation), _part(options.test), options=options, layout=found)
    spec = dataset.spec
    split.check_sizes(dataset.y, task=spec.task, test_rows=dataset.test_rows, class_names=spec.class_names)
    return dataset


def _place(source: str | None, options: ReadOptions) -> tuple[Path, Form, layout.Layout | None]:
    """Where the data to learn from lies, its form, and the parts beside it."""
    if source is None:
        return Path("digits"), "digits", None
    if source.startswith(tfds.PREFIX):
        return Path(source), "tfds", None
    path = _existing(source)
    found = layout.find(path, (*arrays.ARRAY_SUFFIXES, *frames.TABLE_SUFFIXES)) if path.is_dir() else None
    path = found.parts["train"] if found else path
    if path.is_dir() and not any(entry.is_dir() for entry in path.iterdir()):
        path = archives.samples_in(path) or path
    return path, _form(path, options), found


def _part(source: str | None) -> Path | None:
    return _existing(source) if source is not None else None


def _read(path: Path, form: Form, options: ReadOptions) -> Dataset:
    if form == "digits":
        return _digits()
    if form == "image_folder":
        return images.read(path, options)
    if form == "audio_folder":
        return audio.read(path, options)
    if form == "sequence_folder":
        return sequence_folders.read_folder(path, options)
    if form == "long_table":
        return sequence_tables.read_long(path, options)
    if form == "recording":
        return sequence_tables.read_recording(path, options)
    if form == "tfds":
        return tfds.read(str(path), options)
    if form == "npz":
        return arrays.read(path, options)
    return tables.read(path, options)


def load_features(
    source: str, spec: DataSpec, notes: list[str] | None = None
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Read samples to predict, in the shape that the model was trained on; targets are ignored.

    Args:
        source: Path of a table or .npz file, an image, or a folder of images.
        spec: How the training data was read.
        notes: What is decided is added.

    Returns:
        The samples, and the file name or row number of each.

    Raises:
        DataError: The data cannot be read, or does not fit the model.
    """
    path = _existing(source)
    found = _contents(path)
    notes = [] if notes is None else notes
    if path.is_dir() and found in _SUFFIXES:
        notes += folders.passed_over(path, _SUFFIXES[found], noun=found)
    if found == "tables" and spec.form == "sequence_folder":
        return sequence_folders.read_folder_features(path, spec, notes)
    if found == "tables" and path.is_file() and spec.form in ("long_table", "recording"):
        return sequence_tables.read_table_features(path, spec, notes)
    if found == "tables" and path.is_file() and (spec.form == "table" or spec.kind == "text"):
        return tables.read_features(path, spec, notes)
    if found == "images" and spec.kind == "image" and spec.form != "digits":
        return images.read_features(path, spec, notes)
    if found == "sounds" and spec.kind == "audio":
        return audio.read_features(path, spec, notes)
    if found == "arrays" and spec.kind in ("image", "series"):
        return arrays.read_features(path, spec)
    raise DataError(
        f"{source!r} holds {found}, but the model was trained on {_trained_on(spec)}. Give "
        f"{_PREDICTED_FROM[spec.form]}."
    )


def _contents(path: Path) -> str:
    """What there is to predict in a file or folder."""
    if path.is_dir():
        held = _held(path)
        if not any(held.values()):
            return "nothing that can be read"
        form = _folder_form(held, BY_LOOKING)
        return {"audio_folder": "sounds", "sequence_folder": "tables"}.get(form, "images")
    suffix = path.suffix.lower()
    found = next((name for name, suffixes in _SUFFIXES.items() if suffix in suffixes), None)
    if found is None:
        raise DataError(_unknown_type(path))
    return found


def _trained_on(spec: DataSpec) -> str:
    if spec.form == "digits":
        return "8x8 scans with values 0 to 16"
    if spec.kind in ("image", "audio", "text"):
        return {"image": "images", "audio": "sounds", "text": "texts"}[spec.kind]
    return f"series of shape {'x'.join(map(str, spec.input_shape))}"


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not source.strip():
        raise DataError(f"DATA is {source!r}, which names nothing. Give {_KNOWN}; '.' is the folder that you are in.")
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long, a link to itself
        raise DataError(f"{source[:80]!r} cannot be opened: {error.strerror}. Check the path.") from error
    if is_there:
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise DataError(f"{source!r} may not be read: permission denied. Change its permissions, or copy it.")
        return path
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"{source!r} does not exist, nor does its folder {str(parent)!r}. Check the path.")
    neighbours = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    hint = did_you_mean(path.name, neighbours) or f" In {str(parent)!r}: {', '.join(neighbours[:10]) or 'nothing'}."
    raise DataError(f"{source!r} does not exist.{hint} Give {_KNOWN}.")


def _form(path: Path, options: ReadOptions) -> Form:
    if path.is_dir():
        return _folder_form(_held(path), options)
    suffix = path.suffix.lower()
    if suffix in arrays.ARRAY_SUFFIXES:
        return "npz"
    if suffix in frames.TABLE_SUFFIXES:
        return "recording" if options.window else "long_table" if options.series_id else "table"
    raise DataError(_unknown_type(path))


def _held(folder: Path) -> dict[str, int]:
    """Number of files below a folder by what they hold."""
    counts = folders.suffixes_below(folder)
    return {name: sum(counts[suffix] for suffix in suffixes) for name, suffixes in _SUFFIXES.items()}


def _folder_form(held: dict[str, int], options: ReadOptions) -> Form:
    """What a folder holds most of; tables only if there are neither images nor sounds."""
    counts: dict[Form, int] = {"image_folder": held["images"], "audio_folder": held["sounds"]}
    if not any(counts.values()) or options.kind == "series":
        counts["sequence_folder"] = held["tables"]
    asked = [form for form in counts if options.kind in _KINDS[form] and counts[form]]
    return max(asked or counts, key=lambda form: counts[form])


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
    if form not in _MULTILABEL_FORMS and options.task == "multilabel":
        problems.append(
            f"--task multilabel is for {_listed([_FORM_NAMES[suitable] for suitable in _MULTILABEL_FORMS])}: save the "
            "samples and their labels into a .npz file"
        )
    problems += _split_problems(form, options)
    problems += _named_twice(form, options)
    for name, value in options.given.items():
        if name in _MEANT_FOR and form not in _MEANT_FOR[name]:
            suited = _listed([_FORM_NAMES[suitable] for suitable in _MEANT_FOR[name]])
            problems.append(f"--{name.replace('_', '-')} {value} is for {suited}: remove it")
    if problems:
        raise DataError(f"{str(path)!r}: {'; '.join(problems)}.")


def _split_problems(form: Form, options: ReadOptions) -> list[str]:
    problems = []
    if options.stride is not None and options.window is None:
        problems.append("--stride needs --window")
    if options.split == "time" and form not in _TABLES:
        problems.append("--split time needs rows in the order of time: remove it")
    if options.split == "time" and (options.group or (form == "recording" and options.series_id)):
        problems.append("--split time cannot keep groups together: remove one of the two")
    if options.split == "auto" and options.time and options.group and form == "table":
        problems.append("--time splits a table in time, --group by groups: remove one, or add --split random")
    if options.split == "random" and form == "recording" and not options.series_id:
        problems.append("--split random would put windows that overlap on both sides: remove it")
    return problems


def _named_twice(form: Form, options: ReadOptions) -> list[str]:
    """Columns that two options take for different things."""
    if form not in _TABLES:
        return []
    problems = []
    for first, second in itertools.combinations(_COLUMN_OPTIONS, 2):
        named = [set((getattr(options, option) or "").split(",")) - {""} for option in (first, second)]
        if {first, second} != {"series_id", "group"}:
            both = [f"--{option.replace('_', '-')}" for option in (first, second)]
            problems += [
                f"{both[0]} and {both[1]} both name {name!r}: remove one" for name in sorted(named[0] & named[1])
            ]
    return problems


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
