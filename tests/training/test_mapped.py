"""Arrays that stay on the disk: the same tensors, the same trainings, and the file is let go of in the end."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from tuner import inference
from tuner.training import mapped
from tuner.training.mapped import tensor
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch

RANDOM = np.random.default_rng(0)
ROWS = 100


@pytest.fixture
def on_disk(tmp_path):
    def mapping(array):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(file, array)
        return np.load(file, mmap_mode="r")

    return mapping


@pytest.fixture
def nothing_is_copied(monkeypatch):
    monkeypatch.setattr(mapped, "MAX_COPIED_BYTES", 0)


def is_in_place(found, array):
    """Whether a tensor has the memory of an array."""
    return np.shares_memory(np.from_dlpack(found), array)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.int8])
@pytest.mark.usefixtures("nothing_is_copied")
def test_a_mapped_array_is_read_where_it_lies(on_disk, dtype):
    array = on_disk(RANDOM.integers(-9, 9, (7, 3, 2)).astype(dtype))
    found = tensor(array)
    assert is_in_place(found, array)
    assert found.dtype.as_numpy_dtype is dtype
    np.testing.assert_array_equal(found.numpy(), array)


def test_arrays_are_copied_up_to_the_threshold_and_read_in_place_beyond(on_disk, monkeypatch):
    array = on_disk(np.arange(16, dtype=np.float32))
    for most, is_copied in ((array.nbytes, True), (array.nbytes - 1, False)):
        monkeypatch.setattr(mapped, "MAX_COPIED_BYTES", most)
        found = tensor(array)
        assert is_in_place(found, array) is not is_copied
        np.testing.assert_array_equal(found.numpy(), array)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(lambda array: np.array(array), id="in memory"),
        pytest.param(lambda array: array[1:], id="not aligned"),
        pytest.param(lambda array: array[:, :2], id="not in one piece"),
        pytest.param(lambda array: array[[0, 2]], id="chosen rows"),
    ],
)
@pytest.mark.usefixtures("nothing_is_copied")
def test_what_tensorflow_cannot_read_in_place_is_copied(on_disk, part):
    array = part(on_disk(RANDOM.normal(size=(5, 3)).astype(np.float32)))
    found = tensor(array)
    assert not is_in_place(found, array)
    np.testing.assert_array_equal(found.numpy(), array)


@pytest.mark.usefixtures("nothing_is_copied")
def test_the_file_stays_mapped_as_long_as_the_tensor_lives_and_no_longer(on_disk):
    array = on_disk(RANDOM.normal(size=(5, 3)).astype(np.float32))
    expected, alive = np.array(array), weakref.ref(array)
    found = tensor(array)
    del array
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(found.numpy(), expected)
    del found
    gc.collect()
    assert alive() is None


def trained(x, y, x_validation, y_validation):
    """Weights and everything recorded of a training, and what the model then predicts."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"], steps_per_execution=4)
    monitor = StabilityMonitor(0.7)
    reshuffle_every_epoch(model, 5)
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=3,
        verbose=0,
        class_weight={0: 1.0, 1: 2.0},
        validation_data=(x_validation, y_validation),
        callbacks=[monitor],
    )
    trace = monitor.trace
    recorded = [trace.step_loss, trace.grad_norm, trace.train_loss, trace.validation_loss]
    return [*model.get_weights(), *recorded, inference.outputs(model, x_validation)]


def test_a_training_on_mapped_arrays_is_the_same_bit_for_bit(on_disk, monkeypatch):
    x = RANDOM.normal(size=(ROWS, 6)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    # Predicted in three pieces of four steps and less.
    arrays = (x[:30], y[:30], x[30:], y[30:])
    monkeypatch.setattr(inference, "BATCH_ROWS", 8)
    in_memory, copied = trained(*arrays), trained(*map(on_disk, arrays))
    monkeypatch.setattr(mapped, "MAX_COPIED_BYTES", 0)
    monkeypatch.setattr(inference, "PIECE_BYTES", 0)
    in_place = trained(*map(on_disk, arrays))
    for first, second, third in zip(in_memory, copied, in_place, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
