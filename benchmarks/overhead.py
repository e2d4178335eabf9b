"""What a trial costs beside its training: proposal, ten reports with the pruner's decision each, and its end.

    python -m benchmarks.overhead [--sizes 100 1000 10000] [--trials 5] [--profile]

A study in an SQLite file is filled with finished trials, and the next ones are timed, without any training. The aim is
less than 50 ms a trial at the 10,000th.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sqlite3
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
# Optuna's, with what is known of a trial.
TABLES = ("trials", "trial_params", "trial_user_attributes", "trial_intermediate_values", "trial_values")


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
    times, computed = [time.perf_counter()], time.process_time()
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
    return {name: float(seconds) for name, seconds in parts} | {"computed": time.process_time() - computed}


def fill(file: Path, count: int, rng: np.random.Generator) -> None:
    """Add finished trials: copies of the newest one, with another learning rate and objective."""
    with sqlite3.connect(file) as database:
        (newest,) = database.execute("SELECT max(trial_id) FROM trials").fetchone()
        rows = {
            table: database.execute(f"SELECT * FROM {table} WHERE trial_id = ?", (newest,)).fetchall()
            for table in TABLES
        }
        columns = {table: [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")] for table in TABLES}
        for copy in range(1, count + 1):
            rate, objective = float(10 ** rng.uniform(-4, -1.6)), float(rng.uniform(-2, 0))
            for table in TABLES:
                for values in rows[table]:
                    row = dict(zip(columns[table], values, strict=True)) | {"trial_id": newest + copy}
                    # Every other table has an id of its own, which the database gives.
                    row |= {"number": row["number"] + copy} if table == "trials" else {columns[table][0]: None}
                    row |= {name: objective for name in ("value", "intermediate_value") if name in row}
                    if row.get("param_name") == "learning_rate":
                        row["param_value"] = rate
                    if row.get("key") == "hyperparameters":
                        row["value_json"] = json.dumps(json.loads(row["value_json"]) | {"learning_rate": rate})
                    marks = ", ".join("?" * len(row))
                    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


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
    for heading in ("finished trials", "proposal", "10 reports", "end", "together", "processor time"):
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
            fill(folder.study_file, size - done, rng)
            done = size + options.trials + 1
            run_trial(oracle, rng)
            with cProfile.Profile() if options.profile else tempfile.TemporaryFile() as profile:
                times = [run_trial(oracle, rng) for _ in range(options.trials)]
            if isinstance(profile, cProfile.Profile):
                pstats.Stats(profile).sort_stats("cumulative").print_stats(35)
            medians = {name: 1e3 * statistics.median(each[name] for each in times) for name in times[0]}
            computed = medians.pop("computed")
            columns = (*medians.values(), sum(medians.values()), computed)
            table.add_row(f"{size:,}", *(f"{value:.0f}" for value in columns))
            Console().print(table)


if __name__ == "__main__":
    main()
