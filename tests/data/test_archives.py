from __future__ import annotations

import numpy as np
import pytest

from tuner.data.sources import ReadOptions, load, load_features
from tuner.data.split import split_dataset
from tuner.errors import DataError

RNG = np.random.default_rng(0)


def arrays(count=40):
    return RNG.normal(size=(count, 9)), np.arange(count) % 2


def saved(root, **named):
    root.mkdir(exist_ok=True)
    for name, array in named.items():
        np.save(root / f"{name}.npy", array)
    return root


def test_arrays_side_by_side(tmp_path):
    x, y = arrays()
    root = saved(tmp_path / "set", x=x, y=y)
    for source in (root / "x.npy", root):
        found = load(str(source))
        assert (found.spec.form, found.x.shape, found.y.tolist()) == ("npz", (40, 9), y.tolist())
        assert found.notes[0] == "Read together: x.npy, y.npy."


@pytest.mark.parametrize(("x_name", "y_name"), [("X", "Y"), ("features", "labels"), ("images", "targets")])
def test_arrays_under_usual_names(tmp_path, x_name, y_name):
    x, y = arrays()
    root = saved(tmp_path, **{x_name: x, y_name: y})
    assert load(str(root / f"{x_name}.npy")).y.tolist() == y.tolist()


def test_parts_side_by_side(tmp_path):
    names = {}
    for part, count in (("train", 40), ("val", 6), ("test", 8)):
        names[f"X_{part}"], names[f"y_{part}"] = arrays(count)
    found = load(str(saved(tmp_path, **names) / "X_train.npy"))
    split = split_dataset(found, seed=0)
    assert [len(split.train), split.validation.tolist(), split.test.tolist()] == [
        40,
        list(range(40, 46)),
        list(range(46, 54)),
    ]


def test_parts_in_one_archive(tmp_path):
    names = {}
    for part, count in (("train", 40), ("val", 6), ("test", 8)):
        names[f"{part}_images"], names[f"{part}_labels"] = (
            RNG.integers(0, 255, (count, 9, 9), np.uint8),
            arrays(count)[1],
        )
    np.savez(tmp_path / "med.npz", **names)
    found = load(str(tmp_path / "med.npz"))
    assert found.validation_rows.tolist() == list(range(40, 46))
    assert found.test_rows.tolist() == list(range(46, 54))
    assert "train_images for x_train" in found.notes[0]


def test_names_that_are_taken_stay_what_they_are(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "a.npz", x=x, y=y, data=x, labels=y)
    assert load(str(tmp_path / "a.npz")).notes[0] == "Ignored in 'a.npz': data, labels."


def test_missing_targets_count_no_rows(tmp_path):
    (x, y), (v, w) = arrays(), arrays(6)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.where(y, 1.0, np.nan), x_val=v, y_val=w.astype(float))
    found = load(str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="0 has 0"):
        split_dataset(found, seed=0)
    targets = y.astype(float)
    targets[:4] = np.nan
    np.savez(tmp_path / "a.npz", x_train=x, y_train=targets, x_val=v, y_val=w.astype(float))
    assert load(str(tmp_path / "a.npz")).validation_rows.tolist() == list(range(36, 42))


@pytest.mark.parametrize("name", ["x", "x_train", "whatever"])
def test_an_array_without_targets_is_refused(tmp_path, name):
    root = saved(tmp_path, **{name: arrays()[0]})
    with pytest.raises(
        DataError, match=rf"'{name}.npy' is one array, and its targets are missing\. Expected: x.npy with"
    ):
        load(str(root / f"{name}.npy"))


def test_a_damaged_array_is_refused(tmp_path):
    root = saved(tmp_path, x=arrays()[0], y=arrays()[1])
    (root / "x.npy").write_bytes((root / "x.npy").read_bytes()[:200])
    with pytest.raises(DataError, match=r"'x.npy' cannot be read"):
        load(str(root / "x.npy"))
    np.save(root / "x.npy", np.array([{}, []], dtype=object))
    with pytest.raises(DataError, match=r"arrays of Python objects could run code and are refused"):
        load(str(root / "x.npy"))


def test_arrays_to_predict(tmp_path):
    x, y = arrays()
    spec = load(str(saved(tmp_path / "set", x=x, y=y))).spec
    np.save(tmp_path / "new.npy", x[:5])
    features, names = load_features(str(tmp_path / "new.npy"), spec)
    np.testing.assert_array_equal(features, x[:5])
    assert names[0] == "x[0]"


# ---- groups


def test_groups_by_an_array_of_the_archive(tmp_path):
    x, y = arrays(60)
    speaker = np.repeat([f"speaker {number}" for number in range(10)], 6)
    np.savez(tmp_path / "a.npz", x=x, y=y, speaker=speaker)
    found = load(str(tmp_path / "a.npz"), ReadOptions(group="speaker"))
    split = split_dataset(found, seed=0)
    sides = [set(speaker[rows]) for rows in (split.train, split.validation, split.test)]
    assert all(map(len, sides))
    assert len(set.union(*sides)) == sum(map(len, sides)) == 10
    assert found.spec.reading == {"group": "speaker"}


def test_groups_follow_rows_without_targets_and_leave_parts_alone(tmp_path):
    (x, y), (t, u) = arrays(60), arrays(8)
    targets = y.astype(float)
    targets[3] = np.nan
    group = np.repeat(np.arange(10), 6)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=targets, x_test=t, y_test=u.astype(float), group=group)
    found = load(str(tmp_path / "a.npz"), ReadOptions(group="group"))
    assert found.groups[:59].tolist() == np.delete(group, 3).tolist()
    assert len(set(found.groups[59:].tolist())) == 8
    assert found.groups[59:].min() > 9


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("speakr", r"has no array 'speakr'.*Did you mean 'speaker'"),
        ("short", r"shape \(3,\); one value for each of the 40"),
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path, group, message):
    x, y = arrays()
    np.savez(tmp_path / "a.npz", x=x, y=y, speaker=y, short=y[:3])
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / "a.npz"), ReadOptions(group=group))
