"""What one process keeps of a study: the same as the study says, read once; and what TPE is shown of a long one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tuner.config import SearchConfig
from tuner.errors import EnvironmentFault
from tuner.records import Outcome
from tuner.search import history as history_module
from tuner.search.changes import change_trial, report_epoch
from tuner.search.history import History, Tried
from tuner.search.study import Study, load_trials, storage_faults
from tuner.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig())


@pytest.fixture
def storage(folder: RunFolder) -> optuna.storages.RDBStorage:
    Study(folder)
    return optuna.storages.RDBStorage(f"sqlite:///{folder.study_file}")


def run(study: Study, objective: float, *, outcome: Outcome = Outcome.COMPLETED) -> int:
    trial = study.ask(10**6)
    assert trial is not None
    study.describe(trial.number, {"rate": trial.suggest_float("rate", 0.0, 1.0)})
    study.finish(trial.number, objective, outcome=outcome)
    return trial.number


def stored(folder: RunFolder) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="tuner", storage=f"sqlite:///{folder.study_file}").trials


# --- two processes -----------------------------------------------------------------------------------------------


def test_two_processes_learn_of_each_others_trials_whatever_the_order_in_which_they_end(folder: RunFolder) -> None:
    first, second = Study(folder, worker=0), Study(folder, worker=1)
    studies, dealt, running = [first, second], random.Random(0), []
    for _ in range(40):
        if running and dealt.random() < 0.5:
            study, number = running.pop(dealt.randrange(len(running)))
            study.finish(number, dealt.random(), outcome=Outcome.COMPLETED)
        else:
            study = dealt.choice(studies)
            trial = study.ask(10**6)
            assert trial is not None
            study.describe(trial.number, {"rate": trial.suggest_float("rate", 0.0, 1.0)})
            running.append((study, trial.number))
        known = [trial for trial in stored(folder) if trial.state is TrialState.COMPLETE]
        for each in studies:
            assert each.num_finished() == len(known)
            assert [number for number, *_ in each.finished()] == [trial.number for trial in known]
            assert sorted(each.unfinished()) == sorted(number for _, number in running)
            by_objective = sorted(known, key=lambda trial: (trial.value or 0.0, trial.number))
            assert each.best_numbers(99) == [trial.number for trial in by_objective]
            assert len(each.tried()) == len(known) + len(running)


def test_a_finished_trial_is_read_once_and_a_running_one_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(folder)
    for objective in range(5):
        run(study, float(objective))
    assert study.ask(99) is not None
    read: list[int] = []
    original = optuna.storages.RDBStorage._get_trials

    def counted(*args: Any) -> list[optuna.trial.FrozenTrial]:
        trials = original(*args)
        read.append(len(trials))
        return trials

    monkeypatch.setattr(optuna.storages.RDBStorage, "_get_trials", counted)
    study.num_finished()
    study.report(5, 0, objective=1.0, loss=1.0)
    assert len(list(study.rivals(5))) == 5
    # Once all five that it had ended itself, and the one that runs.
    assert sum(read) <= 5 + 2


def test_records_are_those_of_the_run(folder: RunFolder) -> None:
    study = Study(folder)
    for objective in (3.0, 1.0):
        run(study, objective)
    assert study.ask(99) is not None
    assert study.records() == load_trials(folder)[:2]
    run(study, 2.0)
    assert [record.objective for record in study.records()] == [3.0, 1.0, 2.0]


# --- the excerpt -------------------------------------------------------------------------------------------------


def test_tpe_is_shown_everything_up_to_a_number_and_beyond_it_the_best_and_the_newest(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_BEST", 2)
    monkeypatch.setattr(history_module, "MOST_NEWEST", 3)
    study = Study(folder)
    for objective in (5.0, 1.0, 9.0, 2.0, 7.0):
        run(study, objective)
    history = History(study._storage, study._study._study_id)
    history.read()
    assert [trial.number for trial in history.excerpt()] == [0, 1, 2, 3, 4]
    # The best of those that are not among the newest.
    run(study, 0.0)
    assert study.ask(99) is not None
    history.read()
    assert [trial.number for trial in history.excerpt()] == [0, 1, 3, 4, 5, 6]
    run(study, 8.0)
    history.read()
    assert [trial.number for trial in history.excerpt()] == [1, 3, 4, 5, 6, 7]


# --- configurations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "is_known"),
    [
        ({"rate": 0.3, "kind": "a"}, True),
        ({"kind": "a", "rate": 0.1 + 0.2}, True),
        ({"rate": 0.3000001, "kind": "a"}, False),
        ({"rate": 0.3, "kind": "b"}, False),
        ({"rate": 0.3}, False),
    ],
)
def test_equal_configurations_are_known_whatever_their_order_and_last_digit(values: Any, is_known: bool) -> None:
    assert (values in Tried(set(), {Tried.key({"rate": 0.3, "kind": "a"})})) is is_known


# --- changes are whole -------------------------------------------------------------------------------------------


def test_a_change_is_stored_as_a_whole_or_not_at_all(folder: RunFolder, storage: optuna.storages.RDBStorage) -> None:
    trial = Study(folder).ask(9)
    assert trial is not None
    choice = optuna.distributions.CategoricalDistribution(["a"])
    with pytest.raises(ValueError, match="'b' not in"):
        change_trial(storage, trial.trial._trial_id, attrs={"a": 1}, params={"x": ("a", choice), "y": ("b", choice)})
    (found,) = stored(folder)
    assert (found.params, found.user_attrs) == ({}, {"worker": 0})
    change_trial(storage, trial.trial._trial_id, attrs={"a": 1}, params={"x": ("a", choice)})
    (found,) = stored(folder)
    assert (found.params, found.user_attrs) == ({"x": "a"}, {"a": 1, "worker": 0})


def test_a_trial_that_has_ended_is_not_changed(folder: RunFolder, storage: optuna.storages.RDBStorage) -> None:
    study = Study(folder)
    number = run(study, 1.0)
    trial_id = stored(folder)[number]._trial_id
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError, match="Trial 0 has already ended"):
        change_trial(storage, trial_id, attrs={"outcome": "crashed"})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError, match="Trial 0 has already ended"):
        report_epoch(storage, trial_id, 0, objective=1.0, loss=1.0)
    assert load_trials(folder)[0].outcome is Outcome.COMPLETED


def test_a_report_ahead_of_what_is_known_keeps_its_place(folder: RunFolder) -> None:
    study = Study(folder)
    assert study.ask(9) is not None
    study.report(0, 2, objective=3.0, loss=0.5)
    assert stored(folder)[0].user_attrs["val_losses"] == [None, None, 0.5]
    assert stored(folder)[0].intermediate_values == {2: 3.0}


def test_a_parameter_that_a_model_asks_for_later_is_stored_with_the_end(folder: RunFolder) -> None:
    study = Study(folder)
    trial = study.ask(9)
    assert trial is not None
    study.propose(0, {"rate": 0.5})
    assert trial.suggest_float("rate", 0.0, 1.0) == 0.5
    study.describe(0, {"rate": 0.5})
    units = trial.suggest_int("units", 8, 64)
    study.finish(0, 1.0, outcome=Outcome.COMPLETED, hyperparameters={"rate": 0.5, "units": units})
    (found,) = stored(folder)
    assert found.params == {"rate": 0.5, "units": units}
    assert found.user_attrs["hyperparameters"] == {"rate": 0.5, "units": units}


def test_the_file_is_written_ahead_so_that_readers_never_wait(folder: RunFolder) -> None:
    study = Study(folder)
    with study._storage.engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql("UPDATE trials SET number = number")
        assert load_trials(folder) == []


@pytest.mark.parametrize("name", ["run", "a #b? 100%25 Größe"])
def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = RunFolder.create(tmp_path / name, SearchConfig())
    study = Study(folder)
    run(study, 1.0)
    study._storage.remove_session()
    study._storage.engine.dispose()
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    before = sorted(folder.root.iterdir())
    assert [trial.objective for trial in load_trials(folder)] == [1.0]
    assert sorted(folder.root.iterdir()) == before
    with pytest.raises(EnvironmentFault, match=r"study\.db' cannot be used: .*readonly"), storage_faults(folder):
        Study(folder).ask(9)
