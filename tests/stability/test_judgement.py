from __future__ import annotations

import math

import numpy as np
import pytest

from tests.stability.traces import (
    CHANCE,
    EPOCHS,
    STEPS,
    clean_validation,
    decay,
    over_fitted,
    spiked,
    trace,
    wave,
)
from tuner.records import Outcome
from tuner.stability.judgement import (
    BALANCED_FROM_IMBALANCE,
    CONSTRAINT,
    Judgement,
    chance_cross_entropy,
    chance_levels,
    choose_metric,
    first_epochs,
    worst_objective,
)

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


def test_chance_loss_of_weighted_classes():
    """Balanced classes, by weights or by rows, have that of as many equal ones; a weight of 0 takes a class away."""
    y = np.array([0, 0, 0, 1])
    assert chance_cross_entropy(y) == chance_levels(y, num_classes=2, metric="accuracy")[0]
    assert chance_cross_entropy(y, {0: 4 / 6, 1: 2.0}) == pytest.approx(math.log(2))
    assert chance_cross_entropy(y, {0: 8 / 6, 1: 4.0}) == pytest.approx(2 * math.log(2))
    assert chance_cross_entropy(y, {1: 0.0}) == 0.0


def test_chance_level_of_a_number_is_its_variance():
    assert chance_levels(np.array([1.0, 3.0]), num_classes=0, metric="loss") == (1.0, 1.0)


def test_chance_level_of_a_constant_target_is_positive():
    loss, _ = chance_levels(np.ones(5), num_classes=0, metric="loss")
    assert loss > 0


@pytest.mark.parametrize(("objective", "weight"), [("stable", 0.5), ("val_loss", 0.0), ("val_accuracy", 0.0)])
def test_only_the_stable_objective_weighs_instability(objective, weight):
    judged = judgement(objective=objective, stability_weight=0.5)
    shaky, calm = (judged.judge(trace(loss, metrics=ACCURACY)) for loss in (spiked(decay(), 1000), decay()))
    added = weight * (shaky.score.instability - calm.score.instability)
    if objective != "val_loss":
        assert shaky.objective - calm.objective == pytest.approx(added)
    assert worst_objective(objective, stability_weight=0.5) == pytest.approx(math.log(10) + 5 * weight + 1)


def test_constrained_takes_the_error_of_stable_runs_and_the_stability_of_the_others():
    judged = judgement(objective="constrained")
    good = judged.judge(trace(decay(), metrics=ACCURACY))
    poor = judged.judge(trace(decay(), metrics={"accuracy": np.full(EPOCHS, 0.2)}))
    assert good.objective == pytest.approx(math.log(0.11 / 0.9))
    assert good.is_feasible
    shaky, shakier = (
        judged.judge(trace(wave(len(decay()), 40, factor) * decay(), metrics=ACCURACY)) for factor in (2.0, 4.0)
    )
    assert not shaky.is_feasible
    assert shaky.error == pytest.approx(0.11)
    broken = decay()
    broken[1000:] = np.nan
    late = decay()
    late[1900:] = np.nan
    diverged, diverged_late = (judged.judge(trace(loss, metrics=ACCURACY)) for loss in (broken, late))
    ordered = [good, poor, shaky, shakier, diverged_late, diverged]
    assert [each.objective for each in ordered] == sorted(each.objective for each in ordered)
    assert len({each.objective for each in ordered}) == len(ordered)
    assert all(math.isfinite(each.objective) for each in ordered)
    assert judged.failed(Outcome.ERROR, 0.0).objective == pytest.approx(math.log(10) + CONSTRAINT + 1)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_constraint_is_sharp(monkeypatch, side):
    found = trace(decay(), metrics=ACCURACY)
    judged = judgement(objective="constrained").judge(found)
    edge = judged.score.stability - side * 1e-9
    monkeypatch.setattr("tuner.stability.judgement.CONSTRAINT", edge)
    assert judgement(objective="constrained").judge(found).is_feasible is (side > 0)


