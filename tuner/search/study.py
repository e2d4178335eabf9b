"""The study: all trials of a run with their states, in an Optuna storage. No Keras in here.

optuna-dashboard opens the same file: parameter names, values and intermediate values are Optuna's own.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner import leases
from tuner.database import database_fault, open_database
from tuner.errors import EnvironmentFault
from tuner.records import HyperparameterValue, Outcome, SeedRun, TrialRecord
from tuner.search.changes import change_trial, report_epoch
from tuner.search.halving import half_batch
from tuner.search.history import History, SampledStudy, Tried, objective_of, objectives_of, outcome_of
from tuner.search.machine import network_file_system
from tuner.search.pruning import Rival
from tuner.search.sampling import AlgorithmName, Draft, Proposal, require_packages
from tuner.store import RunFolder, write_json

__all__ = ["MAX_ATTEMPTS", "MAX_KILLS", "Leader", "Study", "delete_study", "load_trials", "storage_faults"]

STUDY_NAME = "tuner"
# A trial that took its worker down this often without having trained further in between is not tried again.
MAX_ATTEMPTS = 2
# The same for a worker that was killed from outside, which says little of its trial. Source: convention.
MAX_KILLS = 5
# A trial that ran out of memory this often, the second time with half the batch, is infeasible.
MAX_OUT_OF_MEMORY = 2
# Seconds that a process waits for another one's write to the SQLite file.
SQLITE_TIMEOUT_S = 60.0

# Instability of a trial of which nothing is known but that it failed, and its error if none is known of others.
# Source: the most that the stability score (`tuner.stability.score`) and a metric can be.
FAILED_INSTABILITY, FAILED_ERROR = 5.0, 1.0


@dataclass(frozen=True)
class Leader:
    """A good trial.

    Attributes:
        hyperparameters: Its active values.
        is_own: Whether the worker that asks has trained it.
    """

    hyperparameters: dict[str, HyperparameterValue]
    is_own: bool


class Study:
    """The trials of one run.

    Args:
        folder: The run; its study file is made if need be.
        algorithm: How configurations are proposed.
        seed: Search seed; proposal n follows from (seed, n), so that a resumed search proposes what an uninterrupted
            one does.
        worker: Number of the process that asks; the trials that it is given are its own.
        is_pareto: Whether trials are compared by error and instability apart, not by one objective.

    Raises:
        EnvironmentFault: The storage cannot be used, or a package that the algorithm needs is missing.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        algorithm: AlgorithmName = "tpe",
        seed: int = 0,
        worker: int = 0,
        is_pareto: bool = False,
    ) -> None:
        require_packages(algorithm)
        self.algorithm = algorithm
        self.worker = worker
        self._folder = folder
        self._seed = seed
        self._is_shared = folder.load_shared_study() is not None
        with storage_faults(folder):
            self._storage, name = _storage(folder)
            _log_ahead(self._storage)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=["minimize"] * (2 if is_pareto else 1),
                load_if_exists=True,
            )
            if is_pareto:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self._study.set_metric_names(["error", "instability"])
            self._history = History(self._storage, self._study._study_id)
            # Of two objectives, the best are no few: there the sampler sees all trials.
            is_excerpt = algorithm == "tpe" and len(self._study.directions) == 1
            self._sampled = SampledStudy(name, self._storage, self._history, is_excerpt=is_excerpt)
        # Of the trials that this process was given.
        self._proposals: dict[int, Proposal] = {}
        self._records: dict[int, TrialRecord] = {}

    @classmethod
    def of_run(cls, folder: RunFolder, *, worker: int = 0) -> Study:
        """The study of a run that the command line set up, as its configuration says."""
        config = folder.load_config()
        return cls(folder, algorithm=config.algorithm, seed=config.seed, worker=worker, is_pareto=config.is_pareto)

    def enqueue_first(self, *configurations: dict[str, HyperparameterValue], is_last_baseline: bool = False) -> None:
        """Make these the parameters of the first trials, unless there already is one.

        Args:
            configurations: Parameters of each.
            is_last_baseline: Whether the last one is the user's own configuration.
        """
        if len(self._history):
            return
        with self._folder.exclusive("study"):
            if self._trials():
                return
            for number, params in enumerate(configurations, start=1):
                is_baseline = is_last_baseline and number == len(configurations)
                self._study.enqueue_trial(params, user_attrs={"baseline": True} if is_baseline else None)

    def proposing(self) -> contextlib.AbstractContextManager[None]:
        """A block in which no other process proposes a trial."""
        return self._folder.exclusive("proposal")

    def draft(self, number: int, *, attempt: int = 0) -> Draft:
        """What the algorithm proposes for a trial; nothing of it is stored.

        Args:
            number: Of a trial that was asked for.
            attempt: 0 first; others draw again.
        """
        trial = self._proposals[number].trial
        return Draft(self._sampled, trial, algorithm=self.algorithm, seed=self._seed, attempt=attempt)

    def is_proposed(self, number: int) -> bool:
        """Whether the parameters of a trial that was asked for are known: it was put back, or given by the user."""
        return self._proposals[number].is_given

    def propose(self, number: int, params: dict[str, HyperparameterValue]) -> Proposal:
        """Give a trial that was asked for its parameters; `describe` stores them.

        Returns:
            The trial, which now suggests these.
        """
        return self._proposals[number].give(params)

    def withdraw(self, number: int) -> None:
        """Take back a trial for which there is no configuration left; nobody sees it any more."""
        change_trial(self._storage, self._trial_id(number), state=TrialState.FAIL)

    def tried(self, *, besides: int = -1) -> Tried:
        """The configurations of all trials, finished, running or put back.

        Args:
            besides: Number of a trial that was just asked for, which does not count; what was known then is not read
                again, since nobody else may ask meanwhile.
        """
        if besides < 0:
            self._history.read()
        return self._history.tried(besides=besides)

    def end(self, reason: str) -> None:
        """Note why the search ends before its budget is used up."""
        write_json(self._folder.ending_file, reason)

    def ask(self, max_trials: int, *, may_start: bool = True) -> Proposal | None:
        """The next trial to run, one that waits before a new one; None when the budget is used up.

        Args:
            max_trials: Budget.
            may_start: Whether there may be a new one at all.
        """
        self.put_back_lapsed()
        owner: dict[str, HyperparameterValue] = {"worker": self.worker}
        if token := leases.own(self._folder):
            owner["lease"] = token
        # Held, or two workers would both take the last one; and a trial without an owner is a dead worker's.
        with self._folder.exclusive("study"):
            self._history.read()
            trial = self._taken(owner)
            is_new_one_allowed = may_start and len(self._history) < max_trials
            if trial is None and is_new_one_allowed:
                trial = self._started(owner)
        if trial is None:
            return None
        self._proposals[trial.number] = Proposal(trial)
        return self._proposals[trial.number]

    def _taken(self, owner: dict[str, HyperparameterValue]) -> FrozenTrial | None:
        """A trial that waited, now running."""
        for trial in self._history.unfinished:
            # Without a lock (its connection was lost), another worker may have been faster.
            if trial.state is TrialState.WAITING and self._storage.set_trial_state_values(
                trial._trial_id, TrialState.RUNNING
            ):
                change_trial(self._storage, trial._trial_id, attrs=owner)
                return trial
        return None

    def _started(self, owner: dict[str, HyperparameterValue]) -> FrozenTrial:
        """A new trial."""
        template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=owner)
        trial = self._storage._create_new_trial(self._study._study_id, template)
        return trial

    def report(self, number: int, epoch: int, *, objective: float, loss: float) -> None:
        """Store what an epoch was judged, and its validation loss.

        A trial that runs again reports some epochs again; what it had reported of later ones does not count then.
        """
        self._store_proposal(number)
        report_epoch(self._storage, self._trial_id(number), epoch, objective=objective, loss=loss)

    def rivals(self, number: int) -> Iterator[Rival]:
        """The other trials, as a pruner compares them; nothing is read before the first is asked for."""
        self._history.read()
        yield from self._history.rivals(number)

    def describe(self, number: int, hyperparameters: dict[str, HyperparameterValue]) -> None:
        """Store the parameters of a trial, and its active values as the space names them, fixed ones too."""
        self._store_proposal(number, hyperparameters=hyperparameters)

    def _store_proposal(self, number: int, **attrs: Any) -> None:
        """Store what a trial was proposed since the last call, with more of its attributes."""
        proposal = self._proposals.get(number)
        params = proposal.new_params() if proposal else {}
        if params or attrs:
            change_trial(self._storage, self._trial_id(number), params=params, attrs=attrs)

    def finish(
        self,
        number: int,
        objective: float,
        *,
        outcome: Outcome,
        message: str = "",
        axes: tuple[float, float] | None = None,
        hyperparameters: dict[str, HyperparameterValue] | None = None,
    ) -> None:
        """End a trial. A failed one is complete too: its objective is finite, and the sampler learns from it.

        Args:
            number: Of the trial.
            objective: By which it is ranked.
            outcome: How it ended.
            message: Why, if there is more to say.
            axes: Error and instability; a study of both apart is searched by these. None: the worst there is.
            hyperparameters: As for `describe`, if they are not those that were described.
        """
        is_pareto = len(self._study.directions) > 1
        told = {"objective": objective if is_pareto else None, "message": message, "hyperparameters": hyperparameters}
        proposal = self._proposals.pop(number, None)
        change_trial(
            self._storage,
            self._trial_id(number),
            params=proposal.new_params() if proposal else {},
            attrs={"outcome": str(outcome)} | {key: value for key, value in told.items() if value not in (None, "")},
            state=TrialState.COMPLETE,
            values=(axes or self._worst_axes()) if is_pareto else [objective],
        )

    def _worst_axes(self) -> tuple[float, float]:
        errors = [trial.values[0] for trial in self._trials() if trial.state is TrialState.COMPLETE]
        return max(errors, default=FAILED_ERROR), FAILED_INSTABILITY

    def give_back(
        self,
        *,
        crashed: bool,
        worker: int | None = None,
        lease: str | None = None,
        message: str = "",
        worst_objective: float = math.inf,
        most_deaths: int = MAX_ATTEMPTS,
        is_out_of_memory: bool = False,
    ) -> list[int]:
        """Put running trials back: the same trial, with the same number, parameters and reports, goes on.

        Args:
            worker: Whose; None: all, for which nobody may be at work; in a database those of workers without a lease.
            lease: Of that worker, in a database; by default this process's own.
            crashed: The worker died of it; after some times with no epoch in between, the trial is ended as crashed.
            message: What is known of the death.
            worst_objective: Objective of a trial that is ended so.
            most_deaths: So many times.
            is_out_of_memory: It died because memory ran out; the trial goes on with half the batch, or is infeasible.

        Returns:
            Numbers of the trials that were running.
        """
        with self._folder.exclusive("study"):
            running = self._left_behind(worker, lease)
            for trial in running:
                trial_id = self._trial_id(trial.number)
                if is_out_of_memory and self._is_infeasible(trial):
                    self.finish(trial.number, worst_objective, outcome=Outcome.INFEASIBLE, message=message)
                    continue
                attempts = self._note_attempt(trial) if crashed and not is_out_of_memory else 0
                if attempts >= most_deaths:
                    self.finish(trial.number, worst_objective, outcome=Outcome.CRASHED, message=message)
                    continue
                change_trial(self._storage, trial_id, attrs={"worker": None}, state=TrialState.WAITING)
        return [trial.number for trial in running]

    def _note_attempt(self, trial: FrozenTrial) -> int:
        """Count a death of a trial's worker; returns how many there were since the trial last trained further."""
        num_epochs = len(objectives_of(trial))
        attempts, before = trial.user_attrs.get("deaths", (0, 0))
        attempts = 1 if num_epochs > before else attempts + 1
        self._storage.set_trial_user_attr(self._trial_id(trial.number), "deaths", (attempts, num_epochs))
        return int(attempts)

    def _is_infeasible(self, trial: FrozenTrial) -> bool:
        """Whether a trial that ran out of memory now cannot be tried with half the batch."""
        is_last = self.note_out_of_memory(trial.number) >= MAX_OUT_OF_MEMORY
        return is_last or not half_batch(trial.user_attrs.get("hyperparameters", {}))

    def note_out_of_memory(self, number: int) -> int:
        """Count that a trial ran out of memory; returns how often it has."""
        count = self.num_out_of_memory(number) + 1
        self._storage.set_trial_user_attr(self._trial_id(number), "out_of_memory", count)
        return count

    def num_out_of_memory(self, number: int) -> int:
        """How often a trial ran out of memory."""
        return int(self._storage.get_trial(self._trial_id(number)).user_attrs.get("out_of_memory", 0))

    def unfinished(self) -> list[int]:
        """Numbers of the trials that are running, or wait for a worker."""
        return [trial.number for trial in self._unfinished()]

    def num_epochs(self) -> int:
        """How many epochs of all trials were reported."""
        return sum(len(objectives_of(trial)) for trial in self._trials())

    def put_back_lapsed(self) -> None:
        """Put back the trials of workers on other machines that have died; nothing for a study that is a file."""
        if self._is_shared and leases.own(self._folder):
            leases.end_lapsed(self._folder)
            if self._left_behind(None, None):
                self.give_back(crashed=False)

    def _left_behind(self, worker: int | None, lease: str | None) -> list[FrozenTrial]:
        """The running trials of a worker, or of all that are gone, and those whose worker died while it was asking."""
        running = [trial for trial in self._unfinished() if trial.state is TrialState.RUNNING]
        if not self._is_shared:
            return [trial for trial in running if worker is None or trial.user_attrs.get("worker") in (worker, None)]
        if worker is not None:
            token = lease or leases.own(self._folder)
            return [trial for trial in running if trial.user_attrs.get("lease") == token]
        # After the trials were read: a worker has its lease before its trial.
        alive = {each.token for each in leases.live(self._folder)}
        return [trial for trial in running if trial.user_attrs.get("lease") not in alive]

    def num_running(self) -> int:
        """How many trials some worker is running."""
        return sum(trial.state is TrialState.RUNNING for trial in self._unfinished())

    def num_waiting(self) -> int:
        """How many trials were put back, or enqueued, and wait for a worker."""
        return sum(trial.state is TrialState.WAITING for trial in self._unfinished())

    def finished(self) -> list[tuple[int, dict[str, HyperparameterValue], float]]:
        """Number, hyperparameters and objective of each finished trial."""
        self._history.read()
        return [
            (trial.number, dict(trial.user_attrs.get("hyperparameters", trial.params)), objective_of(trial) or 0.0)
            for trial in self._history.finished
        ]

    def records(self) -> list[TrialRecord]:
        """The records of the finished trials, by number; each as it was when this process first asked."""
        self._history.read()
        for trial in self._history.finished:
            if trial.number not in self._records:
                self._records[trial.number] = _record(self._folder, trial)
        return [self._records[trial.number] for trial in self._history.finished]

    def last_finished(self, count: int) -> list[tuple[Outcome, str]]:
        """Outcome and message of the trials that ended last, of all workers, the newest last."""
        self._history.read()
        return [(outcome_of(trial), str(trial.user_attrs.get("message", ""))) for trial in self._history.newest(count)]

    def best_numbers(self, count: int) -> list[int]:
        """Numbers of the best trials that were trained to their end and did not fail, best first."""
        return [trial.number for trial in itertools.islice(self._best(), count)]

    def leaders(self, count: int) -> list[Leader]:
        """The best trials that were trained to their end and did not fail, best first."""
        return [
            Leader(
                dict(trial.user_attrs.get("hyperparameters", {})),
                trial.user_attrs.get("worker") == self.worker,
            )
            for trial in itertools.islice(self._best(), count)
        ]

    def num_finished(self) -> int:
        """How many trials have ended, failed ones included."""
        self._history.read()
        return self._history.num_finished

    def finished_by_worker(self) -> Counter[int]:
        """How many trials have ended with each worker, by its number."""
        self._history.read()
        newest = self._history.newest(self._history.num_finished)
        return Counter(int(trial.user_attrs.get("worker") or 0) for trial in newest)

    def best_objective(self) -> tuple[float, int] | None:
        """Lowest objective of the trials that were trained to their end and did not fail, and its trial."""
        best = next(self._best(), None)
        return (objective_of(best) or 0.0, best.number) if best else None

    def _best(self) -> Iterator[FrozenTrial]:
        self._history.read()
        for trial in self._history.best():
            if not outcome_of(trial).is_failed and outcome_of(trial) is not Outcome.PRUNED:
                yield trial

    def _trials(self) -> list[FrozenTrial]:
        self._history.read()
        return self._history.all()

    def _unfinished(self) -> list[FrozenTrial]:
        self._history.read()
        return self._history.unfinished

    def _trial_id(self, number: int) -> int:
        if number in self._proposals:
            return int(self._proposals[number].trial._trial_id)
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def load_trials(folder: RunFolder) -> list[TrialRecord]:
    """All trials of a run by number; empty before the first worker made the study."""
    if not (folder.study_file.is_file() or folder.storage_file.is_file()):
        return []
    with storage_faults(folder):
        storage, name = _storage(folder)
        try:
            study_id = storage.get_study_id_from_name(name)
            trials = storage.get_all_trials(study_id, deepcopy=False)
        except KeyError:
            return []
        finally:
            storage.remove_session()
            if not folder.storage_file.is_file():
                storage.engine.dispose()
    known = [trial for trial in trials if trial.state is not TrialState.FAIL]
    return [_record(folder, trial) for trial in sorted(known, key=lambda trial: trial.number)]


