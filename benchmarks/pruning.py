"""Pruning replayed on recorded curves, without any training: what it saves, and whether it keeps the best.

    python -m benchmarks.pruning CURVES.csv [--searches 300] [--trials 30] [--grace 0.25] [--factor 3] ...

CURVES.csv holds the validation error of one configuration a row in columns err_01, err_02, ... . Each search tries
`--trials` of them in random order, one after the other. The settings of the pruners were chosen on the rows with even
number, so those with odd number are shown, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner.records import Trace
from tuner.search import pruning
from tuner.search.pruning import PrunerName, Rival, prune_reason
from tuner.stability.judgement import Judgement

PRUNERS: tuple[PrunerName, ...] = ("asha", "hyperband", "median", "none")
BUDGETS = (40, 20)
# Of ten equally frequent classes.
CHANCE_ERROR = 0.9
NUM_VALIDATION = 10_000
# A winner this little behind the best, in nats, is as good: 2 % of the error.
AS_GOOD_NATS = 0.02
_NONE = np.empty(0)


@dataclass(frozen=True)
class Replayed:
    """One search: share of the epochs that were trained, and how far its winner is behind the best, in nats."""

    trained_frac: float
    behind: float


def judged_curve(errors: npt.NDArray[np.float64]) -> list[float]:
    """The objective after each epoch, with the error in the place of the validation loss."""
    judgement = Judgement("accuracy", CHANCE_ERROR, CHANCE_ERROR, NUM_VALIDATION)
    budget = len(errors)
    return [
        judgement.judge(
            Trace(
                _NONE, _NONE, _NONE, errors[:epochs], _NONE, _NONE, 1, budget, CHANCE_ERROR,
                metrics={"accuracy": 1 - errors[:epochs]},
            )
        ).objective
        for epochs in range(1, budget + 1)
    ]  # fmt: skip


def replay(curves: Sequence[Sequence[float]], pruner: PrunerName) -> Replayed:
    """One search over curves in the order given, one trial at a time."""
    budget = len(curves[0])
    rivals: list[Rival] = []
    for number, curve in enumerate(curves):
        ended = next(
            (
                epoch
                for epoch in range(1, budget)
                if prune_reason(pruner, number, curve[epoch - 1], rivals, epoch=epoch, max_epochs=budget)
            ),
            budget,
        )
        rivals.append(Rival(number, curve[:ended], curve[-1] if ended == budget else None))
    kept = [rival.final for rival in rivals if rival.final is not None]
    trained = sum(len(rival.objectives) for rival in rivals)
    return Replayed(trained / (budget * len(curves)), min(kept) - min(curve[-1] for curve in curves))


def row(curves: Sequence[Sequence[float]], pruner: PrunerName, *, searches: int, trials: int) -> list[str]:
    """Savings and losses over many searches, as text."""
    rng = np.random.default_rng(0)
    done = [
        replay([curves[index] for index in rng.choice(len(curves), trials, replace=False)], pruner)
        for _ in range(searches)
    ]
    behind = np.array([each.behind for each in done])
    return [
        f"{1 - np.mean([each.trained_frac for each in done]):.1%}",
        f"{np.mean(behind <= 0):.1%}",
        f"{np.mean(behind <= AS_GOOD_NATS):.1%}",
        f"{np.mean(behind):.4f}",
        f"{np.quantile(behind, 0.95):.4f}",
    ]


def main() -> None:
    """Print the table that docs/performance.md holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--grace", type=float, default=pruning.GRACE_FRAC, help="share of the epochs before a rung")
    parser.add_argument("--factor", type=int, default=pruning.REDUCTION_FACTOR, help="one in so many goes on")
    parser.add_argument("--tolerance", type=float, default=pruning.TOLERANCE_NATS, help="in nats")
    options = parser.parse_args()
    pruning.GRACE_FRAC, pruning.REDUCTION_FACTOR = options.grace, options.factor
    pruning.TOLERANCE_NATS = options.tolerance
    errors = pd.read_csv(options.file).filter(regex=r"^err_\d+$").to_numpy()
    print(
        "| pruner | epochs | curves | epochs saved | best kept | within 2 % of it | mean nats behind | 95 % quantile |"
    )
    print("|" + " --- |" * 8)
    for budget in BUDGETS:
        curves = [judged_curve(each[:budget]) for each in errors]
        for pruner in PRUNERS:
            for name, chosen in (("all", curves), ("even rows", curves[::2]), ("odd rows", curves[1::2])):
                cells = row(chosen, pruner, searches=options.searches, trials=options.trials)
                print("| " + " | ".join([pruner, str(budget), name, *cells]) + " |")


if __name__ == "__main__":
    main()