def test_nothing_learned_breaks_the_constraint_however_calm():
    flat = trace(np.full(len(decay()), CHANCE), metrics={"accuracy": np.full(EPOCHS, 0.1)})
    judged = judgement(objective="constrained").judge(flat)
    assert (judged.outcome, judged.is_feasible) == (Outcome.NOT_LEARNING, False)


def test_a_run_ended_as_diverged_is_a_failure_and_later_is_a_little_better():
    loss = decay()
    early, later = (
        judgement().judge(trace(loss[: epochs * STEPS], planned=EPOCHS, metrics=ACCURACY), ended_by="divergence")
        for epochs in (5, 10)
    )
    assert (early.outcome, early.error) == (Outcome.DIVERGED, None)
    assert early.objective - later.objective == pytest.approx(0.25)
    assert early.score.stability == pytest.approx(-0.75)


def test_first_epochs_are_the_same_training_planned_shorter():
    whole = trace(decay(), metrics=ACCURACY, events=((10, "resume"), (1900, "warm_restart")))
    part = first_epochs(whole, 7)
    assert (part.num_epochs, part.planned_epochs, len(part.step_loss)) == (7, 7, 7 * STEPS)
    np.testing.assert_array_equal(part.validation_loss, whole.validation_loss[:7])
    assert part.metrics["accuracy"].shape == (7,)
    assert part.events == ((10, "resume"),)


def test_an_over_fitted_run_is_worth_what_its_kept_epochs_are():
    validation = over_fitted(clean_validation(), growth=1.1)
    whole = trace(decay(), validation=validation, metrics=ACCURACY)
    kept = first_epochs(whole, int(np.argmin(validation)) + 1)
    full, cut = judgement().judge(whole), judgement().judge(kept, ended_by="over_fitting")
    assert cut.objective < full.objective
    assert cut.error == pytest.approx(full.error)
    # What was unstable before the best epoch is not diluted by what is thrown away.
    shaky = trace(spiked(decay(), 200), validation=validation, metrics=ACCURACY)
    assert judgement().judge(first_epochs(shaky, 6)).score.drawdown > judgement().judge(shaky).score.drawdown


def test_the_chance_of_what_is_minimised_counts_rows_as_the_training_does() -> None:
    y = np.array([0] * 15 + [1])
    judgement = Judgement("balanced_accuracy", 0.25, 0.5, num_validation=10, num_classes=2)
    assert judgement.minimised_chance(y, None) == pytest.approx(chance_cross_entropy(y))
    assert judgement.minimised_chance(y, {0: 16 / 30, 1: 8.0}) == pytest.approx(np.log(2))
    assert judgement.minimised_chance(np.eye(2), None) == 0.25
    regression = Judgement("loss", 3.0, 3.0, num_validation=10, num_classes=0)
    assert regression.minimised_chance(np.array([1.5, 2.5]), None) == 3.0


# Three labels, on a half, a quarter and none of the rows.
LABEL_SETS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("metric", "error"),
    [
        ("mean_average_precision", 1 - (0.5 + 0.25) / 2),
        # Always yes: precision is the share, recall 1.
        ("macro_f1", 1 - (2 * 0.5 / 1.5 + 2 * 0.25 / 1.25) / 2),
        ("loss", (math.log(2) + 0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / 3),
    ],
)
def test_chance_levels_of_several_labels(metric, error):
    loss, found = chance_levels(LABEL_SETS, num_classes=3, metric=metric)
    # Mean over all labels, as the loss takes it; the one that no row has has no entropy.
    assert loss == pytest.approx((math.log(2) + 0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / 3)
    assert found == pytest.approx(error)


def test_several_labels_are_judged_by_average_precision():
    assert choose_metric([5, 2, 0], is_multilabel=True) == "mean_average_precision"