def delete_study(folder: RunFolder) -> None:
    """Remove the study of a run from its database; a study that is a file goes with the folder."""
    if shared := folder.load_shared_study():
        with storage_faults(folder), contextlib.suppress(KeyError):
            storage = open_database(shared.url).storage
            storage.delete_study(storage.get_study_id_from_name(shared.name))


def _record(folder: RunFolder, trial: FrozenTrial) -> TrialRecord:
    outcome = outcome_of(trial)
    objectives = objectives_of(trial)
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
        objective=objective_of(trial) if is_finished else None,
        seed_runs=tuple(seed_runs),
        epoch_losses=tuple(
            # An older study has the losses in the place of the objectives.
            math.inf if loss is None else loss
            for loss in trial.user_attrs.get("val_losses", objectives)[: len(objectives)]
        ),
        epoch_objectives=objectives,
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        finished=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        message=str(trial.user_attrs.get("message", "")),
        is_baseline=bool(trial.user_attrs.get("baseline", False)),
        margin=folder.load_margin(trial.number) if is_finished else None,
        worker=trial.user_attrs.get("worker"),
        faults=tuple(faults),
    )


@contextlib.contextmanager
def storage_faults(folder: RunFolder) -> Iterator[None]:
    """Turn every failure of the study's storage in the block into an `EnvironmentFault` that names file or database."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        if shared := folder.load_shared_study():
            raise database_fault(shared.url, error) from error
        # Optuna's own text says nothing of the cause.
        reason = str(error.__cause__ or error).splitlines()[0]
        raise _fault(folder, reason) from error


def _fault(folder: RunFolder, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"The study {str(folder.study_file)!r} cannot be used: {reason}. Check that the folder may be written and has "
        "space; a damaged file can be moved away, the trials folder keeps its records."
    )


def _storage(folder: RunFolder) -> tuple[optuna.storages.RDBStorage, str]:
    """The SQLite file of the run, or its database, and the name of the study in it.

    Raises:
        EnvironmentFault: It cannot be used, or another version of Optuna made it.
    """
    from sqlalchemy.engine import URL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if shared := folder.load_shared_study():
        return open_database(shared.url).storage, shared.name
    if system := network_file_system(folder.root):
        raise EnvironmentFault(
            f"The study cannot be a file in {str(folder.root)!r}: this is a network file system ({system}), on which "
            "SQLite's locks do not hold between machines. Give --run a folder on a local disk, or have the study in a "
            "database: --storage postgresql://USER@HOST/DATABASE"
        )
    file = folder.study_file.absolute()
    url = URL.create("sqlite", database=str(file))
    if not (os.access(folder.root, os.W_OK) or file.with_name(f"{file.name}-wal").exists()):
        # To read beside writers, SQLite makes files of its own, which cannot be made here; nor can anybody write.
        query = {"mode": "ro", "immutable": "1", "uri": "true"}
        url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
    try:
        options = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}}
        return optuna.storages.RDBStorage(url.render_as_string(), engine_kwargs=options), STUDY_NAME
    except RuntimeError as error:
        raise EnvironmentFault(
            f"The study {str(folder.study_file)!r} was made by another version of Optuna than {optuna.__version__}: "
            f"{' '.join(str(error).split()).rstrip('.')}. Run it with the environment that made it (environment.json "
            "beside it), or begin another run with another --run; the trials folder keeps its records."
        ) from error


def _log_ahead(storage: optuna.storages.RDBStorage) -> None:
    """Have the file written by way of a log: one sync a transaction at most, and readers never wait."""
    if storage.engine.name == "sqlite":
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
