"""What trials that refine a leading one save, and what they cost the search.

    python -m benchmarks.refinement [--trials 30] [--epochs 4] [--seeds 0 1]

The search of scikit-learn's digits in the default space, in this process, with and without them, one after the other:
how many trials of those after the tenth found their program compiled, the seconds of all, the best objective, and the
mean of the best three.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

from tuner.config import SearchConfig
from tuner.records import TrialRecord
from tuner.search import oracle, setup, worker
from tuner.search.study import load_trials
from tuner.training import programs


def main() -> None:
    """Search, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.trials} trials of {arguments.epochs} epochs on digits")
    for heading in ("seed", "refined", "programs found", "seconds", "best objective", "mean of the best three"):
        table.add_column(heading)
    first = oracle.FIRST_REFINED
    for seed in arguments.seeds:
        for is_refined in (True, False):
            oracle.FIRST_REFINED = first if is_refined else arguments.trials
            seconds, trials = search(arguments, seed=seed)
            found = [bool(run.program == "reused") for trial in trials[first:] for run in trial.seed_runs[:1]]
            best = sorted(float(trial.objective or 0.0) for trial in trials)[:3]
            table.add_row(
                str(seed),
                "yes" if is_refined else "no",
                f"{sum(found)} of {len(found)}",
                f"{seconds:.0f}",
                f"{best[0]:.3f}",
                f"{statistics.mean(best):.3f}",
            )
    Console(width=100).print(table)


def search(arguments: argparse.Namespace, *, seed: int) -> tuple[float, list[TrialRecord]]:
    """Seconds of one search, and its trials."""
    programs.clear()
    config = SearchConfig(trials=arguments.trials, epochs=arguments.epochs, seed=seed, confirm=0)
    with tempfile.TemporaryDirectory(prefix="tuner-refinement-") as root:
        folder, _ = setup.prepare(config, Path(root) / "run")
        started = time.perf_counter()
        worker.work(folder)
        return time.perf_counter() - started, load_trials(folder)


if __name__ == "__main__":
    main()
