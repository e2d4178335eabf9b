"""Several labels for one sample, or none: rows of 0 and 1, one column for each label.

They come as such rows, as columns of yes and no, or as lists in one cell, such as `sad; loud` or `['sad', 'loud']`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.labels import Labels, capital
from tuner.errors import DataError, did_you_mean, first_of
from tuner.grammar import counted, verb
from tuner.records import DataSpec

__all__ = [
    "certain_separator",
    "from_flags",
    "from_lists",
    "from_rows",
    "is_label_sets",
    "like_training",
    "likely_separator",
    "one_flag",
    "separator_of",
]

# What a cell of one label may say, in lower case.
FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}

# Separators that are looked for, and those with a name. Source: convention.
SEPARATORS = (";", "|", ",")
NAMED_SEPARATORS: dict[str, str | None] = {"space": None, "tab": "\t"}

# A column is certainly one of lists if this share of its labels occur in two different lists or more (the parts of
# "Paris, France" and "Rome, Italy" do not), and lists have different lengths (two attributes in a cell do not).
# Source: convention; a few labels may be rare.
SHARED_FRAC = 0.9

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.int8]


def is_label_sets(y: Array) -> bool:
    """Whether targets are rows of 0 and 1 of several columns, and not of exactly one class each."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf" or not len(y):
        return False
    return bool(np.isin(y, (0, 1)).all()) and not bool((y.sum(axis=1) == 1).all())


def from_rows(y: Array, *, where: str, names: Sequence[str] = ()) -> Labels:
    """Labels of an array of one column for each.

    Args:
        y: 0 and 1; shape (rows, labels).
        where: What to call it in messages.
        names: Of the columns; numbers by default.

    Raises:
        DataError: Other values, names that do not fit, or nothing to learn.
    """
    if y.ndim != 2 or y.shape[1] < 2:
        raise DataError(
            f"{capital(where)} has shape {y.shape}; several labels for each sample need a column of 0 and 1 for each "
            "label. Save y in shape (samples, labels), or use another --task."
        )
    strange = np.argwhere(~np.isin(y, (0, 1)))
    if len(strange):
        row, column = strange[0]
        raise DataError(
            f"{capital(where)} holds {y[row, column]:g} (row {row}, column {column}); several labels for each sample "
            "are 0 or 1 in each column. Correct it, or choose another --task."
        )
    if names and len(names) != y.shape[1]:
        raise DataError(
            f"{capital(where)} has {y.shape[1]} columns, but class_names has {len(names)} names. Give one name for "
            "each column."
        )
    return _labels(y.astype(np.int8), tuple(names) or tuple(map(str, range(y.shape[1]))), where)


def from_flags(columns: Mapping[str, Sequence[object]], rows: Sequence[object], *, where: str) -> Labels:
    """Labels of table columns that say yes or no.

    Args:
        columns: Cells by name of the label, none missing.
        rows: Their rows, for messages.
        where: What to call the table in messages.

    Raises:
        DataError: Cells say something else, or there is nothing to learn.
    """
    strange = [
        f"{name!r} holds {_shown(cells[place])} (row {rows[place]})"
        for name, cells in columns.items()
        for place in [place for place, cell in enumerate(cells) if one_flag(cell) is None][:1]
    ]
    if strange:
        raise DataError(
            f"{where} has several target columns, so 0 and 1, true and false, or yes and no are expected in each; "
            f"{first_of(strange)}. Name one column with --target to learn classes or a number."
        )
    y = np.array([[one_flag(cell) for cell in cells] for cells in columns.values()], np.int8).T
    return _labels(y, tuple(columns), f"the target columns of {where}")


