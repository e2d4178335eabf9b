"""Workers as an array of Slurm jobs: its script, its submission, the state of its jobs, and their end."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import BatchJobs
from tuner.search.scheduler import STRIDE, ask, require_program
from tuner.store import RunFolder, write_text

__all__ = ["OPTIONS", "PROGRAM", "JobOptions", "cancel", "render", "states", "submit"]

PROGRAM = "sbatch"

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


OPTIONS = JobOptions


def render(folder: RunFolder, options: JobOptions) -> str:
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


def submit(folder: RunFolder, options: JobOptions, *, version: str) -> BatchJobs:
    """Write the script into the run folder, submit it, and note the jobs.

    Args:
        folder: A run that is set up.
        options: What each job gets.
        version: Of this program, which the nodes must have too.

    Raises:
        EnvironmentFault: There is no Slurm here, or it refuses the jobs.
    """
    require_program(PROGRAM)
    write_text(_script(folder), render(folder, options))
    answer = ask(_sbatch(folder))
    found = _JOB_ID.match(answer)
    if found is None:
        raise EnvironmentFault(
            f"sbatch answered {answer!r}, which is no number of a job. Look for it with squeue --me."
        )
    jobs = BatchJobs("slurm", found[0], options.jobs, version)
    folder.save_jobs([*folder.load_jobs(), jobs])
    return jobs


def states(folder: RunFolder, jobs: BatchJobs) -> list[tuple[str, str]]:
    """Name and state of each job of an array, as Slurm tells them.

    Raises:
        EnvironmentFault: Slurm does not answer.
    """
    known = dict(_states(jobs.number))
    return [(f"{jobs.number}_{index}", known.get(str(index), "ENDED")) for index in range(jobs.num_jobs)]


def _states(number: str) -> list[tuple[str, str]]:
    """Index and state of the jobs of an array that wait, run, or have ended lately."""
    require_program("squeue")
    try:
        lines = ask(["squeue", "--noheader", "--array", "--states=all", f"--jobs={number}", "--format=%K %T"])
    except EnvironmentFault as error:
        # Of an array that ended some time ago.
        if "Invalid job id" in str(error):
            return []
        raise
    return [(index, state) for index, _, state in (line.partition(" ") for line in lines.splitlines()) if state]


def cancel(folder: RunFolder, jobs: BatchJobs) -> bool:
    """End the jobs of an array that wait or run; False if none did.

    Raises:
        EnvironmentFault: There is no Slurm here, or it refuses.
    """
    if all(state.split()[0] in _OVER for _, state in _states(jobs.number)):
        return False
    require_program("scancel")
    ask(["scancel", jobs.number])
    return True
