"""Probe channels: what a training looks like inside, for the detectors that ask more than losses (`Trace.channels`).

Two sources. `update_ratio` and `layer_grad_ratio` are computed on the device in the step itself, from its own update
and gradients, and need no data. The others come from one fixed batch at the end of an epoch (`DataProbe`): a plain
forward pass as in a validation, which changes nothing in the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tuner.training.losses import ends_with_logits, is_classifier
from tuner.training.metrics import class_codes
from tuner.training.replacement import Replacement

__all__ = [
    "STEP_PROBES",
    "DataProbe",
    "global_norm",
    "layer_grad_ratio",
    "median_of_last",
    "snapshot",
    "update_ratio",
]

# Channels that the step itself yields, in the order of their columns in the monitor's buffer.
STEP_PROBES = ("layer_grad_ratio", "update_ratio")
# Steps at the end of an epoch whose median is the epoch's value. Source: convention; a median of fewer jumps about.
LAST_STEPS = 20
# Classes with fewer rows in the probed batch say nothing about their recall. Source: ten rows of a class that is
# recognised 7 times in 10 fall below the 0.3 of the detector in 0.2 % of batches (binomial), five rows in 3 %.
MIN_CLASS_ROWS = 10
# An update smaller than this counts as this: the logarithm stays finite where nothing moves at all.
SMALLEST_RATIO = 1e-30


def global_norm(tensors: Sequence[Any]) -> Any:
    """Euclidean norm over all tensors; of sparse gradients (embeddings) by their values."""
    squares = [
        keras.ops.sum(keras.ops.square(keras.ops.cast(getattr(tensor, "values", tensor), "float32")))
        for tensor in tensors
        if tensor is not None
    ]
    return keras.ops.sqrt(sum(squares[1:], squares[0])) if squares else keras.ops.zeros(())


def snapshot(variables: Sequence[Any]) -> list[Any]:
    """The values of the variables before an update; runs in the compiled step."""
    # A copy reads now; under TensorFlow a variable is read wherever it is used, so after the update.
    return [keras.ops.copy(variable) for variable in variables]


def update_ratio(before: Sequence[Any], variables: Sequence[Any]) -> Any:
    """|weight change| / |weight| of one step over all weights together; runs in the compiled step, after the update."""
    changes = [keras.ops.subtract(variable, old) for variable, old in zip(variables, before, strict=True)]
    return global_norm(changes) / global_norm(before)


def layer_grad_ratio(gradients: Sequence[Any], variables: Sequence[Any]) -> Any:
    """Gradient norm of the first layer over the last's; layers are those with kernels. Runs in the compiled step."""
    layers: dict[str, list[Any]] = {}
    for gradient, variable in zip(gradients, variables, strict=True):
        if gradient is not None and len(variable.shape) > 1:
            layers.setdefault(variable.path.rpartition("/")[0], []).append(gradient)
    if len(layers) < 2:
        return keras.ops.convert_to_tensor(math.nan, dtype="float32")
    norms = [global_norm(gradients) for gradients in layers.values()]
    return norms[0] / norms[-1]


