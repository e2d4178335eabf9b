"""The stability margins of a run: each sweep is done once, stored in the run folder, and shared by its trials."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kinds

from tuner.errors import ConfigError, SpaceError
from tuner.records import HyperparameterValue, RateRange, RateSweep, StabilityMargin, SweptTrial
from tuner.search.context import hyperparameters_of, judgement_of, training_data
from tuner.search.ranges import apply_ranges
from tuner.stability.judgement import Judgement
from tuner.stability.margin import rate_range
from tuner.store import RunFolder, read_json, write_json
from tuner.training.margin import Sweep
from tuner.training.seedrun import TrainingData
from tuner.training.session import release_memory

__all__ = ["apply_swept_range", "measure_margin", "random_values"]

logger = logging.getLogger(__name__)

# The hyperparameter whose range `--lr-range auto` sets.
RATE_NAME = "learning_rate"
# Configurations that are swept for it beside the default one. Source: benchmarks/margin.py (docs/stability.md).
NUM_RANDOM_CONFIGURATIONS = 4


def measure_margin(
    folder: RunFolder,
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    *,
    trial: int,
    data: TrainingData,
    judgement: Judgement,
    epochs: int,
    seed: int,
    **fit_kwargs: Any,
) -> StabilityMargin | None:
    """Measure the stability margin of a trial and store it; a sweep that was done for another trial counts.

    Args:
        folder: Where it is stored.
        hypermodel, hp: The configuration.
        trial: Its number.
        data, judgement, epochs: As for `seedrun.train`.
        seed: The same for all trials, or no sweep is shared.
        fit_kwargs: Passed on to `fit`.

    Returns:
        The margin; None if the configuration cannot be swept, which is noted beside the trial.
    """
    try:
        sweep = Sweep(hypermodel, hp, data=data, judgement=_fed(judgement, data), seed=seed, **fit_kwargs)
        peak_rate, key = sweep.peak_rate(epochs), sweep.key()
        done = folder.sweep_file(key).is_file()
        rates = None if done else sweep.run()
    except Exception as error:
        # The user's model may raise anything; a trial without a margin is still a trial.
        logger.exception("the margin of trial %d could not be measured", trial)
        write_json(folder.swept_file(trial), SweptTrial("", 0.0, f"{type(error).__name__}: {error}"))
        return None
    if rates is not None:
        write_json(folder.sweep_file(key), rates)
    write_json(folder.swept_file(trial), SweptTrial(key, peak_rate))
    release_memory()
    return folder.load_margin(trial)


def apply_swept_range(folder: RunFolder, hypermodel: keras_tuner.HyperModel, space: Any) -> Any:
    """The space with the learning-rate range that sweeps of a few of its configurations propose.

    Measured before the first trial and stored: a search that goes on has the same range.

    Args:
        folder: A run that is set up.
        hypermodel: Builds its models.
        space: Its `keras_tuner.HyperParameters`, the user's ranges applied.

    Raises:
        ConfigError: The space has no learning rate, or the user set it.
        SpaceError: No configuration could be swept.
    """
    config = folder.load_config()
    if not any(hp.name == RATE_NAME and isinstance(hp, kinds.Float) for hp in space.space):
        raise ConfigError(
            f"--lr-range auto sets the range of the hyperparameter {RATE_NAME!r}, a Float, which this space does not "
            'have. Declare hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"), or leave the option out.'
        )
    if RATE_NAME in config.range or RATE_NAME in config.fix:
        raise ConfigError(f"--lr-range auto and a value or range of {RATE_NAME} exclude each other. Keep one of them.")
    # One worker measures it, the others wait.
    with folder.exclusive("rate_range"):
        found = folder.load_rate_range()
        if found is None:
            sweeps = _sweeps(folder, hypermodel, space)
            found = RateRange(*rate_range(sweeps), sweeps)
            write_json(folder.rate_range_file, found)
    return apply_ranges(space, ranges={RATE_NAME: f"{found.low}:{found.high}"}, fixed={})


def random_values(space: Any, *, seed: int) -> dict[str, HyperparameterValue]:
    """A random configuration of a space: the active hyperparameters and their values.

    Args:
        space: A `keras_tuner.HyperParameters`.
        seed: Decides the values.
    """
    drawn = kinds.HyperParameters()
    for number, hp in enumerate(space.space):
        drawn.merge([hp])
        if drawn.is_active(hp):
            drawn.values[hp.name] = hp.random_sample(seed + 7919 * number)
    return dict(drawn.values)


def _fed(judgement: Judgement, data: TrainingData) -> Judgement:
    """With the chance loss of what is minimised: classes may count alike that are not."""
    return dataclasses.replace(judgement, chance_loss=judgement.minimised_chance(data.y, data.class_weight))


def _sweeps(folder: RunFolder, hypermodel: keras_tuner.HyperModel, space: Any) -> tuple[RateSweep, ...]:
    """Of the default configuration and a few random ones; those that cannot be swept are left out."""
    config, dataset, judgement = folder.load_config(), folder.load_dataset(), judgement_of(folder)
    drawn = [random_values(space, seed=config.seed + number) for number in range(NUM_RANDOM_CONFIGURATIONS)]
    sweeps, message = [], ""
    for values in [dict(space.values), *drawn]:
        data = training_data(folder, dataset, values)
        try:
            held = _fed(judgement, data)
            sweep = Sweep(hypermodel, hyperparameters_of(values), data=data, judgement=held, seed=config.seed)
            file = folder.sweep_file(sweep.key())
            sweeps.append(read_json(file, RateSweep) if file.is_file() else sweep.run())
        except Exception as error:  # the user's model may raise anything
            logger.exception("a configuration could not be swept")
            message = f"{type(error).__name__}: {error}"
            continue
        write_json(file, sweeps[-1])
        release_memory()
    if not sweeps:
        raise SpaceError(f"No configuration of the space could be swept for --lr-range auto, the last: {message}")
    return tuple(sweeps)
