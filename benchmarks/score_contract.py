"""The stability score against its contract: clean runs, the cost of a spike, the order of faults, its time.

    python -m benchmarks.score_contract [clean] [spike] [validation] [order] [time] [--seeds 20]

Prints tables in Markdown; docs/stability.md holds them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence

import numpy as np

from tests.stability.traces import NOISE_SHAPES, clean_validation, decay, faults, noisy, spiked, trace
from tuner.records import Trace
from tuner.stability.score import score

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)
# Steps per epoch, epochs: 200 to 20,000 steps.
SIZES = ((20, 10), (20, 50), (20, 200), (50, 8), (100, 6), (100, 20), (300, 10), (1000, 4), (1000, 20))
SPIKE_SIZES = ((20, 20), (50, 20), (100, 20), (300, 20), (1000, 20), (20, 100))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print()


def clean_run(steps: int, epochs: int, *, frac: float, shape: str, seed: int) -> Trace:
    """A clean training, its validation loss the noisy means of its epochs."""
    return trace(noisy(decay(steps * epochs), frac, [seed, steps, epochs], shape), steps=steps)


def clean(seeds: int) -> None:
    """Point 1: stability of clean runs; the worst noise shape of each size and level."""
    rows = []
    for steps, epochs in SIZES:
        row: list[object] = [f"{steps} x {epochs}"]
        for frac in LEVELS:
            worst = (2.0, 2.0, "")
            for shape in NOISE_SHAPES:
                runs = (clean_run(steps, epochs, frac=frac, shape=shape, seed=seed) for seed in range(seeds))
                found = [score(run).stability for run in runs]
                worst = min(worst, (float(np.quantile(found, 0.05)), float(np.median(found)), shape))
            row.append(f"{worst[1]:.3f} / {worst[0]:.3f} ({worst[2]})")
        rows.append(row)
    print("Clean runs: median / 5 % quantile of S, of the worst noise shape; contract .95 / .90\n")
    table(["steps x epochs", *(f"{frac:.0%} noise" for frac in LEVELS)], rows)


def spike_cost(steps: int, epochs: int, *, frac: float, at: float, seed: int, height: float = 8.0) -> float:
    """What a spike of 2 % of the budget adds to the instability."""
    size = steps * epochs
    base = noisy(decay(size), frac, [seed, steps])
    length = max(1, size // 50)
    validation = clean_validation(epochs)
    high = spiked(base, int(at * size), height=height, length=length)
    with_spike, without = (trace(loss, steps=steps, validation=validation) for loss in (high, base))
    return score(with_spike).instability - score(without).instability


def spike(seeds: int) -> None:
    """Point 3: the same spike, in samples, at any noise, batch size and time."""
    rows = []
    for steps, epochs in SPIKE_SIZES:
        for at in (0.15, 0.4, 0.8):
            means = []
            for frac in (0.1, 0.3, 0.5):
                costs = [spike_cost(steps, epochs, frac=frac, at=at, seed=seed) for seed in range(seeds)]
                means.append(float(np.mean(costs)))
            rows.append([f"{steps} x {epochs}", f"{at:.0%}", *means])
    print("Cost of the same spike (x8 for 2 % of the samples), in nats of instability\n")
    table(["steps x epochs", "at", "10 % noise", "30 %", "50 %"], rows)


def validation(seeds: int) -> None:
    """Point 3, on the validation loss: one epoch at three times its height."""
    rows = []
    for epochs in (12, 20, 50, 100):
        for at in (0.25, 0.5, 0.8):
            means = []
            for frac in (0.01, 0.03, 0.1):
                costs = []
                for seed in range(seeds):
                    losses = clean_validation(epochs, noise_frac=frac, seed=seed)
                    high = spiked(losses, int(at * epochs), height=3.0, length=1)
                    runs = (trace(decay(epochs * 20), steps=20, validation=each) for each in (high, losses))
                    with_spike, without = (score(run).validation_drawdown or 0.0 for run in runs)
                    costs.append(with_spike - without)
                means.append(float(np.mean(costs)) * epochs ** (2 / 3))
            rows.append([epochs, f"{at:.0%}", *means])
    print("Cost of one validation epoch at x3, times epochs ** (2/3) so that the budgets compare\n")
    table(["epochs", "at", "1 % noise", "3 %", "10 %"], rows)


def order(seeds: int) -> None:
    """Point 4: instability of each fault, and in how many runs the order is broken."""
    rows = []
    for factor in (2.0, 3.0):
        for steps, epochs in ((20, 50), (100, 20), (1000, 20)):
            for frac in LEVELS:
                found = [_instabilities(steps, epochs, frac=frac, seed=seed, factor=factor) for seed in range(seeds)]
                hidden = np.mean([row[1] <= row[0] for row in found])
                broken = np.mean([not is_ordered(row) for row in found])
                means = map(float, np.mean(found, axis=0))
                rows.append(
                    [f"x{factor:.0f}", f"{steps} x {epochs}", f"{frac:.0%}", *means, f"{hidden:.0%}", f"{broken:.0%}"]
                )
    print(
        "Instability by fault; share of runs in which an outlier batch is not seen, and in which the rest of the\n"
        "order (up to the oscillations, in either order; and over-fitting before collapse) is broken\n"
    )
    names = ["clean", "outlier", "spike", "four", "period 2", "period 40", "over-fitting", "collapse"]
    table(["oscillation", "steps x epochs", "noise", *names, "hidden", "broken"], rows)


def is_ordered(instability: Sequence[float]) -> bool:
    """Whether the faults (all but NaN) cost more and more, but for an outlier batch that costs nothing.

    A factor-3 oscillation may be dearer than this over-fitting: how they compare depends on both sizes.
    """
    healthy, outlier, one, four, fast, slow, over, collapse = instability
    return healthy <= outlier < one < four < min(fast, slow) and four < over < collapse


def _instabilities(steps: int, epochs: int, *, frac: float, seed: int, factor: float) -> list[float]:
    base = noisy(decay(steps * epochs), frac, [seed, steps, epochs])
    runs = faults(base, steps=steps, factor=factor)
    return [score(run).instability for name, run in runs.items() if name != "NaN"]


def duration(seeds: int) -> None:
    """Time of one score."""
    rows = []
    for steps, epochs in ((20, 10), (100, 20), (1000, 20)):
        run = clean_run(steps, epochs, frac=0.3, shape="lognormal", seed=0)
        times = []
        for _ in range(max(10, seeds)):
            started = time.perf_counter()
            score(run)
            times.append((time.perf_counter() - started) * 1e3)
        rows.append([steps * epochs, min(times), float(np.median(times))])
    print("Time of one score in ms\n")
    table(["steps", "fastest", "median"], rows)


PARTS = {"clean": clean, "spike": spike, "validation": validation, "order": order, "time": duration}


def main() -> None:
    """Print the asked tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="of clean, spike, validation, order, time; all by default")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    for name in options.parts or PARTS:
        PARTS[name](options.seeds)


if __name__ == "__main__":
    main()
