"""Figures of the loss: by epoch for the best and the unstable trials, by step for the two that are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from reports.figures import SYMBOLS, LegendEntry, add_level, new_figure, plain, rounded
from reports.formats import fixed
from reports.standings import Band, band, shown_run
from tuner.records import FloatArray, Outcome, Trace, TrialRecord

__all__ = [
    "Curve",
    "LossCurvesInfo",
    "StepLimits",
    "StepLossInfo",
    "choose_trials",
    "draw_loss_curves",
    "draw_step_loss",
    "has_curves",
    "kept_steps",
    "loss_curves_info",
    "loss_limits",
    "set_loss_axis",
    "step_limits",
    "step_loss_info",
    "thinned_median",
]

# How many trials the loss curves offer, and how many of each are shown at first. Source: legibility, looked at.
NUM_BEST, NUM_UNSTABLE, NUM_FAILED = 5, 5, 3
NUM_BEST_VISIBLE = 3

# Losses above this multiple of the chance level are off the figure until one zooms out. Source: convention.
TOP_OVER_CHANCE = 30.0

# Points drawn of a step-level trace; spikes survive: lowest and highest step of each slot are kept. Source: page size.
MAX_STEP_POINTS = 1600
MAX_MEDIAN_POINTS = 600

# Window of the running median in steps: a tenth of an epoch within these limits. Source: as in the stability score.
_MEDIAN_WINDOW = (9, 50)

_DASHES = ("solid", "dash", "dot", "dashdot")
_NUM_BEST_COLOURS, _NUM_UNSTABLE_COLOURS = 5, 4

Series = tuple[float | None, ...]


# --- Loss by epoch


@dataclass(frozen=True)
class Curve:
    """Losses of one trial by epoch; None where they are not finite."""

    trial: int
    rank: int
    standing: Band
    stability: float | None
    train: Series
    validation: Series
    ended: str
    is_visible: bool


@dataclass(frozen=True)
class LossCurvesInfo:
    """What the loss curves show.

    Attributes:
        chance_loss: Level of the dashed line, or None if it is not on the axis.
        is_log: Whether all losses are positive.
        low, high: Limits of the loss axis at first.
        num_left_out: Trials with curves, not stable, that are not offered.
    """

    curves: tuple[Curve, ...]
    chance_loss: float | None
    is_log: bool
    low: float
    high: float
    num_left_out: int

    @property
    def legend(self) -> tuple[LegendEntry, ...]:
        """One entry a trial."""
        return tuple(
            LegendEntry(
                f"trial-{curve.trial}", _curve_label(curve), colour, SYMBOLS[curve.standing][1], curve.is_visible
            )
            for curve, (colour, _) in zip(self.curves, _curve_styles(self.curves), strict=True)
        )


def choose_trials(ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials whose curves are worth a look: the best few, the least stable, some that failed on the way."""
    trained = [trial for trial in ranked if has_curves(trial)]
    best = [trial for trial in trained if band(trial) not in (Band.PRUNED, Band.FAILED)][:NUM_BEST]
    unstable = [trial for trial in trained if trial not in best and band(trial).is_warning]
    failed = [trial for trial in trained if band(trial) is Band.FAILED]
    return best + sorted(unstable, key=lambda trial: trial.stability or 0.0)[:NUM_UNSTABLE] + failed[:NUM_FAILED]


def has_curves(trial: TrialRecord) -> bool:
    """Whether a training of it got as far as to leave losses."""
    run = shown_run(trial)
    return run is not None and run.epochs > 0


