"""The curve of one training with the findings marked on it: as a figure of a page, or as PNG.

A pure function gathers what is shown; two others draw it, with plotly for the page and with Matplotlib for the PNG.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from reports.curves import kept_steps, loss_limits, set_loss_axis, thinned_median
from reports.figures import new_figure, plain, rounded, shortened
from tuner.errors import package_faults
from tuner.records import Finding, FloatArray
from tuner.stability.logs import ForeignLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Line", "Mark", "PictureInfo", "draw_pages", "draw_png", "picture_info"]

# Marks nearer than this share of the width are one. Source: legibility, looked at.
NEAR_FRAC = 0.02
# Width of a letter of a label as a share of the width of the picture. Source: legibility, looked at.
LETTER_FRAC = 0.0082
# Rows of labels above the curves; what has no room in them goes into the last. Source: legibility.
MAX_LABEL_ROWS = 6

# Letters of a label; the tables name all findings. Source: legibility.
MAX_LABEL_LETTERS = 60
# Steps after the start of a spike among which its mark stands at the highest. Source: as in the detectors.
PEAK_STEPS = 5

# Findings that speak of the validation loss are marked on it.
_OF_VALIDATION = ("over_fitting", "validation")

# The light palette of the page (templates/report.css), for the PNG.
_TRAIN, _VALIDATION, _WARN, _INK, _MUTED, _GRID = "#0b6b6b", "#2f63b3", "#b13c0a", "#1d2125", "#5b636d", "#e7e7e1"
_INCHES, _DOTS_PER_INCH = (10.0, 4.6), 120


@dataclass(frozen=True)
class Line:
    """One curve: name, places in epochs, losses."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Mark:
    """One place where something was found.

    Attributes:
        names: Of the findings there.
        x, y: Place in epochs, and the loss there.
        row: Row of the label above the curves, from 0 at the bottom.
        is_left: Whether the label lies left of its place.
    """

    names: tuple[str, ...]
    x: float
    y: float
    row: int
    is_left: bool

    @property
    def label(self) -> str:
        """The names of the findings."""
        return " + ".join(self.names)


@dataclass(frozen=True)
class PictureInfo:
    """What the picture of one training shows.

    Attributes:
        lines: Training and validation loss by epoch.
        steps, median: Loss of the single steps and its running median, if there are any.
        marks: From left to right.
        elsewhere: Names of findings that have no place on the curve.
        broken_at: Epoch from which on the loss is not finite, or None.
        low, high: Limits of the loss axis.
        end: Right end of the epoch axis.
    """

    title: str
    lines: tuple[Line, ...]
    steps: Line | None
    median: Line | None
    marks: tuple[Mark, ...]
    elsewhere: tuple[str, ...]
    broken_at: float | None
    is_log: bool
    low: float
    high: float
    end: float
    is_fault: bool = False

    @property
    def num_label_rows(self) -> int:
        """Rows that the labels need."""
        return max((mark.row + 1 for mark in self.marks), default=0)


def picture_info(
    log: ForeignLog, findings: Sequence[Finding], *, title: str, is_fault: bool = False
) -> PictureInfo | None:
    """Gather the picture of a training; None if no loss of it is finite.

    Args:
        log: The training.
        findings: What was found in it.
        title: Shown above.
        is_fault: Whether the training counts as unstable.
    """
    trace, per_epoch = log.trace, max(1, log.trace.steps_per_epoch)
    train = _line("training loss", trace.train_loss - log.offset, per_epoch=1)
    validation = _line("validation loss", trace.validation_loss - log.offset, per_epoch=1)
    steps = _line("batch loss", trace.step_loss - log.offset, per_epoch=per_epoch)
    lines = tuple(line for line in (train, validation) if line is not None)
    losses = [loss for line in (*lines, steps) if line is not None for loss in line.y]
    if not losses:
        return None
    is_log = min(losses) > 0
    low, high = loss_limits(losses, 0.0, is_log=is_log)
    end = max(float(trace.num_epochs), len(trace.step_loss) / per_epoch, 1.0)
    marks, elsewhere = _marks(findings, log, end)
    return PictureInfo(
        title=title,
        lines=lines,
        steps=steps,
        median=_median(trace.step_loss - log.offset, per_epoch) if steps else None,
        marks=marks,
        elsewhere=elsewhere,
        broken_at=_broken_at(trace.step_loss, per_epoch) or _broken_at(trace.train_loss, 1),
        is_log=is_log,
        low=low,
        high=high,
        end=end,
        is_fault=is_fault,
    )


