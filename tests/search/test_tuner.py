from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner.errors import ConfigError, SpaceError
from tuner.records import Outcome
from tuner.search.failures import MAX_FAILURES_IN_A_ROW
from tuner.search.study import load_trials
from tuner.search.tuner import NUM_KEPT_MODELS, StabilityTuner
from tuner.stability.ranking import best_trial
from tuner.training.seedrun import TrainingData

ORACLES = {
    "ours": None,
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    return x[:300], y[:300], x[300:400], y[300:400]


def build(hp):
    """Existing Keras Tuner code, as people have it."""
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    if hp.Boolean("hidden"):
        model.add(keras.layers.Dense(hp.Int("units", 4, 16, step=4, parent_name="hidden", parent_values=[True])))
    model.add(keras.layers.Dense(10, activation="softmax"))
    rate = hp.Float("learning_rate", 1e-3, 1.0, sampling="log", default=0.1)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def search(tuner, digits, **kwargs):
    x, y, x_val, y_val = digits
    tuner.search(x, y, validation_data=(x_val, y_val), **({"epochs": 4} | kwargs))
    return tuner


@pytest.mark.parametrize("name", ORACLES)
def test_works_with_every_oracle(name, digits, tmp_path):
    kind = ORACLES[name]
    options = {"max_epochs": 4, "factor": 2} if name == "hyperband" else {"max_trials": 3}
    oracle = None if kind is None else kind(objective="val_loss", seed=1, **options)
    tuner = StabilityTuner(build, oracle, max_trials=3, directory=tmp_path, project_name="run")
    search(tuner, digits)
    best = tuner.oracle.get_best_trials(1)[0] if oracle else None
    runs = [tuner.run_folder.load_seed_runs(int(folder.name))[0] for folder in tuner.run_folder.trials_dir.iterdir()]
    assert len(runs) >= 3
    lowest = min(run.objective for run in runs)
    if best is not None:
        assert best.score == pytest.approx(lowest)
    else:
        assert min(trial.objective for trial in load_trials(tuner.run_folder)) == pytest.approx(lowest)


def test_our_oracle_starts_with_the_defaults_and_gives_back_the_best(digits, tmp_path):
    tuner = search(StabilityTuner(build, max_trials=3, directory=tmp_path, project_name="run"), digits)
    trials = load_trials(tuner.run_folder)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert trials[0].hyperparameters == {"hidden": False, "learning_rate": 0.1}
    assert all(("units" in trial.hyperparameters) is trial.hyperparameters["hidden"] for trial in trials)
    best = min(trials, key=lambda trial: trial.objective)
    assert tuner.get_best_hyperparameters()[0].values == best.hyperparameters
    assert tuner.get_best_models()[0].predict(digits[2], verbose=0).shape == (100, 10)


def test_a_search_that_was_stopped_goes_on_in_a_new_process_with_the_same_proposals(digits, tmp_path):
    whole = search(StabilityTuner(build, max_trials=4, seed=3, directory=tmp_path, project_name="whole"), digits)
    for budget in (2, 4):
        parts = search(
            StabilityTuner(build, max_trials=budget, seed=3, directory=tmp_path, project_name="parts"), digits
        )
    expected, found = (
        [(trial.hyperparameters, trial.objective) for trial in load_trials(tuner.run_folder)]
        for tuner in (whole, parts)
    )
    assert found == expected


def test_every_outcome_has_a_finite_objective_and_the_search_goes_on(digits, tmp_path):
    def explosive(hp):
        rate = hp.Choice("rate", [0.1, 1e30])
        if hp.Choice("raises", [0, 1]):
            raise RuntimeError("bad layer")
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss)
        return model

    class Explosive(keras_tuner.HyperModel):
        def declare_hyperparameters(self, hp):
            hp.Choice("rate", [0.1, 1e30])
            hp.Choice("raises", [0, 1])

        def build(self, hp):
            return explosive(hp)

    oracle = keras_tuner.oracles.GridSearchOracle(objective="val_loss", max_trials=4)
    tuner = search(StabilityTuner(Explosive(), oracle, directory=tmp_path, project_name="run"), digits)
    runs = [tuner.run_folder.load_seed_runs(number)[0] for number in range(4)]
    assert [run.outcome for run in runs] == [Outcome.COMPLETED, Outcome.ERROR, Outcome.DIVERGED, Outcome.ERROR]
    assert all(np.isfinite(run.objective) for run in runs)
    assert runs[0].objective < min(run.objective for run in runs[1:])
    assert tuner.oracle.get_best_trials(1)[0].hyperparameters.values == {"rate": 0.1, "raises": 0}


def test_a_pruned_trial_is_finished_but_no_winner(digits, tmp_path, monkeypatch):
    def prune_second(pruner, number, objective, rivals, *, epoch, max_epochs):
        assert (pruner, max_epochs) == ("asha", 4)
        return "it was told to" if number == 1 and epoch == 2 else ""

    monkeypatch.setattr("tuner.search.oracle.prune_reason", prune_second)
    tuner = search(StabilityTuner(build, max_trials=3, directory=tmp_path, project_name="run"), digits)
    trials = load_trials(tuner.run_folder)
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETED, Outcome.PRUNED, Outcome.COMPLETED]
    (run,) = trials[1].seed_runs
    assert (run.outcome, run.epochs, run.message) == (Outcome.PRUNED, 2, "Ended after epoch 2 of 4: it was told to.")
    assert run.objective == trials[1].objective == pytest.approx(trials[1].epoch_objectives[-1])
    assert len(trials[1].epoch_losses) == 2
    assert not tuner.run_folder.model_file(1, 0).exists()
    assert [trial.trial_id for trial in tuner.oracle.get_best_trials(3)].count("1") == 1
    assert best_trial(trials).number != 1


