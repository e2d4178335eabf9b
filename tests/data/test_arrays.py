from __future__ import annotations

import numpy as np
import pytest

from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError

RANDOM = np.random.default_rng(0)
Y = np.arange(40) % 2


@pytest.fixture
def archive(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return str(tmp_path / "a.npz")

    return write


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def test_x_and_y(archive):
    found = load(archive(x=pixels(40, 9, 7, 3), y=Y))
    assert (found.name, found.spec.form, found.spec.kind, found.spec.task) == ("a", "npz", "image", "classification")
    assert (found.spec.input_shape, found.spec.class_names) == ((9, 7, 3), ("0", "1"))
    assert (found.x.dtype, found.y.dtype) == (np.uint8, np.int64)
    assert found.row_names[:2] == ("x[0]", "x[1]")
    assert found.test_rows is None


def test_keras_keys_keep_their_test_part(archive):
    source = archive(
        x_train=pixels(40, 9, 9), y_train=Y, x_test=pixels(6, 9, 9), y_test=Y[:6], class_names=["no", "yes"]
    )
    found = load(source)
    assert found.x.shape == (46, 9, 9, 1)
    assert found.test_rows.tolist() == list(range(40, 46))
    assert found.spec.class_names == ("no", "yes")
    assert found.row_names[40] == "x_test[0]"


def test_training_pair_alone_is_enough(archive):
    assert load(archive(x_train=pixels(40, 9, 9), y_train=Y)).test_rows is None


def test_one_hot_and_column_targets_become_codes(archive):
    x = pixels(40, 9, 9)
    np.testing.assert_array_equal(load(archive(x=x, y=np.eye(2)[Y])).y, Y)
    np.testing.assert_array_equal(load(archive(x=x, y=Y.reshape(-1, 1))).y, Y)


def test_text_targets_are_classes(archive):
    assert load(archive(x=pixels(40, 9, 9), y=np.array(["b", "a"])[Y])).spec.class_names == ("a", "b")


def test_fractions_are_regression(archive):
    found = load(archive(x=pixels(40, 9, 9), y=np.linspace(0, 1, 40)))
    assert (found.spec.task, found.y.dtype, found.spec.class_names) == ("regression", np.float64, ())


def test_samples_without_target_are_left_out_and_said(archive):
    y = np.linspace(0, 1, 40)
    y[[0, 7]] = np.nan, np.inf
    found = load(archive(x_train=pixels(40, 9, 9), y_train=y, x_test=pixels(9, 9, 9), y_test=y[10:19]))
    assert (len(found.x), len(found.y), found.row_names[0], found.test_rows[0]) == (47, 47, "x_train[1]", 38)
    assert "2 of 49 samples have no target and were left out." in found.notes


def test_other_keys_are_said_to_be_ignored(archive):
    assert "Ignored in 'a.npz': ids." in load(archive(x=pixels(40, 9, 9), y=Y, ids=Y)).notes


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "input_shape"),
    [
        ((40, 30), "float32", "series", (30,)),
        ((40, 30, 3), "uint8", "image", (30, 3, 1)),
        ((40, 30, 3), "float32", "series", (30, 3)),
        ((40, 8, 8), "float32", "image", (8, 8, 1)),
        ((40, 8, 7), "float32", "series", (8, 7)),
        ((40, 16, 8), "float32", "image", (16, 8, 1)),
        ((40, 17, 8), "float32", "series", (17, 8)),
        ((40, 8, 8, 2), "float32", "image", (8, 8, 2)),
    ],
)
def test_shape_decides_the_kind(archive, shape, dtype, kind, input_shape):
    found = load(archive(x=RANDOM.uniform(0, 200, shape).astype(dtype), y=Y))
    assert (found.spec.kind, found.spec.input_shape) == (kind, input_shape)
    assert bool(found.notes and "--kind changes it" in found.notes[0]) == (len(shape) == 3)


def test_kind_overrides_the_shape(archive):
    source = archive(x=pixels(40, 9, 9), y=Y)
    found = load(source, ReadOptions(kind="series"))
    assert (found.spec.kind, found.spec.input_shape, found.x.dtype) == ("series", (9, 9), np.uint8)


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16", "uint16"])
def test_big_types_become_float32(archive, dtype):
    assert load(archive(x=np.ones((40, 9, 9)).astype(dtype), y=Y)).x.dtype == np.float32


def test_booleans_become_uint8(archive):
    found = load(archive(x=pixels(40, 9, 9) > 99, y=Y))
    assert (found.x.dtype, found.x.max()) == (np.uint8, 1)


