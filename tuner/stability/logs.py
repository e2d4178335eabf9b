"""Logs of trainings made elsewhere, or of our own runs, as traces that can be scored and diagnosed.

    History.history as JSON    jsonlog \
    Keras' CSVLogger           csvlog   > history -> one ForeignLog for each training
    TensorBoard event files    events  /
    run, trial, seed run       here
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NoReturn

from tuner.errors import DataError, RunError, did_you_mean
from tuner.records import SeedRun, Trace
from tuner.stability import csvlog, events, jsonlog
from tuner.stability.history import ForeignLog, foreign_logs, listed
from tuner.store import RunFolder, read_json, read_trace

__all__ = ["ForeignLog", "read"]

# Longer files are no logs of epochs. Source: 100,000 epochs with ten columns are 20 MB.
MAX_LOG_BYTES = 1 << 28

FORMATS = "a CSVLogger file, History.history as JSON, a TensorBoard folder, or a run of tuner"

# How files begin that hold no text, and what they are.
_MAGICS = (
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive (a .keras model or .npz file?)"),
    (b"\x1f\x8b", "a compressed file"),
    (b"\x89PNG", "a picture"),
)
_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def read(path: Path, *, loss_column: str | None = None, val_column: str | None = None) -> tuple[ForeignLog, ...]:
    """Read a log of trainings.

    Args:
        path: File or folder; see the head of this module.
        loss_column: Column of the training loss, if it is not `loss`.
        val_column: Column of the validation loss, if it is not `val_` and the name of the loss.

    Returns:
        One for each training, at least one.

    Raises:
        DataError: It cannot be read, or holds no losses.
        RunError: It is a run without a finished trial, or a damaged one.
        EnvironmentFault: A package for this form of log is missing.
    """
    try:
        return _read(path, loss_column, val_column)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _read(path: Path, loss_column: str | None, val_column: str | None) -> tuple[ForeignLog, ...]:
    if path.is_dir():
        ours = _read_ours(path)
        if ours:
            _refuse_columns(path, loss_column or val_column)
            return ours
        histories = events.read_events(path) if events.event_files(path) else _refuse_folder(path)
    elif path.is_file() and "tfevents" in path.name:
        histories = events.read_events(path)
    elif path.is_file():
        text = _text(path)
        is_json = text.lstrip()[:1] in ("{", "[") or path.suffix.lower() in (".json", ".jsonl")
        histories = ((jsonlog.parse_json if is_json else csvlog.parse_csv)(text, path.name),)
    else:
        raise _missing(path)
    return tuple(
        log for found in histories for log in foreign_logs(found, loss_column=loss_column, val_column=val_column)
    )


# --- Files


def _text(path: Path) -> str:
    """The text of a file in any of the usual encodings."""
    size = path.stat().st_size
    if size > MAX_LOG_BYTES:
        raise DataError(f"{str(path)!r} has {size:,} bytes, too many for a log of epochs. Expected {FORMATS}.")
    data = path.read_bytes()
    kind = next((kind for magic, kind in _MAGICS if data.startswith(magic)), None)
    if kind in ("a pickle", "a NumPy file") or (kind is None and path.suffix.lower() in (".pkl", ".pickle")):
        raise DataError(
            f"{str(path)!r} is {kind or 'a pickle'}, which is not read, because a pickle runs any code that it holds. "
            f"{jsonlog.HOW}"
        )
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if kind or (b"\x00" in data and encoding is None):
        raise DataError(f"{str(path)!r} is {kind or 'a binary file'}, not a log. Expected {FORMATS}.")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _missing(path: Path) -> DataError:
    if path.exists():
        return DataError(f"{str(path)!r} is neither a file nor a folder. Expected {FORMATS}.")
    beside = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside)
    if hint:
        hint = f" Did you mean {str(path.parent / hint.split(chr(39))[1])!r}?"
    elif beside:
        hint = f" In its folder: {listed(beside)}."
    return DataError(f"There is no file or folder {str(path)!r}.{hint} Expected {FORMATS}.")


def _refuse_folder(path: Path) -> NoReturn:
    likely = sorted(
        str(item)
        for item in path.iterdir()
        if item.suffix.lower() in (".csv", ".json", ".log", ".tsv") or (item / "config.yaml").is_file()
    )
    hint = f" Did you mean {likely[0]!r}?" if likely else ""
    raise DataError(f"Folder {str(path)!r} is no run and holds no TensorBoard event files.{hint} Expected {FORMATS}.")


# --- Our own runs


def _read_ours(path: Path) -> tuple[ForeignLog, ...]:
    """All finished seed runs of a run, a trial or a seed run; none if the folder is none of these."""
    if (path / "config.yaml").is_file() and (path / "trials").is_dir():
        records = sorted(RunFolder.open(path).trials_dir.glob("*/seed_*/record.json"))
        if not records:
            raise RunError(f"Run {str(path)!r} has no finished trial yet. See: python -m tuner status {path}")
    elif (path / "record.json").is_file() and (path / "trace.npz").is_file():
        records = [path / "record.json"]
    else:
        records = sorted(path.glob("seed_*/record.json"))
    faults: list[str] = []
    logs = [log for record in records if (log := _seed_run(record, faults)) is not None]
    if records and not logs:
        raise RunError(faults[0])
    if logs and faults:
        logs[0] = dataclasses.replace(logs[0], notes=(*logs[0].notes, *faults))
    return tuple(logs)


def _seed_run(file: Path, faults: list[str]) -> ForeignLog | None:
    try:
        run = read_json(file, SeedRun)
        trace: Trace = read_trace(file.with_name("trace.npz"))
    except RunError as error:
        faults.append(str(error))
        return None
    message = (f"It ended with: {run.message}",) if run.message else ()
    return ForeignLog(
        f"trial {run.trial}, seed run {run.seed_index}",
        trace,
        message,
        tuple(sorted(trace.metrics)),
        is_ours=True,
        findings=run.findings,
        causes=run.causes,
    )


def _refuse_columns(path: Path, column: str | None) -> None:
    if column is not None:
        raise DataError(f"{str(path)!r} is a run of tuner, which has no column {column!r}. Leave out the option.")
