"""Readers of numeric series from one table: long tables, and recordings that are cut into windows.

- Long table (`--series-id`): one row a step; the rows of a series are one sample. Its target is one value.
- Recording (`--window`): one table in the order of time, cut into windows. Classes: the most common label of a window
  is its label; numbers: the value in its last row. With `--series-id` there are several recordings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, frames, labels, roles, sequences
from tuner.data.dataset import Dataset
from tuner.data.frames import Table, listed
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted, verb
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_long", "read_recording", "read_table_features"]

Array = npt.NDArray[Any]


def read_long(path: Path, options: ReadOptions, *, like: DataSpec | None = None) -> Dataset:
    """Read a long table: the rows of one series are one sample.

    Args:
        path: A table.
        options: `series_id` names the column of the series; `time`, `target`, `group` others.
        like: How other data was read, whose channels and length these series get.

    Raises:
        DataError: Columns are missing or hold no numbers, or the target changes within a series.
    """
    table = frames.read(path, options)
    notes = list(table.notes)
    target = _target(table, options, notes)
    frame, times = _in_order(table.frame, path, options)
    rows_of = _rows_of_series(frame, path, options)
    if max(map(len, rows_of.values())) == 1:
        raise DataError(
            f"Column {options.series_id!r} of {path.name!r} has another value in each row, so each series would be a "
            "single row. Give --series-id a column that is the same in all rows of a series, or leave it out: then "
            "each row is a sample."
        )
    targets = _one_each(frame[target], rows_of, path)
    values, channels = sequences.channels_of(
        _features(frame, target, options, notes), path, only=sequences.names_of(like)
    )
    without = [name for name, value in targets.items() if value is None]
    if without:
        notes.append(
            f"{counted(len(without), 'series', 'have', of=len(rows_of))} no target and "
            f"{verb(len(without), 'were')} left out: {listed(without)}."
        )
        rows_of = {name: rows for name, rows in rows_of.items() if name not in without}
    how = f"ordered by {options.time!r}" if options.time else "their rows in the order of the file (--time orders them)"
    groups = None
    if options.group is not None:
        of_series = _one_each(roles.column(frame, path, options.group, "--group"), rows_of, path)
        groups = roles.codes(list(of_series.values()))
    return sequences.assembled(
        {name: values[rows] for name, rows in rows_of.items()},
        encoded=labels.encode(
            np.array([targets[name] for name in rows_of]), task=options.task, where=columns.where_target(target, path)
        ),
        spec=sequences.description("long_table", channels, target, options, reading=table.reading),
        name=path.stem,
        notes=[
            *notes,
            f"{counted(len(rows_of), 'series')} of {counted(len(channels), 'channels')}, by column "
            f"{options.series_id!r}, {how}.",
        ],
        groups=groups,
        order=np.array([times[rows[0]] for rows in rows_of.values()]) if options.split == "time" else None,
        like=like,
    )


def read_recording(path: Path, options: ReadOptions, *, like: DataSpec | None = None) -> Dataset:
    """Read a recording, or several in one table (`--series-id`), and cut it into windows.

    Args:
        path: A table, one row a step.
        options: `window` and `stride` in rows; `time`, `series_id` and `target` name columns.
        like: How other data was read, whose channels these windows get.

    Raises:
        DataError: Columns are missing or hold no numbers, or there are too few rows for one window.
    """
    table = frames.read(path, options)
    notes = list(table.notes)
    target = _target(table, options, notes)
    frame, _ = _in_order(table.frame, path, options)
    rows, window_note = _windows(frame, path, options)
    values, channels = sequences.channels_of(
        _features(frame, target, options, notes), path, only=sequences.names_of(like)
    )
    encoded, has_target = _window_targets(frame[target], rows, path, options)
    if not has_target.all():
        notes += columns.without_target(has_target, noun="windows")
        rows = rows[has_target]
    how = "most common label" if encoded.task == "classification" else "value in its last row"
    grouping = options.group or options.series_id
    return Dataset(
        name=path.stem,
        spec=dataclasses.replace(
            sequences.description("recording", channels, target, options, reading=table.reading),
            input_shape=(rows.shape[1], len(channels)),
            task=encoded.task,
            class_names=encoded.class_names,
        ),
        x=values[rows],
        y=encoded.y,
        row_names=_names_of_windows(frame, rows),
        groups=roles.codes(roles.column(frame, path, grouping, "--group").iloc[rows[:, 0]].to_numpy())
        if grouping
        else None,
        order=None if grouping else rows[:, 0].astype(np.float64),
        span=0.0 if grouping else float(rows.shape[1]),
        notes=(*notes, f"{window_note}; the {how} of a window is its target.", *encoded.notes),
    )


def read_table_features(path: Path, spec: DataSpec, notes: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Read series to predict from one table: long, or a recording to be cut into windows as in training.

    Args:
        path: A table.
        spec: How the training data was read.
        notes: What is decided is added.

    Raises:
        DataError: Columns are missing, or series have another length than in training.
    """
    options = dataclasses.replace(ReadOptions.repeating(spec), drop=None)
    table = frames.read(path, options, to_learn=False)
    notes += frames.without_hints(table.notes)
    found = list(map(str, table.frame.columns))
    missing = [name for name in (options.series_id, options.time) if name is not None and name not in found]
    if missing:
        raise DataError(
            f"{path.name!r} has no column {listed(missing)}, by which the series of the training data were told apart "
            f"or ordered. Its columns: {listed(found)}. Name the columns as in training."
        )
    frame, _ = _in_order(table.frame, path, options)
    values, _ = sequences.channels_of(frame, path, only=spec.feature_names)
    if spec.form == "recording":
        rows, _ = _windows(frame, path, options)
        return values[rows], _names_of_windows(frame, rows)
    return sequences.fitted(
        {name: values[rows] for name, rows in _rows_of_series(frame, path, options).items()}, spec, path, notes
    )


