"""The supervisor: the command that the user typed starts worker processes, watches them, and starts them again."""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable

from tuner import errors, interrupts, leases
from tuner.errors import EnvironmentFault, TunerError, memory_faults, package_faults
from tuner.loading import load_keras
from tuner.search.crew import Crew, error_file, worker_log
from tuner.search.failures import MAX_FAILURES_IN_A_ROW, check_failures
from tuner.search.machine import num_memory_kills
from tuner.search.parent import end_with_parent
from tuner.search.plan import give_up_claims, note_crash
from tuner.search.standby import Standby
from tuner.search.study import MAX_ATTEMPTS, MAX_KILLS, Study, storage_faults
from tuner.stability.judgement import worst_objective
from tuner.stability.margin import MAX_PENALTY_NATS
from tuner.store import RunFolder, read_json, write_json

__all__ = ["run_worker", "supervise"]

# How often the supervisor looks at its workers.
POLL_S = 0.2
# How often it reads the study for the display, and the share of a processor that this may take: with many trials it
# takes long, and the processor is the training's. Source: convention.
TICK_S = 1.0
TICK_FRAC = 0.05
# Workers that die one after the other without an epoch being finished, before the search gives up; times their number.
MAX_DEATHS_IN_A_ROW = 4
# The same for workers that somebody, or the kernel, killed.
MAX_KILLS_IN_A_ROW = 10
# Signals that come from outside of a process.
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Exit code of a worker that met an unexpected exception, which another try would only meet again.
BUG_EXIT_CODE = 70
# Exit code of a worker that has grown (`tuner.search.worker`), and of none that has died.
WORN_OUT_EXIT_CODE = 76
# Lines of its log that are shown when a worker dies.
NUM_LOG_LINES = 5
# How `faulthandler` begins when the interpreter crashes, and among how many last lines that is looked for: it lists the
# calls of every thread.
FATAL = "Fatal Python error: "
NUM_SEARCHED_LINES = 500


class WornOut(TunerError):
    """A worker has grown, and ended between two trainings so that another one goes on with the memory that it freed."""

    exit_code = WORN_OUT_EXIT_CODE


class WorkerBug(TunerError):
    """A worker ended with an unexpected exception; its traceback is in its log."""

    exit_code = BUG_EXIT_CODE


def run_worker(
    folder: RunFolder, *, number: int = 0, deadline: float | None = None, only_confirm: bool = False
) -> None:
    """Work on the trials of a run until its budget is used up. This is the process that imports Keras.

    Args:
        folder: A run that is set up.
        number: Of this worker.
        deadline: Unix time in seconds after which no trial is started and the running one is put back.
        only_confirm: Carry out the planned confirmation and nothing else.

    Raises:
        TunerError: The space or the storage is at fault; also written down for the supervisor.
    """
    end_with_parent()
    faulthandler.enable()
    try:
        with package_faults(), memory_faults(), storage_faults(folder), leases.hold(folder, number):
            load_keras()
            from tuner.search.worker import work

            is_done = work(folder, number=number, deadline=deadline, only_confirm=only_confirm)
        if not is_done:
            raise WornOut("This worker has grown since its first training; another one goes on in its place.")
    except (leases.LeaseLost, WornOut):
        # Another worker can go on in the place of this one.
        raise
    except TunerError as error:
        write_json(error_file(folder, number), {"type": type(error).__name__, "message": str(error)})
        raise


def supervise(
    folder: RunFolder,
    *,
    deadline: float | None = None,
    on_tick: Callable[[], None],
    only_confirm: bool = False,
    first: int = 0,
    standby: Standby | None = None,
) -> None:
    """Run workers to the end of the search; restart those that die.

    Args:
        folder: A run that is set up, held by this process.
        deadline: Passed on to the workers.
        on_tick: Called about once a second.
        only_confirm: Passed on to the workers.
        first: Number of the first worker; those of other machines have other ones.
        standby: Processes that wait to be workers of this run.

    Raises:
        TunerError: The one that a worker reported.
        EnvironmentFault: Workers die again and again.
    """
    with storage_faults(folder):
        study = Study.of_run(folder)
        study.give_back(crashed=False)
        folder.remove_checkpoints(besides=study.unfinished())
        give_up_claims(folder)
        with Crew(folder, deadline=deadline, only_confirm=only_confirm, first=first, standby=standby) as crew:
            _supervise(folder, study, crew, on_tick)


