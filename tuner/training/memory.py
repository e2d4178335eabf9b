"""Memory: what a training will need, and which exceptions say that there was not enough."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras

__all__ = ["WeightsTooLarge", "bounded_weights", "infeasibility", "is_out_of_memory", "needed_bytes"]

# Of a number in float32; weights, gradients, optimizer and activations are that unless a space says otherwise.
BYTES_PER_NUMBER = 4
# Each activation is held with its gradient. Source: convention; what a runtime frees early or adds for itself is not
# known, so only a training that needs more than all memory is refused.
COPIES_OF_ACTIVATIONS = 2

# How the backends' own exceptions say it. Source: TensorFlow (`ResourceExhaustedError`: "OOM when allocating tensor"),
# XLA under JAX and TensorFlow (`XlaRuntimeError`: "RESOURCE_EXHAUSTED: Out of memory ..."), torch (`OutOfMemoryError`).
_NAMES = ("ResourceExhaustedError", "OutOfMemoryError")
_PHRASES = ("RESOURCE_EXHAUSTED", "OOM when allocating", "CUDA out of memory", "CUDA_ERROR_OUT_OF_MEMORY")


class WeightsTooLarge(MemoryError):
    """A model that was being built has more weights than there is memory for."""


@contextlib.contextmanager
def bounded_weights(available_bytes: int | None) -> Iterator[None]:
    """Have a model that is built in the block refused before memory is taken for a weight that there is no room for.

    Without it, an absurd layer takes the machine's memory before anybody can look at the model: the kernel gives it out
    as it is written, and kills who writes last.

    Args:
        available_bytes: What there is; None: nothing is refused.

    Raises:
        WeightsTooLarge: By the layer whose weight is too large, together with those before it.
    """
    add_weight, total = keras.layers.Layer.add_weight, 0

    def bounded(layer: keras.layers.Layer, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal total
        total += BYTES_PER_NUMBER * math.prod(shape or ())
        if available_bytes is not None and total > available_bytes:
            raise WeightsTooLarge(
                f"up to its layer {layer.name!r} the weights alone need {total / 1e9:,.1f} GB of memory, and "
                f"{available_bytes / 1e9:,.1f} GB are there"
            )
        return add_weight(layer, shape, *args, **kwargs)

    keras.layers.Layer.add_weight = bounded
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or the one that it was raised from, says that memory ran out."""
    known: list[BaseException] = []
    while error not in known:
        known.append(error)
        error = error.__cause__ or error.__context__ or error
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ in _NAMES
        # Not of a sentence that a user's own exception quotes: errors of the runtimes alone.
        or (isinstance(each, RuntimeError) and any(phrase in str(each) for phrase in _PHRASES))
        for each in known
    )


def needed_bytes(model: Any, *, batch_size: int) -> int:
    """What training a built model takes at least: weights, their gradients, the optimizer's, and one batch.

    Args:
        model: Compiled. Of one whose layers do not say the shapes that they give, only the weights count.
        batch_size: Rows of a batch.
    """
    weights = _size(model.weights)
    trainable = _size(model.trainable_weights)
    optimizer = trainable * _num_slots(model.optimizer)
    shapes = [output.shape for layer in model._flatten_layers() for output in _outputs(layer)]
    activations = sum(math.prod(size or 1 for size in shape[1:]) for shape in shapes) * batch_size
    return BYTES_PER_NUMBER * (weights + trainable + optimizer + COPIES_OF_ACTIVATIONS * activations)


def infeasibility(model: Any, *, batch_size: int, available_bytes: int | None) -> str:
    """Why a model cannot be trained in the memory there is; empty if it may fit."""
    needed = needed_bytes(model, batch_size=batch_size)
    if available_bytes is None or needed <= available_bytes:
        return ""
    return (
        f"with batches of {batch_size} rows it needs {needed / 1e9:,.1f} GB of memory at least, and "
        f"{available_bytes / 1e9:,.1f} GB are there"
    )


def _size(variables: list[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _num_slots(optimizer: Any) -> int:
    """Numbers that an optimizer keeps for each weight; 0 if it is none of Keras's."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(inner, keras.optimizers.SGD):
        return int(bool(inner.momentum))
    return 2 if isinstance(inner, keras.optimizers.Adam) else int(isinstance(inner, keras.optimizers.Optimizer))


def _outputs(layer: Any) -> list[Any]:
    try:
        return list(keras.tree.flatten(layer.output))
    except (AttributeError, ValueError):  # Never called, or called more than once.
        return []
