"""Training an exported configuration again, on its own data or other data of the same form."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from tuner.bundle import BundleConfig, read_config
from tuner.config import SearchConfig
from tuner.data import cache
from tuner.data.options import ReadOptions
from tuner.errors import DataError
from tuner.export import finite, package_versions, refuse_occupied, train_configuration, write_bundle
from tuner.inference import evaluate
from tuner.records import DatasetRecord
from tuner.search import setup, spaces
from tuner.search.context import prepared_data
from tuner.store import RunFolder
from tuner.training.seedrun import Training

__all__ = ["train_again"]


def train_again(
    config_file: Path, data: str | None, *, seed: int | None, output: Path | None, is_guarded: bool = True
) -> dict[str, Any]:
    """Train an exported configuration again.

    Args:
        config_file: A bundle, or its config.yaml.
        data: Path of the data; None for where the search read it.
        seed: Another seed than the exported one.
        output: Folder for the result as a new bundle, or None.
        is_guarded: Roll a training of another seed back when its loss spikes. A repetition is
            guarded if the exported training was.

    Returns:
        Outcome, metrics, stability and seconds by name, and what the guard did, if anything.

    Raises:
        BundleError: The configuration cannot be read.
        DataError: The data does not fit the configuration.
    """
    if output is not None:
        refuse_occupied(output)
    config = read_config(config_file)
    config = dataclasses.replace(config, source=data or config.source, versions=package_versions())
    if seed is not None:
        config = dataclasses.replace(config, seed=seed, guard=True, ends_early=False)
    if not is_guarded:
        config = dataclasses.replace(config, guard=False)
    base = config_file if config_file.is_dir() else config_file.parent
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
    part = cache.test_part(folder.data_dir, prepared, dataset.spec)
    test = evaluate(training.model, part, target_scaler=prepared.target_scaler)
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
