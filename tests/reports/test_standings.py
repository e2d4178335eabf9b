from __future__ import annotations

import math
from dataclasses import replace

import pytest

from reports import standings
from reports.standings import Band
from tests.reports import synthetic
from tuner.records import Outcome, StabilityScore, TrialRecord


def with_score(stability: float, **changes: object) -> TrialRecord:
    trial, _ = synthetic.trial(0, "clean")
    score = replace(trial.seed_runs[0].score, stability=stability, **changes)
    return replace(trial, seed_runs=(replace(trial.seed_runs[0], score=score),))


@pytest.mark.parametrize(
    ("stability", "expected"),
    [
        (1.0, Band.VERY_STABLE), (0.95, Band.VERY_STABLE), (0.9499, Band.STABLE), (0.8, Band.STABLE),
        (0.7999, Band.UNSTABLE), (0.5, Band.UNSTABLE), (0.4999, Band.VERY_UNSTABLE), (0.01, Band.VERY_UNSTABLE),
    ],
)  # fmt: skip
def test_bands_on_both_sides_of_each_threshold(stability: float, expected: Band) -> None:
    assert standings.band(with_score(stability)) is expected


def test_failed_not_learning_and_not_assessed_are_no_shade_of_stable() -> None:
    trial = with_score(1.0)
    for outcome in (Outcome.DIVERGED, Outcome.ERROR, Outcome.CRASHED):
        assert standings.band(replace(trial, outcome=outcome)) is Band.FAILED
    assert standings.band(replace(trial, outcome=Outcome.NOT_LEARNING)) is Band.NOT_LEARNING
    assert standings.band(replace(trial, outcome=Outcome.PRUNED)) is Band.PRUNED
    assert standings.band(replace(trial, seed_runs=())) is Band.FAILED
    nothing = dict.fromkeys((part.field for part in standings.PARTS), None)
    assert standings.band(with_score(1.0, **nothing)) is Band.NOT_ASSESSED
    assert not any(standing.is_stable for standing in Band if standing not in (Band.VERY_STABLE, Band.STABLE))


def test_the_least_stable_seed_run_stands_for_the_trial() -> None:
    good, bad = with_score(0.99), with_score(0.3)
    trial = replace(good, seed_runs=good.seed_runs + bad.seed_runs)
    assert standings.shown_run(trial) is bad.seed_runs[0]
    assert standings.band(trial) is Band.VERY_UNSTABLE


def test_metric_is_that_of_the_trained_model_after_the_last_epoch() -> None:
    trial, _ = synthetic.trial(0, "clean")
    metrics = {"val_accuracy": 0.75, "val_loss": 0.25}
    trial = replace(trial, seed_runs=(replace(trial.seed_runs[0], error=0.5, metrics=metrics),))
    assert standings.metric_value(trial, synthetic.dataset()) == 0.75
    assert standings.metric_value(trial, synthetic.dataset(metric="loss")) == 0.25
    assert standings.metric_value(replace(trial, seed_runs=()), synthetic.dataset()) is None


def test_spread_of_one_seed_is_the_binomial_standard_error() -> None:
    trial, _ = synthetic.trial(0, "clean")
    trial = replace(trial, seed_runs=(replace(trial.seed_runs[0], metrics={"val_accuracy": 0.9}),))
    spread = standings.metric_spread(trial, synthetic.dataset(num_validation=900))
    assert spread is not None
    assert spread[0] == pytest.approx(0.01)
    assert "one seed" in spread[1]


def test_spread_of_balanced_accuracy_weighs_small_classes() -> None:
    trial, _ = synthetic.trial(0, "clean")
    trial = replace(trial, seed_runs=(replace(trial.seed_runs[0], metrics={"val_balanced_accuracy": 0.9}),))
    unequal = synthetic.dataset(num_classes=2, metric="balanced_accuracy", class_counts=(900, 100), num_validation=100)
    spread = standings.metric_spread(trial, unequal)
    assert spread is not None
    assert spread[0] == pytest.approx(math.sqrt(0.09 / 90 + 0.09 / 10) / 2)


def test_spread_over_seeds_is_their_standard_deviation() -> None:
    trial, _ = synthetic.trial(0, "clean")
    trial = replace(
        trial,
        seed_runs=tuple(replace(trial.seed_runs[0], metrics={"val_accuracy": value}) for value in (0.9, 0.8, 0.7)),
    )
    spread = standings.metric_spread(trial, synthetic.dataset())
    assert spread is not None
    assert spread[0] == pytest.approx(0.1)
    assert "3 fresh seeds" in spread[1]


def test_no_spread_where_none_is_known() -> None:
    trial, _ = synthetic.trial(0, "clean")
    assert standings.metric_spread(trial, synthetic.dataset(metric="loss")) is None
    assert standings.metric_spread(replace(trial, seed_runs=()), synthetic.dataset()) is None


def test_validation_loss_comes_from_the_runs_then_from_the_reported_epochs() -> None:
    trial, trace = synthetic.trial(0, "clean")
    assert trace is not None
    assert standings.validation_loss(trial) == pytest.approx(trace.validation_loss[-1])
    without = replace(trial, seed_runs=(replace(trial.seed_runs[0], metrics={"loss": 0.5}),))
    assert standings.validation_loss(without) is None
    assert standings.validation_loss(replace(without, epoch_losses=(0.9, 0.7))) == 0.7


def test_largest_part_counts_the_weights() -> None:
    score = StabilityScore(0.8, 0.2, 0.2, 0.0, 0.39, None, 0.79)
    part = standings.largest_part(score)
    assert part is not None
    assert part.symbol == "U"
    larger = standings.largest_part(replace(score, validation_drawdown=0.41))
    assert larger is not None
    assert larger.symbol == "V"
    assert standings.largest_part(StabilityScore(1.0, 0.0, 0.0, None, None, None, None)) is None


def test_finished_leaves_out_running_and_waiting() -> None:
    run = synthetic.run(("clean", "nan"), num_waiting=2)
    assert [trial.number for trial in standings.finished(run.trials)] == [0, 1]
