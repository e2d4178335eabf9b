from __future__ import annotations

import numpy as np
import pytest

from tuner.data.dataset import Dataset
from tuner.data.split import make_split, redraw, split_dataset
from tuner.data.stratification import draw_in_proportion
from tuner.errors import DataError
from tuner.records import DataSpec


def label_sets(num_rows, shares, seed=0):
    return (np.random.default_rng(seed).random((num_rows, len(shares))) < shares).astype(np.int8)


def test_every_label_is_drawn_in_proportion():
    y = label_sets(1000, (0.5, 0.3, 0.05, 0.02))
    rest, part = draw_in_proportion(y, 0.15, seed=3)
    assert np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(1000))
    assert abs(len(part) - 150) <= 3
    np.testing.assert_allclose(y[part].sum(axis=0), 0.15 * y.sum(axis=0), atol=1.5)


def test_rare_labels_are_on_both_sides_where_a_random_draw_loses_them():
    lost = np.zeros(2, int)
    for seed in range(20):
        y = label_sets(300, (0.5, 0.5), seed)
        y = np.column_stack([y, np.isin(np.arange(300), (7, 99, 200)), np.isin(np.arange(300), (7, 150, 201))])
        _, part = draw_in_proportion(y, 1 / 3, seed=seed)
        drawn = np.random.default_rng(seed).choice(300, 100, replace=False)
        lost += [np.sum(~y[rows].any(axis=0)) for rows in (part, drawn)]
    assert lost[0] == 0
    assert lost[1] > 0


def test_the_draw_follows_from_the_seed():
    y = label_sets(100, (0.4, 0.2))
    first, again, other = (draw_in_proportion(y, 0.2, seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_rows_without_labels_fill_the_parts():
    y = np.zeros((100, 2), np.int8)
    y[:10] = 1
    rest, part = draw_in_proportion(y, 0.2, seed=0)
    assert (len(rest), len(part)) == (80, 20)
    assert y[part].sum() == 4


def data_of(y, **given):
    x = np.random.default_rng(1).normal(size=(len(y), 3))
    spec = DataSpec("npz", "series", "multilabel", (3,), tuple("abcdefgh"[: y.shape[1]]))
    return Dataset("toy", spec, given.pop("x", x), y, tuple(map(str, range(len(y)))), **given)


def test_parts_have_the_usual_sizes_and_all_labels():
    y = label_sets(400, (0.5, 0.1, 0.02))
    parts = split_dataset(data_of(y), seed=0)
    assert [abs(len(rows) - size) <= 3 for rows, size in ((parts.train, 280), (parts.validation, 60))] == [True, True]
    for rows in (parts.train, parts.validation, parts.test):
        assert y[rows].any(axis=0).all()
    assert not parts.notes


def test_groups_and_copies_are_never_on_two_sides():
    y = label_sets(300, (0.4, 0.2))
    groups = np.arange(300) // 3
    parts = split_dataset(data_of(y, groups=groups), seed=0)
    sides = [set(groups[rows].tolist()) for rows in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 100
    x = np.random.default_rng(1).normal(size=(300, 3))
    x[200:250] = x[:50]
    parts = split_dataset(data_of(y, x=x), seed=0)
    side = np.empty(300, int)
    for number, rows in enumerate((parts.train, parts.validation, parts.test)):
        side[rows] = number
    np.testing.assert_array_equal(side[200:250], side[:50])


def test_few_large_groups_are_kept_whole():
    y = label_sets(120, (0.5, 0.5))
    groups = np.arange(120) // 20
    parts = split_dataset(data_of(y, groups=groups), seed=0)
    assert sum(len(np.unique(groups[rows])) for rows in (parts.train, parts.validation, parts.test)) == 6


def test_a_label_that_a_part_lacks_is_said():
    y = label_sets(60, (0.5, 0.5))
    y = np.column_stack([y, np.arange(60) == 5])
    notes = split_dataset(data_of(y), seed=0).notes
    assert notes == ("The validation part has no sample with c.", "The test part has no sample with c.")


def test_a_part_without_any_label_is_refused():
    y = np.zeros((40, 2), np.int8)
    y[0] = 1
    with pytest.raises(DataError, match="The validation part would have no sample with any label"):
        split_dataset(data_of(y), seed=0)


def test_a_fresh_split_leaves_the_test_part_alone():
    y = label_sets(200, (0.4, 0.2))
    parts = split_dataset(data_of(y), seed=0)
    fresh = redraw(parts, y, task="multilabel", names=("a", "b"), seed=9)
    np.testing.assert_array_equal(fresh.test, parts.test)
    assert fresh.validation.tolist() != parts.validation.tolist()
    assert abs(len(fresh.validation) - len(parts.validation)) <= 2


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="The data has 9 rows"):
        make_split(label_sets(9, (0.5, 0.5)), task="multilabel", seed=0)
