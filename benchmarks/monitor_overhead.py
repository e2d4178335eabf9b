"""What the recording of every step costs: epochs with and without the monitor, in turn, in one process.

    python benchmarks/monitor_overhead.py [--rounds 12]

The aim is at most 3 % of the step time. Each round trains one epoch without and one with the monitor (order
alternating), so that a slow moment of the machine hits both alike; the ratio is of medians, with the spread of the
paired ratios beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from tuner.training.monitor import StabilityMonitor

STEPS = 300


def model_for(filters: int) -> keras.Model:
    """A small CNN for 28x28 images, as a search has many of."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(2 * filters, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.steps_per_execution = 32
    return model


def measure(*, filters: int, batch_size: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each epoch without and with the monitor."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * batch_size, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, STEPS * batch_size)
    plain, watched = model_for(filters), model_for(filters)
    monitor = StabilityMonitor(2.3, metric="accuracy", num_classes=10)
    runs = [(plain, [], []), (watched, [monitor], [])]
    for number in range(rounds + 1):
        for model, callbacks, seconds in runs if number % 2 else runs[::-1]:
            started = time.perf_counter()
            model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0, callbacks=callbacks)
            if number:  # the first round traces and compiles
                seconds.append(time.perf_counter() - started)
    return runs[0][2], runs[1][2]


def main() -> None:
    """Print a table of step times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    table = Table(
        title=f"{STEPS} steps an epoch, {rounds} rounds, Keras {keras.__version__} on {keras.backend.backend()}"
    )
    for heading in ("filters", "batch", "ms a step without", "with", "overhead", "quartiles of paired ratios"):
        table.add_column(heading)
    for filters, batch_size in ((8, 16), (16, 32), (32, 64)):
        without, with_monitor = measure(filters=filters, batch_size=batch_size, rounds=rounds)
        paired = [after / before - 1 for before, after in zip(without, with_monitor, strict=True)]
        low, _, high = statistics.quantiles(paired, n=4)
        medians = [1e3 * statistics.median(seconds) / STEPS for seconds in (without, with_monitor)]
        table.add_row(
            str(filters),
            str(batch_size),
            f"{medians[0]:.2f}",
            f"{medians[1]:.2f}",
            f"{medians[1] / medians[0] - 1:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
