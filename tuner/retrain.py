"""Training an exported configuration, or a trial of a run, again, on its own data or other data of the same form."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from tuner.bundle import BundleConfig, read_config
from tuner.config import SearchConfig
from tuner.data import cache
from tuner.data.options import ReadOptions
from tuner.errors import DataError, RunError
from tuner.export import bundle_config, finite, package_versions, refuse_occupied, train_configuration, write_bundle
from tuner.inference import evaluate
from tuner.records import DatasetRecord, Outcome
from tuner.search import setup, spaces
from tuner.search.context import prepared_data
from tuner.search.study import load_trials
from tuner.store import RunFolder
from tuner.training.seedrun import Training

__all__ = ["train_again"]


def train_again(
    config_file: Path, data: str | None, *, seed: int | None, output: Path | None, is_guarded: bool = True
) -> dict[str, Any]:
    """Train an exported configuration, or a trial, again.

    Args:
        config_file: A bundle, its config.yaml, or the folder of a trial or of one of its seed runs.
        data: Path of the data; None for where the search read it.
        seed: Another seed than the exported one.
        output: Folder for the result as a new bundle, or None.
        is_guarded: Roll a training of another seed back when its loss spikes. A repetition is
            guarded if the exported training was.

    Returns:
        Outcome, metrics, stability and seconds by name, and what the guard did, if anything.

    Raises:
        BundleError: The configuration cannot be read.
        RunError: The trial has no record that can be repeated.
        DataError: The data does not fit the configuration.
    """
    if output is not None:
        refuse_occupied(output)
    run_folder = _run_of(config_file)
    config = _trial_config(run_folder, config_file) if run_folder else read_config(config_file)
    config = dataclasses.replace(config, source=data or config.source, versions=package_versions())
    if seed is not None:
        config = dataclasses.replace(config, seed=seed, guard=True, ends_early=False)
    if not is_guarded:
        config = dataclasses.replace(config, guard=False)
    base = config_file if config_file.is_dir() else config_file.parent
    base = run_folder.root if run_folder else base
    with tempfile.TemporaryDirectory(prefix="tuner-train-") as workspace:
        folder, dataset = _workspace(config, Path(workspace))
        training = _train(config, folder, dataset, base)
        run = training.run
        result = {
            "outcome": str(run.outcome),
            "seed": run.seed,
            **run.metrics,
            "stability": run.score.stability,
            "seconds": round(run.seconds, 1),
        }
        actions = [finding.cause for finding in run.findings if finding.code.startswith("guard_")]
        if actions:
            result["guard"] = " ".join(actions)
        if run.message:
            result["message"] = run.message
        if output is not None and training.model is not None:
            test = _export(config, training, folder=folder, dataset=dataset, base=base, output=output)
            result |= {f"test_{name}": value for name, value in test.items()} | {"bundle": str(output)}
    return result


def _run_of(path: Path) -> RunFolder | None:
    """The run that a path inside `RUN/trials/` belongs to; None if it is no such path."""
    path = path.resolve()
    for parent in path.parents:
        if parent.name == "trials" and RunFolder(parent.parent).config_file.is_file():
            return RunFolder(parent.parent)
    return None


def _trial_config(folder: RunFolder, path: Path) -> BundleConfig:
    """What a seed run of a trial was trained with: `trials/0007` or `trials/0007/seed_1`."""
    names = path.resolve().relative_to(folder.trials_dir.resolve()).parts
    number, index = names[0], names[1].removeprefix("seed_") if len(names) > 1 else "0"
    trials = {f"{trial.number:04d}": trial for trial in load_trials(folder)}
    runs = {str(run.seed_index): run for run in trials[number].seed_runs} if number in trials else {}
    if index not in runs:
        known = ", ".join(name for name, trial in trials.items() if trial.seed_runs) or "none"
        raise RunError(
            f"{str(path)!r} has no finished training to repeat. Give the folder of a trial (finished: {known}) or one "
            "of its seed_* folders."
        )
    run = runs[index]
    if run.split_seed is not None:
        raise RunError(
            f"{str(path)!r} was trained on a split of its own (confirm --fresh-split), which is not repeated. Give "
            f"{str(folder.trials_dir / number)!r} for the training of the search."
        )
    config = bundle_config(folder, folder.load_dataset(), trials[number], run)
    if run.outcome is Outcome.PRUNED:
        return dataclasses.replace(config, epochs=run.epochs, ends_early=False)
    return config


def _workspace(config: BundleConfig, root: Path) -> tuple[RunFolder, DatasetRecord]:
    """A run folder with the data of a configuration, read and split as the search did."""
    spec = config.data
    search_config = SearchConfig.model_validate(
        {
            "data": config.source,
            **ReadOptions.repeating(spec).given,
            "metric": config.metric,
            "seed": config.split_seed,
            "stability_weight": config.stability_weight,
            "epochs": config.epochs,
        }
    )
    data = setup.read_data(search_config)
    found = data.record.spec
    if (found.task, found.input_shape, found.class_names) != (spec.task, spec.input_shape, spec.class_names):
        raise DataError(
            f"{config.source!r} does not fit the configuration: it has samples of shape {found.input_shape} and "
            f"{found.num_classes} classes, the configuration was made for {spec.input_shape} and {spec.num_classes}. "
            "Start a new search for it."
        )
    folder = RunFolder.create(root, search_config)
    cache.save_raw(folder.data_dir, data.dataset, data.split)
    folder.save_dataset(data.record)
    return folder, data.record


def _train(config: BundleConfig, folder: RunFolder, dataset: DatasetRecord, base: Path) -> Training:
    hypermodel = spaces.load(
        config.space,
        dataset.spec,
        num_train=dataset.num_train,
        epochs=config.planned_epochs or config.epochs,
        base_dir=base,
    )
    return train_configuration(config, hypermodel, folder=folder, dataset=dataset)


def _export(
    config: BundleConfig, training: Training, *, folder: RunFolder, dataset: DatasetRecord, base: Path, output: Path
) -> dict[str, float]:
    """Judge the new model on the test part and write it as a bundle."""
    prepared = prepared_data(folder, dataset, config.hyperparameters)
    test_parts = cache.test_parts(folder.data_dir, prepared, dataset.spec)
    test = evaluate(training.model, test_parts, target_scaler=prepared.target_scaler)
    again = dataclasses.replace(
        config,
        fingerprint=dataset.fingerprint,
        data=dataset.spec,
        validation=finite(training.run.metrics),
        test=test,
        stability=training.run.score.stability,
        fresh_errors=(),
        num_fresh_failed=0,
    )
    space_file = base / "space.py"
    write_bundle(
        output, again, model=training.model, prepared=prepared, space_file=space_file, data_dir=folder.data_dir
    )
    return test
