"""TensorFlow Datasets itself downloads data, so a module of the same calls stands in for it."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from tuner.data.sources import ReadOptions, load, load_features
from tuner.data.split import split_dataset
from tuner.errors import DataError, EnvironmentFault


@pytest.fixture
def catalogue(monkeypatch):
    """Makes `tensorflow_datasets` give these splits."""

    def install(splits, *, names=None, error=None):
        def load_splits(name, *, batch_size, as_supervised, with_info):
            assert (name, batch_size, as_supervised, with_info) == ("toy/small:1.0.0", -1, True, True)
            if error is not None:
                raise error
            target = types.SimpleNamespace(names=names)
            return splits, types.SimpleNamespace(features={"label": target}, supervised_keys=("image", "label"))

        fake = types.SimpleNamespace(load=load_splits, as_numpy=lambda tensors: tensors)
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)

    return install


def pictures(count, *, start=0):
    y = np.arange(start, start + count) % 2
    return np.random.default_rng(start).integers(0, 255, (count, 8, 9, 3), dtype=np.uint8), y


def test_images_keep_their_splits(catalogue):
    splits = {"test": pictures(10, start=80), "train": pictures(40), "validation": pictures(6, start=60)}
    catalogue(splits | {"extra": pictures(4)}, names=["cat", "dog"])
    found = load("tfds:toy/small:1.0.0")
    assert (found.name, found.spec.form, found.spec.kind, found.spec.input_shape) == (
        "toy-small",
        "tfds",
        "image",
        (8, 9, 3),
    )
    assert (found.x.shape, found.spec.class_names, found.row_names[46]) == ((56, 8, 9, 3), ("cat", "dog"), "test[0]")
    split = split_dataset(found, seed=0)
    assert (split.validation.tolist(), split.test.tolist()) == (list(range(40, 46)), list(range(46, 56)))
    np.testing.assert_array_equal(found.x[46:], splits["test"][0])
    assert "Splits that were ignored: extra." in found.notes


def test_texts(catalogue, tmp_path):
    texts = np.array([f"größe {row}".encode() for row in range(60)], object)
    catalogue({"train": (texts, np.arange(60) % 3)})
    found = load("tfds:toy/small:1.0.0")
    assert (found.spec.kind, found.x[3], found.spec.class_names) == ("text", "größe 3", ("0", "1", "2"))
    assert (found.test_rows, found.validation_rows) == (None, None)
    (tmp_path / "new.csv").write_text("text\nhello\n")
    assert load_features(str(tmp_path / "new.csv"), found.spec)[0].tolist() == ["hello"]


def test_regression(catalogue):
    rng = np.random.default_rng(0)
    y = np.append(rng.normal(size=40), np.nan)
    catalogue({"train": (rng.normal(size=(41, 7)), y), "test": (rng.normal(size=(9, 7)), y[:9])})
    found = load("tfds:toy/small:1.0.0")
    assert (found.spec.kind, found.spec.task, found.x.shape) == ("series", "regression", (49, 7))
    np.testing.assert_array_equal(found.y[found.test_rows], y[:9])


def test_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(EnvironmentFault, match="not installed: pip install tensorflow-datasets"):
        load("tfds:mnist")


def test_what_cannot_be_loaded_is_a_fault_of_the_data(catalogue):
    catalogue({}, error=ValueError("Dataset toy not found.\nAvailable datasets:\n\t- a\n\t- b"))
    with pytest.raises(
        DataError, match=r"cannot be loaded by TensorFlow Datasets \(ValueError: Dataset toy not found\)"
    ):
        load("tfds:toy/small:1.0.0")
    catalogue({"test": pictures(10)})
    with pytest.raises(DataError, match="has no split 'train', only test"):
        load("tfds:toy/small:1.0.0")


def test_options_of_files_are_refused(catalogue):
    catalogue({"train": pictures(40)})
    with pytest.raises(DataError, match="--target y is for tables"):
        load("tfds:toy/small:1.0.0", ReadOptions(target="y"))
