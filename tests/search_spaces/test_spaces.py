"""The contract of every search space, whichever kind it is for, and the lazy register of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from search_spaces import SPACES

# Sides from a single point to more than the large size of each kind.
SHAPES = {
    "image": [(1, 1, 1), (2, 3, 1), (8, 8, 1), (1, 40, 2), (28, 28, 1), (70, 30, 3), (300, 300, 1)],
    "series": [(1, 1), (2, 1), (5, 3), (140, 1), (257, 2), (5000, 1)],
}
CASES = [(name, shape) for name in SPACES for shape in SHAPES[name]]
# Corners of the space that differ in structure.
CORNERS: list[dict[str, Any]] = [
    {"num_blocks": 1, "dense_units": 0, "batch_norm": False, "pooling": "global", "optimizer": "sgd"},
    {"num_blocks": 4, "use_l1": True, "use_l2": True, "clip_norm": 1.0, "optimizer": "rmsprop", "schedule": "constant"},
]


def make(name: str, shape: tuple[int, ...], **changes: Any) -> Any:
    facts = {"task": "classification", "num_classes": 3, "num_train": 1000, "epochs": 5} | changes
    return SPACES[name](shape, **facts)


def with_values(**values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values |= values
    return hp


def test_names_are_known_without_importing_keras() -> None:
    code = "import sys, search_spaces; print(list(search_spaces.SPACES)); assert 'keras' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['image', 'series']"


def test_register_behaves_as_a_mapping() -> None:
    assert len(SPACES) == 2
    assert "image" in SPACES
    assert "video" not in SPACES
    with pytest.raises(KeyError, match="video"):
        SPACES["video"]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_default_model_fits_any_input(name: str, shape: tuple[int, ...]) -> None:
    model = make(name, shape).build(keras_tuner.HyperParameters())
    assert model.compiled
    assert model.output_shape == (None, 3)
    probabilities = model.predict_on_batch(np.zeros((2, *shape), np.float32))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert model.count_params() < 400_000


@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("corner", CORNERS)
def test_saved_model_loads_without_custom_objects(name: str, corner: dict[str, Any], tmp_path: Path) -> None:
    shape = SHAPES[name][2]
    model = make(name, shape).build(with_values(**corner))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    model.train_on_batch(x, np.array([0, 1, 2, 0]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-5)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize("name", list(SPACES))
def test_regression_has_one_linear_unit(name: str) -> None:
    shape = SHAPES[name][2]
    model = make(name, shape, task="regression", num_classes=0).build(keras_tuner.HyperParameters())
    assert model.output_shape == (None, 1)
    assert model.layers[-1].activation is keras.activations.linear
    assert model.loss == "mean_squared_error"


@pytest.mark.parametrize("name", list(SPACES))
def test_deeper_blocks_are_declared_but_inactive(name: str) -> None:
    hp = with_values(num_blocks=2)
    make(name, SHAPES[name][2]).build(hp)
    assert {"filters_2", "kernel_2"} <= set(hp.values)
    assert not {"filters_3", "kernel_3", "filters_4", "kernel_4", "l1", "l2"} & set(hp.values)
    assert {"filters_4", "kernel_4", "l1", "l2"} <= {each.name for each in hp.space}


@pytest.mark.parametrize("name", list(SPACES))
def test_blocks_follow_their_own_choices(name: str) -> None:
    model = make(name, SHAPES[name][3]).build(with_values(num_blocks=2, filters_1=8, filters_2=64, kernel_2=5))
    convolutions = [layer for layer in model.layers if layer.name.startswith("conv_")]
    assert [layer.filters for layer in convolutions] == [8, 64]
    assert set(convolutions[1].kernel_size) == {5}


@pytest.mark.parametrize("name", list(SPACES))
def test_fit_takes_the_batch_size_of_the_configuration(name: str) -> None:
    shape = SHAPES[name][2]
    space = make(name, shape)
    hp = with_values(batch_size=16, num_blocks=1)
    model = space.build(hp)
    x, y = np.zeros((64, *shape), np.float32), np.zeros(64, np.int64)
    history = space.fit(hp, model, x, y, epochs=1, verbose=0)
    assert history.params["steps"] == 4
    assert space.fit(hp, model, x, y, epochs=1, verbose=0, batch_size=32).params["steps"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (8,)}, "must be 3 positive numbers"),
        ({"shape": (8, 0, 1)}, "must be 3 positive numbers"),
        ({"task": "ranking"}, "task='ranking' must be one of classification, regression"),
        ({"num_classes": 1}, "num_classes=1 must be at least 2"),
        ({"num_train": 0}, "num_train=0 and epochs=5 must be at least 1"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
    ],
)
def test_wrong_facts_are_refused(changes: dict[str, Any], message: str) -> None:
    shape = changes.pop("shape", (8, 8, 1))
    with pytest.raises(ValueError, match=message):
        make("image", shape, **changes)


def trained_accuracy(name: str, x: np.ndarray, y: np.ndarray, *, epochs: int) -> float:
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x_train, x_validation, y_train, y_validation = parts
    keras.utils.set_random_seed(0)
    space = make(name, x.shape[1:], num_classes=int(y.max()) + 1, num_train=len(x_train), epochs=epochs)
    hp = keras_tuner.HyperParameters()
    model = space.build(hp)
    space.fit(hp, model, x_train, y_train, epochs=epochs, verbose=0)
    return float(model.evaluate(x_validation, y_validation, verbose=0, return_dict=True)["accuracy"])


def test_image_defaults_learn_the_digits() -> None:
    """Measured: 0.975 to 0.983 with several seeds."""
    digits = load_digits()
    x = (digits.images[..., None].astype(np.float32) - 4.9) / 6.0
    assert trained_accuracy("image", x, digits.target, epochs=10) >= 0.95


def test_series_defaults_learn_the_rhythm_of_a_signal() -> None:
    """Three frequencies under noise, phase unknown: linear models are at chance."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, size=600)
    phase = random.uniform(0, 2 * np.pi, size=(600, 1))
    steps = np.arange(64)
    x = np.sin(steps * np.array([0.2, 0.5, 0.9])[y][:, None] + phase) + random.normal(scale=0.5, size=(600, 64))
    assert trained_accuracy("series", x[..., None].astype(np.float32), y, epochs=6) >= 0.95


def test_series_defaults_learn_real_heartbeats(shared_data: Path) -> None:
    """Measured on these 2,000 rows: 0.952 to 0.957; always answering the largest class gives 0.585."""
    table = np.genfromtxt(shared_data / "series" / "ecg5000.csv", delimiter=",", skip_header=1, dtype=np.float32)
    codes = np.unique(table[:, 0], return_inverse=True)[1]
    x, _, y, _ = train_test_split(table[:, 1:, None], codes, train_size=2000, stratify=codes, random_state=0)
    assert trained_accuracy("series", x, y, epochs=6) >= 0.92
