"""Pruning: which trials are ended early because others were ahead of them at the same epoch.

Pure functions of the objectives that trials reported after each epoch, so that recorded curves can be replayed
(`benchmarks/pruning.py`). What is compared is the objective as it would be judged now, error and instability together:
a loss that has recovered from a spike does not hide it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["MIN_PRUNED_EPOCHS", "PrunerName", "Rival", "bracket", "first_rung", "prune_reason", "rungs"]

PrunerName = Literal["asha", "hyperband", "median", "none"]

# No trial is pruned before this epoch. Source: fewer validation epochs cannot be judged (`tuner.stability.score`).
GRACE_EPOCHS = 4
# Nor before this share of its epochs: a high learning rate, or little regularisation, leads early and loses late.
# Source: benchmarks/pruning.py (recorded curves; after a tenth, the best
# was pruned in one search of six).
GRACE_FRAC = 0.25
# Trials of fewer epochs are not pruned: a rung at the last epoch but one saves nothing. Source: convention.
MIN_PRUNED_EPOCHS = 6
# One in so many goes on at each rung, and each rung is so many times as long as the one before. Source: Li et al.,
# "Hyperband" (2018), section 2.6: 3 or 4; "A System for Massively Parallel Hyperparameter Tuning" (ASHA, 2020).
REDUCTION_FACTOR = 3
# Trials that must have come to a rung, with the one that is judged, before any is pruned there. Source: convention;
# the best third of fewer than six is one trial, which may be there by luck.
MIN_AT_RUNG = 6
# Trials that must have come to an epoch before `median` prunes there. Source: n_startup_trials of Optuna's
# MedianPruner and of Vizier's median stopping rule.
MIN_AT_MEDIAN = 5
# An objective this little behind the last that goes on is no reason, in nats (5 % of the error). Source: convention;
# what another seed changes.
TOLERANCE_NATS = 0.05


@dataclass(frozen=True)
class Rival:
    """What another trial is compared by.

    Attributes:
        number: Of the trial.
        objectives: As it was judged after each of its epochs.
        final: Its objective if it ended by itself; None while it runs, or if it was pruned.
    """

    number: int
    objectives: Sequence[float]
    final: float | None = None


def first_rung(max_epochs: int) -> int:
    """The epoch, counted from 1, after which a trial may be pruned for the first time."""
    return max(GRACE_EPOCHS, math.ceil(GRACE_FRAC * max_epochs))


def rungs(max_epochs: int, *, skipped: int = 0) -> list[int]:
    """The epochs, counted from 1, after which trials are compared; none for a short budget.

    Args:
        max_epochs: Budget of a trial.
        skipped: So many rungs are left out, the first ones.
    """
    found: list[int] = []
    rung = first_rung(max_epochs)
    while rung < max_epochs and max_epochs >= MIN_PRUNED_EPOCHS:
        found.append(rung)
        rung *= REDUCTION_FACTOR
    return found[skipped:]


def bracket(number: int, max_epochs: int) -> int:
    """The bracket of Hyperband that a trial belongs to: how many rungs it skips.

    Brackets get trials in the shares that Hyperband gives them, in an order that depends on the number alone.
    """
    num_brackets = len(rungs(max_epochs)) + 1
    sizes = [
        math.ceil(num_brackets * REDUCTION_FACTOR ** (num_brackets - 1 - skipped) / (num_brackets - skipped))
        for skipped in range(num_brackets)
    ]
    place = number * (math.sqrt(5) - 1) / 2 % 1 * sum(sizes)
    return next(skipped for skipped in range(num_brackets) if place < sum(sizes[: skipped + 1]))


def prune_reason(
    pruner: PrunerName, number: int, objective: float, rivals: Iterable[Rival], *, epoch: int, max_epochs: int
) -> str:
    """Why a trial is not worth going on with after the epoch that it has just finished; empty if it is.

    Args:
        pruner: `asha` compares at rungs that lie ever further apart, and lets the best third go on; `hyperband` does
            so in brackets that begin at later rungs, or at none; `median` compares after every epoch.
        number: Of the trial.
        objective: As it is judged now.
        rivals: The other trials of the search, finished or running; not read where nothing is compared.
        epoch: Epochs that it has finished.
        max_epochs: Budget of a trial.
    """
    if pruner == "none" or epoch >= max_epochs or max_epochs < MIN_PRUNED_EPOCHS:
        return ""
    if pruner == "median":
        return _below_median(objective, rivals, epoch) if epoch >= first_rung(max_epochs) else ""
    skipped = bracket(number, max_epochs) if pruner == "hyperband" else 0
    compared = rungs(max_epochs, skipped=skipped)
    if epoch not in compared:
        return ""
    before = max((rung for rung in compared if rung < epoch), default=0)
    if pruner == "hyperband":
        rivals = [rival for rival in rivals if bracket(rival.number, max_epochs) == skipped]
    others = [value for rival in rivals if (value := _value(rival, epoch, before)) is not None]
    if len(others) + 1 < MIN_AT_RUNG:
        return ""
    ranked = sorted([*others, objective])
    num_kept = math.ceil(len(ranked) / REDUCTION_FACTOR)
    return _reason(objective, ranked[num_kept - 1], f"the best {num_kept} of {len(ranked)} trials", epoch)


def _below_median(objective: float, rivals: Iterable[Rival], epoch: int) -> str:
    others = sorted(value for rival in rivals if (value := _value(rival, epoch, epoch - 1)) is not None)
    if len(others) < MIN_AT_MEDIAN:
        return ""
    return _reason(objective, others[len(others) // 2], f"the better half of {len(others)} trials", epoch)


def _value(rival: Rival, epoch: int, before: int) -> float | None:
    """What a trial was judged after an epoch; one that ended by itself on the way there counts as it ended."""
    if len(rival.objectives) >= epoch:
        return rival.objectives[epoch - 1]
    return rival.final if len(rival.objectives) >= before else None


def _reason(objective: float, limit: float, kept: str, epoch: int) -> str:
    if objective <= limit + TOLERANCE_NATS:
        return ""
    return f"its objective {objective:.3f} was behind {kept} after epoch {epoch} ({limit:.3f} and better)"
