from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.stability.zoo_traces import over_fitted, spikes
from tuner.errors import DataError
from tuner.records import Finding
from tuner.stability.detectors import detect
from tuner.stability.examination import diagnose

EPOCHS = 24
FALLING = [2.0 * 0.8**epoch for epoch in range(EPOCHS)]
RISING = [2.1 * 0.8 ** min(epoch, 6) * 1.05 ** max(0, epoch - 6) for epoch in range(EPOCHS)]
OVER_FITTING = {"loss": FALLING, "val_loss": RISING}


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def test_a_trace_and_what_has_one():
    trace = over_fitted(1, epochs=40, growth=1.03)
    found = diagnose(trace)
    assert found.symptoms == detect(trace).findings
    assert found.symptoms[0].code == found.causes[0].code == "over_fitting"
    assert found.findings == found.symptoms + found.causes
    assert diagnose(SimpleNamespace(trace=trace)).findings == found.findings


def test_what_fit_returns_and_its_numbers_of_any_kind():
    by_mapping = diagnose(OVER_FITTING)
    assert by_mapping.symptoms[0].code == "over_fitting"
    assert not any("step" in symptom.cause for symptom in by_mapping.symptoms)
    arrays = {"loss": np.float32(FALLING), "val_loss": tuple(RISING), "names": ["a", "b"]}
    history = SimpleNamespace(history=arrays, epoch=list(range(EPOCHS)), params={"epochs": 100})
    found = diagnose(history)
    assert codes(found.symptoms) == codes(by_mapping.symptoms)
    assert found.log.trace.planned_epochs == 100


def test_a_log_by_its_path_and_of_several_trainings_the_worst(tmp_path):
    file = tmp_path / "history.json"
    file.write_text(json.dumps({"loss": FALLING * 2, "val_loss": FALLING + RISING, "epoch": list(range(EPOCHS)) * 2}))
    for path in (file, str(file)):
        found = diagnose(path)
        assert found.symptoms[0].code == "over_fitting"
        assert "2" in found.log.name


def test_what_else_is_known_is_evidence():
    trace = spikes(0, number=3)
    outliers = Finding("outliers", "", 0.5, 1.0, {}, "")
    plain, told = diagnose(trace), diagnose(trace, data_findings=[outliers], hyperparameters={"learning_rate": 1e-3})
    confidence = {name: {cause.code: cause.confidence for cause in found.causes}["outliers"]
                  for name, found in (("plain", plain), ("told", told))}  # fmt: skip
    assert confidence["told"] > confidence["plain"]


def test_it_reads_as_text():
    text = str(diagnose(OVER_FITTING))
    assert text.startswith("this training: 24 epochs, stability 0.")
    assert "- over fitting (epoch 7): The validation loss was lowest in epoch 7" in text
    assert "Probable cause" in text
    assert "    dropout at least 0.2 in later trials. " in text
    calm = str(diagnose({"loss": FALLING, "val_loss": FALLING}))
    assert "Nothing wrong was found" in calm


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (None, "NoneType is no training. Expected a Trace"),
        (3.0, "float is no training"),
        ({}, "holds no list of numbers"),
        ({"loss": []}, "holds no list of numbers"),
        ({"accuracy": [0.1, 0.2]}, "--loss-column|no column 'loss'"),
        ("no/such/file.csv", "There is no file"),
    ],
)
def test_what_is_no_training_is_refused(training, message):
    with pytest.raises(DataError, match=message):
        diagnose(training)


@pytest.mark.parametrize(
    "history",
    [{"loss": [float("nan")] * 8}, {"loss": [1.0]}, {"loss": [0.0] * 8}, {"loss": [-1.0, -2.0] * 5},
     {"loss": FALLING, "val_loss": RISING[:3]}, {"loss": FALLING, "val_loss": []}],
)  # fmt: skip
def test_hostile_histories_have_an_answer(history):
    assert str(diagnose(history)).startswith("this training: ")


def test_a_single_epoch_is_one_epoch():
    assert str(diagnose({"loss": [1.0]})).startswith("this training: 1 epoch, ")
