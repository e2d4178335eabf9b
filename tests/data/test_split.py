from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from tuner.data import duplicates
from tuner.data.dataset import Dataset
from tuner.data.split import (
    FEW_IN_PART,
    Split,
    check_sizes,
    fingerprint,
    make_split,
    min_class_size,
    redraw,
    split_dataset,
)
from tuner.errors import DataError
from tuner.records import DataSpec


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


def parts_of(split):
    return split.train, split.validation, split.test


def dataset_of(x, y, **known):
    x, y = np.asarray(x), np.asarray(y)
    task = "regression" if y.dtype.kind == "f" else "classification"
    names = () if task == "regression" else tuple(f"c{code}" for code in range(int(y.max()) + 1))
    kind = "text" if x.dtype == object else "image" if x.ndim == 4 else "series"
    spec = DataSpec("npz", kind, task, x.shape[1:], names)
    return Dataset("d", spec, x, y, tuple(f"r{row}" for row in range(len(x))), **known)


def numbers(num_rows, seed=0):
    return np.random.default_rng(seed).normal(size=(num_rows, 4))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("num_groups", [3, 6, 20, 300])
def test_groups_stay_on_one_side(task, num_groups):
    groups = np.arange(600) % num_groups
    y = np.repeat([0, 1], 300) if task == "classification" else np.linspace(0, 1, 600)
    split = make_split(y, task=task, seed=0, groups=groups)
    found = [set(groups[part].tolist()) for part in parts_of(split)]
    assert all(found)
    assert sum(map(len, found)) == num_groups
    np.testing.assert_array_equal(all_rows(split), np.arange(600))
    sizes = [len(part) / 600 for part in parts_of(split)]
    np.testing.assert_allclose(sizes, [1 / 3] * 3 if num_groups == 3 else [0.7, 0.15, 0.15], atol=0.05)
    again, other = (make_split(y, task=task, seed=seed, groups=groups) for seed in (0, 1))
    np.testing.assert_array_equal(split.test, again.test)
    assert num_groups < 6 or not np.array_equal(split.test, other.test)


def test_groups_have_the_classes_in_proportion():
    groups = np.repeat(np.arange(12), 50)
    y = np.tile(np.repeat([0, 1], [40, 10]), 12)
    for part in parts_of(make_split(y, task="classification", seed=0, groups=groups)):
        assert y[part].mean() == pytest.approx(0.2)


@pytest.mark.parametrize("largest", [FEW_IN_PART, FEW_IN_PART + 1])
def test_few_large_groups_are_chosen_and_many_small_ones_drawn(largest):
    """A part of 100 rows has 15: room for five groups of 3, not for three times the largest of 6."""
    groups = np.concatenate([np.zeros(largest, int), 1 + np.arange(100 - largest)])
    split = make_split(np.arange(100) % 2, task="classification", seed=0, groups=groups)
    assert {len(set(groups[part].tolist()) & {0}) for part in parts_of(split)} == {0, 1}
    assert abs(len(split.test) - 15) <= largest


