"""The programs of a scheduler: looked for, asked, their refusals told; and what its jobs number their workers by."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

from tuner.errors import EnvironmentFault

__all__ = ["STRIDE", "ask", "require_program"]

# Numbers that each job has for its workers. Source: convention; no machine runs more of them.
STRIDE = 100
# How long the scheduler's programs may take, in seconds.
SCHEDULER_TIMEOUT_S = 60.0


def require_program(name: str, *, otherwise: str = "") -> None:
    """Refuse to go on without a program.

    Args:
        name: Of the program.
        otherwise: What can be done without it.

    Raises:
        EnvironmentFault: It is not on PATH.
    """
    if shutil.which(name) is None:
        instead = f", or {otherwise}" if otherwise else "."
        raise EnvironmentFault(
            f"{name!r} is not on PATH. Run this where it is, such as a login node of the cluster{instead}"
        )


def ask(command: Sequence[str]) -> str:
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
