"""Readers of numeric series of several channels: long tables, recordings that are cut into windows, folders of tables.

- Long table (`--series-id`): one row a step; the rows of a series are one sample. Its target is one value.
- Recording (`--window`): one table in the order of time, cut into windows. Classes: the most common label of a window
  is its label; numbers: the value in its last row. With `--series-id` there are several recordings.
- Folder: one table for each series, either in class folders, or beside a table of targets with a column that names
  the series, by file name or by the number at its end.

All give samples (n, steps, channels); what is shorter than the longest ends in NaN.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, folders, frames, labels, padding, roles
from tuner.data.dataset import Dataset
from tuner.data.frames import TABLE_SUFFIXES, Table, listed, no_column
from tuner.data.options import ReadOptions
from tuner.errors import DataError, first_of
from tuner.records import DataSpec, Form

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_folder", "read_folder_features", "read_long", "read_recording", "read_table_features"]

# Names of the table of targets in a folder of series. Source: convention.
_TARGET_FILE = re.compile(r"(?:^|[_\-. ])(?:targets?|labels?|class(?:es)?)(?:$|[_\-. ])", re.IGNORECASE)

# Options that must be known to read other files the same way.
_REPEATED = ("series_id", "time", "window", "stride", "group", "split", "sep", "decimal", "na", "encoding", "drop")

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
    targets = _one_each(frame[target], rows_of, path)
    values, channels = _channels(_features(frame, target, options, notes), path, only=_names(like))
    without = [name for name, value in targets.items() if value is None]
    if without:
        notes.append(
            f"{len(without):,} of {len(rows_of):,} series have no target and were left out: {listed(without)}."
        )
        rows_of = {name: rows for name, rows in rows_of.items() if name not in without}
    groups = None
    if options.group is not None:
        of_series = _one_each(roles.column(frame, path, options.group, "--group"), rows_of, path)
        groups = roles.codes(list(of_series.values()))
    return _assembled(
        {name: values[rows] for name, rows in rows_of.items()},
        encoded=labels.encode(
            np.array([targets[name] for name in rows_of]), task=options.task, where=columns.where_target(target, path)
        ),
        spec=_spec("long_table", channels, target, options, reading=table.reading),
        name=path.stem,
        notes=[*notes, f"{len(rows_of):,} series of {len(channels)} channels, by column {options.series_id!r}."],
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
    values, channels = _channels(_features(frame, target, options, notes), path, only=_names(like))
    encoded, has_target = _window_targets(frame[target], rows, path, options)
    if not has_target.all():
        notes.append(f"{int((~has_target).sum()):,} of {len(rows):,} windows have no target and were left out.")
        rows = rows[has_target]
    how = "most common label" if encoded.task == "classification" else "value in its last row"
    grouping = options.group or options.series_id
    return Dataset(
        name=path.stem,
        spec=dataclasses.replace(
            _spec("recording", channels, target, options, reading=table.reading),
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


def read_folder(root: Path, options: ReadOptions, *, like: DataSpec | None = None) -> Dataset:
    """Read a folder with one table for each series, in class folders or beside a table of targets.

    Args:
        root: The folder.
        options: `target` and `group` name columns of the table of targets, or of another one beside it.
        like: How other data was read, whose channels and length these series get.

    Raises:
        DataError: Targets or series are missing, or too many tables cannot be read.
    """
    groups = None
    if _has_targets(folders.files_below(root, TABLE_SUFFIXES)[0]):
        found = _find_targets(root, options)
        readable = folders.Readable(root, found.ids, noun="tables")
        sequences, channels, reading = _read_all(readable, options, only=_names(like))
        ids = [found.ids[file] for file in readable.files]
        encoded = labels.encode(
            np.array([found.values[name] for name in ids]),
            task=options.task,
            where=f"column {found.target!r} of the targets",
        )
        groups = roles.codes([found.groups.get(name) for name in ids]) if found.groups is not None else None
        target, notes = found.target, found.notes
    else:
        classes = folders.find(root, TABLE_SUFFIXES, noun="tables")
        readable = folders.Readable(root, classes.files, noun="tables")
        sequences, channels, reading = _read_all(readable, options, only=_names(like))
        encoded = labels.Labels("classification", classes.codes(readable.files), classes.class_names, ())
        target, notes = None, list(classes.notes)
    group_notes: tuple[str, ...] = ()
    if groups is None:
        groups, group_notes = roles.groups_of_files(readable.names, options.group)
    dataset = _assembled(
        dict(zip(readable.names, sequences, strict=True)),
        encoded=encoded,
        spec=_spec("sequence_folder", channels, target, options, reading=reading),
        name=root.resolve().name,
        notes=[*notes, *filter(None, [readable.note]), *group_notes],
        groups=groups,
        like=like,
    )
    return dataclasses.replace(dataset, unreadable=readable.unreadable)


def _has_targets(files: Sequence[Path]) -> bool:
    return any(map(_is_target_file, files))


def read_table_features(path: Path, spec: DataSpec) -> tuple[Array, tuple[str, ...]]:
    """Read series to predict from one table: long, or a recording to be cut into windows as in training.

    Args:
        path: A table.
        spec: How the training data was read.

    Raises:
        DataError: Columns are missing, or series have another length than in training.
    """
    options = dataclasses.replace(ReadOptions.repeating(spec), drop=None)
    frame, _ = _in_order(frames.read(path, options, to_learn=False).frame, path, options)
    values, _ = _channels(frame, path, only=spec.feature_names)
    if spec.form == "recording":
        rows, _ = _windows(frame, path, options)
        return values[rows], _names_of_windows(frame, rows)
    return _fitted({name: values[rows] for name, rows in _rows_of_series(frame, path, options).items()}, spec, path)


def read_folder_features(path: Path, spec: DataSpec) -> tuple[Array, tuple[str, ...]]:
    """Read series to predict: one table, or all below a folder but those of targets.

    Args:
        path: A table or a folder.
        spec: How the training data was read.

    Raises:
        DataError: Tables or columns are missing, or series have another length than in training.
    """
    options = dataclasses.replace(ReadOptions.repeating(spec), drop=None)
    readable = folders.to_predict(path, TABLE_SUFFIXES, noun="tables")
    if path.is_dir() and _has_targets(readable.files):
        readable = folders.Readable(path, _find_targets(path, options).ids, noun="tables")
    sequences = {}
    for file, name in zip(readable.files, readable.names, strict=True):
        frame = frames.read(file, options, to_learn=False).frame
        sequences[name] = _channels(frame, file, only=spec.feature_names)[0]
    return _fitted(sequences, spec, path)


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


def _channels(
    frame: pd.DataFrame, path: Path, *, only: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The columns, or only some, as float64 (rows, channels), and their names."""
    missing = [name for name in only if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path.name!r} has no column {listed(missing)}, which the model was trained on. Its columns: "
            f"{listed(list(map(str, frame.columns)))}. Name the columns as in training."
        )
    features = frame[list(only)] if only else frame
    problems = [
        f"column {name!r} holds {str(features[name].dropna().iloc[0])!r}"
        for name in map(str, features.columns)
        if columns.has_text(features[name])
    ]
    if problems:
        raise DataError(
            f"{path.name!r} has columns that are no numbers: {first_of(problems, separator='; ')}. Leave them out "
            "with --drop, or say what they are with --time, --series-id, --group or --target."
        )
    if not features.shape[1]:
        raise DataError(f"{path.name!r} has no column left to learn from. Give it columns of numbers.")
    return features.to_numpy(dtype=np.float64, na_value=np.nan), list(map(str, features.columns))


