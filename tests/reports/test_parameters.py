from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.parameters import LOG_FROM_RATIO, MIN_TRIALS_FOR_IMPORTANCE, axes, constants, show
from tuner.records import HyperparameterValue, Outcome, TrialRecord


def trials(values: dict[str, list[HyperparameterValue]], objectives: list[float] | None = None) -> list[TrialRecord]:
    """One trial a position; the word `absent` leaves the hyperparameter out."""
    size = len(next(iter(values.values())))
    objectives = objectives or [float(number) for number in range(size)]
    return [
        TrialRecord(
            number,
            Outcome.COMPLETED,
            {name: column[number] for name, column in values.items() if column[number] != "absent"},
            objectives[number],
        )
        for number in range(size)
    ]


def axis(values: list[HyperparameterValue], name: str = "x"):  # type: ignore[no-untyped-def]
    return axes(trials({name: values}))[0]


def test_scale_follows_the_values() -> None:
    rates = [1e-5 * 10 ** (0.17 * step) for step in range(20)]
    assert axis(rates).scale == "log"
    assert axis([0.01 + 0.03 * step for step in range(20)]).scale == "linear"
    assert axis([16, 32, 64, 128, 16]).scale == "choice"
    assert axis([0.0, 1.0, 5.0, 1.0]).scale == "choice"
    assert axis(["adam", "sgd", "adam"]).scale == "choice"
    assert axis([True, False, True]).choices == (False, True)
    assert axis([-0.3, 0.1, 0.7]).scale == "linear"
    assert axis([float(value) + 0.5 for value in range(12)]).scale == "linear"


def test_ratio_from_which_an_axis_is_logarithmic() -> None:
    def geometric(ratio: float) -> list[HyperparameterValue]:
        return [float(value) for value in np.geomspace(0.001, 0.001 * ratio, 15)]

    assert axis(geometric(LOG_FROM_RATIO * 1.01)).scale == "log"
    assert axis(geometric(LOG_FROM_RATIO * 0.99)).scale == "linear"


def test_a_learning_rate_is_logarithmic_however_narrow() -> None:
    assert axis([0.001, 0.0012, 0.0015], "learning_rate").scale == "log"


@pytest.mark.parametrize("values", [[1e-4, 1e-3, 1e-2], [0.1, 0.2, 0.7], ["b", "a", "c"], [3, 1, 2], [None, "a", 2]])
def test_places_run_from_zero_to_one(values: list[HyperparameterValue]) -> None:
    found = axis(values)
    places = [found.place(value) for value in values]
    assert min(places) == 0.0
    assert max(places) == 1.0
    assert all(0 <= place <= 1 for place, _ in found.ticks())


def test_log_ticks_are_the_ends_and_the_powers_between() -> None:
    assert [text for _, text in axis([3.6e-5, 0.057, 0.001], "learning_rate").ticks()] == [
        "3.6e-5",
        "0.0001",
        "0.001",
        "0.01",
        "0.057",
    ]


def test_learning_rate_comes_first_then_what_explains_the_order() -> None:
    rng = np.random.default_rng(0)
    size = 60
    strong = [bool(value) for value in rng.integers(2, size=size)]
    columns: dict[str, list[HyperparameterValue]] = {
        "noise": [str(value) for value in rng.choice(["a", "b", "c"], size)],
        "strong": list(strong),
        "learning_rate": [float(value) for value in rng.uniform(1e-4, 1e-2, size)],
    }
    objectives = [float(rng.normal() + 5 * value) for value in strong]
    found = axes(trials(columns, objectives))
    assert [one.name for one in found] == ["learning_rate", "strong", "noise"]
    assert found[1].importance > 0.6
    assert found[2].importance < 0.15


def test_a_valley_in_the_middle_is_found() -> None:
    values = [float(value) for value in np.linspace(0.1, 0.9, 30)]
    objectives = [(value - 0.5) ** 2 for value in values]
    assert axes(trials({"x": list(values)}, objectives))[0].importance > 0.5


def test_importance_needs_enough_trials() -> None:
    for size, is_judged in ((MIN_TRIALS_FOR_IMPORTANCE - 1, False), (MIN_TRIALS_FOR_IMPORTANCE, True)):
        values: list[HyperparameterValue] = [number < size / 2 for number in range(size)]
        assert (axes(trials({"x": values}))[0].importance > 0) is is_judged


def test_conditional_ones_are_axes_and_constants_are_not() -> None:
    made = trials({"use_l2": [True, False, True], "l2": [0.1, "absent", 0.1], "activation": ["relu"] * 3})
    found = {one.name: one for one in axes(made)}
    assert set(found) == {"use_l2", "l2"}
    assert set(found["l2"].values) == {0, 2}
    assert constants(made) == {"activation": "relu"}


def test_true_and_one_are_different_choices_in_words() -> None:
    assert [show(value) for value in (True, 1, 1.0, None, "a", 0.00123456)] == ["yes", "1", "1", "None", "a", "0.00123"]


value_lists = st.lists(
    st.one_of(st.booleans(), st.integers(-10, 10**6), st.floats(-1e9, 1e9), st.text(max_size=5), st.none()),
    min_size=2,
    max_size=25,
)


@given(value_lists)
def test_any_values_make_axes_with_places(values: list[HyperparameterValue]) -> None:
    for found in axes(trials({"x": values})):
        assert all(0 <= found.place(value) <= 1 for value in found.values.values())
        assert 0 <= found.importance <= 1
        assert found.ticks()
