"""The supervisor: the command that the user typed starts a worker process, watches it, and starts it again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tuner import errors
from tuner.errors import EnvironmentFault, TunerError, package_faults
from tuner.search.plan import note_crash
from tuner.search.study import Study, storage_faults
from tuner.stability.judgement import worst_objective
from tuner.stability.margin import MAX_PENALTY_NATS
from tuner.store import RunFolder, read_json, write_json

__all__ = ["run_worker", "supervise", "worker_log"]

# How often the supervisor looks at its worker.
POLL_S = 0.2
# How often it reads the study for the display, and the share of a processor that this may take: with many trials it
# takes long, and the processor is the training's. Source: convention.
TICK_S = 1.0
TICK_FRAC = 0.05
# How long a worker may take to end when it is told to, before it is killed.
STOP_GRACE_S = 5.0
# Workers that die one after the other without finishing a trial, before the search gives up.
MAX_DEATHS_IN_A_ROW = 4
# Exit code of a worker that met an unexpected exception, which another try would only meet again.
BUG_EXIT_CODE = 70
# Lines of its log that are shown when a worker dies.
NUM_LOG_LINES = 5

# Tells a worker whose child it is.
SUPERVISOR_VARIABLE = "TUNER_SUPERVISOR_PID"

_PR_SET_PDEATHSIG = 1


class WorkerBug(TunerError):
    """A worker ended with an unexpected exception; its traceback is in its log."""

    exit_code = BUG_EXIT_CODE


def worker_log(folder: RunFolder) -> Path:
    """Where everything that a worker prints goes."""
    return folder.logs_dir / "worker-0.log"


def _error_file(folder: RunFolder) -> Path:
    return folder.logs_dir / "worker-0.error.json"


def run_worker(folder: RunFolder, *, deadline: float | None = None, only_confirm: bool = False) -> None:
    """Work on the trials of a run until its budget is used up. This is the process that imports Keras.

    Args:
        folder: A run that is set up.
        deadline: Unix time in seconds after which no trial is started and the running one is put back.
        only_confirm: Carry out the planned confirmation and nothing else.

    Raises:
        TunerError: The space or the storage is at fault; also written down for the supervisor.
    """
    _die_with_parent()
    try:
        with package_faults(), storage_faults(folder):
            from tuner.search.worker import work

            work(folder, deadline=deadline, only_confirm=only_confirm)
    except TunerError as error:
        write_json(_error_file(folder), {"type": type(error).__name__, "message": str(error)})
        raise


def supervise(
    folder: RunFolder, *, deadline: float | None = None, on_tick: Callable[[], None], only_confirm: bool = False
) -> None:
    """Run a worker to the end of the search; restart it when it dies.

    Args:
        folder: A run that is set up, held by this process.
        deadline: Passed on to the worker.
        on_tick: Called about once a second.
        only_confirm: Passed on to the worker.

    Raises:
        TunerError: The one that the worker reported.
        EnvironmentFault: Workers die again and again.
    """
    with storage_faults(folder):
        _supervise(folder, _command(folder, deadline, only_confirm), on_tick)


def _command(folder: RunFolder, deadline: float | None, only_confirm: bool) -> list[str]:
    command = [sys.executable, "-m", "tuner", "worker"]
    command += ["--until", repr(deadline)] if deadline is not None else []
    command += ["--only-confirm"] if only_confirm else []
    return [*command, "--", str(folder.root)]


def _supervise(folder: RunFolder, command: list[str], on_tick: Callable[[], None]) -> None:
    study = Study(folder)
    study.give_back(crashed=False)
    deaths = 0
    while True:
        _error_file(folder).unlink(missing_ok=True)
        done_before = study.num_finished() + folder.num_trained()
        with _worker(folder, command) as process:
            returncode = _watch(process, on_tick)
        on_tick()
        if returncode == 0:
            return
        if _error_file(folder).is_file():
            study.give_back(crashed=False)
            report = read_json(_error_file(folder), dict[str, str])
            raise getattr(errors, report["type"], TunerError)(report["message"])
        reason = _death(folder, returncode)
        if returncode == BUG_EXIT_CODE:
            study.give_back(crashed=False)
            raise WorkerBug(f"The worker met a bug of the program. {reason}")
        deaths = 1 if study.num_finished() + folder.num_trained() > done_before else deaths + 1
        config = folder.load_config()
        worst = worst_objective(config.objective, stability_weight=config.stability_weight)
        worst += config.margin_weight * MAX_PENALTY_NATS
        if not study.give_back(crashed=True, message=reason, worst_objective=worst):
            note_crash(folder, reason)
        if deaths >= MAX_DEATHS_IN_A_ROW:
            raise EnvironmentFault(f"The worker died {deaths} times in a row. {reason}")


def _watch(process: subprocess.Popen[bytes], on_tick: Callable[[], None]) -> int:
    next_tick = 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if time.monotonic() >= next_tick:
            started = time.process_time()
            on_tick()
            next_tick = time.monotonic() + max(TICK_S, (time.process_time() - started) / TICK_FRAC)


@contextlib.contextmanager
def _worker(folder: RunFolder, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A running worker process; ended, and its trial put back, if the block is left early (Ctrl-C included)."""
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "PYTHONUNBUFFERED": "1",
        SUPERVISOR_VARIABLE: str(os.getpid()),
    }
    with open(worker_log(folder), "ab") as log:
        # A session of its own: Ctrl-C on the terminal reaches the supervisor alone, which then ends the worker.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            _stop(process)
            Study(folder).give_back(crashed=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _death(folder: RunFolder, returncode: int) -> str:
    """How a worker died, with the last lines of its log."""
    how = (
        f"by signal {-returncode} ({signal.strsignal(-returncode)})"
        if returncode < 0
        else f"with exit code {returncode}"
    )
    lines = worker_log(folder).read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LOG_LINES:]
    return f"It ended {how}. Last lines of {worker_log(folder)}:\n" + "\n".join(f"  {line}" for line in lines)


def _die_with_parent() -> None:
    """On Linux, have the kernel end this process when the supervisor dies, however it dies."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(SUPERVISOR_VARIABLE, str(os.getppid())) != str(os.getppid()):
        # It died before the call above, while this process was starting.
        os.kill(os.getpid(), signal.SIGKILL)
