"""A search in a real Slurm over a real PostgreSQL, with a job cancelled, one requeued, a worker killed, a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import postgresql
from tests.cluster import slurm
from tuner.records import Outcome, TrialRecord
from tuner.search.study import load_trials
from tuner.store import RunFolder

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Cluster]:
    if reason := slurm.missing():
        pytest.skip(reason)
    made = slurm.Cluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def tuner(
    cluster: slurm.Cluster, server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command on the login node, with the password in a file of the user."""
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:tuner:{postgresql.PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.delenv("PGPASSWORD")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGPASSFILE", str(file))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tuner", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)

    return run


def workers_of(root: Path) -> list[int]:
    """Process ids of the workers of a run on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"worker" in words and os.fsencode(root) in words:
            found.append(int(entry.parent.name))
    return found


def wait_until(is_so: Callable[[], bool], what: str, root: Path, timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {file}\n{file.read_text(errors='replace')[-1500:]}" for file in (root / "logs").iterdir()
            )
            pytest.fail(f"{what}: not within {timeout_s:.0f} s\n{logs}")
        time.sleep(1.0)


def num_finished(trials: list[TrialRecord]) -> int:
    return sum(trial.outcome not in (Outcome.RUNNING, Outcome.WAITING) for trial in trials)


def test_a_search_survives_what_happens_to_its_jobs_and_its_database(
    cluster: slurm.Cluster,
    server: postgresql.Server,
    tuner: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    root = tmp_path / "a run'$x"
    options = ["--trials", "12", "--epochs", "5", "--confirm", "1", "--workers", "1", "--pruner", "none"]
    submitted = tuner(
        *["submit", "--run", str(root), "--backend", "slurm", "--storage", server.url(), *options],
        *["--jobs", "2", "--cpus", "2", "--gpus", "1", "--job-time", "01:00:00"],
    )
    assert submitted.returncode == 0, submitted.stderr
    folder = RunFolder(root)
    (jobs,) = folder.load_jobs()

    def wait_for(count: int) -> None:
        wait_until(lambda: num_finished(load_trials(folder)) >= count, f"{count} trials", root)

    wait_for(1)
    wait_until(lambda: len(workers_of(root)) == 2, "two workers", root)
    os.kill(workers_of(root)[0], signal.SIGKILL)
    wait_for(3)
    server.restart()
    wait_for(5)
    assert cluster.run("scontrol", "requeue", f"{jobs.number}_1").returncode == 0
    wait_for(7)
    assert cluster.run("scancel", f"{jobs.number}_0").returncode == 0
    # Slurm lets a requeued job wait for two minutes.
    cluster.run("scontrol", "update", f"JobId={jobs.number}_1", "StartTime=now")
    shown = tuner("status", str(root))
    assert "Batch jobs: " in shown.stderr, shown.stderr
    wait_until(lambda: (root / "report.html").is_file(), "the report", root)
    wait_until(lambda: not workers_of(root), "the end of the workers", root)

    trials = load_trials(folder)
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.outcome for trial in trials} <= {Outcome.COMPLETED, Outcome.DIVERGED, Outcome.NOT_LEARNING}, trials
    assert all(trial.seed_runs for trial in trials)
    assert len({str(sorted(trial.hyperparameters.items())) for trial in trials}) == 12
    assert max(len(trial.seed_runs) for trial in trials) == 4
    bundle = tmp_path / "bundle"
    exported = tuner("export", str(root), "-o", str(bundle))
    assert exported.returncode == 0, exported.stderr
    assert (bundle / "model.keras").is_file()
    for file in [
        *root.rglob("*.log"),
        *root.rglob("*.json"),
        root / "job.sh",
        root / "config.yaml",
        root / "report.html",
    ]:
        assert postgresql.PASSWORD not in file.read_text(encoding="utf-8", errors="replace"), file


def test_what_the_scheduler_refuses_is_told_in_its_words(
    cluster: slurm.Cluster,
    server: postgresql.Server,
    tuner: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    root = str(tmp_path / "run")
    options = ["submit", "--run", root, "--backend", "slurm"]
    refused = tuner(*options, "--storage", server.url(), "--trials", "2", "--partition", "nowhere")
    assert refused.returncode == 4, refused.stderr
    assert "invalid partition specified: nowhere" in refused.stderr
    # The run is there now, and its settings need not be told again.
    greedy = tuner(*options, "--gpus", "3")
    assert greedy.returncode == 4, greedy.stderr
    assert "Requested node configuration is not available" in greedy.stderr
    assert tuner("cancel", root).stderr == "No job of this run waits or runs.\n"
    waiting = tuner(*options, "--sbatch-line=--begin=now+1hour")
    assert waiting.returncode == 0, waiting.stderr
    assert "2 pending" in tuner("status", root).stderr
    assert tuner("cancel", root).stderr.startswith("Cancelled: ")
    assert "2 cancelled" in tuner("status", root).stderr
