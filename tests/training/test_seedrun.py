from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.data.balance import class_weights, oversampled_rows
from tuner.records import Finding, Outcome
from tuner.stability.judgement import Judgement, chance_cross_entropy
from tuner.training.seedrun import StopTraining, TrainingData, train

JUDGEMENT = Judgement(metric="accuracy", chance_loss=2.3, chance_error=0.9, num_validation=100, num_classes=10)


@pytest.fixture(scope="module")
def data():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    return TrainingData(x[:400], y[:400], x[400:500], y[400:500])


class Space(keras_tuner.HyperModel):
    def __init__(self, *, rate=1e-2, loss="sparse_categorical_crossentropy"):
        super().__init__()
        self.rate, self.loss, self.fit_kwargs = rate, loss, {}

    def build(self, hp):
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
        )
        model.compile(keras.optimizers.SGD(self.rate), self.loss)
        return model

    def fit(self, hp, model, *args, **kwargs):
        self.fit_kwargs = kwargs
        return super().fit(hp, model, *args, batch_size=20, **kwargs)


def trained(space, data, **kwargs):
    options = {"data": data, "judgement": JUDGEMENT, "epochs": 4, "seed": 5} | kwargs
    return train(space, keras_tuner.HyperParameters(), **options)


def test_training_leaves_record_trace_and_model(data):
    result = trained(Space(rate=0.5), data, trial=7, seed_index=2)
    run = result.run
    assert (run.trial, run.seed_index, run.seed, run.outcome) == (7, 2, 5, Outcome.COMPLETED)
    assert (run.epochs, run.steps_per_epoch, run.num_parameters) == (4, 20, 650)
    assert run.metrics["val_accuracy"] > 0.7
    assert run.error == pytest.approx(1 - np.mean(result.trace.metrics["accuracy"][-3:]) + 0.01)
    assert result.trace.step_loss.shape == (80,)
    assert result.model.predict(data.x[:2], verbose=0).shape == (2, 10)


def test_the_same_seed_repeats_and_another_differs(data):
    first, again, other = (trained(Space(), data, seed=seed).trace.step_loss for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_that_becomes_nan_stops_at_the_end_of_the_epoch(data):
    broken = TrainingData(
        np.where(data.x > 2, 0, data.x * np.float32(1e30)), data.y, data.x_validation, data.y_validation
    )
    result = trained(Space(rate=1e10), broken, epochs=9)
    assert result.run.outcome is Outcome.DIVERGED
    assert result.run.epochs == 1
    assert result.model is None
    assert np.isfinite(result.run.objective)
    assert result.run.score.stability < 0


def test_planned_budget_counts_even_when_the_training_ended_early(data):
    def stop_after_two(epoch, trace):
        assert trace.num_epochs == epoch + 1

    result = trained(Space(), data, epochs=6, on_epoch=stop_after_two)
    assert result.trace.planned_epochs == 6


def test_an_exception_in_the_users_model_is_a_result(data):
    class Broken(Space):
        def build(self, hp):
            raise RuntimeError("no such layer")

    run = trained(Broken(), data).run
    assert run.outcome is Outcome.ERROR
    assert run.message == "RuntimeError: no such layer"
    assert np.isfinite(run.objective)


@pytest.mark.parametrize(
    ("returned", "message"),
    [(None, "returned an object of type NoneType"), (keras.Sequential([keras.layers.Dense(1)]), "not compiled")],
    ids=["nothing", "uncompiled"],
)
def test_what_is_no_compiled_model_is_a_clear_result(data, returned, message):
    class Wrong(Space):
        def build(self, hp):
            return returned

    run = trained(Wrong(), data).run
    assert run.outcome is Outcome.ERROR
    assert message in run.message


def test_stop_training_passes_through(data):
    def stop(epoch, trace):
        raise StopTraining

    with pytest.raises(StopTraining):
        trained(Space(), data, on_epoch=stop)


def test_labels_become_one_hot_for_models_compiled_so(data):
    assert trained(Space(loss="categorical_crossentropy", rate=0.5), data).run.metrics["val_accuracy"] > 0.7


def test_class_weights_and_the_users_own_fit_are_honoured(data):
    space = Space()
    weighted = TrainingData(
        data.x, data.y, data.x_validation, data.y_validation, class_weight=dict.fromkeys(range(10), 2.0)
    )
    trained(space, weighted, verbose=0)
    assert space.fit_kwargs["class_weight"] == dict.fromkeys(range(10), 2.0)
    assert space.fit_kwargs["epochs"] == 4


def test_regression_is_judged_by_its_loss(data):
    class Line(Space):
        def build(self, hp):
            model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
            model.compile(keras.optimizers.Adam(1e-2), "mean_squared_error")
            return model

    numbers = TrainingData(data.x, (data.y - 4.5) / 3, data.x_validation, (data.y_validation - 4.5) / 3)
    judgement = Judgement(metric="loss", chance_loss=1.0, chance_error=1.0, num_validation=100)
    run = trained(Line(), numbers, judgement=judgement, epochs=6).run
    assert run.outcome is Outcome.COMPLETED
    assert run.error < 0.9
    assert run.objective < 0


def test_what_the_caller_raises_is_no_result_of_the_configuration(data):
    def fails(epoch, trace):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        trained(Space(), data, on_epoch=fails)


class Large(Space):
    """Learns by heart within a few epochs; its schedule is made for 20."""

    def build(self, hp):
        rate = keras.optimizers.schedules.CosineDecay(1e-2, decay_steps=20 * 20, alpha=0.5)
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(256, "relu")]
        model = keras.Sequential([*layers, keras.layers.Dense(10, "softmax")])
        model.compile(keras.optimizers.Adam(rate), self.loss)
        return model


