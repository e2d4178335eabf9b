"""Whether TPE proposes as well from an excerpt of a long history as from all of it (`tuner.search.history`).

    python -m benchmarks.sampled_history [--trials 1000] [--seeds 3]

Two functions with known minima, without any training: Hartmann's of six numbers, and one whose numbers depend on a
choice. Both ways are the same up to 500 trials, so what follows is compared: the best value, and the median of the last
200 proposals, which tells whether the search still knows where it is good.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from tuner.config import SearchConfig
from tuner.records import Outcome
from tuner.search import history
from tuner.search.study import Study
from tuner.store import RunFolder

# Source: Dixon and Szegoe (1978), as in Surjanovic and Bingham's library of test functions; minimum -3.32237.
ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(trial: Any) -> tuple[dict[str, Any], float]:
    """Six numbers."""
    params = {f"x{index}": trial.suggest_float(f"x{index}", 0.0, 1.0) for index in range(6)}
    x = np.array([*params.values()])
    return params, float(-ALPHA @ np.exp(-(A * (x - P) ** 2).sum(axis=1)))


def conditional(trial: Any) -> tuple[dict[str, Any], float]:
    """A choice of three, one of which leads to the minimum of 0, and numbers that exist under it alone."""
    params: dict[str, Any] = {"kind": trial.suggest_categorical("kind", ["a", "b", "c"])}
    best = {"a": 0.3, "b": 0.6, "c": 0.9}[params["kind"]]
    names = [f"{params['kind']}{index}" for index in range(3)]
    params |= {name: trial.suggest_float(name, 1e-4, 1.0, log=True) for name in names}
    distance = sum((np.log10(params[name]) + 4 * best) ** 2 for name in names)
    return params, float(distance + {"a": 0.2, "b": 0.0, "c": 0.5}[params["kind"]])


def run(function: Callable[[Any], tuple[dict[str, Any], float]], *, trials: int, seed: int) -> list[float]:
    """The values of a search."""
    values = []
    with tempfile.TemporaryDirectory() as root:
        study = Study(RunFolder.create(Path(root) / "run", SearchConfig()), seed=seed)
        for _ in range(trials):
            trial = study.ask(trials)
            if trial is None:
                raise RuntimeError(f"the study gave fewer than {trials} trials")
            params, value = function(study.draft(trial.number))
            function(study.propose(trial.number, params))
            study.describe(trial.number, params)
            study.finish(trial.number, value, outcome=Outcome.COMPLETED)
            values.append(value)
    return values


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table(title=f"{options.trials} trials, {options.seeds} seeds: median (and each)")
    for heading in ("function", "history", "best", "median of the last 200"):
        table.add_column(heading)
    newest = history.MOST_NEWEST
    for function in (hartmann, conditional):
        for name, most in (("all", 10**9), ("excerpt", newest)):
            history.MOST_NEWEST = most
            searches = [run(function, trials=options.trials, seed=seed) for seed in range(options.seeds)]
            columns = ([min(values) for values in searches], [statistics.median(values[-200:]) for values in searches])
            told = (f"{statistics.median(each):.4f} ({', '.join(f'{x:.4f}' for x in each)})" for each in columns)
            table.add_row(function.__name__, name, *told)
            Console(width=160).print(table)


if __name__ == "__main__":
    main()
