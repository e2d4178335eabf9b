"""What a trial costs beside its training: proposal, ten reports with the pruner's decision each, and its end.

    python -m benchmarks.overhead [--sizes 100 1000 10000] [--trials 5] [--profile]

A study in an SQLite file is filled with finished trials, and the next ones are timed, without any training. The aim is
less than 50 ms a trial at the 10,000th.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import keras_tuner
import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from tuner.search.oracle import StudyOracle
from tuner.search.study import Study
from tuner.store import RunFolder

NUM_REPORTS = 10
# Trials that are written at once; only filling uses it.
CHUNK = 1000


def space() -> keras_tuner.HyperParameters:
    """Of the size of a small space, with one condition."""
    hp = keras_tuner.HyperParameters()
    hp.Float("learning_rate", 1e-4, 3e-2, sampling="log")
    hp.Float("dropout", 0.0, 0.5)
    hp.Choice("filters", [8, 16, 32, 64])
    hp.Boolean("use_l2")
    hp.Float("l2", 1e-6, 1e-2, sampling="log", parent_name="use_l2", parent_values=[True])
    return hp


def run_trial(oracle: StudyOracle, rng: np.random.Generator) -> dict[str, float]:
    """One trial without a training; seconds of its parts."""
    times = [time.perf_counter()]
    trial = oracle.create_trial("overhead")
    times.append(time.perf_counter())
    objective = float(rng.uniform(-2, 0))
    for epoch in range(NUM_REPORTS):
        oracle.report_epoch(trial.trial_id, epoch, objective=objective, loss=1.0, max_epochs=NUM_REPORTS)
    times.append(time.perf_counter())
    oracle.update_trial(trial.trial_id, {"objective": objective})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    times.append(time.perf_counter())
    parts = zip(("proposal", "reports", "end"), np.diff(times), strict=True)
    return {name: float(seconds) for name, seconds in parts}


def fill(file: Path, example: optuna.trial.FrozenTrial, count: int, rng: np.random.Generator) -> None:
    """Add finished trials like one that is there, with other values."""
    url = f"sqlite:///{file}"
    study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
    for start in range(0, count, CHUNK):
        added = []
        for _ in range(min(CHUNK, count - start)):
            rate, objective = float(10 ** rng.uniform(-4, -1.6)), float(rng.uniform(-2, 0))
            attrs = example.user_attrs | {
                "hyperparameters": example.user_attrs["hyperparameters"] | {"learning_rate": rate}
            }
            added.append(
                optuna.trial.create_trial(
                    params=example.params | {"learning_rate": rate},
                    distributions=example.distributions,
                    user_attrs=attrs,
                    intermediate_values=dict.fromkeys(range(NUM_REPORTS), objective),
                    value=objective,
                )
            )
        study.add_trials(added)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--algorithm", default="tpe")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table(title=f"median of {options.trials} trials, milliseconds, {options.algorithm}")
    for heading in ("finished trials", "proposal", "10 reports", "end", "together"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as root:
        folder, rng = RunFolder(Path(root)), np.random.default_rng(0)
        oracle = StudyOracle(
            Study(folder, algorithm=options.algorithm), max_trials=10**6, hyperparameters=space(), pruner="asha"
        )
        run_trial(oracle, rng)
        run_trial(oracle, rng)
        done = 2
        for size in options.sizes:
            url = f"sqlite:///{folder.study_file}"
            study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
            example = study.get_trials(deepcopy=False)[1]
            fill(folder.study_file, example, size - done, rng)
            done = size + options.trials + 1
            run_trial(oracle, rng)
            with cProfile.Profile() if options.profile else tempfile.TemporaryFile() as profile:
                times = [run_trial(oracle, rng) for _ in range(options.trials)]
            if isinstance(profile, cProfile.Profile):
                pstats.Stats(profile).sort_stats("cumulative").print_stats(35)
            medians = {name: 1e3 * statistics.median(each[name] for each in times) for name in times[0]}
            table.add_row(f"{size:,}", *(f"{value:.0f}" for value in (*medians.values(), sum(medians.values()))))
            Console().print(table)


if __name__ == "__main__":
    main()
