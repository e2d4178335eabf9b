"""A table file as a clean data frame: .csv, .tsv, .txt, .parquet, .xlsx.

Clean means: columns have names of their own, nameless empty columns, row numbers and wholly empty rows are gone, and
cells that stand for a missing value are NaN. What was decided on the way is said in notes; by what the text was read
goes to `Table.reading`, so that other files are read the same.
"""

from __future__ import annotations

import csv
import math
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data import dialect, watching
from tuner.data.options import ReadOptions
from tuner.errors import DataError, did_you_mean, first_of
from tuner.grammar import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "TABLE_SUFFIXES",
    "TEXT_SUFFIXES",
    "Table",
    "csv_options",
    "listed",
    "no_column",
    "read",
    "split_names",
    "without_hints",
]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".xlsx")

# Written for a missing value beside what pandas knows (empty, NA, NaN, null ...). Source: the UCI repository's usage.
MISSING_MARKS = ("?",)

# Names, in lower case, of a first column that only counts the rows. Source: convention.
INDEX_NAMES = ("id", "index", "idx", "no", "nr", "number", "row", "row_id", "rownames", "#")

# Rows in which what stands for missing values is counted. Source: convention; a second at most.
MAX_COUNTED_ROWS = 100_000

# At most this many names in a message.
MAX_NAMED = 10


@dataclass(frozen=True, eq=False)
class Table:
    """A file as it was read.

    Attributes:
        path: The file.
        frame: Its index is the zero-based row of the file, rows without any field not counted.
        reading: Options by which the text was read, as `DataSpec.reading` keeps them.
        notes: What was decided.
    """

    path: Path
    frame: pd.DataFrame
    reading: dict[str, str]
    notes: tuple[str, ...]


def read(path: Path, options: ReadOptions, *, to_learn: bool = True) -> Table:
    """Read a table.

    Args:
        path: A file with one of `TABLE_SUFFIXES`.
        options: `sep`, `decimal`, `encoding`, `na` and `drop` are used; what is not given is found by looking.
        to_learn: Leave out wholly empty rows and a column that only counts the rows. Without it all are kept, so
            that predictions are as many as the rows of the file.

    Raises:
        DataError: The file cannot be read, or columns have no name of their own, or one to drop is not there.
    """
    notes: list[str] = []
    marks = split_names(options.na, ())
    reading = {"na": options.na} if options.na else {}
    _refuse_text_options(path, options)
    try:
        if path.suffix.lower() == ".parquet":
            frame = _marked(_read_parquet(path), marks)
        elif path.suffix.lower() == ".xlsx":
            frame = _marked(_read_excel(path, reading, notes), marks)
        else:
            frame = _read_text(path, options, marks, reading, notes)
    except (ValueError, OSError, csv.Error) as error:
        # pandas and pyarrow derive their parsing errors from ValueError or OSError.
        raise DataError(
            f"{path.name!r} cannot be read as a table: {str(error).strip().rstrip('.')}. Check that it opens "
            "elsewhere, or save it as .csv."
        ) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    _bound_whole_numbers(frame)
    frame = _without_nameless(frame.reset_index(drop=True), notes)
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise DataError(f"{path.name!r} has several columns named {listed(twice)}. Give each column its own name.")
    frame = _without_dropped(frame, path, options, reading)
    return Table(path, _to_learn(frame, notes) if to_learn else frame, reading, tuple(notes))


def split_names(text: str | None, columns: list[str] | tuple[str, ...]) -> list[str]:
    """`A,B` as a list; a column that has commas in its name is one name."""
    if not text:
        return []
    return [text] if text in columns else [name.strip() for name in text.split(",") if name.strip()]


def listed(columns: list[str]) -> str:
    """Column names for a message; the first and last of many."""
    if len(columns) <= 2 * MAX_NAMED:
        return ", ".join(columns)
    return f"{', '.join(columns[:MAX_NAMED])} ... {', '.join(columns[-3:])} ({len(columns)} in all)"


def without_hints(notes: Sequence[str]) -> list[str]:
    """Notes for those who have none of the options of a search: without "(--option changes it)"."""
    return [re.sub(r" \(--[^)]* changes it\)", "", note) for note in notes]


