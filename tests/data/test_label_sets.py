from __future__ import annotations

import numpy as np
import pytest

from tuner.data import label_sets
from tuner.data.sources import ReadOptions, load
from tuner.errors import DataError
from tuner.records import DataSpec

SETS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]] * 10)
X = np.random.default_rng(0).normal(size=(40, 5))


@pytest.fixture
def archive(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return str(tmp_path / "a.npz")

    return write


@pytest.fixture
def table(tmp_path):
    def write(header, rows, name="a.csv"):
        lines = [f"{row % 7},{row}.5,{cells}" for row, cells in enumerate(rows)]
        (tmp_path / name).write_text("\n".join([f"f,g,{header}", *lines]) + "\n")
        return str(tmp_path / name)

    return write


def test_label_sets_are_rows_of_several_labels_not_of_one_class_each():
    assert label_sets.is_label_sets(SETS)
    assert label_sets.is_label_sets(SETS.astype(bool))
    assert not label_sets.is_label_sets(np.eye(3)[[0, 1, 2]])
    assert label_sets.is_label_sets(np.eye(3)[[0, 1, 2]] * [1, 1, 0])
    for other in (SETS[:, :1], SETS[:, 0], SETS + 0.5, SETS.astype(str), SETS[:0]):
        assert not label_sets.is_label_sets(other)


def test_rows_of_an_archive_are_read_and_said(archive):
    found = load(archive(x=X, y=SETS, class_names=["sad", "loud", "old"]))
    assert (found.spec.task, found.spec.class_names) == ("multilabel", ("sad", "loud", "old"))
    assert found.y.dtype == np.int8
    np.testing.assert_array_equal(found.y, SETS)
    assert "Task: multilabel, because y of 'a.npz' holds 0 and 1 in 3 columns, 1.2 times 1 in a row" in found.notes[0]


def test_labels_without_names_are_numbered(archive):
    assert load(archive(x=X, y=SETS)).spec.class_names == ("0", "1", "2")


def test_one_hot_rows_are_classes_unless_said_otherwise(archive):
    source = archive(x=X, y=np.eye(3)[np.arange(40) % 3])
    assert load(source).spec.task == "classification"
    assert load(source, ReadOptions(task="multilabel")).y.shape == (40, 3)


def test_training_and_test_rows_of_an_archive_are_judged_together(archive):
    found = load(archive(x_train=X, y_train=SETS, x_test=X[:3] + 1, y_test=np.eye(3)))
    assert found.spec.task == "multilabel"
    np.testing.assert_array_equal(found.y[found.test_rows], np.eye(3))


def test_rows_with_a_missing_label_are_left_out(archive):
    y = SETS.astype(float)
    y[4, 1] = np.nan
    found = load(archive(x=X, y=y))
    assert len(found.y) == 39
    assert "1 of 40 samples has no target" in found.notes[0]


def test_a_validation_file_has_the_same_labels_in_any_order(archive, tmp_path):
    source = archive(x=X, y=SETS, class_names=["a", "b", "c"])
    np.savez(tmp_path / "v.npz", x=X[:8] + 1, y=SETS[:8, ::-1], class_names=["c", "b", "a"])
    found = load(source, ReadOptions(validation=str(tmp_path / "v.npz")))
    np.testing.assert_array_equal(found.y[found.validation_rows], SETS[:8])
    np.savez(tmp_path / "v.npz", x=X[:8] + 1, y=SETS[:8], class_names=["c", "b", "d"])
    with pytest.raises(DataError, match="has the labels c, b, d; those of the training data were expected: a, b, c"):
        load(source, ReadOptions(validation=str(tmp_path / "v.npz")))


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (SETS * 2, {"task": "multilabel"}, r"holds 2 \(row 0, column 0\)"),
        (SETS * 2, {}, "rows of 0 and 1 for several labels were expected"),
        (SETS[:, 0], {"task": "multilabel"}, "holds one value for each sample"),
        (np.ones((40, 3)), {}, "holds the same labels in every row: there is nothing to learn"),
        (SETS, {"task": "regression"}, "Several numbers at once are not supported"),
    ],
)
def test_bad_rows_give_one_clear_error(archive, y, options, message):
    with pytest.raises(DataError, match=message):
        load(archive(x=X, y=y), ReadOptions(**options))


def test_names_must_fit_the_columns(archive):
    with pytest.raises(DataError, match="has 3 columns, but class_names has 2 names"):
        load(archive(x=X, y=SETS, class_names=["a", "b"]))


@pytest.mark.parametrize("words", [("0", "1"), ("no", "yes"), ("False", "True"), ("No", "YES"), ("0.0", "1.0")])
def test_several_target_columns_say_yes_or_no(table, words):
    source = table("sad,loud,old", [",".join(words[value] for value in row) for row in SETS])
    found = load(source, ReadOptions(target="sad,loud,old"))
    assert (found.spec.task, found.spec.class_names) == ("multilabel", ("sad", "loud", "old"))
    assert (found.spec.target, found.spec.feature_names) == ("sad,loud,old", ("f", "g"))
    np.testing.assert_array_equal(found.y, SETS)
    assert any("Task: multilabel, because 3 target columns are named (--target)." in note for note in found.notes)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ("2,1", {}, r"'a' holds '2' \(row 3\)"),
        ("maybe,1", {}, r"'a' holds 'maybe' \(row 3\)"),
        ("1,0", {"task": "regression"}, "--task regression learns one target, and --target names 2: a, b"),
        ("1,0", {"label_sep": ";"}, "--label-sep ; is for one column of lists"),
        ("1,0", {"target": "a,c"}, "has no column 'c'"),
        ("1,0", {"target": "a,b,f,g"}, "has the single column 'a, b, f, g'"),
    ],
)
def test_bad_target_columns_give_one_clear_error(table, cells, options, message):
    source = table("a,b", ["1,0", "0,1", "0,0", cells] * 10)
    with pytest.raises(DataError, match=message):
        load(source, ReadOptions(**{"target": "a,b"} | options))


