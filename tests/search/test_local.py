"""Jobs on this machine: started so that they go on, seen, ended; with stand-ins for the program, and with it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import postgresql
from tuner import __version__
from tuner.config import SearchConfig
from tuner.errors import ConfigError, EnvironmentFault, RunError
from tuner.records import FINISHED_OUTCOMES
from tuner.search import local
from tuner.search.batch import cancel_jobs, check_config, job_options, job_states, render, submit
from tuner.search.local import LocalOptions
from tuner.search.study import load_trials
from tuner.store import RunFolder

# Notes its arguments, and ends when it is told to; or not at all.
STAND_IN = "#!/bin/sh\n{trap}\nprintf '<%s>' \"$TUNER_JOB\" \"$@\"\ntouch '{up}'\nwhile :; do sleep 0.05; done\n"
ENDS, STAYS = "trap 'exit 143' TERM", "trap '' TERM"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "it's a #run 50% Größe", SearchConfig())


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have a script started in the place of Python; returns a file that is there once it runs."""

    def make(trap: str) -> Path:
        program, up = tmp_path / "python", tmp_path / "up"
        program.write_text(STAND_IN.format(trap=trap, up=up))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return up

    return make


def wait_for(is_true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def pid_of(folder: RunFolder, number: str) -> int:
    return int((folder.workers_dir / f"{number}.pid").read_text())


def test_a_job_is_started_shown_and_ended(folder: RunFolder, stand_in: Callable[[str], Path]) -> None:
    up = stand_in(ENDS)
    submit(folder, LocalOptions(), version=__version__)
    wait_for(up.exists)
    assert job_states(folder) == [("local-100", "RUNNING")]
    # No child that this process has to wait for before it may end, nor one of its terminal.
    assert os.getsid(pid_of(folder, "local-100")) != os.getsid(0)
    log = (folder.logs_dir / "local-100.log").read_text()
    assert log == f"<local-100><-m><tuner><job><--first><100><--><{folder.root}>"
    assert cancel_jobs(folder) == ["local-100"]
    assert job_states(folder) == [("local-100", "ENDED")]
    assert cancel_jobs(folder) == []
    # The next one has workers of other numbers.
    assert "--first 200" in render(folder, LocalOptions())


def test_a_number_that_another_process_has_now_is_not_taken_for_the_job(
    folder: RunFolder, stand_in: Callable[[str], Path]
) -> None:
    wait_for_it = stand_in(ENDS)
    submit(folder, LocalOptions(), version=__version__)
    wait_for(wait_for_it.exists)
    cancel_jobs(folder)
    (folder.workers_dir / "local-100.pid").write_text(str(os.getpid()))
    assert job_states(folder) == [("local-100", "ENDED")]
    assert cancel_jobs(folder) == []


def test_a_job_that_does_not_end_is_named(
    folder: RunFolder, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    up = stand_in(STAYS)
    monkeypatch.setattr(local, "END_S", 0.3)
    submit(folder, LocalOptions(), version=__version__)
    wait_for(up.exists)
    pid = pid_of(folder, "local-100")
    try:
        with pytest.raises(EnvironmentFault, match=rf"Process {pid} has not ended within .*kill -9 {pid}"):
            cancel_jobs(folder)
        assert job_states(folder) == [("local-100", "RUNNING")]
    finally:
        os.kill(pid, 9)
    wait_for(lambda: job_states(folder) == [("local-100", "ENDED")])


def test_two_at_one_study_in_a_file_are_refused(folder: RunFolder) -> None:
    with folder.lock(), pytest.raises(RunError, match=r"are at .* already.*tuner cancel"):
        submit(folder, LocalOptions(), version=__version__)
    assert folder.load_jobs() == []


def test_a_job_of_another_machine_is_left_to_it(folder: RunFolder, stand_in: Callable[[str], Path]) -> None:
    stand_in(ENDS)
    jobs = submit(folder, LocalOptions(), version=__version__)
    folder.save_jobs([dataclasses.replace(jobs, host="elsewhere")])
    assert job_states(folder) == [("local-100", "ON elsewhere")]
    with pytest.raises(EnvironmentFault, match="local-100 run on 'elsewhere'"):
        cancel_jobs(folder)
    folder.save_jobs([jobs])
    assert cancel_jobs(folder) == ["local-100"]


def test_the_line_that_is_shown_is_one_for_a_shell(folder: RunFolder) -> None:
    line = render(folder, LocalOptions())
    words = shlex.split(line)
    assert words[:3] == [sys.executable, "-m", "tuner"]
    assert words[3:] == [
        "job",
        "--first",
        "100",
        "--",
        str(folder.root),
        ">",
        f"{folder.logs_dir}/local-100.log",
        "2>&1",
    ]


def test_it_needs_no_database_and_takes_no_options_of_schedulers() -> None:
    check_config(SearchConfig(), "local")
    assert job_options("local", {}) == LocalOptions()
    with pytest.raises(ConfigError, match="--cpus means nothing to --backend local"):
        job_options("local", {"cpus": 2})


def tuner(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_a_search_goes_on_alone_is_cancelled_and_finishes_when_it_is_submitted_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--backend", "local", "--trials", 3, "--epochs", 4, "--confirm", 0, "--workers", 1]
    done = tuner("submit", "--run", run, *options)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    folder = RunFolder(run)
    assert "1 running" in tuner("status", run).stderr
    wait_for(lambda: list(folder.trials_dir.glob("*/seed_0/checkpoint.npz")), 120)
    cancelled = tuner("cancel", run)
    assert (cancelled.returncode, cancelled.stderr) == (0, "Cancelled: local-100\n")
    assert not folder.is_held()
    assert json.loads(tuner("status", run, "--json").stdout)["trials"]["total"] >= 1
    assert tuner("submit", "--run", run, "--backend", "local").returncode == 0
    wait_for((run / "report.html").exists, 180)
    wait_for(lambda: job_states(folder) == [("local-100", "ENDED"), ("local-200", "ENDED")])
    trials = json.loads(tuner("status", run, "--json").stdout)["trials"]
    assert trials["total"] == 3
    assert "running" not in trials or trials["running"] == 0


@pytest.mark.slow
def test_two_jobs_share_a_study_in_a_database(tmp_path: Path, server: postgresql.Server) -> None:
    run = tmp_path / "run"
    options = ["--trials", 4, "--epochs", 2, "--confirm", 0, "--workers", 1, "--storage", server.url()]
    done = tuner("submit", "--run", run, "--backend", "local", *options)
    assert done.returncode == 0, done.stderr
    assert tuner("submit", "--run", run, "--backend", "local").returncode == 0
    folder = RunFolder(run)
    assert [name for name, _ in job_states(folder)] == ["local-100", "local-200"]
    wait_for(lambda: {state for _, state in job_states(folder)} == {"ENDED"}, 180)
    trials = load_trials(folder)
    assert [trial.number for trial in trials] == list(range(4))
    assert {trial.outcome for trial in trials} <= set(FINISHED_OUTCOMES)
    assert {trial.worker for trial in trials} <= {100, 200}
    assert (run / "report.html").is_file()
    assert postgresql.PASSWORD not in "".join(file.read_text() for file in folder.logs_dir.iterdir())
