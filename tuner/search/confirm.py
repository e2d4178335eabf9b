"""Confirmation: the finalists of a search trained again on fresh seeds. What it chose by, the search cannot prove."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tuner import leases
from tuner.records import TrialRecord
from tuner.search.context import hyperparameters_of, judgement_of, training_data
from tuner.search.margins import measure_margin
from tuner.search.plan import give_up_claims, load_claims, take
from tuner.search.seeds import derive_seed, fresh_split_seed
from tuner.search.study import load_trials
from tuner.search.tuner import save_model
from tuner.store import RunFolder
from tuner.training import seedrun
from tuner.training.session import release_memory

__all__ = ["confirm"]

# How often a worker that finds nothing left to confirm looks whether the others have done what they took.
WAIT_S = 5.0


def confirm(folder: RunFolder, hypermodel: Any, *, is_late: Callable[[], bool], worker: int = 0) -> None:
    """Train what of the folder's plan nobody has trained or taken yet; stopped and started again, it goes on.

    Args:
        folder: A run; without a plan nothing is done.
        hypermodel: Builds its models.
        worker: Number of this worker; each part is done by one.
        is_late: Whether the time limit has passed; asked before each training and each sweep.
    """
    plan = folder.load_confirm_plan()
    if plan is None:
        return
    search_seed = folder.load_config().seed
    trials = {trial.number: trial for trial in load_trials(folder)}
    while not is_late():
        claim = take(folder, plan, worker)
        if claim is None:
            if not _may_be_left(folder):
                return
            time.sleep(WAIT_S)
            continue
        if claim.seed_index is None:
            _measure(folder, hypermodel, trials[claim.trial])
        else:
            split_seed = fresh_split_seed(search_seed, claim.seed_index) if plan.fresh_split else None
            _train(folder, hypermodel, trials[claim.trial], claim.seed_index, split_seed=split_seed)
        give_up_claims(folder, worker)


def _may_be_left(folder: RunFolder) -> bool:
    """Whether a worker on another machine has taken a part, which it may die over without a supervisor that sees it."""
    if not folder.load_shared_study():
        return False
    leases.end_lapsed(folder)
    return bool(load_claims(folder))


def _measure(folder: RunFolder, hypermodel: Any, trial: TrialRecord) -> None:
    config = folder.load_config()
    measure_margin(
        folder,
        hypermodel,
        hyperparameters_of(trial.hyperparameters),
        trial=trial.number,
        data=training_data(folder, folder.load_dataset(), trial.hyperparameters),
        judgement=judgement_of(folder),
        epochs=config.epochs,
        seed=config.seed,
    )


def _train(folder: RunFolder, hypermodel: Any, trial: TrialRecord, seed_index: int, *, split_seed: int | None) -> None:
    config, dataset = folder.load_config(), folder.load_dataset()
    training = seedrun.train(
        hypermodel,
        hyperparameters_of(trial.hyperparameters),
        data=training_data(folder, dataset, trial.hyperparameters, split_seed=split_seed),
        judgement=judgement_of(folder),
        epochs=trial.kept_epochs or config.epochs,
        seed=derive_seed(config.seed, trial.number, seed_index),
        trial=trial.number,
        seed_index=seed_index,
        is_guarded=config.guard,
        has_probes=config.probes,
        data_findings=dataset.findings,
        checkpoint_file=folder.checkpoint_file(trial.number, seed_index),
    )
    file = folder.model_file(trial.number, seed_index)
    if training.model is not None:
        save_model(training.model, file)
    else:
        # Of the same seed on another split.
        file.unlink(missing_ok=True)
    folder.save_seed_run(replace(training.run, split_seed=split_seed), training.trace)
    folder.checkpoint_file(trial.number, seed_index).unlink(missing_ok=True)
    release_memory()
