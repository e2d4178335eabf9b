"""The script of batch jobs, golden and with hostile paths; the scheduler's programs are faked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner import __version__
from tuner.config import SearchConfig
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import BatchJobs
from tuner.search.batch import cancel_jobs, check_config, job_states, render, require_scheduler, submit
from tuner.search.slurm import JobOptions
from tuner.store import RunFolder

GOLDEN = Path(__file__).parents[1] / "golden" / "slurm.sh"
FULL = JobOptions(
    jobs=8,
    cpus=6,
    gpus=1,
    memory="16G",
    time="04:00:00",
    partition="gpu",
    account="lab",
    qos="normal",
    constraint="a100|h100",
    module=("cuda/12.4", "python"),
    venv="/shared/my env",
    sbatch_line=("--mail-type=END",),
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig())


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs in front of PATH; each notes its arguments there, one a line, and runs what a test says."""
    place = tmp_path / "programs"
    place.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        program = place / name
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{place}/{name}.arguments'\n"
            f"[ -f '{place}/{name}.does' ] && . '{place}/{name}.does'\nexit 0\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def test_the_script_is_the_golden_one(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    script = render(folder, FULL).replace(str(tmp_path), "/shared")
    assert script == GOLDEN.read_text(encoding="utf-8")


def test_logs_that_cannot_be_written_are_named_before_anything_is_submitted(folder: RunFolder, fakes: Path) -> None:
    folder.logs_dir.rmdir()
    folder.logs_dir.touch()
    with pytest.raises(EnvironmentFault, match=r"Cannot write '.*logs'"):
        submit(folder, JobOptions(), version=__version__)
    assert folder.load_jobs() == []