HOSTILE = [
    ({"a": Y}, {}, r"'a.npz' has no 'x_train' and no 'y_train'\. Its keys: a; expected: x and y, or x_train"),
    ({"x": Y}, {}, "has no 'y'. Its keys: x;"),
    ({"x_train": Y, "y_trian": Y}, {}, r"has no 'y_train'.*Did you mean 'y_trian'\?"),
    ({"x_train": pixels(4, 9, 9), "y_train": Y[:4], "x_test": pixels(2, 9, 9)}, {}, "has no 'y_test'"),
    ({"x": pixels(40, 9, 9), "y": Y[:39]}, {}, "x has 40 samples, y has 39. Every sample needs one target"),
    ({"x": np.uint8(3), "y": Y}, {}, "x has 0 samples, y has 40"),
    ({"x": pixels(0, 9, 9), "y": Y[:0]}, {}, "x is empty"),
    (
        {"x_train": pixels(40, 9, 9), "y_train": Y, "x_test": pixels(40, 9, 8), "y_test": Y},
        {},
        r"samples of x_train have shape \(9, 9\), those of x_test \(9, 8\)",
    ),
    ({"x": pixels(40), "y": Y}, {}, r"have shape \(\); images .* or series"),
    ({"x": pixels(40, 2, 2, 2, 2), "y": Y}, {}, r"have shape \(2, 2, 2, 2\); images"),
    ({"x": pixels(40, 9), "y": Y}, {"kind": "image"}, r"\(9,\), which is no image. Reshape x"),
    ({"x": pixels(40, 9, 9, 3), "y": Y}, {"kind": "series"}, r"\(9, 9, 3\), which is no series"),
    ({"x": pixels(40, 3, 9, 9), "y": Y}, {}, r"channels seem to stand first.*np.moveaxis\(x, 1, -1\)"),
    ({"x": np.array(["a"] * 40), "y": Y}, {}, "x of 'a.npz' has type <U1; numbers were expected"),
    ({"x": np.full((40, 9), np.nan), "y": Y}, {}, "x of 'a.npz' has no finite value at all"),
    ({"x": pixels(40, 9, 9), "y": Y * 0}, {}, "y of 'a.npz' holds only the class '0'"),
    ({"x": pixels(40, 9, 9), "y": pixels(40, 3)}, {}, r"y of 'a.npz' has shape \(40, 3\).*Several numbers"),
    ({"x": pixels(40, 9, 9), "y": Y, "class_names": ["a"]}, {}, "holds '1', but class_names has 1 names"),
    (
        {"x": pixels(40, 9, 9), "y": np.arange(40)},
        {"task": "classification"},
        "holds a different label in each of its 40 rows",
    ),
    ({"x": pixels(40, 9, 9), "y": Y, "y2": Y}, {"target": "y2"}, "--target y2 is for tables"),
    ({"x": pixels(40, 9, 9), "y": Y}, {"image_size": 9}, "--image-size 9 is for folders of images"),
]


@pytest.mark.parametrize(("arrays", "options", "message"), HOSTILE)
def test_bad_archives_give_one_clear_error(archive, arrays, options, message):
    with pytest.raises(DataError, match=message):
        load(archive(**arrays), ReadOptions(**options))


def test_damaged_and_dangerous_archives(tmp_path, archive):
    path = tmp_path / "b.npz"
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"'b.npz' cannot be read as a NumPy archive"):
        load(str(path))
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"'b.npz' cannot be read as a NumPy archive"):
        load(str(path))
    with path.open("wb") as stream:
        np.save(stream, Y)
    with pytest.raises(DataError, match="holds a single array, not an archive"):
        load(str(path))
    np.savez(path, x=np.array([{}], dtype=object), y=Y)
    with pytest.raises(DataError, match="arrays of Python objects could run code and are refused"):
        load(str(path))


def test_features_for_prediction(archive):
    spec = load(archive(x=pixels(40, 9, 9), y=Y)).spec
    for key in ("x", "x_test", "anything"):
        x, names = load_features(archive(**{key: pixels(3, 9, 9)}), spec)
        assert (x.shape, names[2]) == ((3, 9, 9, 1), f"{key}[2]")
    x, _ = load_features(archive(x=pixels(3, 9, 9), y=Y, x_test=pixels(5, 9, 9)), spec)
    assert len(x) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": Y, "b": Y}, "has the keys a, b; to predict, it needs an array named x"),
        ({"x": pixels(3, 9, 8)}, r"x of 'a.npz' has shape \(3, 9, 8, 1\); \(samples, 9, 9, 1\) was expected"),
        ({"x": pixels(0, 9, 9)}, r"has shape \(0, 9, 9, 1\)"),
    ],
)
def test_features_that_do_not_fit(archive, arrays, message):
    spec = load(archive(x=pixels(40, 9, 9), y=Y)).spec
    with pytest.raises(DataError, match=message):
        load_features(archive(**arrays), spec)
