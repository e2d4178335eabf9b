from __future__ import annotations

import numpy as np
import pytest

from tuner.data import labels
from tuner.errors import DataError


def encode(values, task="auto", names=()):
    return labels.encode(np.asarray(values), task=task, where="column 'y' of 'a.csv'", names=names)


def test_text_is_classified_in_sorted_order():
    found = encode(["cat", "ant", "cat"])
    assert (found.task, found.class_names, found.y.tolist()) == ("classification", ("ant", "cat"), [1, 0, 1])
    assert found.y.dtype == np.int64
    assert not found.notes


def test_booleans_are_classified():
    assert encode([True, False, True]).class_names == ("False", "True")


def test_whole_floats_are_classes_without_a_decimal_point():
    assert encode([1.0, 3.0, 1.0]).class_names == ("1", "3")


def test_mixed_objects_are_compared_as_text():
    found = labels.encode(np.array([1, "a", 2.0, "a"], dtype=object), task="auto", where="y")
    assert found.class_names == ("1", "2", "a")


def test_bytes_are_read_as_text():
    assert labels.encode(np.array([b"a", b"b"], dtype=object), task="auto", where="y").class_names == ("a", "b")


def test_fractions_are_regression_and_said():
    found = encode([0.5, 1.0, 2.0])
    assert (found.task, found.class_names, found.y.dtype) == ("regression", (), np.float64)
    assert "regression" in found.notes[0]


def test_few_distinct_integers_are_classes_up_to_the_limit():
    # Gaps (multiples of 3) keep the rule of codes without a gap out of it.
    few = np.repeat(np.arange(labels.FEW_CLASSES) * 3, 2)
    many = np.repeat(np.arange(labels.FEW_CLASSES + 1) * 3, 2)
    assert encode(few).task == "classification"
    assert encode(many).task == "regression"


def test_codes_without_gap_are_classes_if_each_has_enough_rows():
    codes = np.arange(100)
    assert encode(np.repeat(codes, labels.CODE_ROWS_PER_CLASS)).task == "classification"
    assert encode(np.repeat(codes, labels.CODE_ROWS_PER_CLASS)[1:]).task == "regression"
    assert encode(np.repeat(codes + 1, labels.CODE_ROWS_PER_CLASS)).task == "regression"


def test_task_overrides_the_guess():
    assert encode([1, 2, 3], task="regression").y.tolist() == [1.0, 2.0, 3.0]
    assert encode([0.5, 1.5], task="classification").class_names == ("0.5", "1.5")


def test_regression_reads_numbers_written_as_text():
    assert encode(["1.5", "2"], task="regression").y.tolist() == [1.5, 2.0]


def test_regression_refuses_text_with_example_and_row():
    with pytest.raises(DataError, match=r"Column 'y' of 'a.csv' holds text such as 'big' \(row 1\)"):
        encode(["1", "big"], task="regression")


def test_regression_refuses_a_constant():
    with pytest.raises(DataError, match="holds only the value 2: there is nothing to learn"):
        encode([2, 2], task="regression")


def test_one_class_is_refused():
    with pytest.raises(DataError, match=r"holds only the class 'a'\. A classifier needs samples of at least two"):
        encode(["a", "a"])


def test_no_values_are_refused():
    with pytest.raises(DataError, match="holds no values"):
        labels.encode(np.array([], dtype=object), task="auto", where="y")


def test_names_of_codes():
    found = encode([0, 2, 2], names=("a", "b", "c"))
    assert (found.class_names, found.y.tolist()) == (("a", "c"), [0, 1, 1])


@pytest.mark.parametrize(("values", "strange"), [([0, 3], "3"), ([-1, 1], "-1"), ([0.5, 1], "0.5"), (["a", "b"], "a")])
def test_codes_without_name_are_refused(values, strange):
    with pytest.raises(DataError, match=f"holds '{strange}', but class_names has 3 names.*from 0 to 2"):
        encode(values, names=("a", "b", "c"))


def test_missing_targets():
    assert labels.is_missing(np.array([1.0, np.nan, np.inf])).tolist() == [False, True, True]
    assert labels.is_missing(np.array(["a"])).tolist() == [False]


def test_several_values_for_one_sample_are_refused():
    with pytest.raises(DataError, match=r"has shape \(2, 2\); one class or number for each sample was expected"):
        encode([[0, 1], [1, 0]])
    with pytest.raises(DataError, match="holds one value for each sample, and --task multilabel needs several"):
        encode([0, 1], task="multilabel")
    assert labels.is_missing(np.array([[1.0, np.nan], [0, 1]])).tolist() == [True, False]
