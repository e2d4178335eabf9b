"""The trials of a study as one process knows them. A trial that has ended never changes, so it is read once."""

from __future__ import annotations

import bisect
import heapq
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.records import HyperparameterValue, Outcome
from tuner.search.pruning import Rival

__all__ = ["History", "SampledStudy", "Tried", "objective_of", "objectives_of", "outcome_of"]

# TPE learns from this many of the newest finished trials, and of those before them from this many that were best. Up to
# their sum nothing is left out, and beyond it nothing of the model of good trials, which Optuna makes of 25 at most.
# Source: benchmarks/sampled_history.py.
MOST_BEST, MOST_NEWEST = 100, 400

_UNFINISHED = {TrialState.RUNNING: Outcome.RUNNING, TrialState.WAITING: Outcome.WAITING}


def outcome_of(trial: FrozenTrial) -> Outcome:
    """How a trial ended, or that it runs or waits."""
    if trial.state in _UNFINISHED:
        return _UNFINISHED[trial.state]
    return Outcome(trial.user_attrs.get("outcome", Outcome.CRASHED))


def objective_of(trial: FrozenTrial) -> float | None:
    """By which a finished trial is ranked; the only value of its study, unless that has two."""
    if "objective" in trial.user_attrs:
        return float(trial.user_attrs["objective"])
    return trial.value


def objectives_of(trial: FrozenTrial) -> tuple[float, ...]:
    """What each epoch was judged; those of an attempt that was put back do not count."""
    return tuple(value for _, value in sorted(trial.intermediate_values.items()) if not math.isnan(value))


class Tried:
    """Configurations that trials have, as a set; floats in steps differ in their last digits."""

    def __init__(self, *parts: Set[str]) -> None:
        self._parts = parts

    @staticmethod
    def key(values: Mapping[str, HyperparameterValue]) -> str:
        """What two equal configurations have in common."""
        return json.dumps(
            [(name, f"{value:.9g}" if isinstance(value, float) else value) for name, value in sorted(values.items())]
        )

    def __contains__(self, values: Mapping[str, HyperparameterValue]) -> bool:
        key = self.key(values)
        return any(key in part for part in self._parts)

    def __len__(self) -> int:
        return len(set().union(*self._parts))


class History:
    """Reads of a study what is new since the last time, and keeps what is asked for of all finished trials.

    Args:
        storage: Where the study is.
        study_id: Optuna's number of it.
    """

    def __init__(self, storage: optuna.storages.RDBStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._newest_id = -1
        self._unfinished: dict[int, FrozenTrial] = {}
        self._finished: dict[int, FrozenTrial] = {}
        self._ranked: list[tuple[float, int]] = []
        self._numbers: list[int] = []
        self._tried: set[str] = set()
        self._rivals: list[Rival] = []

    def read(self) -> None:
        """Learn what has happened since the last call."""
        trials = self._storage._get_trials(self._study_id, None, {*self._unfinished}, self._newest_id)
        for trial in trials:
            self._unfinished.pop(trial._trial_id, None)
            if not trial.state.is_finished():
                self._unfinished[trial._trial_id] = trial
                continue
            # Older ones that have not ended are asked for by their own number.
            self._newest_id = max(self._newest_id, trial._trial_id)
            # A trial that failed in Optuna's sense was withdrawn.
            if trial.state is not TrialState.FAIL:
                self._add(trial)

    def _add(self, trial: FrozenTrial) -> None:
        self._finished[trial.number] = trial
        bisect.insort(self._numbers, trial.number)
        objective, outcome = objective_of(trial), outcome_of(trial)
        bisect.insort(self._ranked, (math.inf if objective is None else objective, trial.number))
        self._rivals.append(Rival(trial.number, objectives_of(trial), None if outcome is Outcome.PRUNED else objective))
        if "hyperparameters" in trial.user_attrs:
            self._tried.add(Tried.key(trial.user_attrs["hyperparameters"]))

    @property
    def unfinished(self) -> list[FrozenTrial]:
        """Trials that run or wait, by number."""
        return sorted(self._unfinished.values(), key=lambda trial: trial.number)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that have ended, by number."""
        return [self._finished[number] for number in self._numbers]

    @property
    def num_finished(self) -> int:
        """How many have ended."""
        return len(self._finished)

    def __len__(self) -> int:
        return len(self._finished) + len(self._unfinished)

    def best(self) -> Iterator[FrozenTrial]:
        """Finished trials, the lowest objective first."""
        return (self._finished[number] for _, number in self._ranked)

    def newest(self, count: int) -> list[FrozenTrial]:
        """Those that ended last, the newest last."""
        ended = [trial for trial in self._finished.values() if trial.datetime_complete]
        return heapq.nlargest(count, ended, key=lambda trial: (trial.datetime_complete, trial.number))[::-1]

    def rivals(self, number: int) -> list[Rival]:
        """All trials but one that has not ended, as a pruner compares them."""
        others = (trial for trial in self._unfinished.values() if trial.number != number)
        return [*self._rivals, *(Rival(trial.number, objectives_of(trial)) for trial in others)]

    def tried(self, *, besides: int) -> Tried:
        """The configurations of all trials but one that has not ended."""
        others = {
            Tried.key(trial.user_attrs["hyperparameters"])
            for trial in self._unfinished.values()
            if trial.number != besides and "hyperparameters" in trial.user_attrs
        }
        return Tried(self._tried, others)

    def excerpt(self) -> list[FrozenTrial]:
        """The trials that TPE learns from, by number: the best, the newest, and those that have not ended."""
        numbers: Iterable[int] = self._numbers
        if self.num_finished > MOST_BEST + MOST_NEWEST:
            newest = self._numbers[-MOST_NEWEST:]
            oldest = newest[0]
            best = (number for _, number in self._ranked if number < oldest)
            numbers = sorted([*(number for number, _ in zip(best, range(MOST_BEST), strict=False)), *newest])
        trials = [*(self._finished[number] for number in numbers), *self._unfinished.values()]
        return sorted(trials, key=lambda trial: trial.number)

    def all(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return sorted([*self.finished, *self._unfinished.values()], key=lambda trial: trial.number)


class SampledStudy(optuna.Study):
    """The study as Optuna's samplers see it: with the trials of a history, without asking the storage again.

    Args:
        name: Of the study.
        storage: Where it is.
        history: Its trials.
        is_excerpt: Whether samplers see the excerpt.
    """

    def __init__(self, name: str, storage: optuna.storages.RDBStorage, history: History, *, is_excerpt: bool) -> None:
        super().__init__(name, storage)
        self._history = history
        self._is_excerpt = is_excerpt

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[Any]:
        trials = self._history.excerpt() if self._is_excerpt else self._history.all()
        return trials if states is None else [trial for trial in trials if trial.state in states]
