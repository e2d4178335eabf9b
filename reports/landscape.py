"""Figures of the hyperparameters: all of them as parallel coordinates, one by one as scatter plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from reports.figures import (
    LegendEntry,
    Mark,
    add_level,
    add_marks,
    band_symbol,
    new_figure,
    plain,
    rounded,
    shortened,
)
from reports.formats import compact, fixed, number
from reports.parameters import Axis, show
from reports.standings import Band, band
from tuner.records import TrialRecord

__all__ = [
    "ParallelInfo",
    "ParallelLine",
    "Result",
    "ScatterInfo",
    "ScatterPoint",
    "draw_parallel",
    "draw_scatter",
    "parallel_info",
    "scatter_info",
]

# An objective this many times further from the best than the upper quartile is drawn at the edge. Source: convention.
_FENCE = 3.0

_JITTER = 0.018
_UNUSED_PLACE = -0.16


@dataclass(frozen=True)
class Result:
    """An axis of results by trial, from `low` at the bottom to `high` at the top, which may be the smaller number."""

    name: str
    values: Mapping[int, float]
    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, trial: int) -> float | None:
        """Where a trial lies between the ends, in [0, 1]."""
        if trial not in self.values:
            return None
        return min(1.0, max(0.0, self._share(self.values[trial])))

    def labels(self) -> tuple[tuple[float, str], ...]:
        """Places in [0, 1] with their labels."""
        return tuple((self._share(tick), compact(tick)) for tick in self.ticks)

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high != self.low else 0.5


@dataclass(frozen=True)
class ParallelLine:
    """One trial across the axes: its place in [0, 1] on each, None where the hyperparameter was not active."""

    trial: int
    standing: Band
    places: tuple[float | None, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ParallelInfo:
    """What the parallel coordinates show.

    Attributes:
        names: Of the axes; the last two are the result.
        ticks: (place, label) of each axis.
        num_results: Axes at the right that are results, not hyperparameters.
        best: Number of the best trial.
    """

    names: tuple[str, ...]
    ticks: tuple[tuple[tuple[float, str], ...], ...]
    lines: tuple[ParallelLine, ...]
    best: int
    num_results: int = 2

    @property
    def has_unused(self) -> bool:
        """Whether some hyperparameter was not active in some trial."""
        return any(place is None for line in self.lines for place in line.places)

    @property
    def legend(self) -> tuple[LegendEntry, ...]:
        """One entry a band that occurs, and one for the best trial."""
        bands = [standing for standing in Band if any(line.standing is standing for line in self.lines)]
        entries = [
            LegendEntry(standing.value, standing.label, f"var(--{standing.value})", band_symbol(standing))
            for standing in bands
        ]
        return (*entries, LegendEntry("best", f"best (trial {self.best})", "var(--ink)", "\N{BLACK STAR}"))


def parallel_info(
    ranked: Sequence[TrialRecord], parameters: Sequence[Axis], results: Sequence[Result]
) -> ParallelInfo | None:
    """Gather the parallel coordinates; None with fewer than two trials or without a hyperparameter that differed.

    Args:
        ranked: Finished trials, best first.
        parameters: The axes to show.
        results: The axes at the right.
    """
    if len(ranked) < 2 or not parameters:
        return None
    ticks = [tuple(axis.ticks()) for axis in parameters] + [result.labels() for result in results]
    lines = []
    for trial in ranked:
        places: list[float | None] = [_parallel_place(axis, trial.number) for axis in parameters]
        places += [result.place(trial.number) for result in results]
        texts = [show(axis.values[trial.number]) if trial.number in axis.values else "not used" for axis in parameters]
        texts += [number(result.values.get(trial.number)) for result in results]
        lines.append(ParallelLine(trial.number, band(trial), tuple(places), tuple(texts)))
    names = (*(axis.name for axis in parameters), *(result.name for result in results))
    return ParallelInfo(names, tuple(ticks), tuple(lines), best=ranked[0].number, num_results=len(results))


def draw_parallel(info: ParallelInfo) -> go.Figure:
    """One line a trial, one trace a band; the best trial on top. Plain lines, so that no WebGL is needed."""
    figure = new_figure(x_title="", y_title="", height=430)
    for standing in reversed(Band):
        lines = [line for line in info.lines if line.standing is standing]
        if lines:
            dash = "solid" if standing.is_stable or standing is Band.NOT_ASSESSED else "dot"
            figure.add_trace(
                _parallel_trace(lines, info.names, f"var(--{standing.value})", group=standing.value, dash=dash)
            )
    best = [line for line in info.lines if line.trial == info.best]
    figure.add_trace(_parallel_trace(best, info.names, "var(--ink)", group="best", dash="solid", width=3))
    for place, (name, ticks) in enumerate(zip(info.names, info.ticks, strict=True)):
        _add_parallel_axis(figure, place, name, ticks)
    if info.has_unused:
        for place, _ in enumerate(info.names):
            if any(line.places[place] is None for line in info.lines):
                words = "not used" if place < len(info.names) - info.num_results else "failed"
                text = {
                    "text": words,
                    "font": {"size": 10, "color": "var(--muted)"},
                    "yanchor": "top",
                    "showarrow": False,
                }
                figure.add_annotation(x=place, y=_UNUSED_PLACE - 0.03, **text)
    figure.update_xaxes(range=[-0.45, len(info.names) - 0.55], visible=False, fixedrange=True)
    figure.update_yaxes(range=[-0.28 if info.has_unused else -0.08, 1.2], visible=False, fixedrange=True)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 30, "b": 8})
    return figure


@dataclass(frozen=True)
class ScatterPoint(Mark):
    """One trial in a scatter plot; `is_at_edge` says that its objective lies above the figure."""

    is_at_edge: bool = False


@dataclass(frozen=True)
class ScatterInfo:
    """What one scatter plot shows.

    Attributes:
        edge: Objective at the line on which failed and far-off trials are drawn, or None if there are none.
        num_unused: Trials in which the hyperparameter was not active.
    """

    axis: Axis
    points: tuple[ScatterPoint, ...]
    edge: float | None
    num_unused: int
    objective: str


def scatter_info(ranked: Sequence[TrialRecord], axis: Axis, objective: str) -> ScatterInfo | None:
    """Gather one hyperparameter against the objective; None if fewer than two trials can be drawn.

    Failed trials have an objective that only orders them; they are drawn on a line above the others.
    """
    known = {
        trial.number: trial.objective
        for trial in ranked
        if trial.objective is not None and math.isfinite(trial.objective)
    }
    shown = [trial for trial in ranked if trial.number in known and trial.number in axis.values]
    if len(shown) < 2:
        return None
    good = sorted(known[trial.number] for trial in ranked if trial.number in known and band(trial) is not Band.FAILED)
    fence, edge = _fence(good)
    points = []
    for trial in shown:
        value = known[trial.number]
        is_at_edge = band(trial) is Band.FAILED or value > fence
        text = f"trial {trial.number}<br>{plain(axis.name)} {plain(show(axis.values[trial.number]))}<br>"
        text += f"objective {number(value)}, stability {fixed(trial.stability)}, {band(trial).label}"
        x = _scatter_place(axis, trial.number)
        points.append(
            ScatterPoint(trial.number, band(trial), x, edge if is_at_edge else value, text, is_at_edge=is_at_edge)
        )
    has_edge = any(point.is_at_edge for point in points)
    return ScatterInfo(axis, tuple(points), edge if has_edge else None, len(known) - len(shown), objective)


def draw_scatter(info: ScatterInfo) -> go.Figure:
    """One point a trial; colour and symbol say how stable it was."""
    figure = new_figure(x_title=plain(info.axis.name), y_title=plain(info.objective), height=320)
    add_marks(figure, info.points)
    _set_scatter_axis(figure, info.axis)
    if info.edge is not None:
        add_level(figure, info.edge, "failed or far above", shift=6)
        low = min(point.y for point in info.points)
        pad = 0.08 * ((info.edge - low) or 1.0)
        figure.update_yaxes(range=[low - pad, info.edge + 2.2 * pad])
    return figure


def _parallel_place(axis: Axis, trial: int) -> float | None:
    if trial not in axis.values:
        return None
    place = axis.place(axis.values[trial])
    return place + _jitter(trial) if axis.scale == "choice" else place


def _parallel_trace(
    lines: Sequence[ParallelLine], names: Sequence[str], colour: str, *, group: str, dash: str, width: float = 1.4
) -> go.Scatter:
    xs: list[int | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    for line in lines:
        xs += [*range(len(names)), None]
        ys += [*(rounded(_UNUSED_PLACE if place is None else place) for place in line.places), None]
        texts += [
            f"trial {line.trial}<br>{plain(name)}: {plain(text)}" for name, text in zip(names, line.texts, strict=True)
        ]
        texts.append("")
    return go.Scatter(
        x=xs,
        y=ys,
        text=texts,
        mode="lines+markers",
        line={"color": colour, "width": width, "dash": dash},
        marker={"color": colour, "size": 4 if width < 2 else 6},
        opacity=0.85 if len(lines) < 25 else 0.55,
        hovertemplate="%{text}<extra></extra>",
        legendgroup=group,
        showlegend=False,
    )


def _add_parallel_axis(figure: go.Figure, place: int, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    figure.add_shape(
        type="line", x0=place, x1=place, y0=-0.02, y1=1.02, line={"color": "var(--muted)", "width": 1}, layer="below"
    )
    head = {"font": {"size": 12, "color": "var(--ink)"}, "showarrow": False, "yanchor": "bottom"}
    figure.add_annotation(x=place, y=1.05, text=plain(_wrapped(name)).replace("\n", "<br>"), **head)
    label = {
        "font": {"size": 10.5, "color": "var(--ink)"},
        "showarrow": False,
        "xanchor": "left",
        "xshift": 3,
        "bgcolor": "var(--veil)",
    }
    for height, text in ticks:
        figure.add_annotation(x=place, y=height, text=plain(shortened(text, 14)), **label)


def _scatter_place(axis: Axis, trial: int) -> float:
    value = axis.values[trial]
    if axis.scale == "choice":
        return axis.choices.index(value) + 6 * _jitter(trial)
    return float(value)  # type: ignore[arg-type]


def _set_scatter_axis(figure: go.Figure, axis: Axis) -> None:
    if axis.scale == "choice":
        labels = [plain(shortened(show(choice), 16)) for choice in axis.choices]
        figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[-0.6, len(labels) - 0.4])
    elif axis.scale == "log":
        is_wide = axis.high / axis.low > 300
        figure.update_xaxes(type="log", tickformat="~g", exponentformat="power", dtick=1 if is_wide else "D2")


def _fence(good: Sequence[float]) -> tuple[float, float]:
    """Highest objective that is drawn where it lies, and the line on which those above it are drawn."""
    if not good:
        return -math.inf, 0.0
    fence = good[0] + (_FENCE + 1) * max(float(np.quantile(good, 0.75)) - good[0], 1e-9)
    highest = max(value for value in good if value <= fence)
    return fence, highest + 0.15 * max(highest - good[0], 0.1)


def _jitter(trial: int) -> float:
    """A small shift that depends on the trial only, so that equal values do not hide each other."""
    return _JITTER * (((trial * 0.618034) % 1) * 2 - 1)


def _wrapped(name: str) -> str:
    """A long name in two lines, broken at an underscore or slash near its middle."""
    name = shortened(name, 26)
    breaks = [place for place, letter in enumerate(name, start=1) if letter in "_/ -" and place < len(name)]
    if len(name) <= 11 or not breaks:
        return name
    middle = min(breaks, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:middle]}\n{name[middle:]}"