def test_too_few_groups_are_refused():
    y = np.arange(60) % 2
    with pytest.raises(DataError, match=r"only 1 is left to divide\. Choose another --group with at least three"):
        make_split(y, task="classification", seed=0, groups=np.zeros(60, int))
    with pytest.raises(DataError, match="only 1 is left to divide"):
        make_split(y, task="classification", seed=0, groups=np.arange(60) // 30)
    make_split(y, task="classification", seed=0, groups=np.arange(60) // 20)


def test_classes_that_a_part_to_judge_by_lacks_are_said():
    x, y = numbers(120), np.concatenate([np.arange(110) % 2, np.full(10, 2)])
    groups = np.concatenate([np.arange(110) % 7, np.full(10, 0)])
    notes = [note for seed in range(30) for note in _notes_or_none(dataset_of(x, y, groups=groups), seed)]
    assert "The test part has no sample of class c2." in notes


def _notes_or_none(dataset, seed):
    try:
        return split_dataset(dataset, seed=seed).notes
    except DataError:
        return ()


def test_split_in_time():
    order = np.random.default_rng(0).permutation(100).astype(float)
    split = split_dataset(dataset_of(numbers(100), order % 2 == 0 + np.zeros(100, int), order=order), seed=0)
    assert [len(part) for part in parts_of(split)] == [70, 15, 15]
    assert order[split.train].max() < order[split.validation].min()
    assert order[split.validation].max() < order[split.test].min()
    assert split.notes[0].startswith("Split in time: the first rows to train")


@pytest.mark.parametrize(("stride", "num_gone"), [(10, 0), (5, 2), (2, 8), (1, 18)])
def test_windows_of_different_parts_do_not_overlap(stride, num_gone):
    starts = np.arange(0, 1000, stride, dtype=float)
    y = np.arange(len(starts)) % 2
    split = split_dataset(dataset_of(numbers(len(starts)), y, order=starts, span=10.0), seed=0)
    assert starts[split.train].max() + 10 <= starts[split.validation].min()
    assert starts[split.validation].max() + 10 <= starts[split.test].min()
    assert len(all_rows(split)) == len(starts) - num_gone
    assert (len(split.notes) == 2) == (num_gone > 0)


def test_splits_in_time_that_cannot_teach_or_judge():
    order = np.arange(100.0)
    with pytest.raises(DataError, match=r"The validation part would have 1 of 2 classes \(without c0\)"):
        split_dataset(dataset_of(numbers(100), np.repeat([0, 1], 50), order=order), seed=0)
    y = np.concatenate([np.arange(80) % 2, np.arange(20) % 3])
    with pytest.raises(DataError, match=r"The training part would have 2 of 3 classes \(without c2\)"):
        split_dataset(dataset_of(numbers(100), y, order=order), seed=0)
    with pytest.raises(DataError, match="leaves nothing to train on"):
        split_dataset(dataset_of(numbers(100), np.linspace(0, 1, 100), order=order, span=99.0), seed=0)


def test_given_parts_stay_and_time_rules_the_rest():
    given = np.arange(90, 100)
    order = np.append(np.arange(90.0), np.full(10, np.nan))
    split = split_dataset(dataset_of(numbers(100), np.arange(100) % 2, order=order, validation_rows=given), seed=0)
    np.testing.assert_array_equal(split.validation, given)
    np.testing.assert_array_equal(split.test, np.arange(76, 90))
    np.testing.assert_array_equal(split.train, np.arange(76))


@pytest.mark.parametrize("given", [{"test_rows": np.arange(20)}, {"validation_rows": np.arange(20)}])
def test_given_parts_stay(given):
    split = make_split(np.arange(100) % 2, task="classification", seed=0, **given)
    (name, rows), *_ = given.items()
    np.testing.assert_array_equal(getattr(split, name.removesuffix("_rows")), rows)
    assert [len(part) for part in parts_of(split)] in ([68, 12, 20], [68, 20, 12])


def test_without_groups_time_or_copies_it_is_the_plain_split():
    x, y = numbers(100), np.arange(100) % 2
    found, plain = split_dataset(dataset_of(x, y), seed=3), make_split(y, task="classification", seed=3)
    assert found.notes == ()
    for part, expected in zip(parts_of(found), parts_of(plain), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_copies_are_on_one_side():
    x, y = numbers(200), np.arange(200) % 2
    x[100:140] = x[:40]
    for seed in range(5):
        split = split_dataset(
            dataset_of(
                x,
                y,
            ),
            seed=seed,
        )
        side = np.empty(200, int)
        for number, part in enumerate(parts_of(split)):
            side[part] = number
        np.testing.assert_array_equal(side[100:140], side[:40])
        assert split.notes == ("40 samples are (nearly) copies of others; copies are on one side of the split.",)
        assert abs(len(split.test) - 30) <= 6


def test_training_copies_of_a_given_part_are_not_learned_from():
    x, y = numbers(100), np.arange(100) % 2
    x[:3] = x[97:]
    y[:3] = y[97:]
    split = split_dataset(dataset_of(x, y, test_rows=np.arange(90, 100)), seed=0)
    assert not set(split.train.tolist()) & {0, 1, 2}
    assert "copies of samples of the given parts and are not learned from: r" in split.notes[0]
    np.testing.assert_array_equal(split.test, np.arange(90, 100))


def test_groups_of_each_part_are_said():
    groups = np.arange(120) // 20
    split = split_dataset(dataset_of(numbers(120), np.arange(120) % 2, groups=groups), seed=0)
    assert split.notes == ("Split by groups (--group): 4 to train, 1 to validate, 1 to test, none in two.",)


@pytest.mark.parametrize("step", [1, 1000])
def test_groups_that_share_copies_are_one_group_whatever_their_codes(step):
    x, y = numbers(120), np.arange(120) % 2
    groups = np.arange(120) // 20 * step
    x[0] = x[20]
    split = split_dataset(dataset_of(x, y, groups=groups), seed=0)
    part_of = [next(n for n, part in enumerate(parts_of(split)) if row in part) for row in (0, 20)]
    assert part_of[0] == part_of[1]
    assert [note.split(" ")[0] for note in split.notes] == ["Split", "1"]


@pytest.mark.parametrize(("num_copies", "are_joined"), [(100, True), (101, False)])
def test_data_of_few_values_are_no_copies(num_copies, are_joined):
    x = numbers(200)
    x[:num_copies] = x[-1]
    assert (duplicates.copies(dataset_of(x, np.arange(200) % 2)) is not None) == are_joined


def test_copies_of_texts():
    texts = ["Call 0900 now!", "call 0901, NOW", "something else", "!!!", "???", "call now"]
    x = np.array(texts, dtype=object)
    codes = duplicates.copies(dataset_of(x, np.arange(6) % 2))
    assert codes is not None
    assert (codes[0] == codes[1], len(np.unique(codes))) == (True, 5)


def pictures(count, seed=0):
    """Blobs, as smooth as photographs."""
    coarse = np.random.default_rng(seed).normal(size=(count, 6, 6))
    smooth = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8)[..., np.newaxis]


def test_near_copies_of_images():
    from PIL import Image

    x = pictures(40)
    brighter = np.clip(x[:1].astype(int) * 0.8 + 30, 0, 255).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(x[1, ..., 0]).resize((24, 24)).resize((48, 48)))[np.newaxis, ..., np.newaxis]
    codes = duplicates.copies(dataset_of(np.concatenate([x, brighter, smaller]), np.arange(42) % 2))
    assert codes is not None
    assert (codes[40] == codes[0], codes[41] == codes[1], len(np.unique(codes))) == (True, True, 40)
    assert duplicates.copies(dataset_of(x, np.arange(40) % 2)) is None
    assert (
        duplicates.copies(
            dataset_of(
                np.zeros((40, 9, 9, 1), np.uint8) + np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1),
                np.arange(40) % 2,
            )
        )
        is None
    )


