"""What the columns of a table hold: the target, dates, categories, text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data.frames import Table, listed, no_column
from tuner.errors import DataError
from tuner.grammar import counted, verb

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FEW_VALUES",
    "FREE_TEXT_FRAC",
    "TARGET_NAMES",
    "guessed_target",
    "has_target",
    "has_text",
    "is_date",
    "is_free_text",
    "only_target",
    "target_values",
    "text_rows",
    "where_target",
    "with_target",
    "without_dates",
    "without_target",
]

# Column names, in lower case, that mark the target. Source: convention.
TARGET_NAMES = ("target", "label", "labels", "class", "y", "species", "outcome", "category", "diagnosis")

# A column of words with up to this many different ones is a category. Source: convention, as for classes.
FEW_VALUES = 20

# A column of words is free text if it has more than `FEW_VALUES` different ones and this share of its rows differ.
# Source: 93 % of the SMS collection differ, 99.9 % of Banking77, whose 77 categories are 0.8 % of its rows.
FREE_TEXT_FRAC = 0.2

# Share of the values that must look like dates. Source: convention; a few may be damaged.
DATE_FRAC = 0.95

# Values that are looked at to find dates.
MAX_DATES = 1000

_TIME = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?"
_DAY = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    r"|\d{1,2}[- ][A-Za-z]{3,9}[- ,]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4})"
)
_DATE = re.compile(rf"(?:{_DAY}(?:[T ]+{_TIME})?|{_TIME})")

Array = npt.NDArray[Any]


def has_text(column: pd.Series[Any]) -> bool:
    """Whether a column holds anything that is neither number, boolean, date nor missing."""
    return bool(len(text_rows(column)))


def text_rows(column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Positions of the cells that hold text which is no number."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return np.empty(0, np.int64)
    return np.flatnonzero((pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy())


def is_free_text(column: pd.Series[Any]) -> bool:
    """Whether a column holds text that differs from row to row, such as messages, rather than names of categories."""
    if not has_text(column) or is_date(column):
        return False
    num_values = column.nunique()
    return bool(num_values > FEW_VALUES and num_values >= FREE_TEXT_FRAC * column.notna().sum())


def is_date(column: pd.Series[Any]) -> bool:
    """Whether a column holds dates or times of day."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column):
        return False
    present = column.dropna()
    present = present.iloc[np.linspace(0, len(present) - 1, min(len(present), MAX_DATES)).astype(int)]
    cells = present.astype(str).str.strip()
    return bool(len(cells)) and float(cells.str.fullmatch(_DATE).mean()) >= DATE_FRAC


def without_dates(features: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The columns that are no dates: a network would take a date for a size, and never see its like again."""
    dates = [
        str(name) for name, dtype in features.dtypes.items() if dtype.kind not in "iufb" and is_date(features[name])
    ]
    if dates:
        example = str(features[dates[0]].dropna().iloc[0])
        holds = "Column" if len(dates) == 1 else "Columns"
        notes.append(f"{holds} {listed(dates)}: left out, because of dates or times such as {example!r}.")
    return features.drop(columns=dates)


def with_target(table: Table, target: str | None, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """The rows that have a target, and the name of its column.

    Args:
        table: As it was read.
        target: Column that the user named; None to guess it.
        notes: What is decided is added.

    Raises:
        DataError: There is no such column, or it is empty, or it is the only one.
    """
    frame, columns = table.frame, list(table.frame.columns)
    name = table.path.name
    if not len(frame):
        raise DataError(f"{name!r} has no rows below its header. Add data, one sample a row.")
    if target is None:
        target = guessed_target(frame)
        notes.append(f"Target: column {target!r} (--target changes it).")
    elif target not in columns:
        raise no_column(table.path, target, columns, "--target")
    if len(columns) < 2:
        raise only_target(table, target)
    present = has_target(frame[target])
    if not present.any():
        raise DataError(f"All rows of {where_target(target, table.path)} are empty. Choose another with --target.")
    notes += without_target(present)
    return frame[present], target


def has_target(column: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Which rows have a target: neither missing nor infinite."""
    present = column.notna().to_numpy(dtype=bool)
    return present & np.isfinite(column.to_numpy()) if column.dtype.kind == "f" else present


def without_target(present: npt.NDArray[np.bool_], noun: str = "rows") -> tuple[str, ...]:
    """The note on rows that were left out; none if all are there.

    Args:
        present: Which rows have a target.
        noun: What they are, in the plural.
    """
    num_gone = int(np.count_nonzero(~present))
    told = counted(num_gone, noun, of=len(present))
    return (f"{told} {verb(num_gone, 'have')} no target and {verb(num_gone, 'were')} left out.",) if num_gone else ()


def only_target(table: Table, target: str) -> DataError:
    """The error for a table that has nothing beside its target."""
    return DataError(
        f"{table.path.name!r} has the single column {target!r}. A target and at least one other column were expected; "
        "check the separator (--sep)."
    )


def guessed_target(frame: pd.DataFrame) -> str:
    """The first column with a usual name, else the last that is no free text, else the last."""
    columns = list(frame.columns)
    lower = [name.lower() for name in columns]
    named = next((columns[lower.index(name)] for name in TARGET_NAMES if name in lower), None)
    if named is not None:
        return str(named)
    return str(next((name for name in reversed(columns) if not is_free_text(frame[name])), columns[-1]))


def target_values(column: pd.Series[Any]) -> Array:
    """Targets as `labels.encode` wants them: booleans, numbers, or text."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy()
        return values if values.dtype.kind in "iuf" else column.to_numpy(dtype=np.float64)
    return column.astype(str).to_numpy(dtype=object)


def where_target(target: str, path: Path) -> str:
    """What the targets are called in messages."""
    return f"column {target!r} of {path.name!r}"