def _target(table: Table, options: ReadOptions, notes: list[str]) -> str:
    """The target column; rows without a target stay, because a series needs all its rows."""
    _, target = columns.with_target(table, options.target, [])
    if options.target is None:
        notes.append(f"Target: column {target!r} (--target changes it).")
    return target


def _in_order(frame: pd.DataFrame, path: Path, options: ReadOptions) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """The rows in the order of the time column, and their times; without one, as they stand."""
    if options.time is None:
        return frame, np.arange(len(frame), dtype=np.float64)
    column = roles.column(frame, path, options.time, "--time")
    times = roles.places_in_time(column, where=f"Column {options.time!r} of {path.name!r}")
    order = np.argsort(times, kind="stable")
    return frame.iloc[order], times[order]


def _rows_of_series(frame: pd.DataFrame, path: Path, options: ReadOptions) -> dict[str, npt.NDArray[np.int64]]:
    """Positions of the rows of each series, by its name; without a column of series, all rows are one."""
    if options.series_id is None:
        return {"": np.arange(len(frame))}
    column = roles.column(frame, path, options.series_id, "--series-id")
    if column.isna().any():
        row = column.index[int(column.isna().to_numpy().argmax())]
        raise DataError(f"Row {row} of {path.name!r} has no value in column {column.name!r}. Fill it in, or remove it.")
    return {str(name): np.asarray(rows, np.int64) for name, rows in column.groupby(column, sort=False).indices.items()}


def _features(frame: pd.DataFrame, target: str, options: ReadOptions, notes: list[str]) -> pd.DataFrame:
    """The columns that are measured: neither target, series, time nor group, nor dates."""
    known = {target, options.series_id, options.time, options.group}
    return columns.without_dates(frame[[name for name in frame.columns if name not in known]], notes)


def _one_each(column: pd.Series[Any], rows_of: Mapping[str, npt.NDArray[np.int64]], path: Path) -> dict[str, Any]:
    """The value of a column in each series; None where it is missing in all rows."""
    is_there = columns.has_target(column)
    values = columns.target_values(column)
    found = {name: set(values[rows[is_there[rows]]].tolist()) for name, rows in rows_of.items()}
    changing = [name for name, different in found.items() if len(different) > 1]
    if changing:
        raise DataError(
            f"Column {column.name!r} of {path.name!r} changes within {len(changing):,} of {len(found):,} series, "
            f"such as {changing[0]!r}. One value for each series was expected; to learn from parts of a series, cut it "
            "with --window."
        )
    return {name: next(iter(different), None) for name, different in found.items()}


def _windows(frame: pd.DataFrame, path: Path, options: ReadOptions) -> tuple[npt.NDArray[np.int64], str]:
    """Positions of the rows of each window, shape (windows, rows), and a note; no window spans two series."""
    window = options.window or 1
    stride = options.stride or max(1, window // 2)
    if options.group is not None and options.series_id is None:
        raise DataError(f"--group {options.group} of a recording is the column of its parts: give it as --series-id.")
    rows_of = _rows_of_series(frame, path, options).values()
    starts = [np.arange(0, len(rows) - window + 1, stride) for rows in rows_of]
    if not any(map(len, starts)):
        raise DataError(
            f"{path.name!r} has at most {counted(max(map(len, rows_of)), 'rows')} in a series, fewer than a window of "
            f"{window}. Lower --window, or give more rows."
        )
    pieces = [rows[first[:, np.newaxis] + np.arange(window)] for rows, first in zip(rows_of, starts, strict=True)]
    together = np.concatenate([piece for piece in pieces if len(piece)])
    every = "row" if stride == 1 else f"{stride} rows"
    return together, f"{counted(len(together), 'windows')} of {window} rows, one every {every}"


def _names_of_windows(frame: pd.DataFrame, rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """First and last row of each window, as numbered in the file."""
    numbers = frame.index.to_numpy()
    return tuple(f"{numbers[window[0]]}-{numbers[window[-1]]}" for window in rows)


def _window_targets(
    column: pd.Series[Any], rows: npt.NDArray[np.int64], path: Path, options: ReadOptions
) -> tuple[labels.Labels, npt.NDArray[np.bool_]]:
    """The targets of those windows that have one, and which these are."""
    is_there = columns.has_target(column)
    where = columns.where_target(str(column.name), path)
    encoded = labels.encode(columns.target_values(column[is_there]), task=options.task, where=where)
    if encoded.task == "regression":
        values = np.full(len(column), np.nan)
        values[is_there] = encoded.y
        last = values[rows[:, -1]]
        has_target = np.isfinite(last)
        return dataclasses.replace(encoded, y=last[has_target]), has_target
    codes = np.full(len(column), -1, np.int64)
    codes[is_there] = encoded.y
    votes = np.stack([(codes[rows] == code).sum(axis=1) for code in range(len(encoded.class_names))], axis=1)
    has_target = np.any(votes > 0, axis=1)
    return dataclasses.replace(encoded, y=votes[has_target].argmax(axis=1)), has_target
