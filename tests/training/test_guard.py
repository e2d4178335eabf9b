from __future__ import annotations

import math
from dataclasses import replace

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.records import Outcome
from tuner.stability.alarm import ROLLBACK, Alarm, find_alarm
from tuner.stability.judgement import ROLLED_BACK_STABILITY, Judgement
from tuner.training import guard as guard_module
from tuner.training.guard import CUT_FACTOR, MAX_ACTIONS, SpikeGuard
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch
from tuner.training.replay import MAX_HALVINGS, Attempt, Passage, find_cure
from tuner.training.seedrun import TrainingData, train

ROWS, BATCH = 400, 20
BAD_ROW = 17
JUDGEMENT = Judgement(metric="accuracy", chance_loss=2.3, chance_error=0.9, num_validation=100, num_classes=10)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32")[: ROWS + 100], y[: ROWS + 100]


@pytest.fixture(scope="module")
def numbers(digits):
    return digits[0], ((digits[1] - 4.5) / 2.9).astype("float32")


def classifier(optimizer, *, steps_per_execution=8):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=steps_per_execution
    )
    return model


def fragile(optimizer, *, seed=3):
    """Without normalisation, so that a rate far too high kills it."""
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=8)
    return model


def line(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer, "mean_squared_error", steps_per_execution=8)
    return model


def fitted(model, data, *callbacks, epochs=4, **fit_kwargs):
    x, y = data
    validation = (x[ROWS:], y[ROWS:])
    options = {"batch_size": BATCH, "epochs": epochs, "verbose": 0, "validation_data": validation} | fit_kwargs
    return model.fit(x[:ROWS], y[:ROWS], callbacks=list(callbacks), **options).history


def fitted_with_replay(model, data, *, epochs=4, chance_loss=2.3, **fit_kwargs):
    monitor = StabilityMonitor(chance_loss)
    guard = SpikeGuard(monitor)
    reshuffle_every_epoch(model, 1, on_deal=guard.replay_from)
    return fitted(model, data, monitor, guard, epochs=epochs, **fit_kwargs), guard


def codes(guard):
    return [finding.code for finding in guard.findings]


def spoiled(data, value):
    x, y = data
    y = y.copy()
    y[BAD_ROW] = value
    return x, y


# A healthy training is not touched.


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("has_schedule", [False, True])
def test_a_healthy_training_has_the_same_numbers(digits, has_schedule, steps_per_execution):
    def model():
        rate = keras.optimizers.schedules.CosineDecay(1e-2, 80) if has_schedule else 1e-2
        optimizer = keras.optimizers.AdamW(rate, global_clipnorm=1.0)
        return classifier(optimizer, steps_per_execution=steps_per_execution)

    plain, guarded, guard = model(), model(), SpikeGuard()
    histories = [fitted(plain, digits), fitted(guarded, digits, guard)]
    assert histories[0] == histories[1]
    for one, other in zip(plain.get_weights(), guarded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert guard.findings == ()
    assert guard.trace.events == ()


@pytest.mark.parametrize("class_weight", [None, {label: 1.0 + label for label in range(10)}])
def test_a_healthy_training_with_replay_has_the_same_numbers(digits, class_weight):
    plain, guarded = (classifier(keras.optimizers.Adam(1e-2)) for _ in range(2))
    reshuffle_every_epoch(plain, 1)
    expected = fitted(plain, digits, class_weight=class_weight)
    found, guard = fitted_with_replay(guarded, digits, class_weight=class_weight)
    assert found == expected
    for one, other in zip(plain.get_weights(), guarded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert guard.findings == ()


def test_it_leaves_the_model_as_it_was(digits, tmp_path):
    model, plain = (classifier(keras.optimizers.Adam(3.0)) for _ in range(2))
    guard = SpikeGuard()
    fitted(model, digits, guard, epochs=3)
    fitted(plain, digits, epochs=1)
    assert codes(guard)
    assert "apply" not in vars(model.optimizer)
    assert "compute_metrics" not in vars(model)
    names, expected = (
        [variable.path.rpartition("_")[2] for variable in one.optimizer.variables] for one in (model, plain)
    )
    assert names[2:] == expected[2:]
    assert float(model.optimizer.learning_rate) == 3.0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(digits[0][:5], verbose=0), model.predict(digits[0][:5], verbose=0))


# Updates that are not finite.


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_updates_that_are_not_finite_never_reach_the_weights(numbers, value):
    model, guard = line(keras.optimizers.Adam(1e-2)), SpikeGuard()
    history = fitted(model, spoiled(numbers, value), guard, epochs=3)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert np.isfinite([float(np.sum(variable)) for variable in model.optimizer.variables]).all()
    assert history["val_loss"][-1] < history["val_loss"][0]
    if not math.isfinite(value):
        assert codes(guard) == ["guard_not_finite"]
        assert guard.findings[0].evidence["num_updates"] == 3
        assert guard.trace.step_loss.max() == pytest.approx(1e12 * guard.trace.chance_loss)
    assert np.isfinite(guard.trace.step_loss).all()
    assert np.isfinite(guard.trace.train_loss).all()


def test_a_gated_update_leaves_no_trace_in_the_optimizer(numbers):
    """The optimizer is after one bad batch what it was before."""
    x = numbers[0]
    model, guard = line(keras.optimizers.Adam(1e-2)), SpikeGuard()
    before = model.get_weights()
    model.fit(x[:BATCH], np.full(BATCH, math.nan), batch_size=BATCH, verbose=0, callbacks=[guard])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(model.optimizer.iterations) == 0


def test_mixed_precision_scales_its_loss_as_before(digits):
    def model():
        return classifier(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=2.0**40))

    plain, guarded, guard = model(), model(), SpikeGuard()
    assert fitted(plain, digits) == fitted(guarded, digits, guard)
    assert not guard.is_aside
    assert float(plain.optimizer.dynamic_scale) == float(guarded.optimizer.dynamic_scale)


