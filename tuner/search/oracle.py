"""A Keras Tuner Oracle over the study: Keras Tuner's search space in front, Optuna's sampler and storage behind."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as hyperparameter_types
from keras_tuner.engine import trial as trial_module

from tuner.records import HyperparameterValue, Outcome, TrialRecord
from tuner.search.grid import ValuesOf, combinations, every_value, grid_values, nearest_step, num_combinations, steps
from tuner.search.pruning import PrunerName, prune_reason
from tuner.search.sampling import Draft, Proposal
from tuner.search.study import Study
from tuner.stability.adaptation import SearchRange

__all__ = ["OBJECTIVE", "StudyOracle"]

# The name under which a trial's J is reported; minimised.
OBJECTIVE = keras_tuner.Objective("objective", "min")
# (number of the next trial, ranges, finished trials) to those of the ranges that it is proposed from narrower ones of.
Adapt = Callable[[int, Mapping[str, SearchRange], Sequence[TrialRecord]], Mapping[str, tuple[float, float]]]
# Draws of one trial that may be configurations of earlier trials, before the first one that is not is looked for in
# the list of all. Source: convention; with a hundredth of a space left, two draws in three hit it within a hundred.
MAX_DRAWS = 100
# From this trial on every second one refines: it has the choices of a leading trial, and only its real numbers are
# drawn anew. Its worker finds the program of that trial compiled, and a rate is tuned for a network that is worth it.
# From the second trial on, because the first, the defaults, is better than most random ones; the other half explores.
# Source: benchmarks/refinement.py.
FIRST_REFINED, REFINED_EVERY = 1, 2
NUM_LEADERS = 3


class StudyOracle(keras_tuner.Oracle):
    """Proposes trials from an Optuna study and ends them there.

    State lives in the study alone: nothing is saved or reloaded by Keras Tuner, so that any number of processes
    may work on one study, and a killed one leaves nothing half-written.

    Args:
        study: The study.
        max_trials: Budget.
        hyperparameters: Search space, or None to have the tuner discover it.
        adapt: Narrows ranges by what finished trials tell; None leaves them as they are.
        pruner: Which trials are ended early.
        baseline: The space with the user's own configuration as its defaults, or None.
        target: The search ends when a trial has an objective of this or less; None: when its budget is used up.
    """

    def __init__(
        self,
        study: Study,
        *,
        max_trials: int,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        adapt: Adapt | None = None,
        pruner: PrunerName = "none",
        baseline: keras_tuner.HyperParameters | None = None,
        target: float | None = None,
    ) -> None:
        super().__init__(objective=OBJECTIVE, max_trials=max_trials, hyperparameters=hyperparameters)
        self.study = study
        self._adapt = adapt
        self._pruner: PrunerName = pruner
        self._baseline = baseline
        self._target = target
        self.verbose = 0
        self.outcomes: dict[str, tuple[Outcome, str, tuple[float, float] | None]] = {}
        for number, values, score in study.finished():
            self._remember(number, values, score)

    def _remember(self, number: int, values: dict[str, HyperparameterValue], score: float) -> None:
        """Know a trial that an earlier process finished, so that the best of all are found."""
        space = self.get_space()
        space.values = dict(values)
        trial = trial_module.Trial(space, trial_id=str(number), status=trial_module.TrialStatus.COMPLETED)
        trial.score = score
        self.trials[trial.trial_id] = trial

    def create_trial(self, tuner_id: str) -> trial_module.Trial:
        """The next trial, or one with status STOPPED when the budget or the search space is used up."""
        # Held until it is known what the trial tries, or two workers would try the same.
        with self.study.proposing():
            return self._create_trial()

    def _create_trial(self) -> trial_module.Trial:
        space = self.get_space()
        self._enqueue_first()
        proposal = self.study.ask(self.max_trials, may_start=not self._is_at_end())
        if proposal is not None and not self.study.is_proposed(proposal.number):
            proposal = self._propose(proposal.number, self._narrowed(proposal.number))
        if proposal is None:
            return trial_module.Trial(space, trial_id="none", status=trial_module.TrialStatus.STOPPED)
        # From the whole ranges: a trial that is put back must find the ones that it was stored with.
        _suggest(space, proposal)
        self.study.describe(proposal.number, dict(space.values))
        trial = trial_module.Trial(space, trial_id=str(proposal.number), status=trial_module.TrialStatus.RUNNING)
        self.trials[trial.trial_id] = trial
        return trial

    def _enqueue_first(self) -> None:
        """The first trial tries the defaults, the second the user's own configuration, if it is another one."""
        # A grid has its own order, and not every default is in it.
        first = [_suggest(self.get_space(), _Defaults())] if self.study.algorithm != "grid" else []
        if self._baseline is not None:
            own = _suggest(self.get_space(), _Given(_default_values(self._baseline)))
            first = [*(each for each in first if each != own), own]
        self.study.enqueue_first(*first, is_last_baseline=self._baseline is not None)

    def _is_at_end(self) -> bool:
        """Whether the search is over before its budget is used up; the reason is noted."""
        best = self.study.best_objective() if self._target is not None else None
        if self._target is not None and best is not None and best[0] <= self._target:
            self.study.end(f"trial {best[1]} reached the target: its objective is {best[0]:.3f}")
            return True
        values_of = grid_values if self.study.algorithm == "grid" else every_value
        size = num_combinations(self.get_space(), values_of)
        if size > self.max_trials or not self._all_tried(values_of):
            return False
        self.study.end(
            "the search space has no hyperparameters to search, so there is one trial"
            if size == 1
            else f"all {int(size):,} configurations of the {'grid' if values_of is grid_values else 'space'} were tried"
        )
        return True

    def _all_tried(self, values_of: ValuesOf) -> bool:
        tried = self.study.tried()
        return all(values in tried for values in combinations(self.get_space(), values_of))

    def _propose(self, number: int, narrowed: Mapping[str, tuple[float, float]]) -> Proposal | None:
        """A configuration that no other trial has; None, and the trial is gone, if there is none."""
        tried = self.study.tried(besides=number)
        space = self.get_space()
        leader = self._refined(number)
        for attempt in range(MAX_DRAWS if self.study.algorithm != "grid" else 0):
            draft = self.study.draft(number, attempt=attempt)
            params = _suggest(space, _Refined(draft, leader) if leader and not attempt else draft, narrowed)
            if space.values not in tried:
                return self.study.propose(number, params)
        values_of = grid_values if self.study.algorithm == "grid" else every_value
        untried = (values for values in combinations(space, values_of) if values not in tried)
        values = next(untried, None)
        if values is None:
            self.study.withdraw(number)
            return None
        return self.study.propose(number, _suggest(space, _Given(values)))

    def _refined(self, number: int) -> Mapping[str, HyperparameterValue]:
        """The configuration whose real numbers alone a trial draws anew; empty for a trial that is all new."""
        is_due = number >= FIRST_REFINED and (number - FIRST_REFINED) % REFINED_EVERY == 0
        if self.study.algorithm != "tpe" or not is_due:
            return {}
        leaders = self.study.leaders(NUM_LEADERS)
        # Their programs are in this worker's process.
        own = [leader for leader in leaders if leader.is_own] or leaders
        turn = (number - FIRST_REFINED) // REFINED_EVERY
        return own[turn % len(own)].hyperparameters if own else {}

    def _narrowed(self, number: int) -> Mapping[str, tuple[float, float]]:
        """Narrower ranges for a new trial."""
        if self._adapt is None or self.study.algorithm == "grid":
            return {}
        return self._adapt(number, _ranges(self.get_space()), self.study.records())

    def report_epoch(self, trial_id: str, epoch: int, *, objective: float, loss: float, max_epochs: int) -> str:
        """Store what an epoch was judged.

        Args:
            trial_id: The trial.
            epoch: Zero-based.
            objective: J as it would be judged now.
            loss: Of the validation part.
            max_epochs: Budget of the trial.

        Returns:
            Why the trial is pruned now; empty if it goes on.
        """
        number = int(trial_id)
        self.study.report(number, epoch, objective=objective, loss=loss)
        rivals = self.study.rivals(number)
        return prune_reason(self._pruner, number, objective, rivals, epoch=epoch + 1, max_epochs=max_epochs)

    def record_outcome(
        self, trial_id: str, outcome: Outcome, message: str = "", *, axes: tuple[float, float] | None = None
    ) -> None:
        """How the trial that is about to end is to be called, and its error and instability."""
        self.outcomes[trial_id] = (outcome, message, axes)

    def end_trial(self, trial: trial_module.Trial) -> None:
        """End the trial in the study with the objective that `update_trial` was given."""
        self.update_space(trial.hyperparameters)
        known = self.trials[trial.trial_id]
        self.score_trial(known)
        known.status = trial.status
        outcome, message, axes = self.outcomes.pop(trial.trial_id, (Outcome.COMPLETED, "", None))
        self.study.finish(
            int(trial.trial_id),
            known.score,
            outcome=outcome,
            message=message,
            axes=axes,
            # Again: a model may have asked for hyperparameters that were not known before it was built.
            hyperparameters=dict(trial.hyperparameters.values),
        )

    def _save_trial(self, trial: trial_module.Trial) -> None:
        """The study is the only storage."""

    def save(self) -> None:
        """The study is the only storage."""

    def reload(self) -> None:
        """The study is the only storage."""


