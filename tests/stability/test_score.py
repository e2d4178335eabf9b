from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.stability.traces import CHANCE, EPOCHS, STEPS, decay, noisy, trace
from tuner.records import Outcome
from tuner.stability.score import (
    EXPLODED_FACTOR,
    MAX_INSTABILITY_NATS,
    MAX_RELATIVE_ERROR,
    MIN_EPOCHS,
    MIN_STEPS,
    NOT_LEARNING_FRAC,
    failed_objective,
    failed_score,
    first_failure,
    is_learning,
    objective,
    outcome_of,
    score,
    smoothed_end,
)


def test_over_fitting_costs_and_a_constant_gap_is_free():
    base = noisy(decay(), 0.1, seed=2)
    train = base.reshape(EPOCHS, STEPS).mean(axis=1)
    rising = train[8] * 1.1 * 1.05 ** np.maximum(0, np.arange(EPOCHS) - 8)
    over_fitted = np.where(np.arange(EPOCHS) < 8, train * 1.1, rising)
    healthy, gap, over = (score(trace(base, validation=losses)) for losses in (train * 1.1, train + 0.5, over_fitted))
    assert gap.stability == pytest.approx(healthy.stability, abs=0.02)
    assert over.validation_drawdown > 0.1
    assert over.gap_growth > 0.05
    assert over.stability < healthy.stability - 0.15


@pytest.mark.parametrize(("at", "expected"), [(0, -1.0), (500, -0.75), (1500, -0.25)])
def test_dying_later_is_a_little_better(at, expected):
    loss = decay()
    loss[at:] = np.inf
    assert score(trace(loss)).stability == pytest.approx(expected)
    assert first_failure(trace(loss)) == at


def test_nan_in_the_validation_loss_alone_is_a_failure_too():
    validation = np.full(EPOCHS, 1.0)
    validation[5:] = np.nan
    found = trace(decay(), validation=validation)
    assert first_failure(found) == 6 * STEPS
    assert outcome_of(found) is Outcome.DIVERGED


def test_a_gradient_that_is_no_number_is_a_failure_though_the_loss_stays_finite():
    found = trace(decay())
    found.grad_norm[700] = np.nan
    assert first_failure(found) == 700
    assert outcome_of(found) is Outcome.DIVERGED


def test_not_learning_has_half_the_stability_and_its_own_outcome():
    flat = noisy(np.full(STEPS * EPOCHS, CHANCE * 1.05), 0.01, seed=7)
    found = score(trace(flat))
    assert outcome_of(trace(flat)) is Outcome.NOT_LEARNING
    assert found.stability == pytest.approx(math.exp(-found.instability) / 2)


@pytest.mark.parametrize(("factor", "failed_at"), [(EXPLODED_FACTOR * 0.99, None), (EXPLODED_FACTOR * 1.01, 1100)])
def test_a_loss_that_ends_beyond_all_measure_has_diverged(factor, failed_at):
    loss = decay()
    loss[1100:] = CHANCE * factor
    assert first_failure(trace(loss)) == failed_at


def test_a_huge_loss_at_the_start_that_came_down_is_no_failure():
    loss = decay()
    loss[:50] = CHANCE * EXPLODED_FACTOR * 10
    assert first_failure(trace(loss)) is None


@pytest.mark.parametrize(("level", "learns"), [(NOT_LEARNING_FRAC + 1e-3, False), (NOT_LEARNING_FRAC - 1e-3, True)])
def test_learning_is_decided_on_both_sides_of_its_threshold(level, learns):
    assert is_learning(trace(np.full(STEPS * EPOCHS, CHANCE * level))) is learns


@pytest.mark.parametrize("chance", [2.0, 0.0, -1.0])
def test_negative_losses_are_judged_on_a_signed_scale_and_it_says_so(chance):
    falling = np.linspace(2.0, -3.0, STEPS * EPOCHS)
    rising = np.where(np.arange(STEPS * EPOCHS) < 1500, falling, 2.0)
    healthy, faulty = (score(trace(loss, chance=chance)) for loss in (falling, rising))
    assert healthy.instability < 0.05
    assert faulty.instability > 1.0
    for found in (healthy, faulty):
        assert any("signed scale" in part for part in found.not_assessed)