# --- What is shown


def _line(name: str, losses: FloatArray, *, per_epoch: int) -> Line | None:
    """The finite losses, thinned so that lows and peaks stay; None if there are none."""
    kept = kept_steps(losses)
    if not len(kept):
        return None
    return Line(
        name,
        tuple(rounded((int(place) + 1) / per_epoch) for place in kept),
        tuple(rounded(float(losses[place])) for place in kept),
    )


def _median(losses: FloatArray, per_epoch: int) -> Line | None:
    window = int(np.clip(per_epoch // 10, 9, 50))
    places, medians = thinned_median(losses, window)
    return Line("running median", tuple(rounded(place / per_epoch) for place in places), medians) if places else None


def _broken_at(losses: FloatArray, per_epoch: int) -> float | None:
    bad = np.flatnonzero(~np.isfinite(losses))
    return (int(bad[0]) + 1) / per_epoch if bad.size else None


def _marks(findings: Iterable[Finding], log: ForeignLog, end: float) -> tuple[tuple[Mark, ...], tuple[str, ...]]:
    """Findings at their places, those that are near each other together; and those without a place."""
    placed: dict[tuple[float, float], list[str]] = {}
    elsewhere: list[str] = []
    for finding in findings:
        name = finding.code.replace("_", " ")
        place = _place(finding, log)
        if place is None:
            elsewhere.append(name)
            continue
        near = next((other for other in placed if abs(other[0] - place[0]) <= NEAR_FRAC * end), place)
        placed.setdefault(near, []).append(name)
    marks = [Mark(tuple(dict.fromkeys(names)), *place, 0, place[0] > 0.6 * end) for place, names in placed.items()]
    return _in_rows(marks, end), tuple(dict.fromkeys(elsewhere))


def _in_rows(marks: Sequence[Mark], end: float) -> tuple[Mark, ...]:
    """Give each label a row in which it covers no other label, nor the line that leads down from one."""
    done: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.is_left, mark.x if mark.is_left else -mark.x)):
        left, right = _label_limits(mark, end)
        taken = [0]
        for other in done:
            other_left, other_right = _label_limits(other, end)
            if (other_left < right and left < other_right) or left <= other.x <= right:
                taken.append(other.row + 1)
        done.append(dataclasses.replace(mark, row=min(max(taken), MAX_LABEL_ROWS - 1)))
    return tuple(sorted(done, key=lambda mark: mark.x))


def _label_limits(mark: Mark, end: float) -> tuple[float, float]:
    """Where a label begins and ends, in epochs."""
    width = LETTER_FRAC * end * (min(len(mark.label), MAX_LABEL_LETTERS) + 3)
    return (mark.x - width, mark.x) if mark.is_left else (mark.x, mark.x + width)


def _place(finding: Finding, log: ForeignLog) -> tuple[float, float] | None:
    """Epoch and loss where a finding is, as its text says."""
    trace, found = log.trace, re.search(r"epochs? (\d+)(?:, steps? (\d+))?", finding.where)
    if found is None:
        return None
    epoch, step = int(found[1]), int(found[2] or 0)
    if step and trace.step_loss.size:
        number = (epoch - 1) * max(1, trace.steps_per_epoch) + step
        return _point(trace.step_loss - log.offset, number, scale=max(1, trace.steps_per_epoch))
    is_of_validation = finding.code.startswith(_OF_VALIDATION) and trace.validation_loss.size
    return _point((trace.validation_loss if is_of_validation else trace.train_loss) - log.offset, epoch, scale=1)