class _Defaults:
    """Stands in for an Optuna trial, for the trial that tries the defaults."""


@dataclass(frozen=True)
class _Given:
    """Stands in for an Optuna trial whose values by hyperparameter are given."""

    values: Mapping[str, HyperparameterValue]


@dataclass(frozen=True)
class _Refined:
    """Stands in for an Optuna trial that has the choices of another one, and draws its own real numbers."""

    draft: Draft
    given: Mapping[str, HyperparameterValue]


def _default_values(space: keras_tuner.HyperParameters) -> dict[str, HyperparameterValue]:
    _suggest(space, _Defaults())
    return dict(space.values)


def _ranges(space: keras_tuner.HyperParameters) -> dict[str, SearchRange]:
    """The numbers of a space whose range may be narrowed: those without steps, and of one range each."""
    counts = Counter(hyperparameter.name for hyperparameter in space.space)
    return {
        hyperparameter.name: SearchRange(
            hyperparameter.min_value,
            hyperparameter.max_value,
            is_log=hyperparameter.sampling == "log",
            is_whole=isinstance(hyperparameter, hyperparameter_types.Int),
        )
        for hyperparameter in space.space
        if counts[hyperparameter.name] == 1
        and isinstance(hyperparameter, hyperparameter_types.Float | hyperparameter_types.Int)
        and hyperparameter.sampling in ("linear", "log")
        and hyperparameter.min_value < hyperparameter.max_value
        and hyperparameter.step == (1 if _is_plain_int(hyperparameter) else None)
    }


