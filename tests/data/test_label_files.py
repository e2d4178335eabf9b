"""Folders of files beside a table of their labels."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from PIL import Image

from tuner.data.sources import ReadOptions, load
from tuner.errors import DataError

TAGS = ("sky; sun", "sea", "", "sky;sea;sun")


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures, of which every second lies in a sub-folder; gives a function that writes a table beside them."""
    root = tmp_path / "pictures"
    for number in range(40):
        file = root / ("deep" if number % 2 else "") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)

    def write(header, row, *, name="labels.csv", count=40):
        (tmp_path / "pictures" / name).write_text("\n".join([header, *map(row, range(count))]) + "\n")
        return str(root)

    return write


def test_lists_of_labels_become_rows_of_0_and_1(pictures):
    found = load(pictures("file,tags", lambda number: f"{number:02d}.png,{TAGS[number % 4]}"))
    assert (found.spec.form, found.spec.task) == ("image_folder", "multilabel")
    assert found.spec.class_names == ("sea", "sky", "sun")
    by_name = dict(zip(found.row_names, found.y.tolist(), strict=True))
    assert [by_name[name] for name in ("00.png", "deep/01.png", "02.png", "deep/03.png")] == [
        [0, 1, 1],
        [1, 0, 0],
        [0, 0, 0],
        [1, 1, 1],
    ]
    assert found.x[found.row_names.index("deep/03.png"), 0, 0, 0] == 3
    assert "Labels of the images: column 'tags' of 'labels.csv', by column 'file'." in found.notes
    assert any("10 of 40 samples have no label" in note for note in found.notes)


def test_columns_of_yes_and_no_are_several_labels_without_being_named(pictures):
    found = load(pictures("sky,name,sea", lambda number: f"{number % 2},{number:02d},{'yes' if number % 3 else 'no'}"))
    assert (found.spec.task, found.spec.class_names, found.spec.target) == ("multilabel", ("sky", "sea"), "sky,sea")
    assert found.y[found.row_names.index("deep/03.png")].tolist() == [1, 0]


def test_one_column_is_a_class_or_a_number(pictures):
    classes = load(
        pictures("label,path", lambda number: f"{'ab'[number % 2]},{'deep/' * (number % 2)}{number:02d}.png")
    )
    assert (classes.spec.task, classes.spec.class_names) == ("classification", ("a", "b"))
    assert classes.y[classes.row_names.index("deep/01.png")] == 1
    numbers = load(pictures("path,age", lambda number: f"{number:02d}.png,{number / 7}"))
    assert numbers.spec.task == "regression"
    assert numbers.y[numbers.row_names.index("14.png")] == 2.0


def test_sounds_have_labels_too_and_the_table_may_lie_elsewhere(tmp_path):
    (tmp_path / "sounds").mkdir()
    for number in range(24):
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", np.sin(np.arange(400) * (0.1 + number / 50)), 8000)
    lines = [f"sounds/{number}.wav;{number % 2};{number % 3 // 2}" for number in range(24)]
    (tmp_path / "tags.csv").write_text("\n".join(["file;loud;sad", *lines]) + "\n")
    found = load(str(tmp_path / "sounds"), ReadOptions(labels=str(tmp_path / "tags.csv")))
    assert (found.spec.kind, found.spec.task, found.spec.class_names) == ("audio", "multilabel", ("loud", "sad"))
    assert found.y[found.row_names.index("5.wav")].tolist() == [1, 1]


def test_parts_have_tables_of_their_own_and_the_labels_of_the_data(pictures, tmp_path):
    data = pictures("file,tags", lambda number: f"{number:02d}.png,{TAGS[number % 4]}")
    (tmp_path / "later").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 100 + number, np.uint8)).save(tmp_path / "later" / f"{number}.png")
    table = tmp_path / "later" / "labels.csv"
    table.write_text("file,tags\n0.png,sun\n1.png,sky;sun\n2.png,\n")
    found = load(data, ReadOptions(test=str(tmp_path / "later")))
    assert found.y[found.test_rows].tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 0]]
    table.write_text("file,tags\n0.png,snow\n1.png,sky\n")
    with pytest.raises(DataError, match="holds 'snow', which the training data does not have"):
        load(data, ReadOptions(test=str(tmp_path / "later")))


