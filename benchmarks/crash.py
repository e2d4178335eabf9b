"""A search under random `kill -9`: is a trial lost, is one counted twice, and how much work is done again?

    python -m benchmarks.crash [--kills 50] [--trials 30] [--epochs 8] [--workers 2] [--seed 0]

Searches on scikit-learn's digits, one after the other until there were so many kills. Every few seconds one worker, the
supervisor, or all of them at once die by SIGKILL; where the supervisor died, the same command is given again. Linux.

"Epochs done twice": of each trial whose worker was killed, the epochs that it had reported less those that it went on
from. The epoch that was running is lost beside them; the aim is less than one epoch each kill.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tuner.records import Outcome
from tuner.search.crew import worker_log
from tuner.search.study import load_trials
from tuner.store import RunFolder

# Mean seconds from one kill to the next; a worker takes some seconds to start, and must come to train at times.
MEAN_PAUSE_S = 6.0
VICTIMS = {"worker": 0.5, "supervisor": 0.3, "all": 0.2}
# A small network, so that a trial has many epochs, and the same for all.
SPACE = ("num_blocks=1", "filters_1=16", "batch_size=16", "augmentation=none")
# `2026-11-26 20:49:02,123 .../trials/0007/seed_0: the training goes on with epoch 5`
_GOES_ON = re.compile(r"^(\S+ \S+),\d+ .*/trials/(\d+)/seed_\d+: the training goes on with epoch (\d+)$")


@dataclass
class Kill:
    """One kill, and the epochs that the trials of the dead workers had reported."""

    victim: str
    at: float
    reported: dict[int, int] = field(default_factory=dict)


def main() -> None:
    """Search, kill, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=30, help="of each search")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    started, rows, num_kills = time.monotonic(), [], 0
    while num_kills < arguments.kills:
        with tempfile.TemporaryDirectory() as root:
            folder = RunFolder(Path(root) / "run")
            kills = search(folder, arguments, rng, most=arguments.kills - num_kills, seed=len(rows))
            rows.append(count(folder, kills, arguments))
            num_kills += len(kills)
    show(rows, seconds=time.monotonic() - started)


def search(folder: RunFolder, arguments: argparse.Namespace, rng: random.Random, *, most: int, seed: int) -> list[Kill]:
    """One search to its end, with at most so many kills."""
    command = [sys.executable, "-m", "tuner", "search", "--run", str(folder.root), "--seed", str(seed), "--quiet"]
    command += ["--trials", str(arguments.trials), "--epochs", str(arguments.epochs), "--confirm", "0"]
    command += ["--workers", str(arguments.workers), "--pruner", "none"]
    command += [part for text in SPACE for part in ("--fix", text)]
    kills: list[Kill] = []
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            pause = rng.expovariate(1 / MEAN_PAUSE_S)
            try:
                process.wait(pause)
            except subprocess.TimeoutExpired:
                if len(kills) < most:
                    kills += kill(process, folder, rng)
        if process.returncode != -signal.SIGKILL:
            _, told = process.communicate()
            if process.returncode not in (0, 1):
                raise SystemExit(f"The search ended with exit code {process.returncode}: {told[-2000:]}")
            return kills
        process.communicate()


def kill(process: subprocess.Popen[str], folder: RunFolder, rng: random.Random) -> list[Kill]:
    """Kill something of a running search; nothing if it has no worker at the moment."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    numbers = {int(pid): number for pid in found.stdout.split() if (number := _worker_number(int(pid))) is not None}
    workers = list(numbers)
    if not workers:
        return []
    victim = rng.choices(list(VICTIMS), list(VICTIMS.values()))[0]
    pids = {"worker": [rng.choice(workers)], "supervisor": [process.pid], "all": [*workers, process.pid]}[victim]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    at = time.time()
    dead = None if victim != "worker" else numbers[pids[0]]
    reported = {
        trial.number: len(trial.epoch_losses)
        for trial in load_trials(folder)
        if trial.outcome is Outcome.RUNNING and trial.epoch_losses and dead in (None, trial.worker)
    }
    print(f"\r{time.strftime('%H:%M:%S')} killed: {victim:10}", end="", file=sys.stderr, flush=True)
    return [Kill(victim, at, reported)]


def _worker_number(pid: int) -> int | None:
    """By the log that it writes to; None if it is no worker (yet)."""
    try:
        log = Path(f"/proc/{pid}/fd/1").readlink().stem
    except OSError:
        return None
    return int(log.removeprefix("worker-")) if log.startswith("worker-") else None


@dataclass
class Row:
    """What was counted of one search."""

    kills: collections.Counter[str]
    num_trials: int
    num_lost: int
    num_doubled: int
    num_epochs: int
    num_epochs_again: int


def count(folder: RunFolder, kills: list[Kill], arguments: argparse.Namespace) -> Row:
    """Hold the finished run against what was asked for."""
    trials = load_trials(folder)
    finished = [trial for trial in trials if trial.outcome not in (Outcome.RUNNING, Outcome.WAITING)]
    tried = collections.Counter(str(sorted(trial.hyperparameters.items())) for trial in finished)
    recorded = [trial for trial in finished if len(trial.seed_runs) == 1 or trial.outcome is Outcome.CRASHED]
    return Row(
        kills=collections.Counter(each.victim for each in kills),
        num_trials=len(finished),
        num_lost=arguments.trials - len(recorded),
        num_doubled=sum(tried.values()) - len(tried) + max(0, len(finished) - arguments.trials),
        num_epochs=sum(len(trial.epoch_losses) for trial in finished),
        num_epochs_again=_epochs_again(folder, kills),
    )


def _epochs_again(folder: RunFolder, kills: list[Kill]) -> int:
    """Epochs that had been reported, and were trained once more."""
    gone_on: list[tuple[float, int, int]] = []
    for log in folder.logs_dir.glob(worker_log(folder, 0).name.replace("0", "*")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _GOES_ON.match(line):
                at = datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").timestamp()
                gone_on.append((at, int(match[2]), int(match[3]) - 1))
    events = [(each.at, trial, reported, True) for each in kills for trial, reported in each.reported.items()]
    # Times in the log are whole seconds.
    events += [(at + 0.999, trial, kept, False) for at, trial, kept in gone_on]
    total, pending = 0, dict[int, int]()
    for _, trial, epochs, is_kill in sorted(events):
        if not is_kill:
            total += max(0, pending.pop(trial, epochs) - epochs)
            continue
        # Killed again: before it went on, or after it had begun from the start.
        total += pending.get(trial, 0) if epochs < pending.get(trial, 0) else 0
        pending[trial] = epochs
    return total + sum(pending.values())


def show(rows: list[Row], *, seconds: float) -> None:
    """Print the table."""
    kills: collections.Counter[str] = sum((row.kills for row in rows), collections.Counter())
    again, num_kills = sum(row.num_epochs_again for row in rows), sum(kills.values())
    table = Table(title=f"{len(rows)} searches in {seconds / 60:.0f} minutes")
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in (
        ("kills", f"{num_kills} ({', '.join(f'{number} {victim}' for victim, number in kills.items())})"),
        ("trials finished", str(sum(row.num_trials for row in rows))),
        ("trials lost", str(sum(row.num_lost for row in rows))),
        ("trials counted twice", str(sum(row.num_doubled for row in rows))),
        ("epochs of the finished trials", str(sum(row.num_epochs for row in rows))),
        ("epochs done twice", str(again)),
        ("epochs done twice, each kill", f"{again / max(1, num_kills):.2f}"),
    ):
        table.add_row(name, value)
    Console().print(table)


if __name__ == "__main__":
    main()
