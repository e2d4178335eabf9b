"""How long the same search takes here, in other tools, and in a bare loop.

    python -m benchmarks.search_speed fixed [--data DATA] [--trials 12] [--epochs 10] [--tools ours bare ...]
    python -m benchmarks.search_speed target [--data DATA] [--trials 20] [--epochs 10] [--seeds 0 1]

Needs the extra `bench`. All in one run, one tool after the other, each in processes of its own with everything that its
user would wait for (imports, the worker processes and the report of ours): wall time.

`fixed`: the same configurations are trained by each, without pruning; once with one architecture and numbers that
differ (rate, penalties, dropout), once drawn from the whole space. Ours ends a training as soon as its outcome is
certain, so it may train fewer epochs. "Bare, spread" is the bare loop in one process of one thread a core. An epoch is
shown as the median of those after the first, which is traced in it; the floor is what all of them take there, spread
over the cores.

`target`: every tool searches as it does by default. Each best configuration so far is trained on three fresh seeds and
judged on the test part, by one and the same loop whose time does not count. The target is what Keras Tuner's
`RandomSearch` ends with, less what one in a hundred test rows makes; shown are the seconds until a tool's best so far
reached it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

from tuner.config import SearchConfig
from tuner.search import setup
from tuner.search.context import preprocessing_choices
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder

FIXED_TOOLS = ("ours", "bare", "bare_spread", "keras_tuner", "optuna", "ray")
TARGET_TOOLS = ("ours", "keras_tuner_random", "keras_tuner_bayesian", "keras_tuner_hyperband", "optuna", "ray")
# What a tool counts as one of, in both tables.
REFERENCE = {"fixed": "keras_tuner", "target": "keras_tuner_random"}
# Hyperparameters that change no architecture.
NUMBERS = ("learning_rate", "warmup_frac", "use_l1", "l1", "use_l2", "l2", "dropout")
FRESH_SEEDS = (101, 102, 103)
TOLERANCE = 0.01
NUM_CORES = os.cpu_count() or 1


@dataclass
class Race:
    """One tool on one job.

    Attributes:
        seconds: On the clock, from the start of its first process to the end of its last.
        started: Unix time.
        trials: As it noted them: `at`, `values`, `value` and `epoch_seconds`.
    """

    tool: str
    seconds: float
    started: float
    trials: list[dict[str, Any]]


def main() -> None:
    """Race, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fixed", "target"))
    parser.add_argument("--data", help="what `search` takes; by default scikit-learn's digits")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tools", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-speed-") as root:
        (compare_fixed if arguments.what == "fixed" else compare_target)(arguments, Path(root))


def compare_fixed(arguments: argparse.Namespace, root: Path) -> None:
    """The same trials in every tool."""
    for is_one_architecture in (True, False):
        races, seed = [], arguments.seeds[0]
        name = "one architecture" if is_one_architecture else "the whole space"
        folder = prepared(arguments, root / name, seed=seed)
        configurations = drawn(folder, arguments.trials, is_one_architecture=is_one_architecture, seed=seed)
        for tool in arguments.tools or FIXED_TOOLS:
            races.append(race(tool, arguments, root / name / tool, seed=seed, configurations=configurations))
            if len(races[-1].trials) != len(configurations):
                raise SystemExit(f"{tool} finished {len(races[-1].trials)} of {len(configurations)} trials.")
        show_fixed(f"{arguments.trials} trials of {arguments.epochs} epochs, {name}", races)


def show_fixed(title: str, races: list[Race]) -> None:
    """Print seconds, ratios, and what an epoch takes."""
    by_tool = {each.tool: each for each in races}
    reference = by_tool.get(REFERENCE["fixed"], races[0])
    table = Table(title=title)
    for heading in ("tool", "seconds", f"times as fast as {reference.tool}", "epochs", "ms an epoch"):
        table.add_column(heading)
    for each in races:
        epochs = num_epochs(each.trials)
        per_epoch = f"{1000 * compute_seconds(each.trials) / epochs:.0f}"
        table.add_row(
            each.tool, f"{each.seconds:.1f}", f"{reference.seconds / each.seconds:.2f}", str(epochs), per_epoch
        )
    if spread := by_tool.get("bare_spread"):
        floor = compute_seconds(spread.trials) / NUM_CORES
        epochs = str(num_epochs(spread.trials))
        table.add_row("floor: epochs alone, spread", f"{floor:.1f}", f"{reference.seconds / floor:.2f}", epochs, "")
    Console(width=120).print(table)


def num_epochs(trials: list[dict[str, Any]]) -> int:
    """Of all trainings together."""
    return sum(len(each["epoch_seconds"]) for each in trials)


