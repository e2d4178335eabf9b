from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from tuner.training.monitor import StabilityMonitor
from tuner.training.probes import LAST_STEPS, MIN_CLASS_ROWS, DataProbe, median_of_last


def constant(value):
    return keras.initializers.Constant(value)


def dense(value, *, units=1, **kwargs):
    """A layer without bias whose kernel is known."""
    return keras.layers.Dense(units, use_bias=False, kernel_initializer=constant(value), **kwargs)


def sequential(*layers, shape=(1,), loss="mean_squared_error", rate=0.0):
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def recorded(model, *, x=((1.0,),), y=((0.0,),), probe_data=None, **fit_kwargs):
    monitor = StabilityMonitor(1.0, probes=True, probe_data=probe_data)
    model.fit(np.array(x, "float32"), np.array(y, "float32"), verbose=0, callbacks=[monitor], **fit_kwargs)
    return monitor.trace.channels


def test_update_ratio_is_that_of_the_step():
    # w = 2, loss w^2 = 4, gradient 2 w = 4, step 0.05 * 4 = 0.2: a tenth of the weight.
    channels = recorded(sequential(dense(2.0), rate=0.05))
    assert channels["update_ratio"] == pytest.approx([-1.0], abs=1e-5)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_update_ratio_of_plain_descent_is_rate_times_gradient_over_weights(steps_per_execution):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1e-4), "mse", steps_per_execution=steps_per_execution)
    size = np.linalg.norm(model.get_weights()[0])
    monitor = StabilityMonitor(probes=True)
    model.fit(x, x[:, 0], epochs=1, verbose=0, callbacks=[monitor])
    expected = np.log10(1e-4 * np.median(monitor.trace.grad_norm) / size)
    assert monitor.trace.channels["update_ratio"][0] == pytest.approx(expected, abs=0.02)


def test_update_ratio_of_a_standstill_is_tiny_and_finite():
    assert recorded(sequential(dense(2.0), rate=0.0))["update_ratio"].tolist() == [-30.0]


def test_zero_weights_have_no_update_ratio():
    assert "update_ratio" not in recorded(sequential(dense(0.0), rate=0.05), y=((1.0,),))


def test_layer_gradients_are_compared_first_to_last():
    # Output 2 * 4 = 8, its gradient 16: for the first weight 16 * 4 = 64, for the last 16 * 2 = 32.
    channels = recorded(sequential(dense(2.0), dense(4.0)))
    assert channels["layer_grad_ratio"] == pytest.approx([2.0])


def test_a_single_layer_has_no_ratio_of_layers():
    assert "layer_grad_ratio" not in recorded(sequential(dense(2.0)))


def test_an_epoch_is_the_median_of_its_last_steps():
    values = np.array([100.0] * 50 + [0.01] * LAST_STEPS)
    assert median_of_last("update_ratio", values) == pytest.approx(-2.0)
    assert median_of_last("layer_grad_ratio", values) == pytest.approx(0.01)
    assert math.isnan(median_of_last("layer_grad_ratio", np.array([np.nan, np.inf])))


@pytest.mark.parametrize("activation", ["layer", "argument", "function"])
def test_zeros_and_dead_units_of_an_identity_net(activation):
    eye = keras.initializers.Identity()
    layer = keras.layers.Dense(2, kernel_initializer=eye, activation="relu" if activation == "argument" else None)
    relu = {"layer": [keras.layers.ReLU()], "function": [keras.layers.Activation("relu")], "argument": []}[activation]
    model = sequential(layer, *relu, dense(1.0), shape=(2,))
    x = np.array([[1, -1], [2, -3], [-1, -1], [0.5, -2]], "float32")
    found = DataProbe(x, np.zeros((4, 1), "float32")).measure(model)
    assert found["zero_frac"] == pytest.approx(5 / 8)
    assert found["dead_frac"] == pytest.approx(1 / 2)


def test_the_worst_layer_says_how_many_units_are_dead():
    alive, dead = (dense(value, units=4, activation="relu") for value in (1.0, -1.0))
    found = DataProbe(np.ones((4, 1), "float32"), np.zeros((4, 1), "float32")).measure(
        sequential(alive, dead, dense(1.0))
    )
    assert found["zero_frac"] == pytest.approx(0.5)
    assert found["dead_frac"] == pytest.approx(1.0)


def test_a_net_without_activations_says_nothing_of_them():
    channels = recorded(sequential(dense(1.0)), probe_data=(np.ones((4, 1), "float32"), np.ones((4, 1), "float32")))
    assert not {"zero_frac", "dead_frac", "class_recall_min"} & set(channels)


