"""Workers of a run as a process of this machine that goes on when the command has returned: started, seen, ended."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import EnvironmentFault, RunError
from tuner.records import BatchJobs
from tuner.search.scheduler import STRIDE
from tuner.store import RunFolder, storage_errors

__all__ = ["OPTIONS", "PROGRAM", "LocalOptions", "cancel", "render", "states", "submit"]

# Needs none.
PROGRAM = ""

# How long a job may take to end when it is told to, in seconds. Source: its workers are given 5
# (`tuner.search.supervisor`), and what they did is put back after that.
END_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True)
class LocalOptions:
    """Nothing: how many workers there are, and on which cores and GPUs, `--workers` says as for `search`."""


OPTIONS = LocalOptions


def render(folder: RunFolder, options: LocalOptions) -> str:
    """The command that is started, as a line for a shell."""
    return f"{shlex.join(_command(folder))} > {shlex.quote(str(_log(folder)))} 2>&1\n"


def submit(folder: RunFolder, options: LocalOptions, *, version: str) -> BatchJobs:
    """Start a job that works on the run until it is done, and note it.

    Args:
        folder: A run that is set up.
        options: None.
        version: Of this program.

    Raises:
        RunError: Somebody works on this run already, and its study is a file.
    """
    import fcntl

    if not folder.load_shared_study() and folder.is_held():
        raise RunError(
            f"Workers of this machine are at {str(folder.root)!r} already. Watch them: python -m tuner status "
            f"{folder.root}; end them: python -m tuner cancel {folder.root}"
        )
    jobs = BatchJobs("local", f"local-{_first(folder)}", 1, version, host=socket.gethostname())
    file, log = _pid_file(folder, jobs), _log(folder)
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "w", encoding="utf-8") as held:
            # The job inherits the lock, and has it as long as it lives; its number may be another's after that.
            fcntl.flock(held, fcntl.LOCK_EX)
            # A shell in between, so that the job is no child of this process, nor of its terminal.
            started = subprocess.run(
                ["/bin/sh", "-c", '"$@" < /dev/null >> "$TUNER_LOG" 2>&1 & echo $!', "sh", *_command(folder)],
                stdout=subprocess.PIPE,
                env=os.environ | {"TUNER_JOB": jobs.number, "TUNER_LOG": str(log)},
                pass_fds=[held.fileno()],
                start_new_session=True,
                check=True,
            )
            held.write(started.stdout.decode().strip())
    folder.save_jobs([*folder.load_jobs(), jobs])
    return jobs


def states(folder: RunFolder, jobs: BatchJobs) -> list[tuple[str, str]]:
    """Name and state of a job."""
    if jobs.host != socket.gethostname():
        return [(jobs.number, f"ON {jobs.host}")]
    return [(jobs.number, "RUNNING" if _pid(folder, jobs) else "ENDED")]


def cancel(folder: RunFolder, jobs: BatchJobs) -> bool:
    """End a job and its workers, whose state is saved; False if it was over.

    Raises:
        EnvironmentFault: It is on another machine, or does not end.
    """
    if jobs.host != socket.gethostname():
        raise EnvironmentFault(f"The workers of {jobs.number} run on {jobs.host!r}. Cancel them there.")
    pid = _pid(folder, jobs)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while _pid(folder, jobs) is not None:
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                f"Process {pid} has not ended within {END_S:.0f} s. Wait, or kill it, which loses the running epochs "
                f"alone: kill -9 {pid}"
            )
        time.sleep(POLL_S)
    return True


def _pid(folder: RunFolder, jobs: BatchJobs) -> int | None:
    """The process of a job; None if it has ended."""
    import fcntl

    file = _pid_file(folder, jobs)
    if not file.is_file():
        return None
    with storage_errors(file), open(file, encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(held.read())
        return None


def _first(folder: RunFolder) -> int:
    # Those of a search in the foreground begin with 0.
    return STRIDE * (1 + sum(each.num_jobs for each in folder.load_jobs()))


def _command(folder: RunFolder) -> list[str]:
    run = str(folder.root.absolute())
    return [sys.executable, "-m", "tuner", "job", "--first", str(_first(folder)), "--", run]


def _log(folder: RunFolder) -> Path:
    return folder.logs_dir.absolute() / f"local-{_first(folder)}.log"


def _pid_file(folder: RunFolder, jobs: BatchJobs) -> Path:
    return folder.workers_dir / f"{jobs.number}.pid"
