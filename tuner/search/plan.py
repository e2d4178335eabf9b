"""The plan of a confirmation: which finalists are trained again on fresh seeds, and what is left of it. No Keras."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.config import SearchConfig
from tuner.records import ConfirmPlan, TrialRecord
from tuner.search.study import load_trials
from tuner.stability.ranking import finalists, rank
from tuner.store import RunFolder, write_json

__all__ = ["SEEDS", "is_finished", "pending", "plan_confirmation"]

# Fresh trainings of each finalist. Source: convention; the fewest that show a spread and survive one accident.
SEEDS = 3


def plan_confirmation(folder: RunFolder, *, top: int, seeds: int = SEEDS) -> ConfirmPlan | None:
    """Choose the finalists of a run and store the plan; trainings that were done for an earlier plan count.

    Args:
        folder: A run.
        top: How many finalists.
        seeds: Fresh trainings of each.

    Returns:
        The plan; None if no trial has finished with a model that learned, and then nothing is stored.
    """
    chosen = tuple(trial.number for trial in finalists(load_trials(folder), top))
    if not chosen:
        return None
    plan = ConfirmPlan(chosen, seeds)
    write_json(folder.confirm_file, plan)
    return plan


def pending(plan: ConfirmPlan, trials: Iterable[TrialRecord]) -> list[tuple[TrialRecord, int]]:
    """The (trial, seed index) that a plan still wants trained.

    Seed by seed, so that a confirmation that runs out of time has something of every finalist.

    Args:
        plan: Finalists and number of seeds.
        trials: All trials of the run.
    """
    by_number = {trial.number: trial for trial in trials}
    return [
        (by_number[number], seed_index)
        for seed_index in range(1, plan.seeds + 1)
        for number in plan.finalists
        if number in by_number and all(run.seed_index != seed_index for run in by_number[number].seed_runs)
    ]


def is_finished(folder: RunFolder, config: SearchConfig) -> bool:
    """Whether a run has nothing left to do: all trials, and the confirmation if one is wanted."""
    trials = load_trials(folder)
    if len(rank(trials)) < config.trials:
        return False
    if not config.confirm or not finalists(trials, 1):
        return True
    plan = folder.load_confirm_plan()
    return plan is not None and not pending(plan, trials)