def no_column(path: Path, name: str, columns: list[str], option: str) -> DataError:
    """The error for a column that the user named and the file does not have."""
    return DataError(
        f"{path.name!r} has no column {name!r}. Columns: {listed(columns)}.{did_you_mean(name, columns)} "
        f"Give one of them with {option}."
    )


def _refuse_text_options(path: Path, options: ReadOptions) -> None:
    given = [name for name in ("sep", "decimal", "encoding") if name in options.given]
    if given and path.suffix.lower() not in TEXT_SUFFIXES:
        named = ", ".join(f"--{name}" for name in given)
        raise DataError(f"{path.name!r} is no text, so {named} means nothing for it. Remove it.")


def _read_text(
    path: Path, options: ReadOptions, marks: list[str], reading: dict[str, str], notes: list[str]
) -> pd.DataFrame:
    import pandas as pd

    found = dialect.detect(
        path, sep=options.sep, decimal=options.decimal.replace("auto", "") or None, encoding=options.encoding
    )
    notes += found.notes
    reading |= found.as_reading()
    options_of_pandas = csv_options(reading) | {"index_col": False, "names": list(range(len(found.columns)))}
    with watching.opened(path, f"reading {path.name}") as file:
        frame: pd.DataFrame = pd.read_csv(file, **options_of_pandas)
    # One block for each type instead of one for each column: ten times faster with thousands of them.
    frame = frame.copy()
    frame.columns = list(found.columns)
    if found.has_row_names:
        frame = frame.iloc[:, 1:]
    if len(frame) != found.num_rows:
        raise DataError(
            f"{path.name!r} has {counted(found.num_rows, 'rows')}, but pandas finds {len(frame):,} in it. Check its "
            "quotation marks and separators."
        )
    notes += _missing_notes(path, frame, options_of_pandas, first=int(found.has_row_names))
    return frame


def _missing_notes(path: Path, frame: pd.DataFrame, options: Mapping[str, Any], *, first: int) -> list[str]:
    """What was taken for a missing value beside empty cells, with counts."""
    import pandas as pd

    head = frame.head(MAX_COUNTED_ROWS)
    gaps = np.flatnonzero(head.isna().any(axis=0).to_numpy())
    if not len(gaps):
        return []
    as_text = {"usecols": (gaps + first).tolist(), "dtype": str, "keep_default_na": False, "na_values": []}
    cells: pd.DataFrame = pd.read_csv(path, **dict(options) | as_text, nrows=len(head))
    missing = cells.to_numpy(dtype=object)[head.iloc[:, gaps].isna().to_numpy()]
    counts = Counter(cell.strip() for cell in missing if isinstance(cell, str) and cell.strip())
    if not counts:
        return []
    shown = first_of([f"{mark!r} ({counted(count, 'cells')})" for mark, count in counts.most_common()])
    where = f" in the first {MAX_COUNTED_ROWS:,} rows" if len(frame) > MAX_COUNTED_ROWS else ""
    return [f"Taken for missing values{where}: {shown}."]


