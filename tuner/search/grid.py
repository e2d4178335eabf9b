"""All configurations of a search space: how many there are, and one after the other. Conditions are followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kinds

from tuner.errors import ConfigError
from tuner.records import HyperparameterValue

__all__ = [
    "ValuesOf",
    "check_grid",
    "combinations",
    "every_value",
    "grid_values",
    "nearest_step",
    "num_combinations",
    "steps",
]

# Values that a grid takes of a range without steps: its ends and its middle, on its own scale. Source: convention.
POINTS_FRAC = (0.0, 0.5, 1.0)
# Share of a step by which a range may miss a whole number of steps.
STEP_TOLERANCE = 1e-8

Values = Sequence[HyperparameterValue]
ValuesOf = Callable[[Any], Values | None]


def grid_values(hyperparameter: Any) -> Values:
    """The values that a grid search tries: choices and steps as they are, of other ranges both ends and the middle."""
    values = _listed(hyperparameter)
    if values is not None:
        return values
    low, high = hyperparameter.min_value, hyperparameter.max_value
    is_log = hyperparameter.sampling != "linear"
    is_whole = isinstance(hyperparameter, kinds.Int)
    points = [low * (high / low) ** frac if is_log else low + frac * (high - low) for frac in POINTS_FRAC]
    points[0], points[-1] = low, high
    return list(dict.fromkeys(round(point) if is_whole else float(point) for point in points))


def every_value(hyperparameter: Any) -> Values | None:
    """All values that a hyperparameter can take; None if they cannot be listed."""
    values = _listed(hyperparameter)
    if values is not None:
        return values
    if isinstance(hyperparameter, kinds.Int):
        return range(hyperparameter.min_value, hyperparameter.max_value + 1)
    return None


def _listed(hyperparameter: Any) -> Values | None:
    """The values of a choice, or of a range in steps or of no width."""
    if isinstance(hyperparameter, kinds.Fixed):
        return [hyperparameter.value]
    if isinstance(hyperparameter, kinds.Boolean):
        return [False, True]
    if isinstance(hyperparameter, kinds.Choice):
        return list(hyperparameter.values)
    if hyperparameter.min_value == hyperparameter.max_value:
        return [hyperparameter.min_value]
    is_plain_int = isinstance(hyperparameter, kinds.Int) and hyperparameter.sampling == "linear"
    if hyperparameter.step is None or (is_plain_int and hyperparameter.step == 1):
        return None
    return steps(hyperparameter)


class _FloatSteps(Sequence[float]):
    """`low`, `low + step`, ...: as written, not as added up (0.1 + 2 * 0.1 is more than 0.3, no step to Optuna)."""

    def __init__(self, low: float, step: float, count: int) -> None:
        self._low, self._step, self._indices = Decimal(str(low)), Decimal(str(step)), range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        found = self._indices[index]
        if isinstance(found, range):
            return [float(self._low + each * self._step) for each in found]
        return float(self._low + found * self._step)


def steps(hyperparameter: Any) -> Sequence[Any]:
    """All values of a range in steps, of the type that the space declares; a wide linear range is not written out."""
    low, high, step = hyperparameter.min_value, hyperparameter.max_value, hyperparameter.step
    if hyperparameter.sampling == "linear":
        # Keras Tuner's own list lacks the last value where the division is inexact, such as 0.5 // 0.1.
        count = int((high - low) / step + STEP_TOLERANCE) + 1
        if isinstance(hyperparameter, kinds.Int):
            return range(low, low + count * step, step)
        return _FloatSteps(low, step, count)
    return [round(value) if isinstance(hyperparameter, kinds.Int) else value for value in hyperparameter.values]


def nearest_step(hyperparameter: Any, value: float) -> Any:
    """Of a range in steps the one next to a value."""
    values = steps(hyperparameter)
    if hyperparameter.sampling == "linear":
        index = round((value - hyperparameter.min_value) / hyperparameter.step)
        return values[min(max(index, 0), len(values) - 1)]
    return min(values, key=lambda each: abs(each - value))


def num_combinations(space: keras_tuner.HyperParameters, values_of: ValuesOf = every_value) -> float:
    """How many different configurations a space has; infinity if the values of one cannot be listed.

    Args:
        space: With its conditions; its values are not touched.
        values_of: The values to take of each hyperparameter.
    """
    entries = list(space.space)
    parents = {condition.name for entry in entries for condition in entry.conditions}

    def count(index: int, chosen: dict[str, HyperparameterValue]) -> float:
        if index == len(entries):
            return 1
        entry = entries[index]
        if not _is_active(entry, chosen):
            return count(index + 1, chosen)
        values = values_of(entry)
        if values is None:
            return math.inf
        if entry.name not in parents:
            return len(values) * count(index + 1, chosen)
        return sum(count(index + 1, chosen | {entry.name: value}) for value in values)

    return count(0, {})


def combinations(
    space: keras_tuner.HyperParameters, values_of: ValuesOf = grid_values
) -> Iterator[dict[str, HyperparameterValue]]:
    """All configurations, in an order that depends on the space alone; the active values of each by name.

    Args:
        space: With its conditions; its values are not touched.
        values_of: The values to take of each hyperparameter.
    """
    entries = list(space.space)

    def extended(index: int, chosen: dict[str, HyperparameterValue]) -> Iterator[dict[str, HyperparameterValue]]:
        if index == len(entries):
            yield chosen
        elif not _is_active(entries[index], chosen):
            yield from extended(index + 1, chosen)
        else:
            for value in values_of(entries[index]) or ():
                yield from extended(index + 1, chosen | {entries[index].name: value})

    return extended(0, {})


def check_grid(space: keras_tuner.HyperParameters, *, trials: int, num_others: int = 0) -> int:
    """The size of the grid of a space.

    Args:
        space: With the user's ranges in it.
        trials: Budget of the search.
        num_others: Trials that are no part of the grid.

    Raises:
        ConfigError: It has more configurations than the search has trials.
    """
    size = int(num_combinations(space, grid_values))
    if size + num_others <= trials:
        return size
    counts = {entry.name: len(grid_values(entry)) for entry in space.space}
    largest = sorted((name for name in counts if counts[name] > 1), key=lambda name: -counts[name])[:5]
    listed = ", ".join(f"{name} ({counts[name]} values)" for name in largest)
    raise ConfigError(
        f"The grid has {size:,} configurations, and --trials is {trials}. Shrink it with --fix NAME=VALUE or "
        f"--range NAME=A,B (the largest: {listed}), give --trials {size + num_others}, or search with "
        "--algorithm random or tpe."
    )


def _is_active(entry: Any, chosen: dict[str, HyperparameterValue]) -> bool:
    return all(condition.is_active(chosen) for condition in entry.conditions)