def loss_curves_info(ranked: Sequence[TrialRecord], traces: Mapping[int, Trace]) -> LossCurvesInfo | None:
    """Gather the loss curves; None if no trace has a finished epoch.

    Args:
        ranked: All finished trials, best first.
        traces: By trial number; those of `choose_trials` that could be read.
    """
    places = {trial.number: place for place, trial in enumerate(ranked, start=1)}
    chosen = [trial for trial in choose_trials(ranked) if trial.number in traces and traces[trial.number].num_epochs]
    curves: list[Curve] = []
    for trial in chosen:
        is_visible = _is_visible(trial, curves)
        curves.append(_curve(trial, places[trial.number], traces[trial.number], is_visible=is_visible))
    losses = [loss for curve in curves for loss in (*curve.train, *curve.validation) if loss is not None]
    if not losses:
        return None
    chance = traces[chosen[0].number].chance_loss
    is_log = min(losses) > 0
    low, high = loss_limits(losses, chance, is_log=is_log)
    return LossCurvesInfo(
        curves=tuple(curves),
        chance_loss=chance if low < chance < high else None,
        is_log=is_log,
        low=low,
        high=high,
        num_left_out=sum(
            has_curves(trial) and not _is_fine(trial) for trial in ranked if trial not in choose_trials(ranked)
        ),
    )


def draw_loss_curves(info: LossCurvesInfo) -> go.Figure:
    """Validation loss solid, training loss dotted, a trial a colour; unstable ones with marks."""
    figure = new_figure(x_title="epoch", y_title="loss", height=440)
    for curve, (colour, dash) in zip(info.curves, _curve_styles(info.curves), strict=True):
        for trace in _curve_traces(curve, colour, dash):
            figure.add_trace(trace)
    most = max(max(len(curve.train), len(curve.validation)) for curve in info.curves)
    figure.update_xaxes(range=[0.6, most + 0.4], dtick=1 if most <= 12 else None, tickformat="d")
    set_loss_axis(figure, low=info.low, high=info.high, is_log=info.is_log)
    if info.chance_loss is not None:
        add_level(figure, info.chance_loss, "chance level")
    return figure


def _is_fine(trial: TrialRecord) -> bool:
    return band(trial).is_stable or band(trial) is Band.NOT_ASSESSED


def _is_visible(trial: TrialRecord, before: Sequence[Curve]) -> bool:
    """At first: the best few, the least stable one, the first that failed."""
    alike = [curve for curve in before if (curve.standing.is_warning, curve.standing is Band.FAILED) == _sort(trial)]
    return len(alike) < (NUM_BEST_VISIBLE if _is_fine(trial) else 1)


def _sort(trial: TrialRecord) -> tuple[bool, bool]:
    return band(trial).is_warning, band(trial) is Band.FAILED


def _curve(trial: TrialRecord, rank: int, trace: Trace, *, is_visible: bool) -> Curve:
    run = shown_run(trial)
    outcome = trial.outcome if run is None else run.outcome
    return Curve(
        trial=trial.number,
        rank=rank,
        standing=band(trial),
        stability=trial.stability,
        train=_finite(trace.train_loss),
        validation=_finite(trace.validation_loss),
        ended=_ended(trace, outcome),
        is_visible=is_visible,
    )


def _ended(trace: Trace, outcome: Outcome) -> str:
    if outcome is Outcome.DIVERGED or not np.all(np.isfinite(trace.train_loss)):
        return "loss not finite from here"
    return "training ended with an error here" if outcome.is_failed else ""


def _curve_label(curve: Curve) -> str:
    if curve.standing is Band.FAILED:
        return f"trial {curve.trial} \N{MIDDLE DOT} failed"
    stability = "" if curve.standing is Band.NOT_ASSESSED else f" {fixed(curve.stability)}"
    return f"trial {curve.trial} \N{MIDDLE DOT} {curve.standing.label}{stability}"


