from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.stability.traces import CHANCE, NOISE_SHAPES, decay, noisy, spiked
from tuner.stability.alarm import FOLLOWING_STEPS, end_level, find_alarm, is_at_chance, is_better, stands_out
from tuner.store import read_trace

TESTS = Path(__file__).parents[1]
HEALTHY = sorted([*TESTS.glob("stability/recorded/healthy_*.npz"), *TESTS.glob("golden/digits_[!d]*.npz")])
SPIKE_AT = 500


def alarm(losses, *, chance_loss=CHANCE, steps=100, is_weighted=False):
    losses = np.asarray(losses, dtype=float)
    return find_alarm(losses, chance_loss=chance_loss, steps_per_epoch=steps, is_weighted=is_weighted)


@pytest.mark.parametrize("file", HEALTHY, ids=lambda file: file.stem)
def test_healthy_recorded_trainings_raise_no_alarm(file):
    recorded = read_trace(file)
    assert alarm(recorded.step_loss, chance_loss=recorded.chance_loss, steps=recorded.steps_per_epoch) is None


@pytest.mark.parametrize("shape", NOISE_SHAPES)
@pytest.mark.parametrize("frac", [0.05, 0.2, 0.5])
def test_clean_decays_raise_next_to_no_alarm(shape, frac):
    alarms = [alarm(noisy(decay(), frac, seed, shape)) for seed in range(40)]
    assert sum(found is not None for found in alarms) <= (2 if frac == 0.5 else 0)


@pytest.mark.parametrize(("height", "length"), [(2.5, 20), (8, 10), (8, 60)])
def test_a_spike_is_found_where_it_begins(height, length):
    for seed in range(10):
        found = alarm(spiked(noisy(decay(), 0.05, seed), SPIKE_AT, height=height, length=length))
        assert found.start == SPIKE_AT
        assert found.factor == pytest.approx(height, rel=0.3)


@pytest.mark.parametrize("length", [1, 2])
def test_single_outlier_batches_raise_none(length):
    assert alarm(spiked(noisy(decay(), 0.05, 0), SPIKE_AT, height=50, length=length)) is None


def test_a_spike_must_have_lasted():
    losses = spiked(noisy(decay(), 0.05, 0), SPIKE_AT, height=8, length=100)
    assert alarm(losses[: SPIKE_AT + 2]) is None
    assert alarm(losses[: SPIKE_AT + FOLLOWING_STEPS]) is not None


@pytest.mark.parametrize(("factor", "is_found"), [(1.8, False), (2.3, True)])
def test_the_loss_must_have_doubled(factor, is_found):
    losses = spiked(np.full(1000, 1.0), SPIKE_AT, height=factor, length=400)
    assert (alarm(losses) is not None) is is_found


@pytest.mark.parametrize(("level", "is_found"), [(0.02, False), (0.1, True)])
def test_rises_far_below_chance_are_harmless(level, is_found):
    losses = spiked(np.full(1000, level * CHANCE), SPIKE_AT, height=3, length=30)
    assert (alarm(losses) is not None) is is_found


@pytest.mark.parametrize(("height", "is_found"), [(2.5, False), (4.0, True)])
def test_at_the_birth_the_loss_must_be_three_times_chance(height, is_found):
    losses = np.concatenate(([CHANCE], np.full(8, height * CHANCE), np.full(100, 0.9 * CHANCE)))
    found = alarm(losses)
    assert (found is not None) is is_found
    assert not is_found or found.start == 1


@pytest.mark.parametrize(("jump", "after", "is_found"), [(2.2, 1.0, True), (1.8, 1.0, False), (8, 0.9, False)])
def test_a_jump_at_the_birth_kills_if_nothing_is_learned_after_it(jump, after, is_found):
    losses = np.concatenate(([1.0, jump], np.full(100, after))) * CHANCE
    found = alarm(losses)
    assert (found is not None) is is_found
    assert not is_found or (found.start, found.factor) == (1, pytest.approx(jump, rel=0.01))