def _names(like: DataSpec | None) -> tuple[str, ...]:
    """The channels of other data, which must be there; none for whatever there is."""
    return like.feature_names if like else ()


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
            f"{path.name!r} has at most {max(map(len, rows_of)):,} rows in a series, fewer than a window of {window}. "
            "Lower --window, or give more rows."
        )
    pieces = [rows[first[:, np.newaxis] + np.arange(window)] for rows, first in zip(rows_of, starts, strict=True)]
    together = np.concatenate([piece for piece in pieces if len(piece)])
    return together, f"{len(together):,} windows of {window} rows, one every {stride} rows"


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


@dataclasses.dataclass(frozen=True)
class _Targets:
    """What the tables beside the series say.

    Attributes:
        ids: The id of each file that is a series with a target.
        target: Name of the target column.
        values: Target by id.
        groups: What must stay together, by id; None if nothing was asked for.
        notes: What was passed over.
    """

    ids: dict[Path, str]
    target: str
    values: dict[str, Any]
    groups: dict[str, Any] | None
    notes: list[str]


def _find_targets(root: Path, options: ReadOptions) -> _Targets:
    """Match the tables of a folder with the rows of the one that holds the targets."""
    files, _, _ = folders.files_below(root, TABLE_SUFFIXES)
    (target_file, *others) = [file for file in files if _is_target_file(file)]
    if others:
        named = listed([file.relative_to(root).as_posix() for file in (target_file, *others)])
        raise DataError(f"{str(root)!r} has several tables of targets: {named}. Rename or remove all but one.")
    table = frames.read(target_file, dataclasses.replace(options, drop=None), to_learn=False)
    files.remove(target_file)
    id_column, matched = _match(table, files)
    target = _target_column(table, id_column, options)
    ids = table.frame[id_column].map(_id)
    is_there = columns.has_target(table.frame[target])
    values = dict(zip(ids[is_there], columns.target_values(table.frame[target][is_there]).tolist(), strict=True))
    sequences = {file: name for name, file in matched.items() if name in values}
    rest = [file for file in files if file not in sequences]
    notes = [f"Targets: column {target!r} of {target_file.name!r}, by column {id_column!r}."]
    if len(sequences) < len(ids):
        gone = [name for name in ids if name not in sequences.values()]
        notes.append(
            f"{len(gone):,} of {len(ids):,} rows of {target_file.name!r} have no series or no target: {listed(gone)}."
        )
    groups = None
    if options.group is not None and not roles.is_part_of_name(options.group):
        groups = _groups_beside([target_file, *rest], id_column, options)
    unused = [file.relative_to(root).as_posix() for file in rest]
    if unused:
        notes.append(f"Tables that are no series with a target were not learned from: {listed(unused)}.")
    return _Targets(sequences, target, values, groups, notes)


