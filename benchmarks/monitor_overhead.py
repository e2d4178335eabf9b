"""What the recording of every step costs: epochs with and without the monitor, in turn, in one process.

    python -m benchmarks.monitor_overhead [--rounds 40] [--probes]

The aim is at most 3 % of the step time. Each round trains one short epoch without, one with the monitor, and one more
without as a control, in an order that changes from round to round, so that a slow moment of the machine hits all alike.
What counts is processor time on one pinned core: on a shared machine the wall clock measures the neighbours. The result
is the median of the paired ratios with its 95 % interval; what the control shows is the error of the measurement.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from tuner.training.monitor import StabilityMonitor

STEPS = 100
# The first rounds trace, compile and warm the caches.
WARM_UP_ROUNDS = 2
SIZES = ((8, 16), (16, 32), (32, 64))


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


def measure(*, filters: int, batch_size: int, rounds: int, has_probes: bool) -> np.ndarray:
    """Processor seconds of each epoch without, with, and once more without; shape (rounds, 3)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * batch_size, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, STEPS * batch_size)
    models = [model_for(filters) for _ in range(3)]
    monitor = StabilityMonitor(2.3, metric="accuracy", num_classes=10, probes=has_probes)
    seconds = np.empty((rounds + WARM_UP_ROUNDS, 3))
    for number in range(rounds + WARM_UP_ROUNDS):
        for column in np.roll([0, 1, 2] if number % 2 else [2, 1, 0], number):
            started = time.process_time()
            callbacks = [monitor] if column == 1 else []
            models[column].fit(x, y, batch_size=batch_size, epochs=1, verbose=0, callbacks=callbacks)
            seconds[number, column] = time.process_time() - started
    return seconds[WARM_UP_ROUNDS:]


def told(ratios: np.ndarray) -> str:
    """Median of paired ratios with its 95 % interval (by the order statistics of the sign test)."""
    ordered = np.sort(ratios) - 1
    rank = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    return f"{np.median(ordered):+.1%} ({ordered[rank]:+.1%} to {ordered[-1 - rank]:+.1%})"


def main() -> None:
    """Print a table of step times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--probes", action="store_true", help="record the probe channels of the steps, too")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    table = Table(
        title=f"{STEPS} steps an epoch, {arguments.rounds} rounds, Keras {keras.__version__} on "
        f"{keras.backend.backend()}, one core"
    )
    for heading in ("filters", "batch", "ms a step", "µs more", "overhead (95 %)", "control (95 %)"):
        table.add_column(heading)
    for filters, batch_size in SIZES:
        seconds = measure(filters=filters, batch_size=batch_size, rounds=arguments.rounds, has_probes=arguments.probes)
        without, watched, control = seconds.T
        base = (without + control) / 2
        table.add_row(
            str(filters),
            str(batch_size),
            f"{1e3 * np.median(base) / STEPS:.2f}",
            f"{1e6 * np.median(watched - base) / STEPS:+.0f}",
            told(watched / base),
            told(control / without),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
