"""The plan of a confirmation: which finalists are trained again on fresh seeds, and what is left of it. No Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tuner import leases
from tuner.config import SearchConfig
from tuner.records import Claim, ConfirmPlan, Outcome, SeedRun, SweptTrial, Trace, TrialRecord
from tuner.search.seeds import NUM_FRESH_SEEDS, derive_seed, fresh_split_seed
from tuner.search.study import load_trials
from tuner.stability.judgement import worst_objective
from tuner.stability.margin import MAX_PENALTY_NATS
from tuner.stability.ranking import finalists, pareto_front, rank
from tuner.stability.score import failed_score
from tuner.store import RunFolder, read_json, write_json

__all__ = [
    "give_up_claims",
    "is_finished",
    "load_claims",
    "note_crash",
    "pending",
    "plan_confirmation",
    "take",
    "unmeasured",
]

# A fresh training that took its worker down this often is not tried again.
MAX_CRASHES = 2


def plan_confirmation(
    folder: RunFolder, *, top: int, seeds: int = NUM_FRESH_SEEDS, fresh_split: bool = False
) -> ConfirmPlan | None:
    """Choose the finalists of a run and store the plan; trainings that were done for an earlier plan count.

    Args:
        folder: A run.
        top: How many finalists.
        seeds: Fresh trainings of each.
        fresh_split: Have each seed draw its own training and validation part; trainings on the run's own do not count.

    Returns:
        The plan; None if no trial has finished with a model that learned, and then nothing is stored.

    Raises:
        DataError: The data cannot be split anew.
    """
    trials = load_trials(folder)
    best = finalists(trials, top)
    if best and folder.load_config().is_pareto:
        best = finalists(pareto_front(trials), top)
    chosen = tuple(trial.number for trial in best)
    if not chosen:
        return None
    if fresh_split:
        from tuner.data import cache  # takes scikit-learn along, which `status` has no use for

        cache.fresh_split(
            folder.data_dir, folder.load_dataset().spec, seed=fresh_split_seed(folder.load_config().seed, 1)
        )
    plan = ConfirmPlan(chosen, seeds, fresh_split)
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
    done = {
        (run.trial, run.seed_index)
        for trial in by_number.values()
        for run in trial.seed_runs
        if run.split_seed is not None or not plan.fresh_split
    }
    return [
        (by_number[number], seed_index)
        for seed_index in range(1, plan.seeds + 1)
        for number in plan.finalists
        if number in by_number and (number, seed_index) not in done
    ]


def unmeasured(folder: RunFolder, plan: ConfirmPlan) -> list[int]:
    """Numbers of the finalists whose stability margin was not measured yet."""
    return [number for number in plan.finalists if not folder.swept_file(number).is_file()]


def is_finished(folder: RunFolder, config: SearchConfig) -> bool:
    """Whether a run has nothing left to do: all trials, and the confirmation if one is wanted."""
    trials = load_trials(folder)
    if len(rank(trials)) < config.trials and not folder.load_ending():
        return False
    if not config.confirm or not finalists(trials, 1):
        return True
    plan = folder.load_confirm_plan()
    return plan is not None and not pending(plan, trials) and not unmeasured(folder, plan)


def take(folder: RunFolder, plan: ConfirmPlan, worker: int) -> Claim | None:
    """Take the next part of a confirmation that nobody has done or taken, for one worker alone.

    Args:
        folder: A run.
        plan: What is to be done in it.
        worker: Who takes it; `give_up_claims` ends that.

    Returns:
        None if nothing is left to take, though other workers may still be busy.
    """
    with folder.exclusive("study"):
        taken = {(claim.trial, claim.seed_index) for claim in load_claims(folder) if claim.worker != worker}
        left: list[tuple[int, int | None]] = [
            (trial.number, index) for trial, index in pending(plan, load_trials(folder))
        ]
        left += [(number, None) for number in unmeasured(folder, plan)]
        free = [part for part in left if part not in taken]
        if not free:
            return None
        claim = Claim(worker, *free[0])
        if folder.load_shared_study():
            leases.claim(folder, claim.trial, claim.seed_index)
        else:
            write_json(folder.claim_file(worker), claim)
        return claim


def load_claims(folder: RunFolder) -> list[Claim]:
    """What the workers have taken of the confirmation, by their number."""
    if folder.load_shared_study():
        return [each.claim for each in leases.live(folder) if each.claim]
    return folder.load_claims()


def give_up_claims(folder: RunFolder, worker: int | None = None) -> None:
    """Let others have what a worker (None: any) had taken of a confirmation.

    In a database, only the worker itself can do so; what a dead one had taken ended with its lease.
    """
    if folder.load_shared_study():
        leases.release(folder)
        return
    for claim in folder.load_claims():
        if worker in (claim.worker, None):
            folder.claim_file(claim.worker).unlink(missing_ok=True)


def note_crash(folder: RunFolder, reason: str, *, worker: int) -> None:
    """Note that a worker died while it confirmed; the second death of one training ends it as crashed.

    Also where memory ran out: the configuration was trained in it before, and a confirmation of another one is none.
    One that died while it measured a margin leaves that trial without. What it had taken is given up.

    Args:
        folder: A run.
        reason: How the worker died.
        worker: Its number.
    """
    plan, claims = folder.load_confirm_plan(), [claim for claim in load_claims(folder) if claim.worker == worker]
    if plan is not None:
        for claim in claims:
            _note_crash(folder, plan, claim, reason)
    give_up_claims(folder, worker)


def _note_crash(folder: RunFolder, plan: ConfirmPlan, claim: Claim, reason: str) -> None:
    number, seed_index = claim.trial, claim.seed_index
    if seed_index is None:
        if number in unmeasured(folder, plan):
            write_json(folder.swept_file(number), SweptTrial("", 0.0, reason))
        return
    if not any((trial.number, index) == (number, seed_index) for trial, index in pending(plan, load_trials(folder))):
        return
    file = folder.seed_run_dir(number, seed_index) / "crashes.json"
    crashes = 1 + (read_json(file, int) if file.is_file() else 0)
    write_json(file, crashes)
    if crashes >= MAX_CRASHES:
        run = _crashed(folder, number, seed_index, reason)
        split_seed = fresh_split_seed(folder.load_config().seed, seed_index) if plan.fresh_split else None
        folder.save_seed_run(replace(run, split_seed=split_seed), _NO_TRACE)


def _crashed(folder: RunFolder, number: int, seed_index: int, reason: str) -> SeedRun:
    config = folder.load_config()
    return SeedRun(
        trial=number,
        seed_index=seed_index,
        seed=derive_seed(config.seed, number, seed_index),
        outcome=Outcome.CRASHED,
        objective=worst_objective(config.objective, stability_weight=config.stability_weight)
        + config.margin_weight * MAX_PENALTY_NATS,
        error=None,
        score=failed_score(0.0),
        metrics={},
        epochs=0,
        steps_per_epoch=0,
        num_parameters=0,
        seconds=0.0,
        message=reason,
    )


_NOTHING = np.empty(0)
_NO_TRACE = Trace(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, 1, 1, 1.0)
