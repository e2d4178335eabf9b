"""A search whose processes are killed with -9 in the middle of epochs ends exactly as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner.records import TrialRecord
from tuner.search.study import load_trials
from tuner.store import RunFolder

ROOT = Path(__file__).parents[2]

# Epochs of about half a second, with dropout, so that every random state counts.
SPACE = """
import keras

def build(hp):
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Dropout(hp.Float("dropout", 0.1, 0.5)),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])
    rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.steps_per_execution = 2
    return model
"""


def start(folder: RunFolder, *, trials: int) -> subprocess.Popen[bytes]:
    options = ["--trials", str(trials), "--epochs", "5", "--confirm", "1", "--workers", "1", "--no-adapt"]
    space = folder.root.parent / "space.py"
    space.write_text(SPACE, encoding="utf-8")
    with (folder.root.parent / "output.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", "search", *options, "--space", f"{space}:build", "--run", folder.root],
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_DETERMINISTIC_OPS": "1", "TF_NUM_INTRAOP_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def wait_for_epochs(search: subprocess.Popen[bytes], folder: RunFolder, count: int, *, timeout_s: float = 120) -> None:
    """Return in the middle of an epoch, when so many have left a checkpoint; or when the search has ended."""
    deadline, seen = time.monotonic() + timeout_s, set[tuple[str, int]]()
    while len(seen) < count and search.poll() is None:
        assert time.monotonic() < deadline
        for file in folder.trials_dir.glob("*/seed_*/checkpoint.npz"):
            seen.add((str(file), file.stat().st_mtime_ns))
        time.sleep(0.01)
    time.sleep(0.1)


def worker_of(search: subprocess.Popen[bytes]) -> int | None:
    children = Path(f"/proc/{search.pid}/task/{search.pid}/children")
    words = children.read_text().split() if children.exists() else []
    return int(words[0]) if words else None


def same_things(folder: RunFolder, trial: TrialRecord) -> list[object]:
    """A trial without its times, and without how its program came to be: a new worker has none to use again."""
    told: list[object] = [trial.outcome, trial.hyperparameters, trial.epoch_losses, trial.epoch_objectives]
    for run in trial.seed_runs:
        trace = folder.load_trace(run.trial, run.seed_index)
        arrays = (trace.step_loss, trace.grad_norm, trace.train_loss, trace.validation_loss)
        told += [{**vars(run), "seconds": 0.0, "program": ""}, *(array.tobytes() for array in arrays), trace.events]
    return told


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_search_killed_again_and_again_equals_one_that_was_left_alone(tmp_path: Path) -> None:
    whole, killed = (RunFolder(tmp_path / name / "run") for name in ("whole", "killed"))
    for folder in (whole, killed):
        folder.root.parent.mkdir()
    assert start(whole, trials=2).wait(300) in (0, 1)

    # A worker in the middle of its trial, then its next one, the supervisor, and both; then the confirmation.
    for victim in ("worker", "supervisor", "both"):
        search = start(killed, trials=2)
        wait_for_epochs(search, killed, 2)
        worker = worker_of(search)
        if victim == "both" and worker is not None:
            os.kill(worker, signal.SIGKILL)
        if victim == "worker" and worker is not None:
            os.kill(worker, signal.SIGKILL)
            wait_for_epochs(search, killed, 2)
        search.send_signal(signal.SIGKILL)
        search.wait(60)
    assert start(killed, trials=2).wait(300) in (0, 1)

    expected, found = load_trials(whole), load_trials(killed)
    assert [len(trial.seed_runs) for trial in found] == [len(trial.seed_runs) for trial in expected]
    for trial, same in zip(found, expected, strict=True):
        assert same_things(killed, trial) == same_things(whole, same)
    assert any("goes on with epoch" in file.read_text() for file in killed.logs_dir.glob("worker-*.log"))
    assert not list(killed.trials_dir.glob("*/seed_*/checkpoint.npz"))