# At the end of an epoch, in anyone's fit.


@pytest.mark.parametrize("has_schedule", [False, True])
def test_a_rate_far_too_high_is_cut_until_the_training_works(digits, has_schedule):
    def model(seed):
        rate = keras.optimizers.schedules.CosineDecay(0.3, 2000) if has_schedule else 0.3
        return fragile(keras.optimizers.Adam(rate), seed=seed)

    without, within = [], []
    # What such a rate does depends on the last bits of sums, so on the processor: more than one seed.
    for seed in (3, 4, 5):
        guard = SpikeGuard()
        without.append(fitted(model(seed), digits, epochs=6)["val_accuracy"][-1])
        within.append(max(fitted(model(seed), digits, guard, epochs=9)["val_accuracy"][-3:]))
        assert "guard_rollback" in codes(guard)
        assert (guard.trace.events[0][1], guard.trace.events[0][0] % 20) == (ROLLBACK, 0)
        assert guard.trace.learning_rate[-1] < 0.1
    assert np.median(without) < 0.3
    assert np.median(within) > 0.55


@pytest.mark.parametrize(("level", "num_rollbacks"), [(0.97, 1), (0.99, MAX_ACTIONS)])
def test_a_cut_after_which_nothing_is_learned_was_too_small(digits, monkeypatch, level, num_rollbacks):
    model, guard = classifier(keras.optimizers.SGD(0.1)), SpikeGuard(chance_loss=2.3)

    def losses(monitor):
        return 2.3 * np.array([1.0, *[level] * 999])[: len(monitor.trace.step_loss)]

    monkeypatch.setattr(StabilityMonitor, "weighted_losses", losses)
    alarms = iter([Alarm(1, 3.0)])
    monkeypatch.setattr(guard_module, "find_alarm", lambda *_, **__: next(alarms, None))
    fitted(model, digits, guard, epochs=6)
    assert codes(guard).count("guard_rollback") == num_rollbacks
    assert ("stayed at chance level" in guard.findings[-1].cause) is (num_rollbacks > 1)
    assert ("guard_gave_up" in codes(guard)) is (num_rollbacks > 1)


