"""Reads text tables with one row an epoch, as Keras' CSVLogger writes them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence

import numpy as np

from tuner.errors import DataError
from tuner.grammar import counted
from tuner.stability.history import Column, History

__all__ = ["parse_csv", "to_number"]

DELIMITERS = (",", ";", "\t", "|")

# What stands for "not recorded": CSVLogger writes NA for a value that an epoch does not have.
_MISSING = frozenset({"", "na", "n/a", "#n/a", "none", "null", "-", "<na>"})
# The C library of Windows writes these.
_WINDOWS = {"1.#inf": math.inf, "-1.#inf": -math.inf, "1.#qnan": math.nan, "-1.#ind": math.nan, "1.#ind": math.nan}
_WRAPPED = re.compile(r"(?:np|numpy|tf|torch)?\.?\w+\(\s*([^,()\s]+)[^()]*(?:\(\))?[^()]*\)")


def parse_csv(text: str, name: str) -> History:
    """Read a table with a header.

    Args:
        text: Of the file.
        name: Of the file, for messages.

    Raises:
        DataError: It is no such table, or has no rows.
    """
    header, rows = _cells(text, name)
    names = _unique(header)
    notes: list[str] = []
    body = [row for row in rows if [cell.strip().lower() for cell in row[: len(header)]] != [*map(str.lower, header)]]
    if len(body) < len(rows):
        notes.append(f"The header stands in the log {len(rows) - len(body) + 1} times.")
    if not body:
        raise DataError(f"{name!r} has a header and no rows: no epoch was finished. Columns: {', '.join(names)[:500]}.")
    num_ragged = sum(len(row) != len(header) for row in body)
    if num_ragged:
        notes.append(
            f"{counted(num_ragged, 'rows', 'have', of=len(body))} not as many cells as the header; what they have "
            "counts."
        )
    columns: dict[str, Column] = {}
    texts: list[str] = []
    for place, column in enumerate(names):
        cells = [row[place] if place < len(row) else "" for row in body]
        numbers = [to_number(cell) for cell in cells]
        _sort_in(column, cells, numbers, columns=columns, texts=texts, notes=notes)
    epoch_name = next((column for column in columns if column.lower() == "epoch"), None)
    epochs = _epochs(columns.pop(epoch_name) if epoch_name is not None else None, len(body))
    return History(name, epochs, columns, text_columns=tuple(texts), notes=tuple(notes))


def to_number(cell: str) -> float | str | None:
    """The number in a cell; None if nothing was recorded; the text itself if it is neither.

    Example:
        >>> to_number(" 0.5 "), to_number("0,5"), to_number("NA"), to_number("np.float32(0.5)"), to_number("abc")
        (0.5, 0.5, None, 0.5, 'abc')
    """
    try:
        return float(cell)
    except ValueError:
        pass
    plain = cell.strip().strip("'\"").strip()
    if plain.lower() in _MISSING:
        return None
    if plain.lower() in _WINDOWS:
        return _WINDOWS[plain.lower()]
    wrapped = _WRAPPED.fullmatch(plain) if len(plain) < 200 else None
    for candidate in (plain, plain.replace(",", ".", 1), wrapped[1] if wrapped else plain):
        try:
            return float(candidate)
        except ValueError:
            continue
    return cell


def _cells(text: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows as cells."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if start is None:
        raise DataError(f"{name!r} is empty. A log has a header and a row for each epoch.")
    delimiter = max(DELIMITERS, key=lines[start].count)
    try:
        table = [row for row in csv.reader(lines[start:], delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(
            f"{name!r} cannot be read as a table: {error}. Expected a file as Keras' CSVLogger writes it."
        ) from error
    header = [cell.strip() for cell in table[0]] if table else [""]
    is_one_other = len(header) < 2 and "loss" not in header[0].lower()
    if is_one_other or all(isinstance(to_number(cell), float) for cell in header):
        raise DataError(
            f"{name!r} has no header with names of columns; it begins {lines[start][:60]!r}. "
            "Expected a CSVLogger file, History.history as JSON, a TensorBoard folder, or a run of tuner."
        )
    return header, table[1:]


def _unique(header: Sequence[str]) -> list[str]:
    """Names of the columns, numbered where they are empty or come again."""
    names: list[str] = []
    taken: set[str] = set()
    for place, cell in enumerate(header, start=1):
        name = cell or f"column {place}"
        if name in taken:
            name = f"{name} ({place})"
        names.append(name)
        taken.add(name)
    return names


def _sort_in(
    name: str,
    cells: Sequence[str],
    numbers: Sequence[float | str | None],
    *,
    columns: dict[str, Column],
    texts: list[str],
    notes: list[str],
) -> None:
    """Take a column as numbers if it has more of them than texts."""
    num_texts = sum(isinstance(number, str) for number in numbers)
    num_numbers = sum(isinstance(number, float) for number in numbers)
    if num_texts >= max(1, num_numbers):
        texts.append(name)
        return
    if num_texts:
        example = next(cell for cell, number in zip(cells, numbers, strict=True) if isinstance(number, str))
        notes.append(
            f"Column {name!r}: {counted(num_texts, 'cells', 'hold')} no number, such as {example[:40]!r}; left out."
        )
    values = np.array([number if isinstance(number, float) else math.nan for number in numbers])
    columns[name] = Column(values, np.array([isinstance(number, float) for number in numbers]))


def _epochs(column: Column | None, num_rows: int) -> np.ndarray:
    """Epoch of each row; counted on where it is not a whole number."""
    if column is None:
        return np.arange(num_rows)
    epochs = np.zeros(num_rows, dtype=np.int64)
    before = -1
    for row, value in enumerate(column.values.tolist()):
        is_usable = math.isfinite(value) and abs(value) < 2**53
        before = int(value) if is_usable else before + 1
        epochs[row] = before
    return epochs