def test_near_pairs_are_those_of_a_full_comparison():
    # More than one block of them.
    x = np.concatenate([pictures(700), pictures(700)])
    noise = np.random.default_rng(1).normal(0, 9, x.shape)
    x = np.clip(x + noise, 0, 255).astype(np.uint8)
    found = {tuple(sorted(pair)) for pair in duplicates.near_images(x).tolist()}
    thumbnails = x.reshape(1400, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(1400, -1)
    correlation = np.corrcoef(thumbnails)
    expected = {tuple(pair) for pair in np.argwhere(np.triu(correlation, 1) >= duplicates.NEAR_CORRELATION).tolist()}
    assert found == expected
    assert found


def test_fingerprint_of_texts():
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    y = np.arange(3)
    first, second = (np.array(texts, dtype=object) for texts in (["a", "b", "c"], ["a", "b", "d"]))
    assert fingerprint(first, y, split) == fingerprint(first.copy(), y, split)
    assert fingerprint(first, y, split) != fingerprint(second, y, split)


def test_redrawn_parts_are_other_rows_of_the_same_two_parts_and_the_test_part_stays() -> None:
    y = np.arange(200) % 4
    parts = make_split(y, task="classification", seed=0)
    drawn, again, other = (
        redraw(parts, y, task="classification", names=tuple("abcd"), seed=seed) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(drawn.test, parts.test)
    assert len(drawn.validation) == len(parts.validation)
    both = [np.sort(np.concatenate([each.train, each.validation])) for each in (parts, drawn)]
    np.testing.assert_array_equal(*both)
    np.testing.assert_array_equal(drawn.validation, again.validation)
    assert set(drawn.validation) != set(other.validation)
    assert np.bincount(y[drawn.validation]).min() >= 7


def test_redrawn_parts_keep_together_what_belongs_together() -> None:
    y = np.arange(240) % 2
    groups = np.arange(240) // 4
    parts = dataclasses.replace(make_split(y, task="classification", seed=0, groups=groups), together=groups)
    drawn = redraw(parts, y, task="classification", names=("a", "b"), seed=3)
    assert not set(groups[drawn.train]) & set(groups[drawn.validation])
    assert set(drawn.validation) != set(parts.validation)


def test_what_was_not_drawn_cannot_be_drawn_anew() -> None:
    y = np.arange(60) % 2
    parts = dataclasses.replace(make_split(y, task="classification", seed=0), is_drawn=False)
    with pytest.raises(DataError, match=r"cannot be drawn anew.*Confirm without --fresh-split"):
        redraw(parts, y, task="classification", names=("a", "b"), seed=3)