def test_at_most_three_corrections_then_it_ends_with_its_cause(digits, monkeypatch, caplog):
    monkeypatch.setattr(guard_module, "find_alarm", lambda *_, **__: Alarm(1, 3.0))
    guard = SpikeGuard()
    history = fitted(classifier(keras.optimizers.SGD(0.1)), digits, guard, epochs=9)
    assert len(history["loss"]) == MAX_ACTIONS + 1
    assert codes(guard) == ["guard_rollback"] * MAX_ACTIONS + ["guard_gave_up"]
    assert "after 3 corrections" in guard.failure
    assert guard.trace.learning_rate[-2:] == pytest.approx([0.1 * CUT_FACTOR**3] * 2)
    assert guard.verdict.code == "divergence"
    assert "SpikeGuard ends the training" in caplog.text


def test_a_cut_is_not_seen_by_callbacks_that_set_the_rate(digits, monkeypatch):
    alarms = iter([Alarm(1, 3.0)])
    monkeypatch.setattr(guard_module, "find_alarm", lambda *_, **__: next(alarms, None))
    model, guard = classifier(keras.optimizers.SGD(0.1)), SpikeGuard()
    fitted(model, digits, guard, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
    assert guard.trace.learning_rate == pytest.approx([0.1 * CUT_FACTOR] * 4)


def test_the_same_guard_serves_a_second_fit(digits):
    model, guard = classifier(keras.optimizers.SGD(0.1)), SpikeGuard()
    fitted(model, digits, guard, epochs=1)
    fitted(model, digits, guard, epochs=3, initial_epoch=1)
    assert guard.trace.num_epochs == 3
    assert not guard.is_aside


def test_it_warns_once_and_steps_aside(digits, monkeypatch, recwarn):
    def broken(*_, **__):
        raise ValueError("no such thing")

    monkeypatch.setattr(guard_module, "find_alarm", broken)
    plain, guarded, guard = classifier("sgd"), classifier("sgd"), SpikeGuard()
    assert fitted(plain, digits) == fitted(guarded, digits, guard)
    told = [str(warning.message) for warning in recwarn if "SpikeGuard" in str(warning.message)]
    assert told == [
        "SpikeGuard cannot guard this training and steps aside (ValueError: no such thing). "
        "The training goes on without it."
    ]


# With the batches at hand.


def test_a_rate_far_too_high_is_found_to_be_the_cause(digits):
    history, guard = fitted_with_replay(fragile(keras.optimizers.Adam(0.5)), digits, epochs=8)
    found = guard.findings[0]
    assert found.code == "guard_learning_rate"
    assert found.evidence["rate_scale"] < 0.25
    assert found.remedies[0].parameter == "learning_rate"
    assert guard.failure == ""
    assert history["val_accuracy"][-1] > 0.8
    assert guard.trace.step_loss.max() > 3 * 2.3, "the spike stays on the record"
    assert len(guard.trace.step_loss) == 8 * 20


def test_a_rate_far_too_high_is_found_where_classes_weigh_differently(digits):
    weights = {label: 0.5 + label / 9 for label in range(10)}
    history, guard = fitted_with_replay(fragile(keras.optimizers.Adam(0.5)), digits, epochs=8, class_weight=weights)
    assert guard.findings[0].code == "guard_learning_rate"
    assert guard.failure == ""
    assert history["val_accuracy"][-1] > 0.8


def test_a_batch_that_is_not_finite_is_found_to_be_data(numbers):
    history, guard = fitted_with_replay(line(keras.optimizers.SGD(0.02)), spoiled(numbers, math.inf), chance_loss=1.0)
    assert codes(guard) == ["guard_data", "guard_not_finite"]
    found = guard.findings[0]
    assert (found.evidence["is_cured_by_half_rate"], found.evidence["is_cured_by_skipping"]) == (0, 1)
    assert f"row {BAD_ROW}" in found.examples
    assert guard.trace.events == (), "the gate did what the cure would do"
    assert history["val_loss"][-1] < 0.9


def test_a_bad_row_is_named_and_three_spikes_by_it_are_enough(numbers):
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    history, guard = fitted_with_replay(line(optimizer), spoiled(numbers, 300.0), epochs=14, chance_loss=1.0)
    assert codes(guard) == ["guard_data"] * 3 + ["guard_gave_up"]
    assert [finding.examples for finding in guard.findings] == [(f"row {BAD_ROW}",)] * 4
    assert "look at the data" in guard.findings[-1].cause
    assert len(history["loss"]) < 14
    assert history["val_loss"][-1] < 0.5, "the weights are those of the last good checkpoint"


def test_batches_that_cannot_be_dealt_again_make_it_step_aside(digits, monkeypatch, recwarn):
    monkeypatch.setattr(guard_module, "is_same_step", lambda *_: False)
    history, guard = fitted_with_replay(fragile(keras.optimizers.Adam(0.5)), digits)
    assert guard.is_aside
    assert any("when repeated, not" in str(warning.message) for warning in recwarn)
    plain = fragile(keras.optimizers.Adam(0.5))
    reshuffle_every_epoch(plain, 1)
    assert history == fitted(plain, digits)


# What cures: known answers.


def passage(*, start=20, isolated=False):
    losses = np.ones(100)
    losses[start : start + 1 if isolated else None] = math.inf if isolated else 9.0
    factor = math.inf if isolated else 9.0
    return Passage(np.ones(30), losses, Alarm(start, factor), chance_loss=2.3, steps_per_epoch=100)


def probe(cured, *, losses=1.0, spiked_loss=9.0):
    """The answer when a repetition is sound exactly if `cured(scale, skipped)`."""
    made = []

    def repeat(scale, skipped):
        made.append(scale)
        result = np.full(100 - len(skipped), losses if not callable(losses) else losses(scale))
        if not cured(scale, skipped):
            result[20:] = spiked_loss
        return Attempt(scale, tuple(skipped), result, [])

    return repeat, made


@pytest.mark.parametrize(
    ("cured", "cause", "scale"),
    [
        (lambda scale, skipped: scale < 1, "learning_rate", 0.5),
        (lambda scale, skipped: scale < 0.1, "learning_rate", 0.0625),
        (lambda scale, skipped: bool(skipped), "data", 1.0),
        (lambda scale, skipped: bool(skipped) or scale < 1, "learning_rate", 0.5),
        (lambda scale, skipped: False, "unknown", None),
    ],
    ids=["half", "sixteenth", "skip", "both", "nothing"],
)
def test_what_cures_is_the_cause(cured, cause, scale):
    repeat, made = probe(cured)
    cure = find_cure(passage(), repeat, scale=1.0)
    assert cure.cause == cause
    assert (cure.winner.scale if cure.winner else None) == scale
    assert cure.num_replays == len(made) <= MAX_HALVINGS + 1


def test_both_cure_and_the_batch_still_stands_out():
    def repeat(scale, skipped):
        losses = np.ones(100 - len(skipped))
        if not skipped:
            losses[20] = 9.0
        return Attempt(scale, tuple(skipped), losses, [])

    assert find_cure(passage(), repeat, scale=1.0).cause == "data"


def test_a_lower_rate_is_taken_when_it_is_clearly_better():
    repeat, _ = probe(lambda scale, skipped: scale < 1, losses=lambda scale: 0.5 if scale <= 0.25 else 1.0)
    assert find_cure(passage(), repeat, scale=1.0).winner.scale == 0.25


@pytest.mark.parametrize(("is_birth", "scale"), [(False, 0.5), (True, 0.125)])
def test_at_the_birth_the_best_rate_is_taken(is_birth, scale):
    repeat, _ = probe(lambda scale, skipped: scale < 1, losses=lambda scale: 1 + abs(scale - 0.125))
    assert find_cure(replace(passage(), is_birth=is_birth), repeat, scale=1.0).winner.scale == scale


def test_a_rate_at_which_nothing_is_learned_is_no_cure_to_stop_at():
    repeat, _ = probe(lambda scale, skipped: scale < 1, losses=lambda scale: 2.0 if scale <= 1 / 32 else 2.3)
    assert find_cure(passage(), repeat, scale=1.0).winner.scale == 1 / 32


def test_a_batch_that_is_not_finite():
    assert passage(isolated=True).is_isolated
    assert passage(isolated=True).suspects == (20,)
    assert passage().suspects == (19, 20)

    def repeat(scale, skipped):
        losses = np.ones(100)
        if not skipped:
            losses[20] = math.nan
        return Attempt(scale, tuple(skipped), losses, [])

    assert find_cure(passage(isolated=True), repeat, scale=1.0).cause == "data"


# In a trial.


class Space(keras_tuner.HyperModel):
    def __init__(self, rate, *, as_dataset=False):
        super().__init__()
        self.rate, self.as_dataset = rate, as_dataset

    def build(self, hp):
        return fragile(keras.optimizers.Adam(self.rate))

    def fit(self, hp, model, x, y, **kwargs):
        if self.as_dataset:
            return model.fit(batches(x, y), shuffle=False, **kwargs)
        return model.fit(x, y, batch_size=BATCH, **kwargs)


def batches(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def trained(space, digits, *, is_guarded, epochs=8, judgement=JUDGEMENT, class_weight=None):
    x, y = digits
    data = TrainingData(x[:ROWS], y[:ROWS], x[ROWS:], y[ROWS:], class_weight)
    options = {"data": data, "judgement": judgement, "epochs": epochs, "seed": 5, "is_guarded": is_guarded}
    return train(space, keras_tuner.HyperParameters(), **options)


class Shares(keras_tuner.HyperModel):
    """Knows from the start that one row in twenty is of class 1; without weights there is no more to learn."""

    def build(self, hp):
        bias = keras.initializers.Constant(math.log(1 / 19))
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid", bias_initializer=bias)])
        model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", steps_per_execution=8)
        return model

    def fit(self, hp, model, x, y, **kwargs):
        return model.fit(x, y, batch_size=BATCH, **kwargs)


@pytest.mark.parametrize("is_oversampled", [False, True], ids=["class weights", "rows drawn again"])
def test_balancing_the_classes_is_no_spike(is_oversampled):
    """The plain loss goes from the entropy of 1:19 to ln 2, three and a half times as high."""
    y = np.tile(np.arange(20) % (2 if is_oversampled else 20) == 1, 25).astype(int)
    weights = None if is_oversampled else {0: 10 / 19, 1: 10.0}
    chance_loss = -(0.05 * math.log(0.05) + 0.95 * math.log(0.95))
    judgement = Judgement("balanced_accuracy", chance_loss, 0.5, num_validation=100, num_classes=2)
    options = {"epochs": 6, "judgement": judgement, "class_weight": weights}
    data = np.zeros((len(y), 1), "float32"), y
    one, other = (trained(Shares(), data, is_guarded=is_guarded, **options) for is_guarded in (False, True))
    losses = other.trace.step_loss
    np.testing.assert_array_equal(one.trace.step_loss, losses)
    assert other.trace.events == ()
    assert not [finding.code for finding in other.run.findings if finding.code.startswith("guard")]
    if not is_oversampled:
        assert find_alarm(losses, chance_loss=chance_loss, steps_per_epoch=20) is not None, "the plain loss"


def test_a_healthy_trial_has_the_same_record(digits):
    one, other = (trained(Space(1e-2), digits, is_guarded=is_guarded, epochs=4) for is_guarded in (False, True))
    np.testing.assert_array_equal(one.trace.step_loss, other.trace.step_loss)
    np.testing.assert_array_equal(one.trace.validation_loss, other.trace.validation_loss)
    assert (one.run.objective, one.run.score) == (other.run.objective, other.run.score)
    assert one.run.findings == other.run.findings


@pytest.mark.parametrize("as_dataset", [False, True], ids=["replay", "own fit over a dataset"])
def test_a_trial_that_was_saved_is_usable_and_not_stable(digits, as_dataset):
    training = trained(Space(0.3, as_dataset=as_dataset), digits, is_guarded=True)
    run = training.run
    assert run.outcome is Outcome.COMPLETED
    assert run.metrics["val_accuracy"] > 0.7
    assert run.score.stability <= ROLLED_BACK_STABILITY
    assert run.findings[0].code == ("guard_rollback" if as_dataset else "guard_learning_rate")
    assert any(kind == ROLLBACK for _, kind in training.trace.events)
    assert training.model is not None


def test_a_trial_that_cannot_be_saved_has_failed_with_its_cause(digits, monkeypatch):
    monkeypatch.setattr(guard_module, "find_alarm", lambda *_, **__: Alarm(1, 3.0))
    run = trained(Space(1e-2, as_dataset=True), digits, is_guarded=True).run
    assert run.outcome is Outcome.DIVERGED
    assert "after 3 corrections" in run.message