@pytest.mark.parametrize("count", [5, 25])
def test_lengths_that_disagree_leave_the_gap_unassessed_and_name_both(count):
    found = score(trace(decay(), validation=np.full(count, 1.0)))
    assert found.gap_growth is None
    assert any(f"{EPOCHS} training and {count} validation epochs" in part for part in found.not_assessed)


def test_an_empty_trace_has_a_score_that_says_that_nothing_was_judged():
    found = score(trace(np.empty(0), validation=[]))
    assert (found.stability, found.instability) == (1.0, 0.0)
    assert {part.split(" (")[0] for part in found.not_assessed} == {"training loss", "validation loss"}


def test_too_little_to_judge_says_so():
    found = score(trace(decay(20), steps=10))
    assert found.drawdown is None
    assert found.validation_drawdown is None
    assert found.gap_growth is None
    assert any("training loss" in part for part in found.not_assessed)
    assert any("validation loss" in part for part in found.not_assessed)


def test_without_single_steps_the_epochs_are_judged_and_it_says_so():
    whole = trace(decay())
    epochs_only = trace(np.empty(0), validation=whole.validation_loss)
    epochs_only = type(whole)(**{**vars(epochs_only), "train_loss": whole.train_loss, "planned_epochs": EPOCHS})
    found = score(epochs_only)
    assert found.drawdown == pytest.approx(0.0, abs=1e-9)
    assert "single steps (epoch-level only)" in found.not_assessed


@pytest.mark.parametrize(("count", "assessed"), [(MIN_STEPS - 1, False), (MIN_STEPS, True)])
def test_steps_are_judged_from_a_few_dozen_on(count, assessed):
    found = score(trace(decay(count), steps=count, validation=[1.0]))
    assert (found.drawdown is not None) is assessed


@pytest.mark.parametrize(("count", "assessed"), [(MIN_EPOCHS - 1, False), (MIN_EPOCHS, True)])
def test_validation_is_judged_from_four_epochs_on(count, assessed):
    found = score(trace(decay(STEPS * count)))
    assert (found.validation_drawdown is not None) is assessed


@settings(max_examples=200, deadline=None)
@given(
    losses=npst.arrays(float, st.integers(0, 400), elements=st.floats(allow_nan=True, allow_infinity=True)),
    validation=npst.arrays(float, st.integers(0, 8), elements=st.floats(allow_nan=True, allow_infinity=True)),
    steps=st.integers(1, 60),
)
def test_score_is_finite_and_bounded_for_every_trace(losses, validation, steps):
    epochs = len(losses) // steps
    found = score(trace(losses, steps=steps, validation=validation[:epochs], planned=max(epochs, 1)))
    assert -1.0 <= found.stability <= 1.0
    assert 0.0 <= found.instability <= MAX_INSTABILITY_NATS


@pytest.mark.parametrize(
    "losses",
    [np.zeros(200), np.full(200, -1.0), np.full(200, 2.0), np.full(200, 1e300), np.full(200, 5e-324)],
    ids=["zero", "negative", "constant", "huge", "tiny"],
)
def test_strange_but_finite_losses_have_a_defined_score(losses):
    found = score(trace(losses, steps=20))
    assert math.isfinite(found.stability)


def test_objective_is_log_error_plus_weighted_instability():
    assert objective(0.1, chance_error=0.9, instability=0.5, weight=0.2) == pytest.approx(math.log(1 / 9) + 0.1)


@settings(max_examples=100)
@given(st.floats(0, 1e9), st.floats(0.01, 10), st.floats(0, 5), st.floats(0, 10), st.floats(0, 1))
def test_any_failed_run_is_worse_than_any_finished_one(error, chance, instability, weight, progress):
    finished = objective(error, chance_error=chance, instability=instability, weight=weight)
    failed = failed_objective(progress, weight=weight)
    assert math.isfinite(finished)
    assert math.isfinite(failed)
    assert finished <= failed + 1e-9
    assert finished <= math.log(MAX_RELATIVE_ERROR) + weight * MAX_INSTABILITY_NATS + 1e-9


def test_failing_later_is_better_and_a_failure_without_a_trace_is_scored():
    assert failed_objective(0.9, weight=0.2) < failed_objective(0.1, weight=0.2)
    assert failed_score(0.25).stability == pytest.approx(-0.75)


def test_the_end_is_the_mean_of_three_epochs_never_the_best():
    assert smoothed_end([0.1, 5.0, 1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert smoothed_end([4.0]) == pytest.approx(4.0)
