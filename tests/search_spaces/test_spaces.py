"""The contract of every search space, whichever kind it is for, and the lazy register of them."""

from __future__ import annotations

import math
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
from search_spaces.audio import MASKED_BANDS_FRAC, MASKED_FRAMES_FRAC
from search_spaces.series import SeriesSpace

# Sides from a single point to more than the large size of each kind.
SHAPES = {
    "image": [(1, 1, 1), (2, 3, 1), (8, 8, 1), (1, 40, 2), (28, 28, 1), (70, 30, 3), (300, 300, 1)],
    "series": [(1, 1), (2, 1), (5, 3), (140, 1), (257, 2), (5000, 1)],
    "text": [(1,), (3,), (32,), (200,), (512,)],
    "audio": [(1, 1, 1), (2, 40, 1), (50, 40, 1), (100, 64, 1), (1, 1), (4000, 1), (16000, 1)],
}
VOCABULARY_SIZE = 50
CASES = [(name, shape) for name in SPACES for shape in SHAPES[name]]
# Corners of the space that differ in structure.
CORNERS: list[dict[str, Any]] = [
    {"num_blocks": 1, "dense_units": 0, "batch_norm": False, "pooling": "global", "optimizer": "sgd"},
    {"num_blocks": 4, "use_l1": True, "use_l2": True, "clip_norm": 1.0, "optimizer": "rmsprop", "schedule": "constant"},
    {"num_blocks": 3, "residual": True, "filters_1": 32, "filters_2": 32, "filters_3": 64, "pooling": "max"},
]


def make(name: str, shape: tuple[int, ...], **changes: Any) -> Any:
    facts = {"task": "classification", "num_classes": 3, "num_train": 1000, "epochs": 5} | changes
    if name == "text":
        facts = {"vocabulary_size": VOCABULARY_SIZE} | facts
    return SPACES[name](shape, **facts)


