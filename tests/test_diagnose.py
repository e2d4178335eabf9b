"""`python -m tuner diagnose`, on logs that plain Keras wrote and on what is no log."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

# A healthy training and one that diverges, each with the three logs that a Keras user has.
TRAINING = """
import json, sys
from pathlib import Path
import keras
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
for name, rate in (("healthy", 0.05), ("diverging", 30.0)):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [keras.callbacks.CSVLogger(name + ".csv"), keras.callbacks.TensorBoard("tensorboard/" + name)]
    history = model.fit(
        x[:1200], y[:1200], validation_data=(x[1200:], y[1200:]),
        epochs=12, batch_size=64, verbose=0, callbacks=callbacks,
    )
    Path(name + ".json").write_text(json.dumps(history.history, default=float))
"""


def tuner(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuner", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def found(path: Path) -> dict[str, Any]:
    """The document of a log that can be read."""
    done = tuner("diagnose", path, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of logs written by plain Keras."""
    folder = tmp_path_factory.mktemp("logs")
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["{}.csv", "{}.json", "tensorboard/{}"])
def test_logs_of_plain_keras(logs: Path, pattern: str) -> None:
    healthy, diverging = (found(logs / pattern.format(name)) for name in ("healthy", "diverging"))
    assert healthy["findings"] == []
    assert healthy["stability"] > 0.95
    assert next(finding["severity"] for finding in diverging["findings"] if finding["kind"] == "symptom") >= 0.9
    assert any(finding["remedies"] for finding in diverging["findings"])
    assert diverging["stability"] < 0.5


@pytest.mark.slow
def test_the_three_logs_of_a_training_say_the_same(logs: Path) -> None:
    one, two, three = (found(logs / name) for name in ("diverging.csv", "diverging.json", "tensorboard/diverging"))
    assert [finding["code"] for finding in one["findings"]] == [finding["code"] for finding in two["findings"]]
    assert [finding["code"] for finding in one["findings"]] == [finding["code"] for finding in three["findings"]]
    assert one["stability"] == pytest.approx(two["stability"])
    assert one["stability"] == pytest.approx(three["stability"], rel=1e-3)


@pytest.mark.slow
def test_a_folder_of_several_trainings_puts_the_worst_first(logs: Path) -> None:
    done = tuner("diagnose", logs / "tensorboard")
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.index("diverging: 12 epochs") < done.stderr.index("healthy: 12 epochs")


@pytest.mark.slow
def test_a_run_of_tuner(finished_run: Path) -> None:
    assert {training["epochs"] for training in found(finished_run)["trainings"]} == {2}
    assert found(finished_run / "trials" / "0000")["trainings"][0]["name"] == "trial 0, seed run 0"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A CSVLogger file of a training that over-fits."""
    file = tmp_path / "log.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "loss", "val_loss"])
        for epoch in range(30):
            writer.writerow([epoch, 2.0 * 0.9**epoch, 2.0 * 0.95 ** min(epoch, 8) * 1.06 ** max(0, epoch - 8)])
    return file


def test_what_is_printed_and_drawn(log: Path, tmp_path: Path) -> None:
    done = tuner("diagnose", log, "-o", tmp_path / "curve.png")
    assert (done.returncode, done.stdout) == (0, "")
    assert "over fitting" in done.stderr
    assert "what to do" in done.stderr
    assert f"Picture: {tmp_path / 'curve.png'}" in done.stderr
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    done = tuner("diagnose", log, "--json", "-o", tmp_path / "curve.html")
    assert json.loads(done.stdout)["findings"][0]["code"] == "over_fitting"
    assert "plotly" in (tmp_path / "curve.html").read_text()


def test_a_loss_of_another_name(log: Path) -> None:
    log.write_text(log.read_text().replace("val_loss", "val").replace(",loss", ",train"))
    done = tuner("diagnose", log)
    assert done.returncode == 2
    assert "no column 'loss'. Columns of numbers: train, val." in done.stderr
    assert tuner("diagnose", log, "--loss-column", "train", "--val-column", "val").returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "DataError: There is no file or folder"),
        (b"", "is empty"),
        (b"\x80\x04\x95", "is a pickle, which is not read"),
        (bytes(range(256)), "is a binary file"),
        (b"epoch,loss\n", "no epoch was finished"),
    ],
)
def test_what_is_no_log_is_exit_code_2(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "log.csv"
    if content is not None:
        file.write_bytes(content)
    done = tuner("diagnose", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_of_another_kind_is_exit_code_2(log: Path, tmp_path: Path) -> None:
    done = tuner("diagnose", log, "-o", tmp_path / "curve.pdf")
    assert done.returncode == 2
    assert "must end in .html or .png" in done.stderr


def test_a_picture_that_cannot_be_written_is_exit_code_4(log: Path, tmp_path: Path) -> None:
    done = tuner("diagnose", log, "-o", log / "curve.png")
    assert done.returncode == 4
    assert "Cannot write" in done.stderr
