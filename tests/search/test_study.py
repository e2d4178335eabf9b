"""The study: asked, reported, ended, put back, opened again, damaged; proposals that do not depend on interruptions."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from tuner.config import SearchConfig
from tuner.errors import EnvironmentFault
from tuner.records import Outcome, SeedRun, StabilityScore, Trace
from tuner.search.seeds import derive_seed
from tuner.search.study import Study, load_trials, storage_faults
from tuner.store import RunFolder

SCORE = StabilityScore(0.9, 0.1, 0.0, 0.0, 0.0, 0.0, None)
EMPTY = np.empty(0)
TRACE = Trace(EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, 1, 1, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig())


def suggest(study: Study, trial: optuna.Trial) -> dict[str, Any]:
    """What is proposed for a trial, stored as the oracle does it."""
    if not study.is_proposed(trial.number):
        trial = study.propose(trial.number, space(study.draft(trial.number)))
    return space(trial)


def space(trial: Any) -> dict[str, Any]:
    """A small conditional space."""
    params: dict[str, Any] = {
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
        "blocks": trial.suggest_int("blocks", 1, 3),
        "l2?": trial.suggest_categorical("l2?", [False, True]),
    }
    return params | ({"l2": trial.suggest_float("l2", 1e-6, 1e-2, log=True)} if params["l2?"] else {})


def value(params: dict[str, Any]) -> float:
    """An objective with its best at rate 0.01 and two blocks."""
    return (math.log10(params["rate"]) + 2) ** 2 + abs(params["blocks"] - 2) + 0.1 * params["l2?"]


def ask(study: Study, *, max_trials: int = 100) -> optuna.Trial:
    trial = study.ask(max_trials)
    assert trial is not None
    return trial


def run_trials(study: Study, count: int) -> list[dict[str, Any]]:
    """Run some trials to their end; their parameters."""
    done = []
    for _ in range(count):
        trial = ask(study)
        done.append(suggest(study, trial))
        study.finish(trial.number, value(done[-1]), outcome=Outcome.COMPLETED)
    return done


# --- asked and ended ---------------------------------------------------------------------------------------------


def test_trials_are_numbered_and_end_at_the_budget(folder: RunFolder) -> None:
    study = Study(folder)
    for number in range(3):
        trial = ask(study, max_trials=3)
        assert trial.number == number
        study.finish(number, float(number), outcome=Outcome.COMPLETED)
    assert study.ask(3) is None
    assert study.ask(2) is None
    assert ask(study, max_trials=4).number == 3


def test_the_first_trial_can_be_given_and_only_the_first(folder: RunFolder) -> None:
    study = Study(folder)
    first = {"rate": 0.01, "blocks": 2, "l2?": True, "l2": 1e-4}
    study.enqueue_first(first)
    study.enqueue_first({"rate": 0.001}, is_last_baseline=True)
    assert suggest(study, ask(study)) == first
    study.enqueue_first(first)
    assert ask(study).number == 1
    assert [trial.outcome for trial in load_trials(folder)] == [Outcome.RUNNING, Outcome.RUNNING]


def test_the_record_of_a_trial_from_begin_to_end(folder: RunFolder) -> None:
    study = Study(folder)
    study.enqueue_first({"rate": 0.01})
    (waiting,) = load_trials(folder)
    assert (waiting.outcome, waiting.objective, waiting.started, waiting.finished) == (
        Outcome.WAITING,
        None,
        None,
        None,
    )
    trial = ask(study)
    suggest(study, trial)
    assert load_trials(folder)[0].hyperparameters == {}
    study.describe(0, {"rate": 0.01, "fixed": "adam"})
    study.report(0, 0, objective=0.25, loss=2.5)
    study.report(0, 1, objective=3.0, loss=math.inf)
    (running,) = load_trials(folder)
    assert running.outcome is Outcome.RUNNING
    assert running.hyperparameters == {"rate": 0.01, "fixed": "adam"}
    assert running.epoch_losses == (2.5, math.inf)
    assert running.epoch_objectives == (0.25, 3.0)
    assert running.started is not None
    assert running.finished is None
    study.finish(0, 0.5, outcome=Outcome.NOT_LEARNING, message="flat")
    (ended,) = load_trials(folder)
    assert (ended.outcome, ended.objective, ended.message) == (Outcome.NOT_LEARNING, 0.5, "flat")
    assert ended.finished is not None
    assert ended.finished >= running.started
    assert ended.seed_runs == ()


@pytest.mark.parametrize("outcome", ["completed", "not_learning", "diverged", "error", "crashed"])
def test_every_outcome_reads_back(folder: RunFolder, outcome: str) -> None:
    study = Study(folder)
    ask(study)
    study.finish(0, 1.0, outcome=Outcome(outcome), message="Größe\n'x' \N{ROCKET}")
    (trial,) = load_trials(folder)
    assert trial.outcome is Outcome(outcome)
    assert trial.message == "Größe\n'x' \N{ROCKET}"


def test_trials_come_by_number_and_with_their_seed_runs(folder: RunFolder) -> None:
    study = Study(folder)
    numbers = [ask(study).number for _ in range(4)]
    for number in reversed(numbers):
        run = SeedRun(number, 0, 1, Outcome.COMPLETED, 0.0, 0.1, SCORE, {}, 1, 1, 1, 1.0)
        folder.save_seed_run(run, TRACE)
        if number != 2:
            study.finish(number, 1.0, outcome=Outcome.COMPLETED)
    trials = load_trials(folder)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    # What an unfinished attempt left behind is no result.
    assert [len(trial.seed_runs) for trial in trials] == [1, 1, 0, 1]
    assert trials[0].stability == 0.9


def test_the_best_numbers_leave_out_what_failed(folder: RunFolder) -> None:
    study = Study(folder)
    ends = [
        (3.0, Outcome.COMPLETED),
        (-9.0, Outcome.DIVERGED),
        (1.0, Outcome.COMPLETED),
        (1.0, Outcome.NOT_LEARNING),
        (-9.0, Outcome.ERROR),
        (2.0, Outcome.COMPLETED),
        (-9.0, Outcome.CRASHED),
    ]
    for objective, outcome in ends:
        study.finish(ask(study).number, objective, outcome=outcome)
    ask(study)
    assert study.best_numbers(100) == [2, 3, 5, 0]
    assert study.best_numbers(2) == [2, 3]
    assert study.best_numbers(0) == []
    assert study.num_finished() == 7


# --- put back ----------------------------------------------------------------------------------------------------


def test_a_trial_put_back_is_the_same_trial_again(folder: RunFolder) -> None:
    study = Study(folder, seed=5)
    run_trials(study, 2)
    trial = ask(study)
    params = suggest(study, trial)
    assert study.give_back(crashed=False) == [2]
    assert load_trials(folder)[2].outcome is Outcome.WAITING
    study = Study(folder, seed=5)
    again = ask(study)
    assert again.number == 2
    assert suggest(study, again) == params


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_trial_killed_while_it_was_proposed_is_the_same_as_if_it_had_not_been(
    folder: RunFolder, tmp_path: Path, is_stored: bool
) -> None:
    uninterrupted = run_trials(Study(RunFolder.create(tmp_path / "other", SearchConfig()), seed=5), 1)
    study = Study(folder, seed=5)
    trial = ask(study)
    params = space(study.draft(trial.number))
    if is_stored:
        study.propose(trial.number, params).suggest_float("rate", 1e-4, 1e-1, log=True)
    study = Study(folder, seed=5)
    study.give_back(crashed=False)
    assert [suggest(study, ask(study))] == uninterrupted


def test_a_trial_put_back_waits_even_when_the_budget_is_used_up(folder: RunFolder) -> None:
    study = Study(folder)
    for _ in range(2):
        ask(study)
    study.finish(0, 1.0, outcome=Outcome.COMPLETED)
    study.give_back(crashed=False)
    assert ask(study, max_trials=2).number == 1
    assert study.ask(2) is None


def test_nothing_runs_so_nothing_is_put_back(folder: RunFolder) -> None:
    study = Study(folder)
    assert study.give_back(crashed=True) == []
    run_trials(study, 1)
    assert study.give_back(crashed=True) == []
    assert load_trials(folder)[0].outcome is Outcome.COMPLETED


def test_a_trial_put_back_keeps_its_reports_until_it_reports_these_epochs_again(folder: RunFolder) -> None:
    study = Study(folder)
    ask(study)
    for epoch in range(4):
        study.report(0, epoch, objective=float(epoch), loss=2.0 - epoch)
    study.give_back(crashed=False)
    assert load_trials(folder)[0].epoch_losses == (2.0, 1.0, 0.0, -1.0)
    assert (study.unfinished(), study.num_epochs()) == ([0], 4)
    ask(study)
    # It goes on after its second epoch,
    study.report(0, 2, objective=7.0, loss=5.0)
    assert load_trials(folder)[0].epoch_losses == (2.0, 1.0, 5.0)
    assert load_trials(folder)[0].epoch_objectives == (0.0, 1.0, 7.0)
    # or starts again.
    study.report(0, 0, objective=8.0, loss=6.0)
    assert load_trials(folder)[0].epoch_losses == (6.0,)
    assert (study.unfinished(), study.num_epochs()) == ([0], 1)
    study.finish(0, 1.0, outcome=Outcome.COMPLETED)
    assert study.unfinished() == []


def test_deaths_of_a_trial_that_trains_on_in_between_are_not_its_fault(folder: RunFolder) -> None:
    study = Study(folder)
    for epoch in range(4):
        ask(study)
        study.report(0, epoch, objective=1.0, loss=1.0)
        study.give_back(crashed=True)
        assert load_trials(folder)[0].outcome is Outcome.WAITING
    ask(study)
    study.report(0, 3, objective=1.0, loss=1.0)
    study.give_back(crashed=True, worst_objective=7.0)
    assert load_trials(folder)[0].outcome is Outcome.CRASHED


def test_a_trial_that_takes_its_worker_down_twice_is_ended(folder: RunFolder) -> None:
    study = Study(folder)
    ask(study)
    study.give_back(crashed=True, message="signal 9", worst_objective=7.0)
    (once,) = load_trials(folder)
    assert (once.outcome, once.message) == (Outcome.WAITING, "")
    ask(study)
    study.give_back(crashed=True, message="signal 11", worst_objective=7.0)
    (twice,) = load_trials(folder)
    assert (twice.outcome, twice.objective, twice.message) == (Outcome.CRASHED, 7.0, "signal 11")
    assert ask(study).number == 1


def test_interruptions_by_the_user_are_no_crashes(folder: RunFolder) -> None:
    study = Study(folder)
    for _ in range(4):
        assert ask(study).number == 0
        study.give_back(crashed=False)
    ask(study)
    study.give_back(crashed=True)
    assert load_trials(folder)[0].outcome is Outcome.WAITING
    # A crash is remembered over an interruption.
    ask(study)
    study.give_back(crashed=False)
    ask(study)
    study.give_back(crashed=True, worst_objective=7.0)
    assert load_trials(folder)[0].outcome is Outcome.CRASHED


# --- proposals follow from the seed and the number -----------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_resumed_search_proposes_what_an_uninterrupted_one_does(tmp_path: Path, algorithm: Any) -> None:
    count = 13  # TPE starts to learn after 10 trials.
    whole = RunFolder.create(tmp_path / "whole", SearchConfig())
    expected = run_trials(Study(whole, algorithm=algorithm, seed=3), count)
    parts = RunFolder.create(tmp_path / "parts", SearchConfig())
    proposed: list[dict[str, Any]] = []
    for part in (1, 9, 1, 2):
        study = Study(parts, algorithm=algorithm, seed=3)
        study.give_back(crashed=False)
        proposed += run_trials(study, part)
        suggest(study, ask(study))  # Interrupted.
    assert proposed == expected
    assert [trial.hyperparameters for trial in load_trials(whole)] == expected


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_seeds_give_different_proposals(tmp_path: Path, algorithm: Any) -> None:
    proposals = [
        run_trials(Study(RunFolder.create(tmp_path / str(seed), SearchConfig()), algorithm=algorithm, seed=seed), 3)
        for seed in (0, 1)
    ]
    assert proposals[0] != proposals[1]
    assert proposals[0][0] != proposals[0][1]


def run_pareto(study: Study, count: int) -> list[dict[str, Any]]:
    """Two axes that pull the rate to 1e-3 and to 1e-1, the fewest blocks being good for both."""
    done = []
    for _ in range(count):
        trial = ask(study)
        params = suggest(study, trial)
        log = math.log10(params["rate"])
        axes = (abs(log + 3) + params["blocks"], abs(log + 1) + params["blocks"])
        study.finish(trial.number, sum(axes), outcome=Outcome.COMPLETED, axes=axes)
        done.append(params)
    return done


def test_two_objectives_are_stored_as_two_and_ranked_by_one(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig(objective="pareto"))
    run_pareto(Study.of_run(folder), 3)
    study = Study.of_run(folder)
    trial = ask(study)
    suggest(study, trial)
    study.finish(trial.number, 99.0, outcome=Outcome.CRASHED)
    worst = max(each.values[0] for each in study._trials()[:3])
    stored = optuna.load_study(study_name="tuner", storage=f"sqlite:///{folder.study_file}")
    assert len(stored.directions) == 2
    assert stored.metric_names == ["error", "instability"]
    assert stored.trials[3].values == [worst, 5.0]
    assert 3 not in {each.number for each in stored.best_trials}
    records = load_trials(folder)
    assert [record.objective for record in records] == [*(sum(each.values) for each in stored.trials[:3]), 99.0]
    best = study.best_objective()
    assert best is not None
    assert best == min((record.objective, record.number) for record in records[:3])


@pytest.mark.parametrize("algorithm", ["nsga2", "tpe"])
def test_a_resumed_search_of_two_objectives_proposes_the_same(tmp_path: Path, algorithm: Any) -> None:
    config = SearchConfig(objective="pareto", algorithm=algorithm, seed=3)
    expected = run_pareto(Study.of_run(RunFolder.create(tmp_path / "whole", config)), 23)
    folder = RunFolder.create(tmp_path / "parts", config)
    proposed: list[dict[str, Any]] = []
    for part in (1, 12, 10):
        study = Study.of_run(folder)
        study.give_back(crashed=False)
        proposed += run_pareto(study, part)
        suggest(study, ask(study))  # Interrupted.
    assert proposed == expected


@pytest.mark.slow
def test_nsga2_learns_what_is_good_for_both(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig(objective="pareto"))
    done = run_pareto(Study.of_run(folder), 60)
    early, late = (np.mean([params["blocks"] for params in part]) for part in (done[:10], done[-20:]))
    assert late < 1.4 < 1.7 < early + 0.3


@pytest.mark.slow
def test_tpe_learns(tmp_path: Path) -> None:
    best = {}
    for algorithm in ("random", "tpe"):
        study = Study(RunFolder.create(tmp_path / algorithm, SearchConfig()), algorithm=algorithm, seed=0)  # type: ignore[arg-type]
        best[algorithm] = np.median([value(params) for params in run_trials(study, 32)[20:]])
    assert best["tpe"] < 0.5 * best["random"]


def test_derived_seeds_are_distinct_and_in_range() -> None:
    paths: list[tuple[int, ...]] = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    seeds = {derive_seed(seed, *path) for seed in (0, 1, 2**31 - 1) for path in paths}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, 7) == derive_seed(0, 7)


def test_another_attempt_draws_another_configuration_and_the_same_one_again(folder: RunFolder) -> None:
    study = Study(folder, algorithm="random", seed=3)
    number = ask(study).number
    drawn = [space(study.draft(number, attempt=attempt)) for attempt in (0, 1, 2, 1)]
    assert drawn[1] == drawn[3]
    assert drawn[0] != drawn[1] != drawn[2]
    assert not study.is_proposed(number)


@pytest.mark.parametrize("algorithm", ["cmaes", "gp", "qmc"])
def test_other_algorithms_run_or_say_what_to_install(folder: RunFolder, algorithm: Any) -> None:
    needed = {"cmaes": "cmaes", "gp": "torch", "qmc": "scipy"}[algorithm]
    if importlib.util.find_spec(needed) is None:
        with pytest.raises(EnvironmentFault, match=rf"'{algorithm}' needs {needed}.*pip install {needed}"):
            Study(folder, algorithm=algorithm)
        return
    study = Study(folder, algorithm=algorithm)
    assert len({str(params) for params in run_trials(study, 4)}) == 4


def test_a_withdrawn_trial_is_seen_by_nobody(folder: RunFolder) -> None:
    study = Study(folder)
    study.withdraw(ask(study).number)
    assert load_trials(folder) == []
    assert len(study.tried()) == 0
    assert ask(study, max_trials=1).number == 1


def write_log_back(folder: RunFolder) -> None:
    """As SQLite does when the last process has closed the file."""
    with sqlite3.connect(folder.study_file) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


# --- the file ----------------------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    "quote'",
    "Größe 数",
    "hash#tag",
    "what?mode=ro",
    "per%20cent",
    "100%",
    "{SCHEMA_VERSION}{x}",
    "file:x",
    "back\\slash",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_the_study_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path / name, SearchConfig())
    run_trials(Study(folder), 1)
    assert folder.study_file.read_bytes()[:15] == b"SQLite format 3"
    assert [trial.number for trial in load_trials(folder)] == [0]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(run_trials(Study(folder), 1)) == 1
    assert len(load_trials(folder)) == 2


def test_a_relative_folder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(Path("runs/x"), SearchConfig())
    run_trials(Study(folder), 1)
    assert (tmp_path / "runs/x/study.db").is_file()


def test_reading_never_makes_a_file(tmp_path: Path, folder: RunFolder) -> None:
    assert load_trials(folder) == []
    assert load_trials(RunFolder(tmp_path / "none")) == []
    assert not folder.study_file.exists()
    assert not (tmp_path / "none").exists()


def test_a_study_that_was_only_just_made_has_no_trials(folder: RunFolder) -> None:
    folder.study_file.touch()
    assert load_trials(folder) == []
    Study(folder)
    assert load_trials(folder) == []


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 40, b"SQLite format 3\x00"]
)
def test_a_file_that_is_no_database_is_a_fault_of_the_environment(folder: RunFolder, content: bytes) -> None:
    folder.study_file.write_bytes(content)
    for opening in (Study, load_trials):
        with pytest.raises(EnvironmentFault, match=r"study\.db' cannot be used: .*damaged file can be moved away"):
            opening(folder)


@pytest.mark.parametrize("keep_frac", [0.1, 0.9])
def test_a_database_cut_short_is_a_fault_of_the_environment(folder: RunFolder, keep_frac: float) -> None:
    run_trials(Study(folder), 12)
    folder.study_file.write_bytes(folder.study_file.read_bytes()[: int(keep_frac * folder.study_file.stat().st_size)])
    with pytest.raises(EnvironmentFault, match=r"study\.db'"):
        load_trials(folder)


@pytest.mark.parametrize("start_frac", [0.1, 0.4])
def test_a_database_overwritten_in_the_middle_is_a_fault_of_the_environment(
    folder: RunFolder, start_frac: float
) -> None:
    run_trials(Study(folder), 12)
    write_log_back(folder)
    content = bytearray(folder.study_file.read_bytes())
    start = int(start_frac * len(content))
    content[start : start + 40_000] = b"\xa5" * len(content[start : start + 40_000])
    folder.study_file.write_bytes(bytes(content))
    with pytest.raises(EnvironmentFault, match=r"study\.db'"):
        load_trials(folder)


def test_a_study_of_another_version_of_optuna_is_a_fault_of_the_environment(folder: RunFolder) -> None:
    Study(folder)
    with sqlite3.connect(folder.study_file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()
    with pytest.raises(EnvironmentFault, match=r"study\.db' was made by another version of Optuna than .*--run"):
        load_trials(folder)


def test_a_locked_database_is_a_fault_of_the_environment(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.search.study.SQLITE_TIMEOUT_S", 0.1)
    study = Study(folder)
    other = sqlite3.connect(folder.study_file, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EnvironmentFault, match=r"study\.db'.*locked"), storage_faults(folder):
            study.ask(10)
        # Who only reads does not wait.
        assert load_trials(folder) == []
    finally:
        other.close()


def test_a_damaged_record_is_named_and_the_trial_survives_its_removal(folder: RunFolder) -> None:
    study = Study(folder)
    ask(study)
    folder.save_seed_run(SeedRun(0, 0, 1, Outcome.COMPLETED, 0.0, 0.1, SCORE, {}, 1, 1, 1, 1.0), TRACE)
    study.finish(0, 1.0, outcome=Outcome.COMPLETED)
    record = folder.seed_run_dir(0, 0) / "record.json"
    record.write_text(record.read_text()[:50])
    (trial,) = load_trials(folder)
    assert (trial.objective, trial.seed_runs) == (1.0, ())
    assert re.search(r"record\.json'.*Delete that file", trial.faults[0])
    record.unlink()
    (trial,) = load_trials(folder)
    assert trial.faults == ()
    assert dataclasses.replace(trial, started=None, finished=None).objective == 1.0
    assert trial.stability is None


def test_other_optuna_programs_read_the_same_study(folder: RunFolder) -> None:
    ours = Study(folder)
    for number in range(2):
        params = suggest(ours, ask(ours))
        ours.describe(number, params)
        ours.report(number, 0, objective=0.5, loss=math.inf)
        ours.report(number, 1, objective=0.25, loss=1.0)
        ours.finish(number, value(params), outcome=Outcome.COMPLETED, message="why")
    study = optuna.load_study(study_name="tuner", storage=f"sqlite:///{folder.study_file}")
    assert len(study.trials) == 2
    for trial in study.trials:
        # What a dashboard shows: parameters by their own names, numbers by epoch, attributes that are plain JSON.
        assert {"rate", "blocks", "l2?"} <= trial.params.keys()
        assert trial.intermediate_values == {0: 0.5, 1: 0.25}
        json.dumps(trial.user_attrs, allow_nan=False)
    assert study.best_value == min(trial.objective or 0.0 for trial in load_trials(folder))


def test_a_worker_gives_back_its_own_trials_and_those_of_nobody(folder: RunFolder) -> None:
    first, second = Study(folder, worker=0), Study(folder, worker=1)
    assert [ask(first).number, ask(second).number, ask(second).number] == [0, 1, 2]
    assert [trial.worker for trial in load_trials(folder)] == [0, 1, 1]
    # As if its worker had died between asking and writing down whose it is.
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.study_file}")
    storage.set_trial_user_attr(storage.get_all_trials(1)[2]._trial_id, "worker", None)
    assert first.give_back(crashed=True, worker=0) == [0, 2]
    assert (first.num_running(), first.num_waiting()) == (1, 2)
    # The same trial again, now of the other one.
    assert ask(second).number == 0
    assert load_trials(folder)[0].worker == 1
    assert second.give_back(crashed=False) == [0, 1]


def test_many_workers_that_ask_at_once_share_the_budget(folder: RunFolder) -> None:
    Study(folder)

    def work(worker: int) -> list[int]:
        study, mine = Study(folder, worker=worker), []
        study.enqueue_first({"rate": 0.01})
        while trial := study.ask(9):
            mine.append(trial.number)
            study.finish(trial.number, 0.0, outcome=Outcome.COMPLETED)
        return mine

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(work, range(4)))
    assert sorted(number for numbers in done for number in numbers) == list(range(9))


def test_a_study_file_on_a_network_file_system_is_refused(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.search.study.network_file_system", lambda _: "nfs4")
    with pytest.raises(EnvironmentFault, match=r"network file system \(nfs4\).*--storage postgresql://"):
        Study(folder)
    assert not folder.study_file.exists()