def median_of_last(name: str, values: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> float:
    """What a channel says of an epoch, from its value in every step; NaN if it says nothing."""
    finite = values[-LAST_STEPS:]
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return math.nan
    median = float(np.median(finite))
    return math.log10(max(median, SMALLEST_RATIO)) if name == "update_ratio" else median


@dataclass
class _Seen:
    """What a forward pass showed: input of the first layer with weights; activations, zero share, dead share."""

    first_input: Any = None
    is_embedded: bool = False
    activations: list[tuple[Any, Any, Any]] = field(default_factory=list)


class DataProbe:
    """Channels that one fixed batch of data shows.

    Args:
        x, y: The batch, as `fit` takes it: some hundred rows, ten or more of each class.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self._x, self._y = x, y

    def measure(self, model: Any) -> dict[str, float]:
        """The channels of now, by name; NaN where the model or the batch does not have what a channel is about.

        Args:
            model: Compiled and built; its weights, random states and optimizer stay as they are.
        """
        with _watched(model) as seen:
            y_pred = model(self._x, training=False)
        total = float(model.compute_loss(x=self._x, y=self._y, y_pred=y_pred))
        penalty = math.fsum(float(keras.ops.sum(loss)) for loss in model.losses)
        return {
            "regularisation_frac": penalty / total if total > 0 else math.nan,
            "class_recall_min": _lowest_recall(model, self._y, y_pred),
            **_of_input(seen),
            **_of_activations(seen, y_pred),
        }


@contextmanager
def _watched(model: Any) -> Iterator[_Seen]:
    """Look at what goes into the first layer with weights and at what the activations say, in one forward pass."""
    seen = _Seen()
    replaced = [Replacement(layer, "call", _recording(layer, seen)) for layer in _layers(model)]
    try:
        yield seen
    finally:
        for replacement in replaced:
            replacement.undo()


def _layers(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers(include_self=False) if _has_weights(layer) or _can_be_zero(layer)]


def _has_weights(layer: Any) -> bool:
    return hasattr(layer, "kernel") or isinstance(layer, keras.layers.Embedding)


def _can_be_zero(layer: Any) -> bool:
    """Whether it ends in an activation function; those that are never 0 count as alive."""
    activation = getattr(layer, "activation", None)
    is_function = callable(activation) and activation is not keras.activations.linear
    return is_function or isinstance(layer, keras.layers.ReLU)


def _recording(layer: Any, seen: _Seen) -> Any:
    def wrap(call: Any) -> Any:
        def recording_call(*args: Any, **kwargs: Any) -> Any:
            if seen.first_input is None and args and _has_weights(layer):
                seen.first_input, seen.is_embedded = args[0], isinstance(layer, keras.layers.Embedding)
            outputs = call(*args, **kwargs)
            if _can_be_zero(layer) and not keras.tree.is_nested(outputs) and len(outputs.shape) > 1:
                is_zero = keras.ops.equal(outputs, 0)
                by_unit = keras.ops.all(is_zero, axis=tuple(range(len(outputs.shape) - 1)))
                seen.activations.append((outputs, _share(is_zero), _share(by_unit)))
            return outputs

        return recording_call

    return wrap


def _of_input(seen: _Seen) -> dict[str, float]:
    """Mean and deviation of what the first layer is fed; of tokens, which are no quantities, none."""
    if seen.first_input is None or seen.is_embedded or keras.tree.is_nested(seen.first_input):
        return {"input_mean": math.nan, "input_std": math.nan}
    values = keras.ops.cast(seen.first_input, "float32")
    return {"input_mean": float(keras.ops.mean(values)), "input_std": float(keras.ops.std(values))}


def _of_activations(seen: _Seen, y_pred: Any) -> dict[str, float]:
    """Zeros on the mean over the hidden layers, dead units of the worst one: a single dead layer ends all learning."""
    outputs = keras.tree.flatten(y_pred)
    hidden = [
        (float(zeros), float(dead))
        for activation, zeros, dead in seen.activations
        if not any(activation is output for output in outputs)
    ]
    if not hidden:
        return {"zero_frac": math.nan, "dead_frac": math.nan}
    zeros, dead = zip(*hidden, strict=True)
    return {"zero_frac": math.fsum(zeros) / len(zeros), "dead_frac": max(dead)}


def _lowest_recall(model: Any, y_true: Any, y_pred: Any) -> float:
    """Lowest recall of a class, among those with rows enough."""
    if not is_classifier(model) or keras.tree.is_nested(y_pred) or _is_multi_label(y_true, y_pred):
        return math.nan
    threshold = 0.0 if ends_with_logits(model) else 0.5
    codes = class_codes(y_true, y_pred, threshold=threshold)
    labels, answers = (keras.ops.convert_to_numpy(keras.ops.reshape(values, (-1,))) for values in codes)
    counts = np.bincount(labels)
    recalls = [float(np.mean(answers[labels == code] == code)) for code in np.flatnonzero(counts >= MIN_CLASS_ROWS)]
    return min(recalls, default=math.nan)


def _is_multi_label(y_true: Any, y_pred: Any) -> bool:
    labels = np.asarray(y_true)
    is_wide = labels.ndim == len(y_pred.shape) and labels.shape[-1] > 1
    return bool(is_wide and not np.allclose(labels.sum(axis=-1), 1))


def _share(flags: Any) -> Any:
    return keras.ops.mean(keras.ops.cast(flags, "float32"))
