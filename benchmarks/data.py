"""Seconds to the first epoch, cold and warm, and what input costs of a training's time.

    python benchmarks/data.py            # scikit-learn's digits
    python benchmarks/data.py DATA       # whatever `search` takes

Cold: nothing is cached; the data is read, stored, and prepared. Warm: another trial with the same preprocessing, whose
arrays lie in the run folder. Input per epoch: the time to go through all batches without training on them, against the
time of an epoch of the default model of the kind. The aim is at most 5 % warm.
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

NUM_EPOCHS = 4
NUM_PASSES = 5


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it took, and what it returned."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


class EpochSeconds(keras.callbacks.Callback):
    """Seconds of the training part of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._started)


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


def main() -> None:
    """Print a table of seconds."""
    config = SearchConfig(data=sys.argv[1] if len(sys.argv) > 1 else None, epochs=NUM_EPOCHS)
    with tempfile.TemporaryDirectory(prefix="tuner-data-") as workspace:
        read_s, (folder, record) = timed(lambda: setup.prepare(config, Path(workspace) / "run"))
        hypermodel, space = discover_space(folder)
        cold_s, data = timed(lambda: training_data(folder, record, space.values))
        warm_s, _ = timed(lambda: training_data(folder, record, space.values))
        model = hypermodel.build(space)
        batches = batches_of(data, batch_size=int(space.values["batch_size"]))
        passes = [timed(lambda: [None for _ in batches])[0] for _ in range(NUM_PASSES)]
        epochs = EpochSeconds()
        model.fit(batches, epochs=NUM_EPOCHS, shuffle=False, verbose=0, callbacks=[epochs])
    # The first epoch builds the graph, the first pass starts threads.
    input_s, epoch_s = statistics.median(passes[1:]), statistics.median(epochs.seconds[1:])
    table = Table(title=f"{record.source}: {record.num_train:,} rows to train, {data.x.shape[1:]}")
    for heading in ("what", "seconds"):
        table.add_column(heading)
    for name, seconds in (
        ("read, split, audit, store", read_s),
        ("prepare, cold", cold_s),
        ("prepare, warm", warm_s),
        ("first epoch (builds the graph)", epochs.seconds[0]),
        ("data until the first epoch, cold", read_s + cold_s),
        ("data until the first epoch, warm", warm_s),
        ("epoch", epoch_s),
        ("input of an epoch", input_s),
    ):
        table.add_row(name, f"{seconds:.3f}")
    table.add_row("input as a share of the epoch", f"{input_s / epoch_s:.1%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
