"""Records the sweep from which the stability margin follows: a training whose learning rate rises until it breaks.

One `fit` of at most 150 steps a seed, through the compiled training function; the rate is a schedule, so nothing runs
in Python per batch. Sweeps of one architecture share a compiled program (`tuner.training.programs`), whatever the seed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np
import numpy.typing as npt

from tuner.data import room
from tuner.data.label_sets import is_label_sets
from tuner.errors import SpaceError
from tuner.records import RateSweep, StabilityMargin
from tuner.stability.judgement import Judgement, chance_levels
from tuner.stability.margin import HIGHEST_RATE, LOWEST_RATE, NUM_STEPS, diverging_rate
from tuner.training.losses import is_classifier
from tuner.training.monitor import StabilityMonitor
from tuner.training.programs import Trainee
from tuner.training.seedrun import TrainingData, build_model, fit_model
from tuner.training.session import set_random_seed

__all__ = ["Sweep", "stability_margin"]

# Seeds of a sweep. Source: first measurement of this margin (two, geometric mean).
NUM_SEEDS = 2
# Steps at which a schedule is evaluated to find its peak, at most. Source: convention; 0.3 ms each.
MAX_EVALUATIONS = 1000
# Rows by which two preparations of the same data are told apart, about. Source: convention.
NUM_HASHED_ROWS = 1000
# What Keras takes when `fit` is given none.
DEFAULT_BATCH_SIZE = 32

_KEPT_ARGUMENTS = ("x", "y", "batch_size", "class_weight", "sample_weight", "shuffle")


def stability_margin(
    model: Any,
    x: Any,
    y: npt.NDArray[Any],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    epochs: int = 1,
    chance_loss: float | None = None,
    seed: int = 0,
) -> StabilityMargin:
    """How many times higher the learning rate of a compiled Keras model could be before its training breaks.

    A short sweep of fresh copies of the model; the model itself is left alone. Seeds Python, NumPy and Keras.

    Args:
        model: A compiled model that `keras.models.clone_model` can copy, or a function without arguments that builds
            one.
        x, y: Training data as for `fit`.
        batch_size: Of the training that is meant.
        epochs: Of the training that is meant; matters only where the rate follows a schedule.
        chance_loss: Loss of the best constant answer; None: from the labels, for cross-entropy and squared error.
        seed: Decides initial weights and order.

    Raises:
        SpaceError: The model cannot be copied or swept.
    """
    space = _GivenModel(model if callable(model) and not isinstance(model, keras.Model) else lambda: _copy(model))
    labels = np.asarray(y)
    is_classes = is_classifier(model if isinstance(model, keras.Model) else model())
    codes = np.argmax(labels, axis=-1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    is_multilabel = is_classes and is_label_sets(labels)
    num_classes = labels.shape[1] if is_multilabel else int(codes.max()) + 1 if is_classes else 0
    if chance_loss is None:
        targets = codes if is_classes and not is_multilabel else labels
        chance_loss, _ = chance_levels(targets, num_classes=num_classes, metric="loss")
    judgement = Judgement("loss", chance_loss, chance_loss, num_validation=1, num_classes=num_classes)
    sweep = Sweep(
        space,
        keras_tuner.HyperParameters(),
        data=TrainingData(x, labels, x[:1], labels[:1]),
        judgement=judgement,
        seed=seed,
        batch_size=batch_size,
    )
    peak_rate = sweep.peak_rate(epochs)
    return StabilityMargin(sweep.run(), peak_rate)


class Sweep:
    """One configuration, built and ready to be swept.

    Args:
        hypermodel: Builds a compiled model; what its own `fit` passes to the model's is honoured, callbacks excepted.
        hp: The configuration.
        data: Prepared arrays.
        judgement: Knows chance loss and number of classes.
        seed: Decides initial weights and order.
        fit_kwargs: Passed on to `fit`.

    Raises:
        SpaceError: `fit` of the hypermodel never calls that of the model.
    """

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel,
        hp: keras_tuner.HyperParameters,
        *,
        data: TrainingData,
        judgement: Judgement,
        seed: int = 0,
        **fit_kwargs: Any,
    ) -> None:
        self._hypermodel = hypermodel
        self._hp = hp
        self._data = data
        self._chance_loss = judgement.chance_loss
        self._seed = seed
        fit_kwargs.pop("callbacks", None)
        self._model = self._built(seed)
        self._arguments = _fit_arguments(hypermodel, hp, self._model, data=data, judgement=judgement, **fit_kwargs)

    def peak_rate(self, epochs: int) -> float:
        """The highest learning rate that the configuration's own optimizer takes in so many epochs; not after `run`."""
        optimizer = self._model.optimizer
        num_steps = math.ceil(len(self._data.y) / self._batch_size) * epochs
        steps = np.unique(np.linspace(0, max(0, num_steps - 1), min(max(1, num_steps), MAX_EVALUATIONS)).astype(int))
        peak = 0.0
        for step in steps:
            optimizer.iterations.assign(int(step))
            peak = max(peak, float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
        optimizer.iterations.assign(0)
        return peak

    def key(self) -> str:
        """What the sweep depends on, as a hash: everything but the learning rate and its schedule; not after `run`."""
        settings = {
            "sweep": (LOWEST_RATE, HIGHEST_RATE, NUM_STEPS, NUM_SEEDS),
            "data": [_fingerprint(self._arguments[name]) for name in ("x", "y", "sample_weight")],
            "class_weight": self._arguments["class_weight"],
            "batch_size": self._batch_size,
            "seed": self._seed,
            "model": _described(self._model) or dict(self._hp.values),
        }
        text = json.dumps(settings, sort_keys=True, default=str)
        for number, name in enumerate(dict.fromkeys(_names(settings["model"]))):
            # Names that Keras gives by itself count up from model to model.
            text = text.replace(f'"{name}"', f'"name {number}"')
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def run(self) -> RateSweep:
        """Sweep the rate on every seed; the object is used up then.

        Raises:
            SpaceError: The losses of this model cannot be recorded.
        """
        started = time.perf_counter()
        rates = [self._sweep(self._model, self._seed)]
        for seed in range(self._seed + 1, self._seed + NUM_SEEDS):
            rates.append(self._sweep(self._built(seed), seed))
        return RateSweep(tuple(rates), HIGHEST_RATE, time.perf_counter() - started)

    @property
    def _batch_size(self) -> int:
        return int(self._arguments["batch_size"] or DEFAULT_BATCH_SIZE)

    def _built(self, seed: int) -> Any:
        set_random_seed(seed)
        model = build_model(self._hypermodel, self._hp)
        if not model.built:
            model(self._data.x[:1])
        return model

    def _sweep(self, model: Any, seed: int) -> float | None:
        # From the lowest rate to the highest, exponentially; as a schedule of Keras', which programs can share.
        ratio = HIGHEST_RATE / LOWEST_RATE
        model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(LOWEST_RATE, NUM_STEPS - 1, ratio)
        monitor = StabilityMonitor(self._chance_loss)
        watch = _Watch(monitor, self._chance_loss)
        trainee = Trainee(self._hypermodel, model, seed=seed, monitor=monitor, checkpoint=None, own_callbacks=[watch])
        arguments = self._arguments | _some_rows(self._arguments, self._batch_size, seed)
        trainee.fit(**arguments, epochs=NUM_STEPS, verbose=0, callbacks=[monitor, watch])
        if monitor.is_aside or not watch.num_steps:
            raise SpaceError("The losses of this model cannot be recorded, so that its margin cannot be measured.")
        return watch.diverging_rate


class _Watch(keras.callbacks.Callback):
    """Ends the sweep at the end of an epoch, once it has diverged or all its steps are done."""

    def __init__(self, monitor: StabilityMonitor, chance_loss: float) -> None:
        super().__init__()
        self._monitor = monitor
        self._chance_loss = chance_loss
        self.num_steps = 0
        self.diverging_rate: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        trace = self._monitor.trace
        self.num_steps = len(trace.step_loss)
        self.diverging_rate = diverging_rate(trace.step_loss, grad_norm=trace.grad_norm, chance_loss=self._chance_loss)
        if self.diverging_rate is not None or not 0 < self.num_steps < NUM_STEPS:
            self.model.stop_training = True


class _FitCalledError(BaseException):
    """Ends a hypermodel's `fit` where it calls the model's, with the arguments; nothing that user code swallows."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def _fit_arguments(
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    model: Any,
    *,
    data: TrainingData,
    judgement: Judgement,
    **fit_kwargs: Any,
) -> dict[str, Any]:
    """With what the hypermodel calls the model's `fit`: batch size, weights, labels as the model wants them."""
    signature = inspect.signature(model.fit)

    def note(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        raise _FitCalledError(bound.arguments)

    model.fit = note
    try:
        fit_model(hypermodel, hp, model, data=data, judgement=judgement, epochs=1, callbacks=[], **fit_kwargs)
    except _FitCalledError as called:
        return {name: called.arguments[name] for name in _KEPT_ARGUMENTS}
    finally:
        del model.fit
    raise SpaceError("fit of the search space never calls model.fit, so that its margin cannot be measured.")


def _some_rows(arguments: Mapping[str, Any], batch_size: int, seed: int) -> dict[str, Any]:
    """Whole batches of rows, no more than the sweep needs; nothing for what is no array."""
    x = arguments["x"]
    if not isinstance(x, np.ndarray):
        return {}
    epochs = math.ceil(NUM_STEPS / max(1, len(x) // batch_size))
    num_rows = min(len(x), batch_size * math.ceil(NUM_STEPS / epochs))
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:num_rows])
    return {
        name: room.taken(arguments[name], rows)
        for name in ("x", "y", "sample_weight")
        if isinstance(arguments[name], np.ndarray)
    }


def _fingerprint(values: Any) -> str:
    """Of some of the rows: enough to tell one preprocessing from another."""
    if not isinstance(values, np.ndarray):
        return type(values).__name__
    digest = hashlib.sha256()
    for row in range(0, len(values), max(1, len(values) // NUM_HASHED_ROWS)):
        digest.update(np.ascontiguousarray(values[row]).tobytes())
    return f"{len(values)} {digest.hexdigest()}"


def _described(model: Any) -> list[Any] | None:
    """Architecture, loss and optimizer without its rate; None for a model that cannot describe itself."""
    try:
        return [model.get_config(), _without_rate(model.get_compile_config())]
    except Exception:  # a subclassed model of the user's may raise anything here
        return None


def _without_rate(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _without_rate(value) for name, value in config.items() if name != "learning_rate"}
    return [_without_rate(value) for value in config] if isinstance(config, list | tuple) else config


def _names(config: Any) -> Iterator[str]:
    """Of layers, models and optimizers, wherever they stand in a configuration; those of number types are no names."""
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            yield config["name"]
        for key, value in config.items():
            if key != "dtype":
                yield from _names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)


class _GivenModel(keras_tuner.HyperModel):
    """A function without arguments as a HyperModel."""

    def __init__(self, build: Callable[[], Any]) -> None:
        super().__init__()
        self._model_builder = build

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        return self._model_builder()


def _copy(model: Any) -> Any:
    """The model with fresh weights, compiled as it was."""
    try:
        copy = keras.models.clone_model(model)
        copy.compile_from_config(model.get_compile_config())
    except Exception as error:  # a subclassed model of the user's may raise anything here
        raise SpaceError(
            f"Model {model.name!r} cannot be copied ({type(error).__name__}: {error}). "
            "Give a function that builds and compiles it instead."
        ) from error
    return copy
