"""How much memory the worker of a long search holds.

    python -m benchmarks.memory [--trials 500] [--fix NAME=VALUE ...]

A real search of scikit-learn's digits, one epoch a trial, random configurations of the default space (or what `--fix`
leaves of it), one worker. Its resident memory is looked at after every trial; a worker that has grown by a gigabyte
makes room for a new one between two trainings, so what counts is the most that any of them held. Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tuner.search.study import load_trials
from tuner.store import RunFolder

NUM_ROWS = 10
POLL_S = 1.0


def main() -> None:
    """Search, look, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--fix", nargs="*", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-memory-") as root:
        seen = watched(RunFolder(Path(root) / "run"), arguments)
    table = Table(title=f"{arguments.trials} trials, one worker at a time")
    for heading in ("finished trials", "MB held", "most MB so far", "workers so far"):
        table.add_column(heading)
    for row in range(1, NUM_ROWS + 1):
        until = [each for each in seen if each[0] <= arguments.trials * row / NUM_ROWS]
        if not until:
            continue
        table.add_row(
            str(until[-1][0]),
            f"{until[-1][2]:,}",
            f"{max(megabytes for _, _, megabytes in until):,}",
            str(len({process for _, process, _ in until})),
        )
    Console(width=100).print(table)


def watched(folder: RunFolder, arguments: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Finished trials, process number and megabytes of the worker, whenever a trial has ended."""
    command = [sys.executable, "-m", "tuner", "search", "--run", str(folder.root), "--quiet", "--workers", "1"]
    command += ["--trials", str(arguments.trials), "--epochs", "1", "--pruner", "none", "--confirm", "0"]
    command += ["--algorithm", "random", *(part for text in arguments.fix for part in ("--fix", text))]
    seen: list[tuple[int, int, int]] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as search:
        while search.poll() is None:
            time.sleep(POLL_S)
            finished = len([*folder.trials_dir.glob("*/seed_0/record.json")])
            process = worker_of(search.pid)
            if process is not None and finished and (not seen or finished > seen[-1][0]):
                seen.append((finished, process, resident_megabytes(process)))
    if search.returncode not in (0, 1) or len(load_trials(folder)) != arguments.trials:
        raise SystemExit(f"The search ended with {search.returncode}.")
    return seen


def worker_of(supervisor: int) -> int | None:
    """The only child of a process."""
    try:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(children[0]) if children else None


def resident_megabytes(process: int) -> int:
    """What a process holds; 0 for one that has just ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


if __name__ == "__main__":
    main()
