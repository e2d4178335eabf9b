"""A learning rate 30 times too high, with and without the guard: a small CNN on 3,000 CIFAR-10 images, several seeds.

    python -m benchmarks.guard [DATA.npz] [--seeds 3] [--epochs 8] [--sweep] [--picture docs/guard.svg]

A table of the accuracy and loss at the end (mean of the last three epochs, on the 1,000 test images) at a sane rate and
at 30 times that, each without and with the guard; then what the guard did. `--sweep` also shows the rates among which
the sane one is the best. About three minutes on two cores. `--picture` draws the curves of the first seed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from tuner.records import Finding, Trace
from tuner.stability.score import smoothed_end
from tuner.training.guard import SpikeGuard
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch

DATA = Path(__file__).resolve().parents[1] / "../shared/data/images/cifar10_3k.npz"
CHANCE_LOSS = float(np.log(10))
BATCH_SIZE = 32
# The best of the sweep (`--sweep`, three seeds: 0.431; 0.413 at 0.001 and 0.425 at 0.004).
SANE_RATE, FACTOR = 2e-3, 30
SWEEP = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3)


@dataclass(frozen=True)
class Result:
    """One training.

    Attributes:
        accuracy, loss: On the test images, mean of the last three epochs.
    """

    rate: float
    is_guarded: bool
    seed: int
    accuracy: float
    loss: float
    trace: Trace
    findings: tuple[Finding, ...]
    seconds: float


def read(path: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images with mean 0 and deviation 1, and their classes: training part, test part."""
    if not path.is_file():
        sys.exit(f"There is no file {str(path)!r}. Give an .npz with x_train, y_train, x_test, y_test (CIFAR-10).")
    with np.load(path) as file:
        images = [file[f"x_{part}"].astype("float32") for part in ("train", "test")]
        labels = [file[f"y_{part}"].astype("int64").reshape(-1) for part in ("train", "test")]
    mean, deviation = images[0].mean(axis=(0, 1, 2)), images[0].std(axis=(0, 1, 2))
    train, test = (((x - mean) / deviation, y) for x, y in zip(images, labels, strict=True))
    return train, test


def small_cnn(rate: float, seed: int) -> keras.Model:
    """Three convolutions, no normalisation: a sane rate exists, and one far too high kills it."""
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((32, 32, 3))]
    for filters in (16, 32, 32):
        layers.append(keras.layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal"))
        layers.append(keras.layers.MaxPooling2D())
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=32
    )
    return model


def train(data: tuple, rate: float, *, seed: int, epochs: int, is_guarded: bool) -> Result:
    """Train once."""
    (x, y), test = data
    started = time.perf_counter()
    model, monitor = small_cnn(rate, seed), StabilityMonitor(CHANCE_LOSS, metric="accuracy")
    guard = SpikeGuard(monitor) if is_guarded else None
    reshuffle_every_epoch(model, seed, on_deal=guard.replay_from if guard else None)
    callbacks = [monitor, *([guard] if guard else [])]
    history = model.fit(
        x, y, validation_data=test, batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=callbacks
    ).history
    return Result(
        rate=rate,
        is_guarded=is_guarded,
        seed=seed,
        accuracy=smoothed_end(history["val_accuracy"]),
        loss=smoothed_end(history["val_loss"]),
        trace=guard.trace if guard else monitor.trace,
        findings=guard.findings if guard else (),
        seconds=time.perf_counter() - started,
    )


def table_of(results: list[Result], *, title: str) -> Table:
    """One row for each rate, with and without."""
    table = Table(title=title)
    for heading in ("learning rate", "guard", "accuracy at the end", "each seed", "loss", "rollbacks", "s a training"):
        table.add_column(heading)
    for rate, is_guarded in dict.fromkeys((result.rate, result.is_guarded) for result in results):
        chosen = [result for result in results if (result.rate, result.is_guarded) == (rate, is_guarded)]
        table.add_row(
            f"{rate:g}",
            "yes" if is_guarded else "no",
            f"{np.mean([result.accuracy for result in chosen]):.3f}",
            " ".join(f"{result.accuracy:.3f}" for result in chosen),
            f"{np.mean([result.loss for result in chosen]):.2f}",
            " ".join(str(len(result.trace.events)) for result in chosen),
            f"{np.mean([result.seconds for result in chosen]):.1f}",
        )
    return table


def draw(results: list[Result], path: Path) -> None:
    """Loss of every step of the first seed: high rate with and without the guard, and the sane one."""
    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "guard", "svg.fonttype": "none", "font.family": "sans-serif", "path.simplify_threshold": 0.6}
    )
    from matplotlib import pyplot

    styles = {
        (SANE_RATE, False): ("#888888", f"rate {SANE_RATE:g}, no guard"),
        (FACTOR * SANE_RATE, False): ("#c0392b", f"rate {FACTOR * SANE_RATE:g}, no guard"),
        (FACTOR * SANE_RATE, True): ("#1f6fb2", f"rate {FACTOR * SANE_RATE:g}, guard"),
    }
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for result in results:
        if result.seed or (result.rate, result.is_guarded) not in styles:
            continue
        colour, label = styles[result.rate, result.is_guarded]
        steps = np.arange(len(result.trace.step_loss)) / result.trace.steps_per_epoch
        axes.plot(steps, result.trace.step_loss, color=colour, label=label, linewidth=0.8)
        for step, _ in result.trace.events:
            axes.axvline(step / result.trace.steps_per_epoch, color=colour, linestyle=":", linewidth=1)
    axes.axhline(CHANCE_LOSS, color="black", linewidth=0.5)
    axes.set(yscale="log", xlabel="epoch (dotted: rolled back)", ylabel="loss of each batch")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the table, what the guard did, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    data = read(options.data)
    cases = [(SANE_RATE, False), (SANE_RATE, True), (FACTOR * SANE_RATE, False), (FACTOR * SANE_RATE, True)]
    cases = [(rate, False) for rate in SWEEP] if options.sweep else cases
    results = [
        train(data, rate, seed=seed, epochs=options.epochs, is_guarded=is_guarded)
        for rate, is_guarded in cases
        for seed in range(options.seeds)
    ]
    console = Console(width=140)
    title = f"{options.data.name}, {options.seeds} seeds, {options.epochs} epochs, Keras {keras.__version__}"
    console.print(table_of(results, title=title))
    for result in results:
        for finding in result.findings:
            console.print(f"rate {result.rate:g}, seed {result.seed}: {finding.cause}", markup=False)
    if options.picture is not None:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
