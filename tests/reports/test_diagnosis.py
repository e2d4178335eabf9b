"""What is said of a training, in words, as a document and as a page."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reports.diagnosis import Examination, document, examine, headline, remarks, show, write_picture
from reports.standings import Band
from tests.reports.test_picture import epochs_only
from tests.stability.traces import decay, noisy, spiked, trace
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import Finding, Outcome, Remedy
from tuner.stability.logs import ForeignLog

CALM = ForeignLog("calm.csv", trace(noisy(decay(), 0.1, 1)), notes=("Assumed something.",), metrics=("accuracy",))
SPIKED = ForeignLog("spiked.csv", trace(spiked(noisy(decay(), 0.1, 1), 1200, height=30)))
FAILED = ForeignLog("failed [red].csv", trace(np.r_[decay()[:900], np.full(1100, np.nan)]))
RISING = ForeignLog("rising.csv", epochs_only([1.0] + [3.0] * 10))
SHORT = ForeignLog("short.csv", epochs_only([2.0]))


@pytest.fixture(scope="module")
def examined() -> list[Examination]:
    return examine([CALM, SPIKED, FAILED])


def text(examinations: list[Examination], width: int = 100) -> str:
    stream = io.StringIO()
    show(examinations, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_worst_comes_first(examined: list[Examination]) -> None:
    assert [found.log.name for found in examined] == ["failed [red].csv", "spiked.csv", "calm.csv"]
    failed, unstable, calm = (found.band for found in examined)
    assert failed is Band.FAILED
    assert unstable.is_warning
    assert calm.is_stable


def test_headlines(examined: list[Examination]) -> None:
    failed, unstable, calm = map(headline, examined)
    assert failed.startswith("failed [red].csv: 20 epochs, stability \N{MINUS SIGN}0.")
    assert "did not stay a finite number" in failed
    assert "unstable). As if the loss had been" in unstable
    assert "training drawdown" in unstable
    assert calm.startswith("calm.csv: 20 epochs, stability ")


def test_headlines_of_a_loss_that_never_moved_and_of_too_little() -> None:
    (still,) = examine([ForeignLog("x", epochs_only([2.4] * 10))])
    assert still.outcome is Outcome.NOT_LEARNING
    assert headline(still).endswith("(not learning). The loss never came below the chance level.")
    (short,) = examine([SHORT])
    assert headline(short) == "short.csv: 1 epoch; too little to say how stable the training was."
    assert document("short.csv", [short])["stability"] is None


def test_nothing_found_is_a_sentence_that_names_what_was_not_assessed() -> None:
    (calm,) = examine([CALM])
    lines = remarks(calm)
    assert lines[0] == "Nothing wrong was found in what could be assessed."
    assert any(line.startswith("Not in this log, so not assessed: ") and "dead units" in line for line in lines)
    assert lines[-1] == "Note: Assumed something."
    assert "Nothing wrong was found" in text([calm])


def test_what_is_printed(examined: list[Examination]) -> None:
    printed = text(examined)
    assert "failed [red].csv" in printed
    assert "loss spike" in printed
    assert "what to do" in printed
    assert printed.rstrip().endswith("Nothing wrong was found.")
    assert max(map(len, text(examined, width=60).splitlines())) >= 60


def test_trainings_that_are_alike_are_printed_each(examined: list[Examination]) -> None:
    calm = examined[-1]
    assert (
        text([calm, dataclasses.replace(calm, log=dataclasses.replace(CALM, trace=trace(decay())))]).count("calm") == 2
    )


def test_the_document(examined: list[Examination]) -> None:
    found = json.loads(json.dumps(document("logs", examined), allow_nan=False))
    assert list(found) == ["log", "stability", "findings", "not_assessed", "notes", "trainings"]
    assert found["stability"] == min(training["stability"] for training in found["trainings"])
    assert found["notes"] == ["Assumed something."]
    keys = {"training", "kind", "code", "where", "severity", "confidence", "evidence", "cause", "examples", "remedies"}
    assert all(set(finding) == keys for finding in found["findings"])
    assert {finding["kind"] for finding in found["findings"]} == {"symptom", "cause"}
    assert found["trainings"][-1] | {"stability": 0, "instability": 0, "parts": 0} == {
        "name": "calm.csv",
        "epochs": 20,
        "outcome": "completed",
        "stability": 0,
        "instability": 0,
        "parts": 0,
        "symptoms": [],
        "causes": [],
        "metrics": ["accuracy"],
    }


def test_places_of_a_log_of_epochs_are_no_steps() -> None:
    (found,) = examine([RISING])
    assert found.symptoms
    assert not any("step" in symptom.where + symptom.cause for symptom in found.symptoms)


def test_bounds_of_a_search_are_advice_only_where_there_was_one() -> None:
    remedies = (Remedy("learning_rate", "x 0.3", ""), Remedy("learning_rate", "upper <= x 0.5", ""))
    cause = Finding("learning_rate_too_high", "", 0.7, 0.8, {}, "", remedies=remedies)
    (found,) = examine([CALM])
    assert found.advice(cause) == remedies[:1]
    ours = dataclasses.replace(found, log=dataclasses.replace(CALM, is_ours=True))
    assert ours.advice(cause) == remedies


@pytest.mark.parametrize("name", ["a.html", "b.HTM", "c.png", "new/folder/d.png"])
def test_pictures_are_written(examined: list[Examination], tmp_path: Path, name: str) -> None:
    file = write_picture("logs", examined, tmp_path / name)
    head = file.read_bytes()[:15]
    assert head.startswith(b"\x89PNG" if name.endswith("png") else b"<!DOCTYPE html>")


def test_a_picture_of_another_kind_is_refused(examined: list[Examination], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output .*x\.pdf' must end in \.html or \.png"):
        write_picture("logs", examined, tmp_path / "x.pdf")


def test_a_picture_that_cannot_be_written(examined: list[Examination], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="Cannot write"):
        write_picture("logs", examined, tmp_path / "file" / "x.png")


def test_the_page_escapes_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    hostile = dataclasses.replace(SPIKED, name="<script>alert(1)</script>", notes=("</script>",))
    page = write_picture("<b>", examine([hostile] * 8), tmp_path / "x.html").read_text()
    assert "<script>alert" not in page
    assert "2 more trainings of this log were judged" in page
    assert page.count('class="plot"') == 6


def test_a_page_of_a_training_without_a_curve(tmp_path: Path) -> None:
    page = write_picture("x", examine([ForeignLog("x", epochs_only([np.nan] * 5))]), tmp_path / "x.html").read_text()
    assert "there is no curve" in page
