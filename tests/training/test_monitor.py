from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.stability.score import first_failure
from tuner.training.metrics import BalancedAccuracy, PlainAccuracy
from tuner.training.monitor import RestartWatch, StabilityMonitor, StepRecorder


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).reshape(-1, 8, 8, 1).astype("float32")[:500], y[:500]


def compiled(
    *,
    loss="sparse_categorical_crossentropy",
    steps_per_execution=1,
    optimizer=None,
    units=10,
    penalty=0.1,
    **compile_kwargs,
):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(penalty)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(units, activation="softmax" if units > 1 else None),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.Adam(1e-3), loss, steps_per_execution=steps_per_execution, **compile_kwargs
    )
    return model


def fitted(model, x, y, monitor=None, *, epochs=2, **fit_kwargs):
    keras.utils.set_random_seed(3)
    callbacks = [] if monitor is None else [monitor]
    return model.fit(
        x[:400],
        y[:400],
        validation_data=(x[400:], y[400:]),
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
        **fit_kwargs,
    )


class BatchLosses(keras.callbacks.Callback):
    """The slow way: what Keras's running mean says after each batch."""

    def __init__(self):
        super().__init__()
        self.means = []

    def on_train_batch_end(self, batch, logs=None):
        self.means.append(logs["loss"])


