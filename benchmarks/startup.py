"""How long the light commands take to start, against a bare Python start in the same run.

    python benchmarks/startup.py

The aim is `python -m tuner --help` under 0.5 s on two cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

REPEATS = 7
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import tuner": ["-c", "import tuner"],
    "tuner --help": ["-m", "tuner", "--help"],
    "tuner search --help": ["-m", "tuner", "search", "--help"],
    "tuner status --help": ["-m", "tuner", "status", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Median wall time of a command, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print a table of seconds and ratios."""
    measured = {name: seconds(arguments) for name, arguments in COMMANDS.items()}
    table = Table(title=f"median of {REPEATS} starts")
    for heading in ("command", "seconds", "times bare python"):
        table.add_column(heading)
    for name, value in measured.items():
        table.add_row(name, f"{value:.3f}", f"{value / measured['bare python']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