def _curve_styles(curves: Sequence[Curve]) -> Iterator[tuple[str, str]]:
    """Colour and dash of the validation curve: best ones calm, unstable ones warm and dashed after the first."""
    num_fine = num_unstable = 0
    for curve in curves:
        if curve.standing.is_stable or curve.standing is Band.NOT_ASSESSED:
            yield f"var(--best-{num_fine % _NUM_BEST_COLOURS + 1})", "solid"
            num_fine += 1
        else:
            dash = _DASHES[num_unstable // _NUM_UNSTABLE_COLOURS % len(_DASHES)]
            yield f"var(--unstable-{num_unstable % _NUM_UNSTABLE_COLOURS + 1})", dash
            num_unstable += 1


def _curve_traces(curve: Curve, colour: str, dash: str) -> Iterator[go.Scatter]:
    group, label = f"trial-{curve.trial}", plain(_curve_label(curve))
    mark = SYMBOLS[curve.standing][0]
    shared = {"legendgroup": group, "visible": curve.is_visible, "showlegend": False}
    has_validation = any(loss is not None for loss in curve.validation)
    for name, losses, is_main in (("train", curve.train, not has_validation), ("validation", curve.validation, True)):
        if not any(loss is not None for loss in losses):
            continue
        is_marked = is_main and not (curve.standing.is_stable and len(losses) > 12)
        yield go.Scatter(
            x=list(range(1, len(losses) + 1)),
            y=list(losses),
            mode="lines+markers" if is_marked or len(losses) == 1 else "lines",
            line={"color": colour, "width": 2.2 if is_main else 1.3, "dash": dash if is_main else "dot"},
            marker={"symbol": mark, "size": 6, "color": colour},
            hovertemplate=f"{label}<br>{name} loss %{{y:.3~g}}, epoch %{{x}}<extra></extra>",
            **shared,
        )
    last = _last_finite(curve.train)
    if curve.ended and last is not None:
        yield go.Scatter(
            x=[last[0] + 1],
            y=[last[1]],
            mode="markers",
            marker={"symbol": "x", "size": 11, "color": colour},
            hovertemplate=f"{label}<br>{curve.ended}<extra></extra>",
            **shared,
        )


# --- Loss by step


@dataclass(frozen=True)
class StepLossInfo:
    """What the step-level loss of one training shows.

    Attributes:
        steps, losses: At most a fixed number of points; lowest and highest of each slot.
        median_steps, medians: The running median.
        window: Of the running median, in steps.
        failed_at: First step whose loss is not finite, or None.
    """

    trial: int
    standing: Band
    stability: float | None
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    median_steps: tuple[int, ...]
    medians: tuple[float, ...]
    window: int
    failed_at: int | None
    num_steps: int
    steps_per_epoch: int
    planned_epochs: int
    chance_loss: float


def step_loss_info(trial: TrialRecord, trace: Trace) -> StepLossInfo | None:
    """Gather the step-level loss; None if no step of it is finite."""
    is_finite = np.isfinite(trace.step_loss)
    if not is_finite.any():
        return None
    window = int(np.clip(trace.steps_per_epoch // 10, *_MEDIAN_WINDOW))
    steps = kept_steps(trace.step_loss)
    median_steps, medians = thinned_median(trace.step_loss, window)
    return StepLossInfo(
        trial=trial.number,
        standing=band(trial),
        stability=trial.stability,
        steps=tuple(int(step) for step in steps + 1),
        losses=tuple(rounded(float(trace.step_loss[step])) for step in steps),
        median_steps=median_steps,
        medians=medians,
        window=window,
        failed_at=None if is_finite.all() else int(np.argmin(is_finite)) + 1,
        num_steps=len(trace.step_loss),
        steps_per_epoch=max(1, trace.steps_per_epoch),
        planned_epochs=trace.planned_epochs,
        chance_loss=trace.chance_loss,
    )


def draw_step_loss(info: StepLossInfo, limits: StepLimits) -> go.Figure:
    """Raw loss of each step faint, its running median strong; over epochs, so that batch sizes compare.

    Args:
        info: What is shown.
        limits: `step_limits` of the figures that are compared.
    """
    colour = "var(--accent)" if info.standing.is_stable else "var(--warn)"
    figure = new_figure(x_title="epoch", y_title="batch loss", height=340)
    for name, steps, losses, width, opacity in (
        ("batch loss", info.steps, info.losses, 1.0, 0.35),
        ("running median", info.median_steps, info.medians, 2.4, 1.0),
    ):
        figure.add_trace(
            go.Scatter(
                x=[rounded(step / info.steps_per_epoch) for step in steps],
                y=list(losses),
                text=[str(step) for step in steps],
                mode="lines" if len(steps) > 1 else "markers",
                line={"color": colour, "width": width},
                marker={"color": colour},
                opacity=opacity,
                showlegend=False,
                hovertemplate=f"{name} %{{y:.3~g}}, step %{{text}}<extra></extra>",
            )
        )
    figure.update_xaxes(range=[0, limits.num_epochs])
    set_loss_axis(figure, low=limits.low, high=limits.high, is_log=limits.is_log)
    if limits.low < info.chance_loss < limits.high:
        add_level(figure, info.chance_loss, "chance level")
    if info.failed_at is not None:
        place = info.failed_at / info.steps_per_epoch
        figure.add_vline(x=place, line={"color": "var(--warn)", "width": 1.5, "dash": "dash"})
        text = f"not finite from step {info.failed_at}"
        left = place > limits.num_epochs / 2
        anchor = {"xanchor": "right" if left else "left", "yanchor": "top", "xshift": -6 if left else 6}
        figure.add_annotation(
            x=place, y=1, yref="paper", text=text, font={"color": "var(--warn)"}, showarrow=False, **anchor
        )
    return figure


@dataclass(frozen=True)
class StepLimits:
    """Limits of the axes, the same for all figures that are compared."""

    low: float
    high: float
    is_log: bool
    num_epochs: float


def step_limits(infos: Sequence[StepLossInfo]) -> StepLimits:
    """Limits that suit all of these; at least one."""
    losses = [loss for info in infos for loss in info.losses]
    is_log = min(losses) > 0
    low, high = loss_limits(losses, infos[0].chance_loss, is_log=is_log)
    most = max(max(info.planned_epochs, info.num_steps / info.steps_per_epoch) for info in infos)
    return StepLimits(low, high, is_log, num_epochs=most)


def kept_steps(losses: FloatArray) -> np.ndarray:
    """Indices of the finite steps that are drawn: all, or lowest and highest of each slot."""
    finite = np.flatnonzero(np.isfinite(losses))
    if len(finite) <= MAX_STEP_POINTS:
        return finite
    slots = np.array_split(finite, MAX_STEP_POINTS // 2)
    return np.unique([slot[pick(losses[slot])] for slot in slots for pick in (np.argmin, np.argmax)])


def thinned_median(losses: FloatArray, window: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Trailing median at evenly spaced steps, of the finite losses before the first that is not."""
    num_good = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    if num_good < window:
        return (), ()
    ends = np.unique(np.linspace(window, num_good, min(MAX_MEDIAN_POINTS, num_good - window + 1)).astype(int))
    medians = [rounded(float(np.median(losses[end - window : end]))) for end in ends]
    return tuple(int(end) for end in ends), tuple(medians)


# --- Both


def set_loss_axis(figure: go.Figure, *, low: float, high: float, is_log: bool) -> None:
    """Limits and ticks of a loss axis."""
    if not is_log:
        figure.update_yaxes(range=[low, high])
        return
    decades = math.log10(high / low)
    step = 1 if decades > 2.5 else "D2" if decades > 0.8 else "D1"
    figure.update_yaxes(type="log", range=[math.log10(low), math.log10(high)], tickformat="~g", dtick=step)


def loss_limits(losses: Sequence[float], chance: float, *, is_log: bool) -> tuple[float, float]:
    """Limits of a loss axis, not far above the chance level; with 0 for it, all losses are inside."""
    low, high = min(losses), max(losses)
    if chance > 0:
        high = max(min(high, TOP_OVER_CHANCE * chance), low)
    if is_log:
        return low / 1.15, high * 1.15 if high > low else low * 1.15
    pad = 0.05 * ((high - low) or 1.0)
    return low - pad, high + pad


def _finite(losses: FloatArray) -> Series:
    return tuple(rounded(float(loss)) if math.isfinite(loss) else None for loss in losses)


def _last_finite(losses: Series) -> tuple[int, float] | None:
    """Epoch (from 1) and loss of the last finite epoch."""
    return next(((epoch + 1, loss) for epoch, loss in reversed(list(enumerate(losses))) if loss is not None), None)