def test_step_losses_equal_those_recovered_from_keras_running_mean(digits):
    x, y = digits
    model = compiled(penalty=0.0)  # Keras's running mean contains the penalty
    slow, monitor = BatchLosses(), StabilityMonitor(2.3)
    keras.utils.set_random_seed(3)
    model.fit(x[:400], y[:400], epochs=1, batch_size=40, verbose=0, callbacks=[monitor, slow])
    means = np.array(slow.means) * np.arange(1, 11)
    recovered = np.diff(np.concatenate(([0.0], means)))
    np.testing.assert_allclose(monitor.trace.step_loss, recovered, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps_per_execution", [1, 4, 100])
def test_every_step_is_recorded_whatever_runs_in_one_call(digits, steps_per_execution):
    monitor = StabilityMonitor(2.3)
    fitted(compiled(steps_per_execution=steps_per_execution), *digits, monitor)
    trace = monitor.trace
    assert trace.steps_per_epoch == 13
    assert trace.step_loss.shape == trace.grad_norm.shape == (26,)
    assert np.all(trace.grad_norm > 0)
    assert trace.train_loss.shape == trace.validation_loss.shape == (2,)
    assert trace.planned_epochs == 2


def test_first_gradient_norm_is_that_of_the_first_batch(digits):
    x, y = digits
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    monitor = StabilityMonitor(2.3)
    dropout = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    dropout.rate = 0.0
    model.fit(x[:32], y[:32], epochs=1, batch_size=32, verbose=0, callbacks=[monitor])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total = model.compute_loss(y=y[:32], y_pred=model(x[:32], training=True))
    gradients = tape.gradient(total, model.trainable_weights)
    expected = np.sqrt(sum(float(np.sum(np.square(gradient.numpy()))) for gradient in gradients))
    assert monitor.trace.grad_norm == pytest.approx([expected], rel=1e-4)


def test_recorded_loss_has_no_penalty_and_no_class_weight(digits):
    x, y = digits
    monitor = StabilityMonitor(2.3)
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    history = fitted(model, x, y, monitor, epochs=1, class_weight=dict.fromkeys(range(10), 5.0))
    plain = keras.losses.SparseCategoricalCrossentropy()(y[400:], model.predict(x[400:], verbose=0))
    assert monitor.trace.validation_loss[0] == pytest.approx(float(plain), rel=1e-4)
    assert history.history["loss"][0] > 4 * monitor.trace.train_loss[0]
    np.testing.assert_allclose(monitor.weighted_losses(), 5 * monitor.trace.step_loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "bias"),
    [
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.2), [np.log(0.5), np.log(0.25), np.log(0.25)]),
        (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2), [2 + np.log(2), 2.0, 2.0]),
    ],
    ids=["probabilities", "logits"],
)
def test_recorded_loss_has_no_label_smoothing(loss, bias):
    """The outputs are 1/2, 1/4, 1/4 whatever comes in; the class is always the first: ln 2."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(3, kernel_initializer="zeros", bias_initializer=lambda *_, **__: np.array(bias)),
            keras.layers.Activation("linear" if loss.from_logits else "softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), loss)
    monitor = StabilityMonitor(1.1)
    x, y = np.zeros((4, 1), "float32"), np.eye(3, dtype="float32")[[0, 0, 0, 0]]
    history = model.fit(x, y, validation_data=(x, y), batch_size=2, verbose=0, callbacks=[monitor]).history
    trace = monitor.trace
    for losses in (trace.step_loss, trace.train_loss, trace.validation_loss):
        np.testing.assert_allclose(losses, np.log(2), rtol=1e-5)
    # Keras goes on with 13/15 and 1/15 twice.
    assert history["loss"] == pytest.approx([13 / 15 * np.log(2) + 2 / 15 * np.log(4)], rel=1e-5)
    assert model.loss.label_smoothing == 0.2


def test_what_fit_shows_of_several_outputs_stays_the_same(digits):
    x, y = digits
    shown = []
    for callbacks in ([], [StabilityMonitor(2.3)]):
        keras.utils.set_random_seed(3)
        flat = keras.layers.Flatten()(inputs := keras.Input((8, 8, 1)))
        outputs = [
            keras.layers.Dense(10, activation="softmax", name="digit")(flat),
            keras.layers.Dense(1, name="size")(flat),
        ]
        model = keras.Model(inputs, outputs)
        model.compile("sgd", ["sparse_categorical_crossentropy", "mean_squared_error"])
        labels, weights = [y, y.astype("float32")], [np.full(500, 5.0, "float32"), np.full(500, 3.0, "float32")]
        shown.append(model.fit(x, labels, sample_weight=weights, verbose=0, callbacks=callbacks).history)
    assert shown[0] == shown[1]
    trace = callbacks[0].trace
    assert trace.step_loss.shape == (16,)
    assert trace.train_loss[0] < shown[0]["loss"][0] / 3


def test_training_gives_the_same_numbers_with_and_without_it(digits):
    alone = fitted(compiled(), *digits).history
    monitor = StabilityMonitor(2.3, metric="balanced_accuracy", num_classes=10)
    watched = fitted(compiled(), *digits, monitor).history
    assert watched["loss"] == alone["loss"]
    assert watched["val_loss"] == alone["val_loss"]


def test_detach_leaves_a_plain_model(digits, tmp_path):
    x, y = digits
    model, monitor = compiled(metrics=["accuracy"]), StabilityMonitor(2.3, metric="accuracy")
    names_before = [metric.name for metric in model.metrics]
    fitted(model, x, y, monitor)
    monitor.detach()
    monitor.detach()  # twice does no harm
    assert [metric.name for metric in model.metrics] == names_before
    assert not any("grad_norm" in variable.path for variable in model.optimizer.variables)
    predicted = model.predict(x[:9], verbose=0)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras").predict(x[:9], verbose=0), predicted
    )
    again = fitted(model, x, y)
    assert again.history.keys() == {"accuracy", "loss", "val_accuracy", "val_loss"}


def test_without_validation_the_epoch_is_read_all_the_same(digits):
    x, y = digits
    monitor = StabilityMonitor()
    compiled().fit(x[:64], y[:64], epochs=2, batch_size=32, verbose=0, callbacks=[monitor])
    trace = monitor.trace
    assert trace.step_loss.shape == (4,)
    assert trace.validation_loss.size == 0
    assert trace.chance_loss == pytest.approx(trace.train_loss[0])


def test_ring_buffer_that_is_too_small_keeps_the_last_steps(digits):
    x, y = digits
    whole, short = StabilityMonitor(2.3), StabilityMonitor(2.3, capacity_steps=5)
    for monitor in (whole, short):
        fitted(compiled(), x, y, monitor, epochs=1)
    np.testing.assert_array_equal(short.trace.step_loss, whole.trace.step_loss[-5:])


def test_nan_shows_in_the_gradient_even_where_relu_hides_it_from_the_loss(digits):
    x, y = digits
    broken = x[:96].copy()
    broken[40] = np.nan
    monitor = StabilityMonitor(2.3)
    compiled().fit(broken, y[:96], epochs=1, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
    trace = monitor.trace
    assert np.isfinite(trace.grad_norm).tolist()[:2] == [True, False]
    assert first_failure(trace) == 1


def test_learning_rate_schedule_is_followed(digits):
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, decay_steps=13, decay_rate=0.1, staircase=True)
    monitor = StabilityMonitor(2.3)
    fitted(compiled(optimizer=keras.optimizers.Adam(schedule)), *digits, monitor)
    np.testing.assert_allclose(monitor.trace.learning_rate, [1e-3, 1e-4], rtol=1e-5)


def test_subclassed_model_with_its_own_train_step_is_recorded(digits):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")

        def call(self, x):
            return self.dense(self.flatten(x))

    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy")
    monitor = StabilityMonitor(2.3)
    fitted(model, *digits, monitor)
    assert monitor.trace.step_loss.shape == (26,)
    assert monitor.trace.train_loss[1] < monitor.trace.train_loss[0]


def test_model_without_a_loss_of_its_own_trains_on_unrecorded(digits):
    x, y = digits

    class Own(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean(keras.ops.square(inputs)))
            return inputs

    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, Own()(keras.layers.Conv2D(2, 3)(inputs)))
    model.compile("adam")
    monitor = StabilityMonitor()
    with pytest.warns(UserWarning, match=r"steps aside \(TypeError: the model was compiled without a loss\)") as caught:
        history = model.fit(x[:64], y[:64], epochs=3, verbose=0, callbacks=[monitor])
    assert len(caught) == 1
    assert monitor.is_aside
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert monitor.trace.step_loss.size == 0


def test_what_fails_while_recording_does_not_break_the_training(digits, monkeypatch, recwarn):
    def fails(self, y_true, y_pred, sample_weight=None):
        raise ValueError("strange labels")

    monkeypatch.setattr(StepRecorder, "update_state", fails)
    x, y = digits
    monitor = StabilityMonitor()
    history = compiled().fit(x[:64], y[:64], epochs=2, verbose=0, callbacks=[monitor])
    told = [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert len(told) == 1
    assert "steps aside (ValueError: strange labels)" in told[0]
    assert len(history.history["loss"]) == 2
    assert monitor.is_aside


def test_regression_is_recorded(digits):
    x, y = digits
    monitor = StabilityMonitor(1.0)
    fitted(compiled(loss="mean_squared_error", units=1), x, y / 10.0, monitor)
    assert np.all(np.isfinite(monitor.trace.validation_loss))


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        ([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]),
        ([[1, 0], [0, 1], [0, 1], [1, 0]], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]),
        ([[0], [1], [1], [0]], [[0.1], [0.8], [0.3], [0.4]]),
    ],
    ids=["codes", "one-hot", "sigmoid"],
)
def test_accuracies_understand_every_form_of_labels(labels, outputs):
    labels, outputs = np.array(labels, "float32"), np.array(outputs, "float32")
    accuracy, balanced = PlainAccuracy(), BalancedAccuracy(2)
    for metric in (accuracy, balanced):
        metric.update_state(labels, outputs)
    assert float(accuracy.result()) == pytest.approx(0.75)
    assert float(balanced.result()) == pytest.approx(0.75)


def test_balanced_accuracy_ignores_classes_that_do_not_occur():
    metric = BalancedAccuracy(3)
    metric.update_state(np.array([0, 0, 0, 1]), np.eye(3, dtype="float32")[[0, 0, 1, 1]])
    assert float(metric.result()) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(("from_logits", "expected"), [(True, 1.0), (False, 0.0)])
def test_a_single_output_is_read_as_the_loss_reads_it(from_logits, expected):
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=_constant(0.3))]
    )
    model.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy(from_logits=from_logits))
    monitor = StabilityMonitor(0.7, metric="accuracy", num_classes=2)
    x, y = np.zeros((8, 1), "float32"), np.ones(8, "float32")
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[monitor])
    assert monitor.trace.metrics["accuracy"][-1] == expected


def _constant(value):
    return keras.initializers.Constant(value)


def test_a_model_trained_before_is_recorded_all_the_same(digits):
    x, y = digits
    model, monitor = compiled(), StabilityMonitor(2.3)
    fitted(model, x, y)
    fitted(model, x, y, monitor)
    assert monitor.trace.step_loss.shape == (26,)
    assert monitor.trace.validation_loss.shape == (2,)


def test_epoch_loss_is_the_mean_over_samples_not_over_batches():
    # Weight 1, no update: losses 1 (two rows) and 16 (one row).
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error")
    monitor = StabilityMonitor(1.0)
    x = np.array([[1.0], [1.0], [4.0]], "float32")
    model.fit(x, 0 * x, batch_size=2, shuffle=False, verbose=0, callbacks=[monitor])
    trace = monitor.trace
    np.testing.assert_allclose(trace.step_loss, [1, 16])
    np.testing.assert_allclose(trace.grad_norm, [2, 32])
    np.testing.assert_allclose(trace.train_loss, [6])


def test_gradient_norm_of_a_scaled_loss_is_that_of_the_loss():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0)), "mean_squared_error")
    monitor = StabilityMonitor(1.0)
    model.fit(np.array([[4.0]]), np.array([[0.0]]), verbose=0, callbacks=[monitor])
    np.testing.assert_allclose(monitor.trace.grad_norm, [32])


class OwnStep(keras.Model):
    """The `train_step` of Keras's guide, which updates `self.metrics` one by one."""

    updates_metrics = True

    def __init__(self):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")

    def call(self, x):
        return self.dense(self.flatten(x))

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            elif self.updates_metrics:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


