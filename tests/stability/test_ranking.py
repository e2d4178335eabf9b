from __future__ import annotations

from dataclasses import replace

import pytest

from tuner.records import Outcome, SeedRun, TrialRecord
from tuner.stability.ranking import best_trial, finalists, median_seed_run, pareto_front, rank
from tuner.stability.score import failed_score


def trial(number, outcome=Outcome.COMPLETED, objective=0.0, runs=()):
    return TrialRecord(number, outcome, {}, objective, tuple(runs))


def seed_run(index, objective, *, error=0.1, is_feasible=True):
    return SeedRun(
        0, index, 0, Outcome.COMPLETED, objective, error, failed_score(0.5), {}, 1, 1, 1, 1.0, is_feasible=is_feasible
    )


def test_best_objective_first_failed_last_unfinished_left_out():
    trials = [
        trial(0, objective=-1.0),
        trial(1, Outcome.DIVERGED, -9.0),
        trial(2, objective=-2.0),
        trial(3, Outcome.RUNNING, None),
        trial(4, Outcome.WAITING, None),
        trial(5, Outcome.NOT_LEARNING, 0.5),
        trial(6, Outcome.PRUNED, -3.0),
    ]
    assert [each.number for each in rank(trials)] == [2, 0, 5, 6, 1]


def test_equal_objectives_keep_the_order_of_their_numbers():
    assert [each.number for each in rank([trial(4), trial(2), trial(3)])] == [2, 3, 4]


def test_a_pruned_trial_is_neither_best_nor_finalist():
    trials = [trial(0, Outcome.PRUNED, -3.0), trial(1, objective=-1.0)]
    assert best_trial(trials).number == 1
    assert [each.number for each in finalists(trials, 3)] == [1]
    assert best_trial(trials[:1]) is None


def test_there_is_no_best_among_failed_trials():
    assert best_trial([trial(0, Outcome.ERROR), trial(1, Outcome.CRASHED)]) is None
    assert best_trial([]) is None


@pytest.mark.parametrize(("objectives", "expected"), [([3.0], 0), ([3.0, 1.0], 1), ([9.0, 3.0, 1.0, 2.0], 3)])
def test_median_seed_run_stands_for_the_trial(objectives, expected):
    runs = [seed_run(index, value) for index, value in enumerate(objectives)]
    assert median_seed_run(trial(0, runs=runs)).seed_index == expected


def test_median_of_a_confirmed_trial_leaves_out_the_run_that_the_search_chose_by():
    runs = [seed_run(index, value) for index, value in enumerate([0.0, 2.0, 1.0, 3.0])]
    assert median_seed_run(trial(0, runs=runs)).seed_index == 1


def test_trial_without_seed_runs_has_no_median():
    with pytest.raises(ValueError, match="trial 7 has no finished seed run"):
        median_seed_run(trial(7))


def test_what_breaks_the_constraint_stands_behind_all_that_keeps_it():
    def fresh(*feasible, error):
        objectives = (-1.0 if each else 2.5 for each in feasible)
        return [seed_run(index, value, error=error, is_feasible=value < 0) for index, value in enumerate(objectives)]

    trials = [
        trial(0, objective=-1.0, runs=fresh(True, True, True, True, error=0.3)),
        trial(1, objective=-1.0, runs=fresh(True, True, True, False, error=0.1)),
        trial(2, objective=-1.0, runs=fresh(True, False, False, True, error=0.1)[:3]),
        trial(3, objective=2.4, runs=fresh(False, error=0.05)),
        trial(4, objective=2.0, runs=fresh(True, error=0.8)),
        trial(5, Outcome.DIVERGED, 3.9),
    ]
    # Confirmed: none broke it, one of three did; then not confirmed; then those that broke it, by their objective.
    assert [each.number for each in rank(trials)] == [0, 1, 4, 2, 3, 5]


def test_weights_learned_on_another_split_stand_for_nobody():
    own = [seed_run(0, 0.5), seed_run(1, 0.1), seed_run(2, 0.2), seed_run(3, 0.3)]
    fresh = [replace(run, split_seed=9) for run in own[1:]]
    assert median_seed_run(trial(0, runs=own)).seed_index == 2
    assert median_seed_run(trial(0, runs=[own[0], *fresh])).seed_index == 0
    assert median_seed_run(trial(0, runs=[own[0], own[1], *fresh[1:]])).seed_index == 1


def point(number, error, instability, outcome=Outcome.COMPLETED):
    run = replace(seed_run(0, 0.0, error=error), score=replace(failed_score(0.5), instability=instability))
    return trial(number, outcome, runs=[run])


def test_the_pareto_front_has_whom_nobody_beats_in_both():
    trials = [
        point(0, 0.3, 0.0),
        point(1, 0.1, 0.5),
        point(2, 0.2, 0.2),
        # Beaten in both; in one at equality in the other; failed and pruned ones, however good.
        point(3, 0.25, 0.3),
        point(4, 0.2, 0.21),
        point(5, 0.0, 0.0, Outcome.PRUNED),
        point(6, 0.0, 0.0, Outcome.DIVERGED),
        trial(7, Outcome.RUNNING, None),
        # As good as another in both: neither beats the other.
        point(8, 0.1, 0.5),
    ]
    assert [each.number for each in pareto_front(iter(trials))] == [1, 8, 2, 0]
    assert pareto_front([]) == []


def test_a_fresh_training_moves_no_trial_on_the_front():
    trials = [point(0, 0.2, 0.2), point(1, 0.3, 0.3)]
    fresh = replace(trials[1].seed_runs[0], seed_index=1, error=0.01)
    trials[1] = replace(trials[1], seed_runs=(*trials[1].seed_runs, fresh))
    assert [each.number for each in pareto_front(trials)] == [0]
