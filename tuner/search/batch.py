"""Workers as batch jobs: the script of a Slurm array, its submission, the state of its jobs, and their end."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from tuner.config import SearchConfig
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import BatchJobs
from tuner.store import RunFolder, write_text

__all__ = ["JobOptions", "cancel_jobs", "check_config", "job_states", "render_slurm", "submit_slurm"]

# Numbers that each job has for its workers. Source: convention; no machine runs more of them.
STRIDE = 100
# How long the scheduler's programs may take, in seconds.
SCHEDULER_TIMEOUT_S = 60.0
# What an array of jobs is called, and one job of it.
_JOB_ID = re.compile(r"\d+")
# States of jobs that are over. Source: the manual of sacct.
_OVER = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")


@dataclass(frozen=True)
class JobOptions:
    """What one batch job gets; names as on the command line of `submit`.

    Attributes:
        jobs: How many jobs; each runs the workers of `--workers` on what it was given.
        cpus, gpus: Of each job.
        memory, time: As Slurm writes them: 16G, 04:00:00; empty for the site's defaults.
        sbatch_line: More directives, written as they are.
    """

    jobs: int = 2
    cpus: int = 4
    gpus: int = 0
    memory: str = ""
    time: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    module: tuple[str, ...] = ()
    venv: str = ""
    container: str = ""
    sbatch_line: tuple[str, ...] = field(default=())


def check_config(config: SearchConfig) -> None:
    """Refuse a search that cannot be spread over nodes.

    Raises:
        ConfigError: Its study is a file, or it has too many workers in a job.
    """
    if not config.storage:
        raise ConfigError(
            "Workers on several nodes meet in a database: give --storage postgresql://USER@HOST/DATABASE "
            "(docs/cluster.md). On this machine alone: python -m tuner search"
        )
    if config.workers != "auto" and config.workers > STRIDE:
        raise ConfigError(f"--workers {config.workers} is for each job; {STRIDE} at most. Give more --jobs instead.")


def render_slurm(folder: RunFolder, options: JobOptions) -> str:
    """The script of the array.

    Raises:
        ConfigError: A value would end its line.
    """
    named = {
        "mem": options.memory,
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
    }
    for text in (*named.values(), *options.module, options.venv, options.container, *options.sbatch_line):
        if not text.isprintable():
            raise ConfigError(f"{text!r} has a line break or another character that no script line can hold.")
    for name, value in named.items():
        if any(letter in value for letter in " \t#'\"\\"):
            raise ConfigError(
                f"--{name} {value!r} is not a value of Slurm's. Give more than one option by --sbatch-line."
            )
    program = [sys.executable, "-m", "tuner"]
    if options.venv or options.container:
        program = ["python", "-m", "tuner"]
    if options.container:
        # GPUs are seen inside, and the folders of the run.
        gpu = ["--nv"] if options.gpus else []
        program = ["apptainer", "exec", *gpu, "--bind", str(folder.root.absolute()), options.container, *program]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.search"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["quote"] = shlex.quote
    script: str = environment.get_template("slurm.sh.j2").render(
        command=shlex.join(_sbatch(folder)),
        options=options,
        directives=[(name, value) for name, value in named.items() if value],
        run=str(folder.root.absolute()),
        folder=str(Path.cwd()),
        program=shlex.join(program),
        # Those of a search in the foreground begin with 0.
        first=STRIDE * (1 + sum(each.num_jobs for each in folder.load_jobs())),
        stride=STRIDE,
    )
    return script


def _script(folder: RunFolder) -> Path:
    return folder.root.absolute() / "job.sh"


def _sbatch(folder: RunFolder) -> list[str]:
    # Slurm replaces what stands behind a percent sign.
    logs = str(folder.logs_dir.absolute()).replace("%", "%%")
    return ["sbatch", "--parsable", f"--output={logs}/slurm-%A_%a.log", str(_script(folder))]


def submit_slurm(folder: RunFolder, options: JobOptions, *, version: str) -> BatchJobs:
    """Write the script into the run folder, submit it, and note the jobs.

    Args:
        folder: A run that is set up.
        options: What each job gets.
        version: Of this program, which the nodes must have too.

    Raises:
        EnvironmentFault: There is no Slurm here, or it refuses the jobs.
    """
    require_program("sbatch")
    write_text(_script(folder), render_slurm(folder, options))
    answer = _ask(_sbatch(folder))
    found = _JOB_ID.match(answer)
    if found is None:
        raise EnvironmentFault(
            f"sbatch answered {answer!r}, which is no number of a job. Look for it with squeue --me."
        )
    jobs = BatchJobs("slurm", found[0], options.jobs, version)
    folder.save_jobs([*folder.load_jobs(), jobs])
    return jobs


def job_states(folder: RunFolder) -> list[tuple[str, str]]:
    """Name and state of each batch job of a run, oldest first, as its scheduler tells them; empty if there are none.

    Raises:
        EnvironmentFault: The scheduler does not answer.
    """
    states = []
    for each in folder.load_jobs():
        known = dict(_states(each.number))
        states += [(f"{each.number}_{index}", known.get(str(index), "ENDED")) for index in range(each.num_jobs)]
    return states


def _states(number: str) -> list[tuple[str, str]]:
    """Index and state of the jobs of an array that wait, run, or have ended lately."""
    require_program("squeue")
    try:
        lines = _ask(["squeue", "--noheader", "--array", "--states=all", f"--jobs={number}", "--format=%K %T"])
    except EnvironmentFault as error:
        # Of an array that ended some time ago.
        if "Invalid job id" in str(error):
            return []
        raise
    return [(index, state) for index, _, state in (line.partition(" ") for line in lines.splitlines()) if state]


def cancel_jobs(folder: RunFolder) -> list[str]:
    """End the jobs of a run that wait or run; returns their arrays.

    Raises:
        EnvironmentFault: There is no Slurm here, or it refuses.
    """
    numbers = []
    for each in folder.load_jobs():
        if any(state.split()[0] not in _OVER for _, state in _states(each.number)):
            require_program("scancel")
            _ask(["scancel", each.number])
            numbers.append(each.number)
    return numbers


def require_program(name: str) -> None:
    """Refuse to go on without a program.

    Raises:
        EnvironmentFault: It is not on PATH.
    """
    if shutil.which(name) is None:
        raise EnvironmentFault(
            f"{name!r} is not on PATH. Run this on a login node of the cluster, or print the script: "
            "python -m tuner submit --dry-run ..."
        )


def _ask(command: Sequence[str]) -> str:
    """What a program of the scheduler answers.

    Raises:
        EnvironmentFault: It fails, with its own words.
    """
    name = command[0]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SCHEDULER_TIMEOUT_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{name} did not answer: {error}. Try it by hand: {shlex.join(command)}") from error
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise EnvironmentFault(f"The scheduler refused: {told}. Its command was: {shlex.join(command)}")
    return done.stdout.strip()
