"""A Keras Tuner Oracle over the study: Keras Tuner's search space in front, Optuna's sampler and storage behind."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as hyperparameter_types
from keras_tuner.engine import trial as trial_module

from tuner.records import HyperparameterValue, Outcome
from tuner.search.pruning import PrunerName, prune_reason
from tuner.search.study import Study
from tuner.stability.adaptation import SearchRange

__all__ = ["OBJECTIVE", "StudyOracle"]

# The name under which a trial's J is reported; minimised.
OBJECTIVE = keras_tuner.Objective("objective", "min")
# (number of the next trial, ranges) to those of the ranges that it is proposed from narrower ones of.
Adapt = Callable[[int, Mapping[str, SearchRange]], Mapping[str, tuple[float, float]]]
# Share of a step by which a range may miss a whole number of steps.
STEP_TOLERANCE = 1e-8


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
    """

    def __init__(
        self,
        study: Study,
        *,
        max_trials: int,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        adapt: Adapt | None = None,
        pruner: PrunerName = "none",
    ) -> None:
        super().__init__(objective=OBJECTIVE, max_trials=max_trials, hyperparameters=hyperparameters)
        self.study = study
        self._adapt = adapt
        self._pruner: PrunerName = pruner
        self.verbose = 0
        self.outcomes: dict[str, tuple[Outcome, str]] = {}
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
        """The next trial, or one with status STOPPED when the budget is used up."""
        space = self.get_space()
        self.study.enqueue_first(_suggest(space, _Defaults()))
        proposal = self.study.ask(self.max_trials)
        if proposal is None:
            return trial_module.Trial(space, trial_id="none", status=trial_module.TrialStatus.STOPPED)
        _suggest(space, proposal, self._adapt(proposal.number, _ranges(space)) if self._adapt else {})
        self.study.describe(proposal.number, dict(space.values))
        trial = trial_module.Trial(space, trial_id=str(proposal.number), status=trial_module.TrialStatus.RUNNING)
        self.trials[trial.trial_id] = trial
        return trial

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

    def record_outcome(self, trial_id: str, outcome: Outcome, message: str = "") -> None:
        """How the trial that is about to end is to be called."""
        self.outcomes[trial_id] = (outcome, message)

    def end_trial(self, trial: trial_module.Trial) -> None:
        """End the trial in the study with the objective that `update_trial` was given."""
        self.update_space(trial.hyperparameters)
        known = self.trials[trial.trial_id]
        self.score_trial(known)
        known.status = trial.status
        # Again: a model may have asked for hyperparameters that were not known before it was built.
        self.study.describe(int(trial.trial_id), dict(trial.hyperparameters.values))
        outcome, message = self.outcomes.pop(trial.trial_id, (Outcome.COMPLETED, ""))
        self.study.finish(int(trial.trial_id), known.score, outcome=outcome, message=message)

    def _save_trial(self, trial: trial_module.Trial) -> None:
        """The study is the only storage."""

    def save(self) -> None:
        """The study is the only storage."""

    def reload(self) -> None:
        """The study is the only storage."""


class _Defaults:
    """Stands in for an Optuna trial, for the trial that tries the defaults."""


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
    proposal: optuna.Trial | _Defaults,
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
        value = (
            _default(hyperparameter)
            if isinstance(proposal, _Defaults)
            else _suggest_one(proposal, names[index], hyperparameter, narrowed.get(hyperparameter.name))
        )
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
    nearest: float = min(_steps(hyperparameter), key=lambda value: abs(value - default))
    return default if math.isclose(nearest, hyperparameter.default) else nearest


def _steps(hyperparameter: Any) -> list[Any]:
    """All values of a range in steps, of the type that the space declares."""
    low, high, step = hyperparameter.min_value, hyperparameter.max_value, hyperparameter.step
    if hyperparameter.sampling == "linear":
        # Keras Tuner's own list lacks the last value where the division is inexact, such as 0.5 // 0.1.
        return [low + index * step for index in range(int((high - low) / step + STEP_TOLERANCE) + 1)]
    return [
        round(value) if isinstance(hyperparameter, hyperparameter_types.Int) else value
        for value in hyperparameter.values
    ]


def _suggest_one(proposal: optuna.Trial, name: str, hyperparameter: Any, narrowed: tuple[float, float] | None) -> Any:
    """Ask Optuna for one value. A logarithmic range in steps becomes a choice among its few values."""
    if isinstance(hyperparameter, hyperparameter_types.Boolean):
        return proposal.suggest_categorical(name, [False, True])
    if isinstance(hyperparameter, hyperparameter_types.Choice):
        return proposal.suggest_categorical(name, list(hyperparameter.values))
    low, high = narrowed or (hyperparameter.min_value, hyperparameter.max_value)
    step = hyperparameter.step
    if step is not None and narrowed is None:
        if hyperparameter.sampling != "linear":
            return proposal.suggest_categorical(name, [*_steps(hyperparameter)])
        high = _steps(hyperparameter)[-1]
    is_log = hyperparameter.sampling == "log"
    if isinstance(hyperparameter, hyperparameter_types.Int):
        return proposal.suggest_int(name, int(low), int(high), log=is_log, step=step or 1)
    return proposal.suggest_float(name, low, high, log=is_log, step=step)
