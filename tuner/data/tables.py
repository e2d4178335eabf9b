"""Reader of tables with a target column, one sample a row: numbers and categories here, text in `texts`.

Columns of numbers are taken as they are. A column of words with at most `columns.FEW_VALUES` different ones becomes a
column of 0 and 1 for each word, named `column=word`. Columns of dates, and those without any value, are left out. All
of it is said. What is neither is refused, with the option that helps.
"""

from __future__ import annotations

import dataclasses
import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, frames, roles, texts
from tuner.data.dataset import Dataset
from tuner.data.dialect import is_number, is_utf8
from tuner.data.frames import Table, listed
from tuner.data.options import ReadOptions
from tuner.data.targets import Target, choose
from tuner.errors import DataError, did_you_mean, first_of
from tuner.grammar import counted
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "read_features", "read_labelled", "without_unseen_words"]

# Characters of an example value in a message.
MAX_EXAMPLE_LENGTH = 40

# A number with a sign, commas between thousands, or a unit or currency beside it.
_WITH_UNIT = r"(?:[A-Z]{3}|[^\w\s.,+-])? ?[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:[.,]\d+)? ?(?:[^\d\s.,+-]\S{0,4})?"

# A column of which this share is words is a category; one with fewer is numbers with something wrong in it.
CATEGORY_FRAC = 0.5

Array = npt.NDArray[Any]


def read(path: Path, options: ReadOptions) -> Dataset:
    """Read features, or text, and target.

    Args:
        path: A file with one of `frames.TABLE_SUFFIXES`.
        options: What the user said of it.

    Raises:
        DataError: The file cannot be parsed, the target is missing, or columns hold what cannot be learned from.
    """
    table = frames.read(path, options)
    notes = list(table.notes)
    frame, target = choose(table, options, notes)
    others = roles.without(frame, path, options).drop(columns=list(target.columns), errors="ignore")
    features = columns.without_dates(others, notes)
    if texts.is_meant(features, options):
        x, spec, kept = texts.build(table, features, options, notes)
        frame = frame[kept]
    else:
        x, spec = _numbers(table, features, notes)
    encoded = target.encode(frame, task=options.task, path=path)
    groups, order = roles.of_rows(frame, path, options)
    return Dataset(
        name=path.stem,
        spec=dataclasses.replace(
            spec,
            task=encoded.task,
            class_names=encoded.class_names,
            target=target.name,
            reading=spec.reading | target.reading | roles.reading(options),
        ),
        x=x,
        y=encoded.y,
        row_names=tuple(map(str, frame.index.tolist())),
        groups=groups,
        order=order,
        notes=(*notes, *encoded.notes),
    )