def _is_plain_int(hyperparameter: Any) -> bool:
    return isinstance(hyperparameter, hyperparameter_types.Int) and hyperparameter.sampling == "linear"


def _suggest(
    space: keras_tuner.HyperParameters,
    proposal: Proposal | Draft | _Defaults | _Given | _Refined,
    narrowed: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> dict[str, HyperparameterValue]:
    """Fill a space with values, parents before children, only what is active.

    Args:
        space: It is filled.
        proposal: Where the values come from.
        narrowed: Narrower (low, high) of some.

    Returns:
        The values by parameter name of the study (fixed ones are no parameters).
    """
    names = _parameter_names(space)
    space.values = {}
    parameters: dict[str, HyperparameterValue] = {}
    for index, hyperparameter in enumerate(space.space):
        if not space.is_active(hyperparameter):
            continue
        if isinstance(hyperparameter, hyperparameter_types.Fixed):
            space.values[hyperparameter.name] = hyperparameter.value
            continue
        if isinstance(proposal, _Defaults):
            value = _default(hyperparameter)
        elif isinstance(proposal, _Given):
            value = proposal.values[hyperparameter.name]
        elif isinstance(proposal, _Refined) and _is_kept(hyperparameter, proposal.given):
            value = proposal.given[hyperparameter.name]
        else:
            asked = proposal.draft if isinstance(proposal, _Refined) else proposal
            value = _suggest_one(asked, names[index], hyperparameter, narrowed.get(hyperparameter.name))
        space.values[hyperparameter.name] = parameters[names[index]] = value
    return parameters


def _parameter_names(space: keras_tuner.HyperParameters) -> list[str]:
    """A unique parameter name for each entry: Keras Tuner allows one name under several conditions, Optuna does not."""
    counts = Counter(hyperparameter.name for hyperparameter in space.space)
    return [
        hyperparameter.name
        if counts[hyperparameter.name] == 1
        else f"{hyperparameter.name} if {_conditions_text(hyperparameter)}"
        for hyperparameter in space.space
    ]


def _conditions_text(hyperparameter: Any) -> str:
    return json.dumps([condition.get_config() for condition in hyperparameter.conditions])


def _default(hyperparameter: Any) -> HyperparameterValue:
    """The default, or the step next to it: Optuna takes no value between the steps."""
    default: HyperparameterValue = hyperparameter.default
    if getattr(hyperparameter, "step", None) is None:
        return default
    nearest: float = nearest_step(hyperparameter, hyperparameter.default)
    return default if math.isclose(nearest, hyperparameter.default) else nearest


def _is_kept(hyperparameter: Any, given: Mapping[str, HyperparameterValue]) -> bool:
    """Whether a refined trial has the value of its leader."""
    is_real = isinstance(hyperparameter, hyperparameter_types.Float) and hyperparameter.step is None
    return hyperparameter.name in given and not is_real


def _suggest_one(
    proposal: Proposal | Draft, name: str, hyperparameter: Any, narrowed: tuple[float, float] | None
) -> Any:
    """Ask Optuna for one value. A logarithmic range in steps becomes a choice among its few values."""
    if isinstance(hyperparameter, hyperparameter_types.Boolean):
        return proposal.suggest_categorical(name, [False, True])
    if isinstance(hyperparameter, hyperparameter_types.Choice):
        return proposal.suggest_categorical(name, list(hyperparameter.values))
    low, high = narrowed or (hyperparameter.min_value, hyperparameter.max_value)
    step = hyperparameter.step
    if step is not None and narrowed is None:
        if hyperparameter.sampling != "linear":
            return proposal.suggest_categorical(name, [*steps(hyperparameter)])
        high = steps(hyperparameter)[-1]
    is_log = hyperparameter.sampling == "log"
    if isinstance(hyperparameter, hyperparameter_types.Int):
        return proposal.suggest_int(name, int(low), int(high), log=is_log, step=step or 1)
    return proposal.suggest_float(name, low, high, log=is_log, step=step)
