from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.records import Outcome
from tuner.stability.judgement import Judgement
from tuner.training import programs
from tuner.training.lifting import Lifted, key_of
from tuner.training.seedrun import TrainingData, train
from tuner.training.session import configure

JUDGEMENT = Judgement(metric="accuracy", chance_loss=2.3, chance_error=0.9, num_validation=100, num_classes=10)
CosineDecay = keras.optimizers.schedules.CosineDecay


@pytest.fixture(scope="module")
def data():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return TrainingData(x[:200], y[:200], x[200:300], y[200:300])


@pytest.fixture(autouse=True)
def _no_programs():
    programs.clear()


def penalty(l1, l2):
    if l1 and l2:
        return keras.regularizers.L1L2(l1, l2)
    return keras.regularizers.L1(l1) if l1 else keras.regularizers.L2(l2) if l2 else None


class Space(keras_tuner.HyperModel):
    """Two layers with everything that is lifted."""

    def build(self, hp):
        value = hp.values.get
        regularizer = penalty(value("l1", 0.0), value("l2", 0.0))
        rate = value("rate", 1e-2)
        if warmup := value("warmup", 0):
            rate = CosineDecay(rate / 10, value("decay_steps", 30), alpha=0.01, warmup_target=rate, warmup_steps=warmup)
        clipping = {value("clipping", "global_clipnorm"): value("clip", 0.0) or None}
        settings = {"weight_decay": decay} if (decay := value("decay", 0.0)) else {}
        optimizer = (keras.optimizers.AdamW if settings else keras.optimizers.Adam)(rate, **clipping, **settings)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(value("units", 16), activation="relu", kernel_regularizer=regularizer),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(value("dropout", 0.2)),
                keras.layers.Dense(10, activation="softmax", kernel_regularizer=regularizer),
            ]
        )
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.values.get("batch_size", 20), **kwargs)


def configuration(**values):
    hp = keras_tuner.HyperParameters()
    hp.values = values
    return hp


def trained(data, space=None, *, is_shared=True, seed=5, options=None, **values):
    space = space or Space()
    arguments = {"data": data, "judgement": JUDGEMENT, "epochs": 2, "seed": seed} | (options or {})
    with pytest.MonkeyPatch.context() as patch:
        if not is_shared:
            patch.setattr(programs, "shares", lambda hypermodel: False)
        return train(space, configuration(**values), **arguments)


def assert_same(shared, alone):
    # TensorFlow's optimiser of graphs may take its sum of squares in another order: the last digit of what is recorded.
    np.testing.assert_allclose(shared.trace.grad_norm, alone.trace.grad_norm, rtol=1e-6)
    for name in ("step_loss", "train_loss", "validation_loss", "learning_rate"):
        np.testing.assert_array_equal(getattr(shared.trace, name), getattr(alone.trace, name), err_msg=name)
    assert shared.trace.events == alone.trace.events
    assert (shared.run.objective, shared.run.message) == (alone.run.objective, alone.run.message)
    assert (shared.model is None) == (alone.model is None)
    if shared.model is not None:
        for first, second in zip(shared.model.variables, alone.model.variables, strict=True):
            np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)
        for first, second in zip(shared.model.optimizer.variables, alone.model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


def test_trainings_that_differ_in_numbers_share_a_program_and_equal_those_that_do_not(data):
    differing = [
        {},
        {"rate": 3e-2, "l1": 1e-3},
        {"l2": 1e-2, "dropout": 0.0},
        {"l1": 1e-3, "l2": 1e-3, "dropout": 0.5, "seed": 6},
        {"clip": 0.5, "batch_size": 40},
        {},
    ]
    for number, values in enumerate(differing):
        shared = trained(data, **values)
        assert shared.run.program == ("reused" if number else "built")
        alone = trained(data, is_shared=False, **values)
        assert alone.run.program == ""
        assert_same(shared, alone)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"decay": 0.1}, {"decay": 0.01, "rate": 3e-2}),
        ({"warmup": 5, "clip": 1.0}, {"warmup": 9, "decay_steps": 11, "rate": 3e-3, "clip": 0.2}),
        ({"clipping": "clipnorm", "clip": 1.0}, {"clipping": "clipnorm", "clip": 0.1}),
    ],
    ids=["weight_decay", "schedule", "clipnorm"],
)
def test_numbers_of_the_optimizer_are_shared_too(data, first, second):
    assert trained(data, **first).run.program == "built"
    shared = trained(data, **second)
    assert shared.run.program == "reused"
    assert_same(shared, trained(data, is_shared=False, **second))
    assert not np.array_equal(shared.trace.step_loss, trained(data, **first).trace.step_loss)


