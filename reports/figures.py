"""What all figures share: the empty figure, colours as variables, symbols, the entry of a legend.

Each figure is a pure function that gathers what is shown, and a function that draws it (`reports.curves`,
`reports.landscape`). Colours are written as CSS variables, `var(--ink)`; the page puts in the values of the light
or the dark palette when it draws, and those of the light one when it is printed. Legends are part of the page, not
of the figure: a trace names its entry in `legendgroup`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from reports.standings import Band

__all__ = [
    "SYMBOLS",
    "LegendEntry",
    "Mark",
    "add_level",
    "add_marks",
    "band_symbol",
    "new_figure",
    "plain",
    "rounded",
    "shortened",
]

# Name of the symbol in a figure, and the character that stands for it in text.
SYMBOLS = {
    Band.VERY_STABLE: ("circle", "\N{BLACK CIRCLE}"),
    Band.STABLE: ("circle-open", "\N{WHITE CIRCLE}"),
    Band.UNSTABLE: ("diamond", "\N{BLACK DIAMOND}"),
    Band.VERY_UNSTABLE: ("triangle-up", "\N{BLACK UP-POINTING TRIANGLE}"),
    Band.NOT_LEARNING: ("square-open", "\N{WHITE SQUARE}"),
    Band.NOT_ASSESSED: ("hexagon-open", "\N{WHITE HEXAGON}"),
    Band.PRUNED: ("line-ew-open", "\N{MINUS SIGN}"),
    Band.FAILED: ("x", "\N{HEAVY MULTIPLICATION X}"),
}


@dataclass(frozen=True)
class LegendEntry:
    """One entry of the legend that the page shows beside a figure.

    Attributes:
        group: `legendgroup` of the traces that it switches.
        colour: CSS variable.
        mark: A symbol that says the same as the colour.
    """

    group: str
    label: str
    colour: str
    mark: str = "\N{BLACK CIRCLE}"
    is_visible: bool = True


@dataclass(frozen=True)
class Mark:
    """One trial in a figure; its standing gives colour and symbol, `size` is the diameter in pixels."""

    trial: int
    standing: Band
    x: float
    y: float
    text: str
    size: int = 9


def band_symbol(standing: Band) -> str:
    """The character that marks a band in text."""
    return SYMBOLS[standing][1]


def new_figure(*, x_title: str, y_title: str, height: int) -> go.Figure:
    """An empty figure with axes in the colours of the page."""
    axis = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "var(--line)",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 12.5, "color": "var(--muted)"}},
    }
    layout = {
        "template": go.layout.Template(),
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--line)", "activecolor": "var(--accent)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
            "size": 12,
            "color": "var(--ink)",
        },
        "hoverlabel": {
            "bgcolor": "var(--paper)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
            "align": "left",
        },
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": axis,
        "yaxis": axis,
    }
    figure = go.Figure(layout=layout)
    figure.update_xaxes(title_text=x_title, showgrid=False)
    figure.update_yaxes(title_text=y_title)
    return figure


def add_marks(figure: go.Figure, marks: Sequence[Mark]) -> None:
    """Draw trials as points, those of one standing as one trace."""
    for standing in Band:
        shown = [mark for mark in marks if mark.standing is standing]
        if shown:
            figure.add_trace(
                go.Scatter(
                    x=[rounded(mark.x) for mark in shown],
                    y=[rounded(mark.y) for mark in shown],
                    text=[mark.text for mark in shown],
                    mode="markers",
                    marker={
                        "symbol": SYMBOLS[standing][0],
                        "size": [mark.size for mark in shown],
                        "color": f"var(--{standing.value})",
                        "line": {"width": 1.8, "color": f"var(--{standing.value})"},
                    },
                    hovertemplate="%{text}<extra></extra>",
                    legendgroup=standing.value,
                    showlegend=False,
                )
            )


def add_level(figure: go.Figure, value: float, text: str, *, shift: int = 0) -> None:
    """Draw a dashed horizontal line with its name at the right."""
    is_log = figure.layout.yaxis.type == "log"
    figure.add_hline(y=value, line={"color": "var(--muted)", "width": 1, "dash": "dash"})
    style = {
        "showarrow": False,
        "xref": "paper",
        "xanchor": "right",
        "yanchor": "bottom",
        "yshift": shift,
        "font": {"size": 10.5, "color": "var(--muted)"},
    }
    figure.add_annotation(x=1, y=math.log10(value) if is_log else value, text=text, **style)


def rounded(value: float) -> float:
    """Five significant digits: enough for a figure, and a third of the bytes."""
    return float(f"{value:.5g}")


def plain(text: str) -> str:
    """Text in which plotly finds no markup of its own."""
    return html.escape(text, quote=False)


def shortened(text: str, most: int) -> str:
    """At most so many letters, the last of them an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
