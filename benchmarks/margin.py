"""What the stability margin predicts, and what it costs.

    python -m benchmarks.margin collect RESULTS.jsonl --data FOLDER --minutes 25
    python -m benchmarks.margin table RESULTS.jsonl

`collect` draws random configurations from the real search spaces (learning rates from 1e-4 to 1), sweeps each once and
trains it on fresh seeds, dataset after dataset in turn, until the minutes are over; each configuration is one line of
the file, and the same command goes on behind the last. FOLDER holds `images/fashion_mnist_12k.npz`,
`images/cifar10_3k.npz` and `series/ecg5000.csv`. `table` asks of every single training: does its configuration fail, or
train with S below 0.8, on any of its *other* seeds? Candidates to tell are the margin, the learning rate alone, S of
this one training, and its best accuracy, each by the area under the ROC curve; intervals are percentiles over resampled
configurations. No margin can tell that a rate is too *low* to learn, so the same is asked of the higher rates alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

ROWS = 1000  # of which 70 % are trained on
EPOCHS = 8
SEEDS = 3
RATES = "1e-4:1.0"
STABLE = 0.8
BOOTSTRAPS = 2000
# From which on a configuration that does not learn is not simply too slow for eight epochs. Source: convention.
HIGH_RATE = 3e-3
# Best configurations of each dataset whose rates a range should hold.
NUM_BEST = 6


def fashion(folder: Path) -> dict[str, Any]:
    """A part of Fashion-MNIST."""
    return _images(folder / "images/fashion_mnist_12k.npz")


def cifar(folder: Path) -> dict[str, Any]:
    """A part of CIFAR-10."""
    return _images(folder / "images/cifar10_3k.npz")


def _images(file: Path) -> dict[str, Any]:
    with np.load(file) as archive:
        rows = np.random.default_rng(0).permutation(len(archive["x_train"]))[:ROWS]
        x = archive["x_train"][rows].astype("float32")
        # Half the resolution: means of 2 x 2 pixels, a quarter of the time.
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        return {"x": x.round().astype("uint8"), "y": archive["y_train"][rows]}


def ecg(folder: Path) -> pd.DataFrame:
    """A part of ECG5000."""
    return pd.read_csv(folder / "series/ecg5000.csv").sample(ROWS, random_state=0)


DATASETS: dict[str, Callable[[Path], Any]] = {"fashion": fashion, "cifar10": cifar, "ecg5000": ecg}


def prepared_run(name: str, data: Path, root: Path) -> Any:
    """A run folder of one dataset, as `search` sets it up."""
    from tuner.config import SearchConfig
    from tuner.search import setup

    content = DATASETS[name](data)
    if isinstance(content, pd.DataFrame):
        file = root / f"{name}.csv"
        content.to_csv(file, index=False)
    else:
        file = root / f"{name}.npz"
        np.savez(file, **content)
    config = SearchConfig(
        data=str(file), target="label" if name == "ecg5000" else None, epochs=EPOCHS, range={"learning_rate": RATES}
    )
    return setup.prepare(config, root / name)[0]


def measured(folder: Any, name: str, number: int) -> dict[str, Any]:
    """One random configuration: swept once, trained on fresh seeds."""
    from tuner.search.context import discover_space, hyperparameters_of, judgement_of, training_data
    from tuner.search.margins import random_values
    from tuner.training import seedrun
    from tuner.training.margin import Sweep
    from tuner.training.session import release_memory

    hypermodel, space = discover_space(folder)
    values = random_values(space, seed=1000 * list(DATASETS).index(name) + number)
    data = training_data(folder, folder.load_dataset(), values)
    hp, judgement = hyperparameters_of(values), judgement_of(folder)
    started = time.process_time()
    sweep = Sweep(hypermodel, hp, data=data, judgement=judgement)
    peak_rate = sweep.peak_rate(EPOCHS * len(data.x) // int(values["batch_size"]))
    rates = sweep.run()
    sweep_seconds = time.process_time() - started
    runs = []
    for seed in range(1, SEEDS + 1):
        started = time.process_time()
        training = seedrun.train(
            hypermodel, hp, data=data, judgement=judgement, epochs=EPOCHS, seed=100 * number + seed
        )
        run, metric = training.run, training.trace.metrics.get(judgement.watched_metric, np.empty(0))
        runs.append(
            {
                "outcome": str(run.outcome),
                "stability": round(run.score.stability, 4),
                "best_metric": round(float(np.nanmax(metric, initial=0.0)), 4),
                "error": run.error,
                "seconds": round(time.process_time() - started, 2),
            }
        )
        release_memory()
    shown = ("optimizer", "learning_rate", "schedule", "batch_size", "clip_norm", "num_blocks", "batch_norm")
    return {
        "dataset": name,
        "number": number,
        "hyperparameters": {key: values.get(key) for key in shown},
        "peak_rate": peak_rate,
        "diverging_rates": rates.diverging_rates,
        "sweep_seconds": round(sweep_seconds, 2),
        "runs": runs,
    }


def collect(file: Path, data: Path, minutes: float) -> None:
    """Measure configuration after configuration until the minutes of this process are over."""
    done = {(row["dataset"], row["number"]) for row in read(file)} if file.is_file() else set()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: prepared_run(name, data, Path(scratch)) for name in DATASETS}
        for number in range(10**6):
            for name in DATASETS:
                if (name, number) in done:
                    continue
                if time.process_time() > 60 * minutes:
                    return
                row = measured(folders[name], name, number)
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """The configurations that were measured."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def margin_of(row: dict[str, Any]) -> float:
    """Geometric mean of the diverging rates over the peak rate; a sweep that never diverged counts as its end."""
    from tuner.stability.margin import HIGHEST_RATE

    return float(np.exp(np.mean(np.log([rate or HIGHEST_RATE for rate in row["diverging_rates"]]))) / row["peak_rate"])