@pytest.fixture(scope="module")
def mislabelled():
    """Two fifths of the labels are wrong: there is much to learn by heart."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < 0.4, rng.integers(0, 10, len(y)), y)
    return TrainingData(x[:400], y[:400], x[400:800], y[400:800])


def test_over_fitting_ends_a_training_which_is_judged_and_kept_at_its_best_epoch(mislabelled):
    found = trained(Large(), mislabelled, epochs=20, ends_early=True)
    best = int(np.argmin(found.trace.validation_loss))
    assert (found.run.outcome, found.run.ended_by, found.run.epochs) == (Outcome.COMPLETED, "over_fitting", best + 1)
    assert best + 1 < found.trace.num_epochs < 20
    assert "Ended after epoch" in found.run.message
    assert f"Kept: the weights of epoch {best + 1}," in found.run.message
    assert found.run.metrics["val_loss"] == pytest.approx(min(found.trace.validation_loss))
    assert found.run.causes[0].code == "over_fitting"

    # The configuration with these epochs, whose schedule keeps its length, is the same training.
    again = trained(Large(), mislabelled, epochs=best + 1)
    assert again.run.objective == pytest.approx(found.run.objective)
    for kept, weights in zip(found.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_allclose(kept, weights, rtol=1e-5, atol=1e-7)

    # To the end, it is worth less.
    full = trained(Large(), mislabelled, epochs=20)
    assert (full.run.epochs, full.run.ended_by, full.run.message) == (20, "", "")
    assert full.run.objective > found.run.objective
    np.testing.assert_array_equal(full.trace.step_loss[: len(found.trace.step_loss)], found.trace.step_loss)


class Thrown(keras.callbacks.Callback):
    """Throws the weights away after the third epoch, where no gradient brings them back."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            self.model.set_weights([weights * -1000 for weights in self.model.get_weights()])


@pytest.mark.parametrize(
    ("rate", "callbacks", "outcome", "code"),
    [
        (1e-9, [], Outcome.NOT_LEARNING, "not_learning"),
        (0.05, [Thrown()], Outcome.DIVERGED, "divergence"),
        (0.5, [], Outcome.COMPLETED, ""),
    ],
    ids=["no learning", "no way back", "healthy"],
)
def test_what_is_certain_ends_a_training_early_and_nothing_else_does(data, rate, callbacks, outcome, code):
    found = trained(Space(rate=rate), data, epochs=10, ends_early=True, callbacks=callbacks)
    assert (found.run.outcome, found.run.ended_by) == (outcome, code)
    assert (found.trace.num_epochs < 10) is bool(code)
    assert np.isfinite(found.run.objective)
    assert (found.model is None) is outcome.is_failed
    assert bool(found.run.message) is bool(code)


