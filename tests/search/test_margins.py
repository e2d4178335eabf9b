"""Margins of a run: swept once, shared, noted where they cannot be measured; and the range that sweeps propose."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest

from tuner.config import SearchConfig
from tuner.errors import ConfigError
from tuner.records import RateRange, RateSweep
from tuner.search.margins import apply_swept_range, measure_margin, random_values
from tuner.search.tuner import StabilityTuner
from tuner.stability.judgement import Judgement
from tuner.stability.margin import HIGHEST_RATE, MAX_PENALTY_NATS, penalty
from tuner.store import RunFolder, write_json
from tuner.training.seedrun import TrainingData

JUDGEMENT = Judgement(metric="loss", chance_loss=1.0, chance_error=1.0, num_validation=10)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype("float32")
    y = (x @ [1, -1, 0.5, 0.2] + 0.1 * rng.normal(size=300)).astype("float32")
    return TrainingData(x[:200], y[:200], x[200:], y[200:])


class Space(keras_tuner.HyperModel):
    def build(self, hp):
        rate = hp.Float("learning_rate", 1e-3, 10.0, sampling="log", default=0.2)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(rate), "mse")
        return model


class Broken(Space):
    def fit(self, hp, model, *args, **kwargs):
        raise RuntimeError("no fit today")


def measured(folder, space, data, *, trial, rate=0.01):
    hp = keras_tuner.HyperParameters()
    hp.values["learning_rate"] = rate
    return measure_margin(folder, space, hp, trial=trial, data=data, judgement=JUDGEMENT, epochs=2, seed=0)


def space_of(*names):
    space = keras_tuner.HyperParameters()
    for name in names:
        space.Float(name, 1e-4, 1e-1, sampling="log", default=1e-3)
    return space


def test_trials_that_differ_in_their_rate_alone_share_one_sweep(tmp_path, data, monkeypatch):
    folder = RunFolder(tmp_path)
    first = measured(folder, Space(), data, trial=0, rate=0.01)
    monkeypatch.setattr("tuner.training.margin.Sweep.run", lambda self: pytest.fail("swept again"))
    second = measured(folder, Space(), data, trial=1, rate=0.1)
    assert first.ratio == pytest.approx(10 * second.ratio, rel=1e-5)
    assert len(list(folder.margins_dir.iterdir())) == 1
    assert folder.load_margin(1) == second
    assert folder.load_margin(2) is None


def test_a_configuration_that_cannot_be_swept_is_noted_and_has_no_margin(tmp_path, data):
    folder = RunFolder(tmp_path)
    assert measured(folder, Broken(), data, trial=3) is None
    assert "no fit today" in folder.swept_file(3).read_text(encoding="utf-8")
    assert folder.load_margin(3) is None


def test_margin_weight_adds_its_penalty_to_the_objective(tmp_path, data):
    def tuned(weight):
        tuner = StabilityTuner(
            Space(), max_trials=1, margin_weight=weight, directory=tmp_path, project_name=f"weight {weight}"
        )
        tuner.search(data.x, data.y, validation_data=(data.x_validation, data.y_validation), epochs=2, batch_size=20)
        return tuner.run_folder

    plain, weighted = tuned(0.0), tuned(2.0)
    assert not plain.margins_dir.exists()
    margin = weighted.load_margin(0)
    assert 0 < penalty(margin.ratio) < MAX_PENALTY_NATS
    added = weighted.load_seed_runs(0)[0].objective - plain.load_seed_runs(0)[0].objective
    assert added == pytest.approx(2 * penalty(margin.ratio), rel=1e-6)


def test_random_values_are_active_in_range_and_repeatable():
    space = keras_tuner.HyperParameters()
    space.Boolean("deep")
    space.Int("layers", 2, 9, parent_name="deep", parent_values=[True])
    space.Float("learning_rate", 1e-4, 1.0, sampling="log")
    drawn = [random_values(space, seed=seed) for seed in range(20)]
    assert drawn[0] == random_values(space, seed=0)
    assert {values["deep"] for values in drawn} == {True, False}
    assert all(("layers" in values) is values["deep"] for values in drawn)
    assert len({values["learning_rate"] for values in drawn}) == 20


@pytest.mark.parametrize(
    ("names", "config", "message"),
    [
        (("rate",), {}, "which this space does not have"),
        (("learning_rate",), {"range": {"learning_rate": "1e-4:1e-2"}}, "exclude each other"),
        (("learning_rate",), {"fix": {"learning_rate": "1e-4"}}, "exclude each other"),
    ],
)
def test_a_space_or_settings_that_do_not_fit_are_one_clear_error(tmp_path, names, config, message):
    folder = RunFolder.create(tmp_path / "run", SearchConfig(lr_range="auto", **config))
    with pytest.raises(ConfigError, match=message):
        apply_swept_range(folder, Space(), space_of(*names))


def test_a_search_that_goes_on_has_the_range_it_had(tmp_path):
    folder = RunFolder.create(tmp_path / "run", SearchConfig(lr_range="auto"))
    stored = RateRange(2e-4, 0.05, (RateSweep((0.1, 0.2), HIGHEST_RATE, 1.0),))
    write_json(folder.rate_range_file, stored)
    assert folder.load_rate_range() == stored
    # No data and no model: nothing is swept.
    hp = apply_swept_range(folder, None, space_of("learning_rate")).space[0]
    assert (hp.min_value, hp.max_value, hp.sampling) == (2e-4, 0.05, "log")


def test_other_data_or_settings_before_the_first_trial_forget_the_range_and_the_sweeps(tmp_path):
    folder = RunFolder.create(tmp_path / "run", SearchConfig(lr_range="auto"))
    write_json(folder.rate_range_file, RateRange(2e-4, 0.05, ()))
    write_json(folder.sweep_file("key"), RateSweep((None,), HIGHEST_RATE, 1.0))
    RunFolder.create(folder.root, SearchConfig(lr_range="auto", seed=1))
    assert folder.load_rate_range() is None
    assert not folder.margins_dir.exists()
