"""Reader of a folder with one table for each numeric series: in class folders, or beside a table of their targets.

The table of targets has a column that names the series, by file name or by the number at its end.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, folders, frames, labels, roles, sequences
from tuner.data.dataset import Dataset
from tuner.data.frames import TABLE_SUFFIXES, Table, listed, no_column
from tuner.data.options import ReadOptions
from tuner.errors import DataError, first_of
from tuner.grammar import counted, verb
from tuner.records import DataSpec

__all__ = ["read_folder", "read_folder_features"]

# Names of the table of targets in a folder of series. Source: convention.
_TARGET_FILE = re.compile(r"(?:^|[_\-. ])(?:targets?|labels?|class(?:es)?)(?:$|[_\-. ])", re.IGNORECASE)

Array = npt.NDArray[Any]


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
        series, channels, reading, extra = _read_all(readable, options, only=sequences.names_of(like))
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
        series, channels, reading, extra = _read_all(readable, options, only=sequences.names_of(like))
        encoded = labels.Labels("classification", classes.codes(readable.files), classes.class_names, ())
        target, notes = None, list(classes.notes)
    group_notes: tuple[str, ...] = ()
    if groups is None:
        groups, group_notes = roles.groups_of_files(readable.names, options.group)
    dataset = sequences.assembled(
        dict(zip(readable.names, series, strict=True)),
        encoded=encoded,
        spec=sequences.description("sequence_folder", channels, target, options, reading=reading),
        name=root.resolve().name,
        notes=[*notes, *filter(None, [readable.note, extra]), *group_notes],
        groups=groups,
        like=like,
    )
    return dataclasses.replace(dataset, unreadable=readable.unreadable)


def read_folder_features(path: Path, spec: DataSpec, notes: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Read series to predict: one table, or all below a folder but those of targets.

    Args:
        path: A table or a folder.
        spec: How the training data was read.
        notes: What is decided is added.

    Raises:
        DataError: Tables or columns are missing, or series have another length than in training.
    """
    options = dataclasses.replace(ReadOptions.repeating(spec), drop=None)
    readable = folders.to_predict(path, TABLE_SUFFIXES, noun="tables")
    if path.is_dir() and _has_targets(readable.files):
        readable = folders.Readable(path, _find_targets(path, options).ids, noun="tables")
    series = {}
    for file, name in zip(readable.files, readable.names, strict=True):
        frame = frames.read(file, options, to_learn=False).frame
        series[name] = sequences.channels_of(frame, file, only=spec.feature_names)[0]
    return sequences.fitted(series, spec, path, notes)


def _has_targets(files: Sequence[Path]) -> bool:
    return any(map(_is_target_file, files))


@dataclass(frozen=True)
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
    series = {file: name for name, file in matched.items() if name in values}
    rest = [file for file in files if file not in series]
    notes = [f"Targets: column {target!r} of {target_file.name!r}, by column {id_column!r}."]
    if len(series) < len(ids):
        gone = [name for name in ids if name not in series.values()]
        notes.append(
            f"{counted(len(gone), 'rows', of=len(ids))} of {target_file.name!r} {verb(len(gone), 'have')} no series "
            f"or no target: {listed(gone)}."
        )
    groups = None
    if options.group is not None and not roles.is_part_of_name(options.group):
        groups = _groups_beside([target_file, *rest], id_column, options)
    unused = [file.relative_to(root).as_posix() for file in rest]
    if unused:
        notes.append(f"Tables that are no series with a target were not learned from: {listed(unused)}.")
    return _Targets(series, target, values, groups, notes)


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
) -> tuple[list[npt.NDArray[np.float64]], list[str], dict[str, str], str]:
    """The series of those files that can be read, their channels, how the first was read, and a note on the rest."""
    extra: dict[str, str] = {}
    channels: list[str] = list(only)
    reading: dict[str, str] = {}
    series: list[npt.NDArray[np.float64]] = []
    problems: dict[Path, str] = {}
    for file in readable.one_by_one():
        try:
            table = frames.read(file, options)
            values, found = sequences.channels_of(table.frame, file, only=channels)
            if not len(values):
                raise DataError("it has no rows")
            channels, reading = channels or found, reading or table.reading
            series.append(values)
            extra |= {name: file.name for name in map(str, table.frame.columns) if name not in channels} | extra
        except DataError as error:
            problems[file] = str(error)
    readable.leave_out(problems)
    named = first_of(f"{name} (in {file})" for name, file in extra.items())
    note = f"Columns that the first table does not have were ignored: {named}." if extra else ""
    return series, channels, reading, note


def _is_target_file(file: Path) -> bool:
    return _TARGET_FILE.search(file.stem) is not None