def csv_options(reading: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `pandas.read_csv` for a file that was read so."""
    options: dict[str, Any] = {"header": None if reading.get("header") == "none" else 0}
    options["na_values"] = [*MISSING_MARKS, *split_names(reading.get("na"), ())]
    options |= {"skipinitialspace": True, "low_memory": False}
    options |= {name: reading[name] for name in ("decimal", "encoding") if name in reading}
    if "sep" in reading:
        options["sep"] = dialect.separator_of(reading["sep"])
    if reading.get("quotes") == "none":
        options["quoting"] = int(csv.QUOTE_NONE)
    return options


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


def _read_excel(path: Path, reading: dict[str, str], notes: list[str]) -> pd.DataFrame:
    """The first sheet; a first row of numbers only is no header."""
    import pandas as pd

    try:
        with (
            watching.opened(path, f"reading {path.name}", least_bytes=watching.MIN_TOLD_WORKBOOK_BYTES) as file,
            pd.ExcelFile(file, engine="openpyxl") as workbook,
        ):
            if len(workbook.sheet_names) > 1:
                notes.append(
                    f"Sheet {workbook.sheet_names[0]!r} was read, the first of {len(workbook.sheet_names)} in "
                    f"{path.name!r}."
                )
            cells = pd.read_excel(workbook, header=None, na_values=list(MISSING_MARKS)).dropna(how="all")
            others = workbook.sheet_names[1:]
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is no Excel workbook ({error})") from error
    if not len(cells):
        hint = f" The first one is read; move {others[0]!r} there, or save it as .csv." if others else ""
        raise DataError(
            f"The first sheet of {path.name!r} is empty. Expected: a header line, then one sample a row.{hint}"
        )
    if all(isinstance(cell, int | float) for cell in cells.iloc[0]):
        notes.append(f"{path.name!r} has no header; its columns are called c0 to c{cells.shape[1] - 1}.")
        cells.columns = [f"c{column}" for column in range(cells.shape[1])]
        reading["header"] = "none"
        return cells
    names = ["" if pd.isna(cell) else str(cell) for cell in cells.iloc[0]]
    below = cells.iloc[1:].infer_objects()
    below.columns = names
    return below


def _marked(frame: pd.DataFrame, marks: list[str]) -> pd.DataFrame:
    """Cells that stand for a missing value become NaN, in numbers and in text."""
    values: list[Any] = [*MISSING_MARKS, *marks]
    values += [float(mark) for mark in marks if dialect.is_number(mark)]
    is_marked = frame.isin(values)
    return frame.mask(is_marked) if is_marked.to_numpy().any() else frame


def _bound_whole_numbers(frame: pd.DataFrame) -> None:
    """Make whole numbers that no float can hold infinite, as fractions of that size are read; Python has no largest."""
    for position in np.flatnonzero([dtype.kind == "O" for dtype in frame.dtypes]).tolist():
        cells = frame.iloc[:, position].tolist()
        bounded = [_bounded(cell) if isinstance(cell, int) else cell for cell in cells]
        if bounded != cells:
            frame.isetitem(position, bounded)


def _bounded(number: int) -> float:
    try:
        float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    return number


def _without_dropped(frame: pd.DataFrame, path: Path, options: ReadOptions, reading: dict[str, str]) -> pd.DataFrame:
    columns = list(frame.columns)
    dropped = split_names(options.drop, columns)
    for name in dropped:
        if name not in columns:
            raise no_column(path, name, columns, "--drop")
    if dropped:
        reading["drop"] = str(options.drop)
    return frame.drop(columns=dropped)


def _without_nameless(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without nameless columns that are empty or only count the rows; others get a name."""
    is_nameless = np.array([name == "" or name.startswith("Unnamed:") for name in frame.columns], bool)
    is_empty = is_nameless & frame.isna().all().to_numpy()
    counts = is_nameless & ~is_empty & (np.arange(frame.shape[1]) == 0) & _counts_rows(frame.iloc[:, :1])
    names = [f"column_{position}" if is_nameless[position] else name for position, name in enumerate(frame.columns)]
    frame.columns = names
    if is_empty.any():
        num_empty = int(is_empty.sum())
        notes.append(f"{counted(num_empty, 'nameless empty columns', 'were')} ignored.")
    if counts.any():
        notes.append("The nameless first column only counts the rows, and was ignored.")
    if (named := is_nameless & ~is_empty & ~counts).any():
        shown = [name for name, is_named in zip(names, named.tolist(), strict=True) if is_named]
        notes.append(f"Columns without a name are called {listed(shown)}, by their position.")
    kept: pd.DataFrame = frame.loc[:, ~(is_empty | counts)]
    return kept


def _to_learn(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without a first column that only counts rows, and without wholly empty rows."""
    name = str(frame.columns[0]) if frame.shape[1] else ""
    if name.lower() in INDEX_NAMES and frame.shape[1] > 1 and _counts_rows(frame.iloc[:, :1]):
        frame = frame.drop(columns=name)
        notes.append(f"Column {name!r} only counts the rows, and was ignored.")
    empty = frame.isna().all(axis=1)
    if empty.any():
        frame = frame[~empty]
        num_empty = int(empty.sum())
        notes.append(f"{counted(num_empty, 'empty rows', 'were')} left out.")
    return frame


def _counts_rows(column: pd.DataFrame) -> bool:
    values = column.to_numpy().ravel()
    return bool(
        values.dtype.kind in "iu" and len(values) and np.array_equal(values - values[0], np.arange(len(values)))
    )
