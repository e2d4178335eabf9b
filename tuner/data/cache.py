"""Arrays in the run folder, memory-mapped: the data as it was read, and each distinct preprocessing of it.

    <run>/data/
        x.npy, y.npy, split.npz, rows.json      written once, when the run is set up
        prepared/<key>/                         one folder for each distinct set of preprocessing choices
            pipeline.skops, target_scaler.skops, train_x.npy, train_y.npy, validation_x.npy, validation_y.npy

All workers share these files. A prepared folder is filled under a temporary name and then renamed, so it is
complete wherever it exists; a lock makes several processes that need the same one wait for the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from tuner.data import pipelines
from tuner.data.dataset import Dataset
from tuner.data.split import Rows, Split
from tuner.errors import RunError
from tuner.records import DataSpec
from tuner.store import atomic_open, storage_errors, write_text

__all__ = ["Part", "Prepared", "load_raw", "load_row_names", "prepared", "save_raw", "scaled_target", "test_part"]

# Samples that are transformed at a time, in raw values: bounds the memory beyond the arrays themselves.
CHUNK_VALUES = 16_000_000

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """Samples ready for a network.

    Attributes:
        x: float32 with a channel axis.
        y: int64 class codes; for regression the scaled target in float32 (`Prepared.target_scaler` undoes it).
    """

    x: npt.NDArray[np.float32]
    y: Array


@dataclass(frozen=True, eq=False)
class Prepared:
    """Training and validation part after one preprocessing, and what it was fitted to.

    Attributes:
        train, validation: Memory-mapped, read-only.
        pipeline: The fitted scikit-learn pipeline.
        target_scaler: The fitted scaler of a regression target, else None.
        folder: Where all of it lies.
    """

    train: Part
    validation: Part
    pipeline: Any
    target_scaler: Any | None
    folder: Path


def save_raw(data_dir: Path, dataset: Dataset, split: Split) -> None:
    """Store a data set and its split, each file atomically, the split last.

    Raises:
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    for name, array in (("x.npy", dataset.x), ("y.npy", dataset.y)):
        with atomic_open(data_dir / name, "wb") as stream:
            np.save(stream, array, allow_pickle=False)
    write_text(data_dir / "rows.json", json.dumps(dataset.row_names))
    with atomic_open(data_dir / "split.npz", "wb") as stream:
        np.savez(stream, train=split.train, validation=split.validation, test=split.test)


def load_raw(data_dir: Path) -> tuple[Array, Array, Split]:
    """Return the stored samples (memory-mapped), targets and split.

    Raises:
        RunError: They are missing or damaged.
    """
    try:
        x = np.load(data_dir / "x.npy", mmap_mode="r", allow_pickle=False)
        y = np.load(data_dir / "y.npy", allow_pickle=False)
        with np.load(data_dir / "split.npz", allow_pickle=False) as parts:
            return x, y, Split(parts["train"], parts["validation"], parts["test"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise _damaged(data_dir, error) from error


def load_row_names(data_dir: Path) -> tuple[str, ...]:
    """Return the file name or row number of every stored sample.

    Raises:
        RunError: They are missing or damaged.
    """
    try:
        return tuple(json.loads((data_dir / "rows.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _damaged(data_dir, error) from error


def _damaged(data_dir: Path, error: Exception) -> RunError:
    return RunError(
        f"The stored data in {str(data_dir)!r} cannot be read: {error}. Delete that folder, then run the same search "
        "again."
    )


def prepared(data_dir: Path, spec: DataSpec, params: Mapping[str, str]) -> Prepared:
    """Return the training and validation part for a set of preprocessing choices.

    The first call for a distinct set fits the pipeline on the training part and stores the result; later calls, of
    any process, map the stored files.

    Args:
        data_dir: Where `save_raw` wrote.
        spec: How the data was read.
        params: Chosen values by name; those that do not shape the pipeline are ignored.

    Raises:
        ConfigError: A value is not one of its choice.
        RunError: The stored data are missing or damaged.
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    chosen = pipelines.pipeline_params(spec, params)
    folder = data_dir / "prepared" / _key(spec, chosen)
    if not folder.is_dir():
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(str(folder.parent / f".{folder.name}.lock")):
                if not folder.is_dir():
                    _write(folder, data_dir, spec, chosen)
    return _read(folder, spec)


def _key(spec: DataSpec, chosen: Mapping[str, str]) -> str:
    identity = json.dumps({"spec": asdict(spec), "params": chosen}, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _write(folder: Path, data_dir: Path, spec: DataSpec, chosen: Mapping[str, str]) -> None:
    """Fill the folder under a temporary name, then rename it. The caller holds the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        x, y, split = load_raw(data_dir)
        pipeline = pipelines.build(spec, chosen).fit(x[split.train])
        pipelines.save(pipeline, temporary / "pipeline.skops")
        target_scaler = pipelines.build_target(spec)
        if target_scaler is not None:
            target_scaler.fit(y[split.train].reshape(-1, 1))
            pipelines.save(target_scaler, temporary / "target_scaler.skops")
        for name, rows in (("train", split.train), ("validation", split.validation)):
            _transform_to_file(temporary / f"{name}_x.npy", pipeline, x, rows)
            with atomic_open(temporary / f"{name}_y.npy", "wb") as stream:
                np.save(stream, scaled_target(y[rows], target_scaler), allow_pickle=False)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _transform_to_file(path: Path, pipeline: Any, x: Array, rows: Rows) -> None:
    """Transform rows piece by piece into a new .npy file, so that the result need not fit into memory."""
    with atomic_open(path, "wb") as stream:
        for position, start in enumerate(starts := range(0, len(rows), _step(x))):
            piece = pipeline.transform(x[rows[start : start + starts.step]])
            if position == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), *piece.shape[1:])}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(np.ascontiguousarray(piece, "<f4").data)


def _step(x: Array) -> int:
    return max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))


def scaled_target(y: Array, target_scaler: Any | None) -> Array:
    """Return targets as the network sees them: class codes as they are, values scaled to float32."""
    if target_scaler is None:
        return y
    scaled: Array = target_scaler.transform(y.reshape(-1, 1)).ravel().astype(np.float32)
    return scaled


def _read(folder: Path, spec: DataSpec) -> Prepared:
    def part(name: str) -> Part:
        return Part(*(np.load(folder / f"{name}_{axis}.npy", mmap_mode="r", allow_pickle=False) for axis in "xy"))

    try:
        train, validation = part("train"), part("validation")
    except (OSError, ValueError, EOFError) as error:
        raise RunError(
            f"The prepared data in {str(folder)!r} cannot be read: {error}. Delete that folder, then run the same "
            "search again."
        ) from error
    return Prepared(
        train=train,
        validation=validation,
        pipeline=pipelines.load(folder / "pipeline.skops"),
        target_scaler=pipelines.load(folder / "target_scaler.skops") if spec.task == "regression" else None,
        folder=folder,
    )


def test_part(data_dir: Path, prepared_data: Prepared, spec: DataSpec) -> Part:
    """Return the test part, transformed by the fitted pipeline. Only the export calls this, once.

    Args:
        data_dir: Where `save_raw` wrote.
        prepared_data: Holds the pipeline.
        spec: How the data was read.

    Raises:
        RunError: The stored data are missing or damaged.
    """
    x, y, split = load_raw(data_dir)
    pieces = [
        prepared_data.pipeline.transform(x[split.test[start : start + _step(x)]])
        for start in range(0, len(split.test), _step(x))
    ]
    return Part(np.concatenate(pieces), scaled_target(y[split.test], prepared_data.target_scaler))
