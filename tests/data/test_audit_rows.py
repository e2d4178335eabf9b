"""Checks of the audit that look at rows: their labels, their order, the parts that they were dealt to."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.audited import found, normal, table
from tuner.data.audit import order
from tuner.data.split import Split

RANDOM = np.random.default_rng(5)
CLASSES = RANDOM.permutation(np.arange(400) % 2)


def apart(y, *, distance=8.0):
    """Samples of classes that are told apart."""
    return normal(len(y)) + distance * np.eye(4)[y % 4]


@pytest.mark.parametrize(("num_wrong", "is_found"), [(0, False), (19, False), (50, True)])
def test_wrong_labels(num_wrong, is_found):
    truth = RANDOM.permutation(np.arange(1000) % 2)
    y = truth.copy()
    wrong = RANDOM.choice(1000, num_wrong, replace=False)
    y[wrong] = 1 - y[wrong]
    findings = found(*table(apart(truth, distance=12), y))
    assert ("label_errors" in findings) == is_found
    if is_found:
        named = {f"row {row}" for row in wrong}
        assert set(findings["label_errors"].examples) <= named
        assert findings["label_errors"].evidence["num_doubted"] >= 0.5 * num_wrong


def test_labels_that_nothing_tells_are_not_doubted():
    assert found(*table(normal(), CLASSES)) == {}


def walk(count, *, seed=0):
    """Columns that change slowly, as those of a recording do, and come back to their mean."""
    steps = np.random.default_rng(seed).normal(size=(count, 4))
    for row in range(1, count):
        steps[row] += 0.97 * steps[row - 1]
    return steps


def test_labels_in_runs_with_rows_alike_leak_through_a_random_split():
    y = np.arange(2000) // 100 % 2
    finding = found(*table(walk(2000), y))["time_leak"]
    assert finding.evidence["num_runs"] == 20
    assert finding.evidence["random_score"] - finding.evidence["blocks_score"] > order.LEAK_GAP
    assert finding.remedies[0].change == "--split time"


def test_targets_that_resemble_the_next_leak_through_a_random_split():
    y = walk(1000, seed=1)[:, 0]
    assert "time_leak" in found(*table(walk(1000), y, task="regression"))
    assert "time_leak" not in found(*table(walk(1000), RANDOM.permutation(y), task="regression"))


def test_there_is_no_such_leak_without_runs_or_likeness_or_with_a_split_in_time():
    y = np.arange(2000) // 100 % 2
    assert "time_leak" not in found(*table(walk(2000), RANDOM.permutation(y)))
    assert "time_leak" not in found(*table(apart(y), y))
    assert "time_leak" not in found(*table(walk(2000), y, order=np.arange(2000.0)))


@pytest.mark.parametrize(("num_runs", "is_sorted"), [(3, True), (4, False)])
def test_rows_sorted_by_label(num_runs, is_sorted):
    y = np.arange(400) * num_runs // 400 % 2
    assert ("sorted_labels" in found(*table(normal(), y))) == is_sorted


def test_files_of_class_folders_are_sorted_by_nature():
    assert "sorted_labels" not in found(*table(normal(), np.sort(CLASSES), form="sequence_folder"))


@pytest.mark.parametrize(("shift", "is_found"), [(0.0, False), (1.5, False), (7.0, True)])
def test_values_that_move_along_the_rows(shift, is_found):
    x = normal()
    x[:, 2] += np.linspace(0, shift, 400)
    findings = found(*table(x, CLASSES))
    assert ("drift" in findings) == is_found
    if is_found:
        assert findings["drift"].where == "c"
        assert findings["drift"].evidence["largest_distance"] > order.DRIFT_DISTANCE


def test_distances_are_those_of_scipy():
    from scipy.stats import ks_2samp

    first, last = normal(50).round(), normal(70, seed=1).round() + 1
    expected = [ks_2samp(a, b).statistic for a, b in zip(first.T, last.T, strict=True)]
    np.testing.assert_allclose(order.ks_distances(first, last), expected)
    assert order.ks_distances(first, first).max() < 1e-12
    holes = np.where(np.arange(50)[:, np.newaxis] < 25, np.nan, first)
    assert order.ks_distances(first, holes).min() >= 0.5 - 1e-9


@pytest.mark.parametrize(("shift", "is_found"), [(0.0, False), (0.5, False), (4.0, True)])
def test_parts_that_differ(shift, is_found):
    x = normal()
    x[340:, 3] += shift
    split = Split(np.arange(280), np.arange(280, 340), np.arange(340, 400), is_drawn=False)
    findings = found(*table(x, CLASSES, split=split))
    assert ("shifted_parts" in findings) == is_found
    if is_found:
        assert findings["shifted_parts"].where == "d"
        assert "test part is unlike" in findings["shifted_parts"].cause
        assert findings["shifted_parts"].evidence["validation_auc"] < order.SHIFT_AUC


def with_copies(count, *, shift, columns=4):
    """Rows of which the last ones repeat the first, moved by so many interquartile ranges in each column."""
    x = normal()
    low, high = np.quantile(x, [0.25, 0.75], axis=0)
    x[400 - count :] = x[:count] + shift * (high - low) * (np.arange(4) < columns)
    return x


@pytest.mark.parametrize(
    ("count", "shift", "is_found"),
    [(2, 0.9e-4, True), (1, 0.9e-4, False), (40, 0.9e-4, True), (40, 1.2e-4, False), (40, 1e-9, True)],
)
def test_rows_equal_but_for_rounding_have_two_sides(count, shift, is_found):
    """`NEAR_IQR` and `DUPLICATE_FRAC`: two of 400 rows are enough, one is not."""
    findings = found(*table(with_copies(count, shift=shift), CLASSES))
    assert ("near_copies" in findings) == is_found
    if is_found:
        assert findings["near_copies"].evidence["num_near_copies"] == count
        assert findings["near_copies"].examples[0] == f"row {400 - count}"


def test_exact_copies_are_no_near_ones_and_missing_values_are_compared():
    assert "near_copies" not in found(*table(with_copies(40, shift=0.0), CLASSES))
    x = with_copies(40, shift=1e-6)
    x[:10, 1] = np.nan
    assert found(*table(x, CLASSES))["near_copies"].evidence["num_near_copies"] == 30


def with_copies_but_one(
    count, *, column=0, cell=lambda size: np.random.default_rng(2).normal(size=size), num_columns=5
):
    """400 rows, of which the last `count` equal the first in all columns but one."""
    x = np.random.default_rng(1).normal(size=(400, num_columns))
    x[400 - count :] = x[:count]
    x[400 - count :, column] = cell(count)
    return x


@pytest.mark.parametrize(("count", "is_found"), [(1, False), (2, True), (40, True)])
def test_rows_equal_in_all_columns_but_one_have_two_sides(count, is_found):
    """`DUPLICATE_FRAC`: two of 400 rows are enough, one is not."""
    findings = found(*table(with_copies_but_one(count, column=3), CLASSES))
    assert ("copies_but_one" in findings) == is_found
    if is_found:
        finding = findings["copies_but_one"]
        assert finding.evidence["num_copies_but_one"] == count
        assert finding.examples[0] == f"row {400 - count}"
        assert finding.where in finding.cause
        assert [remedy.change for remedy in finding.remedies][1] == f"--drop {finding.where}"


def test_rows_with_a_number_of_their_own_are_copies_but_one():
    x = with_copies_but_one(40)
    x[:, 0] = np.arange(400)
    assert found(*table(x, CLASSES))["copies_but_one"].evidence["num_copies_but_one"] == 40


def test_rows_equal_but_for_rounding_or_entirely_or_in_two_columns_less_are_no_copies_but_one():
    same, shifted = with_copies_but_one(40, cell=lambda size: 0.0), with_copies_but_one(40)
    same[-40:, 0] = same[:40, 0]
    assert "copies_but_one" not in found(*table(same, CLASSES))
    same[-40:, 0] += 1e-6
    assert "copies_but_one" not in found(*table(same, CLASSES))
    shifted[-40:, 1] += 1
    assert "copies_but_one" not in found(*table(shifted, CLASSES))


@pytest.mark.parametrize(("num_columns", "is_found"), [(3, False), (4, True)])
def test_rows_that_share_few_fine_values_are_no_copies_but_one(num_columns, is_found):
    """`MIN_FINE_COLUMNS` beside the one that differs; missing and coarse values are shared by chance."""
    x = with_copies_but_one(40, num_columns=num_columns)
    assert ("copies_but_one" in found(*table(x, CLASSES))) == is_found
    coarse = np.hstack([with_copies_but_one(40, num_columns=3), np.arange(400)[:, np.newaxis] % 2 * [1.0, 2.0]])
    assert "copies_but_one" not in found(*table(coarse, CLASSES))
    gaps = with_copies_but_one(40, num_columns=4)
    gaps[:, 2] = np.where(np.arange(400) % 360 < 40, np.nan, gaps[:, 2])
    assert "copies_but_one" not in found(*table(gaps, CLASSES))


def test_columns_of_few_values_make_no_near_copies():
    """`MIN_FINE_COLUMNS`: rows of two fine columns may be near by chance; `FINE_FRAC`: those of few values are not."""
    x = with_copies(40, shift=1e-6)
    assert "near_copies" in found(*table(np.round(x) * [1, 0, 0, 0] + x * [0, 1, 1, 1], CLASSES))
    assert "near_copies" not in found(*table(np.round(x) * [1, 1, 0, 0] + x * [0, 0, 1, 1], CLASSES))
