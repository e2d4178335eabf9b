"""Worker processes, and those that load Keras already while the command that starts them still reads the data."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from tuner.loading import load_keras
from tuner.search.machine import num_cores
from tuner.search.parent import SUPERVISOR_VARIABLE, end_with_parent

__all__ = ["Standby", "await_order", "start_process"]


def start_process(
    arguments: Sequence[str], environment: Mapping[str, str], *, output: IO[bytes] | int, takes_orders: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command of this program that ends with this process.

    Args:
        arguments: After the name of the program.
        environment: Beside this process's own.
        output: Where all goes that it prints.
        takes_orders: Whether it reads from a pipe.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"), "PYTHONUNBUFFERED": "1"}
    # A session of its own: Ctrl-C on the terminal reaches the supervisor alone, which then ends the workers.
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        stdin=subprocess.PIPE if takes_orders else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, **quiet, SUPERVISOR_VARIABLE: str(os.getpid()), **environment},
        start_new_session=True,
    )


class Standby:
    """Processes that load what a worker needs and wait for an order; those without one end when the block is left.

    One core is left to the process that starts them, which has work of its own until it gives orders.

    Args:
        environments: Of the workers that will be wanted, beside this process's own.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._environments = environments[: num_cores() - 1]
        self._waiting: list[tuple[Mapping[str, str], subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Standby:
        # If there is none, workers are started when they are wanted, and what is wrong is told then.
        with contextlib.suppress(OSError):
            for each in self._environments:
                process = start_process(["standby"], each, output=subprocess.DEVNULL, takes_orders=True)
                self._waiting.append((each, process))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()

    def order(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, more: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes] | None:
        """Have one of them be a command of this program.

        Args:
            arguments: The command line, after the name of the program.
            environment: What it must have been started with.
            more: What its environment gets now.
            log: Where what it prints is appended.

        Returns:
            Its process; None if none is there with that environment.
        """
        order = json.dumps({"arguments": list(arguments), "environment": dict(more), "log": str(log)}).encode()
        for waiting in [each for each in self._waiting if each[0] == environment]:
            self._waiting.remove(waiting)
            process = waiting[1]
            with contextlib.suppress(BrokenPipeError), cast(IO[bytes], process.stdin) as pipe:
                pipe.write(order)
            if process.poll() is None:
                return process
        return None

    def dismiss(self) -> None:
        """End those that still wait."""
        for _, process in self._waiting:
            process.kill()
            process.communicate()
        self._waiting.clear()


def await_order() -> list[str]:
    """In such a process: load what a worker needs, wait, and take log and environment from the order.

    Returns:
        The command line; empty if none is wanted.
    """
    end_with_parent()
    # What is wrong with a package is met again by the worker's own import, when there is a log to tell it in.
    with contextlib.suppress(Exception):
        load_keras()
        import tuner.search.worker  # noqa: F401
    text = sys.stdin.read()
    if not text:
        return []
    order = json.loads(text)
    os.environ.update(order["environment"])
    with open(order["log"], "ab") as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    return list(order["arguments"])
