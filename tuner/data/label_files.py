"""A table of labels for a folder of files, such as `labels.csv` beside images: one file a row.

It has a column that names the files, by path or name, with or without suffix; the rest is as in any other table with a
target: one column of classes or numbers, columns of yes and no, or a column of lists such as `sad; loud`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.data import columns, folders, frames, label_sets
from tuner.data.folders import ClassFiles
from tuner.data.frames import TABLE_SUFFIXES, Table, listed
from tuner.data.labels import Labels
from tuner.data.options import ReadOptions
from tuner.data.targets import Target, choose
from tuner.errors import DataError, first_of
from tuner.grammar import counted, verb
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelledFiles", "find"]

# What the table is called where it lies in the folder. Source: convention.
_STEM = "labels"

# Share of the files in class folders that a table nobody named must have a row for, to be one of their labels.
# Source: convention; a table of class names has numbers that a few files may have, too.
COVERED_FRAC = 0.5

# Options that mean nothing without such a table.
_OF_A_TABLE = ("target", "label_sep", "sep", "decimal", "na", "encoding")


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """The files that a table has a target for, in the order of their paths.

    Attributes:
        files: Paths, with the root of the folder.
        table: The table of labels.
        rows: Its row for each file, by path.
        target: What is learned.
        task: As asked for.
        reading: What is needed to read other folders the same, as `DataSpec.reading` keeps it.
        notes: What was passed over.
        like: How other data was read, whose codes the targets get; or None.
    """

    files: tuple[Path, ...]
    table: Table
    rows: dict[Path, int]
    target: Target
    task: str
    reading: dict[str, str]
    notes: tuple[str, ...]
    like: DataSpec | None = None

    def encoded(self, files: Sequence[Path]) -> Labels:
        """The targets of those files that could be read.

        Raises:
            DataError: There is nothing to learn, or a label that the other data does not have.
        """
        frame = self.table.frame.loc[[self.rows[file] for file in files]]
        if self.like is None:
            return self.target.encode(frame, task=self.task, path=self.table.path)
        codes = self.target.encode_like(frame, self.like, self.table.path)
        return Labels(self.like.task, codes, self.like.class_names, ())


def find(
    root: Path, suffixes: tuple[str, ...], options: ReadOptions, *, noun: str, like: DataSpec | None = None
) -> ClassFiles | LabelledFiles:
    """The files of a folder with what is known of them: by a table of labels, else by class folders.

    Args:
        root: The folder.
        suffixes: Of the files, in lower case, with the dot.
        options: `labels` names the table, else one called `labels` in the folder is taken; `target`, `task`,
            `label_sep` and how to read a table are used.
        noun: What the files are, in the plural, for messages.
        like: How other data was read, whose labels these get.

    Raises:
        DataError: There is neither, or the table names no files, or one twice.
    """
    wanted, _, _ = folders.files_below(root, suffixes)
    file = _table_file(root, options, prefers_own=like is not None)
    if file is not None and wanted:
        table = frames.read(file, dataclasses.replace(options, drop=None), to_learn=False)
        column = _column_of_names(table, root, wanted)
        is_meant = options.labels is not None or not any(entry.is_dir() for entry in root.iterdir())
        if column is not None and (is_meant or _num_named(table, column, root, wanted) >= COVERED_FRAC * len(wanted)):
            return _labelled(root, table, column, wanted, options, noun=noun, like=like)
        if is_meant:
            raise DataError(
                f"No column of {str(file)!r} names {noun} in {str(root)!r}, such as {_name(wanted[0], root)!r}. Its "
                f"columns: {listed(list(table.frame.columns))}. Name the {noun} by their path below the folder."
            )
    _refuse_without_table(root, options, noun=noun)
    return folders.find(root, suffixes, noun=noun)


def _refuse_without_table(root: Path, options: ReadOptions, *, noun: str) -> None:
    """Refuse options that are meant for a table of labels."""
    asked = [name for name in _OF_A_TABLE if name in options.given]
    asked += ["task"] if options.task in ("multilabel", "regression") else []
    if asked:
        named = " and ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in asked)
        raise DataError(
            f"{named}: the classes of {str(root)!r} are its sub-folders. To learn something else of the {noun}, put a "
            "table labels.csv beside them, with a column of file names and one or several of labels, or give it with "
            "--labels."
        )


def _table_file(root: Path, options: ReadOptions, *, prefers_own: bool) -> Path | None:
    """The table that was named, else one among the files; a part's own one comes first."""
    beside = [file for suffix in TABLE_SUFFIXES if (file := root / f"{_STEM}{suffix}").is_file()]
    if options.labels is None or (prefers_own and beside):
        if len(beside) > 1:
            raise DataError(f"{str(root)!r} holds {' and '.join(file.name for file in beside)}. Keep one of them.")
        return beside[0] if beside else None
    file = Path(options.labels).expanduser()
    if not file.is_file():
        raise DataError(f"--labels {options.labels}: there is no such file. Give a table with a column of file names.")
    if file.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"--labels {options.labels} is no table. Give a {', '.join(TABLE_SUFFIXES)} file.")
    return file


