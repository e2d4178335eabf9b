"""Files in the form that users have them: one clear error, or a decision that is told; never a traceback or silence."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from tuner.config import SearchConfig
from tuner.errors import DataError
from tuner.search import setup

RNG = np.random.default_rng(0)
HEADER = "a,b,label\n"


def rows(count=60, cell=lambda row: row % 7, label=lambda row: "xy"[row % 2]):
    return "".join(f"{np.cos(row):.4f},{cell(row)},{label(row)}\n" for row in range(count))


def file(content, name="data.csv"):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def pictures(*names, count=12):
    for name in names:
        Path("data", name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(RNG.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(f"data/{name}/{number}.png")
    return "data"


def with_damaged_pictures():
    pictures("a", "b")
    Image.fromarray(RNG.integers(0, 255, (90, 90, 3), dtype=np.uint8)).save("data/a/cut.jpg")
    content = Path("data/a/cut.jpg").read_bytes()
    Path("data/a/cut.jpg").write_bytes(content[: len(content) // 2])
    file("hello", "data/b/text.png")
    return "data"


def with_stacks():
    pages = [Image.fromarray(RNG.integers(0, 255, (9, 9), dtype=np.uint8)) for _ in range(4)]
    pages[0].save(f"{pictures('a', 'b')}/a/stack.tif", save_all=True, append_images=pages[1:])
    return "data"


def with_damaged_sounds():
    for name in ("no", "yes"):
        Path("data", name).mkdir(parents=True)
        for number in range(15):
            soundfile.write(f"data/{name}/{number}.wav", RNG.normal(size=800) / 9, 8000)
    file(b"", "data/no/0.wav")
    file("text", "data/yes/1.wav")
    return "data"


def with_links():
    os.symlink("..", f"{pictures('a', 'b')}/a/up")
    os.symlink("self", "data/self")
    return "data"


def link_to_itself():
    os.symlink("self.csv", "self.csv")
    return "self.csv"


def one_picture_in_c():
    pictures("a", "b")
    pictures("c", count=1)
    return "data"


def folder(name="data"):
    Path(name).mkdir()
    return name


def archive(**arrays):
    np.savez("data.npz", **arrays)
    return "data.npz"


def infinite_pixels():
    x = RNG.normal(size=(40, 9, 9))
    x[:, 0, 0] = np.inf
    x[7] = 2 * x[6]
    return archive(x=x, y=np.arange(40) // 2 % 2)


def parquet(**columns):
    pd.DataFrame({**columns, "b": RNG.normal(size=40), "label": ["x", "y"] * 20}).to_parquet("data.parquet")
    return "data.parquet"


def two_sheets():
    with pd.ExcelWriter("data.xlsx") as workbook:
        pd.DataFrame().to_excel(workbook, sheet_name="notes", index=False)
        pd.DataFrame({"a": [1]}).to_excel(workbook, sheet_name="data", index=False)
    return "data.xlsx"


def wide_table():
    names = ",".join(f"c{column}" for column in range(10_000))
    cells = [",".join(map(str, (row * np.arange(10_000)) % 7)) for row in range(40)]
    return file(f"{names},label\n" + "".join(f"{line},{'xy'[row % 2]}\n" for row, line in enumerate(cells)))


def mixed_encodings():
    text = "text,label\n" + "".join(f"für {row} gut,{'xy'[row % 2]}\n" for row in range(40))
    return file(text.encode() + "für schön,x\n".encode("latin-1"))


# what: how it is made, and the error
REFUSED = {
    "class folder with one file": (one_picture_in_c, r"too few samples to be split .*c has 1; each needs at least 3"),
    "one class only": (lambda: pictures("a"), r"images of one class only, 'a'\. A classifier needs at least two"),
    "images of five dimensions": (
        lambda: archive(x=np.zeros((40, 3, 4, 5, 6)), y=np.arange(40) % 2),
        r"have shape \(3, 4, 5, 6\); images .* were expected",
    ),
    "ragged rows": (lambda: file(HEADER + rows() + "1,2\n3,4,x,5\n"), r"2 rows .* line 62 has 2, line 63 has 4"),
    "two header lines": (lambda: file(HEADER + "m/s,unit,class\n" + rows()), r"has two header lines: .*'m/s', 'unit'"),
    "two header lines of units": (
        lambda: file(HEADER + "m,kg,-\n" + rows()),
        r"has two header lines: .*'m', 'kg'",
    ),
    "mixed encodings": (mixed_encodings, r"mixes encodings: line 42 is not UTF-8, though 40 of its 41 lines"),
    "constant label": (lambda: file(HEADER + rows(label=lambda _: "x")), r"holds only the class 'x'\. A classifier"),
    "constant number": (lambda: file(HEADER + rows(label=lambda _: 2.5)), r"holds only the value 2\.5"),
    "label unique per row": (
        lambda: file(HEADER + rows(label=lambda row: f"id{row}")),
        r"a different label in each",
    ),
    "nothing but dates": (
        lambda: file("when,label\n" + "".join(f"2024-01-{1 + row % 28:02d},{'xy'[row % 2]}\n" for row in range(60))),
        r"has no column left to learn from: .* Column when: left out, because of dates .* choose another target",
    ),
    "infinite everywhere": (lambda: file("a,label\n" + "inf,x\n-inf,y\n" * 30), r"has no column left to learn from"),
    "NaN everywhere": (lambda: file("a,label\n" + "nan,x\n,y\n" * 30), r"has no column left to learn from"),
    "NaN in every array": (lambda: archive(x=np.full((40, 9), np.nan), y=np.arange(40) % 2), r"no finite value at all"),
    "no label anywhere": (lambda: file(HEADER + rows(label=lambda _: "")), r"All rows of column 'label' .* are empty"),
    "a hundred thousand classes": (
        lambda: file(HEADER + rows(200_000, label=lambda row: f"k{row // 2}")),
        r"200,000 samples are too few for 100,000 classes .*at least 666,\d\d\d are needed",
    ),
    "columns of one name": (
        lambda: file("a,a,label\n" + rows()),
        r"several columns named a\. Give each column",
    ),
    "empty folder": (folder, r"Folder 'data' is empty"),
    "folder named like a table": (lambda: folder("x.csv"), r"Folder 'x\.csv' is empty"),
    "wrong path": (lambda: "nothing.csv", r"'nothing\.csv' does not exist"),
    "path that is too long": (lambda: "x" * 5000, r"cannot be opened: File name too long"),
    "no path": (lambda: "", r"DATA is '', which names nothing"),
    "link to itself": (link_to_itself, r"'self\.csv' (does not exist|cannot be opened)"),
    "empty file": (lambda: file(""), r"'data\.csv' is empty"),
    "header alone": (lambda: file(HEADER), r"has no rows below its header"),
    "bytes called text": (lambda: file(bytes(range(256)) * 9), r"holds zero bytes, so it is no text"),
    "text called archive": (lambda: file("no", "data.npz"), r"is no file of NumPy, whatever its name says"),
    "text called workbook": (lambda: file("no", "data.xlsx"), r"cannot be read as a table: it is no Excel workbook"),
    "lists in a column": (
        lambda: parquet(a=[[row, 1] for row in range(40)]),
        r"column 'a' holds lists such as \[0 1\] in row 0: .* or give --drop a",
    ),
    "bytes in a column": (lambda: parquet(a=[b"x"] * 40), r"column 'a' holds objects \(bytes\) such as b'x' in row 0"),
    "currency": (lambda: file(HEADER + rows(cell=lambda row: f"{row} €")), r"'0 €' in row 0, .*: keep plain numbers,"),
    "per cent": (
        lambda: file(HEADER + rows(cell=lambda row: f"{row}.5%")),
        r"'0\.5%' in row 0, .*: keep plain numbers,",
    ),
    "commas between thousands": (
        lambda: file(HEADER + rows(cell=lambda row: f'"1,000,{row:03}"')),
        r"'1,000,000' in row 0, .*: keep plain numbers, without a unit beside them or commas",
    ),
    "a comma between thousands": (
        lambda: file(HEADER + rows(cell=lambda row: f'"1,{row:03}"')),
        r"'1,000' in row 0, .*: give --decimal , .* or remove the comma if it separates thousands",
    ),
    "a word in most cells of a number": (
        lambda: file(HEADER + rows(cell=lambda row: row if row % 5 < 2 else "broken")),
        r"'broken' in row 2, and 35 more: give --na broken",
    ),
    "one class in an array called y": (
        lambda: archive(x=RNG.normal(size=(40, 9)), y=np.zeros(40)),
        r"^y of 'data\.npz' holds only the class '0'",
    ),
    "first sheet empty": (two_sheets, r"first sheet of 'data\.xlsx' is empty.* move 'data' there"),
    "text called Parquet": (lambda: file("no", "data.parquet"), r"cannot be read as a table: .*Parquet"),
}

# what: how it is made, and what is told of it
TOLD = {
    "damaged pictures": (
        with_damaged_pictures,
        r"(?s)2 of 26 images cannot be read and were left out:\n(?=.*b/text\.png: not an image).*cut\.jpg: .*truncated",
    ),
    "stacks of pictures": (with_stacks, r"1 of 25 images has several frames or pages, of which the first was read"),
    "damaged sounds": (with_damaged_sounds, r"no/0\.wav: the file is empty\n  yes/1\.wav: not a sound, whatever"),
    "links to folders": (with_links, r"2 files that are no images in a class folder were ignored: self, a/up"),
    "labels that are floats": (
        lambda: file(HEADER + rows(label=lambda row: f"{row % 3}.0")),
        r"Task: classification, because .* holds 3 different whole numbers",
    ),
    "labels that are fractions": (
        lambda: file(HEADER + rows(label=lambda row: row / 8)),
        r"Task: regression, because .* holds numbers",
    ),
    "dates among features": (
        lambda: file(HEADER + rows(cell=lambda row: f"2024-01-{1 + row % 28:02d}")),
        r"Column b: left out, because of dates",
    ),
    "infinite values": (
        lambda: file(HEADER + rows(cell=lambda row: "inf" if row % 9 == 0 else row)),
        r"7 infinite values count as missing, in b",
    ),
    "ten thousand columns": (wide_table, r"Target: column 'label'"),
    "whole numbers that no float can hold": (
        lambda: file(HEADER + rows(cell=lambda row: 10**400 if row == 3 else -(10**400) if row == 4 else row)),
        r"2 infinite values count as missing, in b",
    ),
    "values that no network can take": (
        lambda: file(HEADER + rows(cell=lambda _: 1e308)),
        r"Target: column 'label'",
    ),
    "infinite pixels": (infinite_pixels, r"1 sample.* \(nearly\) "),
    "labels that differ by case or spaces": (
        lambda: file(HEADER + rows(label=lambda row: ("Yes", "yes", "no", '"no "')[row % 4])),
        r"Classes that differ by case or spaces alone: 'Yes' and 'yes', 'no' and 'no '\. Spell them alike",
    ),
    "odd column names": (lambda: file('größe [m²],"x;=,""y""",label\n' + rows()), r"Target: column 'label'"),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(source, **options):
    return setup.read_data(SearchConfig(data=source, **options))