@pytest.mark.parametrize(
    "name", ["a b", "it's", "$HOME", "`id`", "Größe 数", "50%", "-x", "a;b", 'q"q', "x#y", "back\\n"]
)
def test_a_script_finds_its_run_whatever_that_is_called(tmp_path: Path, name: str, fakes: Path) -> None:
    folder = RunFolder.create(tmp_path / name, SearchConfig())
    # What would run the workers shows what it is given instead.
    (fakes / "python").write_text('#!/bin/sh\nprintf \'<%s>\' "$TUNER_JOB" "$@"\n')
    (fakes / "python").chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    script = tmp_path / "job.sh"
    script.write_text(render(folder, JobOptions(venv=str(tmp_path / "venv"))), encoding="utf-8")
    environment = os.environ | {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"<4711_2><-m><tuner><job><--first><300><--><{folder.root}>"


def test_a_run_that_the_node_does_not_see_is_named(folder: RunFolder, tmp_path: Path) -> None:
    script = render(folder, JobOptions())
    folder.config_file.unlink()
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert f"{folder.root} is not visible on" in done.stderr


@pytest.mark.parametrize(("signal_name", "is_requeued"), [("USR1", True), ("TERM", False)])
def test_before_its_time_limit_a_job_stops_and_queues_again_and_else_it_only_stops(
    folder: RunFolder, tmp_path: Path, fakes: Path, signal_name: str, is_requeued: bool
) -> None:
    (fakes / "python").write_text(f"#!/bin/sh\ntrap 'exit 143' TERM\ntouch '{fakes}/up'\nwhile :; do sleep 0.1; done\n")
    (fakes / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" > '{fakes}/scontrol.arguments'\n")
    for name in ("python", "scontrol"):
        (fakes / name).chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    script = tmp_path / "job.sh"
    script.write_text(render(folder, JobOptions(venv=str(tmp_path / "venv"))))
    send = f"until [ -f '{fakes}/up' ]; do sleep 0.1; done; kill -{signal_name} $$"
    command = ["bash", "-c", f"({send}) & exec bash '{script}'"]
    environment = os.environ | {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 143
    assert (fakes / "scontrol.arguments").is_file() is is_requeued
    if is_requeued:
        assert (fakes / "scontrol.arguments").read_text() == "requeue 4711_2\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (JobOptions(partition="gpu\n#SBATCH --account=other"), "line break"),
        (JobOptions(sbatch_line=("--a\n--b",)), "line break"),
        (JobOptions(memory="16G --exclusive"), r"--mem '16G --exclusive' is not a value"),
        (JobOptions(partition="gpu'"), "not a value"),
    ],
)
def test_values_that_would_write_other_lines_are_refused(folder: RunFolder, options: JobOptions, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        render(folder, options)


def test_a_container_gets_the_run_and_the_cards(folder: RunFolder) -> None:
    script = render(folder, JobOptions(container="/images/tuner.sif", gpus=2))
    assert f"apptainer exec --nv --bind {folder.root} /images/tuner.sif python -m tuner job" in script
    assert "--nv" not in render(folder, JobOptions(container="/images/tuner.sif"))


def test_a_study_in_a_file_cannot_be_spread_over_nodes() -> None:
    with pytest.raises(ConfigError, match="--storage postgresql://"):
        check_config(SearchConfig(), "slurm")
    check_config(SearchConfig(storage="postgresql://h/d", workers=100), "kubernetes")
    with pytest.raises(ConfigError, match="100 at most"):
        check_config(SearchConfig(storage="postgresql://h/d", workers=101), "slurm")


def test_jobs_are_submitted_shown_and_cancelled(folder: RunFolder, fakes: Path) -> None:
    (fakes / "sbatch.does").write_text("echo '4711;cluster'")
    assert submit(folder, JobOptions(jobs=3), version=__version__) == BatchJobs("slurm", "4711", 3, __version__)
    arguments = (fakes / "sbatch.arguments").read_text().splitlines()
    assert arguments == ["--parsable", f"--output={folder.logs_dir}/slurm-%A_%a.log", str(folder.root / "job.sh")]
    assert '--first "$((100 + 100 * SLURM_ARRAY_TASK_ID))"' in (folder.root / "job.sh").read_text()
    # A second array has workers of other numbers.
    assert "$((400 + 100 *" in render(folder, JobOptions())
    (fakes / "squeue.does").write_text("echo '0 RUNNING'; echo '1 PENDING'")
    assert job_states(folder) == [("4711_0", "RUNNING"), ("4711_1", "PENDING"), ("4711_2", "ENDED")]
    assert cancel_jobs(folder) == ["4711"]
    assert (fakes / "scancel.arguments").read_text() == "4711\n"
    (fakes / "squeue.does").write_text("echo '0 COMPLETED'; echo '1 CANCELLED by 0'")
    assert cancel_jobs(folder) == []
    (fakes / "squeue.does").write_text("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert job_states(folder)[0] == ("4711_0", "ENDED")


def test_faults_of_the_scheduler_are_told(
    folder: RunFolder, fakes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (fakes / "sbatch.does").write_text("echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(
        EnvironmentFault, match=r"refused: sbatch: error: invalid partition specified: x\. .*--parsable"
    ):
        submit(folder, JobOptions(), version=__version__)
    (fakes / "sbatch.does").write_text("echo what")
    with pytest.raises(EnvironmentFault, match="answered 'what'"):
        submit(folder, JobOptions(), version=__version__)
    assert folder.load_jobs() == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(EnvironmentFault, match=r"'sbatch' is not on PATH.*login node of the cluster\.$"):
        submit(folder, JobOptions(), version=__version__)
    with pytest.raises(EnvironmentFault, match=r"'sbatch' is not on PATH.*--dry-run"):
        require_scheduler("slurm")
    require_scheduler("local")


def test_a_job_of_another_version_is_refused_at_once(folder: RunFolder) -> None:
    folder.save_jobs([BatchJobs("slurm", "1", 2, "0.0.1")])
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "job", str(folder.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert "version 0.0.1" in done.stderr
    assert __version__ in done.stderr
