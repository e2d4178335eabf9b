"""Targets: which task they ask for, and their codes.

With `task="auto"` text and booleans mean classification and fractions mean regression. Whole numbers mean
classification if there are at most `FEW_CLASSES` different ones, or if they are the codes 0, 1, ... k-1 with
`CODE_ROWS_PER_CLASS` samples each on average; otherwise regression. A note says what was decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import DataError, did_you_mean, first_of
from tuner.records import DataSpec

__all__ = ["CODE_ROWS_PER_CLASS", "FEW_CLASSES", "Labels", "capital", "encode", "encode_like", "is_missing"]

# Up to this many different whole numbers are taken for classes. Source: convention; ratings, digits and most
# coded classes have fewer, counts and measurements more.
FEW_CLASSES = 20

# More classes than that are believed if their codes have no gap and each has this many samples on average.
# Source: convention; CIFAR-100 has 500, Banking77 130, and a count that happens to have no gap has few in its tail.
CODE_ROWS_PER_CLASS = 10

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labels:
    """Encoded targets.

    Attributes:
        task: `classification`, `multilabel` or `regression`.
        y: int64 codes into `class_names`, rows of int8 0 and 1 with a column for each of them, or float64 values.
        class_names: In the order of the codes; empty for regression.
        notes: What was guessed.
    """

    task: Any
    y: Array
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def encode(values: Array, *, task: str, where: str, names: tuple[str, ...] = ()) -> Labels:
    """Turn raw targets into class codes or numbers.

    Args:
        values: One target a sample, none missing: text, booleans or numbers.
        task: `auto`, `classification` or `regression`.
        where: What to call them in messages, such as `column 'label' of 'train.csv'`.
        names: Names of the classes 0, 1, ...; given, the values must be such codes.

    Raises:
        DataError: There is one class only, text where numbers are needed, or a code without a name.
    """
    notes: tuple[str, ...] = ()
    guessed = task == "auto"
    if guessed:
        task = "classification" if names else _guess(values)
    if values.ndim > 1:
        raise DataError(
            f"{capital(where)} has shape {values.shape}; one class or number for each sample was expected. Save the "
            "samples and their labels into a .npz file."
        )
    if task == "multilabel":
        raise DataError(
            f"{capital(where)} holds one value for each sample, and --task multilabel needs several labels: columns "
            "of 0 and 1, or lists such as 'a; b' in a table. Use --task auto."
        )
    if task == "regression":
        numbers = _numbers(values, where)
        if len(numbers) and np.all(numbers == numbers[0]):
            raise DataError(
                f"{capital(where)} holds only the value {numbers[0]:g}: there is nothing to learn. Choose another "
                "target."
            )
        if guessed:
            notes = (f"Task: regression, because {where} holds numbers (--task classification changes it).",)
        return Labels("regression", numbers, (), notes)
    classes, codes = np.unique(_comparable(values), return_inverse=True)
    if len(classes) < 2:
        found = f"only the class {_text(classes[0])!r}" if len(classes) else "no values"
        raise DataError(
            f"{capital(where)} holds {found}. A classifier needs samples of at least two classes: add the others, "
            "or choose another target."
        )
    if len(classes) == len(values) > FEW_CLASSES:
        raise DataError(
            f"{capital(where)} holds a different label in each of its {len(values):,} rows, such as "
            f"{_text(classes[0])!r}. Classes need several samples each: choose another target, or --task regression "
            "for a target that is a number."
        )
    if guessed and not names and values.dtype.kind not in "OUSb":
        notes = (
            f"Task: classification, because {where} holds {len(classes)} different whole numbers (--task regression "
            "changes it).",
        )
    class_names = tuple(_text(value) for value in classes)
    notes += _alike(class_names)
    if names:
        class_names = _named(classes, names, where)
    return Labels("classification", codes.astype(np.int64), class_names, notes)


def encode_like(values: Array, spec: DataSpec, *, where: str, names: tuple[str, ...] = ()) -> Array:
    """Turn raw targets of another file into the class codes, or numbers, of the training data.

    Args:
        values: One target a sample, none missing.
        spec: How the training data was read.
        where: What to call them in messages.
        names: Names of the classes 0, 1, ...; given, the values of classes must be such codes.

    Raises:
        DataError: A label is not one of the training data, text where numbers are needed, or a code without a name.
    """
    if spec.task == "regression":
        return _numbers(values, where)
    codes = {name: code for code, name in enumerate(spec.class_names)}
    different, inverse = np.unique(_comparable(values), return_inverse=True)
    found = _named(different, names, where) if names else tuple(map(_text, different))
    unknown = sorted(set(found) - set(codes))
    if unknown:
        raise DataError(
            f"{capital(where)} holds {first_of(map(repr, unknown))}, which the training data does "
            f"not have.{did_you_mean(unknown[0], spec.class_names)} Correct these labels, or put samples of them into "
            "the training data."
        )
    return np.array([codes[name] for name in found], np.int64)[inverse]


def is_missing(values: Array) -> npt.NDArray[np.bool_]:
    """Which targets are missing: NaN and infinite numbers; of rows of several labels, those with one."""
    if values.dtype.kind == "f":
        return np.asarray(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    return np.zeros(len(values), bool)


def _guess(values: Array) -> str:
    if values.dtype.kind not in "iuf":
        return "classification"
    if values.dtype.kind == "f" and np.any(values != np.round(values)):
        return "regression"
    distinct = np.unique(values)
    if len(distinct) <= FEW_CLASSES:
        return "classification"
    is_code = distinct[0] == 0 and distinct[-1] == len(distinct) - 1
    return "classification" if is_code and len(values) >= CODE_ROWS_PER_CLASS * len(distinct) else "regression"


def _numbers(values: Array, where: str) -> npt.NDArray[np.float64]:
    if values.dtype.kind in "OUS":
        row, example = _first_text(values)
        if example is not None:
            raise DataError(
                f"{capital(where)} holds text such as {example!r} (row {row}), but regression needs numbers. "
                "Choose another target, or --task classification."
            )
    return values.astype(np.float64)


def _alike(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """A note on classes whose names differ by case and spaces alone."""
    spelt: dict[str, list[str]] = {}
    for name in class_names:
        spelt.setdefault(" ".join(name.casefold().split()), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in spelt.values() if len(names) > 1]
    if not alike:
        return ()
    return (f"Classes that differ by case or spaces alone: {first_of(alike)}. Spell them alike if they are the same.",)


def _first_text(values: Array) -> tuple[int, str | None]:
    for row, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return row, str(value)
    return -1, None


def _comparable(values: Array) -> Array:
    """Objects become text, because mixed types cannot be sorted."""
    if values.dtype.kind == "O":
        return np.array([_text(value) for value in values], dtype=object)
    return values


def _named(classes: Array, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    is_index = classes.dtype.kind in "iuf" and bool(np.all(classes == np.round(classes)))
    if not is_index or classes[0] < 0 or classes[-1] >= len(names):
        strange = next((value for value in classes if not is_index or not 0 <= value < len(names)), classes[0])
        raise DataError(
            f"{capital(where)} holds {_text(strange)!r}, but class_names has {len(names)} names, so codes from 0 to "
            f"{len(names) - 1} were expected. Correct class_names or the codes."
        )
    return tuple(names[int(value)] for value in classes)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating) and value == round(float(value)):
        return str(int(value))
    return str(value)


def capital(where: str) -> str:
    """The beginning of a sentence; the name of an array, `y of ...`, stays as it is."""
    return where if where[1:2] == " " else where[:1].upper() + where[1:]
