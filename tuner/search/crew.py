"""The worker processes of one supervisor: started, looked at, more of them where there is room, ended."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tuner import leases
from tuner.search.machine import (
    card_environment,
    cards_with_room,
    environments_of,
    growing_cards,
    num_cores,
)
from tuner.search.plan import give_up_claims
from tuner.search.scheduler import STRIDE
from tuner.search.standby import Standby, start_process
from tuner.search.study import Study
from tuner.store import RunFolder, storage_errors

__all__ = ["Crew", "error_file", "worker_log"]

# How long workers may take to end when they are told to, before they are killed.
STOP_GRACE_S = 5.0


def worker_log(folder: RunFolder, number: int = 0) -> Path:
    """Where everything that a worker prints goes."""
    return folder.logs_dir / f"worker-{number}.log"


def error_file(folder: RunFolder, number: int) -> Path:
    """Where a worker leaves the error that it ended with, for its supervisor."""
    return folder.logs_dir / f"worker-{number}.error.json"


class Crew:
    """The worker processes of a run; ended, and their work put back, when the block is left (Ctrl-C included).

    Args:
        folder: The run.
        deadline, only_confirm: Passed on to the workers.
        first: Number of the first worker.
        standby: Processes that may be workers already waiting; those that are not needed are ended.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        deadline: float | None,
        only_confirm: bool,
        first: int,
        standby: Standby | None = None,
    ) -> None:
        self._folder = folder
        self._first = first
        self._options = ["--until", repr(deadline)] if deadline is not None else []
        self._options += ["--only-confirm"] if only_confirm else []
        config = folder.load_config()
        self._cards = growing_cards(config, only_confirm=only_confirm)
        self._environments = environments_of(config, only_confirm=only_confirm)
        self._standby = standby
        self._finished: Counter[int] | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # Of the last process of each number; of no account for a study that is a file.
        self.leases: dict[int, str] = {}

    @property
    def size(self) -> int:
        """How many workers there are, ended ones included."""
        return len(self._environments)

    @property
    def is_at_work(self) -> bool:
        """Whether a worker is running."""
        return bool(self._processes)

    def __enter__(self) -> Crew:
        try:
            for number in range(self._first, self._first + self.size):
                self.start(number)
        except BaseException:
            self._stop()
            raise
        if self._standby:
            self._standby.dismiss()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_at_work or kind is not None:
            self._stop()
            for lease in self.leases.values():
                leases.end(self._folder, lease)
            Study.of_run(self._folder).give_back(crashed=False)
            give_up_claims(self._folder)

    def start(self, number: int) -> None:
        """Start the worker of that number."""
        error_file(self._folder, number).unlink(missing_ok=True)
        self.leases[number] = secrets.token_hex(8)
        environment = self._environments[number - self._first]
        arguments = ["worker", *self._options, "--number", str(number), "--", str(self._folder.root)]
        more = {leases.LEASE_VARIABLE: self.leases[number]}
        file = worker_log(self._folder, number)
        with storage_errors(file), open(file, "ab") as log:
            waiting = self._standby.order(arguments, environment, more=more, log=file) if self._standby else None
            self._processes[number] = waiting or start_process(arguments, environment | more, output=log)

    @property
    def may_grow(self) -> bool:
        """Whether `grow` may start another worker: on graphics cards, when their number was left to this program."""
        return bool(self._cards) and self.size < min(num_cores(), STRIDE)

    def grow(self, finished: Mapping[int, int], *, num_left: int) -> None:
        """Start one more worker on each card with room for it, each time that every worker has finished a trial.

        Args:
            finished: How many trials each worker has finished so far, by its number.
            num_left: Trials that have not ended.
        """
        if self._finished is None:
            self._finished = Counter(finished)
        numbers = range(self._first, self._first + self.size)
        if num_left <= self.size or any(finished.get(each, 0) <= self._finished[each] for each in numbers):
            return
        self._finished = Counter(finished)
        there = Counter(each["CUDA_VISIBLE_DEVICES"] for each in self._environments)
        for card in cards_with_room({name: there[name] for name in self._cards}):
            if self.may_grow:
                self._environments.append(card_environment(card, is_shared=True))
                self.start(self._first + self.size - 1)

    def wait(self, seconds: float) -> None:
        """Wait for so long at most; less if the first of the workers ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            next(iter(self._processes.values())).wait(seconds)

    def ended(self) -> list[tuple[int, int]]:
        """Number and exit code of the workers that have ended since the last call."""
        found = [(number, code) for number, each in self._processes.items() if (code := each.poll()) is not None]
        for number, _ in found:
            del self._processes[number]
        return found

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
