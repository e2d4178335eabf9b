"""All configurations of a space: counted, listed, and refused when they are too many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras_tuner
import pytest

from tuner.errors import ConfigError
from tuner.search.grid import check_grid, combinations, every_value, grid_values, nearest_step, num_combinations, steps


def space_of(declare: Callable[[keras_tuner.HyperParameters], Any]) -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    declare(space)
    return space


@pytest.mark.parametrize(
    ("declare", "grid", "every"),
    [
        (lambda hp: hp.Boolean("a"), [False, True], [False, True]),
        (lambda hp: hp.Choice("a", ["x", "y"]), ["x", "y"], ["x", "y"]),
        (lambda hp: hp.Fixed("a", 3), [3], [3]),
        (lambda hp: hp.Int("a", 1, 3), [1, 2, 3], [1, 2, 3]),
        (lambda hp: hp.Int("a", 1, 9), [1, 5, 9], list(range(1, 10))),
        (lambda hp: hp.Int("a", 4, 4), [4], [4]),
        (lambda hp: hp.Int("a", 1, 10, step=3), [1, 4, 7, 10], [1, 4, 7, 10]),
        (lambda hp: hp.Int("a", 8, 64, step=2, sampling="log"), [8, 16, 32, 64], [8, 16, 32, 64]),
        (lambda hp: hp.Float("a", 0.1, 0.3, step=0.1), [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        (lambda hp: hp.Float("a", 0.0, 1.0), [0.0, 0.5, 1.0], None),
        (lambda hp: hp.Float("a", 1e-4, 1e-2, sampling="log"), [1e-4, pytest.approx(1e-3), 1e-2], None),
    ],
)
def test_values_of_one_hyperparameter(declare: Any, grid: list[Any], every: list[Any] | None) -> None:
    entry = space_of(declare).space[0]
    assert list(grid_values(entry)) == grid
    found = every_value(entry)
    assert (None if found is None else list(found)) == every


@pytest.mark.parametrize(
    ("declare", "value", "nearest"),
    [
        (lambda hp: hp.Int("a", 1, 10, step=3), 5, 4),
        (lambda hp: hp.Int("a", 1, 10, step=3), 6, 7),
        (lambda hp: hp.Int("a", 1, 11, step=3), 11, 10),
        (lambda hp: hp.Int("a", 1, 10, step=3), -5, 1),
        (lambda hp: hp.Int("a", 8, 64, step=2, sampling="log"), 20, 16),
        (lambda hp: hp.Float("a", 0.1, 0.5, step=0.1), 0.3, 0.3),
        (lambda hp: hp.Float("a", 0.1, 0.5, step=0.1), 9.0, 0.5),
        # Far too many to be listed.
        (lambda hp: hp.Int("a", 1, 10**12), 10**11, 10**11),
        (lambda hp: hp.Float("a", 0.0, 1.0, step=1e-12), 0.25, 0.25),
    ],
)
def test_the_step_next_to_a_value(declare: Any, value: float, nearest: float) -> None:
    entry = space_of(declare).space[0]
    assert nearest_step(entry, value) == nearest
    assert steps(entry)[0] == entry.min_value
    assert entry.max_value - entry.step < steps(entry)[-1] <= entry.max_value


def conditional(hp: keras_tuner.HyperParameters) -> None:
    """1 + 2 + 4 stacks of blocks, times three rates."""
    hp.Int("blocks", 0, 2)
    for block in (1, 2):
        with hp.conditional_scope("blocks", list(range(block, 3))):
            hp.Choice(f"filters_{block}", [8, 16])
    hp.Choice("rate", [0.1, 0.01, 0.001])


def test_conditions_are_followed() -> None:
    space = space_of(conditional)
    found = list(combinations(space))
    assert len(found) == num_combinations(space) == 21
    assert len({str(each) for each in found}) == 21
    for each in found:
        assert len(each) == 2 + each["blocks"]
    assert found == list(combinations(space))


def test_a_continuous_range_has_no_end() -> None:
    space = space_of(lambda hp: (hp.Boolean("a"), hp.Float("b", 0.0, 1.0)))
    assert num_combinations(space) == math.inf
    assert num_combinations(space, grid_values) == 6


def test_a_huge_grid_is_counted_not_listed() -> None:
    space = space_of(lambda hp: [hp.Float(f"x{index}", 0.0, 1.0) for index in range(40)])
    assert num_combinations(space, grid_values) == 3**40


@pytest.mark.parametrize(("trials", "others"), [(21, 0), (22, 1)])
def test_a_grid_that_fits_is_taken(trials: int, others: int) -> None:
    assert check_grid(space_of(conditional), trials=trials, num_others=others) == 21


@pytest.mark.parametrize(("trials", "others"), [(20, 0), (21, 1)])
def test_a_grid_too_large_says_how_to_shrink_it(trials: int, others: int) -> None:
    expected = rf"21 configurations, and --trials is {trials}.*blocks \(3 values\).*--trials {21 + others}"
    with pytest.raises(ConfigError, match=expected):
        check_grid(space_of(conditional), trials=trials, num_others=others)
