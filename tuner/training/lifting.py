"""Lifts a compiled Keras model: a copy whose penalties, dropout, learning rate, decay and clipping are variables.

Keras bakes these numbers into the compiled step, so that each new value costs a new trace. The copy reads them from
variables of the model (penalties, dropout) and of its optimizer (the rest): both kinds reach the compiled state on
every backend; under JAX's stateless trainer any other variable would silently be a constant. `key_of` describes a model
with those numbers left out: models of one key can share one lifted model, and train in it as they would by themselves.

Only what is wholly described by its configuration is lifted: Keras' own layers, losses, metrics and optimizers. In a
lifted model, training gives the numbers that it gives in the model itself, to the last bit; but where TensorFlow
compiles with XLA, which rounds by what it fuses, dropout then drops other values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

__all__ = ["Lifted", "key_of"]

# Backends whose dropout is repeated here to the last bit.
BACKENDS = ("tensorflow", "jax")
# Layers without a penalty are given one of zero, so that they share a program with those that have one.
PENALISED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# Numbers of a schedule that it only computes with on the device; the others it uses in Python.
SCHEDULE_NUMBERS: dict[Any, tuple[str, ...]] = {
    keras.optimizers.schedules.CosineDecay: ("initial_learning_rate", "decay_steps", "warmup_target", "warmup_steps"),
    keras.optimizers.schedules.CosineDecayRestarts: ("initial_learning_rate",),
    keras.optimizers.schedules.ExponentialDecay: ("initial_learning_rate", "decay_steps", "decay_rate"),
    keras.optimizers.schedules.InverseTimeDecay: ("initial_learning_rate", "decay_steps", "decay_rate"),
}
# What stands in a key for a number that is a variable.
NUMBER = "<number>"

_PENALTIES = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
# What a model may carry of its own that no configuration tells of.
_OWN_METHODS = ("fit", "train_step", "test_step", "compute_loss", "compute_metrics", "call", "make_train_function")


class _NotLiftedError(Exception):
    """The model is not wholly described by its configuration."""


def key_of(model: Any) -> str | None:
    """A compiled model with the numbers that are lifted left out, as text; None for one that cannot be lifted.

    Models of the same key differ in those numbers, in initial weights and seeds, and in nothing else.
    """
    try:
        _require_plain(model)
        layers = dict(model.get_config())
        # Of the model itself; a user's own name for it changes nothing either.
        layers.pop("name", None)
        for layer, described in zip(_top_layers(model), _described_layers(layers), strict=True):
            _mask_layer(layer, described["config"])
        compiled = dict(model.get_compile_config())
        compiled["optimizer"] = _masked_optimizer(model)
        described = {
            "layers": layers,
            "compiled": compiled,
            "trainable": [weight.trainable for weight in model.weights],
            "execution": (model.steps_per_execution, model.jit_compile, _unrolled(model)),
        }
        _require_keras(described)
        return json.dumps(_without_own_names(described), sort_keys=True)
    except Exception:  # a configuration may raise anything
        return None


class Lifted:
    """A lifted copy of a model, for all models of the same key.

    Args:
        plain: The first of them; of a key (`key_of`).
        batch: A batch of what it is trained on, (x, y) or (x, y, weights); any number of rows.

    Attributes:
        model: The copy, compiled, with all its variables.
    """

    def __init__(self, plain: Any, batch: tuple[Any, ...]) -> None:
        self.model = keras.models.clone_model(plain, clone_function=_lifted_layer)
        optimizer = _LiftedOptimizer(plain)
        self.model.compile(**_compile_arguments(plain) | {"optimizer": optimizer.optimizer})
        self.model.steps_per_execution = plain.steps_per_execution
        # A variable that is first made inside the step, as those of metrics are, has TensorFlow trace it once more.
        self.model._symbolic_build(data_batch=batch)
        self._optimizer = optimizer
        numbers = (*optimizer.variables, *_layer_numbers(self.model))
        self._numbers = {id(variable) for variable in numbers}
        self._fresh_optimizer = [
            (variable, keras.ops.convert_to_numpy(variable.value).copy())
            for variable in optimizer.optimizer.variables
            if id(variable) not in self._numbers
        ]

    @property
    def num_bytes(self) -> int:
        """Memory of weights and optimizer."""
        variables = (*self.model.variables, *self.model.optimizer.variables)
        return sum(int(np.prod(variable.shape)) * 4 for variable in variables)

    def take(self, plain: Any) -> None:
        """Become a model of the same key, as it is before its training: numbers, weights, seeds; a new optimizer."""
        for own, given in zip(_top_layers(self.model), _top_layers(plain), strict=True):
            if isinstance(own, _Dropout):
                own.take(given)
            for name in _penalty_names(given):
                getattr(own, name).take(getattr(given, name))
        for variable, value in self._fresh_optimizer:
            variable.assign(value)
        self._optimizer.take(plain.optimizer)
        for own, given in self._pairs(plain):
            own.assign(given.value)

    def give(self, plain: Any) -> None:
        """Give a model what this one has learned: weights, seeds, the state of the optimizer."""
        for own, given in self._pairs(plain):
            given.assign(own.value)
        for own, given in _dropouts(self.model, plain):
            given.seed_generator.state.assign(own.seed_generator.state.value)
        plain.optimizer.build(plain.trainable_variables)
        given_variables = plain.optimizer.variables
        for (own, _), given in zip(self._fresh_optimizer, given_variables, strict=True):
            given.assign(own.value)

    def _pairs(self, plain: Any) -> Iterator[tuple[Any, Any]]:
        """Variables of both models that are the same thing, but for the seeds of dropout, which at rate 0 has none."""
        seeds = {id(layer.seed_generator.state) for pair in _dropouts(self.model, plain) for layer in pair}
        seeds |= {id(layer.seed_generator.state) for layer in self.model.layers if isinstance(layer, _Dropout)}
        own = [found for found in self.model.variables if id(found) not in self._numbers | seeds]
        given = [found for found in plain.variables if id(found) not in seeds]
        return zip(own, given, strict=True)


class _Dropout(keras.layers.Layer):
    """Dropout whose rate is a variable; the same numbers as Keras' own, to the last bit.

    Args:
        plain: The layer that it stands for.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__(name=plain.name, dtype=plain.dtype_policy, trainable=plain.trainable)
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator(0)
        self._noise_shape = plain.noise_shape
        self.numbers = [
            self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, dtype="float32", name=name)
            for name in ("dropped_frac", "kept_frac", "factor")
        ]

    def take(self, plain: Any) -> None:
        """Take rate and seed of a plain layer."""
        for variable, value in zip(self.numbers, (plain.rate, 1.0 - plain.rate, 1 / (1 - plain.rate)), strict=True):
            variable.assign(value)
        if plain.rate > 0:
            self.seed_generator.state.assign(plain.seed_generator.state.value)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        dropped_frac, kept_frac, factor = (keras.ops.cast(number, inputs.dtype) for number in self.numbers)
        sizes = keras.ops.shape(inputs)
        noise_shape = self._noise_shape or (None,) * len(sizes)
        shape = [size if given is None else given for size, given in zip(sizes, noise_shape, strict=True)]
        drawn = keras.random.uniform(shape, dtype=inputs.dtype, seed=self.seed_generator)
        if keras.backend.backend() == "jax":
            return keras.ops.where(drawn < kept_frac, inputs / kept_frac, keras.ops.zeros_like(inputs))
        return keras.ops.where(drawn >= dropped_frac, inputs * factor, keras.ops.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _Penalty(keras.layers.Layer):
    """L1 and L2 on a weight, with factors that are variables; a layer, so that they belong to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = [
            self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, dtype="float32", name=name)
            for name in ("l1", "l2")
        ]
        self.built = True

    def take(self, plain: Any) -> None:
        """Take the factors of a plain regulariser, or none."""
        for variable, name in zip(self.numbers, ("l1", "l2"), strict=True):
            variable.assign(float(getattr(plain, name, 0.0)))

    def __call__(self, weight: Any) -> Any:
        l1, l2 = (keras.ops.cast(number, weight.dtype) for number in self.numbers)
        return _term(l1, keras.ops.sum(keras.ops.absolute(weight))) + _term(l2, keras.ops.sum(keras.ops.square(weight)))


def _term(factor: Any, size: Any) -> Any:
    """Nothing at factor 0, of an infinite size neither."""
    return keras.ops.where(factor > 0, factor * size, keras.ops.zeros_like(size))


class _LiftedOptimizer:
    """A new optimizer as that of a model, whose numbers are variables of it.

    Args:
        plain: The model.

    Attributes:
        optimizer: Not built yet.
        variables: That stand for numbers.
    """

    def __init__(self, plain: Any) -> None:
        given = plain.optimizer
        self.optimizer = type(given).from_config(given.get_config())
        rate = self.optimizer._learning_rate
        self._schedule = rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None
        self._names = _schedule_numbers(self._schedule)
        self._rates = [self._variable(name) for name in self._names]
        for name, variable in zip(self._names, self._rates, strict=True):
            setattr(self._schedule, name, variable)
        self._decay = None if given.weight_decay is None else self._variable("weight_decay")
        if self._decay is not None:
            self.optimizer.weight_decay = self._decay
        self._clip = self._variable("clip_norm") if _clips(plain) else None
        if self._clip is not None:
            self._is_clipped_alone = bool(given.clipnorm)
            self.optimizer.clipnorm = self._clip if self._is_clipped_alone else None
            self.optimizer.global_clipnorm = None
            self.optimizer._clip_gradients = self._clipped
        self.variables = [*self._rates, *(found for found in (self._decay, self._clip) if found is not None)]

    def take(self, plain: Any) -> None:
        """Take the numbers of a plain optimizer."""
        if self._schedule is None:
            self.optimizer._learning_rate.assign(plain._learning_rate.value)
        for name, variable in zip(self._names, self._rates, strict=True):
            variable.assign(float(getattr(plain._learning_rate, name)))
        if self._decay is not None:
            self._decay.assign(float(plain.weight_decay))
        if self._clip is not None:
            self._clip.assign(float(plain.clipnorm or plain.global_clipnorm or 0.0))

    def _variable(self, name: str) -> Any:
        return self.optimizer.add_variable(shape=(), dtype="float32", name=name)

    def _clipped(self, gradients: Any) -> Any:
        """As Keras clips (3.15, `BaseOptimizer._clip_gradients`), but not at all while the norm is 0."""
        present = [gradient for gradient in gradients if gradient is not None]
        if self._is_clipped_alone:
            return [None if gradient is None else self.optimizer._clip_by_norm(gradient) for gradient in gradients]
        norm = keras.ops.sqrt(
            keras.ops.sum(keras.ops.stack([keras.ops.sum(keras.ops.square(found)) for found in present]))
        )
        limit = keras.ops.convert_to_tensor(self._clip)
        scale = limit * keras.ops.minimum(1.0 / norm, 1.0 / limit) + (norm - norm)
        scale = keras.ops.where(limit > 0, scale, keras.ops.ones_like(scale))
        return [None if gradient is None else gradient * scale for gradient in gradients]


# The parts of a key.


def _require_plain(model: Any) -> None:
    is_plain = type(model) in (keras.Model, keras.Sequential) or type(model).__name__ == "Functional"
    optimizer = model.optimizer
    if (
        keras.backend.backend() not in BACKENDS
        or not is_plain
        or not type(model).__module__.startswith("keras.")
        or not model.built
        or model.run_eagerly
        or any(name in vars(model) for name in _OWN_METHODS)
        or optimizer is None
        or not type(optimizer).__module__.startswith("keras.")
        or isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        or getattr(optimizer, "_exclude_from_weight_decay", None)
        or getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        or keras.distribution.distribution() is not None
        or getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1) > 1
    ):
        raise _NotLiftedError


def _require_keras(described: Any) -> None:
    """Refuse what is the user's own: a function, or a class outside Keras, whose state no configuration tells."""
    if isinstance(described, dict):
        module = described.get("module")
        is_object = "class_name" in described
        if is_object and described["class_name"] in ("function", "__lambda__", "Lambda"):
            raise _NotLiftedError
        if is_object and module is not None and not re.match(r"keras(\.|$)", str(module)):
            raise _NotLiftedError
        for value in described.values():
            _require_keras(value)
    elif isinstance(described, list | tuple):
        for value in described:
            _require_keras(value)
    elif isinstance(described, str) and described in keras.saving.get_custom_objects():
        raise _NotLiftedError


def _top_layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def _described_layers(described: Any) -> list[Any]:
    return [layer for layer in described["layers"] if layer["class_name"] != "InputLayer"]


def _mask_layer(layer: Any, described: dict[str, Any]) -> None:
    if _is_dropout(layer):
        described["rate"] = described["seed"] = NUMBER
    for name in _penalty_names(layer):
        described[name] = NUMBER
    if any("seed_generator" in variable.path for variable in layer.variables):
        # The state of the generator is carried over.
        described["seed"] = NUMBER


def _is_dropout(layer: Any) -> bool:
    return type(layer) is keras.layers.Dropout and 0 <= layer.rate < 1


def _penalty_names(layer: Any) -> list[str]:
    """Attributes of a layer that are penalties on its weights, those that it has none in included."""
    if len(list(layer._flatten_layers())) > 1 + sum(isinstance(each, _Penalty) for each in layer._flatten_layers()):
        return []
    names = [name for name in vars(layer) if re.match(r"[a-z]\w*_regularizer$", name) and "activity" not in name]
    return [
        name
        for name in names
        if type(getattr(layer, name)) in _PENALTIES
        or (getattr(layer, name) is None and name == "kernel_regularizer" and type(layer) in PENALISED)
    ]


def _masked_optimizer(model: Any) -> dict[str, Any]:
    optimizer = model.optimizer
    described = dict(optimizer.get_config())
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        for name in _schedule_numbers(rate):
            described["learning_rate"]["config"][name] = NUMBER
    elif isinstance(rate, keras.Variable):
        described["learning_rate"] = NUMBER
    else:
        raise _NotLiftedError
    if optimizer.weight_decay is not None:
        described["weight_decay"] = NUMBER
    if _clips(model):
        described["global_clipnorm"] = "each" if optimizer.clipnorm else "all"
        described["clipnorm"] = NUMBER
    return {"class_name": type(optimizer).__name__, "module": type(optimizer).__module__, "config": described}


def _schedule_numbers(schedule: Any) -> list[str]:
    """Names of the numbers that are lifted; one that is not set means another computation."""
    return [name for name in SCHEDULE_NUMBERS.get(type(schedule), ()) if getattr(schedule, name) is not None]


def _clips(model: Any) -> bool:
    """Whether clipping is lifted: by norm, or not clipped yet. Gradients of embeddings are sparse, and left alone."""
    optimizer = model.optimizer
    if optimizer.clipvalue or optimizer.gradient_accumulation_steps:
        return False
    is_sparse = any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers())
    return bool(optimizer.clipnorm or optimizer.global_clipnorm) or not is_sparse


