"""Pruning: who is ended early, who is not, and that nobody is without evidence. No training in here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuner.search.pruning import (
    MIN_AT_MEDIAN,
    MIN_AT_RUNG,
    MIN_PRUNED_EPOCHS,
    REDUCTION_FACTOR,
    TOLERANCE_NATS,
    PrunerName,
    Rival,
    bracket,
    first_rung,
    prune_reason,
    rungs,
)

EPOCHS = 20
PRUNERS: tuple[PrunerName, ...] = ("asha", "hyperband", "median")


def rivals(*levels: float, epochs: int = EPOCHS, final: bool = True) -> list[Rival]:
    """Trials whose objective was the same all along."""
    return [Rival(n, [level] * epochs, level if final else None) for n, level in enumerate(levels)]


def pruned_at(
    pruner: PrunerName, number: int, objectives: list[float], others: list[Rival], epochs: int = EPOCHS
) -> int:
    """The epoch after which a trial is ended early; the whole budget if it is not."""
    for epoch, objective in enumerate(objectives, start=1):
        if prune_reason(pruner, number, objective, others, epoch=epoch, max_epochs=epochs):
            return epoch
    return epochs


# --- when it is compared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, []), (MIN_PRUNED_EPOCHS - 1, []), (MIN_PRUNED_EPOCHS, [4]), (10, [4]), (20, [5, 15]), (40, [10, 30])],
)
def test_rungs_begin_after_the_grace_and_lie_ever_further_apart(epochs: int, expected: list[int]) -> None:
    assert rungs(epochs) == expected
    assert rungs(epochs, skipped=1) == expected[1:]


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("epochs", [1, 4, MIN_PRUNED_EPOCHS - 1])
def test_short_trials_are_not_pruned(pruner: PrunerName, epochs: int) -> None:
    assert pruned_at(pruner, 50, [9.0] * epochs, rivals(*[-1.0] * 30, epochs=epochs), epochs) == epochs


@pytest.mark.parametrize("pruner", PRUNERS)
def test_nobody_is_pruned_in_the_last_epoch(pruner: PrunerName) -> None:
    assert not prune_reason(pruner, 50, 9.0, rivals(*[-1.0] * 30), epoch=EPOCHS, max_epochs=EPOCHS)


def test_none_prunes_nobody_and_reads_nothing() -> None:
    def unread() -> list[Rival]:
        raise AssertionError
        yield

    assert not prune_reason("none", 9, 9.0, unread(), epoch=5, max_epochs=EPOCHS)
    assert not prune_reason("asha", 9, 9.0, unread(), epoch=4, max_epochs=EPOCHS)


# --- who is pruned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("num_others", [0, 1, 5, 6, 30])
def test_equal_trials_all_go_on(pruner: PrunerName, num_others: int) -> None:
    assert pruned_at(pruner, num_others, [-1.0] * EPOCHS, rivals(*[-1.0] * num_others)) == EPOCHS


@pytest.mark.parametrize("pruner", PRUNERS)
def test_trials_that_differ_by_no_more_than_another_seed_does_all_go_on(pruner: PrunerName) -> None:
    levels = np.random.default_rng(0).uniform(0, TOLERANCE_NATS, (40, EPOCHS)).tolist()
    others = [Rival(number, curve, curve[-1]) for number, curve in enumerate(levels)]
    assert all(pruned_at(pruner, n, levels[n], others[:n]) == EPOCHS for n in range(40))


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_a_bad_trial_is_pruned_at_the_first_rung(pruner: PrunerName) -> None:
    assert pruned_at(pruner, 9, [1.0] * EPOCHS, rivals(*[-1.0] * 9)) == first_rung(EPOCHS) == 5


def test_a_trial_that_turns_bad_later_is_pruned_at_the_next_rung() -> None:
    assert pruned_at("asha", 9, [-1.5] * 8 + [1.0] * 12, rivals(*[-1.0] * 9)) == 15


def test_the_best_third_goes_on_and_the_next_does_not() -> None:
    others = rivals(*(0.1 * n for n in range(11)))
    kept = math.ceil(12 / REDUCTION_FACTOR)
    limit = 0.1 * (kept - 1)
    for objective, goes_on in ((limit - 0.01, True), (limit + TOLERANCE_NATS - 1e-9, True), (0.4, False)):
        assert (pruned_at("asha", 11, [objective] * EPOCHS, others) == EPOCHS) is goes_on


def test_the_reason_is_told_in_words() -> None:
    reason = prune_reason("asha", 9, 1.0, rivals(*[-1.0] * 8), epoch=5, max_epochs=EPOCHS)
    assert reason == "its objective 1.000 was behind the best 3 of 9 trials after epoch 5 (-1.000 and better)"


@pytest.mark.parametrize(("pruner", "needed"), [("asha", MIN_AT_RUNG - 1), ("median", MIN_AT_MEDIAN)])
def test_a_few_trials_are_no_measure(pruner: PrunerName, needed: int) -> None:
    bad = [9.0] * EPOCHS
    assert pruned_at(pruner, 50, bad, rivals(*[-1.0] * (needed - 1))) == EPOCHS
    assert pruned_at(pruner, 50, bad, rivals(*[-1.0] * needed)) == 5


# --- who it is compared with -------------------------------------------------------------------------------------


def test_running_trials_count_where_they_have_come_to_the_rung() -> None:
    bad = [9.0] * EPOCHS
    assert pruned_at("asha", 9, bad, rivals(*[-1.0] * 9, epochs=4, final=False)) == EPOCHS
    assert pruned_at("asha", 9, bad, rivals(*[-1.0] * 9, epochs=5, final=False)) == 5


def test_trials_that_failed_on_the_way_are_behind_and_pruned_ones_do_not_count() -> None:
    """Of the six that came to the second rung, three diverged there: the best third of nine is three."""
    good = rivals(-3.0, -2.0, -1.0)
    diverged = [Rival(10 + n, [-1.0] * 8, 4.0) for n in range(5)]
    pruned = [Rival(20 + n, [-9.0] * 5) for n in range(20)]
    middling = [-1.0] * EPOCHS
    assert not prune_reason("asha", 30, middling[0], [*good, *diverged, *pruned], epoch=15, max_epochs=EPOCHS)
    assert prune_reason("asha", 30, -0.9, [*good, *diverged, *pruned], epoch=15, max_epochs=EPOCHS)
    # One that failed before the first rung never came to the second.
    early = [Rival(40 + n, [5.0], 5.0) for n in range(30)]
    assert prune_reason("asha", 30, -0.9, [*good, *diverged, *early], epoch=15, max_epochs=EPOCHS)


def test_brackets_get_their_shares_and_the_last_is_never_pruned() -> None:
    found = [bracket(number, EPOCHS) for number in range(600)]
    shares = [found.count(skipped) / 600 for skipped in range(3)]
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.01)
    others = rivals(*[-1.0] * 200)
    for number in range(200, 230):
        skipped = bracket(number, EPOCHS)
        assert pruned_at("hyperband", number, [9.0] * EPOCHS, others) == [5, 15, 20][skipped]
