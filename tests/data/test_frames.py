from __future__ import annotations

import zipfile

import numpy as np
import pandas as pd
import pytest

from tuner.data.frames import read, split_names
from tuner.data.options import ReadOptions
from tuner.errors import DataError

BY_LOOKING = ReadOptions()


@pytest.fixture
def workbook(tmp_path):
    def write(*sheets, header=True):
        with pd.ExcelWriter(tmp_path / "t.xlsx") as writer:
            for number, frame in enumerate(sheets):
                frame.to_excel(writer, sheet_name=f"sheet{number}", index=False, header=header)
        return tmp_path / "t.xlsx"

    return write


@pytest.fixture
def text(tmp_path):
    def write(content):
        (tmp_path / "t.csv").write_text(content)
        return tmp_path / "t.csv"

    return write


def test_excel(workbook):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, None, 2.5], "c": ["x", "?", "z"]})
    found = read(workbook(frame), BY_LOOKING)
    assert list(found.frame.columns) == ["a", "b", "c"]
    assert found.frame["a"].tolist() == [1, 2, 3]
    assert np.isnan(found.frame["b"][1])
    assert pd.isna(found.frame["c"][1])
    assert (found.notes, found.reading) == ((), {})


def test_only_the_first_sheet_is_read_and_that_is_said(workbook):
    found = read(workbook(pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"c": [3]})), BY_LOOKING)
    assert found.notes == ("Sheet 'sheet0' was read, the first of 2 in 't.xlsx'.",)


def test_excel_without_header(workbook):
    found = read(workbook(pd.DataFrame([[1, 2.5], [3, 4.5]]), header=False), BY_LOOKING)
    assert (found.frame.to_numpy().tolist(), found.reading) == ([[1, 2.5], [3, 4.5]], {"header": "none"})
    assert "has no header; its columns are called c0 to c1" in found.notes[0]


def test_excel_that_is_none(workbook, tmp_path):
    with pytest.raises(DataError, match=r"The first sheet of 't.xlsx' is empty"):
        read(workbook(pd.DataFrame()), BY_LOOKING)
    (tmp_path / "t.xlsx").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"'t.xlsx' cannot be read as a table: it is no Excel workbook"):
        read(tmp_path / "t.xlsx", BY_LOOKING)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(DataError, match=r"'t.xlsx' cannot be read as a table"):
        read(tmp_path / "t.xlsx", BY_LOOKING)


def test_options_of_text_are_refused_elsewhere(workbook):
    path = workbook(pd.DataFrame({"a": [1], "b": [2]}))
    with pytest.raises(DataError, match=r"'t.xlsx' is no text, so --sep, --decimal means nothing for it. Remove it"):
        read(path, ReadOptions(sep=";", decimal=","))


def test_marks_in_excel_are_missing_as_numbers_and_as_words(workbook):
    found = read(workbook(pd.DataFrame({"a": [1, -9, 3], "b": ["x", "-9", "none"]})), ReadOptions(na="-9,none"))
    assert found.frame.isna().to_numpy().tolist() == [[False, False], [False, True]]
    assert found.notes == ("1 empty row was left out.",)


@pytest.mark.parametrize(
    ("content", "columns", "note"),
    [
        ("id,a,b\n1,5,6\n2,7,8\n3,9,1\n", ["a", "b"], "Column 'id' only counts the rows, and was ignored."),
        ("id,a,b\n1,5,6\n2,7,8\n4,9,1\n", ["id", "a", "b"], None),
        ("a,id,b\n5,1,6\n7,2,8\n", ["a", "id", "b"], None),
        (",a,b\n0,5,6\n1,7,8\n", ["a", "b"], "The nameless first column only counts the rows, and was ignored."),
        (
            ",a,,b\n3,5,2,6\n1,7,4,8\n",
            ["column_0", "a", "column_2", "b"],
            "Columns without a name are called column_0,",
        ),
        ("a,b,,\n5,6,,\n7,8,,\n", ["a", "b"], "2 nameless empty columns were ignored."),
    ],
)
def test_columns_that_name_nothing(text, content, columns, note):
    found = read(text(content), BY_LOOKING)
    assert list(found.frame.columns) == columns
    assert [line[: len(note or "")] for line in found.notes] == ([note] if note else [])


def test_all_columns_and_rows_are_kept_for_prediction(text):
    found = read(text("id,a\n1,5\n,\n3,6\n"), BY_LOOKING, to_learn=False)
    assert found.frame.shape == (3, 2)


def test_columns_of_the_same_name_are_refused(text):
    with pytest.raises(DataError, match=r"has several columns named a\. Give each column its own name"):
        read(text("a,b,a\n1,2,3\n"), BY_LOOKING)


def test_names_are_split_at_commas_unless_a_column_has_one():
    assert split_names("a, b", ["a", "b"]) == ["a", "b"]
    assert split_names("a, b", ["a, b"]) == ["a, b"]
    assert split_names(None, ["a"]) == []


def test_what_was_taken_for_a_missing_value_is_said_with_counts(tmp_path):
    file = tmp_path / "t.csv"
    lines = [f"{row},{row}.5,{'?' if row % 4 == 0 else row}" for row in range(40)]
    lines[3], lines[5], lines[7] = "NA,3.5,3", "-1,5.5,5", ",7.5,7"
    file.write_text("\n".join(["a,b,label", *lines]) + "\n", encoding="utf-8")
    notes = read(file, ReadOptions(na="-1")).notes
    assert "Taken for missing values: '?' (10 cells), 'NA' (1 cell), '-1' (1 cell)." in notes


def test_empty_cells_go_without_saying(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b,label\n1,,x\n2,3,y\n,4,x\n", encoding="utf-8")
    assert not any("Taken" in note for note in read(file, ReadOptions()).notes)


def test_missing_values_beside_row_names_are_counted_in_their_own_column(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,1,?\n2,2,3\n3,?,4\n4,3,?\n", encoding="utf-8")
    assert "Taken for missing values: '?' (3 cells)." in read(file, ReadOptions()).notes
