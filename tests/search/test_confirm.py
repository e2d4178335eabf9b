"""Confirmation on fresh seeds: planned, carried out, resumed, ranked, exported."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from tuner.data import cache
from tuner.errors import DataError
from tuner.export import export_bundle
from tuner.records import Claim, ConfirmPlan, Outcome, SeedRun, TrialRecord
from tuner.search.plan import give_up_claims, is_finished, note_crash, pending, plan_confirmation, take, unmeasured
from tuner.search.study import load_trials
from tuner.search.worker import work
from tuner.stability.ranking import MAX_BEHIND_NATS, best_trial, finalists, median_seed_run, rank
from tuner.stability.score import failed_score
from tuner.store import RunFolder
from tuner.wording import metric_text


def seed_run(index, error, *, trial=0, stability=0.9):
    score = dataclasses.replace(failed_score(0.5), stability=stability)
    outcome = Outcome.DIVERGED if error is None else Outcome.COMPLETED
    objective = 9.0 if error is None else error
    return SeedRun(trial, index, 0, outcome, objective, error, score, {"val_loss": 1.0}, 1, 1, 1, 1.0)


def trial(number, errors, *, objective=None, outcome=Outcome.COMPLETED):
    runs = tuple(seed_run(index, error, trial=number) for index, error in enumerate(errors))
    return TrialRecord(number, outcome, {}, errors[0] if objective is None else objective, runs)


def test_confirmed_trials_lead_by_mean_plus_deviation_of_the_fresh_seeds_alone():
    lucky = trial(0, [0.01, 0.30, 0.32])
    steady = trial(1, [0.20, 0.21, 0.21])
    wild = trial(2, [0.10, 0.05, 0.45])
    never = trial(3, [0.001])
    assert [each.number for each in rank([lucky, steady, wild, never])] == [1, 0, 2, 3]


def test_a_trial_that_fails_on_a_fresh_seed_comes_after_those_that_do_not():
    fragile = trial(0, [0.1, 0.1, None, 0.1])
    solid = trial(1, [0.3, 0.3, 0.3, 0.3])
    assert best_trial([fragile, solid]).number == 1


def test_a_trial_that_fails_on_every_fresh_seed_is_refuted():
    refuted, plain = trial(0, [0.01, None, None]), trial(1, [0.5])
    assert not refuted.is_confirmed
    assert [each.number for each in rank([refuted, plain])] == [1, 0]


def test_one_fresh_seed_confirms_nothing():
    assert not trial(0, [0.1, 0.1]).is_confirmed
    assert trial(0, [0.1, 0.1, 0.1]).is_confirmed


def test_stability_of_a_confirmed_trial_is_its_worst_fresh_seed():
    runs = tuple(seed_run(index, 0.1, stability=value) for index, value in enumerate([0.1, 0.9, 0.7]))
    assert TrialRecord(0, Outcome.COMPLETED, {}, 0.1, runs).stability == 0.7


def test_weights_are_those_of_the_median_fresh_run_that_did_not_fail():
    assert median_seed_run(trial(0, [0.0, 0.5, None, 0.3, 0.4])).seed_index == 4


def test_finalists_are_chosen_by_the_objective_of_the_search_among_those_that_learned():
    trials = [
        trial(0, [0.4]),
        trial(1, [0.1], outcome=Outcome.NOT_LEARNING),
        trial(2, [0.2]),
        trial(3, [None], outcome=Outcome.DIVERGED),
        trial(4, [0.3]),
    ]
    assert [each.number for each in finalists(trials, 2)] == [2, 4]


@pytest.mark.parametrize(("behind", "expected"), [(MAX_BEHIND_NATS - 0.01, [0, 1]), (MAX_BEHIND_NATS + 0.01, [0])])
def test_a_trial_that_is_hopelessly_behind_is_not_trained_again(behind, expected):
    trials = [trial(0, [0.1], objective=-2.0), trial(1, [0.3], objective=-2.0 + behind)]
    assert [each.number for each in finalists(trials, 3)] == expected


def test_pending_goes_seed_by_seed_and_leaves_out_what_is_done():
    trials = [trial(0, [0.1, 0.1]), trial(1, [0.2])]
    plan = ConfirmPlan((1, 0), 2)
    assert [(each.number, index) for each, index in pending(plan, trials)] == [(1, 1), (1, 2), (0, 2)]


def test_nothing_to_confirm_stores_no_plan(tmp_path):
    folder = RunFolder(tmp_path)
    assert plan_confirmation(folder, top=3) is None
    assert folder.load_confirm_plan() is None


@pytest.mark.slow
def test_finished_run_is_confirmed_resumed_and_exported(finished_copy, tmp_path):
    folder = RunFolder.open(finished_copy)
    folder.confirm_file.unlink(missing_ok=True)
    for old in folder.trials_dir.glob("*/seed_[1-9]*/record.json"):
        old.unlink()
    plan = plan_confirmation(folder, top=1, seeds=2)
    number = plan.finalists[0]
    work(folder, only_confirm=True)
    confirmed = next(each for each in load_trials(folder) if each.number == number)
    assert [run.seed_index for run in confirmed.seed_runs] == [0, 1, 2]
    assert len({run.seed for run in confirmed.seed_runs}) == 3
    assert confirmed.is_confirmed

    # Interrupted after the first fresh seed: only the other is trained again, with the same result.
    record = folder.seed_run_dir(number, 2) / "record.json"
    before, first = record.read_bytes(), (folder.seed_run_dir(number, 1) / "record.json").stat().st_mtime_ns
    record.unlink()
    work(folder, only_confirm=True)
    assert json.loads(record.read_bytes())["objective"] == pytest.approx(json.loads(before)["objective"], rel=1e-4)
    assert (folder.seed_run_dir(number, 1) / "record.json").stat().st_mtime_ns == first

    lines = export_bundle(folder, tmp_path / "bundle")
    assert "not confirmed" not in lines[0]
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "Confirmed on 2 fresh seeds" in card


def test_a_search_ends_with_its_confirmation(finished_search, finished_run):
    folder = RunFolder.open(finished_run)
    plan = folder.load_confirm_plan()
    trials = load_trials(folder)
    assert pending(plan, trials) == []
    assert unmeasured(folder, plan) == []
    assert is_finished(folder, folder.load_config())
    best = json.loads(finished_search.stdout)["best"]
    assert best["confirmed"] is True
    assert best["fresh"]["seeds"] == plan.seeds
    assert best["margin"]["ratio"] == pytest.approx(best["margin"]["diverging_rate"] / best["margin"]["peak_rate"])
    assert best["trial"] == rank(trials)[0].number


def test_confirm_of_a_run_without_a_finished_trial_is_one_clear_error(finished_copy):
    (finished_copy / "study.db").unlink()
    found = subprocess.run(
        [sys.executable, "-m", "tuner", "confirm", str(finished_copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2
    assert "has no finished trial to confirm" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_fresh_training_that_kills_its_worker_twice_is_ended_as_crashed(finished_copy):
    folder = RunFolder.open(finished_copy)
    plan = folder.load_confirm_plan()
    number, last = plan.finalists[0], plan.seeds
    (folder.seed_run_dir(number, last) / "record.json").unlink()
    note_crash(folder, "it had taken nothing", worker=0)
    assert take(folder, plan, 0) == Claim(0, number, last)
    note_crash(folder, "killed by signal 9", worker=1)
    note_crash(folder, "killed by signal 9", worker=0)
    assert len(pending(plan, load_trials(folder))) == 1
    assert take(folder, plan, 1) == Claim(1, number, last)
    note_crash(folder, "killed by signal 9", worker=1)
    assert pending(plan, load_trials(folder)) == []
    crashed = folder.load_seed_runs(number)[last]
    assert (crashed.outcome, crashed.message) == (Outcome.CRASHED, "killed by signal 9")
    assert folder.load_trace(number, last).num_epochs == 0
    assert folder.load_claims() == []


def test_a_trial_that_over_fitted_is_confirmed_with_the_epochs_that_were_kept(finished_copy):
    folder = RunFolder.open(finished_copy)
    plan = folder.load_confirm_plan()
    number = plan.finalists[0]
    (folder.seed_run_dir(number, 1) / "record.json").unlink()
    run = folder.load_seed_runs(number)[0]
    kept = dataclasses.replace(run, ended_by="over_fitting", epochs=1)
    folder.save_seed_run(kept, folder.load_trace(number, 0))
    work(folder, only_confirm=True)
    assert load_trials(folder)[number].kept_epochs == 1
    confirmed = folder.load_seed_runs(number)[1]
    assert (confirmed.seed_index, confirmed.epochs, confirmed.ended_by) == (1, 1, "")
    assert folder.load_trace(number, 1).planned_epochs == 1
    # The schedule was made for the epochs of the search: the rate stands where that of the first training stood.
    rates = [folder.load_trace(number, index).learning_rate[0] for index in (0, 1)]
    assert rates[0] == pytest.approx(rates[1])


def test_a_sweep_that_kills_its_worker_leaves_the_trial_without_a_margin(finished_copy):
    folder = RunFolder.open(finished_copy)
    number = folder.load_confirm_plan().finalists[0]
    folder.swept_file(number).unlink()
    assert not is_finished(folder, folder.load_config())
    assert take(folder, folder.load_confirm_plan(), 0) == Claim(0, number, None)
    note_crash(folder, "killed by signal 9", worker=0)
    assert is_finished(folder, folder.load_config())
    assert folder.load_margin(number) is None


def test_fresh_splits_are_drawn_for_each_seed_and_leave_the_test_part_alone(finished_copy):
    folder = RunFolder.open(finished_copy)
    plan = plan_confirmation(folder, top=1, seeds=2, fresh_split=True)
    number = plan.finalists[0]
    # What was trained on the run's own split does not count.
    assert [seed_index for _, seed_index in pending(plan, load_trials(folder))] == [1, 2]
    work(folder, only_confirm=True)
    runs = folder.load_seed_runs(number)
    splits = [run.split_seed for run in runs[:3]]
    assert splits[0] is None
    assert len(set(splits)) == 3
    assert pending(plan, load_trials(folder)) == []
    own, *fresh = (
        cache.load_raw(data_dir)[2]
        for data_dir in (folder.data_dir, *(folder.data_dir / f"split_{seed}" for seed in splits[1:]))
    )
    for drawn in fresh:
        np.testing.assert_array_equal(drawn.test, own.test)
        assert set(drawn.validation) != set(own.validation)
    # A pipeline of its own, fitted on that training part.
    assert all(list((folder.data_dir / f"split_{seed}" / "prepared").iterdir()) for seed in splits[1:])
    assert "with a split of their own" in metric_text(load_trials(folder)[number])


def test_each_part_of_a_confirmation_is_taken_by_one_worker(finished_copy):
    folder = RunFolder.open(finished_copy)
    plan = folder.load_confirm_plan()
    number = plan.finalists[0]
    for seed_index in (2, 3):
        (folder.seed_run_dir(number, seed_index) / "record.json").unlink()
    folder.swept_file(number).unlink()
    assert [take(folder, plan, worker) for worker in (0, 1, 2, 3)] == [
        Claim(0, number, 2),
        Claim(1, number, 3),
        Claim(2, number, None),
        None,
    ]
    # The same worker takes up what it had taken; what it gives up, another may have.
    assert take(folder, plan, 1) == Claim(1, number, 3)
    give_up_claims(folder, 0)
    assert take(folder, plan, 3) == Claim(3, number, 2)
    give_up_claims(folder)
    assert folder.load_claims() == []


def test_data_that_was_split_in_time_is_not_split_anew(finished_copy):
    folder = RunFolder.open(finished_copy)
    file = folder.data_dir / "split.npz"
    with np.load(file) as parts:
        np.savez(file, **(dict(parts) | {"is_drawn": np.array(False)}))
    before = folder.confirm_file.read_bytes()
    with pytest.raises(DataError, match="cannot be drawn anew"):
        plan_confirmation(folder, top=1, seeds=2, fresh_split=True)
    assert folder.confirm_file.read_bytes() == before