def test_only_the_best_models_are_kept(digits, tmp_path):
    tuner = search(StabilityTuner(build, max_trials=6, directory=tmp_path, project_name="run"), digits)
    kept = {int(file.parts[-3]) for file in tuner.run_folder.trials_dir.glob("*/seed_0/model.keras")}
    ranked = sorted(load_trials(tuner.run_folder), key=lambda trial: trial.objective)
    assert kept == {trial.number for trial in ranked[:NUM_KEPT_MODELS]}


def test_a_space_that_always_fails_ends_the_search_with_its_reason(digits, tmp_path):
    calls = []

    def fails_later(hp):
        calls.append(hp.Float("rate", 0.1, 1.0))
        if len(calls) > 1:  # the first build is the discovery of the space
            raise ValueError("out of luck")
        return build(hp)

    tuner = StabilityTuner(fails_later, max_trials=20, directory=tmp_path, project_name="run")
    with pytest.raises(
        SpaceError,
        match=rf"{MAX_FAILURES_IN_A_ROW} trials in a row failed .* reason: ValueError: out of luck",
    ):
        search(tuner, digits)


def test_validation_is_needed(digits, tmp_path):
    tuner = StabilityTuner(build, max_trials=1, directory=tmp_path, project_name="run")
    with pytest.raises(ConfigError, match=r"needs validation_data=.* or validation_split"):
        tuner.search(digits[0], digits[1], epochs=1)
    with pytest.raises(ConfigError, match=r"needs NumPy arrays \(got list"):
        tuner.search([1], [2], validation_split=0.2, epochs=1)


def test_validation_split_takes_the_last_rows_as_fit_does(digits, tmp_path):
    tuner = StabilityTuner(build, max_trials=1, directory=tmp_path, project_name="run")
    tuner.search(digits[0], digits[1], validation_split=0.25, epochs=4)
    data = tuner.training_data(None, digits[0], digits[1], validation_split=0.25)
    assert len(data.x) == 225
    np.testing.assert_array_equal(data.y_validation, digits[1][225:])


def test_model_that_was_not_kept_says_how_to_get_it(digits, tmp_path):
    tuner = search(StabilityTuner(build, max_trials=1, directory=tmp_path, project_name="run"), digits)
    trial = tuner.oracle.get_best_trials(1)[0]
    tuner.run_folder.keep_models(set())
    with pytest.raises(ConfigError, match=r"was not kept .* tuner\.hypermodel\.build"):
        tuner.load_model(trial)


def test_a_script_that_runs_again_finds_its_best_trials_again(digits, tmp_path):
    first = search(StabilityTuner(build, max_trials=2, directory=tmp_path, project_name="run"), digits)
    again = search(StabilityTuner(build, max_trials=2, directory=tmp_path, project_name="run"), digits)
    assert again.get_best_hyperparameters()[0].values == first.get_best_hyperparameters()[0].values
    assert again.get_best_models()[0].predict(digits[2][:1], verbose=0).shape == (1, 10)


def test_overwrite_starts_anew(digits, tmp_path):
    search(StabilityTuner(build, max_trials=2, directory=tmp_path, project_name="run"), digits)
    tuner = StabilityTuner(build, max_trials=1, directory=tmp_path, project_name="run", overwrite=True)
    search(tuner, digits)
    assert [trial.number for trial in load_trials(tuner.run_folder)] == [0]


@pytest.mark.parametrize(
    ("y", "num_classes"),
    [
        (np.arange(300) % 10, 10),
        (np.eye(10)[np.arange(300) % 10], 10),
        (50 + np.arange(300), 0),
        (np.arange(300) - 150, 0),
        (np.linspace(0, 1, 300), 0),
    ],
    ids=["codes", "one-hot", "whole numbers", "negative", "fractions"],
)
def test_labels_say_whether_it_is_classification(y, num_classes, digits, tmp_path):
    tuner = StabilityTuner(build, max_trials=1, directory=tmp_path, project_name="run")
    data = tuner.training_data(None, digits[0], y, validation_split=0.2)
    found = tuner.judgement(data)
    assert found.num_classes == num_classes
    assert found.chance_loss > 0


def test_rows_of_several_labels_are_judged_as_such(tmp_path):
    y = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]] * 5)
    data = TrainingData(np.zeros((20, 2)), y, np.zeros((4, 2)), y[:4])
    tuner = StabilityTuner(build, directory=tmp_path, project_name="labels")
    judgement = tuner.judgement(data)
    assert (judgement.metric, judgement.num_classes, judgement.is_multilabel) == ("mean_average_precision", 3, True)
    assert judgement.chance_error == pytest.approx(1 - (0.5 + 0.25 + 0.25) / 3)
    one_hot = TrainingData(data.x, np.eye(3)[np.arange(20) % 3], data.x_validation, np.eye(3)[:1])
    assert not tuner.judgement(one_hot).is_multilabel
    for options in ({"metric": "accuracy"}, {"objective": "val_accuracy"}):
        tuner = StabilityTuner(build, directory=tmp_path, project_name="accuracy", **options)
        with pytest.raises(ConfigError, match="Accuracy does not fit rows of several labels"):
            tuner.judgement(data)
