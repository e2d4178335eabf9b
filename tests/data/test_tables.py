from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tuner.data import columns, tables
from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError

RANDOM = np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    def write(text, name="t.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def rows(count=40, separator=",", last=("no", "yes")):
    return "".join(f"{row}{separator}{row / 7:.3f}{separator}{last[row % len(last)]}\n" for row in range(count))


def test_csv(table):
    found = load(table("a,b,kind\n" + rows()))
    assert (found.name, found.spec.form, found.spec.kind, found.spec.task) == ("t", "table", "series", "classification")
    assert (found.spec.feature_names, found.spec.target) == (("a", "b"), "kind")
    assert (found.spec.input_shape, found.spec.class_names) == ((2,), ("no", "yes"))
    assert (found.x.shape, found.x.dtype, found.row_names[:2]) == ((40, 2), np.float64, ("0", "1"))
    assert found.notes == ("Target: column 'kind' (--target changes it).",)


@pytest.mark.parametrize(("separator", "name"), [(";", "t.csv"), ("\t", "t.tsv"), ("|", "t.txt"), ("\t", "t.csv")])
def test_separator_is_found(table, separator, name):
    header = f"a{separator}b{separator}kind\n"
    assert load(table(header + rows(separator=separator), name)).x.shape == (40, 2)


def test_quoted_separators_do_not_count(table):
    found = load(table('"a,b,c,d";e;kind\n' + rows(separator=";")))
    assert found.spec.feature_names == ("a,b,c,d", "e")


def test_byte_order_mark_and_spaces_are_removed(table):
    found = load(table("﻿a, b ,kind\n" + rows(separator=", ")))
    assert found.spec.feature_names == ("a", "b")
    assert found.spec.class_names == ("no", "yes")


def test_parquet(tmp_path):
    frame = pd.DataFrame(
        {"a": np.arange(40, dtype=np.float32), "flag": np.arange(40) % 3 == 0, "label": ["x", "y"] * 20}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found = load(str(tmp_path / "t.parquet"))
    assert (found.spec.feature_names, found.x.dtype) == (("a", "flag"), np.float64)
    frame[["a", "label"]].to_parquet(tmp_path / "t.parquet")
    assert load(str(tmp_path / "t.parquet")).x.dtype == np.float32


def test_parquet_with_nullable_columns_and_category(tmp_path):
    frame = pd.DataFrame(
        {
            "a": pd.array([1, None] * 20, dtype="Int64"),
            "b": np.arange(40),
            "label": pd.Categorical(["x", "y"] * 20),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found = load(str(tmp_path / "t.parquet"))
    assert np.isnan(found.x[1, 0])
    assert found.spec.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("a,b,c", "c"),
        ("a,Label,c", "Label"),
        ("class,b,c", "class"),
        ("Species,b,c", "Species"),
        ("y,b,target", "target"),
    ],
)
def test_target_is_guessed(table, header, target):
    values = "".join(f"{row % 2},{row % 2},{row % 2}\n" for row in range(40))
    assert load(table(f"{header}\n{values}")).spec.target == target


def test_target_and_task_can_be_given(table):
    values = "".join(f"{row},{row % 2},{row % 3}\n" for row in range(40))
    found = load(table(f"a,b,label\n{values}"), ReadOptions(target="b", task="regression"))
    assert (found.spec.target, found.spec.task, found.spec.feature_names) == ("b", "regression", ("a", "label"))
    assert not found.notes


def test_missing_values_stay_nan_and_rows_without_target_go(table):
    text = "a,b,label\n1,,0\n?,NA,1\n3,4,\n" + "".join(f"{row},{row},{row % 2}\n" for row in range(40))
    found = load(table(text))
    assert np.isnan(found.x[:2]).tolist() == [[False, True], [True, True]]
    assert (len(found.x), found.row_names[2]) == (42, "3")
    assert "1 of 43 rows has no target and was left out." in found.notes
    assert found.spec.class_names == ("0", "1")


def test_blank_rows_and_nameless_columns(table):
    text = "a;b;label;;\n" + "".join(f"{row};{row};{row % 2};;\n" for row in range(40)) + ";;;;\n;;;;\n"
    found = load(table(text))
    assert found.spec.feature_names == ("a", "b")
    assert found.notes[:2] == ("2 nameless empty columns were ignored.", "2 empty rows were left out.")


def test_row_numbers_are_no_features(table, tmp_path):
    frame = pd.DataFrame({"a": RANDOM.normal(size=40), "label": np.arange(40) % 2})
    frame.to_csv(tmp_path / "t.csv")
    found = load(str(tmp_path / "t.csv"))
    assert found.spec.feature_names == ("a",)
    assert "only counts the rows" in found.notes[0]
    found = load(table("a,label\n" + "".join(f"{row + 7},{row},{row % 2}\n" for row in range(40))))
    assert found.x[1].tolist() == [1.0]
    assert "one field more than the header" in found.notes[0]


def test_no_header(table):
    found = load(table(rows(last=("0", "1"))))
    assert (found.spec.feature_names, found.spec.target, len(found.x)) == (("c0", "c1"), "c2", 40)
    assert found.notes[0] == "'t.csv' has no header; its columns are called c0 to c2."


def test_infinite_features_are_kept_and_infinite_targets_go(table):
    text = "a,y\ninf,0.5\n1,inf\n" + "".join(f"{row},{row / 3}\n" for row in range(40))
    found = load(table(text))
    assert (found.spec.task, len(found.x)) == ("regression", 41)
    assert np.isinf(found.x[0, 0])


def test_parquet_with_numbers_as_text_and_a_nullable_target(tmp_path):
    label = pd.array([0, 1, None, 1] * 10, dtype="Int64")
    pd.DataFrame({"a": [str(row / 2) for row in range(40)], "label": label}).to_parquet(tmp_path / "t.parquet")
    found = load(str(tmp_path / "t.parquet"))
    assert found.x[:3, 0].tolist() == [0.0, 0.5, 1.5]
    assert (len(found.y), found.spec.class_names) == (30, ("0", "1"))


def test_boolean_targets_are_classes(table):
    found = load(table("a,label\n" + "".join(f"{row},{row % 2 == 0}\n" for row in range(40))))
    assert found.spec.class_names == ("False", "True")


def test_columns_of_the_same_name_are_refused(table):
    with pytest.raises(DataError, match=r"'t.csv' has several columns named a\. Give each column its own name"):
        load(table("a,a ,label\n1,2,0\n"))


FEATURES = "".join(f"{row},{row},{row % 2}\n" for row in range(40))
HOSTILE = [
    ("", {}, r"'t.csv' is empty\. Expected: a header line"),
    ("\n \n", {}, r"'t.csv' is empty"),
    ("a,b,label\n", {}, "has no rows below its header"),
    (
        "a,b,label\n" + FEATURES,
        {"target": "lable"},
        r"no column 'lable'\. Columns: a, b, label\. Did you mean 'label'\? Give one of them with --target",
    ),
    ("label\n1\n2\n", {}, r"has the single column 'label'.*check the separator \(--sep\)"),
    ("a,b,label\n1,x,0\n" + FEATURES, {}, r"column 'b' holds text, 'x' in row 0: give --na x if .* or give --drop b"),
    ("a,b,label\n1,x,0\n2,y,1\n" + FEATURES, {}, r"column 'b' holds text, 'x' in row 0, and 1 more"),
    ("a;b;label\n1;2,5;0\n", {"decimal": "."}, r"'2,5' in row 0: give --decimal , if that is a decimal comma"),
    ("a,label\n,0\n,1\n", {}, "has no column left to learn from"),
    ("a,b,label\n1,2,\n3,4,\n", {}, r"All rows of column 'label' of 't.csv' are empty"),
    ("a,b,label\n1,2,0\n3,4,0\n", {}, r"Column 'label' of 't.csv' holds only the class '0'"),
    ("a,b,label\n1,2,p\n3,4,q\n", {}, r"2 samples are too few for 2 classes \(p, q\): at least 7"),
    ("a,b,label\n1,2,p\n3,4,q\n", {"task": "regression"}, r"holds text such as 'p' \(row 0\), but regression needs"),
    ("a,b,label\n1,2,0.5\n3,4,0.7\n", {}, r"The data has 2 rows to learn from; at least 10"),
    ("a,b,label\n" + FEATURES, {"kind": "image"}, "--kind image does not fit tables, which can be series or text"),
    ("a,b,label\n" + FEATURES, {"kind": "video"}, "--kind video does not fit tables"),
    ("a,b,label\n" + FEATURES, {"image_size": 32}, "--image-size 32 is for folders of images: remove it"),
    ("a,b,label\n" + FEATURES, {"drop": "a,bb"}, r"no column 'bb'.*Did you mean 'b'\? Give one of them with --drop"),
    (
        "a,b,label\n" + FEATURES,
        {"drop": "label", "target": "label"},
        "--target and --drop both name 'label': remove one",
    ),
]


@pytest.mark.parametrize(("text", "options", "message"), HOSTILE)
def test_bad_tables_give_one_clear_error(table, text, options, message):
    with pytest.raises(DataError, match=message):
        load(table(text), ReadOptions(**options))


def test_long_text_is_cut_and_many_columns_are_counted(table):
    header = ",".join([f"t{number}" for number in range(30)] + ["label"])
    lines = "".join(",".join([f"{row}" + "x" * 100] * 30 + ["0"]) + "\n" for row in range(30))
    with pytest.raises(DataError, match=r"(?s)'0x{39}\.\.\.' in row 0, and 29 more.*--text t0.*\n  and 20 more$"):
        load(table(f"{header}\n{lines}"))
    with pytest.raises(DataError, match=r"t0, t1, .* \.\.\. t28, t29, label \(31 in all\)"):
        load(table(f"{header}\n{lines}"), ReadOptions(target="nothing"))


def test_missing_marks_are_named(table):
    text = "a;b;label\n-200;-200,0;0\n1;n.d.;1\n" + "".join(f"{row};{row},5;{row % 2}\n" for row in range(40))
    found = load(table(text), ReadOptions(na="-200,n.d."))
    assert np.isnan(found.x[:2]).tolist() == [[True, True], [False, True]]
    assert found.x[2:4, 1].tolist() == [0.5, 1.5]
    assert found.spec.reading["na"] == "-200,n.d."


def test_missing_marks_leave_rows_without_target_out(table):
    found = load(table("a,y\n1,-200\n" + "".join(f"{row},{row / 3}\n" for row in range(40))), ReadOptions(na="-200"))
    assert len(found.y) == 40
    assert "1 of 41 rows has no target and was left out." in found.notes


def test_columns_are_dropped(table):
    found = load(table("a,b,label\n" + FEATURES), ReadOptions(drop="b"))
    assert (found.spec.feature_names, found.spec.reading["drop"]) == (("a",), "b")


def test_a_column_with_a_comma_in_its_name_is_dropped(table):
    found = load(table('"a,b",c,label\n' + FEATURES), ReadOptions(drop="a,b"))
    assert found.spec.feature_names == ("c",)


def test_columns_without_values_are_left_out_and_said(table):
    found = load(table("a,b,label\n" + "".join(f"{row},,{row % 2}\n" for row in range(40))))
    assert found.spec.feature_names == ("a",)
    assert "Column b: left out, without any value." in found.notes


def words(count):
    return "a,colour,label\n" + "".join(f"{row},w{row % count:02},{row % 2}\n" for row in range(400))


def test_words_become_a_column_for_each(table):
    found = load(table(words(3)))
    assert found.spec.feature_names == ("a", "colour=w00", "colour=w01", "colour=w02")
    assert found.x[:4].tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [2, 0, 0, 1], [3, 1, 0, 0]]
    assert "Column 'colour' holds 3 different words: a column of 0 and 1 for each." in found.notes


def test_twenty_words_are_a_category_and_more_are_not(table):
    assert load(table(words(20))).x.shape == (400, 21)
    with pytest.raises(DataError, match=r"'colour' holds text.*21 different words are too many .* give --drop colour"):
        load(table(words(21)))


def test_half_of_a_category_must_be_words(table):
    def text(num_words):
        cells = ["red"] * num_words + ["7"] * (10 - num_words)
        return "a,b,label\n" + "".join(f"{row},{cells[row % 10]},{row % 2}\n" for row in range(40))

    assert load(table(text(5))).spec.feature_names == ("a", "b=7", "b=red")
    with pytest.raises(DataError, match="give --na red if it stands for a missing value"):
        load(table(text(4)))


def test_words_are_predicted_like_in_training_and_new_ones_are_none_of_them(table):
    spec = load(table(words(3))).spec
    x, _ = load_features(table("colour,a\nw02,7\nw09,8\n,9\n"), spec)
    assert x.tolist() == [[7, 0, 0, 1], [8, 0, 0, 0], [9, 0, 0, 0]]
    notes: list[str] = []
    load_features(table("colour;a\nw02;0,5\nw09;2,5\nw08;inf\nw09;\n"), spec, notes)
    assert notes == [
        "Decimal commas, as in '0,5'.",
        "Column 'colour' holds what no training row has, and counts as none of its words, in 3 of 4 rows: 'w09', "
        "'w08'.",
        "1 infinite value counts as missing.",
    ]
    with pytest.raises(DataError, match="has no column 'colour', which the model was trained on"):
        load_features(table("a\n7\n"), spec)


def test_words_that_no_training_row_has_are_no_columns(table):
    lines = "".join(f"{row},{'x' if row < 60 else 'y'},{row % 2}\n" for row in range(100))
    found = load(table(f"a,colour,label\n{lines}"))
    assert tables.without_unseen_words(found, np.arange(61)) is found
    seen = tables.without_unseen_words(found, np.arange(60))
    assert (seen.spec.feature_names, seen.spec.input_shape, seen.x.shape) == (("a", "colour=x"), (2,), (100, 2))
    assert seen.x[[59, 60]].tolist() == [[59, 1], [60, 0]]
    assert seen.notes[-1] == "Words that no training row has count as none: colour=y."


def test_features_with_an_equals_sign_keep_their_column(table):
    text = "a=b,a,label\n" + "".join(f"{row},{'xy'[row % 2]},{row % 2}\n" for row in range(40))
    spec = load(table(text)).spec
    assert spec.feature_names == ("a=b", "a=x", "a=y")
    assert load_features(table("a=b,a\n7,y\n"), spec)[0].tolist() == [[7, 0, 1]]


def test_damaged_parquet(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"'t.parquet' cannot be read as a table"):
        load(str(tmp_path / "t.parquet"))


def test_dates_are_left_out_and_said(tmp_path):
    when = pd.date_range("2026-01-01", periods=20)
    pd.DataFrame({"when": when, "a": range(20), "label": [0, 1] * 10}).to_parquet(tmp_path / "t.parquet")
    found = load(str(tmp_path / "t.parquet"))
    assert found.spec.feature_names == ("a",)
    assert "Column when: left out, because of dates or times such as '2026-01-01 00:00:00'." in found.notes


def test_nothing_but_dates_is_refused(table):
    with pytest.raises(
        DataError, match=r"has no column left to learn from: numbers, .* Column day: left out.*Add such"
    ):
        load(table("day,label\n" + "".join(f"2026-01-{row + 1:02},{row % 2}\n" for row in range(20))))


def test_ten_thousand_columns(table):
    names = ",".join(f"s{column}" for column in range(10_000))
    line = ",".join(["1.5"] * 10_000)
    found = load(table(f"{names},label\n" + "".join(f"{line},{row % 2}\n" for row in range(20))))
    assert found.x.shape == (20, 10_000)


def test_class_for_each_row_is_one_short_error(table):
    with pytest.raises(DataError, match="holds a different label in each of its 3,000 rows") as caught:
        load(table("a,label\n" + "".join(f"{row % 7},name{row}\n" for row in range(3000))))
    assert len(str(caught.value)) < 500


def test_labels_that_are_whole_floats_are_classes(table):
    found = load(table("a,label\n1,\n" + "".join(f"{row},{row % 3}.0\n" for row in range(40))))
    assert found.spec.class_names == ("0", "1", "2")


def test_features_for_prediction_go_by_name(table):
    spec = load(table("a,b,label\n" + FEATURES)).spec
    x, names = load_features(table("extra,b,a\nq,2,1\nr,,3\n"), spec)
    np.testing.assert_array_equal(x, [[1, 2], [3, np.nan]])
    assert names == ("0", "1")


def test_blank_rows_are_predicted_too(table):
    spec = load(table("a,b,label\n" + FEATURES)).spec
    x, _ = load_features(table("a,b\n1,2\n,\n3,4\n"), spec)
    assert x.shape == (3, 2)


def test_features_without_header(table):
    spec = load(table(rows(last=("0", "1"))), ReadOptions(target="c0")).spec
    assert spec.feature_names == ("c1", "c2")
    notes: list[str] = []
    np.testing.assert_array_equal(load_features(table("1,2\n3,4\n"), spec, notes)[0], [[1, 2], [3, 4]])
    assert notes[-1] == "They were taken in the order of the training data: c1, c2."
    np.testing.assert_array_equal(load_features(table("0,1,2\n9,3,4\n"), spec)[0], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,bb\n1,2\n", r"has no column 'b', which the model was trained on\. Its columns: a, bb\. Did you mean 'bb'"),
        ("a,b\nx,2\n", "column 'a' holds text, 'x' in row 0"),
        ("a,b\n", "has no rows below its header. Add the samples to predict"),
    ],
)
def test_features_that_do_not_fit(table, text, message):
    spec = load(table("a,b,label\n" + FEATURES)).spec
    with pytest.raises(DataError, match=message):
        load_features(table(text), spec)