def test_what_has_no_counterpart_is_told(pictures):
    data = pictures("file,label", lambda number: f"{number + 2:02d}.png,{'ab'[number % 2]}")
    found = load(data)
    assert len(found.x) == 38
    assert "2 rows of 'labels.csv' name no images here: 40.png, 41.png." in found.notes
    assert "2 images have no label in 'labels.csv' and were left out: 00.png, deep/01.png." in found.notes


def test_a_table_of_something_else_leaves_the_class_folders_alone(pictures, tmp_path):
    data = pictures("code,name", lambda number: f"{number},class of {number}", count=2)
    (tmp_path / "pictures" / "flat").mkdir()
    for file in sorted((tmp_path / "pictures").glob("*.png")):
        file.rename(tmp_path / "pictures" / "flat" / file.name)
    found = load(data)
    assert found.spec.class_names == ("deep", "flat")
    assert any("labels.csv" in note for note in found.notes)


def test_a_table_of_half_of_the_files_in_class_folders_is_one_of_their_labels(pictures, tmp_path):
    """On both sides of `COVERED_FRAC`."""
    data = pictures("file,label", lambda number: f"{number:02d}.png,{'ab'[number // 2 % 2]}", count=20)
    (tmp_path / "pictures" / "flat").mkdir()
    for file in sorted((tmp_path / "pictures").glob("*.png")):
        file.rename(tmp_path / "pictures" / "flat" / file.name)
    assert load(data).spec.class_names == ("a", "b")
    pictures("file,label", lambda number: f"{number:02d}.png,{'ab'[number // 2 % 2]}", count=19)
    assert load(data).spec.class_names == ("deep", "flat")


@pytest.mark.parametrize(
    ("header", "row", "match"),
    [
        ("file,label", lambda number: f"other{number}.png,a", "No column of .* names images in"),
        (
            "file,label",
            lambda number: f"{number // 2:02d}.png,{'ab'[number % 2]}",
            "names '00.png' twice, in rows 0 and 1",
        ),
        ("file,label", lambda number: f"{number:02d}.png,", "are empty"),
        ("file,label", lambda number: f"{number:02d}.png,a", "holds only the class 'a'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(pictures, tmp_path, header, row, match):
    data = pictures(header, row)
    with pytest.raises(DataError, match=match):
        load(data, ReadOptions(labels=str(tmp_path / "pictures" / "labels.csv")))


def test_two_files_of_one_name_need_their_path(pictures, tmp_path):
    data = pictures("file,label", lambda number: f"{number:02d}.png,{'ab'[number % 2]}")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "pictures" / "deep" / "02.png")
    assert len(load(data).x) == 40  # a whole path means the file of that path
    (tmp_path / "pictures" / "02.png").rename(tmp_path / "pictures" / "deep" / "sub_02.png")
    (tmp_path / "pictures" / "more").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "pictures" / "more" / "02.png")
    with pytest.raises(DataError, match=r"'02.png' may be deep/02.png or more/02.png. Name files by their path"):
        load(data)


def test_options_of_a_table_need_one(pictures, tmp_path):
    data = pictures("file,label", lambda number: "x,y")
    (tmp_path / "pictures" / "labels.csv").unlink()
    for options, shown in (
        ({"target": "age"}, "--target age"),
        ({"task": "multilabel"}, "--task multilabel"),
        ({"label_sep": ";", "na": "?"}, "--label-sep ; and --na"),
    ):
        with pytest.raises(DataError, match=f"{shown}.*the classes of .* are its sub-folders"):
            load(data, ReadOptions(**options))
    with pytest.raises(DataError, match=r"--labels nowhere.csv: there is no such file"):
        load(data, ReadOptions(labels="nowhere.csv"))
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(DataError, match="is no table"):
        load(data, ReadOptions(labels=str(tmp_path / "labels.json")))
    for suffix in ("csv", "tsv"):
        (tmp_path / "pictures" / f"labels.{suffix}").write_text("file\tlabel\n")
    with pytest.raises(DataError, match=r"holds labels.csv and labels.tsv. Keep one"):
        load(data)