def _labelled(
    root: Path,
    table: Table,
    column: str,
    wanted: Sequence[Path],
    options: ReadOptions,
    *,
    noun: str,
    like: DataSpec | None,
) -> LabelledFiles:
    notes = [*table.notes]
    if like is None:
        rows, target = choose(_with_targets(table, column), _asked(table.frame, column, options), notes)
    else:
        target = Target.of(like)
        for name in target.columns:
            if name not in table.frame.columns:
                raise frames.no_column(table.path, name, list(table.frame.columns), "--target")
        is_there = target.present(table.frame)
        rows = table.frame[is_there]
        notes += columns.without_target(is_there)
    row_of, unknown = _rows_of_files(rows[column], root, table.path, wanted)
    if not row_of:
        raise DataError(f"No row of {str(table.path)!r} with a target names one of the {noun} in {str(root)!r}.")
    if unknown:
        notes.append(
            f"{counted(len(unknown), 'rows')} of {table.path.name!r} {verb(len(unknown), 'name')} no {noun} here: "
            f"{first_of(unknown)}."
        )
    bare = [_name(file, root) for file in wanted if file not in row_of]
    if bare:
        notes.append(
            f"{counted(len(bare), noun, 'have')} no label in {table.path.name!r} and "
            f"{verb(len(bare), 'were')} left out: {first_of(bare)}."
        )
    notes.insert(0, f"Labels of the {noun}: column {target.name!r} of {table.path.name!r}, by column {column!r}.")
    return LabelledFiles(
        files=tuple(file for file in wanted if file in row_of),
        table=table,
        rows=row_of,
        target=target,
        task=options.task,
        reading={"labels": options.labels or table.path.name, **target.reading},
        notes=tuple(notes),
        like=like,
    )


def _with_targets(table: Table, column: str) -> Table:
    """The table with the rows that name something."""
    return dataclasses.replace(table, frame=table.frame[table.frame[column].notna()])


def _asked(frame: pd.DataFrame, column: str, options: ReadOptions) -> ReadOptions:
    """The options with the target outright: the other column, or all others if they say yes or no."""
    others = [str(name) for name in frame.columns if name != column]
    if options.target is not None or not others:
        return options
    flags = [name for name in others if all(label_sets.one_flag(cell) is not None for cell in frame[name].dropna())]
    are_sets = len(others) > 1 and flags == others and options.task in ("auto", "multilabel")
    return dataclasses.replace(options, target=",".join(others) if are_sets else columns.guessed_target(frame[others]))


def _column_of_names(table: Table, root: Path, files: Sequence[Path]) -> str | None:
    """The column most of whose cells name files; None if none names any."""
    counts = {name: _num_named(table, name, root, files) for name in map(str, table.frame.columns)}
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and counts[best] else None


def _num_named(table: Table, column: str, root: Path, files: Sequence[Path]) -> int:
    """How many different cells of a column name files."""
    known = _by_name(files, root, table.path)
    return sum(_cell(cell) in known for cell in table.frame[column].dropna().unique())


def _rows_of_files(
    names: pd.Series[Any], root: Path, table_file: Path, files: Sequence[Path]
) -> tuple[dict[Path, int], list[str]]:
    """The row of each file that is named, and the names that stand for none."""
    known = _by_name(files, root, table_file)
    rows: dict[Path, int] = {}
    unknown: list[str] = []
    for row, cell in names.items():
        found = known.get(_cell(cell), [])
        if not found:
            unknown.append(str(cell))
        elif len(found) > 1:
            raise DataError(
                f"{table_file.name!r}: {cell!r} may be {' or '.join(_name(file, root) for file in found[:2])}. Name "
                "files by their path below the folder."
            )
        elif found[0] in rows:
            raise DataError(
                f"{table_file.name!r} names {_name(found[0], root)!r} twice, in rows {rows[found[0]]} and {row}. One "
                "row for each file was expected; several labels of a file are columns of 0 and 1, or a list in one "
                "cell such as 'sad; loud'."
            )
        else:
            rows[found[0]] = int(str(row))
    return rows, unknown


def _by_name(files: Sequence[Path], root: Path, table_file: Path) -> dict[str, list[Path]]:
    """Files by all that they may be called: path below the folder or the table, name, and name without suffix."""
    found: dict[str, list[Path]] = {}
    for file in files:
        names = {_name(file, root), file.name, file.stem}
        if file.stem.isdecimal():
            names.add(str(int(file.stem)))  # a table's reader takes 007 for 7
        if file.is_relative_to(table_file.parent):
            names.add(_name(file, table_file.parent))
        for name in names:
            found.setdefault(name, []).append(file)
    # A whole path means one file, also if it is the name of another.
    return found | {_name(file, root): [file] for file in files}


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _cell(value: Any) -> str:
    """A cell as a file may be called."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().replace("\\", "/").removeprefix("./")
