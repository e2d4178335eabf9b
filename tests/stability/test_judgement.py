from __future__ import annotations

import math

import numpy as np
import pytest

from tests.stability.traces import CHANCE, EPOCHS, decay, trace
from tuner.records import Outcome
from tuner.stability.judgement import BALANCED_FROM_IMBALANCE, Judgement, chance_levels, choose_metric

ACCURACY = {"accuracy": np.full(EPOCHS, 0.9), "balanced_accuracy": np.full(EPOCHS, 0.7)}


def judgement(**changes):
    fields = {
        "metric": "accuracy",
        "chance_loss": CHANCE,
        "chance_error": 0.9,
        "num_validation": 100,
        "num_classes": 10,
    }
    return Judgement(**(fields | changes))


def test_error_is_one_minus_metric_plus_one_row():
    assert judgement().error(trace(decay(), metrics=ACCURACY)) == pytest.approx(0.1 + 0.01)
    assert judgement(metric="balanced_accuracy").error(trace(decay(), metrics=ACCURACY)) == pytest.approx(0.3 + 0.01)


def test_finished_run_is_judged_by_error_and_instability():
    verdict = judgement(stability_weight=0.5).judge(trace(decay(), metrics=ACCURACY))
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.objective == pytest.approx(math.log(0.11 / 0.9) + 0.5 * verdict.score.instability)


def test_val_loss_objective_ignores_stability_and_metric():
    found = trace(decay(), metrics=ACCURACY)
    verdict = judgement(objective="val_loss", stability_weight=5).judge(found)
    assert verdict.error == pytest.approx(np.mean(found.validation_loss[-3:]))
    assert verdict.objective == pytest.approx(math.log(verdict.error / CHANCE))


def test_val_accuracy_objective_uses_accuracy_even_when_the_metric_is_balanced():
    verdict = judgement(objective="val_accuracy", metric="balanced_accuracy").judge(trace(decay(), metrics=ACCURACY))
    assert verdict.error == pytest.approx(0.11)
    assert verdict.objective == pytest.approx(math.log(0.11 / 0.9))


def test_regression_is_judged_by_the_validation_loss():
    found = trace(decay())
    verdict = judgement(metric="loss", num_classes=0, chance_error=CHANCE).judge(found)
    assert verdict.error == pytest.approx(np.mean(found.validation_loss[-3:]))


def test_diverged_run_has_a_finite_objective_worse_than_chance():
    loss = decay()
    loss[1000:] = np.nan
    verdict = judgement().judge(trace(loss, metrics=ACCURACY))
    assert verdict.outcome is Outcome.DIVERGED
    assert verdict.error is None
    assert math.isfinite(verdict.objective)
    assert verdict.objective > 0


def test_run_without_validation_is_an_error_not_a_perfect_result():
    verdict = judgement().judge(trace(decay(), validation=[]))
    assert verdict.outcome is Outcome.ERROR
    assert math.isfinite(verdict.objective)


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ([100, 100], "accuracy"),
        ([int(100 * BALANCED_FROM_IMBALANCE), 100], "accuracy"),
        ([int(100 * BALANCED_FROM_IMBALANCE) + 1, 100], "balanced_accuracy"),
        ([], "loss"),
        ([50, 0, 50], "accuracy"),
    ],
)
def test_metric_follows_the_balance_of_the_classes(counts, metric):
    assert choose_metric(counts) == metric


def test_chance_levels_of_classes():
    y = np.array([0] * 75 + [1] * 25)
    loss, error = chance_levels(y, num_classes=2, metric="accuracy")
    assert loss == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert error == pytest.approx(0.25)
    assert chance_levels(y, num_classes=2, metric="balanced_accuracy")[1] == pytest.approx(0.5)


def test_chance_level_of_a_number_is_its_variance():
    assert chance_levels(np.array([1.0, 3.0]), num_classes=0, metric="loss") == (1.0, 1.0)


def test_chance_level_of_a_constant_target_is_positive():
    loss, _ = chance_levels(np.ones(5), num_classes=0, metric="loss")
    assert loss > 0
