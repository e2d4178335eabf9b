"""The sweep on real trainings: a linear model whose diverging rate is known, and what the sweep leaves alone."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest

from tuner.errors import SpaceError
from tuner.stability.judgement import Judgement
from tuner.stability.margin import HIGHEST_RATE
from tuner.training import programs
from tuner.training.margin import NUM_SEEDS, Sweep, stability_margin
from tuner.training.seedrun import TrainingData

JUDGEMENT = Judgement(metric="loss", chance_loss=1.0, chance_error=1.0, num_validation=10)


def linear_data(scale=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 5)) * [3, 1, 1, 0.5, 0.5] * scale
    y = x @ [1, -1, 0.5, 0.2, 1] / scale + rng.normal(size=2000)
    return x.astype("float32"), y.astype("float32")[:, None]


def linear_model(rate=1e-3, *, optimizer=keras.optimizers.SGD):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer(rate), "mse")
    return model


def known_rate(x):
    """Gradient descent on a squared loss is stable up to 2 over the largest eigenvalue of its Hessian."""
    return 2 / np.linalg.eigvalsh(2 * x.T @ x / len(x)).max()


class Space(keras_tuner.HyperModel):
    """Notes what it is asked to fit."""

    def __init__(self, *, rate=1e-2, l2=0.0, calls_fit=True):
        super().__init__()
        self.rate, self.l2, self.calls_fit, self.num_fits = rate, l2, calls_fit, 0

    def build(self, hp):
        penalty = keras.regularizers.L2(self.l2) if self.l2 else None
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, kernel_regularizer=penalty)])
        model.compile(keras.optimizers.SGD(self.rate), "mse")
        return model

    def fit(self, hp, model, *args, **kwargs):
        self.num_fits += 1
        return model.fit(*args, batch_size=hp.get("batch_size"), **kwargs) if self.calls_fit else None


def sweep_of(space, *, batch_size=50, scale=1.0, seed=0):
    hp = keras_tuner.HyperParameters()
    hp.values["batch_size"] = batch_size
    x, y = linear_data(scale)
    return Sweep(space, hp, data=TrainingData(x, y, x[:5], y[:5]), judgement=JUDGEMENT, seed=seed)


def test_sgd_on_a_squared_loss_diverges_where_the_eigenvalue_says():
    x, y = linear_data()
    margin = stability_margin(linear_model, x, y, batch_size=50)
    # Above the edge the loss still has to grow out of the noise, while the rate rises by a tenth a step.
    assert known_rate(x) < margin.sweep.diverging_rate < 5 * known_rate(x)
    assert margin.ratio == pytest.approx(margin.sweep.diverging_rate / 1e-3)
    assert not margin.sweep.is_bound
    assert len(margin.sweep.diverging_rates) == NUM_SEEDS


def test_twice_the_input_means_a_quarter_of_the_rate():
    (x, y), (x_double, _) = linear_data(), linear_data(2.0)
    once = stability_margin(linear_model, x, y, batch_size=50).sweep.diverging_rate
    double = stability_margin(linear_model, x_double, y, batch_size=50).sweep.diverging_rate
    assert once / double == pytest.approx(4, rel=0.25)


def test_a_model_that_no_rate_breaks_has_a_bound():
    def build():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    x, _ = linear_data()
    margin = stability_margin(build, x, (x[:, :1] > 0).astype("float32"), batch_size=50)
    assert margin.sweep.diverging_rates == (None,) * NUM_SEEDS
    assert margin.text == f"above x{HIGHEST_RATE / 0.1:g}"


def test_a_model_of_the_users_is_left_alone():
    x, y = linear_data()
    model = linear_model(optimizer=keras.optimizers.Adam)
    model.fit(x, y, epochs=1, verbose=0)
    weights = [value.copy() for value in model.get_weights()]
    margin = stability_margin(model, x, y, batch_size=50)
    assert margin.peak_rate == pytest.approx(1e-3)
    np.testing.assert_array_equal(model.get_weights(), weights)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)
    assert int(model.optimizer.iterations) == 63


def test_classes_as_codes_and_one_hot_break_at_like_rates():
    x, _ = linear_data()
    y = np.digitize(x[:, 0], [-1, 1])

    def build(loss):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
        model.compile(keras.optimizers.SGD(0.1), loss)
        return model

    codes = stability_margin(lambda: build("sparse_categorical_crossentropy"), x, y, batch_size=50)
    one_hot = stability_margin(lambda: build("categorical_crossentropy"), x, np.eye(3)[y], batch_size=50)
    assert codes.sweep.diverging_rates == pytest.approx(one_hot.sweep.diverging_rates)


def test_peak_rate_is_the_highest_of_the_schedule():
    schedule = keras.optimizers.schedules.CosineDecay(1e-5, 100, warmup_target=0.02, warmup_steps=20)
    assert sweep_of(Space(rate=schedule)).peak_rate(epochs=3) == pytest.approx(0.02)
    assert sweep_of(Space(rate=schedule), batch_size=2000).peak_rate(epochs=11) == pytest.approx(0.01, rel=0.01)
    assert sweep_of(Space(rate=0.3)).peak_rate(epochs=3) == pytest.approx(0.3)


def test_the_key_masks_the_rate_alone():
    key = sweep_of(Space()).key()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert sweep_of(Space(rate=0.5)).key() == sweep_of(Space(rate=schedule)).key() == key
    others = [sweep_of(Space(l2=0.1)), sweep_of(Space(), batch_size=25), sweep_of(Space(), scale=2.0)]
    assert len({key, *(other.key() for other in others)}) == 4


def test_a_sweep_repeats_and_does_not_depend_on_the_trials_rate():
    first, again = (sweep_of(Space(rate=rate)).run().diverging_rates for rate in (1e-3, 1.0))
    assert first == again


def test_sweeps_of_one_architecture_share_a_program_and_give_what_each_gives_alone():
    programs.clear()
    shared = [sweep_of(Space(l2=l2)).run() for l2 in (1e-4, 1e-2)]
    assert programs.num_kept() == 1
    programs.clear()
    alone = sweep_of(Space(l2=1e-2)).run()
    assert shared[1].diverging_rates == alone.diverging_rates


def test_a_model_that_shares_no_program_is_swept_by_itself():
    class Own(keras.layers.Dense):
        pass

    def build():
        model = keras.Sequential([keras.Input((5,)), Own(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        return model

    x, y = linear_data()
    programs.clear()
    alone = stability_margin(build, x, y, batch_size=50).sweep.diverging_rates
    assert programs.num_kept() == 0
    assert alone == pytest.approx(stability_margin(linear_model, x, y, batch_size=50).sweep.diverging_rates)
    assert programs.num_kept() > 0


def test_a_fit_that_trains_by_other_means_cannot_be_swept():
    with pytest.raises(SpaceError, match="never calls"):
        sweep_of(Space(calls_fit=False))


def test_a_model_that_cannot_be_copied_is_one_clear_error():
    class Own(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = keras.layers.Dense(width)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own(1)
    model.compile("sgd", "mse")
    x, y = linear_data()
    with pytest.raises(SpaceError, match="Give a function that builds"):
        stability_margin(model, x, y)

    def build():
        own = Own(1)
        own.compile("sgd", "mse")
        return own

    assert stability_margin(build, x, y, batch_size=50).ratio > 1
