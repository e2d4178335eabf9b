"""What is known of samples beside features and target: what must stay together in a split, and their place in time.

For files, what stays together is named by their paths: `folder` is the folder that a file lies in, and `part2` the
second part of its name, split at `_`, `-`, `.` or space (`7_theo_12.wav` has the parts 7, theo and 12).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data.frames import no_column
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.grammar import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "codes",
    "column",
    "groups_of_files",
    "is_part_of_name",
    "of_rows",
    "parts_of_name",
    "places_in_time",
    "reading",
    "without",
]

Codes = npt.NDArray[np.int64]


def column(frame: pd.DataFrame, path: Path, name: str | None, option: str) -> pd.Series[Any]:
    """A column that the user named.

    Args:
        frame: The table.
        path: Its file.
        name: Of the column.
        option: That named it.

    Raises:
        DataError: There is no such column.
    """
    if name is None or name not in frame.columns:
        raise no_column(path, str(name), list(map(str, frame.columns)), option)
    return frame[name]


def of_rows(
    frame: pd.DataFrame, path: Path, options: ReadOptions
) -> tuple[Codes | None, npt.NDArray[np.float64] | None]:
    """Groups of the rows of a table, and their places in time if it is to be split in time.

    Args:
        frame: The table.
        path: Its file.
        options: `group` and `time` name columns; `split` may ask for the order of the rows.

    Raises:
        DataError: There are no such columns, or no times in one.
    """
    groups = None
    if options.group is not None:
        groups = codes(column(frame, path, options.group, "--group").to_numpy())
    if options.split == "random" or (options.time is None and options.split == "auto"):
        return groups, None
    if options.time is None:
        return groups, np.arange(len(frame), dtype=np.float64)
    times = column(frame, path, options.time, "--time")
    return groups, places_in_time(times, where=f"Column {options.time!r} of {path.name!r}")


def without(frame: pd.DataFrame, path: Path, options: ReadOptions) -> pd.DataFrame:
    """A table without the columns of groups and times, which are nothing to learn from.

    Raises:
        DataError: There are no such columns.
    """
    for name, option in ((options.group, "--group"), (options.time, "--time")):
        if name is not None:
            column(frame, path, name, option)
    return frame.drop(columns=[name for name in (options.group, options.time) if name is not None])


def reading(options: ReadOptions) -> dict[str, str]:
    """The options of this module, as `DataSpec.reading` keeps them."""
    return {name: str(value) for name, value in options.given.items() if name in ("group", "time", "split")}


def codes(values: Sequence[Any] | npt.NDArray[Any]) -> Codes:
    """A code for each different value; what is missing (None, NaN) belongs to nothing but itself."""
    import pandas as pd

    found, different = pd.factorize(pd.Series(list(values), dtype=object))
    alone = found < 0
    found[alone] = len(different) + np.arange(int(alone.sum()))
    return np.asarray(found, np.int64)


def is_part_of_name(group: str) -> bool:
    """Whether a `--group` means paths of files, not a column."""
    return group == "folder" or re.fullmatch(r"part[1-9]\d*", group) is not None


def groups_of_files(names: Sequence[str], group: str | None) -> tuple[Codes | None, tuple[str, ...]]:
    """Groups by a part of each path.

    Args:
        names: Paths with forward slashes.
        group: `folder`, or `part` and a number from 1; None for no groups.

    Returns:
        Codes, and notes of what they are.

    Raises:
        DataError: The option is neither, or some names have no such part.
    """
    if group is None:
        return None, ()
    if not is_part_of_name(group):
        raise DataError(
            f"--group {group!r} is no part of the path of a file. Give `folder`, the folder that a file lies in, or "
            f"part1, part2, ...: the parts of its name, split at _ - . or space ({_parts_shown(names[0])})."
        )
    values = [_part(name, group) for name in names]
    without = [name for name, value in zip(names, values, strict=True) if not value]
    if without:
        raise DataError(
            f"--group {group}: {counted(len(without), 'files', 'have', of=len(names))} no such part in the name, such "
            f"as {without[0]!r} ({_parts_shown(without[0])}). Rename them, or choose another part."
        )
    different = sorted(set(values))
    shown = ", ".join(different[:6]) + (" ..." if len(different) > 6 else "")
    return codes(values), (f"Groups by {group}: {len(different):,} ({shown}); none is on two sides of the split.",)


def _part(name: str, group: str) -> str:
    if group == "folder":
        return str(PurePosixPath(name).parent)
    parts = parts_of_name(name)
    number = int(group.removeprefix("part"))
    return parts[number - 1] if number <= len(parts) else ""


def parts_of_name(name: str) -> list[str]:
    """The parts of a file's name, the first one being `part1` for `--group`."""
    return [part for part in re.split(r"[_\-. ]+", PurePosixPath(name).stem) if part]


def _parts_shown(name: str) -> str:
    return ", ".join(
        f"part{number} of {name!r} is {part!r}" for number, part in enumerate(parts_of_name(name), start=1)
    )


def places_in_time(times: pd.Series[Any], *, where: str) -> npt.NDArray[np.float64]:
    """Times as numbers that can be compared: seconds for dates, numbers as they are.

    Text is read as ISO dates, or with the day or the month first, whichever fits all and leaves the rows in order.

    Args:
        times: Numbers, dates, or dates as text.
        where: What to call it in messages.

    Raises:
        DataError: Some values are neither, or missing.
    """
    import pandas as pd

    if pd.api.types.is_numeric_dtype(times):
        places = times.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        places = _seconds(times)
    bad = ~np.isfinite(places)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where}: {counted(int(bad.sum()), 'rows', 'hold', of=len(times))} no time, such as "
            f"{str(times.iloc[row])!r} (row {times.index[row]}). Dates or numbers were expected everywhere; mend or "
            "remove these rows."
        )
    return places


def _seconds(dates: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Seconds since 1970, NaN where a value is no date."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(dates):
        return _since_1970(dates)
    readings = []
    for options in ({"format": "ISO8601"}, {"dayfirst": True, "format": "mixed"}, {"format": "mixed"}):
        times = _since_1970(pd.to_datetime(dates.astype(str), errors="coerce", utc=True, **options))
        readings.append(times)
        if np.isfinite(times).all() and np.all(np.diff(times) >= 0):
            return times
    return min(readings, key=lambda times: int(np.isnan(times).sum()))


def _since_1970(dates: pd.Series[Any]) -> npt.NDArray[np.float64]:
    import pandas as pd

    if dates.dt.tz is None:
        dates = dates.dt.tz_localize("UTC")
    seconds: npt.NDArray[np.float64] = np.asarray(
        (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1), np.float64
    )
    return seconds
