"""The one rule that orders trials, for status, report and export alike."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.records import FINISHED_OUTCOMES, SeedRun, TrialRecord

__all__ = ["STABLE", "best_trial", "median_seed_run", "rank"]

# A configuration is called stable from this score on. Source: convention; I <= 0.22, "22 % above its best all along".
STABLE = 0.8


def rank(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Finished trials, best first: failed ones last, then by objective, then by number.

    Args:
        trials: In any order; unfinished ones are left out.
    """
    finished = [trial for trial in trials if trial.outcome in FINISHED_OUTCOMES]
    return sorted(finished, key=_order)


def best_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial that did not fail, or None."""
    ranked = rank(trials)
    return ranked[0] if ranked and not ranked[0].outcome.is_failed else None


def median_seed_run(trial: TrialRecord) -> SeedRun:
    """The seed run whose weights stand for the trial: the (lower) median by objective.

    Raises:
        ValueError: The trial has no seed run.
    """
    runs = sorted(trial.seed_runs, key=lambda run: (run.objective, run.seed_index))
    if not runs:
        raise ValueError(f"trial {trial.number} has no finished seed run")
    return runs[(len(runs) - 1) // 2]


def _order(trial: TrialRecord) -> tuple[bool, float, int]:
    return (trial.outcome.is_failed, math.inf if trial.objective is None else trial.objective, trial.number)