def samples(name: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    if name == "text":
        return random.integers(VOCABULARY_SIZE, size=(count, *shape), dtype=np.int32)
    return random.normal(size=(count, *shape)).astype(np.float32)


def with_values(**values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values |= values
    return hp


def test_names_are_known_without_importing_keras() -> None:
    code = "import sys, search_spaces; print(list(search_spaces.SPACES)); assert 'keras' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['audio', 'image', 'series', 'text']"


def test_register_behaves_as_a_mapping() -> None:
    assert len(SPACES) == 4
    assert "image" in SPACES
    assert "video" not in SPACES
    with pytest.raises(KeyError, match="video"):
        SPACES["video"]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_default_model_fits_any_input(name: str, shape: tuple[int, ...]) -> None:
    model = make(name, shape).build(keras_tuner.HyperParameters())
    assert model.compiled
    assert model.output_shape == (None, 3)
    probabilities = model.predict_on_batch(samples(name, shape, 2))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert model.count_params() < 400_000


@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("corner", CORNERS)
def test_saved_model_loads_without_custom_objects(name: str, corner: dict[str, Any], tmp_path: Path) -> None:
    shape = SHAPES[name][2]
    model = make(name, shape).build(with_values(**corner))
    x = samples(name, shape, 4)
    model.train_on_batch(x, np.array([0, 1, 2, 0]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-5)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize("name", list(SPACES))
def test_every_augmentation_trains_and_leaves_the_answers_alone(name: str) -> None:
    """It is active in training only: the same samples give the same answers every time."""
    for shape in (SHAPES[name][2], SHAPES[name][-2]):
        hp = with_values(num_blocks=1)
        make(name, shape).build(hp)
        (choice,) = [each for each in hp.space if each.name == "augmentation"]
        x = samples(name, shape, 8)
        for value in choice.values:
            model = make(name, shape).build(with_values(num_blocks=1, augmentation=value))
            assert np.isfinite(model.train_on_batch(x, np.zeros(8))).all()
            np.testing.assert_array_equal(model.predict_on_batch(x), model.predict_on_batch(x))
            if value == choice.default:
                plain = len(model.layers)
            else:
                assert len(model.layers) > plain


def test_strong_augmentation_masks_whole_bands_and_whole_frames_of_a_spectrum(tmp_path: Path) -> None:
    """As SpecAugment does, and not a rectangle; after loading it still does."""
    shape = (50, 40, 1)
    keras.utils.set_random_seed(0)
    built = make("audio", shape).build(with_values(num_blocks=1, augmentation="strong"))
    built.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    masked = keras.Model(model.input, model.get_layer("conv_1").input)
    found = np.asarray(masked(np.ones((64, *shape), np.float32), training=True))[..., 0]
    is_masked = found == 0
    bands, frames = is_masked.all(axis=1), is_masked.all(axis=2)
    np.testing.assert_array_equal(is_masked, bands[:, np.newaxis, :] | frames[:, :, np.newaxis])
    for lines, share in ((bands, MASKED_BANDS_FRAC), (frames, MASKED_FRAMES_FRAC)):
        counts = lines.sum(axis=1)
        assert 0.5 * share * lines.shape[1] < counts.max() <= math.ceil(share * lines.shape[1])
        assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one stretch
        assert len(np.unique(lines, axis=0)) > 16  # of each sample another


def test_label_smoothing_takes_one_hot_labels() -> None:
    model = make("image", (8, 8, 1)).build(with_values(label_smoothing=0.1))
    assert model.loss.get_config()["label_smoothing"] == 0.1


def test_residual_blocks_add_their_input() -> None:
    values = {"num_blocks": 3, "residual": True, "filters_1": 16, "filters_2": 16, "filters_3": 32}
    model = make("image", (8, 8, 1)).build(with_values(**values))
    assert [layer.name for layer in model.layers if layer.name.startswith(("add", "shortcut"))] == [
        "shortcut_1",
        "add_1",
        "add_2",
        "shortcut_3",
        "add_3",
    ]


def test_sound_is_a_wave_or_a_spectrum_by_its_shape() -> None:
    assert make("audio", (4000, 1)).build(with_values()).get_layer("conv_1").kernel_size == (3,)
    assert make("audio", (50, 40, 1)).build(with_values()).get_layer("conv_1").kernel_size == (3, 3)
    with pytest.raises(ValueError, match="must be 3 positive numbers"):
        make("audio", (50,))


def test_text_refuses_what_is_no_sequence() -> None:
    with pytest.raises(ValueError, match=r"must be \(length,\) with at least one word"):
        make("text", (3, 1))
    with pytest.raises(ValueError, match="vocabulary_size=0 must be at least 1"):
        make("text", (3,), vocabulary_size=0)


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
    x, y = samples(name, shape, 64), np.zeros(64, np.int64)
    history = space.fit(hp, model, x, y, epochs=1, verbose=0)
    assert history.params["steps"] == 4
    assert space.fit(hp, model, x, y, epochs=1, verbose=0, batch_size=32).params["steps"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (8,)}, "must be 3 positive numbers"),
        ({"shape": (8, 0, 1)}, "must be 3 positive numbers"),
        ({"task": "ranking"}, "task='ranking' must be one of classification, multilabel, regression"),
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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_several_labels_have_a_sigmoid_each(smoothing):
    space = SeriesSpace((20, 1), task="multilabel", num_classes=5, num_train=200, epochs=2)
    hp = keras_tuner.HyperParameters()
    hp.Fixed("label_smoothing", smoothing)
    model = space.build(hp)
    assert model.layers[-1].activation.__name__ == "sigmoid"
    assert model.output_shape == (None, 5)
    loss = keras.losses.get(model.loss)
    assert getattr(loss, "name", "binary_crossentropy") == "binary_crossentropy"
    assert getattr(loss, "label_smoothing", 0.0) == smoothing
    with pytest.raises(ValueError, match="num_classes=1 must be at least 2 for multilabel"):
        SeriesSpace((20, 1), task="multilabel", num_classes=1, num_train=200, epochs=2)
