"""Data sets of TensorFlow Datasets, named `tfds:NAME`. That package is only needed for them."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import arrays, labels
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.errors import DataError, EnvironmentFault
from tuner.records import DataSpec

__all__ = ["PREFIX", "read"]

PREFIX = "tfds:"

# The splits that are used, in this order; others are ignored and named.
SPLITS = ("train", "validation", "test")

Array = npt.NDArray[Any]


def read(source: str, options: ReadOptions) -> Dataset:
    """Read images, series or texts with their targets; its validation and test splits stay what they are.

    Args:
        source: `tfds:NAME`, or `tfds:NAME/CONFIG:VERSION`.
        options: `kind` and `task` are used.

    Raises:
        EnvironmentFault: The package is not installed.
        DataError: There is no such data set, or its samples are not pairs of arrays of one shape.
    """
    name = source.removeprefix(PREFIX)
    pairs, class_names = _splits(name)
    found = [split for split in SPLITS if split in pairs]
    if "train" not in found:
        raise DataError(f"{source!r} has no split 'train', only {', '.join(sorted(pairs))}. Choose another data set.")
    sizes = [len(pairs[split][1]) for split in found]
    starts = dict(zip(found, np.cumsum([0, *sizes]).tolist(), strict=False))
    rows = {split: np.arange(starts[split], starts[split] + len(pairs[split][1])) for split in found[1:]}
    x = np.concatenate([pairs[split][0] for split in found])
    y = np.concatenate([pairs[split][1] for split in found])
    dataset = _texts(x, y, class_names, options) if x.dtype.kind in "OSU" else _arrays(x, y, class_names, options)
    extra = sorted(set(pairs) - set(SPLITS))
    return dataclasses.replace(
        dataset,
        name=name.partition(":")[0].replace("/", "-"),
        spec=dataclasses.replace(dataset.spec, form="tfds"),
        row_names=tuple(f"{split}[{row}]" for split, size in zip(found, sizes, strict=True) for row in range(size)),
        validation_rows=rows.get("validation"),
        test_rows=rows.get("test"),
        notes=(*dataset.notes, *([f"Splits that were ignored: {', '.join(extra)}."] if extra else [])),
    )


def _splits(name: str) -> tuple[dict[str, tuple[Array, Array]], tuple[str, ...]]:
    """Samples and targets of each split, and the names of the classes."""
    # It imports TensorFlow, whose start-up notes are of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        package = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise EnvironmentFault(
            f"{PREFIX}{name} needs TensorFlow Datasets, which is not installed: pip install tensorflow-datasets"
        ) from error
    try:
        tensors, info = package.load(name, batch_size=-1, as_supervised=True, with_info=True)
        pairs = {split: _with_target(x, y) for split, (x, y) in package.as_numpy(tensors).items()}
        target = info.features[info.supervised_keys[1]]
    except Exception as error:
        # It is another for each cause: unknown name, no network, no pairs, samples of several shapes. Behind its first
        # line stand the names of all data sets there are.
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"{PREFIX}{name} cannot be loaded by TensorFlow Datasets ({type(error).__name__}: {reason}). Expected: a "
            "data set of pairs (sample, target) whose samples have one shape. Check the name, or save x and y as .npz."
        ) from error
    return pairs, tuple(getattr(target, "names", None) or ())


def _with_target(x: Array, y: Array) -> tuple[Array, Array]:
    present = ~labels.is_missing(np.asarray(y))
    return np.asarray(x)[present], np.asarray(y)[present]


def _arrays(x: Array, y: Array, class_names: tuple[str, ...], options: ReadOptions) -> Dataset:
    archive = {"x": x, "y": y} | ({"class_names": np.array(class_names)} if class_names else {})
    return arrays.assemble(archive, Path("tfds"), kind=options.kind, task=options.task)


def _texts(x: Array, y: Array, class_names: tuple[str, ...], options: ReadOptions) -> Dataset:
    texts = np.empty(len(x), object)
    texts[:] = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in x.tolist()]
    encoded = labels.encode(y, task=options.task, where="the target", names=class_names)
    spec = DataSpec("tfds", "text", encoded.task, (), encoded.class_names, feature_names=("text",))
    return Dataset(name="tfds", spec=spec, x=texts, y=encoded.y, row_names=(), notes=encoded.notes)
