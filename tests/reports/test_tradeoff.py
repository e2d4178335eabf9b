from __future__ import annotations

from reports.tradeoff import draw_tradeoff, tradeoff_info
from tests.reports import synthetic
from tuner.stability.ranking import pareto_front


def test_points_are_the_trials_that_learned_and_the_stair_those_of_the_front() -> None:
    trials = synthetic.run(("clean", "oscillation", "nan", "clean")).trials
    info = tradeoff_info(trials, "error (1 - accuracy)")
    assert info is not None
    assert [point.trial for point in info.points] == [0, 1, 3]
    assert info.front == tuple(trial.number for trial in pareto_front(trials))
    figure = draw_tradeoff(info)
    stair, *points = figure.data
    assert len(stair.x) == len(info.front)
    assert list(stair.y) == sorted(stair.y)
    assert sum(len(trace.x) for trace in points) == 3
    assert "trial 1<br>error" in next(point.text for point in info.points if point.trial == 1)


def test_too_few_to_compare() -> None:
    assert tradeoff_info(synthetic.run(("clean", "nan", "clean")).trials, "error") is None