def read_features(path: Path, spec: DataSpec, notes: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Read rows to predict: the columns of the training data by name; others, the target too, are ignored.

    Args:
        path: A file with one of `frames.TABLE_SUFFIXES`.
        spec: How the training data was read.
        notes: What is decided is added.

    Raises:
        DataError: Columns are missing or hold text.
    """
    frame, x = _like_training(path, spec, notes)
    return x, tuple(map(str, frame.index.tolist()))


def read_labelled(path: Path, spec: DataSpec) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """Read another file with its targets: a validation or test part. Rows without target are left out and told.

    Args:
        path: A file with one of `frames.TABLE_SUFFIXES`.
        spec: How the training data was read.

    Returns:
        Samples, targets coded as in the training data, row numbers, notes.

    Raises:
        DataError: Columns are missing or hold text, or a label is not one of the training data.
    """
    notes: list[str] = []
    frame, x = _like_training(path, spec, notes)
    target = Target.of(spec)
    for name in target.columns:
        if name not in frame.columns:
            raise DataError(
                f"{path.name!r} has no column {name!r}, the target of the training data. Columns: "
                f"{listed(list(frame.columns))}.{did_you_mean(name, list(frame.columns))} A validation or test part "
                "needs it: add it, or leave this file out."
            )
    present = target.present(frame)
    if not present.any():
        raise DataError(f"All rows of {columns.where_target(target.name, path)} are empty. Fill them in.")
    y, rows = target.encode_like(frame[present], spec, path), tuple(map(str, frame.index[present].tolist()))
    return x[present], y, rows, (*notes, *columns.without_target(present))


def without_unseen_words(dataset: Dataset, train: npt.NDArray[np.int64]) -> Dataset:
    """A table without the columns of words that no training row has: they would be known from the other parts alone.

    In rows of the other parts such a word is none of the known ones, as in rows to predict.

    Args:
        dataset: As it was read.
        train: The training rows.
    """
    if dataset.spec.form != "table":
        return dataset
    names = dataset.spec.feature_names
    unseen = [
        column
        for column, name in enumerate(names)
        if "=" in name and not dataset.x[train, column].any() and np.isin(dataset.x[:, column], (0, 1)).all()
    ]
    if not 0 < len(unseen) < len(names):
        return dataset
    kept = tuple(name for column, name in enumerate(names) if column not in unseen)
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, input_shape=(len(kept),), feature_names=kept),
        x=np.delete(dataset.x, unseen, axis=1),
        notes=(*dataset.notes, f"Words that no training row has count as none: {first_of(names[i] for i in unseen)}."),
    )


def _like_training(path: Path, spec: DataSpec, notes: list[str]) -> tuple[pd.DataFrame, Array]:
    """A table that has all columns of the training data, and its samples.

    It is read as the training data was; if that does not fit, by looking.
    """
    repeated = dataclasses.replace(ReadOptions.repeating(spec), drop=None)
    if is_utf8(path):
        repeated = dataclasses.replace(repeated, encoding=None)
    try:
        return _read_like_training(path, spec, repeated, notes)
    except DataError:
        notes.clear()
        return _read_like_training(path, spec, ReadOptions(na=repeated.na), notes)


def _read_like_training(
    path: Path, spec: DataSpec, options: ReadOptions, notes: list[str]
) -> tuple[pd.DataFrame, Array]:
    table = frames.read(path, options, to_learn=False)
    if not len(table.frame):
        raise DataError(f"{path.name!r} has no rows below its header. Add the samples to predict, one a row.")
    notes += frames.without_hints(table.notes)
    frame = _named_like_training(table.frame, path, spec, notes)
    x = _samples(frame, path, spec)
    notes += _unlike_training(frame, x, spec)
    return frame, x


def _unlike_training(frame: pd.DataFrame, x: Array, spec: DataSpec) -> list[str]:
    """What these rows hold that training rows did not, and what it counts as."""
    if spec.kind == "text":
        num_bare = sum(not text.strip() for text in x)
        return [f"{counted(num_bare, 'rows', 'have', of=len(x))} no text."] if num_bare else []
    found = list(map(str, frame.columns))
    words: dict[str, set[str]] = {}
    for feature in spec.feature_names:
        source = _source(feature, found)
        if source != feature:
            words.setdefault(source, set()).add(feature[len(source) + 1 :])
    notes = []
    for source, known in words.items():
        cells = frame[source].dropna().astype(str)
        unseen = cells[~cells.isin(known)]
        if len(unseen):
            shown = first_of(map(repr, unseen.unique()), most=5)
            notes.append(
                f"Column {source!r} holds what no training row has, and counts as none of its words, in "
                f"{counted(len(unseen), 'rows', of=len(frame))}: {shown}."
            )
    num_infinite = int(np.isinf(x).sum())
    return [*notes, f"{_infinite(num_infinite)}."] if num_infinite else notes


def _infinite(number: int) -> str:
    return f"{counted(number, 'infinite values', 'count')} as missing"


def _named_like_training(frame: pd.DataFrame, path: Path, spec: DataSpec, notes: list[str]) -> pd.DataFrame:
    """Check that all columns of the training data are there.

    A file without header and without target has them in order.
    """
    found = list(map(str, frame.columns))
    sources = _sources(spec, found)
    if found == [f"c{column}" for column in range(len(sources))] and not set(sources) <= set(found):
        frame.columns = sources
        found = sources
        notes.append(f"They were taken in the order of the training data: {listed(sources)}.")
    missing = [name for name in sources if name not in found]
    if missing:
        raise DataError(
            f"{path.name!r} has no column {first_of(map(repr, missing))}, which the model was "
            f"trained on. Its columns: {listed(found)}.{did_you_mean(missing[0], found)} Name the columns as in "
            "training."
        )
    return frame


def _sources(spec: DataSpec, found: list[str]) -> list[str]:
    """The columns of the file that the features are made of, each once; that of a category is before the `=`."""
    if spec.kind == "text":
        return list(spec.feature_names)
    return list(dict.fromkeys(_source(name, found) for name in spec.feature_names))


def _source(feature: str, found: list[str]) -> str:
    if feature in found or "=" not in feature:
        return feature
    bases = [name for name in found if feature.startswith(f"{name}=")]
    return max(bases, key=len, default=feature.partition("=")[0])


def _samples(frame: pd.DataFrame, path: Path, spec: DataSpec) -> Array:
    if spec.kind == "text":
        return texts.joined(frame, list(spec.feature_names))
    found = list(map(str, frame.columns))
    numeric = [name for name in spec.feature_names if name in found]
    _refuse(path, [f"column {name!r} {problem}" for name in numeric if (problem := _text_problem(frame[name]))])
    return _matrix(frame, spec.feature_names)


def _numbers(table: Table, features: pd.DataFrame, notes: list[str]) -> tuple[Array, DataSpec]:
    """The matrix of a table of numbers and categories, and how it was read."""
    is_empty = _has_no_value(features, notes)
    if is_empty.any():
        empty = list(map(str, features.columns[is_empty]))
        notes.append(f"{'Column' if len(empty) == 1 else 'Columns'} {listed(empty)}: left out, without any value.")
        features = features.loc[:, ~is_empty]
    if not features.shape[1]:
        told = "".join(f" {note}" for note in notes if ": left out, " in note)
        raise DataError(
            f"{table.path.name!r} has no column left to learn from: numbers, categories or text.{told} Add such "
            "columns, or choose another target with --target."
        )
    names: list[str] = []
    problems = []
    for name, dtype in zip(map(str, features.columns), features.dtypes, strict=True):
        if dtype.kind in "iuf":
            names.append(name)
            continue
        words = _categories(features[name])
        if words:
            notes.append(
                f"Column {name!r} holds {counted(len(words), 'different words')}: a column of 0 and 1 for each."
            )
        elif problem := _object_problem(features[name]) or _text_problem(features[name], name):
            problems.append(f"column {name!r} {problem}")
        names += [f"{name}={word}" for word in words] or [name]
    _refuse(table.path, problems)
    spec = DataSpec(
        "table", "series", "classification", (len(names),), feature_names=tuple(names), reading=table.reading
    )
    return _matrix(features, tuple(names)), spec


def _has_no_value(features: pd.DataFrame, notes: list[str]) -> Array:
    """Which columns have no value; infinite ones, which the pipelines fill like missing ones, are told."""
    is_missing = features.isna()
    numbers = [position for position, dtype in enumerate(features.dtypes) if dtype.kind == "f"]
    is_infinite = np.isinf(features.iloc[:, numbers].to_numpy(dtype=np.float64))
    if is_infinite.any():
        named = features.columns[np.array(numbers)[is_infinite.any(axis=0)]]
        notes.append(f"{_infinite(int(is_infinite.sum()))}, in {listed(list(map(str, named)))}.")
    found = is_missing.to_numpy(dtype=bool).copy()
    if numbers:
        found[:, numbers] |= is_infinite
    return np.asarray(found.all(axis=0))


def _categories(column: pd.Series[Any]) -> list[str]:
    """The different words of a column that is a category, else none."""
    num_words = len(columns.text_rows(column))
    if (
        _first_object(column) is not None
        or not num_words
        or num_words < CATEGORY_FRAC * column.notna().sum()
        or columns.is_date(column)
    ):
        return []
    if is_number(str(column.iloc[columns.text_rows(column)[0]])):
        return []
    words = sorted(column.dropna().astype(str).unique().tolist())
    return words if len(words) <= columns.FEW_VALUES else []


def _refuse(path: Path, problems: list[str]) -> None:
    """Raise one error that names every column that is neither numbers nor a category."""
    if problems:
        raise DataError(
            f"{path.name!r} has columns that are not numeric. Numbers, or categories of at most {columns.FEW_VALUES} "
            f"different words, are expected everywhere but in the target.\n  " + first_of(problems, separator="\n  ")
        )


def _first_object(column: pd.Series[Any]) -> int | None:
    """Position of the first cell that holds a list, bytes or another object, as Parquet may have them."""
    if column.dtype != object:
        return None
    scalars = (str, int, float, np.generic, Decimal, datetime.date, datetime.time)
    return next((row for row, cell in enumerate(column) if cell is not None and not isinstance(cell, scalars)), None)


def _object_problem(column: pd.Series[Any]) -> str | None:
    row = _first_object(column)
    if row is None:
        return None
    cell = column.iloc[row]
    what = "lists" if isinstance(cell, list | np.ndarray) else f"objects ({type(cell).__name__})"
    return (
        f"holds {what} such as {str(cell)[:MAX_EXAMPLE_LENGTH]} in row {column.index[row]}: make columns of numbers or "
        f"words of them, or give --drop {column.name}"
    )


def _text_problem(column: pd.Series[Any], name: str | None = None) -> str | None:
    """What is wrong with a column that should hold numbers; with its name, what can be done in training."""
    rows = columns.text_rows(column)
    if columns.is_date(column):
        return f"holds dates such as {str(column.dropna().iloc[0])!r}, not numbers as in training"
    if not len(rows):
        return None
    value = str(column.iloc[rows[0]])
    shown = value if len(value) <= MAX_EXAMPLE_LENGTH else f"{value[:MAX_EXAMPLE_LENGTH]}..."
    others = "" if len(rows) == 1 else f", and {len(rows) - 1:,} more"
    problem = f"holds text, {shown!r} in row {column.index[rows[0]]}{others}"
    if name is None:
        return problem
    return f"{problem}: {_remedy(column, name, value, num_words=len(rows))}"


def _remedy(column: pd.Series[Any], name: str, value: str, *, num_words: int) -> str:
    words = column.iloc[columns.text_rows(column)].astype(str)
    if is_number(value):
        return "give --decimal , if that is a decimal comma, or remove the comma if it separates thousands"
    if words.str.strip().str.fullmatch(_WITH_UNIT).all():
        return f"keep plain numbers, without a unit beside them or commas between thousands, or give --drop {name}"
    if num_words < CATEGORY_FRAC * column.notna().sum() or (words.nunique() == 1 and num_words < column.notna().sum()):
        return f"give --na {value} if it stands for a missing value, correct it, or give --drop {name}"
    if columns.is_free_text(column):
        return f"give --text {name} to learn from the text alone, or --drop {name}"
    return f"{column.nunique():,} different words are too many for a category; give --drop {name}"


def _matrix(frame: pd.DataFrame, names: tuple[str, ...]) -> Array:
    """float64 (float32 if every column is), missing and infinite values as they are; (rows, names)."""
    import pandas as pd

    found = list(map(str, frame.columns))
    if set(names) <= set(found):
        chosen = frame[list(names)]
        if all(dtype == np.float32 for dtype in chosen.dtypes):
            return np.ascontiguousarray(chosen.to_numpy())
        if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in chosen.dtypes):
            chosen = chosen.apply(pd.to_numeric)
        return np.ascontiguousarray(chosen.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.stack([_column(frame, name, found) for name in names], axis=1)


def _column(frame: pd.DataFrame, name: str, found: list[str]) -> Array:
    """A column of numbers, or whether a category has the value that the name ends in."""
    import pandas as pd

    if name in found:
        return np.asarray(pd.to_numeric(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan))
    source = _source(name, found)
    return np.asarray(frame[source].astype(str) == name[len(source) + 1 :], np.float64)
