from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from reports import curves
from reports.standings import Band
from tests.reports import synthetic
from tuner.records import Trace
from tuner.stability.ranking import rank


def test_best_few_least_stable_and_some_failed_are_chosen() -> None:
    run = synthetic.run(synthetic.BEHAVIOURS * 5, epochs=8)
    ranked = rank(run.trials)
    chosen = curves.choose_trials(ranked)
    assert chosen[:5] == ranked[:5]
    assert len(chosen) == curves.NUM_BEST + curves.NUM_UNSTABLE + curves.NUM_FAILED
    unstable = [trial.stability or 0.0 for trial in chosen[5:10]]
    assert unstable == sorted(unstable)
    assert all(trial.outcome.is_failed for trial in chosen[10:])
    assert len({trial.number for trial in chosen}) == len(chosen)


def test_a_trial_without_any_epoch_has_no_curve() -> None:
    run = synthetic.run(("error", "clean"))
    assert [trial.number for trial in curves.choose_trials(rank(run.trials))] == [1]


def test_unstable_curves_are_marked_by_more_than_colour() -> None:
    run = synthetic.run(("clean", "clean", "oscillation", "nan"))
    info = curves.loss_curves_info(rank(run.trials), run.traces)
    assert info is not None
    standings = {curve.trial: curve.standing for curve in info.curves}
    assert standings == {0: Band.VERY_STABLE, 1: Band.VERY_STABLE, 2: Band.VERY_UNSTABLE, 3: Band.FAILED}
    marks = {entry.group: (entry.mark, entry.label, entry.colour) for entry in info.legend}
    assert marks["trial-2"][0] != marks["trial-0"][0]
    assert "unstable" in marks["trial-2"][1]
    assert "failed" in marks["trial-3"][1]
    figure = curves.draw_loss_curves(info)
    symbols = {trace.legendgroup: trace.marker.symbol for trace in figure.data if "markers" in trace.mode}
    assert symbols["trial-2"] == "triangle-up"
    assert symbols["trial-3"] == "x"


def test_log_axis_for_positive_losses_and_linear_for_others() -> None:
    run = synthetic.run(("clean",))
    info = curves.loss_curves_info(run.trials, run.traces)
    assert info is not None
    assert curves.draw_loss_curves(info).layout.yaxis.type == "log"
    shifted = replace(run.traces[0], train_loss=run.traces[0].train_loss - 1)
    below = curves.loss_curves_info(run.trials, {0: shifted})
    assert below is not None
    assert not below.is_log
    assert curves.draw_loss_curves(below).layout.yaxis.type is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_leaves_a_gap_and_a_cross(value: float) -> None:
    trial, trace = synthetic.trial(0, "clean")
    assert trace is not None
    broken = replace(trace, train_loss=np.append(trace.train_loss[:-1], value))
    info = curves.loss_curves_info([trial], {0: broken})
    assert info is not None
    assert info.curves[0].train[-1] is None
    assert math.isfinite(info.high)
    figure = curves.draw_loss_curves(info)
    assert figure.data[-1].marker.symbol == "x"
    assert figure.data[-1].x == (20,)


def test_all_epochs_not_finite_is_no_figure() -> None:
    trial, trace = synthetic.trial(0, "nan")
    assert trace is not None
    lost = replace(trace, train_loss=np.full(3, np.nan), validation_loss=np.full(3, np.inf))
    assert curves.loss_curves_info([trial], {0: lost}) is None
    assert curves.loss_curves_info([trial], {}) is None
    assert curves.loss_curves_info([], {}) is None


def test_without_validation_loss_the_training_loss_is_the_strong_line() -> None:
    run = synthetic.run(("clean",), metric="loss", has_validation=False)
    info = curves.loss_curves_info(run.trials, run.traces)
    assert info is not None
    (line,) = curves.draw_loss_curves(info).data
    assert line.line.dash == "solid"
    assert line.line.width > 2