def _match(table: Table, files: Sequence[Path]) -> tuple[str, dict[str, Path]]:
    """The column that names the series, and the file of each id: by name, name without suffix, or last number."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        number = re.search(r"\d+$", file.stem)
        for name in {file.name, file.stem, *([str(int(number[0]))] if number else [])}:
            by_name.setdefault(name, []).append(file)
    matches = {
        str(column): [name for name in table.frame[column].map(_id) if name in by_name]
        for column in table.frame.columns
    }
    column = max(matches, key=lambda name: len(set(matches[name])))
    ids = matches[column]
    if not ids:
        raise DataError(
            f"No row of {table.path.name!r} names one of the {len(files):,} tables in {str(table.path.parent)!r}. "
            "A column with their names, or with the numbers at their end, was expected."
        )
    twice = [name for name in dict.fromkeys(ids) if ids.count(name) > 1 or len(by_name[name]) > 1]
    if twice:
        found = ", ".join(file.name for file in by_name[twice[0]])
        raise DataError(
            f"{table.path.name!r}: {twice[0]!r} in column {column!r} does not name one table and one row ({found}). "
            "Each series needs an id of its own."
        )
    return column, {name: by_name[name][0] for name in ids}


def _id(value: Any) -> str:
    """A cell as it would stand in a file name: whole numbers without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _target_column(table: Table, id_column: str, options: ReadOptions) -> str:
    others = [str(name) for name in table.frame.columns if name != id_column]
    if options.target is not None:
        if options.target not in others:
            raise no_column(table.path, options.target, others, "--target")
        return options.target
    if not others:
        raise DataError(f"{table.path.name!r} has the single column {id_column!r}; a target beside it was expected.")
    lower = [name.lower() for name in others]
    return next((others[lower.index(name)] for name in columns.TARGET_NAMES if name in lower), others[-1])


