"""Reads `History.history` as JSON, in the forms that people save it in."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuner.errors import DataError
from tuner.grammar import counted
from tuner.stability.csvlog import to_number
from tuner.stability.history import Column, History

__all__ = ["parse_history", "parse_json"]

HOW = "Save it with: json.dump(history.history, open('history.json', 'w'), default=float)"


def parse_json(text: str, name: str) -> History:
    """Read a mapping of lists, `{"history": {...}}`, a list of one mapping for each epoch, or a mapping on each line.

    Args:
        text: Of the file.
        name: Of the file, for messages.

    Raises:
        DataError: It is no JSON, or not of that form.
    """
    return parse_history(_decode(text, name), name)


def parse_history(found: Any, name: str) -> History:
    """Read what such a file holds.

    Args:
        found: Mappings, lists and numbers.
        name: For messages.

    Raises:
        DataError: It is not of one of the forms that `parse_json` names.
    """
    planned = None
    if isinstance(found, Mapping) and isinstance(found.get("history"), Mapping):
        params = found.get("params")
        planned = _whole(params.get("epochs")) if isinstance(params, Mapping) else None
        epochs = found.get("epoch")
        found = dict(found["history"])
        if isinstance(epochs, list):
            found.setdefault("epoch", epochs)
    if isinstance(found, list):
        found = _by_column(found, name)
    if not isinstance(found, Mapping):
        raise DataError(f"{name!r} holds {_kind(found)}, not lists of numbers by name. {HOW}")
    return _history(found, name, planned)


def _decode(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{name!r} is nested too deeply to be a history. {HOW}") from error
    except ValueError as error:
        records = _decode_lines(text)
        if records is None:
            raise DataError(f"{name!r} is no valid JSON: {error}. {HOW}") from error
        return records


def _decode_lines(text: str) -> list[Any] | None:
    """One JSON value on each line; None if it is not that."""
    try:
        records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    return records if records and all(isinstance(record, Mapping) for record in records) else None


def _by_column(records: Sequence[Any], name: str) -> dict[str, list[Any]]:
    """A list of mappings as a mapping of lists."""
    if not records or not all(isinstance(record, Mapping) for record in records):
        raise DataError(f"{name!r} holds a list that is not of one mapping for each epoch. {HOW}")
    names = dict.fromkeys(itertools.chain.from_iterable(records))
    return {column: [record.get(column) for record in records] for column in names}


def _history(found: Mapping[Any, Any], name: str, planned: int | None) -> History:
    columns: dict[str, list[float | None]] = {}
    others: list[str] = []
    notes: list[str] = []
    for key, value in found.items():
        numbers = _numbers(value)
        if numbers is None:
            others.append(str(key))
        else:
            columns[str(key)] = numbers
    epochs = columns.pop("epoch", None)
    num_rows = max((len(values) for key, values in columns.items() if not key.startswith("val_")), default=0)
    if not num_rows:
        raise DataError(f"{name!r} holds no list of numbers; its names are: {', '.join(map(str, found))[:300]}. {HOW}")
    placed = {key: _placed(key, values, num_rows, notes) for key, values in columns.items()}
    numbered = _epoch_numbers(epochs, num_rows)
    return History(name, numbered, placed, planned, text_columns=tuple(others), notes=tuple(notes))


def _numbers(value: Any) -> list[float | None] | None:
    """The numbers of a column, None where nothing was recorded; None as a whole if it is no such list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = [part for part in value.strip().strip("[]").replace(",", " ").split() if part]
    if isinstance(value, Mapping) and value and all(_whole(key) is not None for key in value):
        value = [value[key] for key in sorted(value, key=lambda key: _whole(key) or 0)]
    if not isinstance(value, list) or not value:
        return None
    numbers = [_number(item) for item in value]
    return None if any(isinstance(number, str) for number in numbers) else numbers  # type: ignore[return-value]


def _number(item: Any) -> float | str | None:
    if isinstance(item, list) and len(item) == 1:
        item = item[0]
    if item is None:
        return None
    if isinstance(item, str):
        return to_number(item)
    if isinstance(item, bool) or not isinstance(item, int | float):
        return "no number"
    try:
        return float(item)
    except OverflowError:
        return math.inf if item > 0 else -math.inf


def _placed(key: str, values: list[float | None], num_rows: int, notes: list[str]) -> Column:
    """The values at their epochs; with `validation_freq` each stands at the end of a stretch of epochs."""
    numbers = np.full(num_rows, math.nan)
    is_recorded = np.zeros(num_rows, dtype=bool)
    if len(values) > num_rows:
        notes.append(f"'{key}' has {len(values)} values for {counted(num_rows, 'epochs')}; the last ones are left out.")
    elif len(values) < num_rows:
        stretch = num_rows // len(values)
        where = f"every {stretch} epochs" if stretch > 1 else "the first ones"
        notes.append(
            f"'{key}' has {counted(len(values), 'values')} for {num_rows} epochs; they count as those of {where}."
        )
    stretch = max(1, num_rows // len(values))
    for place, value in enumerate(values[:num_rows]):
        row = (place + 1) * stretch - 1
        numbers[row] = math.nan if value is None else value
        is_recorded[row] = value is not None
    return Column(numbers, is_recorded)


def _epoch_numbers(epochs: list[float | None] | None, num_rows: int) -> np.ndarray:
    usable = epochs is not None and len(epochs) == num_rows
    if not usable or not all(
        value is not None and math.isfinite(value) and abs(value) < 2**53 for value in epochs or ()
    ):
        return np.arange(num_rows)
    return np.array([int(value or 0) for value in epochs or ()], dtype=np.int64)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(value: Any) -> str:
    return {
        "str": "a text",
        "int": "a number",
        "float": "a number",
        "bool": "true or false",
        "NoneType": "nothing",
    }.get(type(value).__name__, "something else")
