"""What every training of a run needs: its search space, its arrays, and what it is held against."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import keras_tuner
import numpy as np

from tuner.config import SearchConfig
from tuner.data import balance, cache, choices, pipelines, room
from tuner.data.cache import Prepared
from tuner.data.choices import Choice
from tuner.records import DatasetRecord, DataSpec, HyperparameterValue
from tuner.search import spaces
from tuner.stability.judgement import Judgement
from tuner.store import RunFolder
from tuner.training.seedrun import TrainingData

__all__ = [
    "discover_space",
    "hyperparameters_of",
    "judgement_of",
    "prepared_data",
    "preprocessing_choices",
    "training_data",
]


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
        is_multilabel=dataset.spec.task == "multilabel",
    )


def discover_space(folder: RunFolder) -> tuple[keras_tuner.HyperModel, keras_tuner.HyperParameters]:
    """The model builder of a run and its search space, the user's ranges applied.

    Raises:
        SpaceError: It cannot be found, loaded or built.
        ConfigError: A range does not fit it.
    """
    config, dataset = folder.load_config(), folder.load_dataset()
    hypermodel = spaces.load(
        _stored_space(folder, config), dataset.spec, num_train=dataset.num_train, epochs=config.epochs, base_dir=Path()
    )
    space = spaces.discover(hypermodel, _offered_choices(hypermodel, dataset))
    space = spaces.apply_ranges(space, ranges=config.range, fixed=config.fix)
    # One build with the user's values: what cannot be built is said before the first trial.
    spaces.build_model(hypermodel, space.copy())
    return hypermodel, space


def _stored_space(folder: RunFolder, config: SearchConfig) -> str | None:
    """The user's space as the run keeps it: an edited file must not change the trainings of a run that has begun."""
    if config.space is None or not folder.space_file.is_file():
        return config.space
    file, _, name = config.space.rpartition(":")
    # The file may import what lies beside it.
    sys.path.append(str(Path(file).resolve().parent))
    return f"{folder.space_file}:{name}"


def _offered_choices(hypermodel: keras_tuner.HyperModel, dataset: DatasetRecord) -> Sequence[Choice]:
    """All choices of the preprocessing, or for a space of fixed shape those that leave the shape alone."""
    offered = preprocessing_choices(dataset)
    if spaces.follows_shape(hypermodel):
        return offered
    return [_of_one_shape(dataset.spec, choice) for choice in offered]


def _of_one_shape(spec: DataSpec, choice: Choice) -> Choice:
    """The choice with those of its values that give samples of the same shape as its default."""

    def shape(value: str) -> tuple[tuple[int, ...], int]:
        params = {choice.name: value}
        return pipelines.output_shape(spec, params), pipelines.vocabulary_size(spec, params)

    kept = [value for value in choice.values if shape(value) == shape(choice.default)]
    return dataclasses.replace(choice, values=tuple(kept))


def preprocessing_choices(dataset: DatasetRecord) -> Sequence[Choice]:
    """The hyperparameters of the preprocessing that make sense for a dataset."""
    counts = [count for count in dataset.class_counts if count]
    imbalance = max(counts) / min(counts) if counts else 1.0
    return choices.offered(
        dataset.spec,
        has_missing=dataset.num_features_missing > 0,
        imbalance=imbalance,
        proposed=dataset.proposed,
    )


def hyperparameters_of(values: dict[str, HyperparameterValue]) -> keras_tuner.HyperParameters:
    """Recorded values as `build(hp)` takes them: what it asks for gets the recorded value."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def prepared_data(
    folder: RunFolder,
    dataset: DatasetRecord,
    hyperparameters: dict[str, HyperparameterValue],
    *,
    split_seed: int | None = None,
) -> Prepared:
    """The data through the pipeline that a configuration's preprocessing values describe.

    Args:
        folder, dataset, hyperparameters: The run and the configuration.
        split_seed: Of a fresh split of training and validation part, whose pipeline is fitted anew; None: the run's.
    """
    data_dir = folder.data_dir
    if split_seed is not None:
        data_dir = cache.fresh_split(data_dir, dataset.spec, seed=split_seed)
    return cache.prepared(data_dir, dataset.spec, {name: str(value) for name, value in hyperparameters.items()})


def training_data(
    folder: RunFolder,
    dataset: DatasetRecord,
    hyperparameters: dict[str, HyperparameterValue],
    *,
    split_seed: int | None = None,
) -> TrainingData:
    """The arrays, and the weights of the classes, for one configuration; arguments as for `prepared_data`."""
    prepared = prepared_data(folder, dataset, hyperparameters, split_seed=split_seed)
    chosen = hyperparameters.get("balance")
    y = np.asarray(prepared.train.y)
    x, labels = prepared.train.x, y
    if chosen == "oversample":
        rows = balance.oversampled_rows(y, seed=folder.load_config().seed)
        x, labels = room.taken(x, rows), y[rows]
    return TrainingData(
        x=x,
        y=labels,
        x_validation=prepared.validation.x,
        y_validation=prepared.validation.y,
        class_weight=balance.class_weights(y) if chosen == "class_weights" else None,
    )
