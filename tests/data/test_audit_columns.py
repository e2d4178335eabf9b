"""Checks of the audit that look at single columns, at the target, and at series as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.audited import found, normal, table
from tuner.data.audit import propose, registry
from tuner.data.split import Split

CLASSES = np.arange(400) % 2
NUMBERS = np.random.default_rng(9).normal(10, 3, 400)


def numbers(y, x=None):
    return found(*table(normal(len(y)) if x is None else x, y, task="regression"))


@pytest.mark.parametrize(("low", "is_found"), [(20, True), (3, False)], ids=["far from the others", "among the others"])
def test_zeros_are_doubted_where_no_other_value_comes_near(low, is_found):
    x = normal()
    x[:, 2] = np.random.default_rng(1).uniform(low, low + 10, 400)
    x[::20, 2] = 0
    findings = found(*table(x, CLASSES))
    assert ("zero_codes" in findings) == is_found
    if is_found:
        assert findings["zero_codes"].where == "c"
        assert findings["zero_codes"].evidence["worst_column_frac"] == 0.05


def test_zeros_of_counts_flags_and_half_empty_columns_are_numbers():
    x = normal()
    x[:, 0] = np.arange(400) % 3 == 0
    x[:, 1] = np.random.default_rng(1).poisson(2, 400)
    x[:, 2] = np.where(np.arange(400) % 3 > 0, 0, x[:, 2] + 50)
    assert "zero_codes" not in found(*table(x, CLASSES))


def test_codes_are_told_with_the_option_that_empties_them():
    x = normal()
    x[:9, 1] = -200
    assert found(*table(x, CLASSES))["sentinel_values"].remedies[0].change == "--na -200"


def test_a_series_that_never_changes():
    x = np.random.default_rng(0).normal(size=(1000, 16, 2))
    x[7, :, 1] = 3
    data = table(x, np.arange(1000) % 2, form="npz")
    finding = found(*data)["constant_series"]
    assert (finding.examples, finding.evidence["num_flat"]) == (("row 7",), 1)
    assert "constant_series" not in found(*table(np.concatenate([x, x[8:10]]), np.arange(1002) % 2, form="npz"))
    # Few columns are a table, and a channel that is constant everywhere is another finding.
    assert "constant_series" not in found(*table(x[:, :15], np.arange(1000) % 2, form="npz"))
    x[:, :, 1] = 3
    assert "constant_series" not in found(*table(x, np.arange(1000) % 2, form="npz"))


def test_padding_is_no_constant():
    x = np.random.default_rng(0).normal(size=(60, 20, 2))
    x[::2, 9:] = np.nan
    assert "constant_series" not in found(*table(x, np.arange(60) % 2, form="npz"))


def test_healthy_targets_are_quiet():
    assert numbers(NUMBERS) == {}


def test_targets_far_out_and_skewed():
    # Quartiles of 0..399 are 99.75 and 299.25: far out is beyond 897.75.
    y = np.random.default_rng(0).permutation(np.arange(400.0))
    for value, is_far in ((897.0, False), (898.0, True)):
        findings = numbers(np.where(y == 399, value, y))
        assert ("target_outliers" in findings) == is_far
    assert findings["target_outliers"].evidence["num_outliers"] == 1
    assert findings["target_outliers"].where == "y"
    skewed = numbers(np.exp(NUMBERS / 3))["target_skew"]
    assert skewed.evidence["skewness"] > 2


def test_a_code_among_the_targets():
    y = NUMBERS.copy()
    y[:40] = -200
    finding = numbers(y)["target_sentinel"]
    assert finding.evidence["code_frac"] == 0.1
    assert finding.remedies[0].change == "--na -200"
    assert finding.severity >= 0.9
    y[1:40] = NUMBERS[1:40]
    assert numbers(y)["target_sentinel"].severity < 0.9
    assert "target_sentinel" not in numbers(np.linspace(-300, 300, 400))


@pytest.mark.parametrize(("num_values", "is_found"), [(10, True), (11, False)])
def test_a_target_of_few_values_may_be_classes(num_values, is_found):
    y = np.random.default_rng(0).permutation(np.arange(440) % num_values).astype(float)
    assert ("few_target_values" in numbers(y)) == is_found


def test_few_values_of_few_rows_are_numbers():
    y = np.random.default_rng(0).permutation(np.arange(190) % 10).astype(float)
    assert "few_target_values" not in numbers(y)


def test_a_column_that_gives_the_label_away():
    x = normal()
    x[:, 3] = 7 - CLASSES * 3
    finding = found(*table(x, CLASSES))["giveaway_column"]
    assert (finding.where, finding.evidence["score"]) == ("d", 1.0)
    assert "gives the label away" in finding.cause
    assert finding.remedies[0].change == "--drop d"
    # The same without order: a code of the class that no threshold divides.
    y = np.arange(400) % 3
    x[:, 3] = np.array([5.0, 1.0, 3.0])[y]
    assert found(*table(x, y))["giveaway_column"].where == "d"


@pytest.mark.parametrize(("wrong", "is_found"), [(0.03, True), (0.09, False)])
def test_a_column_that_nearly_gives_the_label_away(wrong, is_found):
    x, y = normal(2000), np.arange(2000) % 2
    is_wrong = np.random.default_rng(3).random(2000) < wrong
    x[:, 1] = np.where(is_wrong, 1 - y, y)
    findings = found(*table(x, y))
    assert ("giveaway_column" in findings) == is_found
    if is_found:
        assert "nearly gives the label away" in findings["giveaway_column"].cause


def test_several_good_columns_give_nothing_away():
    y = np.arange(2000) % 2
    x = normal(2000)
    x[:, :3] += 8 * y[:, np.newaxis]
    assert "giveaway_column" not in found(*table(x, y))


def test_a_column_that_gives_the_target_away():
    x = normal()
    x[:, 0] = 3 * NUMBERS + 1
    assert numbers(NUMBERS, x)["giveaway_column"].where == "a"
    x[:, 0] += np.random.default_rng(2).normal(0, 4, 400)
    assert "giveaway_column" not in numbers(NUMBERS, x)


@pytest.mark.parametrize(
    ("column", "is_found"),
    [
        (np.arange(400.0), True),
        (1000 + np.random.default_rng(0).permutation(np.arange(400.0)), True),
        (np.sort(np.random.default_rng(0).random(400)), True),
        (np.random.default_rng(0).permutation(np.arange(400.0)) * 3, False),
        (np.random.default_rng(0).random(400), False),
        (np.arange(400.0) // 2, False),
    ],
    ids=["row number", "identifier", "time", "sparse numbers", "measurement", "not unique"],
)
def test_identifiers(column, is_found):
    x = normal()
    x[:, 1] = column
    findings = found(*table(x, np.random.default_rng(1).permutation(CLASSES)))
    assert ("identifier_columns" in findings) == is_found
    if is_found:
        assert findings["identifier_columns"].remedies[0].change == "--drop b"


def test_what_the_search_starts_from_is_seen_in_training_rows_alone():
    split = Split(np.arange(300), np.arange(300, 350), np.arange(350, 400))
    x = normal()
    x[320:, 1] = 1e6
    dataset, _ = table(x, CLASSES)
    assert "outliers" in found(dataset, split)
    assert propose(dataset, split) == ()
    x[:30, 1] = 1e6
    assert "outliers" in {finding.code for finding in propose(dataset, split)}


def test_codes_are_those_of_the_findings():
    codes = [check.code for check in registry.CHECKS]
    assert len(codes) == len(set(codes))


def test_a_giveaway_is_found_among_hundreds_of_columns():
    y = np.random.default_rng(2).permutation(np.arange(300) % 3)
    x = np.random.default_rng(0).normal(size=(300, 600))
    x[:, 345] = np.array([5.0, 1.0, 3.0])[y]
    findings = found(*table(x, y))
    assert findings["giveaway_column"].where == "step 345"
    x[:, 345] = np.random.default_rng(1).normal(size=300)
    assert "giveaway_column" not in found(*table(x, y))
