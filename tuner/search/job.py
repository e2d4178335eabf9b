"""One batch job: it supervises the workers of its share of the machine; the last job of a run writes the report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tuner import __version__
from tuner.errors import EnvironmentFault
from tuner.search.plan import is_finished
from tuner.search.study import load_trials
from tuner.search.supervisor import supervise
from tuner.stability.ranking import rank
from tuner.store import RunFolder

__all__ = ["run_job"]


def run_job(folder: RunFolder, *, first: int, say: Callable[[str], None], write_report: Callable[[], object]) -> None:
    """Run workers until the run has nothing left to do.

    Args:
        folder: A run that is set up.
        first: Number of the first worker.
        say: Takes lines for the log of the job.
        write_report: Called when the whole run is done.

    Raises:
        EnvironmentFault: The version on this node is another one than submitted the job, or the workers meet a fault.
    """
    for each in folder.load_jobs():
        if each.version != __version__:
            raise EnvironmentFault(
                f"The jobs were submitted by version {each.version} of this program, and this node has {__version__}. "
                "Install the same on all nodes, or use one environment that they share (--venv, --container)."
            )
    config = folder.load_config()
    told = -1

    def tell() -> None:
        nonlocal told
        finished = len(rank(load_trials(folder)))
        if finished != told:
            say(f"{finished} of {config.trials} trials finished")
            told = finished

    # Jobs of a database know of each other by their leases; one whose study is a file is alone.
    with contextlib.nullcontext() if folder.load_shared_study() else folder.lock():
        deadline = time.time() + config.time_limit if config.time_limit else None
        supervise(folder, deadline=deadline, on_tick=tell, first=first)
    if is_finished(folder, config):
        with folder.exclusive("report"):
            say(f"Report: {write_report()}")
