"""Reader of tables: .csv, .tsv, .parquet with numeric columns and a target column, one sample a row.

The separator is the one of comma, semicolon, tab and bar that gives the first line the most fields; a first line
of numbers only means that there is no header, and columns are called c0, c1, ... Without `--target` the target is
the first column with one of the names in `TARGET_NAMES`, else the last column.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import labels
from tuner.data.dataset import Dataset
from tuner.errors import DataError, did_you_mean
from tuner.records import DataSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE_SUFFIXES", "TARGET_NAMES", "read", "read_features"]

TABLE_SUFFIXES = (".csv", ".parquet", ".tsv", ".txt")

# Column names, in lower case, that mark the target. Source: convention.
TARGET_NAMES = ("target", "label", "labels", "class", "y", "species", "outcome", "category", "diagnosis")

# Written for a missing value beside what pandas knows (empty, NA, NaN, null ...). Source: the UCI repository's usage.
MISSING_MARKS = ("?",)

SEPARATORS = (",", ";", "\t", "|")

# At most this many problems or columns are named in a message.
MAX_NAMED = 10

# Characters of an example value in a message.
MAX_EXAMPLE_LENGTH = 40

Array = npt.NDArray[Any]


def read(path: Path, *, target: str | None, task: str) -> Dataset:
    """Read features and target.

    Args:
        path: A .csv, .tsv, .txt or .parquet file.
        target: Target column, or None to guess it.
        task: `auto`, `classification` or `regression`.

    Raises:
        DataError: The file cannot be parsed, the target is missing, or columns are not numeric or have no values.
    """
    frame, notes = _load(path)
    if not len(frame):
        raise DataError(f"{path.name!r} has no rows below its header. Add data, one sample a row.")
    if target is None:
        target = _guess_target(list(frame.columns))
        notes.append(f"Target: column {target!r} (--target changes it).")
    elif target not in frame.columns:
        raise DataError(_no_column(path, target, list(frame.columns), "--target"))
    if len(frame.columns) < 2:
        raise DataError(
            f"{path.name!r} has the single column {target!r}. A target and at least one numeric column were expected; "
            "check the separator."
        )
    where = f"column {target!r} of {path.name!r}"
    frame, row_numbers = _with_target(frame, target, where, notes)
    features = frame.drop(columns=target)
    _refuse_columns(features, path, row_numbers)
    encoded = labels.encode(_target_values(frame[target]), task=task, where=where)
    x = _matrix(features)
    names = tuple(features.columns)
    return Dataset(
        name=path.stem,
        spec=DataSpec("table", "series", encoded.task, (len(names),), encoded.class_names, target, names),
        x=x,
        y=encoded.y,
        row_names=tuple(map(str, row_numbers.tolist())),
        notes=(*notes, *encoded.notes),
    )


def read_features(path: Path, spec: DataSpec) -> tuple[Array, tuple[str, ...]]:
    """Read rows to predict: the columns of the training data by name; others, the target too, are ignored.

    Args:
        path: A .csv, .tsv, .txt or .parquet file.
        spec: How the training data was read.

    Raises:
        DataError: Columns are missing or hold text.
    """
    frame, _ = _load(path, keep_blank_rows=True)
    wanted = list(spec.feature_names) or [f"c{column}" for column in range(spec.input_shape[0])]
    if not set(wanted) <= set(frame.columns) and len(frame.columns) == len(wanted) and _is_numbered(frame.columns):
        # A file without header and without target: its columns can only be the features, in order.
        frame.columns = wanted
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(_missing_features(path, missing, list(frame.columns)))
    if not len(frame):
        raise DataError(f"{path.name!r} has no rows below its header. Add the samples to predict, one a row.")
    features = frame[wanted]
    rows = np.arange(len(frame))
    _refuse_columns(features, path, rows, refuse_empty=False)
    return _matrix(features), tuple(map(str, rows.tolist()))


def _missing_features(path: Path, missing: list[str], columns: list[str]) -> str:
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    return (
        f"{path.name!r} has no column {', '.join(map(repr, missing[:MAX_NAMED]))}{more}, which the model was trained "
        f"on. Its columns: {_listed(columns)}.{did_you_mean(missing[0], columns)} Name the columns as in training."
    )


def _load(path: Path, *, keep_blank_rows: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """The file as a data frame with clean column names, and what was decided."""
    import pandas as pd

    notes: list[str] = []
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, notes)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name!r} is not UTF-8 text: byte {error.object[error.start]:#04x} at position {error.start:,}. "
            "Save it as UTF-8."
        ) from error
    except (ValueError, OSError, csv.Error) as error:
        # pandas and pyarrow derive their parsing errors from ValueError or OSError.
        raise DataError(
            f"{path.name!r} cannot be read as a table: {str(error).strip()}. Every row needs the same number of fields "
            "in a .csv, .tsv or .parquet file."
        ) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise DataError(f"{path.name!r} has several columns named {_listed(twice)}. Give each column its own name.")
    frame = frame.reset_index(drop=True)
    return _without_blanks(frame, notes, keep_blank_rows=keep_blank_rows), notes


def _read_text(path: Path, notes: list[str]) -> pd.DataFrame:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = list(itertools.islice((line for line in stream if line.strip()), 2))
    if not lines:
        raise DataError(f"{path.name!r} is empty. Expected: a header line, then one sample a row.")
    separator, fields = _separator(lines[0])
    has_header = not all(_is_number(field) for field in fields)
    frame = pd.read_csv(
        path,
        sep=separator,
        header=0 if has_header else None,
        encoding="utf-8-sig",
        na_values=list(MISSING_MARKS),
        skipinitialspace=True,
        low_memory=False,
    )
    if not has_header:
        frame.columns = [f"c{column}" for column in range(len(frame.columns))]
        notes.append(f"{path.name!r} has no header; its columns are called c0 to c{len(frame.columns) - 1}.")
    elif len(next(csv.reader(lines[1:], delimiter=separator), fields)) == len(fields) + 1:
        notes.append("Rows have one field more than the header; the first was taken for a row number and ignored.")
    return frame


def _separator(first_line: str) -> tuple[str, list[str]]:
    """The separator that gives the most fields, and the fields."""
    split = {separator: next(csv.reader([first_line], delimiter=separator)) for separator in SEPARATORS}
    best = max(SEPARATORS, key=lambda separator: len(split[separator]))
    return best, split[best]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_numbered(columns: pd.Index) -> bool:
    return list(columns) == [f"c{column}" for column in range(len(columns))]


def _without_blanks(frame: pd.DataFrame, notes: list[str], *, keep_blank_rows: bool) -> pd.DataFrame:
    """Without nameless empty columns, a nameless first column that only counts rows, and wholly empty rows."""
    nameless = [name for name in frame.columns if name == "" or name.startswith("Unnamed:")]
    blank = [name for name in nameless if frame[name].isna().all()]
    if blank:
        frame = frame.drop(columns=blank)
        notes.append(f"{len(blank)} nameless empty columns were ignored.")
    if nameless and nameless[0] not in blank and frame.columns[0] == nameless[0] and _counts_rows(frame[nameless[0]]):
        frame = frame.drop(columns=nameless[0])
        notes.append("The nameless first column only counts the rows, and was ignored.")
    empty = frame.isna().all(axis=1)
    if empty.any() and not keep_blank_rows:
        frame = frame[~empty]
        notes.append(f"{int(empty.sum()):,} empty rows were left out.")
    return frame


def _counts_rows(column: pd.Series[Any]) -> bool:
    values = column.to_numpy()
    return bool(
        values.dtype.kind in "iu" and len(values) and np.array_equal(values - values[0], np.arange(len(values)))
    )


def _guess_target(columns: list[str]) -> str:
    lower = [name.lower() for name in columns]
    return next((columns[lower.index(name)] for name in TARGET_NAMES if name in lower), columns[-1])


def _no_column(path: Path, name: str, columns: list[str], option: str) -> str:
    return (
        f"{path.name!r} has no column {name!r}. Columns: {_listed(columns)}.{did_you_mean(name, columns)} "
        f"Give one of them with {option}."
    )


def _listed(columns: list[str]) -> str:
    if len(columns) <= 2 * MAX_NAMED:
        return ", ".join(columns)
    return f"{', '.join(columns[:MAX_NAMED])} ... {', '.join(columns[-3:])} ({len(columns)} in all)"


def _with_target(
    frame: pd.DataFrame, target: str, where: str, notes: list[str]
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """The rows that have a target, and their row numbers in the file."""
    missing = frame[target].isna().to_numpy()
    if missing.all():
        raise DataError(f"All rows of {where} are empty. Choose another target with --target.")
    if frame[target].dtype.kind == "f":
        missing = missing | np.isinf(frame[target].to_numpy())
    if missing.any():
        notes.append(f"{int(missing.sum()):,} of {len(frame):,} rows have no target and were left out.")
        frame = frame[~missing]
    return frame, frame.index.to_numpy().astype(np.int64)


def _target_values(column: pd.Series[Any]) -> Array:
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy()
        return values if values.dtype.kind in "iuf" else column.to_numpy(dtype=np.float64)
    return column.astype(str).to_numpy(dtype=object)


def _refuse_columns(
    features: pd.DataFrame, path: Path, row_numbers: npt.NDArray[np.int64], *, refuse_empty: bool = True
) -> None:
    """Raise one error that names every column without numbers."""
    problems = []
    for position in range(features.shape[1]):
        column = features.iloc[:, position]
        name = str(features.columns[position])
        if column.isna().all():
            if refuse_empty:
                problems.append(f"column {name!r} has no values at all: remove it")
        elif (problem := _text_problem(column, row_numbers)) is not None:
            problems.append(f"column {name!r} {problem}")
    if problems:
        more = f"\n  and {len(problems) - MAX_NAMED} more columns" if len(problems) > MAX_NAMED else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:MAX_NAMED])
        raise DataError(
            f"{path.name!r} has columns that are not numeric. Numbers are expected everywhere but in the target."
            f"{lines}{more}"
        )


def _text_problem(column: pd.Series[Any], row_numbers: npt.NDArray[np.int64]) -> str | None:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return None
    if pd.api.types.is_datetime64_any_dtype(column):
        return f"holds dates such as {column.dropna().iloc[0]}: remove it or turn it into numbers"
    is_text = (pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy()
    if not is_text.any():
        return None
    first = int(is_text.argmax())
    value = str(column.iloc[first])
    shown = value if len(value) <= MAX_EXAMPLE_LENGTH else f"{value[:MAX_EXAMPLE_LENGTH]}..."
    count = int(is_text.sum())
    hint = "remove it or turn it into numbers"
    if _is_number(value.replace(",", ".", 1)):
        hint = "that is a decimal comma: write decimal points"
    others = "" if count == 1 else f", and {count - 1:,} more"
    return f"holds text, {shown!r} in row {row_numbers[first]}{others}: {hint}"


def _matrix(features: pd.DataFrame) -> Array:
    """float64 (float32 if every column is), missing and infinite values as they are."""
    import pandas as pd

    if all(dtype == np.float32 for dtype in features.dtypes):
        return np.ascontiguousarray(features.to_numpy())
    if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in features.dtypes):
        features = features.apply(pd.to_numeric)
    return np.ascontiguousarray(features.to_numpy(dtype=np.float64, na_value=np.nan))