def from_lists(cells: Sequence[object], separator: str, *, where: str) -> Labels:
    """Labels of a column of lists.

    Args:
        cells: Text; what is missing or empty has no label.
        separator: Between labels: `space`, `tab`, or what stands between them.
        where: What to call the column in messages.

    Raises:
        DataError: There are fewer than two labels, or nothing to learn.
    """
    lists = [_parts(cell, separator) for cell in cells]
    names = tuple(sorted(set().union(*lists))) if lists else ()
    if len(names) < 2:
        found = f"only the label {names[0]!r}" if names else "no label"
        raise DataError(
            f"{capital(where)} holds {found}, separated by {separator!r}. At least two were expected: give another "
            "--label-sep, or --task classification."
        )
    found_labels = _labels(_rows(lists, names), names, where)
    num_bare = sum(not each for each in lists)
    note = (
        f"{counted(num_bare, 'samples', 'have', of=len(lists))} no label, and {verb(num_bare, 'count')} as "
        "having none: remove what was not labelled."
    )
    return Labels("multilabel", found_labels.y, names, (*found_labels.notes, *([note] if num_bare else [])))


def like_training(lists: Sequence[object], separator: str, spec: DataSpec, *, where: str) -> Flags:
    """Rows of 0 and 1 of another column of lists, with the labels of the training data.

    Raises:
        DataError: A label is not one of them.
    """
    found = [_parts(cell, separator) for cell in lists]
    unknown = sorted(set().union(*found) - set(spec.class_names)) if found else []
    if unknown:
        raise DataError(
            f"{capital(where)} holds {first_of(map(repr, unknown))}, which the training data does not have."
            f"{did_you_mean(unknown[0], spec.class_names)} Correct these labels, or put samples of them into the "
            "training data."
        )
    return _rows(found, spec.class_names)


def one_flag(cell: object) -> int | None:
    """0 or 1 for a cell that says no or yes, None for any other."""
    if isinstance(cell, float | np.floating) and cell == round(float(cell)):
        cell = int(cell)
    return FLAGS.get(str(cell).strip().lower())


def certain_separator(cells: Sequence[object]) -> str | None:
    """The separator of a column that certainly holds lists of labels; None if it may be something else."""
    different = sorted({str(cell).strip() for cell in cells})
    for separator in SEPARATORS:
        if not any(separator in cell for cell in different):
            continue
        lists = [_parts(cell, separator) for cell in different]
        lengths = {len(each) for each in lists} - {0}
        counts: dict[str, int] = {}
        for label in (label for each in lists for label in each):
            counts[label] = counts.get(label, 0) + 1
        is_shared = sum(count > 1 for count in counts.values()) >= SHARED_FRAC * max(1, len(counts))
        if max(lengths, default=0) > 1 and len(lengths) > 1 and is_shared and not all(map(_is_number, counts)):
            return separator
    return None


def likely_separator(cells: Sequence[object]) -> str | None:
    """The usual separator that most cells have; None if there is none in any."""
    counts = {separator: sum(separator in str(cell) for cell in cells) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else None


def separator_of(word: str) -> str | None:
    """What `str.split` takes for a separator as an option names it; `space` is any run of spaces."""
    return NAMED_SEPARATORS.get(word, word)


def _parts(cell: object, separator: str) -> set[str]:
    """The labels of one cell."""
    text = "" if cell is None or cell != cell else str(cell).strip()
    is_list = text[:1] + text[-1:] == "[]"
    parts = (text[1:-1] if is_list else text).split(separator_of(separator))
    return {part.strip().strip("'\"") if is_list else part.strip() for part in parts} - {""}


def _rows(lists: Sequence[set[str]], names: Sequence[str]) -> Flags:
    code_of = {name: code for code, name in enumerate(names)}
    y = np.zeros((len(lists), len(names)), np.int8)
    for row, labels in enumerate(lists):
        y[row, [code_of[label] for label in labels]] = 1
    return y


def _labels(y: Flags, names: tuple[str, ...], where: str) -> Labels:
    varies = (y != y[:1]).any(axis=0) if len(y) else np.zeros(len(names), bool)
    if not varies.any():
        raise DataError(
            f"{capital(where)} holds the same labels in every row: there is nothing to learn. Choose another target."
        )
    return Labels("multilabel", y, names, ())


def _is_number(text: str) -> bool:
    return text.replace(".", "").isdigit()


def _shown(cell: object) -> str:
    return repr(cell if isinstance(cell, str) else str(cell))