def test_a_loss_that_is_a_number_ends_no_training_that_was_not_asked_to(data):
    found = trained(Space(rate=0.05), data, epochs=6, callbacks=[Thrown()])
    assert (found.run.ended_by, found.trace.num_epochs) == ("", 6)
    assert "divergence" in [finding.code for finding in found.run.findings]


def test_what_was_found_and_why_is_recorded(data):
    hp = keras_tuner.HyperParameters()
    hp.values["learning_rate"] = 3.0
    options = {"data": data, "judgement": JUDGEMENT, "epochs": 4, "seed": 5}
    outliers = Finding("outliers", "c3", 0.5, 0.9, {}, "Some values lie far outside.")
    run = train(Space(rate=0.05), hp, data_findings=[outliers], callbacks=[Thrown()], **options).run
    assert "divergence" in [finding.code for finding in run.findings]
    too_high = next(cause for cause in run.causes if cause.code == "learning_rate_too_high")
    assert too_high.evidence["high_rate"] > 0
    assert too_high.evidence["data:outliers"] < 0
    assert not any("model:large_initial_weights" in cause.evidence for cause in run.causes), "large at the end only"
    healthy = train(Space(rate=0.5), hp, **options).run
    assert healthy.causes == ()


@pytest.mark.parametrize("balance", ["class_weights", "oversample"])
def test_classes_that_count_alike_are_held_against_a_chance_of_like_classes(balance):
    """Two classes, 15 to 1, that cannot be told apart well: the plain loss stays above the entropy of the labels."""

    class TwoClasses(Space):
        def build(self, hp):
            layer = keras.layers.Dense(2, activation="softmax", kernel_initializer="zeros")
            model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), layer])
            model.compile(keras.optimizers.SGD(self.rate), self.loss)
            return model

    rng = np.random.default_rng(0)
    y = (np.arange(800) % 16 == 0).astype(np.int64)
    x = (rng.normal(0, 1, (800, 8, 8, 1)) + 0.2 * y[:, None, None, None]).astype("float32")
    rows = oversampled_rows(y, seed=0) if balance == "oversample" else np.arange(800)
    weights = class_weights(y) if balance == "class_weights" else None
    unequal = TrainingData(x[rows], y[rows], x[:160], y[:160], class_weight=weights)
    entropy = chance_cross_entropy(y)
    judgement = Judgement("balanced_accuracy", entropy, 0.5, num_validation=160, num_classes=2)
    result = trained(TwoClasses(), unequal, judgement=judgement, epochs=6)
    assert result.trace.train_loss.min() > entropy
    assert result.trace.chance_loss == pytest.approx(np.log(2), abs=1e-3)
    assert result.run.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("is_guarded", [False, True])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_probes_add_channels_and_change_no_number(data, loss, is_guarded):
    plain = trained(Space(loss=loss, rate=0.5), data, epochs=3, is_guarded=is_guarded)
    probed = trained(Space(loss=loss, rate=0.5), data, epochs=3, is_guarded=is_guarded, has_probes=True)
    assert probed.trace.step_loss.tolist() == plain.trace.step_loss.tolist()
    assert not plain.trace.channels
    assert {"class_recall_min", "update_ratio"} <= set(probed.trace.channels)
    answers = probed.model.predict(data.x_validation, verbose=0).argmax(axis=-1)
    right = [np.mean(answers[data.y_validation == code] == code) for code in range(10)]
    many = [recall for code, recall in enumerate(right) if np.sum(data.y_validation == code) >= 10]
    assert probed.trace.channels["class_recall_min"][-1] == pytest.approx(min(many))
