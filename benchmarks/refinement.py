"""What trials that refine a leading one save, and what they cost the search.

    python -m benchmarks.refinement [--searches 40] [--trials 30] [--first 1 10 30]
    python -m benchmarks.refinement --train [--searches 2] [--trials 30] [--epochs 4]

Searches in which every second trial refines, from the trial of a number on; from that of their budget on, none. Without
training, an objective is what extremely randomised trees, fitted to 150 real trainings of random configurations,
predict (`results/digits_random.csv`: scikit-learn's digits, 8 epochs, `--algorithm random --pruner none`): rough, a
third of the variance in cross-validation, but of the real space, and unaware of how trials are proposed. The best is
that of the proposed trials: the first one, the defaults, is the same in every search. A program counts as found if one
of the last eight other architectures was this one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.feature_extraction import DictVectorizer

from search_spaces.image import ImageSpace
from tuner.config import SearchConfig
from tuner.search import oracle, setup
from tuner.search.oracle import StudyOracle
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder
from tuner.training import programs

MEASURED = Path(__file__).parent / "results" / "digits_random.csv"
# Of which the network does not depend but in numbers.
NUMBERS = (
    "learning_rate",
    "warmup_frac",
    "l1",
    "l2",
    "dropout",
    "batch_size",
    "clip_norm",
    "use_l1",
    "use_l2",
    "scaler",
)
# What a logarithmic range stands for where there is none of it.
NOTHING = 1e-12


@dataclass
class Searched:
    """One search: its objectives in the order of trials, the share of programs found, and seconds."""

    objectives: list[float]
    found_frac: float
    seconds: float


def main() -> None:
    """Search with each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="real trainings")
    parser.add_argument("--searches", type=int, default=40)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=4, help="of real trainings")
    parser.add_argument("--first", type=int, nargs="+", default=[oracle.FIRST_REFINED, 10, 30])
    arguments = parser.parse_args()
    how = "trained" if arguments.train else "predicted"
    table = Table(title=f"{arguments.searches} searches of {arguments.trials} trials, {how}")
    counts = [count for count in (3, 5, 10, 15) if count < arguments.trials]
    after = [f"best after {count}" for count in (*counts, arguments.trials)]
    for heading in ("refined from", *after, "quartiles", "programs found", "seconds a search"):
        table.add_column(heading)
    for first in arguments.first:
        oracle.FIRST_REFINED = first
        searches = list(trained(arguments) if arguments.train else predicted(arguments))
        ends = [min(each.objectives[1:]) for each in searches]
        low, high = np.quantile(ends, [0.25, 0.75])
        table.add_row(
            str(first),
            *(f"{statistics.mean(min(each.objectives[1:count]) for each in searches):.3f}" for count in counts),
            f"{statistics.mean(ends):.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{statistics.mean(each.found_frac for each in searches):.0%}",
            f"{statistics.mean(each.seconds for each in searches):.0f}",
        )
    Console(width=120).print(table)


def predicted(arguments: argparse.Namespace) -> Iterator[Searched]:
    """Searches whose trials are not trained."""
    predict = Predictor(pd.read_csv(MEASURED))
    space = keras_tuner.HyperParameters()
    ImageSpace((8, 8, 1), task="classification", num_classes=10, num_train=1257, epochs=8).build(space)
    for seed in range(arguments.searches):
        with tempfile.TemporaryDirectory(prefix="tuner-refinement-") as root:
            started = time.perf_counter()
            folder = RunFolder.create(Path(root) / "run", SearchConfig())
            made = StudyOracle(Study(folder, seed=seed), max_trials=arguments.trials, hyperparameters=space)
            objectives, keys, num_found = [], list[str](), 0
            for _ in range(arguments.trials):
                trial = made.create_trial("refinement")
                values = dict(trial.hyperparameters.values)
                objectives.append(predict(values))
                made.update_trial(trial.trial_id, {"objective": objectives[-1]})
                trial.status = "COMPLETED"
                made.end_trial(trial)
                key = str(sorted((name, value) for name, value in values.items() if name not in NUMBERS))
                num_found += key in keys
                keys = [*(each for each in keys if each != key), key][-programs.MAX_PROGRAMS :]
            yield Searched(objectives, num_found / arguments.trials, time.perf_counter() - started)


class Predictor:
    """The objective of a configuration, from measured ones."""

    def __init__(self, measured: pd.DataFrame) -> None:
        self._columns = DictVectorizer(sparse=False)
        rows = measured.drop(columns=["objective", "outcome"]).to_dict("records")
        x = self._columns.fit_transform([self._described(row) for row in rows])
        self._model = ExtraTreesRegressor(300, random_state=0).fit(x, measured["objective"])

    def __call__(self, values: dict[str, Any]) -> float:
        """The objective."""
        return float(self._model.predict(self._columns.transform([self._described(values)]))[0])

    def _described(self, values: dict[str, Any]) -> dict[str, Any]:
        known = {name: value for name, value in values.items() if not pd.isna(value) and name != "scaler"}
        logarithms = {name: float(np.log(known.get(name, NOTHING))) for name in ("learning_rate", "l1", "l2")}
        return {name: str(value) if isinstance(value, bool) else value for name, value in known.items()} | logarithms


def trained(arguments: argparse.Namespace) -> Iterator[Searched]:
    """Real searches of scikit-learn's digits, in this process."""
    from tuner.search import worker

    for seed in range(arguments.searches):
        programs.clear()
        config = SearchConfig(trials=arguments.trials, epochs=arguments.epochs, seed=seed, confirm=0)
        with tempfile.TemporaryDirectory(prefix="tuner-refinement-") as root:
            folder, _ = setup.prepare(config, Path(root) / "run")
            started = time.perf_counter()
            worker.work(folder)
            seconds, trials = time.perf_counter() - started, load_trials(folder)
        found = [run.program == "reused" for trial in trials for run in trial.seed_runs[:1]]
        yield Searched([float(trial.objective or 0.0) for trial in trials], sum(found) / len(found), seconds)


if __name__ == "__main__":
    main()
