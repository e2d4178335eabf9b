"""When a sweep has diverged, and what follows: on synthetic losses, both sides of each limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.records import RateSweep, StabilityMargin
from tuner.stability.margin import (
    DIVERGED_BEST_FRAC,
    DIVERGED_CHANCE_FRAC,
    DIVERGED_NOISE_STDS,
    HIGHEST_RATE,
    LOWEST_RATE,
    MAX_PENALTY_NATS,
    NUM_STEPS,
    RATE_LIMITS,
    SMALL_MARGIN,
    SMOOTHING_STEPS,
    diverging_rate,
    penalty,
    rate_range,
    sweep_rates,
)

NO_GRADIENT = np.empty(0)
# Steps from the first high loss until most of a smoothing window is high.
DELAY = SMOOTHING_STEPS // 2


def rate(losses, *, grad_norm=NO_GRADIENT, chance_loss=1.0):
    return diverging_rate(np.asarray(losses, dtype=float), grad_norm=grad_norm, chance_loss=chance_loss)


def rising(*, at, best, height, steps=NUM_STEPS):
    return np.where(np.arange(steps) < at, best, best + height)


def noisy(*, std, falls, seed):
    steps = np.arange(NUM_STEPS)
    level = 3 * np.exp(-np.clip(steps - 40, 0, 60) / 20) + 0.02 if falls else np.full(NUM_STEPS, 3.0)
    return level * np.exp(std * np.random.default_rng(seed).normal(size=NUM_STEPS))


def sweep(*rates):
    return RateSweep(rates, HIGHEST_RATE, 1.0)


def test_the_sweep_goes_from_its_lowest_to_its_highest_rate_in_equal_factors():
    rates = sweep_rates()
    assert len(rates) == NUM_STEPS
    assert (rates[0], rates[-1]) == pytest.approx((LOWEST_RATE, HIGHEST_RATE))
    np.testing.assert_allclose(rates[1:] / rates[:-1], (HIGHEST_RATE / LOWEST_RATE) ** (1 / (NUM_STEPS - 1)))


def test_a_loss_that_jumps_is_found_as_soon_as_most_of_a_window_is_high():
    assert rate(rising(at=100, best=0.1, height=5)) == pytest.approx(sweep_rates()[100 + DELAY])


def test_a_loss_that_only_falls_never_diverges():
    assert rate(np.geomspace(3, 0.01, NUM_STEPS)) is None


@pytest.mark.parametrize(("share", "has_diverged"), [(0.98, False), (1.02, True)])
def test_a_rise_of_half_the_chance_loss_counts_where_the_best_is_low(share, has_diverged):
    losses = rising(at=100, best=0.01, height=share * DIVERGED_CHANCE_FRAC * 2.0)
    assert (rate(losses, chance_loss=2.0) is not None) is has_diverged


@pytest.mark.parametrize(("share", "has_diverged"), [(0.98, False), (1.02, True)])
def test_a_rise_of_half_the_best_counts_where_the_best_is_high(share, has_diverged):
    assert (rate(rising(at=100, best=8.0, height=share * DIVERGED_BEST_FRAC * 8.0)) is not None) is has_diverged


@pytest.mark.parametrize(("share", "has_diverged"), [(0.9, False), (1.15, True)])
def test_a_rise_counts_from_four_deviations_of_a_step_on(share, has_diverged):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=NUM_STEPS)
    # The last window is without noise, so that its median is known.
    best = min(np.median(noise[step - SMOOTHING_STEPS : step]) for step in range(SMOOTHING_STEPS, 101))
    std = 1.4826 * np.median(np.abs(np.diff(noise[:100]))) / math.sqrt(2)
    losses = np.where(np.arange(NUM_STEPS) < 100, noise, best + share * DIVERGED_NOISE_STDS * std) + 3.0
    assert (rate(losses[: 100 + SMOOTHING_STEPS], chance_loss=0.1) is not None) is has_diverged


@pytest.mark.parametrize(
    ("num_high", "has_diverged"), [(SMOOTHING_STEPS // 2, False), (SMOOTHING_STEPS // 2 + 1, True)]
)
def test_a_few_odd_batches_are_no_divergence(num_high, has_diverged):
    losses = np.full(NUM_STEPS, 1.0)
    losses[80 : 80 + num_high] = 50.0
    assert (rate(losses) is not None) is has_diverged


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_loss_or_gradient_that_is_no_number_ends_it(bad):
    losses, gradients = np.ones(NUM_STEPS), np.ones(NUM_STEPS)
    losses[120] = bad
    assert rate(losses) == pytest.approx(sweep_rates()[120])
    gradients[90] = bad
    assert rate(losses, grad_norm=gradients) == pytest.approx(sweep_rates()[90])
    assert rate([bad]) == pytest.approx(LOWEST_RATE)


def test_what_comes_after_the_last_step_of_the_sweep_is_ignored():
    assert rate(rising(at=NUM_STEPS, best=1.0, height=np.inf, steps=NUM_STEPS + 50)) is None


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 900.0], np.zeros(NUM_STEPS), -np.ones(NUM_STEPS)])
def test_short_and_constant_sweeps_have_not_diverged(losses):
    assert rate(losses) is None


@pytest.mark.parametrize(("std", "falls", "allowed_frac"), [(0.3, False, 0.02), (0.3, True, 0.02), (0.5, False, 0.04)])
def test_noise_alone_rarely_diverges(std, falls, allowed_frac):
    found = [rate(noisy(std=std, falls=falls, seed=seed)) is not None for seed in range(200)]
    assert np.mean(found) <= allowed_frac


def test_a_real_divergence_is_found_in_any_noise():
    jump = np.where(np.arange(NUM_STEPS) < 100, 1, 30)
    found = np.array([rate(noisy(std=0.5, falls=False, seed=seed) * jump) for seed in range(100)])
    assert np.mean((found > sweep_rates()[98]) & (found < sweep_rates()[110])) >= 0.95


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=200), st.floats(0, 1e9))
def test_any_losses_have_a_rate_of_the_sweep_or_none(losses, chance_loss):
    found = rate(losses, chance_loss=chance_loss)
    assert found is None or LOWEST_RATE <= found <= HIGHEST_RATE * 1.001


@given(st.floats(1e-3, 1e3))
def test_the_unit_of_the_loss_does_not_matter(unit):
    losses = noisy(std=0.2, falls=True, seed=1) * np.where(np.arange(NUM_STEPS) < 110, 1, 30)
    assert rate(losses * unit, chance_loss=unit) == rate(losses)


def test_margin_is_the_geometric_mean_of_the_seeds_over_the_peak_rate():
    margin = StabilityMargin(sweep(0.1, 0.4), peak_rate=0.01)
    assert margin.ratio == pytest.approx(20)
    assert (margin.text, margin.sweep.is_bound) == ("x20", False)


def test_a_configuration_that_a_seed_did_not_break_has_a_lower_bound():
    margin = StabilityMargin(sweep(None, None), peak_rate=0.1)
    assert (margin.ratio, margin.text) == (pytest.approx(300), "above x300")
    assert StabilityMargin(sweep(0.3, None), peak_rate=0.1).sweep.is_bound


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (SMALL_MARGIN * 1.01, 0.0),
        (math.inf, 0.0),
        (SMALL_MARGIN / math.e, 1.0),
        (1.0, MAX_PENALTY_NATS),
        (0.01, MAX_PENALTY_NATS),
        (0.0, MAX_PENALTY_NATS),
        (None, MAX_PENALTY_NATS),
    ],
)
def test_penalty_is_bounded_and_grows_below_the_line(margin, expected):
    assert penalty(margin) == pytest.approx(expected)


def test_rate_range_goes_down_from_a_tenth_of_the_median_diverging_rate():
    assert rate_range([sweep(0.2, 0.2), sweep(0.9, 0.4), sweep(None, None)]) == (6e-5, 0.06)


def test_rate_range_stays_within_limits():
    low, high = rate_range([sweep(3e-6, 3e-6)])
    assert RATE_LIMITS[0] <= low < high
    low, high = rate_range([sweep(None, None)])
    assert low < high <= RATE_LIMITS[1]