def compute_seconds(trials: list[dict[str, Any]]) -> float:
    """What the epochs of some trainings take without what is traced in the first of each."""
    return sum(len(each["epoch_seconds"]) * statistics.median(each["epoch_seconds"][1:] or [0.0]) for each in trials)


def compare_target(arguments: argparse.Namespace, root: Path) -> None:
    """Every tool as it is by default, until its best is as good as what Keras Tuner's `RandomSearch` ends with."""
    for seed in arguments.seeds:
        folder = prepared(arguments, root / str(seed), seed=seed)
        races = [
            race(tool, arguments, root / str(seed) / tool, seed=seed, configurations=None)
            for tool in arguments.tools or TARGET_TOOLS
        ]
        confirmed = Confirmed(folder, epochs=arguments.epochs)
        ends = {each.tool: confirmed(incumbents(each)[-1][1]) for each in races}
        target = ends[REFERENCE["target"]] - TOLERANCE
        reached = {each.tool: seconds_to(target, each, confirmed) for each in races}
        show_target(f"search seed {seed}, target {target:.4f}", races, ends, reached)


def show_target(title: str, races: list[Race], ends: dict[str, float], reached: dict[str, float | None]) -> None:
    """Print when the target was reached, and what came out in the end."""
    table = Table(title=title)
    headings = ("tool", "trials", "seconds in all", "test accuracy of its best", "seconds to target", "times as fast")
    for heading in headings:
        table.add_column(heading)
    reference = reached[REFERENCE["target"]]
    for each in races:
        seconds = reached[each.tool]
        ratio = f"{reference / seconds:.2f}" if reference and seconds else "-"
        told = "not reached" if seconds is None else f"{seconds:.1f}"
        table.add_row(each.tool, str(len(each.trials)), f"{each.seconds:.1f}", f"{ends[each.tool]:.4f}", told, ratio)
    Console(width=120).print(table)


def incumbents(each: Race) -> list[tuple[float, dict[str, Any]]]:
    """Seconds from the start, and values, of every trial that was the best when it ended."""
    best, found = float("-inf"), []
    for trial in sorted(each.trials, key=lambda trial: float(trial["at"])):
        if trial["value"] > best:
            best = trial["value"]
            found.append((trial["at"] - each.started, trial["values"]))
    return found


def seconds_to(target: float, each: Race, confirmed: Confirmed) -> float | None:
    """When the best configuration so far first was one that reaches the target on fresh seeds."""
    return next((at for at, values in incumbents(each) if confirmed(values) >= target), None)