def test_prediction_reads_other_formats_of_the_same_table(table, tmp_path):
    text = "a;b;label\n" + "".join(f"{row};{row},25;{'nä' if row % 2 else 'ja'}\n" for row in range(40))
    spec = load(table(text, encoding="cp1252"), ReadOptions(na="-9")).spec
    expected = [[1, 0.25], [np.nan, 2.5]]
    np.testing.assert_array_equal(load_features(table("a;b\n1;0,25\n-9;2,5\n"), spec)[0], expected)
    np.testing.assert_array_equal(load_features(table("b,a\n0.25,1\n2.5,-9\n", "t.tsv"), spec)[0], expected)
    np.testing.assert_array_equal(load_features(table("1\t0.25\n-9\t2.5\n", encoding="utf-16"), spec)[0], expected)
    pd.DataFrame({"b": [0.25, 2.5], "a": [1, -9]}).to_excel(tmp_path / "t.xlsx", index=False)
    np.testing.assert_array_equal(load_features(str(tmp_path / "t.xlsx"), spec)[0], expected)


def test_dates_in_a_column_of_numbers_cannot_be_predicted(table):
    spec = load(table("a,b,label\n" + FEATURES)).spec
    with pytest.raises(DataError, match="column 'a' holds dates such as '2026-01-02', not numbers as in training"):
        load_features(table("a,b\n2026-01-02,1\n"), spec)


def test_target_names_are_lower_case():
    assert all(name == name.lower() for name in columns.TARGET_NAMES)
