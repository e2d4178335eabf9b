"""How the text of a table is written: encoding, separator, decimal mark, quotes, header. All found by looking.

The whole file is looked at once, so that lines with too many or too few fields, and quotes that are never closed, are
found before pandas reads it and would drop or join rows without a word.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.data import watching
from tuner.errors import DataError
from tuner.grammar import counted

__all__ = ["WHITESPACE", "Dialect", "detect", "is_number", "is_utf8", "separator_of"]

# As pandas writes "any run of spaces and tabs".
WHITESPACE = r"\s+"

# In the order of preference: a comma may also stand inside numbers and sentences.
SEPARATORS = ("\t", ";", "|", ",")

_SEPARATOR_NAMES = {"tab": "\t", r"\t": "\t", "space": WHITESPACE}

# Share of the lines that must have the same number of fields for a separator to be believed. Source: convention; a
# separator that only occurs in sentences stays far below.
CONSISTENT_FRAC = 0.9

# How much of the file decides on separator, decimal mark and header. Source: convention.
SAMPLE_CHARACTERS = 2**18

# How many bytes of lines outside ASCII the encoding is judged by. Source: convention.
ENCODING_SAMPLE_BYTES = 2**16

# A file that is not UTF-8, though this share of its lines outside ASCII is, mixes encodings. Source: one Chinese
# character in GB18030 is valid UTF-8 by chance in 14 % of cases, longer text almost never.
MIXED_FRAC = 0.5

# Share of zero bytes at even or odd places that makes a text UTF-16. Source: convention; Latin text has all of them.
UTF16_ZERO_FRAC = 0.2

# What a text that is not UTF-8 may be written in; others have to be named.
LEGACY_ENCODINGS = ("gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1252", "cp1251")

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# A cell may hold a whole document; the limit of Python's csv module is 128 kB.
_LARGEST_CELL = 2**31 - 1

# A line that no file has: characters of private use.
_END = "\uf8ff\ue000\uf8ff"

# Share of the runs of bytes outside ASCII that must be one or two Latin characters beside a letter of ASCII for a text
# to be Western European. Source: so accents stand; words in Cyrillic, Chinese or Japanese stand alone and are longer.
LATIN_FRAC = 0.5

_STRANGE_BYTES = re.compile(rb"[\x80-\xff]+")
# Accented letters, and the curved quotation marks and dashes of Windows.
_LATIN = rb"[\xc0-\xff\x91-\x97]{1,2}"
_ACCENTS = re.compile(rb"(?:(?<=[A-Za-z])%b|(?<![\x80-\xff])%b(?=[A-Za-z]))(?![\x80-\xff])" % (_LATIN, _LATIN))

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")

# What of up to two characters stands for a missing value, in lower case. Source: convention.
_SHORT_MARKS = ("?", "??", "-", "--", ".", "..", "*", "na", "nk", "nd", "x", "#")

# At most this many lines in a message.
MAX_NAMED = 10


@dataclass(frozen=True)
class Dialect:
    """How one file is written.

    Attributes:
        encoding: Name of a Python codec.
        sep: One character, or `WHITESPACE`.
        decimal: `.` or `,`.
        is_quoted: Whether quotation marks enclose cells; else they are characters like others.
        has_header: Whether the first line that is not empty names the columns.
        has_row_names: Whether rows begin with a field that the header does not name.
        columns: Name of each field of a row; empty for nameless ones.
        num_rows: Rows below the header, wholly empty lines not counted.
        notes: What was decided.
    """

    encoding: str
    sep: str
    decimal: str
    is_quoted: bool
    has_header: bool
    has_row_names: bool
    columns: tuple[str, ...]
    num_rows: int
    notes: tuple[str, ...]

    def as_reading(self) -> dict[str, str]:
        """What is needed to read other files in the same way, as `DataSpec.reading` keeps it."""
        names = {character: name for name, character in _SEPARATOR_NAMES.items() if name.isalpha()}
        reading = {"sep": names.get(self.sep, self.sep), "decimal": self.decimal, "encoding": self.encoding}
        if not self.is_quoted:
            reading["quotes"] = "none"
        if not self.has_header:
            reading["header"] = "none"
        return reading


@dataclass
class _Scan:
    """What one pass over all rows found.

    Attributes:
        first: The first row that is not empty; it is not counted below.
        widths: Number of rows by number of fields.
        first_lines: Line of the first row by number of fields.
        num_spanning: Rows that go over several lines.
        repeated_line: Line that repeats the first row, or None.
        ends_empty: Whether the last field of every row is empty.
        is_open: Whether a quotation mark is never closed.
    """

    first: list[str] = field(default_factory=list)
    widths: Counter[int] = field(default_factory=Counter)
    first_lines: dict[int, int] = field(default_factory=dict)
    num_spanning: int = 0
    repeated_line: int | None = None
    ends_empty: bool = True
    is_open: bool = True

    def add(self, line: int, row: list[str]) -> None:
        """Count one row."""
        self.num_spanning += any("\n" in cell or "\r" in cell for cell in row)
        if not self.first:
            self.first = row
            return
        self.widths[len(row)] += 1
        self.first_lines.setdefault(len(row), line)
        self.ends_empty = self.ends_empty and not row[-1]
        if row == self.first and self.repeated_line is None:
            self.repeated_line = line


class _Lines:
    """The lines of a file, of which it knows the last one, and one of ours: a row, unless a quotation mark is open."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines = itertools.chain(stream, (_END,))
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.last = next(self._lines)
        return self.last


