"""What a trial costs beside its training: proposal, ten reports with the pruner's decision each, and its end.

    python -m benchmarks.overhead [--sizes 100 1000 10000] [--trials 5] [--profile]

A study in an SQLite file is filled with finished trials, and the next ones are timed, without any training. The aim is
less than 50 ms a trial at the 10,000th. "Plain Optuna" goes on in a copy of the same file, with the same sampler and
its own pruner of successive halving. "Narrowing" is what the ranges for a proposal cost beside that, from the records
of as many trials.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import shutil
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

from tuner.records import Finding, Outcome, Remedy, SeedRun, TrialRecord
from tuner.search.oracle import StudyOracle
from tuner.search.study import Study
from tuner.stability.adaptation import Evidence, SearchRange
from tuner.stability.score import failed_score
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


def run_optuna_trial(study: optuna.Study, rng: np.random.Generator) -> float:
    """The same with Optuna alone; seconds."""
    # Those of a finished trial: reading it does not count.
    distributions = study.best_trial.distributions
    started = time.perf_counter()
    trial = study.ask()
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)
    for epoch in range(NUM_REPORTS):
        trial.report(float(rng.uniform(-2, 0)), epoch)
        trial.should_prune()
    study.tell(trial, float(rng.uniform(-2, 0)))
    return time.perf_counter() - started


def plain_optuna(file: Path, count: int, rng: np.random.Generator) -> float:
    """Mean of so many trials with Optuna alone in a copy of a study, in seconds."""
    with tempfile.TemporaryDirectory() as root:
        copy = shutil.copy(file, root)
        study = optuna.load_study(
            study_name=None,
            storage=f"sqlite:///{copy}",
            sampler=optuna.samplers.TPESampler(multivariate=True, group=True, seed=0),
            pruner=optuna.pruners.SuccessiveHalvingPruner(),
        )
        run_optuna_trial(study, rng)
        return statistics.mean(run_optuna_trial(study, rng) for _ in range(count))


def narrowing(size: int, count: int, rng: np.random.Generator) -> float:
    """Mean seconds that the bounds for a proposal take, when one more trial has finished each time."""
    ranges = {
        "learning_rate": SearchRange(1e-4, 3e-2, is_log=True),
        "dropout": SearchRange(0.0, 0.5),
        "l2": SearchRange(1e-6, 1e-2, is_log=True),
    }
    too_high = Finding(
        "learning_rate_too_high", "", 0.9, 0.8, {}, "", (), (Remedy("learning_rate", "upper <= x 0.5", ""),)
    )
    records = []
    for number in range(size + count):
        values = {name: each.at(rng.uniform()) for name, each in ranges.items()}
        is_lost = values["learning_rate"] > 5e-3
        outcome, objective = (Outcome.DIVERGED, 4.0) if is_lost else (Outcome.COMPLETED, float(rng.uniform(-2, 0)))
        causes = (too_high,) if is_lost else ()
        run = SeedRun(number, 0, 0, outcome, objective, None, failed_score(0.1), {}, 1, 1, 1, 1.0, causes=causes)
        records.append(TrialRecord(number, outcome, values, objective, (run,)))
    evidence = Evidence(ranges)
    evidence.add(records[:size])
    started = time.perf_counter()
    for number in range(count):
        evidence.add(records[: size + number + 1])
        evidence.narrowings()
    return (time.perf_counter() - started) / count


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
    table = Table(title=f"mean of {options.trials} trials, milliseconds, {options.algorithm}")
    parts = ("proposal", "10 reports", "end", "together", "processor time", "narrowing", "plain Optuna", "times ours")
    for heading in ("finished trials", *parts):
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
            # The mean: every second proposal of TPE only refines a trial, which costs less.
            means = {name: 1e3 * statistics.mean(each[name] for each in times) for name in times[0]}
            computed = means.pop("computed")
            together = sum(means.values())
            bounds = 1e3 * narrowing(size, options.trials, rng)
            bare = 1e3 * plain_optuna(folder.study_file, options.trials, rng)
            columns = [f"{value:.0f}" for value in (*means.values(), together, computed)]
            table.add_row(f"{size:,}", *columns, f"{bounds:.1f}", f"{bare:.0f}", f"{bare / together:.1f}")
            Console(width=120).print(table)


if __name__ == "__main__":
    main()