@pytest.mark.parametrize("case", REFUSED)
def test_one_clear_error(case):
    make, message = REFUSED[case]
    source = make()
    with pytest.raises(DataError, match=message):
        read(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "a", "drop": "b,a"}, r"--target and --drop both name 'a': remove one"),
        ({"text": "a", "target": "a"}, r"--target and --text both name 'a'"),
        ({"group": "a", "drop": "a"}, r"--group and --drop both name 'a'"),
        (
            {"time": "a", "target": "a", "group": "a"},
            r"--target and --time .*--target and --group .*--time and --group",
        ),
        ({"series_id": "label", "target": "label"}, r"--target and --series-id both name 'label'"),
        ({"series_id": "a"}, r"Column 'a' of 'data\.csv' has another value in each row, so each series"),
        ({"validation": "data.csv"}, r"All 51 training samples are \(nearly\) copies .* must hold other samples"),
        (
            {"validation": "other.csv"},
            r"'other\.csv' has no column 'label', the target of the training data\. .*add it",
        ),
    ],
)
def test_options_that_contradict_each_other_or_the_data(options, message):
    file("a,b\n1,2\n", "other.csv")
    with pytest.raises(DataError, match=message):
        read(file(HEADER + rows(cell=lambda row: f"{np.sin(row):.4f}")), **options)