def _supervise(folder: RunFolder, study: Study, crew: Crew, on_tick: Callable[[], None]) -> None:
    most_trials = folder.load_config().trials
    deaths, done_before, memory_kills, next_tick = 0, _num_done(folder, study), num_memory_kills(), 0.0
    while True:
        interrupts.check()
        for number, returncode in crew.ended():
            if returncode == 0:
                continue
            if returncode in (leases.LOST_EXIT_CODE, WORN_OUT_EXIT_CODE):
                crew.start(number)
                continue
            _raise_reported(folder, number, returncode)
            has_progressed = _num_done(folder, study) > done_before
            is_out_of_memory = returncode == -signal.SIGKILL and num_memory_kills() > memory_kills
            reason, was_running_a_trial = _note_death(
                folder, study, number, returncode, lease=crew.leases[number], is_out_of_memory=is_out_of_memory
            )
            # A trial that crashes its worker is ended after some times, and so is a search of nothing but such trials.
            is_bounded = was_running_a_trial and -returncode not in KILLS
            deaths = 0 if is_bounded else 1 if has_progressed else deaths + 1
            check_failures(study.last_finished(MAX_FAILURES_IN_A_ROW))
            done_before, memory_kills = _num_done(folder, study), num_memory_kills()
            most = MAX_KILLS_IN_A_ROW if -returncode in KILLS else MAX_DEATHS_IN_A_ROW
            if deaths >= most * crew.size:
                who = "The worker" if crew.size == 1 else "Workers"
                raise EnvironmentFault(f"{who} died {deaths} times in a row. {reason}")
            crew.start(number)
        if time.monotonic() >= next_tick or not crew.is_at_work:
            started = time.process_time()
            on_tick()
            if crew.may_grow:
                finished = study.finished_by_worker()
                crew.grow(finished, num_left=most_trials - finished.total())
            next_tick = time.monotonic() + max(TICK_S, (time.process_time() - started) / TICK_FRAC)
        if not crew.is_at_work:
            return
        crew.wait(POLL_S)


def _num_done(folder: RunFolder, study: Study) -> int:
    """How far the run is: trials, fresh trainings and epochs that were done."""
    return study.num_finished() + folder.num_trained() + study.num_epochs()


def _raise_reported(folder: RunFolder, number: int, returncode: int) -> None:
    """Raise what a worker could not go on with, and another one could not either."""
    if error_file(folder, number).is_file():
        report = read_json(error_file(folder, number), dict[str, str])
        raise getattr(errors, report["type"], TunerError)(report["message"])
    if returncode == BUG_EXIT_CODE:
        raise WorkerBug(f"The worker met a bug of the program. {_death(folder, number, returncode)}")


def _note_death(
    folder: RunFolder, study: Study, number: int, returncode: int, *, lease: str, is_out_of_memory: bool
) -> tuple[str, bool]:
    """Put back at once what the dead worker was doing; returns how it died, and whether it ran a trial."""
    reason = _death(folder, number, returncode)
    if is_out_of_memory:
        reason = f"The kernel ended it because memory ran out. {reason}"
    config = folder.load_config()
    worst = worst_objective(config.objective, stability_weight=config.stability_weight)
    worst += config.margin_weight * MAX_PENALTY_NATS
    put_back = study.give_back(
        worker=number,
        lease=lease,
        crashed=True,
        message=reason,
        worst_objective=worst,
        most_deaths=MAX_KILLS if -returncode in KILLS else MAX_ATTEMPTS,
        is_out_of_memory=is_out_of_memory,
    )
    if not put_back:
        note_crash(folder, reason, worker=number)
    leases.end(folder, lease)
    return reason, bool(put_back)


def _death(folder: RunFolder, number: int, returncode: int) -> str:
    """How a worker died, with what its log says of it."""
    how = (
        f"by signal {-returncode} ({signal.strsignal(-returncode)})"
        if returncode < 0
        else f"with exit code {returncode}"
    )
    file = worker_log(folder, number)
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    crash = _crash(lines[-NUM_SEARCHED_LINES:]) if returncode < 0 and -returncode not in KILLS else []
    shown = "\n".join(f"  {line}" for line in crash or lines[-NUM_LOG_LINES:])
    return f"It ended {how}. {'Its log' if crash else 'Last lines of'} {file}:\n{shown}"


def _crash(lines: list[str]) -> list[str]:
    """Of a log's last lines, where the interpreter crashed: the innermost calls; empty if it did not."""
    starts = [index for index, line in enumerate(lines) if line.startswith(FATAL)]
    if not starts:
        return []
    calls = [line for line in lines[starts[-1] :] if line.startswith("  File ")]
    return [lines[starts[-1]], *calls[:NUM_LOG_LINES]]