def test_rows_that_lack_a_target_value_are_left_out(table):
    found = load(table("a,b", ["1,0", "0,1", "0,0", ",1"] * 10), ReadOptions(target="a,b"))
    assert len(found.y) == 30
    assert any("10 of 40 rows lack a value in a target column" in note for note in found.notes)


LISTS = ["sad; loud", "", "old;loud", "sad", "loud; old; sad"] * 8


def test_a_column_of_lists_is_found_and_said(table):
    found = load(table("tags", LISTS), ReadOptions(target="tags"))
    assert (found.spec.task, found.spec.class_names) == ("multilabel", ("loud", "old", "sad"))
    assert found.y[:5].tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]
    assert found.spec.reading["label_sep"] == ";"
    assert any("separated by ';' (--task classification takes each list for a class" in note for note in found.notes)
    assert any("8 of 40 samples have no label" in note for note in found.notes)


def test_lists_can_be_classes_if_the_user_says_so(table):
    found = load(table("tags", LISTS), ReadOptions(target="tags", task="classification"))
    assert found.spec.class_names == ("loud; old; sad", "old;loud", "sad", "sad; loud")


@pytest.mark.parametrize(
    "cells",
    [
        ["Paris, France", "Lyon, France", "Rome, Italy", "Oslo"],  # parts of their own
        ["cat; small", "cat; large", "dog; small", "dog; large"],  # two attributes
        ["1,5", "2", "1,2,5", "5,2"],  # numbers
        ["a", "b", "c", "d"],
    ],
)
def test_what_may_be_something_else_is_no_list(cells):
    assert label_sets.certain_separator(cells) is None


def test_both_sides_of_the_share_of_labels_in_several_lists():
    shared = ["a|b", "a", "b|c", "c|d", "d", "e|f", "e", "f", "g|h", "g", "h", "i", "i|a"]
    assert label_sets.certain_separator([*shared, "a|lonely"]) == "|"  # 9 of 10 labels
    assert label_sets.certain_separator([*shared, "a|lonely", "b|alone"]) is None  # 9 of 11


@pytest.mark.parametrize(
    ("cells", "options", "names"),
    [
        (["a b", "b", "c a"], {"label_sep": "space"}, ("a", "b", "c")),
        (["x: y/z", "x: y", "z"], {"label_sep": "/"}, ("x: y", "z")),
        (["a|b", "a|b", "b|c"], {"task": "multilabel"}, ("a", "b", "c")),
        (["\"['a', 'b c']\"", "\"['b c']\"", "[]"], {"task": "multilabel"}, ("a", "b c")),
    ],
)
def test_lists_as_users_have_them(table, cells, options, names):
    found = load(table("tags", cells * 10), ReadOptions(target="tags", **options))
    assert found.spec.class_names == names
    assert found.spec.task == "multilabel"


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["a", "b"], {"task": "multilabel"}, "No cell of column 'tags' of 'a.csv' holds a list such as 'a; b'"),
        (["0", "1"], {"task": "multilabel"}, "No cell of column 'tags' of 'a.csv' holds a list such as 'a; b'"),
        (["a", "a", ""], {"label_sep": ";"}, "holds only the label 'a', separated by ';'"),
        (["a;b", "b;a"], {"task": "multilabel"}, "holds the same labels in every row"),
    ],
)
def test_bad_lists_give_one_clear_error(table, cells, options, message):
    with pytest.raises(DataError, match=message):
        load(table("tags", cells * 10), ReadOptions(target="tags", **options))


def test_a_test_file_has_no_other_labels(table):
    source = table("tags", LISTS)
    other = table("tags", ["sad;lod", "old"], name="t.csv")
    with pytest.raises(DataError, match=r"holds 'lod', which the training data does not have\. Did you mean 'loud'"):
        load(source, ReadOptions(target="tags", test=other))
    found = load(source, ReadOptions(target="tags", test=table("tags", ["sad;old", ""], name="t.csv")))
    assert found.y[found.test_rows].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_series_cannot_have_several_labels_yet(table):
    with pytest.raises(DataError, match="--task multilabel is for NumPy archives, tables"):
        load(table("tags", LISTS), ReadOptions(window=5, task="multilabel"))


def test_rows_of_other_lists_have_the_order_of_the_training_data():
    spec = DataSpec("table", "series", "multilabel", (1,), ("b", "a"))
    assert label_sets.like_training(["a", "a;b", None], ";", spec, where="x").tolist() == [[0, 1], [1, 1], [0, 0]]