@pytest.mark.parametrize("other", [{"units": 8}, {"decay": 0.1}, {"warmup": 3}, {"clipping": "clipnorm", "clip": 1.0}])
def test_another_architecture_or_computation_is_another_program(data, other):
    assert trained(data).run.program == "built"
    assert trained(data, **other).run.program == "built"
    assert trained(data).run.program == "reused"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts what TensorFlow traces")
@pytest.mark.parametrize("class_weight", [None, dict.fromkeys(range(10), 1.0)], ids=["plain", "class_weight"])
def test_a_program_is_traced_once(data, monkeypatch, class_weight):
    traced = []
    step = keras.Model.train_step
    monkeypatch.setattr(keras.Model, "train_step", lambda self, *args: (traced.append(1), step(self, *args))[1])
    weighted = TrainingData(data.x, data.y, data.x_validation, data.y_validation, class_weight=class_weight)
    for rate in (1e-2, 1e-3, 1e-4):
        trained(weighted, rate=rate)
    assert len(traced) == 1


@pytest.fixture
def _default_session():
    yield
    configure(precision="float32", jit="auto")


@pytest.mark.usefixtures("_default_session")
@pytest.mark.parametrize("options", [("mixed_bfloat16", "auto"), ("float32", "on")], ids=["bfloat16", "xla"])
def test_other_ways_to_compute_are_shared_too(data, options):
    configure(precision=options[0], jit=options[1])
    differing = {"rate": 2e-2, "dropout": 0.4, "l2": 1e-3}
    assert trained(data).run.program == "built"
    shared = trained(data, **differing)
    assert shared.run.program == "reused"
    programs.clear()
    first = trained(data, **differing)
    assert first.run.program == "built"
    assert_same(shared, first)
    assert np.isfinite(shared.trace.step_loss).all()


@pytest.mark.usefixtures("_default_session")
def test_half_the_bits_in_a_shared_program_equal_those_in_one_of_their_own(data):
    configure(precision="mixed_bfloat16", jit="auto")
    differing = {"rate": 2e-2, "dropout": 0.4, "l2": 1e-3}
    trained(data)
    np.testing.assert_array_equal(
        trained(data, **differing).trace.step_loss, trained(data, is_shared=False, **differing).trace.step_loss
    )


@pytest.mark.usefixtures("_default_session")
def test_another_way_to_compute_is_another_program(data):
    assert trained(data).run.program == "built"
    configure(precision="mixed_bfloat16", jit="auto")
    assert trained(data).run.program == "built"


def test_with_class_weights(data):
    weighted = TrainingData(
        data.x, data.y, data.x_validation, data.y_validation, class_weight={code: 1.0 + code / 5 for code in range(10)}
    )
    options = {"epochs": 4, "ends_early": True}
    for values in ({}, {"l2": 1e-3, "rate": 3.0}, {"rate": 1.0, "clip": 0.0}, {"rate": 2e-2}):
        shared = trained(weighted, options=options, **values)
        alone = trained(weighted, is_shared=False, options=options, **values)
        assert_same(shared, alone)
        assert [finding.code for finding in shared.run.findings] == [finding.code for finding in alone.run.findings]
    assert shared.run.program == "reused"
    # Of weights, the compiled step is another one.
    assert trained(data).run.program == "built"


def test_a_guarded_training_is_trained_by_itself(data):
    trained(data)
    assert trained(data, options={"is_guarded": True}).run.program == ""
    assert trained(data).run.program == "reused"


def test_over_fitting_gets_the_weights_of_its_best_epoch_back(data):
    few = TrainingData(data.x[:40], np.roll(data.y[:40], 7), data.x_validation, data.y_validation)
    options = {"epochs": 60, "ends_early": True}
    values = {"rate": 3e-2, "batch_size": 10, "dropout": 0.0, "units": 64}
    trained(few, options={"epochs": 1}, **values)
    shared, alone = (trained(few, is_shared=is_shared, options=options, **values) for is_shared in (True, False))
    assert (shared.run.program, shared.run.ended_by) == ("reused", "over_fitting")
    for first, second in zip(shared.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_model_that_comes_out_is_plain(data, tmp_path):
    trained(data)
    model = trained(data, l2=1e-3, dropout=0.3).model
    assert model.get_layer(index=0).kernel_regularizer.l2 == pytest.approx(1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(data.x[:9], verbose=0), model.predict(data.x[:9], verbose=0), rtol=1e-6)


def test_a_diverged_training_leaves_nothing_behind(data):
    assert trained(data, rate=1e30, l2=1e-2).run.outcome is Outcome.DIVERGED
    shared = trained(data)
    assert shared.run.program == "reused"
    assert_same(shared, trained(data, is_shared=False))


def test_after_an_exception_the_program_is_not_used_again(data):
    def fails(epoch, trace):
        raise OSError("disk full")

    trained(data)
    with pytest.raises(OSError, match="disk full"):
        trained(data, options={"on_epoch": fails})
    assert trained(data).run.program == "built"


def test_the_least_used_program_is_forgotten(data, monkeypatch):
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 2)
    for units, use in ((4, "built"), (5, "built"), (4, "reused"), (6, "built"), (4, "reused"), (5, "built")):
        assert trained(data, units=units).run.program == use


