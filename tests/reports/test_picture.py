"""The picture of a curve: what is on it, and that it can be drawn whatever the training was like."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.picture import PictureInfo, draw_pages, draw_png, picture_info
from tests.stability.traces import decay, noisy, spiked, trace
from tuner.errors import EnvironmentFault
from tuner.records import Finding, Trace
from tuner.stability.logs import ForeignLog


def log(of: Trace, **fields: Any) -> ForeignLog:
    return ForeignLog("training", of, **fields)


def epochs_only(losses: list[float], validation: list[float] | None = None) -> Trace:
    """A trace as a foreign log gives it."""
    steps = trace(decay(100), steps=100)
    return replace(
        steps,
        step_loss=np.empty(0),
        grad_norm=np.empty(0),
        train_loss=np.array(losses),
        validation_loss=np.array(validation or []),
        steps_per_epoch=1,
    )


def finding(code: str, where: str) -> Finding:
    return Finding(code, where, severity=0.7, confidence=0.8, evidence={}, cause="")


def info(of: ForeignLog, *findings: Finding) -> PictureInfo:
    found = picture_info(of, findings, title="title")
    assert found is not None
    return found


def size(picture: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image.size


def test_curves_by_epoch() -> None:
    shown = info(log(epochs_only([3.0, 2.0, 1.0], [3.1, 2.1, 1.1])))
    assert [(line.name, line.x, line.y) for line in shown.lines] == [
        ("training loss", (1.0, 2.0, 3.0), (3.0, 2.0, 1.0)),
        ("validation loss", (1.0, 2.0, 3.0), (3.1, 2.1, 1.1)),
    ]
    assert (shown.steps, shown.median, shown.broken_at, shown.is_log) == (None, None, None, True)


def test_steps_with_their_median_keep_the_peak() -> None:
    losses = decay()
    losses[777] = 50.0
    shown = info(log(trace(losses)))
    assert shown.steps is not None
    assert max(shown.steps.y) == 50.0
    assert len(shown.steps.x) <= 1600
    assert shown.median is not None
    assert max(shown.median.y) < 3


def test_lifted_losses_are_shown_as_they_were() -> None:
    shown = info(log(epochs_only([6.0, 5.0, 4.0]), offset=5.0))
    assert shown.lines[0].y == (1.0, 0.0, -1.0)
    assert not shown.is_log


def test_findings_are_marked_where_they_are() -> None:
    losses = spiked(decay(), 500)
    findings = [
        finding("loss_spike", "epoch 6, step 1"),
        finding("gradient_spike", "epoch 6, step 2"),
        finding("over_fitting", "epoch 12"),
        finding("not_learning", ""),
    ]
    shown = info(log(trace(losses)), *findings)
    first, second = shown.marks
    assert first.names == ("loss spike", "gradient spike")
    assert first.x == pytest.approx(5.01)
    assert first.y == pytest.approx(losses[500:506].max(), rel=1e-3)
    assert second.label == "over fitting"
    assert second.y == pytest.approx(trace(losses).validation_loss[11], rel=1e-3)
    assert shown.elsewhere == ("not learning",)


def test_labels_do_not_lie_on_each_other() -> None:
    marks = info(log(trace(decay())), *(finding("a_rather_long_name", f"epoch {epoch}") for epoch in range(3, 9))).marks
    assert [mark.row for mark in marks[-3:]] == [2, 1, 0]
    apart = info(log(trace(decay())), finding("spike", "epoch 2"), finding("spike", "epoch 10")).marks
    assert [mark.row for mark in apart] == [0, 0]


def test_a_place_beyond_the_end_or_before_a_number_is_none() -> None:
    shown = info(log(epochs_only([3.0, 2.0])), finding("x", "epoch 7"), finding("y", "conv2d_1"))
    assert [mark.names for mark in shown.marks] == [("x",)]
    assert shown.elsewhere == ("y",)
    broken = info(log(epochs_only([np.nan, 2.0])), finding("x", "epoch 1"))
    assert (broken.marks, broken.elsewhere, broken.broken_at) == ((), ("x",), 1.0)


@pytest.mark.parametrize("losses", [[np.nan, np.nan], [np.inf], []])
def test_no_finite_loss_no_picture(losses: list[float]) -> None:
    of = log(epochs_only(losses))
    assert picture_info(of, (), title="") is None
    assert draw_pages([None]) == [None]
    assert size(draw_png([None])) == (1200, 120)


@pytest.mark.parametrize(
    "of",
    [
        epochs_only([1.0]),
        epochs_only([0.0, 0.0, 0.0]),
        epochs_only([-3.0, 2.0, np.nan, 1.0], [np.inf, 1.0, 1.0, 1.0]),
        epochs_only([1e-30, 1e90, 1.0]),
        epochs_only([2.0] * 5000),
        trace(noisy(decay(), 0.5, 1)),
        trace(np.r_[decay()[:900], np.full(1100, np.nan)]),
        trace(decay(30), steps=100),
    ],
)
def test_whatever_the_training_was_like_it_can_be_drawn(of: Trace) -> None:
    findings = [finding(f"finding_{number}", f"epoch {number}") for number in range(1, 9)]
    shown = picture_info(log(of), findings, title="a title of $many$ words " * 20)
    assert size(draw_png([shown]))[0] == 1200
    (figure,) = draw_pages([shown])
    assert figure is not None
    assert len(figure.data) >= 1


def test_names_that_no_font_has(recwarn: pytest.WarningsRecorder) -> None:
    shown = info(log(epochs_only([2.0, 1.0])), finding("<b>$\\frac$</b>", "epoch 1"))
    draw_png([replace(shown, title="\udcff 漢字 $x_1$\n\x00")])
    (figure,) = draw_pages([shown])
    assert figure is not None
    assert "&lt;b&gt;" in figure.layout.annotations[0].text
    assert not recwarn.list


def test_several_trainings_below_each_other() -> None:
    shown = info(log(epochs_only([2.0, 1.0])))
    assert size(draw_png([shown, None, shown]))[1] == 2 * size(draw_png([shown]))[1]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(EnvironmentFault, match="pip install matplotlib"):
        draw_png([info(log(epochs_only([2.0, 1.0])))])