def detect(path: Path, *, sep: str | None = None, decimal: str | None = None, encoding: str | None = None) -> Dialect:
    """Look at a file of text.

    Args:
        path: .csv, .tsv or .txt.
        sep: One character, `tab`, or `space` for any run of spaces; None to find it.
        decimal: `.` or `,`; None to find it.
        encoding: Name of a codec; None to find it.

    Raises:
        DataError: It is empty, not in one encoding, or its rows differ in length.
    """
    notes: list[str] = []
    codec = _checked_encoding(path, encoding) if encoding else _find_encoding(path, notes)
    sample = _sample(path, codec)
    if not sample:
        raise DataError(f"{path.name!r} is empty. Expected: a header line, then one sample a row.")
    character = separator_of(sep) if sep else _find_separator(sample)
    scan, is_quoted = _scan_rows(path, codec, character, notes)
    rows = [row for _, row in _rows(sample, character, is_quoted=is_quoted) if any(row)]
    has_header = _has_header(rows)
    columns = _columns(path, scan, has_header=has_header, notes=notes)
    if has_header:
        _refuse_more_headers(path, rows, scan)
    return Dialect(
        encoding=codec,
        sep=character,
        decimal=decimal or _find_decimal(rows, notes),
        is_quoted=is_quoted,
        has_header=has_header,
        has_row_names=has_header and len(columns) > len(scan.first),
        columns=columns,
        num_rows=scan.widths.total() + (not has_header),
        notes=tuple(notes),
    )


def is_utf8(path: Path) -> bool:
    """Whether a file is UTF-8 throughout."""
    return _first_fault(path, "utf-8") is None


def _scan_rows(path: Path, codec: str, separator: str, notes: list[str]) -> tuple[_Scan, bool]:
    """Look at every row, and whether quotation marks enclose cells or are characters of the text."""
    if separator == WHITESPACE:
        return _scan(path, codec, separator, is_quoted=False), False
    scan = _scan(path, codec, separator, is_quoted=True)
    if scan.is_open or scan.num_spanning:
        plain = _scan(path, codec, separator, is_quoted=False)
        if set(plain.widths) == {len(plain.first)}:
            notes.append(f"Quotation marks in {path.name!r} do not enclose cells; they are read as part of the text.")
            return plain, False
    if scan.is_open:
        raise DataError(
            f"{path.name!r} has a quotation mark that is never closed, so that the rest of the file would be one cell. "
            "Close it; a quotation mark inside a quoted cell must be doubled."
        )
    if scan.num_spanning:
        notes.append(f"{counted(scan.num_spanning, 'rows', 'have')} line breaks inside quoted cells.")
    return scan, True


def separator_of(sep: str) -> str:
    """What `--sep` means: a character, or for `tab` and `space` what pandas takes for them.

    Raises:
        DataError: It cannot separate fields.
    """
    found = _SEPARATOR_NAMES.get(sep, sep)
    if found != WHITESPACE and (len(found) != 1 or found in '\r\n".'):
        raise DataError(f"--sep {sep!r} cannot separate fields. Give one character such as ';', or tab, or space.")
    return found