def test_input_is_what_the_first_layer_with_weights_is_fed():
    x, y = np.array([[0.0], [255.0]], "float32"), np.zeros((2, 1), "float32")
    raw = DataProbe(x, y).measure(sequential(dense(1.0)))
    scaled = DataProbe(x, y).measure(sequential(keras.layers.Rescaling(2 / 255, offset=-1), dense(1.0)))
    assert (raw["input_mean"], raw["input_std"]) == pytest.approx((127.5, 127.5))
    assert (scaled["input_mean"], scaled["input_std"]) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_tokens_have_no_mean():
    model = sequential(keras.layers.Embedding(9, 2), keras.layers.GlobalAveragePooling1D(), dense(1.0), shape=(3,))
    found = DataProbe(np.ones((4, 3), "int32"), np.zeros((4, 1), "float32")).measure(model)
    assert math.isnan(found["input_mean"])
    assert math.isnan(found["input_std"])


def test_share_of_the_loss_that_is_regularisation():
    # w = 2: loss 4, penalty 0.5 * 4 = 2.
    model = sequential(dense(2.0, kernel_regularizer=keras.regularizers.L2(0.5)))
    found = DataProbe(np.ones((4, 1), "float32"), np.zeros((4, 1), "float32")).measure(model)
    assert found["regularisation_frac"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("rows", "expected"), [(MIN_CLASS_ROWS, 0.0), (MIN_CLASS_ROWS - 1, 0.5)])
@pytest.mark.parametrize("is_one_hot", [False, True])
def test_lowest_recall_is_that_of_a_class_with_rows_enough(rows, expected, is_one_hot):
    # Class 0: half right. Class 1: never recognised, and counts from MIN_CLASS_ROWS rows on.
    answers = np.array([0] * 10 + [2] * 10 + [2] * rows)
    labels = np.array([0] * 20 + [1] * rows)
    loss = "categorical_crossentropy" if is_one_hot else "sparse_categorical_crossentropy"
    layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.Identity(5.0), activation="softmax")
    y = np.eye(3, dtype="float32")[labels] if is_one_hot else labels
    found = DataProbe(np.eye(3, dtype="float32")[answers], y).measure(sequential(layer, shape=(3,), loss=loss))
    assert found["class_recall_min"] == pytest.approx(expected)


def test_several_labels_of_one_sample_are_no_classes():
    labels = np.tile(np.array([[1.0, 1.0]], "float32"), (20, 1))
    model = sequential(dense(1.0, units=2, activation="sigmoid"), loss="binary_crossentropy")
    assert math.isnan(DataProbe(np.ones((20, 1), "float32"), labels).measure(model)["class_recall_min"])


def noisy_model():
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", activity_regularizer=keras.regularizers.L2(1e-3)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=4)
    return model


def test_probes_leave_every_bit_of_a_training_as_it_is():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 8, 8, 1)).astype("float32"), rng.integers(0, 3, 200)
    weights = []
    for monitor in (
        None,
        StabilityMonitor(1.1),
        StabilityMonitor(1.1, probes=True, probe_data=(x[:64], y[:64])),
    ):
        model = noisy_model()
        model.fit(x, y, validation_data=(x[:40], y[:40]), epochs=3, verbose=0, callbacks=[monitor] if monitor else [])
        weights.append(model.get_weights())
    for watched in weights[1:]:
        for alone, other in zip(weights[0], watched, strict=True):
            np.testing.assert_array_equal(alone, other)
    assert all(values.shape == (3,) for values in monitor.trace.channels.values())
    assert set(monitor.trace.channels) == {
        "class_recall_min",
        "dead_frac",
        "input_mean",
        "input_std",
        "layer_grad_ratio",
        "regularisation_frac",
        "update_ratio",
        "zero_frac",
    }


def test_models_of_any_build_can_be_probed():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2, activation="relu", kernel_initializer=constant(-1.0))

        def call(self, x):
            return self.inner(x)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.block, self.head = Block(), keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.block(x))

    model = Own()
    model.compile("sgd", "mean_squared_error")
    x, y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")
    channels = recorded(model, x=x, y=y, probe_data=(x, y))
    assert channels["dead_frac"].tolist() == [1.0]
    assert channels["input_std"].tolist() == [0.0]


def test_a_batch_that_does_not_fit_is_said_once_and_the_training_goes_on(recwarn):
    model = sequential(dense(2.0), rate=0.05)
    channels = recorded(model, probe_data=(np.ones((4, 7), "float32"), np.zeros((4, 1))), epochs=3)
    told = [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert len(told) == 1
    assert "cannot probe this model with `probe_data`" in told[0]
    assert channels.keys() == {"update_ratio"}
    assert channels["update_ratio"].shape == (3,)


def test_data_without_probes_are_refused():
    with pytest.raises(ValueError, match="got probe_data without probes"):
        StabilityMonitor(probe_data=(np.zeros(1), np.zeros(1)))
