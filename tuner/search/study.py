"""The study: all trials of a run with their states, in an Optuna storage. No Keras in here.

optuna-dashboard opens the same file: parameter names, values and intermediate values are Optuna's own.
"""

from __future__ import annotations

import contextlib
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import EnvironmentFault
from tuner.records import HyperparameterValue, Outcome, SeedRun, TrialRecord
from tuner.search.seeds import derive_seed
from tuner.store import RunFolder

__all__ = ["Study", "load_trials", "storage_faults"]

STUDY_NAME = "tuner"
# A trial that took its worker down this often is not tried again.
MAX_ATTEMPTS = 2
# Seconds that a process waits for another one's write to the SQLite file.
SQLITE_TIMEOUT_S = 60.0

_UNFINISHED = {TrialState.RUNNING: Outcome.RUNNING, TrialState.WAITING: Outcome.WAITING}


class Study:
    """The trials of one run.

    Args:
        folder: The run; its study file is made if need be.
        algorithm: How configurations are proposed.
        seed: Search seed; proposal n follows from (seed, n), so that a resumed search proposes what an uninterrupted
            one does.
        worker: Number of the process that asks; the trials that it is given are its own.
    """

    def __init__(
        self, folder: RunFolder, *, algorithm: Literal["tpe", "random"] = "tpe", seed: int = 0, worker: int = 0
    ) -> None:
        self._folder = folder
        self.worker = worker
        with storage_faults(folder):
            self._storage = _storage(folder)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY_NAME,
                direction="minimize",
                sampler=SeededSampler(algorithm, seed),
                load_if_exists=True,
            )

    def enqueue_first(self, params: dict[str, HyperparameterValue]) -> None:
        """Make these the parameters of the first trial, unless there already is one."""
        with self._folder.exclusive("study"):
            if not self._trials():
                self._study.enqueue_trial(params)

    def ask(self, max_trials: int) -> optuna.Trial | None:
        """The next trial to run, one that waits before a new one; None when the budget is used up."""
        # Held, or two workers would both take the last one; and a trial without an owner is a dead worker's.
        with self._folder.exclusive("study"):
            trials = self._trials()
            if len(trials) >= max_trials and not any(trial.state is TrialState.WAITING for trial in trials):
                return None
            trial = self._study.ask()
            self._storage.set_trial_user_attr(self._trial_id(trial.number), "worker", self.worker)
            return trial

    def report(self, number: int, epoch: int, loss: float) -> None:
        """Store the validation loss of an epoch; again for the same epoch when a trial runs again."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, loss)

    def describe(self, number: int, hyperparameters: dict[str, HyperparameterValue]) -> None:
        """Store the active values of a trial as the search space names them (fixed ones included)."""
        self._storage.set_trial_user_attr(self._trial_id(number), "hyperparameters", hyperparameters)

    def finish(self, number: int, objective: float, *, outcome: Outcome, message: str = "") -> None:
        """End a trial. A failed one is complete too: its objective is finite, and the sampler learns from it."""
        trial_id = self._trial_id(number)
        self._storage.set_trial_user_attr(trial_id, "outcome", str(outcome))
        if message:
            self._storage.set_trial_user_attr(trial_id, "message", message)
        self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [objective])

    def give_back(
        self, *, crashed: bool, worker: int | None = None, message: str = "", worst_objective: float = math.inf
    ) -> list[int]:
        """Put running trials back: the same trial, with the same number and parameters, runs again.

        Args:
            worker: Whose; None: all, for which nobody may be at work.
            crashed: The worker died of it; the second time the trial is ended as crashed.
            message: What is known of the death.
            worst_objective: Objective of a trial that is ended so.

        Returns:
            Numbers of the trials that were running.
        """
        with self._folder.exclusive("study"):
            running = [trial for trial in self._trials() if trial.state is TrialState.RUNNING]
            # One without an owner: its worker died while it was asking.
            running = [trial for trial in running if worker is None or trial.user_attrs.get("worker") in (worker, None)]
            for trial in running:
                attempts = int(trial.user_attrs.get("attempts", 0)) + crashed
                trial_id = self._trial_id(trial.number)
                self._storage.set_trial_user_attr(trial_id, "attempts", attempts)
                if attempts >= MAX_ATTEMPTS:
                    self.finish(trial.number, worst_objective, outcome=Outcome.CRASHED, message=message)
                    continue
                for epoch in trial.intermediate_values:
                    self._storage.set_trial_intermediate_value(trial_id, epoch, math.nan)
                self._storage.set_trial_user_attr(trial_id, "worker", None)
                self._storage.set_trial_state_values(trial_id, TrialState.WAITING)
        return [trial.number for trial in running]

    def num_running(self) -> int:
        """How many trials some worker is running."""
        return sum(trial.state is TrialState.RUNNING for trial in self._trials())

    def num_waiting(self) -> int:
        """How many trials were put back, or enqueued, and wait for a worker."""
        return sum(trial.state is TrialState.WAITING for trial in self._trials())

    def finished(self) -> list[tuple[int, dict[str, HyperparameterValue], float]]:
        """Number, hyperparameters and objective of each finished trial."""
        return [
            (trial.number, dict(trial.user_attrs.get("hyperparameters", trial.params)), float(trial.value or 0.0))
            for trial in self._trials()
            if trial.state is TrialState.COMPLETE
        ]

    def best_numbers(self, count: int) -> list[int]:
        """Numbers of the best finished trials that did not fail, best first."""
        finished = [
            trial for trial in self._trials() if trial.state is TrialState.COMPLETE and not _outcome(trial).is_failed
        ]
        return [trial.number for trial in sorted(finished, key=lambda trial: (trial.value, trial.number))[:count]]

    def num_finished(self) -> int:
        """How many trials have ended, failed ones included."""
        return sum(trial.state is TrialState.COMPLETE for trial in self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


class SeededSampler(optuna.samplers.BaseSampler):
    """An Optuna sampler whose random numbers follow from (search seed, trial number) alone.

    The random state of Optuna's samplers is not in its storage, so a resumed search would propose other trials.
    """

    def __init__(self, algorithm: Literal["tpe", "random"], seed: int) -> None:
        self._algorithm = algorithm
        self._seed = seed
        self._number = -1
        self._sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Optuna's interface."""
        return self._at(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Optuna's interface."""
        return self._at(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Optuna's interface."""
        # A sampler for each name: a trial killed between two proposals proposes the same when it is put back.
        seed = derive_seed(self._seed, trial.number, zlib.crc32(param_name.encode()))
        return _sampler(self._algorithm, seed).sample_independent(study, trial, param_name, param_distribution)

    def _at(self, number: int) -> optuna.samplers.BaseSampler:
        if number != self._number:
            self._number = number
            self._sampler = _sampler(self._algorithm, derive_seed(self._seed, number))
        return self._sampler


def _sampler(algorithm: Literal["tpe", "random"], seed: int) -> optuna.samplers.BaseSampler:
    if algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # group=True, which conditional spaces need, is marked experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def load_trials(folder: RunFolder) -> list[TrialRecord]:
    """All trials of a run by number; empty before the first worker made the study."""
    if not folder.study_file.is_file():
        return []
    with storage_faults(folder):
        storage = _storage(folder)
        try:
            study_id = storage.get_study_id_from_name(STUDY_NAME)
            trials = storage.get_all_trials(study_id, deepcopy=False)
        except KeyError:
            return []
        finally:
            storage.remove_session()
            storage.engine.dispose()
    return [_record(folder, trial) for trial in sorted(trials, key=lambda trial: trial.number)]


def _record(folder: RunFolder, trial: FrozenTrial) -> TrialRecord:
    outcome = _outcome(trial)
    faults: list[str] = []
    is_finished = trial.state is TrialState.COMPLETE
    seed_runs: Sequence[SeedRun] = folder.load_seed_runs(trial.number, faults) if is_finished else ()
    return TrialRecord(
        number=trial.number,
        outcome=outcome,
        # While a trial is being proposed, its parameters are not complete.
        hyperparameters=dict(
            trial.user_attrs.get("hyperparameters", {} if outcome is Outcome.RUNNING else trial.params)
        ),
        objective=trial.value if is_finished else None,
        seed_runs=tuple(seed_runs),
        epoch_losses=tuple(loss for _, loss in sorted(trial.intermediate_values.items()) if not math.isnan(loss)),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        finished=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        message=str(trial.user_attrs.get("message", "")),
        margin=folder.load_margin(trial.number) if is_finished else None,
        worker=trial.user_attrs.get("worker"),
        faults=tuple(faults),
    )


def _outcome(trial: FrozenTrial) -> Outcome:
    if trial.state in _UNFINISHED:
        return _UNFINISHED[trial.state]
    return Outcome(trial.user_attrs.get("outcome", Outcome.CRASHED))


@contextlib.contextmanager
def storage_faults(folder: RunFolder) -> Iterator[None]:
    """Turn every failure of the study's storage in the block into an `EnvironmentFault` that names the file."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        # Optuna's own text says nothing of the cause.
        reason = str(error.__cause__ or error).splitlines()[0]
        raise _fault(folder, reason) from error


def _fault(folder: RunFolder, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"The study {str(folder.study_file)!r} cannot be used: {reason}. Check that the folder may be written and has "
        "space; a damaged file can be moved away, the trials folder keeps its records."
    )


def _storage(folder: RunFolder) -> optuna.storages.RDBStorage:
    """The SQLite file of the run.

    Raises:
        EnvironmentFault: Another version of Optuna made it.
    """
    from sqlalchemy.engine import URL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = URL.create("sqlite", database=str(folder.study_file.absolute())).render_as_string()
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT_S}})
    except RuntimeError as error:
        raise _fault(folder, str(error)) from error
