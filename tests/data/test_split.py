from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from tuner.data.split import Split, check_sizes, fingerprint, make_split, min_class_size
from tuner.errors import DataError


def all_rows(split):
    return np.sort(np.concatenate([split.train, split.validation, split.test]))


def test_parts_are_70_15_15_and_stratified():
    y = np.repeat([0, 1], [800, 200])
    split = make_split(y, task="classification", seed=1)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [700, 150, 150]
    assert [int(y[part].sum()) for part in (split.train, split.validation, split.test)] == [140, 30, 30]
    np.testing.assert_array_equal(all_rows(split), np.arange(1000))


def test_it_is_two_plain_calls_of_scikit_learn():
    y = np.arange(90) % 3
    rest, test = train_test_split(np.arange(90), test_size=0.15, random_state=7, stratify=y)
    train, validation = train_test_split(rest, test_size=len(test), random_state=7, stratify=y[rest])
    split = make_split(y, task="classification", seed=7)
    for found, expected in zip((split.train, split.validation, split.test), (train, validation, test), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_seed_decides():
    y = np.arange(100) % 2
    first, again, other = (make_split(y, task="classification", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_own_test_part_is_kept():
    y = np.arange(100) % 2
    test_rows = np.arange(80, 100)
    split = make_split(y, task="classification", seed=0, test_rows=test_rows)
    np.testing.assert_array_equal(split.test, test_rows)
    assert (len(split.train), len(split.validation)) == (68, 12)
    np.testing.assert_array_equal(all_rows(split), np.arange(100))


def test_regression_is_not_stratified():
    split = make_split(np.linspace(0, 1, 100), task="regression", seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (70, 15, 15)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    counts=st.lists(st.integers(3, 12), min_size=2, max_size=12), seed=st.integers(0, 9), own_test=st.booleans()
)
def test_what_passes_the_check_can_be_split(counts, seed, own_test):
    y = np.repeat(np.arange(len(counts)), counts)
    test_rows = np.unique(y, return_index=True)[1] if own_test else None
    try:
        check_sizes(y, task="classification", test_rows=test_rows)
    except DataError:
        return
    split = make_split(y, task="classification", seed=seed, test_rows=test_rows)
    np.testing.assert_array_equal(all_rows(split), np.arange(len(y)))
    assert set(y[split.train]) == set(range(len(counts)))


def test_smallest_class_size_is_exact():
    least = min_class_size(has_test_part=False)
    make_split(np.repeat([0, 1], [40, least]), task="classification", seed=0)
    with pytest.raises(DataError, match=r"too few samples to be split.*: 1 has 2; each needs at least 3"):
        make_split(np.repeat([0, 1], [40, least - 1]), task="classification", seed=0)


def test_smallest_class_size_with_own_test_part():
    y = np.repeat([0, 1], [40, 4])
    assert len(make_split(y, task="classification", seed=0, test_rows=np.array([0, 40, 41])).train) == 34
    with pytest.raises(DataError, match="1 has 1; each needs at least 2"):
        make_split(y, task="classification", seed=0, test_rows=np.array([0, 40, 41, 42]))


def test_small_classes_are_named():
    with pytest.raises(DataError, match="cat has 1, dog has 2; each needs at least 3"):
        check_sizes(np.repeat([0, 1, 2], [1, 2, 40]), task="classification", class_names=("cat", "dog", "cow"))


def test_fewer_samples_than_classes_can_have():
    # 14 rows give a test part of 3, the least that three classes need; 13 give 2.
    check_sizes(np.arange(14) % 3, task="classification")
    with pytest.raises(DataError, match=r"13 samples are too few for 3 classes \(0, 1, 2\): at least 14 are needed"):
        check_sizes(np.arange(13) % 3, task="classification")


def test_many_classes_are_cut_short_in_the_message():
    with pytest.raises(DataError, match=r"50 samples are too few for 50 classes .* and 40 more"):
        check_sizes(np.arange(50), task="classification")


def test_regression_rows():
    check_sizes(np.arange(10.0), task="regression")
    with pytest.raises(DataError, match="The data has 9 rows to learn from; at least 10"):
        check_sizes(np.arange(9.0), task="regression")


def test_fingerprint_is_known_and_depends_on_everything():
    x, y = np.arange(12, dtype=np.uint8).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    split = Split(np.array([0, 1, 2, 3]), np.array([4]), np.array([5]))
    first = fingerprint(x, y, split)
    assert first == fingerprint(np.asfortranarray(x), y.copy(), split)
    assert len(first) == 64
    changed = x.copy()
    changed[3, 1] += 1
    others = {
        fingerprint(changed, y, split),
        fingerprint(x.astype(np.int16), y, split),
        fingerprint(x.reshape(6, 2, 1), y, split),
        fingerprint(x, 1 - y, split),
        fingerprint(x, y, Split(split.train, split.test, split.validation)),
    }
    assert len(others | {first}) == 6


def test_fingerprint_of_a_memory_map_is_the_same(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "x.npy", x)
    split = Split(np.arange(40), np.arange(40, 45), np.arange(45, 50))
    assert fingerprint(np.load(tmp_path / "x.npy", mmap_mode="r"), x[:, 0], split) == fingerprint(x, x[:, 0], split)