def is_number(field: str) -> bool:
    """Whether a cell is a number as Python and pandas read it, or with a decimal comma."""
    try:
        float(field.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def _checked_encoding(path: Path, encoding: str) -> str:
    """The codec of a given encoding, after every byte of the file was tried."""
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise DataError(
            f"--encoding {encoding} is not known. Give one that Python knows, such as utf-8, utf-16, latin-1, cp1252, "
            "gb18030 or shift_jis."
        ) from None
    codec = "utf-8-sig" if codec == "utf-8" else codec
    fault = _first_fault(path, codec)
    if fault is not None:
        raise DataError(
            f"Line {fault:,} of {path.name!r} is not text in the encoding {encoding}. Give another with --encoding, or "
            "leave it out and it is guessed."
        )
    return codec


def _first_fault(path: Path, codec: str) -> int | None:
    """Number of the first line that cannot be decoded, or None."""
    try:
        with path.open(encoding=codec) as stream:
            while stream.read(SAMPLE_CHARACTERS):
                pass
    except UnicodeDecodeError:
        content = path.read_bytes()
        try:
            content.decode(codec)
        except UnicodeDecodeError as error:
            return content[: error.start].decode(codec, "replace").count("\n") + 1
    except UnicodeError:  # no byte order mark
        return 1
    return None


def _find_encoding(path: Path, notes: list[str]) -> str:
    with path.open("rb") as stream:
        head = stream.read(ENCODING_SAMPLE_BYTES)
    for mark, codec in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return codec
    if b"\0" in head:
        return _utf16_order(path, head)
    if is_utf8(path):
        return "utf-8-sig"
    codec = _find_legacy_encoding(path)
    notes.append(f"Encoding: {codec}, guessed because {path.name!r} is not UTF-8 (--encoding changes it).")
    return codec


def _utf16_order(path: Path, head: bytes) -> str:
    """UTF-16 without a byte order mark: where the zero bytes stand tells which byte comes first."""
    halves = {"utf-16-be": head[0::2], "utf-16-le": head[1::2]}
    codec = max(halves, key=lambda name: halves[name].count(0))
    if halves[codec].count(0) < UTF16_ZERO_FRAC * len(halves[codec]) or _first_fault(path, codec) is not None:
        raise DataError(
            f"{path.name!r} holds zero bytes, so it is no text. Give a .csv, .tsv or .txt file, or name its encoding "
            "with --encoding."
        )
    return codec


def _find_legacy_encoding(path: Path) -> str:
    import charset_normalizer

    strange, num_utf8, num_lines, first_fault = [], 0, 0, 0
    size = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.isascii():
                continue
            num_lines += 1
            if size < ENCODING_SAMPLE_BYTES:
                strange.append(line)
                size += len(line)
            try:
                line.decode()
                num_utf8 += 1
            except UnicodeDecodeError:
                first_fault = first_fault or number
    if num_utf8 >= MIXED_FRAC * num_lines:
        raise DataError(
            f"{path.name!r} mixes encodings: line {first_fault:,} is not UTF-8, though {num_utf8:,} of its "
            f"{num_lines:,} lines outside ASCII are. Save it in one encoding, or name one with --encoding."
        )
    sample = b"".join(strange)
    codec = "cp1252"
    if len(_ACCENTS.findall(sample)) <= LATIN_FRAC * len(_STRANGE_BYTES.findall(sample)):
        found = charset_normalizer.from_bytes(sample, cp_isolation=list(LEGACY_ENCODINGS)).best()
        codec = found.encoding if found else ""
    if not codec or _first_fault(path, codec) is not None:
        raise DataError(
            f"{path.name!r} is not UTF-8 (line {first_fault:,}), and no other encoding fits it well. Name it with "
            "--encoding, such as latin-1, gb18030 or shift_jis, or save the file as UTF-8."
        )
    return codec


def _sample(path: Path, codec: str) -> list[str]:
    """The first lines, complete."""
    with path.open(encoding=codec, newline="") as stream:
        text = stream.read(SAMPLE_CHARACTERS)
        text += stream.readline() if len(text) == SAMPLE_CHARACTERS else ""
    return [line for line in io.StringIO(text, newline="") if line.strip()]


def _find_separator(lines: list[str]) -> str:
    for separator in (*SEPARATORS, WHITESPACE):
        if _is_consistent(lines, separator):
            return separator
    first = {separator: len(_fields(lines[0], separator)) for separator in SEPARATORS}
    return max(reversed(SEPARATORS), key=lambda separator: first[separator])


def _is_consistent(lines: list[str], separator: str) -> bool:
    """Whether a separator gives nearly all lines as many fields as the first, or one more, and at least two."""
    for is_quoted in (True, False):
        header, *widths = [len(row) for _, row in _rows(lines, separator, is_quoted=is_quoted)]
        usual, count = Counter(widths or [header]).most_common(1)[0]
        if min(usual, header) >= 2 and usual - header in (0, 1) and count >= CONSISTENT_FRAC * len(widths):
            return True
    return False


def _fields(line: str, separator: str) -> list[str]:
    return next(row for _, row in _rows([line], separator, is_quoted=True))


def _rows(lines: Iterable[str], separator: str, *, is_quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """The last line number and the fields of each row."""
    if separator == WHITESPACE:
        yield from enumerate((line.split() for line in lines), start=1)
        return
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.reader(lines, delimiter=separator, quoting=quoting, skipinitialspace=True)
        for row in reader:
            yield reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _scan(path: Path, codec: str, separator: str, *, is_quoted: bool) -> _Scan:
    """Look at every row of a file."""
    scan = _Scan()
    with (
        watching.opened(path, f"checking {path.name}") as file,
        io.TextIOWrapper(file, encoding=codec, newline="") as stream,
    ):
        lines = _Lines(stream)
        for line, row in _rows(lines, separator, is_quoted=is_quoted):
            if row == [_END]:
                scan.is_open = False
            elif lines.last.strip():  # "" is a row of one empty cell, a blank line is none
                scan.add(line, row)
    return scan


def _columns(path: Path, scan: _Scan, *, has_header: bool, notes: list[str]) -> tuple[str, ...]:
    """Names of the fields of a row; refuses rows of different length."""
    usual = scan.widths.most_common(1)[0][0] if scan.widths else len(scan.first)
    if len(scan.widths) > 1 or (not has_header and len(scan.first) != usual):
        odd = sorted((line, width) for width, line in scan.first_lines.items() if width != usual)
        shown = ", ".join(f"line {line:,} has {width}" for line, width in odd[:MAX_NAMED])
        count = scan.widths.total() - scan.widths[usual]
        raise DataError(
            f"{path.name!r} has {counted(count, 'rows')} without the {usual} fields of the others: {shown}. Complete "
            "or remove them; a cell with the separator in it needs quotation marks (--sep gives another separator)."
        )
    if not has_header:
        notes.append(f"{path.name!r} has no header; its columns are called c0 to c{usual - 1}.")
        return tuple(f"c{column}" for column in range(usual))
    names = [name.strip() for name in scan.first]
    if len(names) == usual - 1 > 1 and scan.ends_empty:
        raise DataError(
            f"The rows of {path.name!r} end in a separator that its header does not have. Add it to the header, or "
            "remove it from the rows."
        )
    if len(names) == usual - 1 > 1:
        notes.append("Rows have one field more than the header; the first was taken for a row number and ignored.")
        return ("", *names)
    if len(names) != usual:
        raise DataError(
            f"The first line of {path.name!r} has {counted(len(names), 'fields')}, the others {usual}. It must name "
            "the columns: remove what stands above them."
        )
    return tuple(names)


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns.

    It does not if it holds numbers only, or if a word of it comes again in its column, unless another word stands
    above nothing but numbers.
    """
    first, others = rows[0], [row for row in rows[1:] if row != rows[0]]
    words = [column for column, cell in enumerate(first) if cell.strip() and not is_number(cell)]
    if not words:
        return False
    below = {column: [row[column] for row in others if column < len(row) and row[column].strip()] for column in words}
    if any(cells and all(map(is_number, cells)) for cells in below.values()):
        return True
    return not any(first[column] in cells for column, cells in below.items())


def _refuse_more_headers(path: Path, rows: list[list[str]], scan: _Scan) -> None:
    """A second line of names or units would make text of every column; a repeated header is no sample."""
    if scan.repeated_line is not None:
        raise DataError(
            f"Line {scan.repeated_line:,} of {path.name!r} repeats its header: files were put together. Remove it."
        )
    second, others = rows[1] if len(rows) > 1 else [], rows[2:]
    numeric = [
        column
        for column in range(len(second))
        if (cells := [row[column] for row in others if column < len(row) and row[column].strip()])
        and all(map(is_number, cells))
    ]
    above = [second[column].strip() for column in numeric]
    # Units may be as short as marks of missing values, but differ.
    has_mark = any(cell.lower() in _SHORT_MARKS for cell in above)
    are_names = all(len(cell) > 2 for cell in above) or (len(set(above)) > 1 and not has_mark)
    if len(numeric) > 1 and are_names and not any(is_number(cell) or not cell for cell in above):
        shown = ", ".join(repr(second[column]) for column in numeric[:3])
        raise DataError(
            f"{path.name!r} has two header lines: the second line holds {shown} above columns of numbers. Remove one."
        )


def _find_decimal(rows: list[list[str]], notes: list[str]) -> str:
    cells = [cell.strip() for row in rows for cell in row]
    commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    points = sum(_DECIMAL_POINT.fullmatch(cell) is not None for cell in cells)
    if len(commas) <= points:
        return "."
    notes.append(f"Decimal commas, as in {commas[0]!r} (--decimal . changes it).")
    return ","
