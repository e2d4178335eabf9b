"""Hyperparameters as axes: which scale suits the values, where each one lies, how much it mattered.

The records hold the values of the trials, not the ranges they were drawn from, so the scale is inferred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports.formats import compact
from tuner.records import HyperparameterValue, TrialRecord

__all__ = ["Axis", "axes", "constants", "show"]

Scale = Literal["linear", "log", "choice"]

# Positive values that span this ratio, with their median nearer to the geometric middle of it, are drawn on a log axis.
# Source: convention; 1e-4 to 1e-2 is the usual range of a rate.
LOG_FROM_RATIO = 30.0

# Up to so many distinct whole (or often repeated) numbers are drawn as equally spaced choices. Source: legibility.
MAX_CHOICES = 8

# Below so many trials an importance would be noise, and the order of the names is kept. Source: convention.
MIN_TRIALS_FOR_IMPORTANCE = 8

FIRST = "learning_rate"

# Always drawn on a log axis, however narrow their range was made. Source: convention.
LOG_NAMES = frozenset({FIRST, "l1", "l2", "weight_decay"})

_NUM_GROUPS = 3


@dataclass(frozen=True)
class Axis:
    """One hyperparameter of a study.

    Attributes:
        values: Trial number to value, only of trials in which it was active.
        choices: Distinct values in order, for the scale `choice`.
        low, high: Smallest and largest value, for the other scales.
        importance: Share in [0, 1] of the variance of the objective's rank that a few groups of its values explain.
    """

    name: str
    scale: Scale
    values: Mapping[int, HyperparameterValue]
    choices: tuple[HyperparameterValue, ...] = ()
    low: float = 0.0
    high: float = 1.0
    importance: float = 0.0

    def place(self, value: HyperparameterValue) -> float:
        """Where a value lies between the ends of the axis, in [0, 1]."""
        if self.scale == "choice":
            return self.choices.index(value) / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5
        low, high, here = (self._scaled(float(end)) for end in (self.low, self.high, value))  # type: ignore[arg-type]
        return (here - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places in [0, 1] with their labels."""
        if self.scale == "choice":
            every = math.ceil(len(self.choices) / (MAX_CHOICES + 4))
            return [(self.place(value), show(value)) for value in self.choices[::every]]
        if self.scale == "linear":
            middle = (self.low + self.high) / 2
            return [(self.place(value), compact(value, 2)) for value in (self.low, middle, self.high)]
        powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        inner = [10.0**power for power in powers if 0.1 < self.place(10.0**power) < 0.9]
        return [(self.place(value), compact(value, 2)) for value in (self.low, *inner, self.high)]

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.scale == "log" else value


def axes(trials: Sequence[TrialRecord]) -> list[Axis]:
    """The hyperparameters that differed between the trials: learning rate first, then by importance."""
    columns = _columns(trials)
    objectives = {trial.number: trial.objective for trial in trials if trial.objective is not None}
    varied = [_axis(name, values, objectives) for name, values in columns.items() if _has_varied(values, len(trials))]
    return sorted(varied, key=lambda axis: (axis.name != FIRST, -axis.importance))


def constants(trials: Sequence[TrialRecord]) -> dict[str, HyperparameterValue]:
    """The hyperparameters that had one value in every trial."""
    columns = _columns(trials)
    return {
        name: next(iter(values.values())) for name, values in columns.items() if not _has_varied(values, len(trials))
    }


def show(value: HyperparameterValue) -> str:
    """A value for reading: numbers rounded, booleans as yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return compact(value) if isinstance(value, float) else str(value)


def _columns(trials: Sequence[TrialRecord]) -> dict[str, dict[int, HyperparameterValue]]:
    columns: dict[str, dict[int, HyperparameterValue]] = {}
    for trial in trials:
        for name, value in trial.hyperparameters.items():
            columns.setdefault(name, {})[trial.number] = value
    return columns


def _has_varied(values: Mapping[int, HyperparameterValue], num_trials: int) -> bool:
    return len(set(values.values())) > 1 or (1 < num_trials > len(values))


def _axis(name: str, values: dict[int, HyperparameterValue], objectives: Mapping[int, float]) -> Axis:
    distinct = sorted(set(values.values()), key=_order)
    scale = _scale(name, list(values.values()), distinct)
    groups = _groups(values, distinct, scale)
    importance = _explained({number: groups.get(number, -1) for number in objectives}, objectives)
    if scale == "choice":
        return Axis(name, scale, values, choices=tuple(distinct), importance=importance)
    low, high = (float(value) for value in (distinct[0], distinct[-1]))  # type: ignore[arg-type]
    return Axis(name, scale, values, low=low, high=high, importance=importance)


def _order(value: HyperparameterValue) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return (not is_number, float(value) if is_number else 0.0, str(value))  # type: ignore[arg-type]


def _scale(name: str, values: Sequence[HyperparameterValue], distinct: Sequence[HyperparameterValue]) -> Scale:
    numbers = [value for value in distinct if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(distinct) or not all(math.isfinite(value) for value in numbers):
        return "choice"
    is_whole = all(float(value).is_integer() for value in numbers)
    if len(numbers) <= MAX_CHOICES and (is_whole or len(values) >= 2 * len(numbers)):
        return "choice"
    low, high = min(numbers), max(numbers)
    if low <= 0:
        return "linear"
    median = sorted(numbers)[len(numbers) // 2]
    is_even = abs(math.log(median / math.sqrt(low * high))) < abs(math.log(median / ((low + high) / 2)))
    return "log" if name in LOG_NAMES or (high / low >= LOG_FROM_RATIO and is_even) else "linear"


def _groups(
    values: Mapping[int, HyperparameterValue], distinct: Sequence[HyperparameterValue], scale: Scale
) -> dict[int, int]:
    """Trial number to group: one a choice, else a third of the values each."""
    if scale == "choice":
        return {number: distinct.index(value) for number, value in values.items()}
    ordered = sorted(values, key=lambda number: float(values[number]))  # type: ignore[arg-type]
    return {number: place * _NUM_GROUPS // len(ordered) for place, number in enumerate(ordered)}


def _explained(groups: Mapping[int, int], objectives: Mapping[int, float]) -> float:
    """Adjusted eta squared of the objective's ranks: 0 for what groups at random would explain."""
    numbers = sorted(objectives, key=lambda number: objectives[number])
    size, num_groups = len(numbers), len({groups[number] for number in numbers})
    if size < MIN_TRIALS_FOR_IMPORTANCE or not 1 < num_groups < size:
        return 0.0
    labels = np.array([groups[number] for number in numbers])
    ranks = np.arange(size, dtype=float)
    within = sum(
        float(((part := ranks[labels == label]) - part.mean()) @ (part - part.mean())) for label in set(labels)
    )
    total = float(((ranks - ranks.mean()) ** 2).sum())
    return max(0.0, 1 - within / total * (size - 1) / (size - num_groups))
