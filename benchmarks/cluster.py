"""Many workers on one PostgreSQL, without any training: how fast trials are proposed, reported and ended.

    python -m benchmarks.cluster CURVES.csv [--workers 10 100] [--trials 200] [--pause 0.05]

Starts a PostgreSQL of its own on loopback, with commits that reach the disk. Each worker is a process with a lease that
asks, proposes (TPE, six hyperparameters), reports an epoch of a recorded curve after a short pause, is pruned by ASHA,
and ends the trial: all that a real one does with the database. CURVES.csv is that of `benchmarks.pruning`.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg

from benchmarks.pruning import judged_curve
from tests import postgresql
from tuner import leases
from tuner.config import SearchConfig
from tuner.database import close_databases, storage_class
from tuner.records import Outcome
from tuner.search.pruning import prune_reason
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder

EPOCHS = 20
# After so many trials TPE proposes. Source: Optuna's default.
NUM_RANDOM = 10
# Connections that a worker may need at a time: its study, two locks, its lease; and some for others.
CONNECTIONS = 4


def suggest(draft: Any) -> dict[str, Any]:
    """Six hyperparameters, as many as the spaces have at least."""
    return {
        "learning_rate": draft.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        "l1": draft.suggest_float("l1", 1e-7, 1e-2, log=True),
        "l2": draft.suggest_float("l2", 1e-7, 1e-2, log=True),
        "dropout": draft.suggest_float("dropout", 0.0, 0.6),
        "blocks": draft.suggest_int("blocks", 1, 4),
        "optimizer": draft.suggest_categorical("optimizer", ["adam", "sgd", "rmsprop"]),
    }


def work(root: Path, number: int, curves: Sequence[Sequence[float]], trials: int, pause_s: float, results: Any) -> None:
    """One worker: trial after trial until the budget is used up."""
    proposing, reporting, numbers = [], [], []
    folder = RunFolder(root)
    with leases.hold(folder, number):
        study = Study(folder, worker=number)
        while True:
            started = time.perf_counter()
            with study.proposing():
                trial = study.ask(trials)
                if trial is None:
                    break
                if not study.is_proposed(trial.number):
                    params = suggest(study.draft(trial.number))
                    study.propose(trial.number, params)
                    study.describe(trial.number, params)
            proposing.append(time.perf_counter() - started)
            curve = curves[trial.number % len(curves)]
            outcome = Outcome.COMPLETED
            for epoch, objective in enumerate(curve):
                time.sleep(pause_s)
                started = time.perf_counter()
                study.report(trial.number, epoch, objective=objective, loss=objective)
                rivals = study.rivals(trial.number)
                reason = prune_reason("asha", trial.number, objective, rivals, epoch=epoch + 1, max_epochs=EPOCHS)
                reporting.append(time.perf_counter() - started)
                if reason:
                    outcome = Outcome.PRUNED
                    break
            study.finish(trial.number, curve[epoch], outcome=outcome)
            numbers.append(trial.number)
    results.put((proposing, reporting, numbers))


def share_modules() -> None:
    """Load before the fork what each worker would load for itself after it; 500 times that is a machine's memory."""
    with tempfile.TemporaryDirectory() as place:
        study = Study(RunFolder.create(Path(place) / "run", SearchConfig()))
        while (trial := study.ask(NUM_RANDOM + 1)) is not None:
            params = suggest(study.draft(trial.number))
            study.propose(trial.number, params)
            study.describe(trial.number, params)
            study.finish(trial.number, params["dropout"], outcome=Outcome.COMPLETED)
    storage_class()
    gc.collect()
    gc.freeze()


def measure(server: postgresql.Server, num_workers: int, curves: Sequence[Sequence[float]], options: Any) -> list[str]:
    """One row of the table."""
    database = f"workers{num_workers}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", SearchConfig(storage=server.url(database)))
        # Forked before anything is connected: 100 imports would take longer than what is measured.
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        workers = [
            context.Process(target=work, args=(folder.root, n, curves, options.trials, options.pause, results))
            for n in range(num_workers)
        ]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        measured = [results.get() for _ in workers]
        seconds = time.perf_counter() - started
        for worker in workers:
            worker.join()
        trials = load_trials(folder)
        close_databases()
        with psycopg.connect(server.url(database)) as connection:
            size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    proposing = np.concatenate([each[0] for each in measured])
    reporting = np.concatenate([each[1] for each in measured])
    finished = {trial.number for trial in trials if trial.objective is not None}
    ended = [number for each in measured for number in each[2]]
    return [
        str(num_workers),
        f"{options.trials / seconds:.1f}",
        f"{np.quantile(proposing, 0.5) * 1000:.0f} / {np.quantile(proposing, 0.95) * 1000:.0f}",
        f"{np.quantile(reporting, 0.5) * 1000:.0f} / {np.quantile(reporting, 0.95) * 1000:.0f}",
        f"{len(reporting) / seconds:.0f}",
        f"{(size or (0,))[0] / 1e6:.1f}",
        f"{options.trials - len(finished)} / {len(ended) - len(set(ended))}",
    ]


def main() -> None:
    """Print the table that docs/scale.md holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds that an epoch takes")
    options = parser.parse_args()
    errors = pd.read_csv(options.file).filter(regex=r"^err_\d+$").to_numpy()[:500, :EPOCHS]
    curves = [judged_curve(each) for each in errors]
    os.environ["PGPASSWORD"] = postgresql.PASSWORD
    server = postgresql.Server(max_connections=CONNECTIONS * max(options.workers) + 20, is_safe=True)
    server.start()
    share_modules()
    try:
        print("| workers | trials/s | propose p50 / p95, ms | report p50 / p95, ms | epochs/s | MB | lost / doubled |")
        print("|" + " --- |" * 7)
        for count in options.workers:
            print("| " + " | ".join(measure(server, count, curves, options)) + " |", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