def _point(losses: FloatArray, number: int, *, scale: int) -> tuple[float, float] | None:
    """The place of the n-th loss (from 1), at the last finite loss up to there; of steps, at the peak that follows."""
    number = min(number, len(losses))
    finite = np.flatnonzero(np.isfinite(losses[:number]))
    if not finite.size:
        return None
    after = losses[finite[-1] : number + (PEAK_STEPS if scale > 1 else 0)]
    return rounded(number / scale), rounded(float(np.nanmax(np.where(np.isfinite(after), after, np.nan))))


# --- For a page


def draw_pages(infos: Sequence[PictureInfo | None]) -> list[go.Figure | None]:
    """One figure for each training that has a picture."""
    return [None if info is None else _draw_page(info) for info in infos]


def _draw_page(info: PictureInfo) -> go.Figure:
    figure = new_figure(x_title="epoch", y_title="loss", height=430 + 20 * info.num_label_rows)
    figure.update_layout(margin={"t": 40 + 20 * info.num_label_rows})
    for line, colour, width, opacity in _styled(info):
        variable = {_TRAIN: "var(--best-1)", _VALIDATION: "var(--best-2)"}[colour]
        figure.add_trace(
            go.Scatter(
                x=list(line.x),
                y=list(line.y),
                mode="lines+markers" if len(line.x) <= 30 else "lines",
                line={"color": variable, "width": width, "dash": "dash" if colour == _VALIDATION else "solid"},
                marker={"size": 5, "color": variable},
                opacity=opacity,
                showlegend=False,
                hovertemplate=f"{line.name} %{{y:.3~g}}, epoch %{{x:.4~g}}<extra></extra>",
            )
        )
    for mark in info.marks:
        _mark_page(figure, mark, is_log=info.is_log)
    if info.broken_at is not None:
        figure.add_vline(x=info.broken_at, line={"color": "var(--warn)", "width": 1.5, "dash": "dash"})
        _label_page(figure, "loss not finite from here", info.broken_at, y=0.02, is_left=info.broken_at > info.end / 2)
    start, end = _epoch_limits(info)
    figure.update_xaxes(range=[start, end], tickformat="~g", dtick=1 if info.end <= 12 else None)
    set_loss_axis(figure, low=info.low, high=info.high, is_log=info.is_log)
    return figure