def test_programs_are_bound_by_memory(data, monkeypatch):
    monkeypatch.setattr(programs, "MAX_BYTES", 1)
    assert [trained(data, units=units).run.program for units in (4, 4, 5, 4)] == ["built", "reused", "built", "built"]


class Curious(Space):
    """Its `fit` looks at the model."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def fit(self, hp, model, *args, **kwargs):
        if self.look == "before":
            model.optimizer.learning_rate = 1e-3
        if self.look == "set":
            model.stop_training = False
        if self.look == "isinstance":
            assert isinstance(model, keras.Sequential)
        history = super().fit(hp, model, *args, **kwargs)
        if self.look == "after":
            assert (
                model.count_params()
                == model.evaluate(kwargs["validation_data"][0][:1], args[1][:1], verbose=0)[0] * 0 + 1274
            )
        if self.look == "twice":
            super().fit(hp, model, *args, **kwargs)
        return history


@pytest.mark.parametrize("look", ["before", "set", "isinstance", "twice"])
def test_a_fit_that_does_more_is_given_the_model_itself(data, look):
    space = Curious(look)
    shared = trained(data, space)
    assert shared.run.outcome is not Outcome.ERROR, shared.run.message
    assert not programs.shares(space)
    assert_same(shared, trained(data, space, is_shared=False))
    assert trained(data, space).run.program == ""


def test_a_fit_may_look_at_the_trained_model(data):
    run = trained(data, Curious("after")).run
    assert (run.program, run.message) == ("built", "")


class _Mine(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


def unlifted():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1)(inputs)

    def model(outputs=outputs, loss="mse", optimizer="sgd", kind=keras.Model, **kwargs):
        made = kind(inputs, outputs)
        made.compile(optimizer, loss, **kwargs)
        return made

    class Subclass(keras.Model):
        pass

    own_step = model()
    own_step.train_step = lambda data: {}
    spared = model(optimizer=keras.optimizers.AdamW())
    spared.optimizer.exclude_from_weight_decay(var_names=["bias"])
    return {
        "layer": model(_Mine(2.0)(outputs)),
        "lambda": model(keras.layers.Lambda(lambda x: x)(outputs)),
        "loss": model(loss=lambda y_true, y_pred: keras.ops.mean(y_pred)),
        "metric": model(metrics=[lambda y_true, y_pred: keras.ops.mean(y_pred)]),
        "rate": model(optimizer=keras.optimizers.SGD(lambda: 0.1)),
        "subclass": model(kind=Subclass),
        "own step": own_step,
        "eager": model(run_eagerly=True),
        "spared from decay": spared,
    }


@pytest.mark.parametrize("name", unlifted())
def test_what_its_configuration_does_not_tell_is_trained_by_itself(name):
    assert key_of(unlifted()[name]) is None


def test_a_user_s_callback_is_given_the_plain_model(data):
    class Looks(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert type(self.model.layers[2]) is keras.layers.Dropout

    assert trained(data, options={"callbacks": [Looks()]}).run.message == ""
    run = trained(data, options={"callbacks": [keras.callbacks.EarlyStopping(patience=1)]}).run
    assert run.program == "built"


def test_names_that_keras_gave_do_not_matter_and_the_user_s_do():
    def model(name):
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name=name)])
        made.compile("sgd", "mse")
        return made

    assert key_of(model(None)) == key_of(model(None)) != key_of(model("mine"))
    assert key_of(model("mine")) == key_of(model("mine"))


def test_a_lifted_copy_of_a_model_with_branches_predicts_as_the_model(data):
    inputs = keras.Input((64,))
    first = keras.layers.Dense(8, kernel_regularizer="l1")(inputs)
    second = keras.layers.Dense(8)(keras.layers.Dropout(0.0)(inputs))
    model = keras.Model(inputs, keras.layers.Add()([first, second]))
    model.compile("sgd", "mse")
    lifted = Lifted(model, (data.x[:1], data.y[:1, None]))
    lifted.take(model)
    np.testing.assert_array_equal(lifted.model.predict(data.x[:9], verbose=0), model.predict(data.x[:9], verbose=0))
    assert float(sum(lifted.model.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-6)
