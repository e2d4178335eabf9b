"""What no training should leave behind, and some do: each through score, detectors, causes, script and command line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tuner.cli import cli
from tuner.records import Trace
from tuner.stability import diagnosis, examination
from tuner.stability.detectors import detect, verdict
from tuner.stability.score import score

FALLING = [2.0 * 0.8**epoch for epoch in range(12)]
STEPS = 10


@dataclass(frozen=True)
class Case:
    """Losses of epochs, and what must be said of them.

    Attributes:
        says: Part of what `diagnose` prints.
        alarms: Codes of the findings that are faults.
    """

    train: Sequence[float]
    validation: Sequence[float]
    says: str
    alarms: tuple[str, ...] = ()


CASES = {
    "constant": Case([1.0] * 12, [1.0] * 12, "not learning", ("not_learning",)),
    "one epoch": Case([1.0], [1.0], "1 epoch; too little to say how stable"),
    "all NaN": Case([math.nan] * 12, [math.nan] * 12, "The loss did not stay a finite number", ("divergence",)),
    "all infinite": Case([math.inf] * 12, [math.inf] * 12, "The loss did not stay a finite number", ("divergence",)),
    "NaN at the end": Case(
        [*FALLING[:11], math.nan], FALLING, "The loss did not stay a finite number", ("divergence",)
    ),
    "negative": Case([1.0 - 0.3 * epoch for epoch in range(12)], [], "12 epochs, stability 1.00"),
    "zero": Case([0.0] * 12, [0.0] * 12, "12 epochs, stability"),
    "falls to zero": Case([*FALLING[:6], *[0.0] * 6], [*FALLING[:6], *[0.0] * 6], "12 epochs, stability 1.00"),
    "validation missing": Case(FALLING, [], "12 epochs, stability 1.00"),
    "validation shorter": Case(FALLING, FALLING[:5], "12 epochs, stability 1.00"),
    "validation all NaN": Case(FALLING, [math.nan] * 12, "The loss did not stay a finite number", ("divergence",)),
    "huge": Case([1e300] * 12, [1e300] * 12, "The loss did not stay a finite number", ("divergence",)),
}
HISTORIES = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def trace_of(case: Case, *, with_steps: bool) -> Trace:
    train, validation = (np.asarray(losses, dtype=float) for losses in (case.train, case.validation))
    losses = np.repeat(train, STEPS) if with_steps else np.empty(0)
    return Trace(
        step_loss=losses,
        grad_norm=np.abs(losses),
        train_loss=train,
        validation_loss=validation,
        learning_rate=np.full(len(train), 1e-3),
        seconds=np.ones(len(train)),
        steps_per_epoch=STEPS,
        planned_epochs=len(train),
        chance_loss=1.0,
    )


def judge(trace: Trace) -> None:
    """Everything that is asked of a trace answers with bounded numbers."""
    found = score(trace)
    assert -1.0 <= found.stability <= 1.0
    assert 0.0 <= found.instability <= 5.0
    detection = detect(trace)
    causes = diagnosis.diagnose(detection.findings, trace=trace)
    for finding in (*detection.findings, *causes):
        assert 0.0 <= finding.severity <= 1.0
        assert 0.0 <= finding.confidence <= 1.0
        json.dumps(finding.evidence, allow_nan=False)
    assert verdict(trace).reason
    assert str(examination.diagnose(trace)).startswith("this training: ")


@HISTORIES
@pytest.mark.parametrize("with_steps", [True, False], ids=["steps", "epochs"])
def test_a_trace_of_it_is_judged(case: Case, with_steps: bool) -> None:
    judge(trace_of(case, with_steps=with_steps))


@HISTORIES
def test_a_script_gets_an_answer(case: Case) -> None:
    history = {"loss": list(case.train), **({"val_loss": list(case.validation)} if case.validation else {})}
    found = examination.diagnose(history)
    assert {finding.code for finding in found.symptoms if finding.severity > 0.3} == set(case.alarms)


def write_csv(case: Case, file: Path) -> None:
    """As `CSVLogger` does: NaN in words, nothing where nothing was measured."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "loss", *(["val_loss"] if case.validation else [])])
        for epoch, loss in enumerate(case.train):
            validation = ["", *case.validation[epoch : epoch + 1]][-1:] if case.validation else []
            writer.writerow([epoch, loss, *validation])


def write_json(case: Case, file: Path) -> None:
    """As `json.dump(history.history, file)` does."""
    history = {"loss": list(case.train), **({"val_loss": list(case.validation)} if case.validation else {})}
    file.write_text(json.dumps(history), encoding="utf-8")


@HISTORIES
@pytest.mark.parametrize(("name", "write"), [("log.csv", write_csv), ("history.json", write_json)])
def test_the_command_line_has_a_sentence_for_it(case: Case, tmp_path: Path, name: str, write) -> None:
    write(case, tmp_path / name)
    told = CliRunner().invoke(cli, ["diagnose", str(tmp_path / name)])
    assert told.exit_code == 0, told.output
    assert case.says in told.output
    document = CliRunner().invoke(cli, ["diagnose", str(tmp_path / name), "--json"])
    faults = {finding["code"] for finding in json.loads(document.stdout)["findings"] if finding["severity"] > 0.3}
    assert set(case.alarms) <= faults
    assert bool(faults) is bool(case.alarms)


def test_a_trace_of_nothing_is_judged() -> None:
    judge(trace_of(Case([], [], ""), with_steps=True))
    assert score(trace_of(Case([], [], ""), with_steps=True)).not_assessed


@pytest.mark.parametrize(
    ("steps", "gradients", "train", "validation"),
    [(120, 120, 12, 5), (120, 7, 12, 12), (35, 35, 12, 12), (120, 0, 2, 12), (0, 40, 12, 12), (120, 120, 0, 0)],
)
def test_lengths_that_disagree_are_judged_as_far_as_they_go(
    steps: int, gradients: int, train: int, validation: int
) -> None:
    losses = np.exp(-np.arange(200) / 60)
    judge(
        Trace(
            step_loss=losses[:steps],
            grad_norm=losses[:gradients],
            train_loss=losses[:train],
            validation_loss=losses[:validation],
            learning_rate=np.ones(3),
            seconds=np.ones(1),
            steps_per_epoch=STEPS,
            planned_epochs=12,
            chance_loss=1.0,
        )
    )
