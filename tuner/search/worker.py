"""The work of one worker process: the run's search space, oracle and tuner, trial after trial."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine import trial as trial_module

from tuner.data import cache, pipelines
from tuner.data.cache import Prepared
from tuner.data.pipelines import Choice
from tuner.records import DatasetRecord, HyperparameterValue, Trace
from tuner.search import spaces
from tuner.search.oracle import StudyOracle
from tuner.search.study import Study
from tuner.search.tuner import StabilityTuner
from tuner.stability.judgement import Judgement
from tuner.store import RunFolder, write_json
from tuner.training.seedrun import StopTraining, TrainingData

__all__ = [
    "discover_space",
    "hyperparameters_of",
    "judgement_of",
    "prepared_data",
    "preprocessing_choices",
    "training_data",
    "work",
]


class OutOfTime(StopTraining):
    """The time limit was reached in the middle of a trial, which goes back to the queue."""


def work(folder: RunFolder, *, deadline: float | None) -> None:
    """Run trials until the budget is used up, or the deadline has passed.

    Args:
        folder: A run that is set up.
        deadline: Unix time in seconds, or None.

    Raises:
        TunerError: The space or the storage is at fault.
    """
    config = folder.load_config()
    write_json(folder.environment_file, _environment())
    hypermodel, space = discover_space(folder)
    study = Study(folder, algorithm=config.algorithm, seed=config.seed)
    oracle = StudyOracle(study, max_trials=config.trials, hyperparameters=space)
    tuner = StudyTuner(hypermodel, oracle, folder=folder, deadline=deadline, seed=config.seed)
    try:
        tuner.search(epochs=config.epochs)
    except OutOfTime:
        study.give_back(crashed=False)


def judgement_of(folder: RunFolder) -> Judgement:
    """What the trials of a run are held against."""
    config, dataset = folder.load_config(), folder.load_dataset()
    return Judgement(
        metric=dataset.metric,
        chance_loss=dataset.chance_loss,
        chance_error=dataset.chance_error,
        num_validation=dataset.num_validation,
        objective=config.objective,
        stability_weight=config.stability_weight,
        num_classes=dataset.spec.num_classes,
    )


def discover_space(folder: RunFolder) -> tuple[keras_tuner.HyperModel, keras_tuner.HyperParameters]:
    """The model builder of a run and its search space, the user's ranges applied.

    Raises:
        SpaceError: It cannot be found, loaded or built.
        ConfigError: A range does not fit it.
    """
    config, dataset = folder.load_config(), folder.load_dataset()
    hypermodel = spaces.load(
        config.space, dataset.spec, num_train=dataset.num_train, epochs=config.epochs, base_dir=Path.cwd()
    )
    space = spaces.discover(hypermodel, preprocessing_choices(dataset))
    space = spaces.apply_ranges(space, ranges=config.range, fixed=config.fix)
    # One build with the user's values: what cannot be built is said before the first trial.
    spaces.build_model(hypermodel, space.copy())
    return hypermodel, space


def preprocessing_choices(dataset: DatasetRecord) -> Sequence[Choice]:
    """The hyperparameters of the preprocessing that make sense for a dataset."""
    counts = [count for count in dataset.class_counts if count]
    imbalance = max(counts) / min(counts) if counts else 1.0
    return pipelines.choices(dataset.spec, has_missing=dataset.num_features_missing > 0, imbalance=imbalance)


def hyperparameters_of(values: dict[str, HyperparameterValue]) -> keras_tuner.HyperParameters:
    """Recorded values as `build(hp)` takes them: what it asks for gets the recorded value."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def prepared_data(
    folder: RunFolder, dataset: DatasetRecord, hyperparameters: dict[str, HyperparameterValue]
) -> Prepared:
    """The data through the pipeline that a configuration's preprocessing values describe."""
    return cache.prepared(folder.data_dir, dataset.spec, {name: str(value) for name, value in hyperparameters.items()})


def training_data(
    folder: RunFolder, dataset: DatasetRecord, hyperparameters: dict[str, HyperparameterValue]
) -> TrainingData:
    """The arrays, and the weights of the classes, for one configuration."""
    prepared = prepared_data(folder, dataset, hyperparameters)
    weighted = hyperparameters.get("balance") == "class_weights"
    return TrainingData(
        x=prepared.train.x,
        y=prepared.train.y,
        x_validation=prepared.validation.x,
        y_validation=prepared.validation.y,
        class_weight=pipelines.class_weights(np.asarray(prepared.train.y)) if weighted else None,
    )


class StudyTuner(StabilityTuner):
    """The tuner of a run: data and judgement come from the run folder, the preprocessing is searched too."""

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel,
        oracle: StudyOracle,
        *,
        folder: RunFolder,
        deadline: float | None,
        seed: int,
    ) -> None:
        self._deadline = deadline
        self._dataset = folder.load_dataset()
        self._judgement = judgement_of(folder)
        self._study = oracle.study
        super().__init__(
            hypermodel, oracle, seed=seed, directory=str(folder.root.parent), project_name=folder.root.name
        )

    def training_data(self, hp: keras_tuner.HyperParameters, *_: Any, **__: Any) -> TrainingData:
        """Arrays of the run folder."""
        return training_data(self.run_folder, self._dataset, dict(hp.values))

    def judgement(self, data: TrainingData) -> Judgement:
        """The run's."""
        return self._judgement

    def on_trial_begin(self, trial: trial_module.Trial) -> None:
        """Start clean: an interrupted attempt may have left files."""
        self.run_folder.clear_trial(int(trial.trial_id))

    def on_epoch(self, trial: trial_module.Trial, epoch: int, trace: Trace) -> None:
        """Report the epoch, and stop at the deadline (unless no trial has finished yet: then this one is finished)."""
        super().on_epoch(trial, epoch, trace)
        if self._is_late() and self._study.best_numbers(1):
            raise OutOfTime

    def pre_create_trial(self) -> None:
        """Start no trial after the deadline."""
        if self._is_late():
            raise OutOfTime

    def _populate_initial_space(self) -> None:
        """The space was discovered, and the user's ranges applied, before."""

    def _is_late(self) -> bool:
        return self._deadline is not None and time.time() > self._deadline


def _environment() -> dict[str, str]:
    """Versions, hardware and command, for the report and the bundle."""
    packages = ("tensorflow", "keras", "keras-tuner", "optuna", "scikit-learn", "numpy", "pandas", "skops")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    devices = (
        [f"{device}" for device in keras.distribution.list_devices()] if keras.backend.backend() != "torch" else []
    )
    return {
        "python": platform.python_version(),
        **{name: version for name in packages if (version := _version(name))},
        "backend": keras.backend.backend(),
        "devices": ", ".join(devices),
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "memory": f"{memory_gib:.1f} GiB",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
