"""The order of the rows: dealt anew in every epoch, and repeatable.

Keras (3.15) shuffles arrays with an operation whose seed is fixed once `keras.utils.set_random_seed` was called: under
TensorFlow every epoch then shows the same batches in the same order (measured: tests/training/test_order.py). Without
the seed the order changes, but no training can be repeated. Other backends shuffle with NumPy and are left alone.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tuner.training.mapped import tensor

__all__ = ["Deal", "is_plain", "reshuffle_every_epoch", "restore_order"]

# Iterators of its dataset that `fit` makes in an epoch, each with an order of its own. Source: keras 3.15,
# EpochIterator: one when the epoch begins and one when its last step was taken; held by tests/training/test_order.py.
ITERATORS_PER_EPOCH = 2


def reshuffle_every_epoch(model: Any, seed: int, *, on_deal: Callable[[Deal], None] | None = None) -> None:
    """Have this model's `fit` deal arrays anew in every epoch; all other arguments mean what they meant.

    With `initial_epoch=k` it deals what an uninterrupted `fit` deals from that epoch on.

    Args:
        model: Compiled; `restore_order` undoes it.
        seed: Decides the orders.
        on_deal: Called before `fit` begins with what can deal its batches once more; never called for data that is
            not dealt here (datasets, generators, other backends). The orders are the same with and without it.
    """
    if keras.backend.backend() != "tensorflow":
        return
    fit = model.fit
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def reshuffling_fit(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if not is_plain(bound.arguments):
            return fit(*args, **kwargs)
        deal = Deal(bound.arguments)
        if on_deal is not None:
            on_deal(deal)
        return fit(**_with_dataset(bound.arguments, deal, seed=seed, is_recorded=on_deal is not None))

    model.fit = reshuffling_fit


def restore_order(model: Any) -> None:
    """Give the model its own `fit` back."""
    vars(model).pop("fit", None)


def is_plain(arguments: Mapping[str, Any]) -> bool:
    """Whether these arguments of `fit` hold two arrays that Keras would shuffle as a whole."""
    are_arrays = isinstance(arguments["x"], np.ndarray) and isinstance(arguments["y"], np.ndarray)
    has_more = any(arguments.get(name) is not None for name in ("sample_weight", "steps_per_epoch"))
    return are_arrays and arguments["shuffle"] is True and not arguments["validation_split"] and not has_more


class Deal:
    """The batches of a `fit` over arrays, which can be dealt once more.

    Attributes:
        order: The rows in the order of the epoch that was begun last; shape (rows,).
        batch_size: Rows of a batch; the last of an epoch may have fewer.
        num_batches: Of an epoch.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.batch_size = int(arguments["batch_size"] or 32)
        self.num_rows = len(arguments["x"])
        self.num_batches = math.ceil(self.num_rows / self.batch_size)
        self.order = np.empty(0, dtype=np.int64)
        columns = [arguments["x"], arguments["y"]]
        if arguments["class_weight"] is not None:
            columns.append(_row_weights(np.asarray(arguments["y"]), arguments["class_weight"]))
        self._columns = [tensor(column) for column in columns]

    def again(self, order: npt.NDArray[np.int64], batches: npt.ArrayLike) -> Any:
        """An iterator for the compiled training function over some batches of an epoch.

        Args:
            order: Of that epoch, as `order` was then.
            batches: Their numbers in the epoch, ascending.
        """
        import tensorflow as tf

        rows = np.concatenate([self.rows(order, number) for number in np.asarray(batches)])
        return iter(self.batches(tf.data.Dataset.from_tensor_slices(rows)))

    def rows(self, order: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.int64]:
        """The rows of one batch of an epoch."""
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def batches(self, rows: Any) -> Any:
        """A dataset of row numbers as a dataset of batches."""
        import tensorflow as tf

        gathered = rows.batch(self.batch_size).map(
            lambda chosen: tuple(tf.gather(column, chosen) for column in self._columns),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        # Rewriting the graph would copy the columns, whatever their size, for every iterator.
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False
        return gathered.prefetch(tf.data.AUTOTUNE).with_options(options)

    def record(self, rows: Any) -> Any:
        """The same dataset of row numbers; `order` follows it, by one call of Python an epoch."""
        import tensorflow as tf

        def remember(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            self.order = order
            return order

        def remembered(order: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(remember, [order], tf.int64), (self.num_rows,))

        whole = rows.batch(self.num_rows).map(remembered).unbatch()
        return whole.apply(tf.data.experimental.assert_cardinality(self.num_rows))


def _row_weights(y: npt.NDArray[Any], class_weight: dict[int, float]) -> npt.NDArray[np.float32]:
    """The weight of each row, as Keras gives it."""
    codes = y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] > 1 else np.round(y.reshape(-1)).astype(np.int64)
    return np.array([class_weight.get(int(code), 1.0) for code in codes], dtype=np.float32)


def _with_dataset(arguments: dict[str, Any], deal: Deal, *, seed: int, is_recorded: bool) -> dict[str, Any]:
    """The same arguments with the arrays as a dataset that reshuffles."""
    import tensorflow as tf

    rows = tf.data.Dataset.range(deal.num_rows).shuffle(deal.num_rows, seed=seed, reshuffle_each_iteration=True)
    for _ in range(ITERATORS_PER_EPOCH * arguments["initial_epoch"]):
        iter(rows)
    return arguments | {
        "x": deal.batches(deal.record(rows) if is_recorded else rows),
        "y": None,
        "batch_size": None,
        "shuffle": False,
        "class_weight": None,
        "validation_data": _in_place(arguments["validation_data"]),
        "validation_batch_size": arguments["validation_batch_size"] or deal.batch_size,
    }


def _in_place(validation_data: Any) -> Any:
    """The same validation data; Keras would copy an array that is memory-mapped."""
    if not isinstance(validation_data, tuple):
        return validation_data
    return tuple(tensor(part) if isinstance(part, np.memmap) else part for part in validation_data)
