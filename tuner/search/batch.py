"""The batch jobs of a run, whatever scheduler runs them: whether there can be any, their states, their end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from tuner.config import SearchConfig
from tuner.errors import ConfigError
from tuner.records import BatchJobs
from tuner.search import kubernetes, local, slurm
from tuner.search.kubernetes import PodOptions
from tuner.search.local import LocalOptions
from tuner.search.scheduler import STRIDE, require_program
from tuner.search.slurm import JobOptions
from tuner.store import RunFolder

__all__ = ["cancel_jobs", "check_config", "job_options", "job_states", "render", "require_scheduler", "submit"]

BackendName = Literal["slurm", "kubernetes", "local"]
BackendOptions = JobOptions | PodOptions | LocalOptions

_OPTIONS: dict[BackendName, type[BackendOptions]] = {
    "slurm": JobOptions,
    "kubernetes": PodOptions,
    "local": LocalOptions,
}
_PROGRAMS: dict[BackendName, str] = {"slurm": "sbatch", "kubernetes": "kubectl"}


def require_scheduler(backend: BackendName) -> None:
    """Refuse to go on without the program that submits.

    Raises:
        EnvironmentFault: It is not on PATH.
    """
    if backend in _PROGRAMS:
        require_program(_PROGRAMS[backend])


def check_config(config: SearchConfig, backend: BackendName) -> None:
    """Refuse a search whose workers this scheduler cannot run.

    Raises:
        ConfigError: Its study is a file, or it has too many workers in a job.
    """
    if not config.storage and backend != "local":
        raise ConfigError(
            "Workers on several nodes meet in a database: give --storage postgresql://USER@HOST/DATABASE "
            "(docs/cluster.md). On this machine alone: --backend local, or python -m tuner search"
        )
    if config.workers != "auto" and config.workers > STRIDE:
        raise ConfigError(f"--workers {config.workers} is for each job; {STRIDE} at most. Give more --jobs instead.")


def job_options(backend: BackendName, given: Mapping[str, Any]) -> BackendOptions:
    """What each job gets, from the options that the user gave.

    Args:
        backend: Scheduler.
        given: Only what the user gave, by name of `JobOptions` or `PodOptions`.

    Raises:
        ConfigError: An option is not one of this scheduler's, or one that it needs is missing.
    """
    kind = _OPTIONS[backend]
    known = {field.name for field in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            flag = f"--{'job-time' if name == 'time' else name.replace('_', '-')}"
            raise ConfigError(f"{flag} means nothing to --backend {backend}. Leave it out.")
    needed = {"image": "", "claim": ""} if kind is PodOptions else {}
    return kind(**(needed | dict(given)))


def render(folder: RunFolder, options: BackendOptions) -> str:
    """What the scheduler would get.

    Raises:
        ConfigError: A value is not one that it takes.
    """
    if isinstance(options, PodOptions):
        return kubernetes.render_job(folder, options)
    if isinstance(options, LocalOptions):
        return local.render_command(folder)
    return slurm.render_slurm(folder, options)


def submit(folder: RunFolder, options: BackendOptions, *, version: str) -> BatchJobs:
    """Give the scheduler what `render` shows, and note the jobs in the run folder.

    Raises:
        ConfigError: A value is not one that it takes.
        EnvironmentFault: Its program is not here, or it refuses the jobs.
    """
    if isinstance(options, PodOptions):
        return kubernetes.submit_job(folder, options, version=version)
    if isinstance(options, LocalOptions):
        return local.start_process(folder, version=version)
    return slurm.submit_slurm(folder, options, version=version)


def job_states(folder: RunFolder) -> list[tuple[str, str]]:
    """Name and state of each batch job of a run, oldest first, as its scheduler tells them; empty if there are none.

    Raises:
        EnvironmentFault: The scheduler does not answer.
    """
    return [state for jobs in folder.load_jobs() for state in _states(folder, jobs)]


def _states(folder: RunFolder, jobs: BatchJobs) -> list[tuple[str, str]]:
    if jobs.backend == "local":
        return local.process_states(folder, jobs)
    return slurm.job_states(jobs) if jobs.backend == "slurm" else kubernetes.job_states(jobs)


def cancel_jobs(folder: RunFolder) -> list[str]:
    """End the jobs of a run that wait or run; returns what they are called together.

    Raises:
        EnvironmentFault: The scheduler's program is not here, or it refuses.
    """
    ended = []
    for jobs in folder.load_jobs():
        ended += [jobs.number] if _cancel(folder, jobs) else []
    return ended


def _cancel(folder: RunFolder, jobs: BatchJobs) -> bool:
    if jobs.backend == "local":
        return local.cancel_process(folder, jobs)
    return slurm.cancel_array(jobs) if jobs.backend == "slurm" else kubernetes.cancel_job(jobs)
