"""Reader of text tables: a column (or several, joined) that holds text, and a target column.

A table is taken for text if `--kind text` or `--text COLUMN` says so, or if free text is all that it has beside the
target. Several columns named by `--text A,B` are joined in that order, by a line break.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns
from tuner.data.frames import Table, listed, no_column, split_names
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted, verb
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["build", "is_meant", "joined"]

# Between the texts of several columns.
JOINT = "\n"

Array = npt.NDArray[Any]


def is_meant(features: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether a table is to be read as text.

    Args:
        features: Its columns without the target.
        options: What the user said.
    """
    if options.kind != "auto" or options.text:
        return options.kind == "text" or bool(options.text)
    return features.shape[1] == 1 and columns.is_free_text(features.iloc[:, 0])


def build(
    table: Table, features: pd.DataFrame, options: ReadOptions, notes: list[str]
) -> tuple[Array, DataSpec, npt.NDArray[np.bool_]]:
    """The texts, how they were read, and which rows have one.

    Args:
        table: As it was read.
        features: Its columns without the target, and the rows that have one.
        options: What the user said.
        notes: What is decided is added.

    Raises:
        DataError: There is no text, or it is not clear which column holds it.
    """
    names = _text_columns(table.path, features, options, notes)
    texts = joined(features, names)
    has_text = np.array([bool(text.strip()) for text in texts], bool)
    if not has_text.any():
        raise DataError(f"Column {listed(names)} of {table.path.name!r} holds no text at all. Choose another: --text.")
    if not has_text.all():
        num_bare = int((~has_text).sum())
        told = counted(num_bare, "rows", of=len(texts))
        notes.append(f"{told} {verb(num_bare, 'have')} no text and {verb(num_bare, 'were')} left out.")
    reading = table.reading | {"text": ",".join(names)}
    spec = DataSpec("text_table", "text", "classification", (), feature_names=tuple(names), reading=reading)
    return texts[has_text], spec, has_text


def joined(frame: pd.DataFrame, names: list[str]) -> Array:
    """The texts of some columns, joined row by row; a missing one is empty; shape (rows,), object."""
    cells = [frame[name].astype(object).where(frame[name].notna(), "").astype(str) for name in names]
    texts = np.empty(len(frame), object)
    texts[:] = [JOINT.join(filter(None, row)) for row in zip(*cells, strict=True)]
    return texts


def _text_columns(path: Path, features: pd.DataFrame, options: ReadOptions, notes: list[str]) -> list[str]:
    every = [str(name) for name in features.columns]
    named = split_names(options.text, every)
    for name in named:
        if name not in every:
            raise no_column(path, name, every, "--text")
    if not named:
        named = [name for name in every if columns.is_free_text(features[name])]
        if len(named) != 1:
            found = f"several columns of text: {listed(named)}" if named else f"no column of free text: {listed(every)}"
            raise DataError(
                f"{path.name!r} has {found}. Name the one to learn from with --text, or several to be joined: "
                f"--text {','.join((named or every)[:2])}"
            )
        notes.append(f"Text: column {named[0]!r} (--text changes it).")
    others = [name for name in every if name not in named]
    if others:
        notes.append(f"Only the text of {listed(named)} is learned from; left out: {listed(others)}.")
    return named