class OwnStepWithoutMetrics(OwnStep):
    updates_metrics = False


@pytest.mark.parametrize(("kind", "num_steps"), [(OwnStep, 26), (OwnStepWithoutMetrics, 0)])
def test_own_train_step_is_recorded_as_far_as_it_tells(digits, kind, num_steps):
    model, monitor = kind(), StabilityMonitor(2.3, metric="accuracy", num_classes=10)
    model.compile("adam", "sparse_categorical_crossentropy")
    fitted(model, *digits, monitor)
    trace = monitor.trace
    assert not monitor.is_aside
    assert trace.step_loss.shape == trace.grad_norm.shape == (num_steps,)
    assert trace.train_loss.shape == trace.validation_loss.shape == trace.metrics["accuracy"].shape == (2,)
    assert np.all(trace.train_loss > 0)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([1, 1, 1], []),
        ([0.1, 0.5, 1, 1], []),
        ([0, 0.5, 1], []),
        ([1, 0.5, 0.99], []),
        ([1, 0.5, 1.0], [2]),
        ([1, 0.51, 1.02], []),
        ([1, 0.1, 0.01, 1, 0.1, 0.01, 1], [3, 6]),
        ([0.1, 1, 0.1, 0.2, 1, 1], [3]),
        ([1, 0, 0, 1e-9, 1], [3]),
    ],
    ids=["constant", "warm-up", "from zero", "less", "enough", "no fall", "twice", "gradual", "after zero"],
)
def test_a_rate_that_fell_and_rises_is_a_restart(rates, expected):
    watch = RestartWatch()
    assert watch.feed(rates) == expected
    in_pieces = RestartWatch()
    assert [step for step, rate in enumerate(rates) if in_pieces.feed([rate])] == expected


