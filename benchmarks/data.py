"""Seconds to the first epoch, cold and warm, and what input costs of a training's time.

    python benchmarks/data.py            # scikit-learn's digits
    python benchmarks/data.py DATA       # whatever `search` takes

Cold: nothing is cached; the data is read, stored, and prepared. Warm: another trial with the same preprocessing, whose
arrays lie in the run folder. Input per epoch: what a training waits for. Epochs of the default model of the kind on the
dealt data alternate with epochs on one batch that is there already, as often; the median difference of neighbours is
the input. The aim is at most 5 % warm. On a busy machine the processor time says more than the clock.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console
from rich.table import Table

from tuner.config import SearchConfig
from tuner.search import setup
from tuner.search.context import discover_space, training_data
from tuner.training.order import reshuffle_every_epoch

# Pairs of epochs, and those of them that are left out because graphs and threads are made in them.
NUM_PAIRS, NUM_WARMING = 30, 2


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it took, and what it returned."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


class EpochSeconds(keras.callbacks.Callback):
    """Seconds of the training part of each epoch: on the clock, and of all processors together."""

    def __init__(self) -> None:
        super().__init__()
        self.wall: list[float] = []
        self.processor: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clocks."""
        self._started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stop them."""
        self.wall.append(time.perf_counter() - self._started[0])
        self.processor.append(time.process_time() - self._started[1])


class Caught:
    """Stands for a model: keeps the batches that a training would read."""

    batches: Any = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        validation_split: float = 0.0,
        validation_batch_size: int | None = None,
        class_weight: dict[int, float] | None = None,
    ) -> None:
        """Take what `keras.Model.fit` takes."""
        self.batches = x


def batches_of(data: Any, *, batch_size: int) -> Any:
    """The dataset that a training reads its batches from."""
    caught = Caught()
    reshuffle_every_epoch(caught, 0)
    caught.fit(data.x, data.y, batch_size=batch_size, class_weight=data.class_weight)
    return caught.batches


def at_hand(batches: Any) -> Any:
    """As many batches, all of them the first one, which costs nothing to read."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(next(iter(batches))).repeat(int(batches.cardinality()))


def compared(of_dealt: list[float], of_free: list[float]) -> tuple[float, float]:
    """Median seconds of an epoch, and median of what its input adds, without the first pairs."""
    pairs = list(zip(of_dealt, of_free, strict=True))[NUM_WARMING:]
    return statistics.median(dealt for dealt, _ in pairs), statistics.median(dealt - free for dealt, free in pairs)


def main() -> None:
    """Print a table of seconds."""
    config = SearchConfig(data=sys.argv[1] if len(sys.argv) > 1 else None, epochs=NUM_PAIRS)
    with tempfile.TemporaryDirectory(prefix="tuner-data-") as workspace:
        read_s, (folder, record) = timed(lambda: setup.prepare(config, Path(workspace) / "run"))
        hypermodel, space = discover_space(folder)
        cold_s, data = timed(lambda: training_data(folder, record, space.values))
        warm_s, _ = timed(lambda: training_data(folder, record, space.values))
        model = hypermodel.build(space)
        dealt = batches_of(data, batch_size=int(space.values["batch_size"]))
        turns = [("dealt", dealt), ("at hand", at_hand(dealt))]
        epochs = {name: EpochSeconds() for name, _ in turns}
        for _ in range(NUM_PAIRS):
            for name, batches in turns:
                model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[epochs[name]])
            turns.reverse()  # what comes second finds other caches
    dealt_epochs, free_epochs = epochs.values()
    epoch_s, input_s = compared(dealt_epochs.wall, free_epochs.wall)
    epoch_cpu_s, input_cpu_s = compared(dealt_epochs.processor, free_epochs.processor)
    table = Table(title=f"{record.source}: {record.num_train:,} rows to train, {data.x.shape[1:]}")
    for heading in ("what", "seconds"):
        table.add_column(heading)
    for name, seconds in (
        ("read, split, audit, store", read_s),
        ("prepare, cold", cold_s),
        ("prepare, warm", warm_s),
        ("first epoch (builds the graph)", dealt_epochs.wall[0]),
        ("data until the first epoch, cold", read_s + cold_s),
        ("data until the first epoch, warm", warm_s),
        ("epoch", epoch_s),
        ("input of an epoch", input_s),
    ):
        table.add_row(name, f"{seconds:.3f}")
    table.add_row("input as a share of the epoch", f"{input_s / epoch_s:.1%}")
    table.add_row("the same in processor time", f"{input_cpu_s / epoch_cpu_s:.1%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