def is_bad(run: dict[str, Any]) -> bool:
    """Whether a training failed, did not learn, or was not stable."""
    return run["outcome"] != "completed" or run["stability"] < STABLE


def questions(rows: list[dict[str, Any]], *, only_fine: bool) -> list[dict[str, float]]:
    """One for each single training: what it shows, and whether any other seed of its configuration is bad."""
    return [
        {
            "configuration": index,
            "bad": any(is_bad(other) for other in row["runs"] if other is not run),
            "margin": margin_of(row),
            "rate": -row["peak_rate"],
            "S": run["stability"],
            "best accuracy": run["best_metric"],
        }
        for index, row in enumerate(rows)
        for run in row["runs"]
        if not (only_fine and is_bad(run))
    ]


def auroc(asked: list[dict[str, float]], name: str) -> float:
    """How often the larger value belongs to the configuration without a bad seed; NaN where all are alike."""
    bad = [question["bad"] for question in asked]
    return float(roc_auc_score(bad, [-question[name] for question in asked])) if 0 < sum(bad) < len(bad) else np.nan


def interval(asked: list[dict[str, float]], name: str) -> tuple[float, float]:
    """95 % interval over resampled configurations."""
    rng = np.random.default_rng(0)
    groups: dict[float, list[dict[str, float]]] = {}
    for question in asked:
        groups.setdefault(question["configuration"], []).append(question)
    members = list(groups.values())
    drawn = [
        auroc([question for index in rng.integers(0, len(members), len(members)) for question in members[index]], name)
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return float(low), float(high)


def tables(rows: list[dict[str, Any]]) -> Iterator[Table]:
    """What the margin predicts, where the line lies, what a sweep costs, and where the good rates lie."""
    high = [row for row in rows if row["peak_rate"] >= HIGH_RATE]
    for some, which in ((rows, "all rates"), (high, f"rates from {HIGH_RATE:g} on")):
        for only_fine in (False, True):
            yield _prediction_table(some, which, only_fine=only_fine)
    yield _line_table(high)
    yield _cost_table(rows)
    yield _range_table(rows)


def _by_dataset(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in DATASETS:
        yield name, [row for row in rows if row["dataset"] == name]
    yield "all", rows


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    return table


def _prediction_table(rows: list[dict[str, Any]], which: str, *, only_fine: bool) -> Table:
    title = f"AUROC, {which}, by {'trainings that themselves looked fine' if only_fine else 'all trainings'}"
    columns = ("margin", "rate", "S", "best accuracy")
    table = _table(title, "dataset", "configurations", "trainings", "bad elsewhere", *columns)
    for name, some in _by_dataset(rows):
        asked = questions(some, only_fine=only_fine)
        cells = [
            f"{auroc(asked, key):.2f} ({low:.2f} to {high:.2f})"
            for key in columns
            for low, high in [interval(asked, key)]
        ]
        bad = sum(question["bad"] for question in asked)
        num_configurations = len({question["configuration"] for question in asked})
        table.add_row(name, str(num_configurations), str(len(asked)), f"{bad:.0f}", *cells)
    return table


def _line_table(rows: list[dict[str, Any]]) -> Table:
    table = _table(
        f"Configurations by margin, rates from {HIGH_RATE:g} on",
        "margin",
        "configurations",
        "a seed bad",
        "a seed failed or not learning",
    )
    edges = [0, 1, 3, 10, 30, 100, 300, np.inf]
    for low, high in itertools.pairwise(edges):
        some = [row for row in rows if low <= margin_of(row) < high]
        bad = sum(any(map(is_bad, row["runs"])) for row in some)
        failed = sum(any(run["outcome"] != "completed" for run in row["runs"]) for row in some)
        table.add_row(f"{low:g} to {high:g}", str(len(some)), str(bad), str(failed))
    return table


def _cost_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("CPU seconds, medians", "dataset", "sweep", "training", "ratio")
    for name, some in _by_dataset(rows):
        sweep = np.median([row["sweep_seconds"] for row in some])
        training = np.median([run["seconds"] for row in some for run in row["runs"]])
        ratio = np.median([row["sweep_seconds"] / np.median([run["seconds"] for run in row["runs"]]) for row in some])
        table.add_row(name, f"{sweep:.1f}", f"{training:.1f}", f"{ratio:.2f}")
    return table


def _range_table(rows: list[dict[str, Any]]) -> Table:
    """The range that all sweeps of a dataset propose; how many of the best rates lie in it, and in the spaces' own."""
    from search_spaces.blocks import LEARNING_RATE_RANGE
    from tuner.records import RateSweep
    from tuner.stability.margin import HIGHEST_RATE, rate_range

    headings = (
        "dataset",
        "diverging: lowest",
        "median",
        "highest",
        "proposed",
        f"of the best {NUM_BEST} inside",
        "own",
    )
    table = _table("Learning-rate range", *headings)
    for name, some in list(_by_dataset(rows))[:-1]:
        sweeps = [RateSweep(tuple(row["diverging_rates"]), HIGHEST_RATE, 0.0) for row in some]
        diverging = [sweep.diverging_rate for sweep in sweeps]
        low, high = rate_range(sweeps)
        best = [row["peak_rate"] for row in sorted(some, key=mean_error)[:NUM_BEST]]
        inside = [sum(bounds[0] <= rate <= bounds[1] for rate in best) for bounds in ((low, high), LEARNING_RATE_RANGE)]
        cells = [f"{value:.2g}" for value in (min(diverging), float(np.median(diverging)), max(diverging))]
        table.add_row(name, *cells, f"{low:g} to {high:g}", *map(str, inside))
    return table


def mean_error(row: dict[str, Any]) -> float:
    """Over the seeds; a failed training counts as always wrong."""
    return float(np.mean([1.0 if run["error"] is None else run["error"] for run in row["runs"]]))


def main() -> None:
    """Collect, or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("collect", "table"))
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the datasets")
    parser.add_argument("--minutes", type=float, default=25, help="CPU minutes to spend")
    arguments = parser.parse_args()
    if arguments.action == "collect":
        with contextlib.suppress(KeyboardInterrupt):
            collect(arguments.results, arguments.data, arguments.minutes)
        return
    for table in tables(read(arguments.results)):
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
