from __future__ import annotations

import keras
import numpy as np
import pytest

from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch, restore_order

ROWS, BATCH = 50, 8


def data():
    """One number a row, the loss of a model that always answers 0 is its square."""
    y = np.arange(1, ROWS + 1, dtype="float32")
    return np.zeros((ROWS, 1), "float32"), y


def zero_model():
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error", weighted_metrics=["mse"])
    return model


def batch_losses(seed, *, is_reshuffled=True, epochs=3, **fit_kwargs):
    """Loss of each batch, epoch by epoch; shape (epochs, batches)."""
    keras.utils.set_random_seed(1)
    model, monitor = zero_model(), StabilityMonitor(1.0)
    if is_reshuffled:
        reshuffle_every_epoch(model, seed)
    x, y = data()
    model.fit(x, y, **({"batch_size": BATCH, "epochs": epochs, "verbose": 0} | fit_kwargs), callbacks=[monitor])
    return monitor.trace.step_loss.reshape(epochs, -1)


def test_keras_alone_repeats_the_order_of_a_seeded_training_in_every_epoch():
    """The reason for all this; when it fails, Keras has mended it and tuner/training/order.py can go."""
    losses = batch_losses(0, is_reshuffled=False)
    np.testing.assert_array_equal(losses[0], losses[1])


def test_every_epoch_has_an_order_of_its_own():
    losses = batch_losses(0)
    assert not np.array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[1], losses[2])


def test_every_row_comes_once_an_epoch():
    losses = batch_losses(0)
    sizes = np.full(losses.shape[1], BATCH)
    sizes[-1] = ROWS % BATCH
    np.testing.assert_allclose((losses * sizes).sum(axis=1), np.sum(np.arange(1, ROWS + 1) ** 2), rtol=1e-5)


def test_the_same_seed_repeats_the_orders_and_another_differs():
    np.testing.assert_array_equal(batch_losses(3), batch_losses(3))
    assert not np.array_equal(batch_losses(3), batch_losses(4))


def test_shuffle_false_keeps_the_order_of_the_rows():
    losses = batch_losses(0, shuffle=False)
    assert np.all(np.diff(losses[0]) > 0)


def test_validation_and_class_weights_mean_what_they_meant():
    x, y = data()
    labels = (y > 25).astype("int64")
    for is_reshuffled in (False, True):
        keras.utils.set_random_seed(1)
        model = zero_model()
        if is_reshuffled:
            reshuffle_every_epoch(model, 0)
        history = model.fit(
            x, labels, batch_size=BATCH, verbose=0, class_weight={0: 1.0, 1: 3.0}, validation_data=(x, labels)
        ).history
        assert history["mse"][0] == pytest.approx(75 / 100)  # 25 rows of weight 1 and loss 0, 25 of weight 3 and loss 1
        assert history["val_loss"][0] == pytest.approx(0.5)


def test_what_is_no_pair_of_arrays_passes_through():
    x, y = data()
    model = zero_model()
    reshuffle_every_epoch(model, 0)
    model.fit(x, y, sample_weight=np.ones(ROWS), verbose=0)
    model.fit(x, y, validation_split=0.2, verbose=0)
    assert model.optimizer.iterations.numpy() == 2 + 2


def test_restoring_gives_the_model_its_own_fit_back():
    model = zero_model()
    reshuffle_every_epoch(model, 0)
    assert "fit" in vars(model)
    restore_order(model)
    restore_order(model)
    assert "fit" not in vars(model)