def test_a_huge_first_loss_that_falls_is_no_alarm():
    assert alarm(100 * decay(300)) is None


@pytest.mark.parametrize(("level", "is_found"), [(0.9, False), (1.0, True)])
def test_back_at_chance_all_is_lost(level, is_found):
    losses = np.concatenate((np.linspace(1, 0.7, 200), np.full(60, level))) * CHANCE
    assert (alarm(losses) is not None) is is_found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trainings_with_class_weights_raise_no_alarm(seed):
    """Weighted losses of the default configuration on SECOM, 14 : 1, three or four epochs of 35 steps."""
    with np.load(TESTS / "golden/weighted_secom.npz") as file:
        losses = file[f"seed_{seed}"]
    found = [alarm(losses[:end], chance_loss=math.log(2), steps=35, is_weighted=True) for end in range(1, len(losses))]
    assert found == [None] * (len(losses) - 1)


@pytest.mark.parametrize(("level", "is_found"), [(1.8, False), (2.3, True), (math.nan, True)])
def test_where_rows_weigh_differently_only_what_lasts_above_chance_counts(level, is_found):
    losses = np.where(np.arange(300) % 20 < 10, 0.02, 1.5) * CHANCE
    assert alarm(losses, steps=20) is not None
    assert alarm(losses, steps=20, is_weighted=True) is None
    losses[200:] = level * CHANCE
    found = alarm(losses, steps=20, is_weighted=True)
    assert (found is not None) is is_found
    assert not is_found or 200 <= found.start < 220, "within an epoch"


def test_losses_that_are_not_finite_count_once_they_stay():
    losses = noisy(decay(300), 0.05, 0)
    losses[100], losses[150:153] = math.inf, math.nan
    assert alarm(losses) is None
    assert alarm(losses[:153]) is None
    losses[300 - FOLLOWING_STEPS :] = math.nan
    found = alarm(losses)
    assert found.start == 300 - FOLLOWING_STEPS
    assert not found.is_finite
    assert alarm(np.full(9, math.nan)).start == 0


def test_positions_count_the_losses_that_are_passed_over():
    losses = spiked(noisy(decay(), 0.05, 0), SPIKE_AT, height=8, length=30)
    losses[100:104] = math.nan
    assert alarm(losses).start == SPIKE_AT


@pytest.mark.parametrize("losses", [[], [1.0], np.ones(50), -np.ones(50), np.zeros(50)])
def test_too_little_flat_and_negative_losses_raise_none(losses):
    assert alarm(losses) is None


@pytest.mark.parametrize("chance_loss", [0.0, -1.0, math.nan])
def test_without_a_chance_loss_there_is_none(chance_loss):
    assert alarm(spiked(np.ones(300), 100), chance_loss=chance_loss) is None


def test_levels():
    level = end_level(np.array([5.0, *[CHANCE / 2] * 9, math.nan]), chance_loss=CHANCE, steps_per_epoch=10)
    assert level == pytest.approx(math.log(0.501))
    assert math.isinf(end_level(np.array([math.nan]), chance_loss=CHANCE, steps_per_epoch=10))
    assert is_at_chance(math.log(0.99))
    assert not is_at_chance(math.log(0.97))
    assert is_better(-1.0, -0.7)
    assert not is_better(-0.9, -0.7)
    assert is_better(-0.01, 0.0)


@pytest.mark.parametrize(("loss", "is_alone"), [(1.9, False), (2.1, True), (math.inf, True)])
def test_a_batch_stands_out_alone(loss, is_alone):
    losses = np.ones(40)
    losses[20] = loss
    assert stands_out(losses, 20) is is_alone
    assert stands_out(losses, 21) is is_alone


def test_the_first_of_many_raised_batches_is_not_alone():
    losses = np.ones(40)
    losses[20:] = 9.0
    assert not stands_out(losses, 20)
