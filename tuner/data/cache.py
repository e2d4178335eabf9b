"""Arrays in the run folder, memory-mapped: the data as it was read, and each distinct preprocessing of it.

    <run>/data/
        x.npy, y.npy, split.npz, rows.json      written once, when the run is set up; text in x.jsonl, one a line
        split_<seed>/                           the same again with another split, for a confirmation on fresh splits
        prepared/<key>/                         one folder for each distinct set of preprocessing choices
            pipeline.skops, target_scaler.skops, train_x.npy, train_y.npy, validation_x.npy, validation_y.npy

All workers share these files. A prepared folder is filled under a temporary name and then renamed, so it is
complete wherever it exists; a lock makes several processes that need the same one wait for the first. Where the disk
is too full for another one, those that were not used for the longest time are removed.

Samples are read, learned from and transformed in pieces of bounded size, so the data may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
from sklearn import config_context

from tuner.data import pipelines
from tuner.data.dataset import Dataset
from tuner.data.split import Rows, Split, redraw
from tuner.errors import BundleError, EnvironmentFault, RunError
from tuner.records import DataSpec
from tuner.store import atomic_open, atomic_path, storage_errors, write_text

__all__ = [
    "Estimate",
    "Part",
    "Prepared",
    "estimate",
    "fresh_split",
    "load_raw",
    "load_row_names",
    "prepared",
    "preparing_frac",
    "rows_at_a_time",
    "save_raw",
    "scaled_target",
    "test_parts",
]

# Values of samples, raw or prepared, that are transformed at a time: bounds the memory beyond the arrays themselves.
CHUNK_VALUES = 16_000_000

# Raw values that a pipeline is fitted on; of larger data, a random part of the training rows. Source: convention,
# 96 MB in float64, of which a median sorts copies; a quantile of 10,000 rows is known to half a percent.
FIT_VALUES = 12_000_000

# Share of the disk's free space that is left alone, and rows that a time is estimated from. Source: convention.
RESERVED_FRAC = 0.05
ESTIMATE_ROWS = 256

Array = npt.NDArray[Any]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Part:
    """Samples ready for a network.

    Attributes:
        x: float32 with a channel axis; of text int32 numbers of tokens.
        y: int64 class codes; 0 and 1 of several labels in float32; for regression the scaled target in float32
            (`Prepared.target_scaler` undoes it).
    """

    x: Array
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


@dataclass(frozen=True)
class Estimate:
    """What one preprocessing of all training and validation rows costs.

    Attributes:
        size_bytes: On the disk; where it is small, in the memory of each worker that trains on it, too.
        free_bytes: Of the disk.
        seconds: To fit and transform, once.
    """

    size_bytes: int
    free_bytes: int
    seconds: float


def save_raw(data_dir: Path, dataset: Dataset, split: Split) -> None:
    """Store a data set and its split, each file atomically, the split last.

    Raises:
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    with storage_errors(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        _refuse_full_disk(data_dir, sum(len(text) for text in dataset.x) if _is_text(dataset) else dataset.x.nbytes)
    if _is_text(dataset):
        with atomic_open(data_dir / "x.jsonl") as stream:
            stream.writelines(json.dumps(text) + "\n" for text in dataset.x)
    for name, array in (("x.npy", dataset.x), ("y.npy", dataset.y))[_is_text(dataset) :]:
        with atomic_open(data_dir / name, "wb") as stream:
            np.save(stream, array, allow_pickle=False)
    write_text(data_dir / "rows.json", json.dumps(dataset.row_names))
    with atomic_open(data_dir / "split.npz", "wb") as stream:
        np.savez(stream, **_split_arrays(split))


def _split_arrays(split: Split) -> dict[str, Any]:
    arrays: dict[str, Any] = {"train": split.train, "validation": split.validation, "test": split.test}
    arrays |= {} if split.together is None else {"together": split.together}
    return arrays | {"is_drawn": np.array(split.is_drawn)}


def fresh_split(data_dir: Path, spec: DataSpec, *, seed: int) -> Path:
    """Return a folder of the same samples whose training and validation part are drawn anew; the test part is the same.

    Made once for each seed; the samples take no room again where the disk can link files.

    Args:
        data_dir: Where `save_raw` wrote.
        spec: How the data was read.
        seed: Of the draw.

    Raises:
        DataError: The parts were not drawn at random, or would lack classes.
        RunError: The stored data are missing or damaged.
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    folder = data_dir / f"split_{seed}"
    if (folder / "split.npz").is_file():
        return folder
    _, y, parts = load_raw(data_dir)
    drawn = redraw(parts, y, task=spec.task, names=spec.class_names, seed=seed)
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        for name in ("x.npy", "x.jsonl", "y.npy", "rows.json"):
            if (data_dir / name).is_file() and not (folder / name).exists():
                _link(data_dir / name, folder / name)
    with atomic_open(folder / "split.npz", "wb") as stream:
        np.savez(stream, **_split_arrays(drawn))
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _is_text(dataset: Dataset) -> bool:
    return dataset.x.dtype == object


def load_raw(data_dir: Path) -> tuple[Array, Array, Split]:
    """Return the stored samples (memory-mapped; texts in memory), targets and split.

    Raises:
        RunError: They are missing or damaged.
    """
    try:
        texts = data_dir / "x.jsonl"
        x = _load_texts(texts) if texts.is_file() else np.load(data_dir / "x.npy", mmap_mode="r", allow_pickle=False)
        y = np.load(data_dir / "y.npy", allow_pickle=False)
        with np.load(data_dir / "split.npz", allow_pickle=False) as parts:
            return (
                x,
                y,
                Split(
                    parts["train"],
                    parts["validation"],
                    parts["test"],
                    together=parts.get("together"),
                    is_drawn=bool(parts.get("is_drawn", True)),
                ),
            )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise _damaged(data_dir, error) from error


def _load_texts(file: Path) -> Array:
    with open(file, encoding="utf-8") as stream:
        found = [json.loads(line) for line in stream]
    texts = np.empty(len(found), object)
    texts[:] = found
    return texts


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
    unfitted = pipelines.build(spec, params)
    folder = data_dir / "prepared" / _key(spec, unfitted)
    while True:
        if not folder.is_dir():
            with storage_errors(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                with filelock.FileLock(str(folder.parent / f".{folder.name}.lock")):
                    if not folder.is_dir():
                        _write(folder, data_dir, spec, unfitted, row_values=_row_values(spec, params))
        try:
            # Marks it as used.
            os.utime(folder)
            return _read(folder, spec)
        except (FileNotFoundError, BundleError) as error:
            if folder.is_dir():
                raise _unreadable(folder, error) from error
            # Another process has made room in between.


def _key(spec: DataSpec, unfitted: Any) -> str:
    """The same for choices that make the same pipeline."""
    # To leave defaults out takes scikit-learn three times as long, and megabytes of copies of `sys.modules`.
    with config_context(print_changed_only=False):
        pipeline_text = unfitted.__repr__(N_CHAR_MAX=10**6)
    identity = json.dumps({"spec": asdict(spec), "pipeline": pipeline_text}, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _row_values(spec: DataSpec, params: Mapping[str, str]) -> int:
    """Values of one prepared sample; each takes four bytes."""
    return math.prod(pipelines.output_shape(spec, params))


def estimate(data_dir: Path, spec: DataSpec, params: Mapping[str, str]) -> Estimate:
    """Estimate what `prepared` will cost, by preparing a few rows.

    Args:
        data_dir: Where `save_raw` wrote.
        spec: How the data was read.
        params: Chosen values by name.

    Raises:
        RunError: The stored data are missing or damaged.
    """
    x, _, split = load_raw(data_dir)
    num_rows = len(split.train) + len(split.validation)
    few = x[np.sort(split.train[:ESTIMATE_ROWS])]
    fitted = pipelines.build(spec, params).fit(few)
    started = time.perf_counter()
    fitted.transform(few)
    seconds = (time.perf_counter() - started) / len(few) * num_rows
    return Estimate(4 * _row_values(spec, params) * num_rows, shutil.disk_usage(data_dir).free, seconds)


def preparing_frac(data_dir: Path) -> float | None:
    """How much of the preprocessing that some process is busy with is done; None if there is none."""
    for folder in (data_dir / "prepared").glob(".*.partial"):
        try:
            planned = int((folder / "planned_bytes").read_text())
            written = sum(file.stat().st_size for file in folder.iterdir())
        except (OSError, ValueError):
            continue  # Just begun, or just done.
        return min(1.0, written / max(1, planned))
    return None


def _write(folder: Path, data_dir: Path, spec: DataSpec, pipeline: Any, *, row_values: int) -> None:
    """Fill the folder under a temporary name, then rename it. The caller holds the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    x, y, split = load_raw(data_dir)
    planned_bytes = 4 * row_values * (len(split.train) + len(split.validation))
    _make_room(folder.parent, planned_bytes)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        (temporary / "planned_bytes").write_text(str(planned_bytes))
        step = rows_at_a_time(x, row_values)
        _fit(pipeline, x, split.train, step=step)
        pipelines.save(pipeline, temporary / "pipeline.skops")
        target_scaler = pipelines.build_target(spec)
        if target_scaler is not None:
            target_scaler.fit(y[split.train].reshape(-1, 1))
            pipelines.save(target_scaler, temporary / "target_scaler.skops")
        for name, rows in (("train", split.train), ("validation", split.validation)):
            _transform_to_file(temporary / f"{name}_x.npy", pipeline, _pieces(x, rows, step=step), num_rows=len(rows))
            with atomic_open(temporary / f"{name}_y.npy", "wb") as stream:
                np.save(stream, scaled_target(y[rows], target_scaler), allow_pickle=False)
        (temporary / "planned_bytes").unlink()
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def rows_at_a_time(x: Array, row_values: int) -> int:
    """Rows that are transformed at a time, so that it takes a bounded memory.

    Args:
        x: Raw samples.
        row_values: Values of one prepared sample.
    """
    return max(1, CHUNK_VALUES // max(1, row_values, math.prod(x.shape[1:])))


def _make_room(parent: Path, needed_bytes: int) -> None:
    """Remove prepared folders, the one unused for longest first, until another one fits.

    Raises:
        EnvironmentFault: It does not fit even then.
    """
    used = sorted((entry.stat().st_mtime, entry) for entry in parent.iterdir() if not entry.name.startswith("."))
    while used and not _fits(parent, needed_bytes):
        _, oldest = used.pop(0)
        _LOG.info("removing %s: the disk is too full for another preprocessing", oldest)
        shutil.rmtree(oldest, ignore_errors=True)
    _refuse_full_disk(parent, needed_bytes)


def _fits(folder: Path, needed_bytes: int) -> bool:
    return needed_bytes <= (1 - RESERVED_FRAC) * shutil.disk_usage(folder).free


def _refuse_full_disk(folder: Path, needed_bytes: int) -> None:
    if not _fits(folder, needed_bytes):
        raise EnvironmentFault(
            f"{str(folder)!r} needs {needed_bytes / 1e6:,.1f} MB for the data, and its disk has "
            f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB free. Free some space, or give --run a folder on another "
            "disk."
        )


def _fit(pipeline: Any, x: Array, rows: Rows, *, step: int) -> None:
    """Fit on the training rows; if they are too many, on some of them, and what learns in pieces on all."""
    most = max(1, FIT_VALUES // max(1, math.prod(x.shape[1:])))
    if len(rows) <= most:
        pipeline.fit(x[rows])
        return
    drawn = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    _LOG.info("the pipeline is fitted on %d of %d training rows, drawn at random", most, len(rows))
    pipeline.fit(x[drawn])
    for piece in _pieces(x, rows, step=step):
        pipelines.refine(pipeline, piece)


def _pieces(x: Array, rows: Rows, *, step: int) -> Iterator[Array]:
    for start in range(0, len(rows), step):
        yield x[rows[start : start + step]]


def _transform_to_file(path: Path, pipeline: Any, pieces: Iterator[Array], *, num_rows: int) -> None:
    """Transform rows piece by piece into a new .npy file, so that the result need not fit into memory."""
    with atomic_open(path, "wb") as stream:
        for position, piece in enumerate(map(pipeline.transform, pieces)):
            # Little endian: numbers of four bytes, float32 or int32.
            values = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<"))
            if position == 0:
                header = {"descr": values.dtype.str, "fortran_order": False, "shape": (num_rows, *values.shape[1:])}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(values.data)


def scaled_target(y: Array, target_scaler: Any | None) -> Array:
    """Return targets as the network sees them: class codes as they are, labels and scaled values as float32."""
    if target_scaler is None:
        return y.astype(np.float32) if y.ndim == 2 else y
    scaled: Array = target_scaler.transform(y.reshape(-1, 1)).ravel().astype(np.float32)
    return scaled


def _read(folder: Path, spec: DataSpec) -> Prepared:
    def part(name: str) -> Part:
        return Part(*(np.load(folder / f"{name}_{axis}.npy", mmap_mode="r", allow_pickle=False) for axis in "xy"))

    try:
        train, validation = part("train"), part("validation")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(folder, error) from error
    return Prepared(
        train=train,
        validation=validation,
        pipeline=pipelines.load(folder / "pipeline.skops"),
        target_scaler=pipelines.load(folder / "target_scaler.skops") if spec.task == "regression" else None,
        folder=folder,
    )


def _unreadable(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"The prepared data in {str(folder)!r} cannot be read: {error}. Delete that folder, then run the same search "
        "again."
    )


def test_parts(data_dir: Path, prepared_data: Prepared, spec: DataSpec) -> Iterator[Part]:
    """The test part, transformed by the fitted pipeline, piece by piece. Only the export calls this, once.

    Args:
        data_dir: Where `save_raw` wrote.
        prepared_data: Holds the pipeline.
        spec: How the data was read.

    Raises:
        RunError: The stored data are missing or damaged.
    """
    x, y, split = load_raw(data_dir)
    step = rows_at_a_time(x, math.prod(prepared_data.train.x.shape[1:]))
    for start in range(0, len(split.test), step):
        rows = split.test[start : start + step]
        yield Part(prepared_data.pipeline.transform(x[rows]), scaled_target(y[rows], prepared_data.target_scaler))
