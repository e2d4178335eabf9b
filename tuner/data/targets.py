"""The targets of a table: a column of classes or numbers, one of lists of labels, or several of yes and no.

Without `--task`, several columns named by `--target A,B` mean several labels, and so does a column that certainly holds
lists (`label_sets.certain_separator`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, label_sets, labels
from tuner.data.frames import Table, listed, no_column, split_names
from tuner.data.labels import Labels
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted, verb
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Target", "choose"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Target:
    """Which columns of a table are learned, and how they are meant.

    Attributes:
        columns: One, or several that each say yes or no.
        separator: Between the labels of a column of lists; None for others.
    """

    columns: tuple[str, ...]
    separator: str | None = None

    @classmethod
    def of(cls, spec: DataSpec) -> Target:
        """That of the training data."""
        if spec.task == "multilabel" and "label_sep" not in spec.reading:
            return cls(spec.class_names)
        return cls((str(spec.target),), spec.reading.get("label_sep"))

    @property
    def name(self) -> str:
        """As `--target` names it."""
        return ",".join(self.columns)

    @property
    def reading(self) -> dict[str, str]:
        """What is needed to read other tables the same, as `DataSpec.reading` keeps it."""
        return {} if self.separator is None else {"label_sep": self.separator}

    def present(self, frame: pd.DataFrame) -> Mask:
        """Which rows have a target; an empty list is one."""
        if self.separator is not None:
            return np.ones(len(frame), bool)
        return np.asarray(np.stack([columns.has_target(frame[name]) for name in self.columns]).all(axis=0))

    def encode(self, frame: pd.DataFrame, *, task: str, path: Path) -> Labels:
        """Codes, rows of 0 and 1, or numbers of rows that all have a target.

        Raises:
            DataError: As `labels.encode` and `label_sets`.
        """
        where = columns.where_target(self.columns[0], path)
        if len(self.columns) > 1:
            return self._flags(frame, path)
        if self.separator is None:
            return labels.encode(columns.target_values(frame[self.columns[0]]), task=task, where=where)
        found = label_sets.from_lists(frame[self.columns[0]].tolist(), self.separator, where=where)
        if task == "auto":
            note = (
                f"Task: multilabel, because {where} holds lists of {len(found.class_names)} labels, separated by "
                f"{self.separator!r} (--task classification takes each list for a class, --label-sep separates it)."
            )
            found = dataclasses.replace(found, notes=(note, *found.notes))
        return found

    def encode_like(self, frame: pd.DataFrame, spec: DataSpec, path: Path) -> Array:
        """The same for another file, in the codes of the training data.

        Raises:
            DataError: A label is not one of the training data, or a column is no target of that kind.
        """
        where = columns.where_target(self.columns[0], path)
        if spec.task != "multilabel":
            return labels.encode_like(columns.target_values(frame[self.columns[0]]), spec, where=where)
        if self.separator is not None:
            return label_sets.like_training(frame[self.columns[0]].tolist(), self.separator, spec, where=where)
        return self._flags(frame, path).y

    def _flags(self, frame: pd.DataFrame, path: Path) -> Labels:
        cells = {name: frame[name].tolist() for name in self.columns}
        return label_sets.from_flags(cells, frame.index.tolist(), where=repr(path.name))


def choose(table: Table, options: ReadOptions, notes: list[str]) -> tuple[pd.DataFrame, Target]:
    """The rows that have a target, and what it is.

    Args:
        table: As it was read.
        options: `target`, `task` and `label_sep` are used; what is not given is found by looking.
        notes: What is decided is added.

    Raises:
        DataError: There are no such columns, or they are empty or the only ones, or no lists where some are meant.
    """
    names = split_names(options.target, list(map(str, table.frame.columns)))
    if len(names) > 1:
        return _several(table, names, options, notes)
    separator = _separator(table, options)
    if separator is None:
        frame, name = columns.with_target(table, options.target, notes)
        return frame, Target((name,))
    name = options.target or columns.guessed_target(table.frame)
    if options.target is None:
        notes.append(f"Target: column {name!r} (--target changes it).")
    if table.frame.shape[1] < 2:
        raise columns.only_target(table, name)
    return table.frame, Target((name,), separator)


def _several(table: Table, names: list[str], options: ReadOptions, notes: list[str]) -> tuple[pd.DataFrame, Target]:
    frame, every = table.frame, list(map(str, table.frame.columns))
    for name in names:
        if name not in every:
            raise no_column(table.path, name, every, "--target")
    if options.task in ("classification", "regression"):
        raise DataError(
            f"--task {options.task} learns one target, and --target names {len(names)}: {listed(names)}. Name one, or "
            "use --task multilabel for columns of yes and no."
        )
    if options.label_sep is not None:
        raise DataError(f"--label-sep {options.label_sep} is for one column of lists, and --target names several.")
    if len(every) <= len(names):
        raise columns.only_target(table, ", ".join(names))
    target = Target(tuple(names))
    present = target.present(frame)
    if not present.any():
        raise DataError(f"No row of {table.path.name!r} has a value in all target columns: {listed(names)}.")
    num_gone = int((~present).sum())
    if num_gone:
        notes.append(
            f"{counted(num_gone, 'rows', 'lack', of=len(frame))} a value in a target column and "
            f"{verb(num_gone, 'were')} left out."
        )
    if options.task == "auto":
        notes.append(f"Task: multilabel, because {len(names)} target columns are named (--target).")
    return frame[present], target


def _separator(table: Table, options: ReadOptions) -> str | None:
    """The separator of a target column of lists; None if it is no such column."""
    frame = table.frame
    if options.task in ("classification", "regression"):
        return None
    if not len(frame) or (options.target is not None and options.target not in frame.columns):
        return None  # with_target says it
    name = options.target or columns.guessed_target(frame)
    if options.label_sep is not None:
        return options.label_sep
    cells = frame[name].dropna().tolist() if columns.has_text(frame[name]) else []
    if options.task == "auto":
        return label_sets.certain_separator(cells)
    separator = label_sets.likely_separator(cells)
    if separator is None:
        raise DataError(
            f"No cell of {columns.where_target(name, table.path)} holds a list such as 'a; b', which --task multilabel "
            "needs. Give their separator with --label-sep, or name several columns of yes and no with "
            "--target A,B."
        )
    return separator