def _groups_beside(files: Sequence[Path], id_column: str, options: ReadOptions) -> dict[str, Any]:
    """The group of each id, from the first table that has the ids and the column of groups."""
    seen: list[str] = []
    for file in files:
        frame = frames.read(file, dataclasses.replace(options, drop=None), to_learn=False).frame
        if id_column in frame.columns:
            seen += [str(name) for name in frame.columns if name != id_column]
            if options.group in frame.columns:
                return dict(zip(frame[id_column].map(_id), frame[options.group], strict=True))
    raise no_column(files[0].parent, str(options.group), seen, "--group")


def _read_all(
    readable: folders.Readable, options: ReadOptions, *, only: Sequence[str] = ()
) -> tuple[list[npt.NDArray[np.float64]], list[str], dict[str, str]]:
    """The series of those files that can be read, their channels, and how the first was read."""
    channels: list[str] = list(only)
    reading: dict[str, str] = {}
    sequences: list[npt.NDArray[np.float64]] = []
    problems: dict[Path, str] = {}
    for file in readable.one_by_one():
        try:
            table = frames.read(file, options)
            values, found = _channels(table.frame, file, only=channels)
            if not len(values):
                raise DataError("it has no rows")
            channels, reading = channels or found, reading or table.reading
            sequences.append(values)
        except DataError as error:
            problems[file] = str(error)
    readable.leave_out(problems)
    return sequences, channels, reading


def _is_target_file(file: Path) -> bool:
    return _TARGET_FILE.search(file.stem) is not None


def _spec(
    form: Form, channels: Sequence[str], target: str | None, options: ReadOptions, *, reading: Mapping[str, str]
) -> DataSpec:
    """A description without what follows from the samples: task, classes, shape."""
    asked = {name: str(value) for name, value in options.given.items() if name in _REPEATED}
    return DataSpec(
        form, "series", "classification", (), target=target, feature_names=tuple(channels), reading={**reading, **asked}
    )


def _assembled(
    sequences: Mapping[str, Array],
    *,
    encoded: labels.Labels,
    spec: DataSpec,
    name: str,
    notes: Sequence[str],
    groups: npt.NDArray[np.int64] | None,
    order: npt.NDArray[np.float64] | None = None,
    like: DataSpec | None = None,
) -> Dataset:
    """A data set of series of different lengths, by name."""
    lengths = {name: float(len(sequence)) for name, sequence in sequences.items()}
    if like is not None:
        _refuse_lengths(sequences, like, name)
    length = like.input_shape[0] if like else int(padding.common_length(np.array(list(lengths.values()))))
    length_note = padding.note(lengths, length, noun="series", unit="steps")
    return Dataset(
        name=name,
        spec=dataclasses.replace(
            spec,
            input_shape=(length, len(spec.feature_names)),
            task=encoded.task,
            class_names=encoded.class_names,
            is_padded=min(lengths.values()) < length,
        ),
        x=padding.padded(list(sequences.values()), length),
        y=encoded.y,
        row_names=tuple(sequences),
        groups=groups,
        order=order,
        notes=(*notes, *filter(None, [length_note]), *encoded.notes),
    )


def _fitted(sequences: Mapping[str, Array], spec: DataSpec, path: Path) -> tuple[Array, tuple[str, ...]]:
    """Series to predict, at the length of the training data; other lengths only where that had different ones, too."""
    _refuse_lengths(sequences, spec, path.name)
    return padding.padded(list(sequences.values()), spec.input_shape[0]), tuple(sequences)


def _refuse_lengths(sequences: Mapping[str, Array], spec: DataSpec, source: str) -> None:
    length = spec.input_shape[0]
    wrong = {name: len(sequence) for name, sequence in sequences.items() if len(sequence) != length}
    if wrong and not spec.is_padded:
        name, found = next(iter(wrong.items()))
        raise DataError(
            f"{source!r}: {len(wrong):,} series have another length than the {length} steps of the training data, "
            f"such as {name!r} with {found}. Cut or resample them to {length} steps."
        )
