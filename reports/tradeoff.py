"""Figure of error against instability: what each trial pays for its calm, and the trials that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from reports.figures import Mark, add_marks, new_figure, plain, rounded
from reports.formats import fixed, number
from reports.standings import band
from tuner.records import Outcome, TrialRecord
from tuner.stability.ranking import pareto_front

__all__ = ["TradeoffInfo", "draw_tradeoff", "tradeoff_info"]

# Diameters in pixels, of the trials of the front and of the others.
_FRONT_SIZE, _SIZE = 12, 8


@dataclass(frozen=True)
class TradeoffInfo:
    """What the figure shows.

    Attributes:
        points: In the order of the trials; x is the instability in nats, y the error in the unit of the study.
        front: Numbers of the trials that no other one beats in both, the lowest error first.
        error: What the error is.
    """

    points: tuple[Mark, ...]
    front: tuple[int, ...]
    error: str


def tradeoff_info(trials: Sequence[TrialRecord], error: str) -> TradeoffInfo | None:
    """Gather the trials that learned; None if there are fewer than three.

    Args:
        trials: In any order; each counts by the training of the search itself.
        error: What the error is, for the axis.
    """
    front = tuple(trial.number for trial in pareto_front(trials))
    points = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        run = trial.search_run
        if trial.outcome is not Outcome.COMPLETED or run is None or run.error is None:
            continue
        text = f"trial {trial.number}<br>error {number(run.error)}<br>instability {fixed(run.score.instability)}"
        size = _FRONT_SIZE if trial.number in front else _SIZE
        points.append(Mark(trial.number, band(trial), run.score.instability, run.error, text, size))
    return TradeoffInfo(tuple(points), front, error) if len(points) >= 3 else None


def draw_tradeoff(info: TradeoffInfo) -> go.Figure:
    """One point a trial, and a stair through those of the front."""
    figure = new_figure(x_title="instability", y_title=plain(info.error), height=340)
    by_trial = {point.trial: point for point in info.points}
    stair = [by_trial[trial] for trial in info.front]
    figure.add_trace(
        go.Scatter(
            x=[rounded(point.x) for point in stair],
            y=[rounded(point.y) for point in stair],
            mode="lines",
            # From less error to more: the step is taken where the error is already paid for.
            line={"shape": "vh", "width": 1.4, "color": "var(--muted)"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    add_marks(figure, info.points)
    return figure