def test_a_loss_far_above_chance_does_not_flatten_the_others() -> None:
    trial, trace = synthetic.trial(0, "clean")
    assert trace is not None
    high = replace(trace, train_loss=np.append(trace.train_loss[:-1], 1e12))
    info = curves.loss_curves_info([trial], {0: high})
    assert info is not None
    assert info.high == pytest.approx(curves.TOP_OVER_CHANCE * trace.chance_loss * 1.15)


def test_one_epoch_is_a_point() -> None:
    run = synthetic.run(("clean",), epochs=1)
    info = curves.loss_curves_info(run.trials, run.traces)
    assert info is not None
    assert all("markers" in trace.mode for trace in curves.draw_loss_curves(info).data)


def steps(losses: list[float] | np.ndarray, *, steps_per_epoch: int = 100) -> Trace:
    return replace(synthetic.trace("clean"), step_loss=np.asarray(losses, dtype=float), steps_per_epoch=steps_per_epoch)


def info_of(trace: Trace) -> curves.StepLossInfo:
    info = curves.step_loss_info(synthetic.trial(0, "clean")[0], trace)
    assert info is not None
    return info


def test_spikes_survive_when_steps_are_dropped() -> None:
    losses = np.ones(100_000)
    losses[70_001] = 50.0
    losses[30_003] = 0.01
    info = info_of(steps(losses))
    assert len(info.steps) <= curves.MAX_STEP_POINTS
    assert dict(zip(info.steps, info.losses, strict=True))[70_002] == 50.0
    assert min(info.losses) == 0.01
    assert info.num_steps == 100_000
    assert list(info.steps) == sorted(info.steps)


@pytest.mark.parametrize(
    ("num_steps", "is_kept"), [(curves.MAX_STEP_POINTS, True), (curves.MAX_STEP_POINTS + 1, False)]
)
def test_short_traces_are_drawn_whole(num_steps: int, is_kept: bool) -> None:
    assert (len(info_of(steps(np.linspace(2, 1, num_steps))).steps) == num_steps) is is_kept


def test_running_median_by_hand() -> None:
    info = info_of(steps([5, 1, 1, 1, 1, 2, 2, 2, 2, 2, 9], steps_per_epoch=10))
    assert info.window == 9
    assert dict(zip(info.median_steps, info.medians, strict=True)) == {9: 2.0, 10: 2.0, 11: 2.0}


@pytest.mark.parametrize(("steps_per_epoch", "window"), [(10, 9), (99, 9), (100, 10), (499, 49), (500, 50), (5000, 50)])
def test_window_is_a_tenth_of_an_epoch_within_limits(steps_per_epoch: int, window: int) -> None:
    assert info_of(steps(np.ones(200), steps_per_epoch=steps_per_epoch)).window == window


def test_the_first_step_that_is_not_finite_is_marked() -> None:
    info = info_of(steps([2.0] * 20 + [math.nan] + [2.0] * 5))
    assert info.failed_at == 21
    assert max(info.median_steps) <= 20
    figure = curves.draw_step_loss(info, curves.step_limits([info]))
    assert any("not finite from step 21" in note.text for note in figure.layout.annotations)


def test_too_few_steps_for_a_median_and_none_at_all() -> None:
    assert info_of(steps([2.0, 1.0])).medians == ()
    assert curves.step_loss_info(synthetic.trial(0, "clean")[0], steps([])) is None
    assert curves.step_loss_info(synthetic.trial(0, "clean")[0], steps([math.nan, math.inf])) is None


def test_compared_figures_share_their_axes() -> None:
    first, second = info_of(steps([2.0, 0.5])), info_of(steps([3.0, 1.0, 0.9, 0.1]))
    limits = curves.step_limits([first, second])
    layouts = [curves.draw_step_loss(info, limits).layout for info in (first, second)]
    assert len({(*layout.xaxis.range, *layout.yaxis.range) for layout in layouts}) == 1
    assert limits.num_epochs == 20


def test_trainings_of_different_batch_sizes_compare_by_epoch() -> None:
    info = info_of(steps(np.ones(400), steps_per_epoch=20))
    line = curves.draw_step_loss(info, curves.step_limits([info])).data[0]
    assert (line.x[0], line.x[-1]) == (0.05, 20)
    assert (line.text[0], line.text[-1]) == ("1", "400")