def test_warm_restarts_of_a_schedule_are_events(digits):
    schedule = keras.optimizers.schedules.CosineDecayRestarts(1e-3, first_decay_steps=10, t_mul=1.0)
    monitor = StabilityMonitor(2.3)
    fitted(compiled(optimizer=keras.optimizers.Adam(schedule), steps_per_execution=4), *digits, monitor)
    assert monitor.trace.events == ((10, "warm_restart"), (20, "warm_restart"))


def test_a_warm_up_is_no_event(digits):
    schedule = keras.optimizers.schedules.CosineDecay(1e-5, 20, warmup_target=1e-3, warmup_steps=6)
    monitor = StabilityMonitor(2.3)
    fitted(compiled(optimizer=keras.optimizers.Adam(schedule)), *digits, monitor)
    assert monitor.trace.events == ()


def test_resumed_and_unfrozen_trainings_are_events(digits):
    model, monitor = compiled(), StabilityMonitor(2.3)
    model.layers[0].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    fitted(model, *digits, monitor, epochs=3, initial_epoch=2)
    assert monitor.trace.events == ((0, "resume"),)
    model.layers[0].trainable = True
    model.compile("adam", "sparse_categorical_crossentropy")
    fitted(model, *digits, monitor, epochs=4, initial_epoch=3)
    assert monitor.trace.events == ((0, "resume"), (13, "resume"), (13, "unfreezing"))
    assert monitor.trace.step_loss.shape == monitor.trace.grad_norm.shape == (26,)
