"""The order of the rows: dealt anew in every epoch, and repeatable. The one place that speaks TensorFlow itself.

Keras (3.15) shuffles arrays with an operation whose seed is fixed once `keras.utils.set_random_seed` was called: under
TensorFlow every epoch then shows the same batches in the same order (measured: tests/training/test_order.py). Without
the seed the order changes, but no training can be repeated. Other backends shuffle with NumPy and are left alone.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

__all__ = ["reshuffle_every_epoch", "restore_order"]


def reshuffle_every_epoch(model: Any, seed: int) -> None:
    """Have this model's `fit` deal arrays anew in every epoch; all other arguments mean what they meant.

    Args:
        model: Compiled; `restore_order` undoes it.
        seed: Decides the orders.
    """
    if keras.backend.backend() != "tensorflow":
        return
    fit = model.fit
    signature = inspect.signature(fit)

    def reshuffling_fit(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if not _is_plain(bound.arguments):
            return fit(*args, **kwargs)
        return fit(**_with_dataset(bound.arguments, seed))

    model.fit = reshuffling_fit


def restore_order(model: Any) -> None:
    """Give the model its own `fit` back."""
    vars(model).pop("fit", None)


def _is_plain(arguments: dict[str, Any]) -> bool:
    """Whether these are two arrays that Keras would shuffle as a whole."""
    are_arrays = isinstance(arguments["x"], np.ndarray) and isinstance(arguments["y"], np.ndarray)
    has_more = any(arguments.get(name) is not None for name in ("sample_weight", "steps_per_epoch"))
    return are_arrays and arguments["shuffle"] is True and not arguments["validation_split"] and not has_more


def _with_dataset(arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same arguments with the arrays as a dataset that reshuffles."""
    import tensorflow as tf

    batch_size = arguments["batch_size"] or 32
    x, y = (tf.constant(np.asarray(arguments[name])) for name in "xy")
    rows = tf.data.Dataset.range(len(arguments["x"])).shuffle(
        len(arguments["x"]), seed=seed, reshuffle_each_iteration=True
    )
    batches = rows.batch(batch_size).map(
        lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen)), num_parallel_calls=tf.data.AUTOTUNE
    )
    return arguments | {
        "x": batches.prefetch(tf.data.AUTOTUNE),
        "y": None,
        "batch_size": None,
        "shuffle": False,
        "validation_batch_size": arguments["validation_batch_size"] or batch_size,
    }
