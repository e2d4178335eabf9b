"""Memory: estimates derived on paper, the exceptions that say it ran out, and what becomes of such a trial."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from tuner.errors import SpaceError
from tuner.records import Outcome
from tuner.search.halving import half_batch
from tuner.search.study import load_trials
from tuner.search.tuner import StabilityTuner
from tuner.training.memory import WeightsTooLarge, bounded_weights, infeasibility, is_out_of_memory, needed_bytes


def network(optimizer):
    # 3 inputs, 5 and 2 units: 20 + 12 = 32 weights; outputs of a row: 3 + 5 + 2 numbers.
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), keras.layers.Dense(2)])
    model.compile(optimizer, "mean_squared_error")
    return model


@pytest.mark.parametrize(("optimizer", "slots"), [("sgd", 0), ("rmsprop", 1), ("adam", 2), ("adamw", 2)])
def test_weights_gradients_slots_and_one_batch_count(optimizer, slots):
    model = network(optimizer)
    outputs = needed_bytes(model, batch_size=1) - needed_bytes(model, batch_size=0)
    assert needed_bytes(model, batch_size=0) == 4 * 32 * (2 + slots)
    assert outputs in (4 * 2 * 7, 4 * 2 * 10)  # With or without the input itself.
    assert needed_bytes(model, batch_size=100) == 4 * 32 * (2 + slots) + 100 * outputs


def test_what_needs_more_than_there_is_is_infeasible():
    model = network("sgd")
    needed = needed_bytes(model, batch_size=10)
    assert infeasibility(model, batch_size=10, available_bytes=needed) == ""
    assert infeasibility(model, batch_size=10, available_bytes=None) == ""
    reason = infeasibility(model, batch_size=10, available_bytes=needed - 1)
    assert reason == "with batches of 10 rows it needs 0.0 GB of memory at least, and 0.0 GB are there"


def test_a_weight_that_there_is_no_room_for_is_refused_before_it_is_made():
    with bounded_weights(4 * 32):
        network("sgd")
    with bounded_weights(None):
        network("sgd")
    with pytest.raises(WeightsTooLarge, match=r"up to its layer 'last' the weights alone"), bounded_weights(4 * 31):
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), keras.layers.Dense(2, name="last")])
    # Half an exabyte: nothing is taken, or this would end otherwise.
    with pytest.raises(WeightsTooLarge, match=r"GB are there"), bounded_weights(10**9):
        keras.Sequential([keras.Input((10**8,)), keras.layers.Dense(10**9)])
    network("sgd")


class XlaRuntimeError(RuntimeError):
    """As jaxlib's, which is a RuntimeError too."""


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (MemoryError(), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]"), True),
        (XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 999 bytes."), True),
        (XlaRuntimeError("INVALID_ARGUMENT: no"), False),
        (ValueError("a text about RESOURCE_EXHAUSTED"), False),
    ],
)
def test_exceptions_that_say_so(error, is_so):
    assert is_out_of_memory(error) is is_so
    outer = ValueError("training failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer) is is_so


def test_tensorflow_itself_is_recognised():
    with pytest.raises(tf.errors.OpError) as caught:
        tf.zeros((2**40,)) + 1.0
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ({"batch_size": 64, "learning_rate": 0.5}, {"batch_size": 32, "learning_rate": 0.25}),
        ({"batch_size": 2, "learning_rate": 0.5}, {"batch_size": 1, "learning_rate": 0.25}),
        ({"batch_size": 1, "learning_rate": 0.5}, {}),
        ({"batch_size": 64}, {}),
        ({"learning_rate": 0.5}, {}),
    ],
)
def test_half_the_batch_has_half_the_rate(values, half):
    assert half_batch(values) == half


class Hungry(keras_tuner.HyperModel):
    """Runs out of memory with batches above some size, as a graphics card does."""

    def __init__(self, most_rows):
        super().__init__()
        self.most_rows, self.seen = most_rows, []

    def build(self, hp):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        rate = hp.Float("learning_rate", 0.1, 1.0, default=0.5)
        model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
        return model

    def fit(self, hp, model, *args, **kwargs):
        batch_size = hp.Choice("batch_size", [16, 32])
        self.seen.append((batch_size, round(float(model.optimizer.learning_rate), 3)))
        if batch_size > self.most_rows:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return model.fit(*args, batch_size=batch_size, **kwargs)


@pytest.mark.parametrize(
    ("most_rows", "outcome", "message"),
    [(8, Outcome.COMPLETED, "half the batch (8 rows)"), (4, Outcome.INFEASIBLE, "ResourceExhaustedError")],
)
def test_a_trial_that_ran_out_of_memory_is_tried_with_half_the_batch_once(tmp_path, most_rows, outcome, message):
    space = Hungry(most_rows)
    tuner = StabilityTuner(space, max_trials=1, directory=tmp_path, project_name="run")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    tuner.search(x, y, validation_data=(x, y), epochs=5)
    assert space.seen[-2:] == [(16, 0.5), (8, 0.25)]
    (trial,) = load_trials(tuner.run_folder)
    assert trial.outcome is outcome
    assert message in trial.seed_runs[0].message
    assert np.isfinite(trial.objective)
    assert (trial.hyperparameters["batch_size"], trial.hyperparameters["learning_rate"]) == (8, 0.25)


def with_units(low, high, **options):
    """A space whose models have 8 GB of weights for each 10**9 units."""

    def build(hp):
        units = hp.Int("units", low, high, **options)
        layers = [keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
        model = keras.Sequential([keras.Input((1,)), *layers])
        model.compile(keras.optimizers.SGD(), "binary_crossentropy")
        return model

    return build


def test_an_absurd_model_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.search.tuner.available_memory_bytes", lambda: 10**9)
    monkeypatch.setattr("tuner.search.tuner.visible_gpus", lambda: ())
    tuner = StabilityTuner(with_units(8, 10**12, default=8), max_trials=2, directory=tmp_path, project_name="run")
    x, y = np.zeros((64, 1), dtype="float32"), np.arange(64) % 2
    tuner.search(x, y, validation_data=(x, y), epochs=5)
    _, absurd = load_trials(tuner.run_folder)
    assert absurd.outcome is Outcome.INFEASIBLE
    assert absurd.seed_runs[0].message.startswith("The model was not built: up to its layer")


def test_a_space_of_absurd_models_is_refused_before_one_is_built(tmp_path):
    with pytest.raises(SpaceError, match=r"WeightsTooLarge: up to its layer .* units=10{12}\. Mend it, or exclude"):
        StabilityTuner(with_units(10**12, 10**13), max_trials=1, directory=tmp_path, project_name="run")


def test_an_absurd_model_is_not_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.search.tuner.available_memory_bytes", lambda: 1000)
    monkeypatch.setattr("tuner.search.tuner.visible_gpus", lambda: ())
    space = Hungry(99)
    tuner = StabilityTuner(space, max_trials=1, directory=tmp_path, project_name="run")
    x, y = np.zeros((64, 4), dtype="float32"), np.arange(64) % 2
    tuner.search(x, y, validation_data=(x, y), epochs=1)
    (trial,) = load_trials(tuner.run_folder)
    assert trial.outcome is Outcome.INFEASIBLE
    assert "The model was not trained: with batches of 32 rows it needs" in trial.seed_runs[0].message
    assert space.seen == []
