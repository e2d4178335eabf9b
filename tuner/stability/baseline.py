"""What the search gained over the user's own configuration, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.records import TrialRecord
from tuner.stability.ranking import best_trial

__all__ = ["baseline_sentence"]


def baseline_sentence(trials: Iterable[TrialRecord]) -> str:
    """How the best trial compares with the baseline; empty if there is none that has finished.

    Both are compared by the objective of the search, which treats them alike: one training each.
    """
    known = list(trials)
    baseline = next((trial for trial in known if trial.is_baseline and trial.objective is not None), None)
    if baseline is None or baseline.objective is None:
        return ""
    named = f"Your baseline is trial {baseline.number}"
    best = best_trial(known)
    if baseline.outcome.is_failed:
        return f"{named}: it failed. {baseline.outcome.meaning}"
    if best is None or best.objective is None:
        return f"{named}."
    if best.number == baseline.number:
        return f"{named}: nothing better was found."
    gained = baseline.objective - best.objective
    if gained <= 0:
        return f"{named}: its objective is better than that of the best trial, {best.number}, by fresh seeds."
    # J is a logarithm of the error, so a difference is a factor.
    return (
        f"{named}: the best trial, {best.number}, is better by {gained:.3f} in the objective, as good as "
        f"{1 - math.exp(-gained):.0%} less error."
    )