class Confirmed:
    """Mean accuracy on the test part of a configuration trained on fresh seeds; each is trained once.

    Args:
        folder: With the prepared data.
        epochs: Of a training; the weights are those of its last.
    """

    def __init__(self, folder: RunFolder, *, epochs: int) -> None:
        self._folder, self._epochs = folder, epochs
        self._known: dict[str, float] = {}

    def __call__(self, values: dict[str, Any]) -> float:
        """The accuracy, in [0, 1]."""
        values = {name: value for name, value in values.items() if not name.startswith("tuner/")}
        key = json.dumps(values, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._trained(values)
        return self._known[key]

    def _trained(self, values: dict[str, Any]) -> float:
        import keras

        from benchmarks.rivals import WithLabels
        from tuner.data import cache
        from tuner.inference import evaluate
        from tuner.search.context import discover_space, hyperparameters_of, prepared_data, training_data

        hypermodel = WithLabels(discover_space(self._folder)[0])
        dataset, hp = self._folder.load_dataset(), hyperparameters_of(values)
        data = training_data(self._folder, dataset, values)
        prepared = prepared_data(self._folder, dataset, values)
        found = []
        for seed in FRESH_SEEDS:
            keras.utils.set_random_seed(seed)
            model = hypermodel.build(hp)
            validation = (data.x_validation, data.y_validation)
            hypermodel.fit(hp, model, data.x, data.y, validation_data=validation, epochs=self._epochs, verbose=0)
            test = cache.test_parts(self._folder.data_dir, prepared, dataset.spec)
            found.append(evaluate(model, test, target_scaler=None)["accuracy"])
            keras.backend.clear_session()
        return statistics.mean(found)


def prepared(arguments: argparse.Namespace, root: Path, *, seed: int) -> RunFolder:
    """A run whose data every tool trains on, with the default preprocessing."""
    config = search_config(arguments, seed=seed)
    folder, record = setup.prepare(config, root / "data")
    fixed = {each.name: each.default for each in preprocessing_choices(record)}
    folder.save_config(config.model_copy(update={"fix": {name: str(value) for name, value in fixed.items()}}))
    return folder


def search_config(arguments: argparse.Namespace, *, seed: int) -> SearchConfig:
    """Of ours; the data's for all."""
    return SearchConfig(data=arguments.data, trials=arguments.trials, epochs=arguments.epochs, seed=seed)


def drawn(folder: RunFolder, count: int, *, is_one_architecture: bool, seed: int) -> list[dict[str, Any]]:
    """Random configurations of the space; of one architecture, with the defaults of all but the numbers."""
    from benchmarks.rivals import random_configuration
    from tuner.search.context import discover_space

    _, space = discover_space(folder)
    found = []
    for number in range(count):
        values = dict(random_configuration(space, seed=seed * 1000 + number).values)
        if is_one_architecture:
            values = dict(space.values) | {name: value for name, value in values.items() if name in NUMBERS}
        found.append(values)
    return found


def race(
    tool: str,
    arguments: argparse.Namespace,
    workspace: Path,
    *,
    seed: int,
    configurations: list[dict[str, Any]] | None,
) -> Race:
    """Let one tool do the job, and time it."""
    workspace.mkdir(parents=True)
    if tool == "ours":
        return race_ours(arguments, workspace, seed=seed, configurations=configurations)
    num_processes = NUM_CORES if tool == "bare_spread" else 1
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"} if num_processes > 1 else {}
    commands = []
    for number in range(num_processes):
        job = {
            "folder": str(workspace.parent / "data"),
            "configurations": configurations,
            "trials": arguments.trials,
            "epochs": arguments.epochs,
            "seed": seed,
            "out": str(workspace / f"trials-{number}.jsonl"),
            "share": [number, num_processes],
        }
        file = workspace / f"job-{number}.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        commands.append([sys.executable, "-m", "benchmarks.rivals", tool.removesuffix("_spread"), str(file)])
    started, seconds = timed(commands, log=workspace / "log.txt", environment=threads)
    lines = [line for out in workspace.glob("trials-*.jsonl") for line in out.read_text(encoding="utf-8").splitlines()]
    if not lines:
        raise SystemExit(f"{tool} finished nothing:\n{(workspace / 'log.txt').read_text(encoding='utf-8')[-3000:]}")
    trials = {json.dumps(trial["values"]): trial for trial in map(json.loads, lines)}
    return Race(tool, seconds, started, list(trials.values()))


def race_ours(
    arguments: argparse.Namespace, workspace: Path, *, seed: int, configurations: list[dict[str, Any]] | None
) -> Race:
    """`python -m tuner search`; given trials wait in its study."""
    root = workspace / "run"
    fixed = RunFolder(workspace.parent / "data").load_config().fix
    plain: dict[str, Any] = {"pruner": "none", "confirm": 0, "adapt": False} if configurations is not None else {}
    config = search_config(arguments, seed=seed).model_copy(update={"fix": fixed} | plain)
    folder, _ = setup.prepare(config, root)
    if configurations is not None:
        listed = [{name: value for name, value in each.items() if name not in fixed} for each in configurations]
        Study.of_run(folder).enqueue_first(*listed)
    command = [sys.executable, "-m", "tuner", "search", "--run", str(root), "--quiet"]
    for name in ("data", "trials", "epochs"):
        if getattr(config, name) is not None:
            command += [str(config.data)] if name == "data" else [f"--{name}", str(getattr(config, name))]
    command += ["--seed", str(seed), "--pruner", config.pruner, "--confirm", str(config.confirm)]
    command += [] if config.adapt else ["--no-adapt"]
    command += [part for name, value in fixed.items() for part in ("--fix", f"{name}={value}")]
    started, seconds = timed([command], log=workspace / "log.txt", allowed=(0, 1))
    trials = [
        {
            "at": each.finished,
            "values": each.hyperparameters,
            "value": -float(each.objective or 0.0),
            "epoch_seconds": folder.load_trace(each.number, 0).seconds.tolist(),
        }
        for each in load_trials(folder)
        if each.finished
    ]
    return Race("ours", seconds, started, trials)


def timed(
    commands: list[list[str]],
    *,
    log: Path,
    environment: dict[str, str] | None = None,
    allowed: tuple[int, ...] = (0,),
) -> tuple[float, float]:
    """Run commands beside each other; Unix time of their start, and seconds until the last one ended."""
    started, clock = time.time(), time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        running = [
            subprocess.Popen(each, stdout=stream, stderr=stream, env=os.environ | (environment or {}))
            for each in commands
        ]
        codes = [each.wait() for each in running]
    seconds = time.perf_counter() - clock
    if any(code not in allowed for code in codes):
        raise SystemExit(f"{commands[0]} ended with {codes}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return started, seconds


if __name__ == "__main__":
    main()