def _unrolled(model: Any) -> int:
    return int(getattr(model, "unrolled_steps_per_execution", 1))


def _without_own_names(described: Any) -> Any:
    """With names that Keras gave by itself, which count up from model to model, in the order they appear."""
    names: dict[str, str] = {}
    for config in _configs(described):
        name, snake = config["config"]["name"], keras.src.utils.naming.to_snake_case(config["class_name"])
        if re.fullmatch(rf"{re.escape(snake)}(_\d+)?", name):
            names.setdefault(name, f"#{len(names)}")

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [renamed(each) for each in value]
        return names.get(value, value) if isinstance(value, str) else value

    return renamed(described)


def _configs(described: Any) -> Iterator[dict[str, Any]]:
    """Everything described in it that has a class and a name."""
    if isinstance(described, dict):
        config = described.get("config")
        if "class_name" in described and isinstance(config, dict) and isinstance(config.get("name"), str):
            yield described
        for value in described.values():
            yield from _configs(value)
    elif isinstance(described, list | tuple):
        for value in described:
            yield from _configs(value)


# The parts of a lifted model.


def _lifted_layer(layer: Any) -> Any:
    copy = _Dropout(layer) if _is_dropout(layer) else type(layer).from_config(layer.get_config())
    for name in _penalty_names(layer):
        setattr(copy, name, _Penalty())
    return copy


def _compile_arguments(plain: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = keras.saving.deserialize_keras_object(plain.get_compile_config())
    return arguments


def _layer_numbers(model: Any) -> list[Any]:
    lifted = [layer for layer in model._flatten_layers() if isinstance(layer, _Dropout | _Penalty)]
    return [variable for layer in lifted for variable in layer.numbers]


def _dropouts(lifted: Any, plain: Any) -> list[tuple[Any, Any]]:
    """Dropout layers of both models that have a seed in both."""
    pairs = zip(_top_layers(lifted), _top_layers(plain), strict=True)
    return [(own, given) for own, given in pairs if isinstance(own, _Dropout) and given.rate > 0]
