"""The batch jobs of a run, whatever scheduler runs them: whether there can be any, their states, their end."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from tuner.config import SearchConfig
from tuner.errors import ConfigError
from tuner.records import BatchJobs
from tuner.search import kubernetes, local, slurm
from tuner.search.kubernetes import PodOptions
from tuner.search.local import LocalOptions
from tuner.search.scheduler import STRIDE, require_program
from tuner.search.slurm import JobOptions
from tuner.store import RunFolder, storage_errors

__all__ = ["cancel_jobs", "check_config", "job_options", "job_states", "render", "require_scheduler", "submit"]

BackendName = Literal["slurm", "kubernetes", "local"]
BackendOptions = JobOptions | PodOptions | LocalOptions


class Backend(Protocol):
    """What runs batch jobs: a module with these names.

    Attributes:
        OPTIONS: Dataclass of what each job gets, fields named as on the command line.
        PROGRAM: That submits; empty if none is needed.
    """

    OPTIONS: type[Any]
    PROGRAM: str

    def render(self, folder: RunFolder, options: Any) -> str:
        """What the scheduler would get."""

    def submit(self, folder: RunFolder, options: Any, *, version: str) -> BatchJobs:
        """Give it to the scheduler, and note the jobs in the run folder."""

    def states(self, folder: RunFolder, jobs: BatchJobs) -> list[tuple[str, str]]:
        """Name and state of each job."""

    def cancel(self, folder: RunFolder, jobs: BatchJobs) -> bool:
        """End those that wait or run; False if none did."""


_BACKENDS: dict[BackendName, Backend] = {"slurm": slurm, "kubernetes": kubernetes, "local": local}


def require_scheduler(backend: BackendName) -> None:
    """Refuse to go on without the program that submits.

    Raises:
        EnvironmentFault: It is not on PATH.
    """
    if _BACKENDS[backend].PROGRAM:
        instead = "print what it would get: python -m tuner submit --dry-run ..."
        require_program(_BACKENDS[backend].PROGRAM, otherwise=instead)


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
        given: Only what the user gave, by name of a field of the backend's `OPTIONS`.

    Raises:
        ConfigError: An option is not one of this scheduler's.
    """
    kind = _BACKENDS[backend].OPTIONS
    known = {field.name for field in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            flag = f"--{'job-time' if name == 'time' else name.replace('_', '-')}"
            raise ConfigError(f"{flag} means nothing to --backend {backend}. Leave it out.")
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    # One that is missing is told when the job is rendered.
    options: BackendOptions = kind(**(dict.fromkeys(required, "") | dict(given)))
    return options


def render(folder: RunFolder, options: BackendOptions) -> str:
    """What the scheduler would get.

    Raises:
        ConfigError: A value is not one that it takes.
    """
    return _backend_of(options).render(folder, options)


def submit(folder: RunFolder, options: BackendOptions, *, version: str) -> BatchJobs:
    """Give the scheduler what `render` shows, and note the jobs in the run folder.

    Args:
        folder: A run that is set up.
        options: What each job gets.
        version: Of this program, which the nodes must have too.

    Raises:
        ConfigError: A value is not one that it takes.
        EnvironmentFault: Its program is not here, it refuses the jobs, or their logs cannot be written.
        RunError: Workers of this machine are at the run already, and its study is a file.
    """
    # A job whose log cannot be opened ends without a word.
    with storage_errors(folder.logs_dir):
        folder.logs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.logs_dir):
            pass
    return _backend_of(options).submit(folder, options, version=version)


def job_states(folder: RunFolder) -> list[tuple[str, str]]:
    """Name and state of each batch job of a run, oldest first, as its scheduler tells them; empty if there are none.

    Raises:
        EnvironmentFault: The scheduler does not answer.
    """
    return [state for jobs in folder.load_jobs() for state in _BACKENDS[jobs.backend].states(folder, jobs)]


def cancel_jobs(folder: RunFolder) -> list[str]:
    """End the jobs of a run that wait or run; returns what they are called together.

    Raises:
        EnvironmentFault: The scheduler's program is not here, or it refuses.
    """
    return [jobs.number for jobs in folder.load_jobs() if _BACKENDS[jobs.backend].cancel(folder, jobs)]


def _backend_of(options: BackendOptions) -> Backend:
    return next(backend for backend in _BACKENDS.values() if isinstance(options, backend.OPTIONS))
