"""Real searches that are interrupted, killed or leak: every trial is finished once all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.records import FINISHED_OUTCOMES, Outcome
from tuner.search.crew import worker_log
from tuner.search.study import load_trials
from tuner.store import RunFolder

ROOT = Path(__file__).parents[2]


class Search:
    """A real search in a process of its own, watched through its events."""

    def __init__(self, root: Path, *, trials: int, workers: int = 1) -> None:
        self.root = root
        self.events_file = root.parent / "events.jsonl"
        self._seen = len(self.events())
        self._log = (root.parent / "output.txt").open("ab")
        command = [
            sys.executable,
            "-m",
            "tuner",
            "search",
            "--trials",
            str(trials),
            "--epochs",
            "2",
            "--confirm",
            "0",
            "--workers",
            str(workers),
            "--run",
            str(root),
        ]
        self.process = subprocess.Popen(
            [*command, "--events", str(self.events_file)],
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=self._log,
            stderr=self._log,
            # A shell that runs this test in the background has Ctrl-C ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def events(self) -> list[dict[str, Any]]:
        """All events so far, those of earlier searches included."""
        lines = self.events_file.read_text().splitlines() if self.events_file.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, event: str, *, timeout_s: float = 120) -> None:
        """Return when such an event has come since the start of this search."""
        deadline = time.monotonic() + timeout_s
        while not any(known["event"] == event for known in self.events()[self._seen :]):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def worker(self) -> int:
        """Process id of the only worker."""
        (worker,) = self.workers()
        return worker

    def end(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(120)
        self._log.close()
        return code

    def output(self) -> str:
        return (self.root.parent / "output.txt").read_text()


def wait_until(is_true: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    status = Path(f"/proc/{pid}/status")
    wait_until(lambda: not status.exists() or "\nState:\tZ" in status.read_text())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_search_goes_on_after_every_kind_of_interruption(tmp_path: Path, finished_run: Path) -> None:
    root = tmp_path / "run"

    def numbers_finished() -> list[int]:
        trials = load_trials(RunFolder(root))
        assert [trial.number for trial in trials] == list(range(len(trials)))
        return [trial.number for trial in trials if trial.outcome in FINISHED_OUTCOMES]

    for interrupt, exit_code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        before = len(numbers_finished())
        search = Search(root, trials=5)
        search.wait_for("trial_finished")
        worker = search.worker()
        search.process.send_signal(interrupt)
        assert search.end() == exit_code, search.output()
        wait_until_gone(worker)
        assert len(numbers_finished()) in (before + 1, before + 2)
        outcomes = {trial.outcome for trial in load_trials(RunFolder(root))}
        assert interrupt is signal.SIGKILL or Outcome.RUNNING not in outcomes
    search = Search(root, trials=6)
    search.wait_for("trial_started")
    os.kill(search.worker(), signal.SIGKILL)
    assert search.end() == 0, search.output()
    assert numbers_finished() == list(range(6))
    assert "Traceback" not in search.output()
    assert search.output().count("The same command goes on where this one stopped") == 2
    # What was proposed is what a search that was left in peace proposes.
    in_peace = load_trials(RunFolder(finished_run))
    trials = load_trials(RunFolder(root))
    assert [trial.hyperparameters for trial in trials[:2]] == [trial.hyperparameters for trial in in_peace]
    assert all(len(trial.seed_runs) == 1 and len(trial.epoch_losses) == 2 for trial in trials)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_two_workers_share_a_search_and_lose_nothing_when_one_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    search = Search(root, trials=8, workers=2)
    search.wait_for("trial_started")
    wait_until(lambda: {trial.worker for trial in load_trials(RunFolder(root))} == {0, 1}, timeout_s=120)
    os.kill(search.workers()[-1], signal.SIGKILL)
    assert search.end() in (0, 1), search.output()
    trials = load_trials(RunFolder(root))
    assert [trial.number for trial in trials] == list(range(8))
    assert {trial.outcome for trial in trials} <= set(FINISHED_OUTCOMES)
    assert all(len(trial.seed_runs) == 1 for trial in trials)
    finished = [event["trial"] for event in search.events() if event["event"] == "trial_finished"]
    assert sorted(finished) == list(range(8))


LEAKING_SPACE = """
import keras
import numpy as np

kept = []


def build(hp):
    kept.append(np.ones(75_000_000))  # 600 MB
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile(keras.optimizers.Adam(hp.Float("learning_rate", 1e-3, 1e-1)), "sparse_categorical_crossentropy")
    return model
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read in /proc")
def test_a_search_space_that_leaks_is_trained_in_one_worker_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "leaking.py").write_text(LEAKING_SPACE, encoding="utf-8")
    command = [sys.executable, "-m", "tuner", "search", "--space", f"{tmp_path / 'leaking.py'}:build", "--trials", "6"]
    command += ["--epochs", "2", "--confirm", "0", "--workers", "1", "--run", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    folder = RunFolder(tmp_path / "run")
    assert worker_log(folder).read_text().count("This worker has grown since its first training") >= 1
    trials = load_trials(folder)
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.outcome for trial in trials} <= {Outcome.COMPLETED, Outcome.NOT_LEARNING}
    assert all(len(trial.seed_runs) == 1 for trial in trials)