def test_a_series_may_name_its_group_too():
    lines = "".join(f"{row // 5},{np.sin(row):.4f},{'xy'[row // 5 % 2]}\n" for row in range(200))
    notes = read(file("a,b,label\n" + lines), series_id="a", group="a").record.notes
    assert any("40 series of 1 channel, by column 'a', their rows in the order of the file" in note for note in notes)


def test_columns_that_only_some_series_have_are_told():
    for number in range(20):
        Path("data", "xy"[number % 2]).mkdir(parents=True, exist_ok=True)
        extra = {"q": RNG.normal(size=9)} if number == 7 else {}
        frame = pd.DataFrame({"p": RNG.normal(size=9), **extra})
        frame.to_csv(f"data/{'xy'[number % 2]}/{number}.csv", index=False)
    assert "Columns that the first table does not have were ignored: q (in 7.csv)." in read("data").record.notes


@pytest.mark.parametrize("case", TOLD)
def test_a_decision_that_is_told(case):
    make, note = TOLD[case]
    notes = read(make()).record.notes
    assert any(re.search(note, each) for each in notes), notes


def test_what_is_left_out_counts_for_no_size_and_no_rate():
    notes = read(with_damaged_pictures()).record.notes
    assert not any("images of" in note for note in notes), notes
    sounds = [f"data/{name}/{number}.wav" for name in ("x", "y") for number in range(15)]
    for file_name in sounds:
        Path(file_name).parent.mkdir(exist_ok=True)
        soundfile.write(file_name, RNG.normal(size=800) / 9, 8000)
    soundfile.write(sounds[0], np.full(900, np.nan), 11_025, subtype="FLOAT")
    notes = setup.read_data(SearchConfig(data="data", kind="audio")).record.notes
    assert "29 sounds at 8,000 Hz (--sample-rate changes it)." in notes
    assert not any(note.startswith("Length") for note in notes), notes


def test_a_folder_that_may_not_be_read_is_refused(monkeypatch):
    source = pictures("a", "b")

    def walk(top, onerror=None):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(DataError, match=r"Folder '.*' cannot be read: Permission denied\. Change its permissions"):
        read(source)


def test_a_healthy_table_has_nothing_to_tell():
    source = file(HEADER + rows(cell=lambda row: f"{np.sin(row):.4f}"))
    assert read(source).record.notes == ("Target: column 'label' (--target changes it).",)
