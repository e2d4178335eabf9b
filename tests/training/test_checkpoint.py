"""A training that is interrupted after any epoch goes on with the next one, and ends as if nothing had happened."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.errors import EnvironmentFault, RunError
from tuner.stability.detectors import Verdict
from tuner.stability.judgement import Judgement
from tuner.store import read_arrays, write_arrays
from tuner.training import checkpoint
from tuner.training.seedrun import StopTraining, TrainingData, train

JUDGEMENT = Judgement(metric="accuracy", chance_loss=2.3, chance_error=0.9, num_validation=100, num_classes=10)


@pytest.fixture(scope="module")
def data():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    return TrainingData(x[:400], y[:400], x[400:500], y[400:500], class_weight=dict.fromkeys(range(10), 1.0) | {3: 2.0})


class Space(keras_tuner.HyperModel):
    """A small CNN with everything in it that has a state: augmentation, normalisation, dropout, Adam, a schedule."""

    def build(self, hp):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.RandomTranslation(0.1, 0.1),
                layers.Conv2D(4, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.Dropout(hp.Float("dropout", 0.0, 0.5, default=0.3)),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
        rate = keras.optimizers.schedules.CosineDecayRestarts(0.05, first_decay_steps=30)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=32, **kwargs)


class Plain(Space):
    """Built and compiled fast, for what does not depend on the model."""

    def build(self, hp):
        hp.Float("dropout", 0.0, 0.5)
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model


def trained(data, file=None, *, space=None, epochs=5, dropout=0.3, **kwargs):
    hp = keras_tuner.HyperParameters()
    hp.Float("dropout", 0.0, 0.5, default=dropout)
    options = {"judgement": JUDGEMENT, "epochs": epochs, "seed": 5, "checkpoint_file": file} | kwargs
    return train(space or Space(), hp, data=data, **options)


def interrupted(data, file, *, after, **kwargs):
    """Train that many epochs, as a process that then ends."""

    def stop(epoch, trace):
        if epoch + 1 == after:
            raise StopTraining

    with pytest.raises(StopTraining):
        trained(data, file, on_epoch=stop, **kwargs)
    # Another process has other names, and random generators in another state.
    keras.backend.clear_session()
    random.seed(99)
    np.random.seed(99)
    keras.layers.Dense(1)


def everything(training):
    """The training without what time and the process alone decide."""
    trace = training.trace
    arrays = {
        name: getattr(trace, name)
        for name in ("step_loss", "grad_norm", "train_loss", "validation_loss", "learning_rate")
    }
    arrays |= {f"metric/{name}": values for name, values in trace.metrics.items()}
    weights = [] if training.model is None else training.model.get_weights()
    arrays |= {f"weight/{position}": values for position, values in enumerate(weights)}
    record = {name: value for name, value in vars(training.run).items() if name not in ("seconds", "program")}
    return {name: values.tobytes() for name, values in arrays.items()}, trace.events, record


@pytest.fixture(scope="module")
def uninterrupted(data):
    return everything(trained(data))


@pytest.mark.parametrize("after", [1, 3])
def test_a_training_interrupted_after_an_epoch_ends_as_if_it_had_not_been(after, data, uninterrupted, tmp_path):
    file = tmp_path / "checkpoint.npz"
    interrupted(data, file, after=after)
    epochs = []
    resumed = trained(data, file, on_epoch=lambda epoch, trace: epochs.append((epoch, trace.num_epochs)))
    assert epochs == [(epoch, epoch + 1) for epoch in range(after, 5)]
    assert everything(resumed) == uninterrupted
    assert len(resumed.trace.events) > 0  # The schedule's restarts, and nothing of the interruption.


def test_a_training_interrupted_after_every_epoch_does_too(data, uninterrupted, tmp_path):
    for after in (1, 2, 3, 4):
        interrupted(data, tmp_path / "checkpoint.npz", after=after)
    assert everything(trained(data, tmp_path / "checkpoint.npz")) == uninterrupted


def test_one_that_over_fits_keeps_the_best_epoch_of_before(data, tmp_path, monkeypatch):
    def worse_from_the_second_on(trace):
        return Verdict(trace.num_epochs == 4, "over_fitting" if trace.num_epochs == 4 else "go_on", "it over-fits")

    # Its first epoch is the best one; labels that fit nothing make it so.
    shuffled = TrainingData(data.x, data.y, data.x_validation, (data.y_validation + 5) % 10)
    monkeypatch.setattr("tuner.training.seedrun.verdict", worse_from_the_second_on)
    expected = trained(shuffled, ends_early=True)
    assert (expected.run.ended_by, expected.run.epochs, expected.trace.num_epochs) == ("over_fitting", 1, 4)
    interrupted(shuffled, tmp_path / "checkpoint.npz", after=2, ends_early=True)
    resumed = trained(shuffled, tmp_path / "checkpoint.npz", ends_early=True)
    assert everything(resumed) == everything(expected)


def test_seconds_of_the_interrupted_part_count(data, tmp_path):
    file = tmp_path / "checkpoint.npz"
    interrupted(data, file, after=1, epochs=2, space=Plain())
    arrays = read_arrays(file)
    about = json.loads(arrays["about"].item())
    assert 0 < about["seconds"] < 300
    write_arrays(file, arrays | {"about": np.array(json.dumps(about | {"seconds": 5000.0}))})
    assert 5000 < trained(data, file, epochs=2, space=Plain()).run.seconds < 5300


def test_a_training_that_is_over_leaves_its_last_checkpoint_alone(data, tmp_path, monkeypatch):
    # Until the caller has stored the result; and there is none of the last epoch, after which nothing is left to do.
    monkeypatch.setattr(checkpoint, "MIN_INTERVAL_RATIO", 0.0)
    trained(data, tmp_path / "checkpoint.npz", epochs=3, space=Plain())
    assert json.loads(read_arrays(tmp_path / "checkpoint.npz")["about"].item())["epochs_done"] == 2


@pytest.mark.parametrize(("ratio", "written"), [(0.0, [1, 2, 3]), (1e9, [1])])
def test_short_epochs_are_not_all_written(ratio, written, data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(checkpoint, "MIN_INTERVAL_RATIO", ratio)
    monkeypatch.setattr(
        checkpoint, "write_arrays", lambda _, arrays: seen.append(json.loads(arrays["about"].item())["epochs_done"])
    )
    trained(data, tmp_path / "checkpoint.npz", epochs=4, space=Plain())
    assert seen == written


# --- what is not gone on from ------------------------------------------------------------------------------------


def first_epoch(data, file, **kwargs):
    """Zero-based number of the epoch that a training begins with."""
    epochs = []
    trained(
        data, file, on_epoch=lambda epoch, trace: epochs.append(epoch), **({"epochs": 2, "space": Plain()} | kwargs)
    )
    return epochs[0]


@pytest.mark.parametrize("damage", ["cut", "bytes"])
def test_a_damaged_file_is_named_and_the_training_starts_again(damage, data, tmp_path, caplog):
    file = tmp_path / "checkpoint.npz"
    interrupted(data, file, after=1, epochs=2, space=Plain())
    content = file.read_bytes()
    noise = bytes(np.random.default_rng(0).integers(0, 256, len(content), dtype=np.uint8))
    file.write_bytes({"cut": content[: len(content) // 2], "bytes": noise}[damage])
    assert first_epoch(data, file) == 0
    assert "checkpoint.npz is not used and the training starts again: it is damaged" in caplog.text


def test_no_damage_at_any_place_goes_unseen(tmp_path):
    file = tmp_path / "arrays.npz"
    arrays = {"numbers": np.arange(50.0), "about": np.array("text")}
    write_arrays(file, arrays)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            found = read_arrays(file)
        except RunError:
            continue
        # Dates, permissions, a name of nothing that is read.
        assert all(np.array_equal(found[name], arrays[name]) for name in found.keys() & arrays.keys())
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(RunError, match="cannot be read"):
            read_arrays(file)


@pytest.mark.parametrize("changed", [{"dropout": 0.1}, {"seed": 6}, {"epochs": 3}, {"data": 1}])
def test_another_training_is_not_gone_on_with(changed, data, tmp_path, caplog):
    interrupted(data, tmp_path / "checkpoint.npz", after=1, epochs=2, space=Plain())
    if "data" in changed:
        data, changed = replace(data, y=(data.y + 1) % 10), {}
    assert first_epoch(data, tmp_path / "checkpoint.npz", **changed) == 0
    assert "it belongs to another configuration, other data or other versions" in caplog.text


class Twice(Plain):
    def fit(self, hp, model, *args, **kwargs):
        super().fit(hp, model, *args, **kwargs)
        return super().fit(hp, model, *args, **kwargs)


class OwnEpochs(Plain):
    def fit(self, hp, model, *args, **kwargs):
        return super().fit(hp, model, *args, **(kwargs | {"epochs": 3}))


class OwnCallback(Plain):
    def fit(self, hp, model, *args, callbacks, **kwargs):
        callbacks = [*callbacks, keras.callbacks.EarlyStopping("loss", patience=9)]
        return super().fit(hp, model, *args, callbacks=callbacks, **kwargs)


class OwnDataset(Plain):
    def fit(self, hp, model, x, y, **kwargs):
        import tensorflow as tf

        return model.fit(
            tf.data.Dataset.from_tensor_slices((x, y)).batch(32), **(kwargs | {"class_weight": None, "shuffle": False})
        )


class OwnStep(Plain):
    def build(self, hp):
        class Own(keras.Model):
            def train_step(self, data):
                return super().train_step(data)

        inner = super().build(hp)
        model = Own(inner.inputs, inner.outputs)
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model


class Unbuilt(Plain):
    def build(self, hp):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (OwnEpochs, "chooses the epochs itself"),
        (OwnCallback, "callbacks whose state is not known"),
        (OwnDataset, "no arrays that are dealt as a whole"),
        (OwnStep, "the model has its own train_step"),
        (Unbuilt, "the model is not built"),
    ],
)
def test_what_cannot_go_on_is_never_written(space, reason, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    interrupted(data, tmp_path / "checkpoint.npz", after=1, epochs=2, space=space())
    assert not (tmp_path / "checkpoint.npz").exists()
    assert "this training would start again: " in caplog.text
    assert reason in caplog.text


def test_a_second_fit_ends_the_first_ones_checkpoint(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained(data, tmp_path / "checkpoint.npz", epochs=2, space=Twice())
    assert not (tmp_path / "checkpoint.npz").exists()
    assert "the search space trains more than once" in caplog.text


def test_a_guarded_training_is_not_written(data, tmp_path):
    interrupted(data, tmp_path / "checkpoint.npz", after=1, epochs=2, space=Plain(), is_guarded=True)
    assert not (tmp_path / "checkpoint.npz").exists()


def test_a_full_disk_is_no_fault_of_the_configuration(data, tmp_path, monkeypatch):
    def full(*_):
        raise EnvironmentFault("disk full")

    monkeypatch.setattr(checkpoint, "write_arrays", full)
    with pytest.raises(EnvironmentFault, match="disk full"):
        trained(data, tmp_path / "checkpoint.npz", space=Plain())


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of file sizes are known on Unix only")
    file, limits = tmp_path / "checkpoint.npz", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_arrays(file, {"numbers": np.arange(10)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            EnvironmentFault, match=r"Cannot write .*checkpoint\.npz'.*Everything written so far is intact"
        ):
            write_arrays(file, {"numbers": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_array_equal(read_arrays(file)["numbers"], np.arange(10))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.npz"]
