"""Figure of error against instability: what each trial pays for its calm, and the trials that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from reports.figures import SYMBOLS, new_figure, plain, rounded
from reports.formats import fixed, number
from reports.standings import Band, band
from tuner.records import Outcome, TrialRecord
from tuner.stability.ranking import pareto_front

__all__ = ["TradeoffInfo", "TradeoffPoint", "draw_tradeoff", "tradeoff_info"]


@dataclass(frozen=True)
class TradeoffPoint:
    """One trial that learned: instability in nats, error in the unit of the study."""

    trial: int
    standing: Band
    instability: float
    error: float
    text: str
    is_on_front: bool


@dataclass(frozen=True)
class TradeoffInfo:
    """What the figure shows.

    Attributes:
        points: In the order of the trials.
        front: Numbers of the trials that no other one beats in both, the lowest error first.
        error: What the error is.
    """

    points: tuple[TradeoffPoint, ...]
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
        run = next((run for run in trial.seed_runs if run.seed_index == 0), None)
        if trial.outcome is not Outcome.COMPLETED or run is None or run.error is None:
            continue
        text = f"trial {trial.number}<br>error {number(run.error)}<br>instability {fixed(run.score.instability)}"
        point = TradeoffPoint(trial.number, band(trial), run.score.instability, run.error, text, trial.number in front)
        points.append(point)
    return TradeoffInfo(tuple(points), front, error) if len(points) >= 3 else None


def draw_tradeoff(info: TradeoffInfo) -> go.Figure:
    """One point a trial, and a stair through those of the front."""
    figure = new_figure(x_title="instability", y_title=plain(info.error), height=340)
    by_trial = {point.trial: point for point in info.points}
    stair = [by_trial[trial] for trial in info.front]
    figure.add_trace(
        go.Scatter(
            x=[rounded(point.instability) for point in stair],
            y=[rounded(point.error) for point in stair],
            mode="lines",
            # From less error to more: the step is taken where the error is already paid for.
            line={"shape": "vh", "width": 1.4, "color": "var(--muted)"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for standing in Band:
        points = [point for point in info.points if point.standing is standing]
        if points:
            figure.add_trace(
                go.Scatter(
                    x=[rounded(point.instability) for point in points],
                    y=[rounded(point.error) for point in points],
                    text=[point.text for point in points],
                    mode="markers",
                    marker={
                        "symbol": SYMBOLS[standing][0],
                        "size": [12 if point.is_on_front else 8 for point in points],
                        "color": f"var(--{standing.value})",
                        "line": {"width": 1.8, "color": f"var(--{standing.value})"},
                    },
                    hovertemplate="%{text}<extra></extra>",
                    showlegend=False,
                )
            )
    return figure
