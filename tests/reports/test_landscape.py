from __future__ import annotations

from dataclasses import replace

import pytest

from reports import landscape, parameters
from reports.landscape import Result
from reports.standings import Band
from tests.reports import synthetic
from tuner.records import TrialRecord
from tuner.stability.ranking import rank


def stability(trials: list[TrialRecord]) -> Result:
    values = {trial.number: trial.stability for trial in trials if trial.stability is not None and trial.stability >= 0}
    return Result("stability", values, 0.0, 1.0, ticks=(0.0, 0.8, 1.0))


def test_lines_carry_places_texts_and_standing() -> None:
    ranked = rank(synthetic.run(("clean", "oscillation", "nan")).trials)
    axes = parameters.axes(ranked)
    info = landscape.parallel_info(ranked, axes, [stability(ranked)])
    assert info is not None
    assert info.best == ranked[0].number
    assert info.names == (*(axis.name for axis in axes), "stability")
    assert [line.standing for line in info.lines] == [Band.VERY_STABLE, Band.VERY_UNSTABLE, Band.FAILED]
    assert info.lines[-1].places[-1] is None
    assert all(len(line.places) == len(line.texts) == len(info.names) for line in info.lines)
    assert {entry.group for entry in info.legend} == {"very-stable", "very-unstable", "failed", "best"}


def test_inactive_hyperparameters_are_drawn_below_the_axis_and_said() -> None:
    ranked = rank(synthetic.run(("clean",) * 6).trials)
    axes = [axis for axis in parameters.axes(ranked) if axis.name == "l2"]
    info = landscape.parallel_info(ranked, axes, [stability(ranked)])
    assert info is not None
    assert info.has_unused
    unused = next(line for line in info.lines if line.places[0] is None)
    assert unused.texts[0] == "not used"
    texts = [note.text for note in landscape.draw_parallel(info).layout.annotations]
    assert "not used" in texts


def test_no_comparison_of_one_trial_or_of_equal_ones() -> None:
    ranked = rank(synthetic.run(("clean", "clean")).trials)
    assert landscape.parallel_info(ranked[:1], parameters.axes(ranked), [stability(ranked)]) is None
    assert landscape.parallel_info(ranked, [], [stability(ranked)]) is None


def test_a_result_upside_down_and_a_result_of_one_value() -> None:
    loss = Result("loss", {0: 0.1, 1: 0.5}, 0.5, 0.1, ticks=(0.1, 0.5))
    assert (loss.place(0), loss.place(1), loss.place(2)) == (1.0, 0.0, None)
    assert Result("loss", {0: 0.1}, 0.1, 0.1, ticks=(0.1,)).place(0) == 0.5


def scatter(trials: list[TrialRecord], name: str = "learning_rate") -> landscape.ScatterInfo | None:
    axis = next(axis for axis in parameters.axes(trials) if axis.name == name)
    return landscape.scatter_info(rank(trials), axis, "objective J")


def test_failed_trials_lie_on_the_edge_above_the_others() -> None:
    info = scatter(synthetic.run(("clean", "oscillation", "nan", "error")).trials)
    assert info is not None
    assert info.edge is not None
    at_edge = {point.trial for point in info.points if point.is_at_edge}
    assert at_edge == {2, 3}
    assert all(point.y < info.edge for point in info.points if not point.is_at_edge)
    assert any("failed" in note.text for note in landscape.draw_scatter(info).layout.annotations)


def test_a_far_objective_lies_on_the_edge_and_says_its_value() -> None:
    trials = [replace(trial, objective=-3.0 + 0.1 * trial.number) for trial in synthetic.run(("clean",) * 8).trials]
    trials[5] = replace(trials[5], objective=4e6)
    info = scatter(trials)
    assert info is not None
    far = next(point for point in info.points if point.trial == 5)
    assert far.is_at_edge
    assert "4.00e6" in far.text
    assert far.y < 0


def test_no_edge_when_nothing_is_far() -> None:
    info = scatter(
        [replace(trial, objective=-3.0 + 0.1 * trial.number) for trial in synthetic.run(("clean",) * 5).trials]
    )
    assert info is not None
    assert info.edge is None


def test_scale_and_symbols() -> None:
    info = scatter(synthetic.run(("clean", "oscillation", "spikes")).trials)
    assert info is not None
    figure = landscape.draw_scatter(info)
    assert figure.layout.xaxis.type == "log"
    assert len({trace.marker.symbol for trace in figure.data}) == len(figure.data) > 1
    choice = scatter(synthetic.run(("clean",) * 6).trials, "optimizer")
    assert choice is not None
    assert set(landscape.draw_scatter(choice).layout.xaxis.ticktext) <= {"adam", "sgd", "rmsprop"}


def test_trials_that_did_not_use_it_are_counted() -> None:
    trials = synthetic.run(("clean",) * 10).trials
    info = scatter(trials, "l2")
    num_using = sum("l2" in trial.hyperparameters for trial in trials)
    assert info is not None
    assert (len(info.points), info.num_unused) == (num_using, 10 - num_using)


def test_one_usable_trial_is_no_scatter() -> None:
    trials = synthetic.run(("clean", "clean")).trials
    assert scatter([trials[0], replace(trials[1], objective=None)]) is None


@pytest.mark.parametrize("hostile", ["<b>x</b>", "<script>alert(1)</script>", "a & b", "%{x}"])
def test_names_are_text_to_plotly(hostile: str) -> None:
    trials = [
        replace(trial, hyperparameters={hostile: ["<i>", "b"][trial.number % 2]})
        for trial in synthetic.run(("clean",) * 4).trials
    ]
    (axis,) = parameters.axes(trials)
    info = landscape.scatter_info(rank(trials), axis, "J")
    parallel = landscape.parallel_info(trials, [axis], [stability(trials)])
    assert info is not None
    assert parallel is not None
    for figure in (landscape.draw_scatter(info), landscape.draw_parallel(parallel)):
        text = figure.to_json()
        assert "<b>x" not in text
        assert "\\u003cscript" not in text
        assert "<i>" not in text
        assert "\\u003ci" not in text


def test_long_names_are_broken_or_shortened() -> None:
    trials = [
        replace(
            trial,
            hyperparameters={"a_very_long_name_of_a_hyperparameter": trial.number, "lr_warmup_fraction": trial.number},
        )
        for trial in synthetic.run(("clean",) * 3).trials
    ]
    info = landscape.parallel_info(trials, parameters.axes(trials), [stability(trials)])
    assert info is not None
    texts = [note.text for note in landscape.draw_parallel(info).layout.annotations]
    assert "lr_warmup_<br>fraction" in texts
    assert not any("a_very_long_name_of_a_hyperparameter" in text for text in texts)