def _mark_page(figure: go.Figure, mark: Mark, *, is_log: bool) -> None:
    level = 1.02 + 0.052 * mark.row
    shape = {"color": "var(--warn)", "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=mark.x, x1=mark.x, y0=0, y1=level, yref="paper", line=shape, opacity=0.6)
    _label_page(figure, mark.label, mark.x, y=level, is_left=mark.is_left)
    figure.add_trace(
        go.Scatter(
            x=[mark.x],
            y=[mark.y],
            mode="markers",
            marker={
                "symbol": "diamond",
                "size": 11,
                "color": "var(--warn)",
                "line": {"color": "var(--paper)", "width": 1},
            },
            showlegend=False,
            hovertemplate=f"{plain(mark.label)}<br>loss %{{y:.3~g}}, epoch %{{x:.4~g}}<extra></extra>",
        )
    )


def _label_page(figure: go.Figure, text: str, x: float, *, y: float, is_left: bool) -> None:
    figure.add_annotation(
        x=x,
        y=y,
        yref="paper",
        yanchor="bottom",
        text=plain(shortened(text, MAX_LABEL_LETTERS)),
        showarrow=False,
        xanchor="right" if is_left else "left",
        xshift=-3 if is_left else 3,
        yshift=-7,
        font={"size": 12, "color": "var(--warn)"},
    )


# --- As PNG


def draw_png(infos: Sequence[PictureInfo | None]) -> bytes:
    """The pictures below each other.

    Raises:
        EnvironmentFault: Matplotlib is missing.
    """
    with package_faults():
        from matplotlib.figure import Figure
    shown = [info for info in infos if info is not None]
    heights = [_INCHES[1] + 0.2 * info.num_label_rows for info in shown] or [1.0]
    figure = Figure(figsize=(_INCHES[0], sum(heights)), dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
    if shown:
        rows = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for info, axes in zip(shown, rows[:, 0], strict=True):
            _draw_axes(info, axes)
    else:
        figure.text(0.5, 0.5, "No loss of this log is a finite number.", ha="center", va="center", color=_INK)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font does not have, in names of files; they are drawn as boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH)
    return stream.getvalue()


def _draw_axes(info: PictureInfo, axes: Axes) -> None:
    for line, colour, width, opacity in _styled(info):
        style = "--" if colour == _VALIDATION else "-"
        point = "o" if len(line.x) <= 30 else ""
        axes.plot(line.x, line.y, style, color=colour, lw=width, alpha=opacity, marker=point, ms=3.5, label=line.name)
    for mark in info.marks:
        level = 1.02 + 0.052 * mark.row
        axes.plot([mark.x] * 2, [0, level], ":", color=_WARN, lw=1, transform=axes.get_xaxis_transform(), clip_on=False)
        axes.plot([mark.x], [mark.y], "D", color=_WARN, ms=8, mec="white", mew=1, zorder=5)
        _label_axes(axes, mark.label, mark.x, y=level, is_left=mark.is_left)
    if info.broken_at is not None:
        axes.axvline(info.broken_at, color=_WARN, lw=1.3, ls="--")
        _label_axes(axes, "loss not finite from here", info.broken_at, y=0.05, is_left=info.broken_at > info.end / 2)
    axes.set_xlim(*_epoch_limits(info))
    axes.set_ylim(info.low, info.high)
    axes.set_xlabel("epoch", color=_MUTED)
    axes.set_ylabel("loss", color=_MUTED)
    _finish_axes(info, axes)


def _finish_axes(info: PictureInfo, axes: Axes) -> None:
    """Scale, ticks, legend, title."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    if info.is_log:
        axes.set_yscale("log")
        decades = math.log10(info.high / info.low)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(LogLocator(subs="all"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.grid(axis="y", color=_GRID)
    axes.tick_params(colors=_MUTED, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=9, loc="best")
    title = "\n".join(textwrap.wrap(_drawable(info.title), 112)[:3])
    pad = 8 + 13.5 * info.num_label_rows
    axes.set_title(title, loc="left", fontsize=10, color=_INK, pad=pad, parse_math=False)
    if info.elsewhere:
        text = f"Not at one place: {', '.join(info.elsewhere)}"
        axes.text(
            1, -0.14, shortened(text, 110), transform=axes.transAxes, ha="right", va="top", color=_WARN, fontsize=9
        )


def _label_axes(axes: Axes, text: str, x: float, *, y: float, is_left: bool) -> None:
    annotation = axes.annotate(
        shortened(text, MAX_LABEL_LETTERS),
        (x, y),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-4 if is_left else 4, -2),
        textcoords="offset points",
        ha="right" if is_left else "left",
        va="bottom",
        fontsize=9,
        color=_WARN,
        annotation_clip=False,
        parse_math=False,
    )
    # It stands in the room that the title leaves; taken into the layout, it would narrow the axes.
    annotation.set_in_layout(False)


def _drawable(text: str) -> str:
    """Text without what no font and no encoding has."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# --- Both


def _styled(info: PictureInfo) -> list[tuple[Line, str, float, float]]:
    """Each curve with colour, width and opacity, in the order they are drawn."""
    curves = [(info.steps, _TRAIN, 0.8, 0.3), (info.median, _TRAIN, 1.4, 0.65)]
    curves += [(line, _VALIDATION if line.name.startswith("validation") else _TRAIN, 2.2, 1.0) for line in info.lines]
    return [(line, colour, width, opacity) for line, colour, width, opacity in curves if line is not None]


def _epoch_limits(info: PictureInfo) -> tuple[float, float]:
    pad = 0.02 * info.end
    return (0.0 if info.steps else 1.0) - max(pad, 0.1), info.end + max(pad, 0.1)
