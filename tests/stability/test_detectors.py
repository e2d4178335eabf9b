from __future__ import annotations

import collections
import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.stability.zoo_traces import CURVES, NOISE_SHAPES, build, faults, healthy, prefix
from tuner.records import Trace
from tuner.stability import probes, spikes, trends, waves
from tuner.stability.detectors import ALARM_SEVERITY, DETECTORS, Detection, detect, verdict
from tuner.stability.signals import MEDIAN_NOISE_FACTOR, RATE_RISE_FACTOR, read_signals, running_median

HEALTHY_SEEDS = range(210)
FAULT_SEEDS = range(4)
RECORDED = Path(__file__).parent / "recorded"
STEPS, EPOCHS = 20, 20


def codes(trace: Trace) -> dict[str, float]:
    """Severity of each finding."""
    return {finding.code: finding.severity for finding in detect(trace).findings}


def plain(loss, *, steps: int = STEPS, chance: float = 1.0, **fields) -> Trace:
    """A trace of these relative losses without any noise."""
    return build(np.asarray(loss, dtype=float), steps=steps, chance=chance, rng=np.random.default_rng(0), **fields)


def level(value: float, *, count: int = STEPS * EPOCHS):
    return np.full(count, value)


def epochs_only(validation=(), train=(), *, planned: int = 0, chance: float = 1.0, **fields) -> Trace:
    empty = np.empty(0)
    return Trace(
        step_loss=empty,
        grad_norm=empty,
        train_loss=np.asarray(train, dtype=float),
        validation_loss=np.asarray(validation, dtype=float),
        learning_rate=empty,
        seconds=empty,
        steps_per_epoch=0,
        planned_epochs=planned or max(len(validation), len(train)),
        chance_loss=chance,
        **fields,
    )


def stops_at(trace: Trace) -> tuple[int, str] | None:
    """First epoch after which the verdict stops, and its code."""
    for epoch in range(1, trace.num_epochs + 1):
        found = verdict(prefix(trace, epoch))
        if found.should_stop:
            return epoch, found.code
    return None


# --- few false alarms ----------------------------------------------------------------------------------------------


def test_the_healthy_traces_are_of_all_kinds():
    made = [healthy(seed) for seed in HEALTHY_SEEDS]
    assert len(HEALTHY_SEEDS) >= 200
    assert {seed % len(CURVES) for seed in HEALTHY_SEEDS} == set(range(len(CURVES)))
    assert len({(seed // len(CURVES)) % len(NOISE_SHAPES) for seed in HEALTHY_SEEDS}) == len(NOISE_SHAPES)
    assert {trace.num_epochs for trace in made} >= {5, 50}
    assert len({trace.steps_per_epoch for trace in made}) >= 4


def test_at_most_five_percent_of_healthy_traces_are_flagged():
    flagged = {seed: found for seed in HEALTHY_SEEDS if (found := [f.code for f in detect(healthy(seed)).alarms])}
    assert len(flagged) <= 0.05 * len(HEALTHY_SEEDS), flagged


def test_no_prefix_of_a_healthy_trace_is_stopped():
    # The longest ones have thousands of prefixes: the short ones at every epoch, of the long ones a fifth of them.
    for seed in HEALTHY_SEEDS:
        trace = healthy(seed)
        stride = 1 if trace.num_epochs <= 12 else 5
        for epochs in range(trace.num_epochs, 0, -stride):
            found = verdict(prefix(trace, epochs))
            assert not found.should_stop, (seed, epochs, found)


# --- many true ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_a_fault_is_found(fault):
    found = [fault.symptom in codes(fault.make(seed)) for seed in FAULT_SEEDS]
    assert np.mean(found) >= 0.75


def test_of_all_faults_at_least_nine_in_ten_are_found():
    found = [fault.symptom in codes(fault.make(seed)) for fault in faults() for seed in range(10, 13)]
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("fault", [fault for fault in faults() if fault.stops], ids=lambda fault: fault.name)
def test_a_certain_outcome_is_stopped_and_not_much_later_than_it_is_certain(fault):
    for seed in FAULT_SEEDS:
        trace = fault.make(seed)
        stopped = stops_at(trace)
        assert stopped is not None
        assert stopped[1] == fault.stops
        assert stopped[0] <= max(0.95 * trace.num_epochs, trace.num_epochs - 1)


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.npz")), ids=lambda file: file.stem)
def test_recorded_trainings_are_judged_right(file):
    from tuner.store import read_trace

    trace = read_trace(file)
    expected = file.stem.split("_")[0]
    alarms = [finding.code for finding in detect(trace).alarms]
    stopped = stops_at(trace)
    if expected == "healthy":
        assert alarms == []
        assert stopped is None
    elif expected == "flat":
        assert "not_learning" in alarms
        assert stopped is not None
        assert stopped[1] == "not_learning"
    else:
        assert alarms
        assert "not_learning" not in alarms


def test_public_curves_few_healthy_ones_flagged_and_never_learners_found(shared_data):
    # 175 configurations of a CNN, validation error of 40 epochs: only what a curve of epochs can show.
    table = collections.Counter()
    with (shared_data / "curves" / "cifar10_cnn_learning_curves.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            error = np.array([float(row[f"err_{epoch:02d}"]) for epoch in range(1, 41)])
            kind = "never" if error[-1] > 0.85 else "jump" if np.diff(error).max() > 0.1 else "healthy"
            kind = "end" if kind == "healthy" and error[-1] > error.min() + 0.05 else kind
            trace = epochs_only(error, chance=0.9)
            table[kind, bool(detect(trace).alarms)] += 1
            for epochs in (5, 12, 20, 40):
                table[kind, "stop"] += verdict(prefix(trace, epochs)).should_stop
    assert table["healthy", True] <= 0.02 * (table["healthy", True] + table["healthy", False])
    assert table["healthy", "stop"] == table["jump", "stop"] == table["end", "stop"] == 0
    assert (table["never", True], table["never", False]) == (14, 0)
    # One jump from 0.25 to 0.35 and ends that are within the jitter of their curve are not told.
    assert table["jump", True] >= 6


# --- known answers, both sides of each threshold --------------------------------------------------------------------


def test_a_clean_trace_has_no_findings_and_a_verdict_to_go_on():
    trace = plain(0.2 + 0.8 * np.exp(-np.arange(400) / 50))
    found = detect(trace)
    assert isinstance(found, Detection)
    assert found.findings == ()
    assert verdict(trace).code == "go_on"


@pytest.mark.parametrize(("factor", "is_found"), [(1.23, False), (1.27, True)])
def test_a_single_batch_stands_out_from_a_quarter_on(factor, is_found):
    loss = level(0.5)
    loss[200] *= factor
    found = codes(plain(loss))
    assert ("outlier_batch" in found) is is_found
    assert "loss_spike" not in found
    assert found.get("outlier_batch", 0.0) < ALARM_SEVERITY


@pytest.mark.parametrize(("offset", "is_found"), [(-0.3, False), (0.3, True)])
def test_a_single_batch_stands_out_from_six_standard_deviations_on(offset, is_found):
    trace = noisy_level()
    signals = read_signals(trace)
    at = 200
    trace.step_loss[at] = loss_of(signals.smooth[at - 1] + (spikes.SUDDEN_SIGMAS + offset) * signals.noise[at - 1])
    told = [place for finding in detect(trace).findings for place in finding.examples]
    assert ("epoch 11, step 1" in told) is is_found


@pytest.mark.parametrize(("following", "code"), [(1.05, "outlier_batch"), (1.15, "loss_spike")])
def test_it_is_a_spike_when_the_next_five_steps_are_still_raised(following, code):
    loss = level(0.5)
    loss[200] *= 3
    loss[201:206] *= following
    assert set(codes(plain(loss))) - {"plateau"} == {code}


@pytest.mark.parametrize(("offset", "is_found"), [(-0.3, False), (0.3, True)])
def test_five_raised_steps_are_a_spike_though_no_single_one_stands_out(offset, is_found):
    trace = noisy_level()
    signals = read_signals(trace)
    at = 200
    error = MEDIAN_NOISE_FACTOR * signals.noise[at - 1] * math.sqrt(1 / 5 + 1 / signals.window)
    rise = (spikes.BROAD_ERRORS + offset) * error
    assert math.log(1.25) < rise < spikes.SUDDEN_SIGMAS * signals.noise[at - 1]
    trace.step_loss[at : at + 5] = loss_of(signals.smooth[at - 1] + rise)
    assert ("loss_spike" in codes(trace)) is is_found


@pytest.mark.parametrize(("peak", "is_alarm"), [(0.045, False), (0.06, True)])
def test_a_spike_far_below_chance_is_no_alarm(peak, is_alarm):
    loss = level(0.005)
    loss[200:210] = peak
    severity = codes(plain(loss))["loss_spike"]
    assert (severity > ALARM_SEVERITY) is is_alarm


@pytest.mark.parametrize("epoch", [1, 10])
def test_findings_say_where_counting_from_one(epoch):
    loss = level(0.5)
    loss[epoch * STEPS + 4 : epoch * STEPS + 14] *= 4
    (finding,) = [finding for finding in detect(plain(loss)).findings if finding.code == "loss_spike"]
    assert finding.where == f"epoch {epoch + 1}, step 5"


@pytest.mark.parametrize(("factor", "is_found"), [(RATE_RISE_FACTOR - 0.02, True), (RATE_RISE_FACTOR + 0.02, False)])
def test_a_rise_of_the_loss_where_the_schedule_raises_the_rate_is_no_fault(factor, is_found):
    loss = level(0.3)
    loss[200:] = 0.8
    rate = np.where(np.arange(EPOCHS) < 10, 1e-3, 1e-3 * factor)
    assert bool(detect(plain(loss, rate=rate, validation=level(0.8, count=EPOCHS))).alarms) is is_found


@pytest.mark.parametrize(
    ("rise", "leading", "severity"), [(9.5, False, 0.0), (10.5, False, 0.15), (2.9, True, 0.0), (3.1, True, 0.4)]
)
def test_a_gradient_spike_is_told_and_an_alarm_only_before_a_loss_spike(rise, leading, severity):
    loss, norms = level(0.5), np.ones(STEPS * EPOCHS)
    norms[200] = rise
    if leading:
        loss[201:211] *= 4
    assert codes(plain(loss, grad_norm=norms)).get("gradient_spike", 0.0) == pytest.approx(severity)


@pytest.mark.parametrize(("factor", "is_found"), [(1.9, False), (2.1, True)])
def test_twice_the_best_loss_is_divergence(factor, is_found):
    loss = level(0.3)
    loss[200:] *= factor
    assert (codes(plain(loss)).get("divergence", 0.0) > 0.9) is is_found
    assert (stops_at(plain(loss)) is not None) is is_found


@pytest.mark.parametrize(("end", "is_found"), [(0.095, False), (0.11, True)])
def test_far_below_chance_nothing_diverges(end, is_found):
    loss = level(0.03)
    loss[200:] = end
    assert ("divergence" in codes(plain(loss))) is is_found


@pytest.mark.parametrize(("best", "end", "is_found"), [(0.7, 0.96, False), (0.7, 0.99, True), (0.82, 0.99, False)])
def test_back_at_chance_is_divergence_though_it_is_less_than_twice_the_best(best, end, is_found):
    loss = level(best)
    loss[200:] = end
    assert ("divergence" in codes(plain(loss))) is is_found


def test_a_loss_that_came_back_is_no_reason_to_stop_and_one_on_its_way_back_neither():
    loss = level(0.3)
    loss[200:320] = 0.9
    assert not verdict(plain(loss)).should_stop
    falling = np.concatenate((level(0.3, count=200), 0.9 * np.exp(-np.arange(50) / 60)))
    assert not verdict(plain(falling[:240], planned=EPOCHS)).should_stop


@pytest.mark.parametrize("field", ["step_loss", "grad_norm"])
def test_nan_is_divergence_and_certain(field):
    trace = plain(level(0.5))
    getattr(trace, field)[210] = np.nan
    (finding,) = [finding for finding in detect(trace).findings if finding.code == "divergence"]
    assert (finding.where, finding.severity) == ("epoch 11, step 11", 1.0)
    assert verdict(trace).code == "divergence"


def test_a_huge_start_that_is_still_falling_is_not_stopped():
    loss = 1e8 * np.exp(-np.arange(400) / 40)
    assert not verdict(prefix(plain(loss), 2)).should_stop


@pytest.mark.parametrize(("value", "is_found"), [(0.97, False), (0.99, True)])
def test_a_loss_at_chance_has_not_learned(value, is_found):
    assert ("not_learning" in codes(plain(level(value)))) is is_found
    assert verdict(plain(level(value))).should_stop is is_found


@pytest.mark.parametrize(("epochs", "planned", "stops"), [(2, 4, False), (3, 4, True), (5, 20, False), (6, 20, True)])
def test_not_learning_is_certain_after_three_epochs_and_thirty_percent(epochs, planned, stops):
    assert verdict(plain(level(1.0, count=STEPS * epochs), planned=planned)).should_stop is stops


def test_a_loss_above_chance_that_falls_fast_enough_is_not_stopped():
    loss = np.linspace(2.0, 1.2, STEPS * 8)
    assert not verdict(plain(loss, planned=20)).should_stop
    assert verdict(plain(loss, planned=8)).should_stop


def test_a_rate_that_still_warms_up_is_waited_for():
    rate = np.linspace(1e-4, 1e-3, 8)
    assert not verdict(plain(level(1.0, count=STEPS * 8), rate=rate, planned=20)).should_stop


@pytest.mark.parametrize(("power", "is_found"), [(0.8, False), (1.4, True)])
def test_a_loss_that_falls_as_fast_as_ever_at_the_end_is_too_slow(power, is_found):
    loss = 1 - 0.4 * np.linspace(0, 1, STEPS * EPOCHS) ** power
    assert ("too_slow" in codes(plain(loss))) is is_found
    assert "too_slow" not in codes(plain(loss, planned=2 * EPOCHS))


@pytest.mark.parametrize(("factor", "is_found"), [(2.5, True), (3.5, False)])
def test_a_drop_of_the_rate_makes_a_fall_of_its_own(factor, is_found):
    loss = 1 - 0.4 * np.linspace(0, 1, STEPS * EPOCHS) ** 1.4
    rate = np.where(np.arange(EPOCHS) < 17, 1e-3, 1e-3 / factor)
    assert ("too_slow" in codes(plain(loss, rate=rate))) is is_found


@pytest.mark.parametrize(("amplitude", "is_found"), [(0.04, False), (0.065, True)])
@pytest.mark.parametrize("period", [2, 6.5, 14])
def test_a_wave_of_more_than_five_percent_is_an_oscillation(period, amplitude, is_found):
    rng = np.random.default_rng(1)
    wave = amplitude * np.cos(2 * np.pi * np.arange(1000) / period)
    loss = 0.5 * np.exp(wave + rng.normal(0, 0.01, 1000))
    assert ("oscillation" in codes(plain(loss, steps=50))) is is_found


@pytest.mark.parametrize(("swing", "is_found"), [(1.09, False), (1.15, True)])
def test_up_and_down_from_epoch_to_epoch_is_an_oscillation(swing, is_found):
    losses = 0.4 * np.where(np.arange(30) % 2, swing, 1.0)
    assert ("oscillation" in codes(epochs_only(losses, losses))) is is_found


def test_independent_noise_from_epoch_to_epoch_is_none():
    rng = np.random.default_rng(2)
    flagged = [
        "oscillation" in codes(epochs_only(curve, curve)) for curve in 0.4 * np.exp(rng.normal(0, 0.1, (200, 30)))
    ]
    assert np.mean(flagged) <= 0.02


@pytest.mark.parametrize(("share", "is_found"), [(0.3, False), (0.9, True)])
def test_noise_that_repeats_in_every_epoch_means_the_same_order(share, is_found):
    rng = np.random.default_rng(3)
    fixed = np.tile(rng.normal(0, 1, 50), 12)
    noise = share * fixed + math.sqrt(1 - share**2) * rng.normal(0, 1, 600)
    found = codes(plain(0.5 * np.exp(0.2 * noise), steps=50))
    assert ("same_order" in found) is is_found
    assert "oscillation" not in found


def rising(rise: float, *, epochs: int, since: int):
    validation = np.full(epochs, 0.5)
    validation[since:] *= 1 + rise
    return validation


@pytest.mark.parametrize(("rise", "is_found"), [(0.040, False), (0.055, True)])
def test_a_validation_loss_that_stays_five_percent_up_is_over_fitting(rise, is_found):
    validation = rising(rise, epochs=40, since=15)
    trace = plain(np.linspace(0.5, 0.2, 40 * STEPS), validation=validation)
    assert ("over_fitting" in codes(trace)) is is_found
    assert verdict(trace).should_stop is is_found


@pytest.mark.parametrize(
    ("epochs", "since", "stops"), [(40, 29, False), (40, 28, True), (20, 17, False), (20, 16, True), (21, 16, False)]
)
def test_over_fitting_needs_ten_epochs_running_and_three_in_short_trainings(epochs, since, stops):
    # The median of five (three) is up from the third (second) raised epoch on.
    trace = plain(np.linspace(0.5, 0.2, epochs * STEPS), validation=rising(0.2, epochs=epochs, since=since))
    assert verdict(trace).should_stop is stops


@pytest.mark.parametrize(("scale", "stops"), [(0.15, False), (0.3, True)])
def test_over_fitting_far_below_chance_is_no_reason_to_stop(scale, stops):
    validation = scale * rising(0.2, epochs=40, since=15)
    trace = plain(scale * np.linspace(0.5, 0.2, 40 * STEPS), validation=validation)
    assert verdict(trace).should_stop is stops
    assert (codes(trace)["over_fitting"] > ALARM_SEVERITY) is stops


def test_when_the_training_loss_rises_too_it_is_no_over_fitting():
    trace = plain(np.linspace(0.4, 0.5, 40 * STEPS), validation=rising(0.2, epochs=40, since=15))
    found = codes(trace)
    assert "over_fitting" not in found
    assert "getting_worse" in found


def test_jitter_of_the_validation_loss_is_no_over_fitting():
    rng = np.random.default_rng(4)
    for _ in range(50):
        validation = 0.5 * np.exp(rng.normal(0, 0.15, 40))
        assert not verdict(plain(np.linspace(0.5, 0.2, 40 * STEPS), validation=validation)).should_stop


@pytest.mark.parametrize(("factor", "is_found"), [(1.3, False), (1.4, True)])
def test_a_validation_loss_that_jumps_is_told(factor, is_found):
    losses = np.full(20, 0.4)
    losses[10] *= factor
    assert ("validation_spike" in codes(epochs_only(losses))) is is_found


@pytest.mark.parametrize(("peak", "is_found"), [(0.095, False), (0.11, True)])
def test_a_validation_loss_that_jumps_far_below_chance_is_not(peak, is_found):
    losses = np.full(20, 0.04)
    losses[10] = peak
    assert ("validation_spike" in codes(epochs_only(losses))) is is_found


@pytest.mark.parametrize(("value", "is_found"), [(0.28, False), (0.32, True), (0.97, True), (0.985, False)])
def test_a_plateau_is_high_and_flat(value, is_found):
    assert ("plateau" in codes(plain(level(value), validation=level(value, count=EPOCHS)))) is is_found


@pytest.mark.parametrize(("gap", "is_found"), [(1.08, True), (1.12, False)])
def test_a_plateau_has_no_gap(gap, is_found):
    assert ("plateau" in codes(plain(level(0.5), validation=level(0.5 * gap, count=EPOCHS)))) is is_found


@pytest.mark.parametrize(("fall", "is_found"), [(0.03, True), (0.12, False)])
def test_a_plateau_does_not_fall(fall, is_found):
    losses = 0.5 * np.exp(-fall * np.linspace(0, 1, EPOCHS))
    assert ("plateau" in codes(plain(np.repeat(losses, STEPS), validation=losses))) is is_found


@pytest.mark.parametrize(("frac", "is_found"), [(0.28, False), (0.45, True)])
def test_noisy_batches_are_good_to_know(frac, is_found):
    rng = np.random.default_rng(5)
    found = codes(plain(0.5 * np.exp(rng.normal(0, frac, 2000)), steps=100))
    assert ("noisy_batches" in found) is is_found
    assert found.get("noisy_batches", 0.0) <= ALARM_SEVERITY


@pytest.mark.parametrize(
    ("train", "validation", "is_found"),
    [(0.5, 0.88, False), (0.5, 0.92, True), (0.58, 0.92, True), (0.62, 0.92, False)],
)
def test_a_validation_loss_that_never_left_chance_is_told(train, validation, is_found):
    trace = plain(level(train), validation=level(validation, count=EPOCHS))
    assert ("validation_never_learns" in codes(trace)) is is_found


@pytest.mark.parametrize(("value", "is_found"), [(9.9, False), (10.1, True)])
def test_a_huge_first_loss_is_told(value, is_found):
    loss = level(0.5)
    loss[:10] = value
    assert ("huge_first_loss" in codes(plain(loss))) is is_found


@pytest.mark.parametrize(
    ("channel", "quiet", "found", "code"),
    [
        ("update_ratio", probes.LARGE_UPDATE_LOG10 - 0.05, probes.LARGE_UPDATE_LOG10 + 0.05, "step_too_large"),
        ("update_ratio", probes.SMALL_UPDATE_LOG10 + 0.05, probes.SMALL_UPDATE_LOG10 - 0.05, "step_too_small"),
        ("layer_grad_ratio", probes.VANISHING_RATIO * 1.1, probes.VANISHING_RATIO * 0.9, "vanishing_gradient"),
        ("layer_grad_ratio", probes.EXPLODING_RATIO * 0.9, probes.EXPLODING_RATIO * 1.1, "exploding_gradient"),
        ("zero_frac", probes.ZERO_FRAC - 0.01, probes.ZERO_FRAC, "dead_units"),
        ("dead_frac", probes.DEAD_FRAC, probes.DEAD_FRAC + 0.01, "dead_units"),
        ("class_recall_min", probes.RECALL_MIN, probes.RECALL_NONE, "class_ignored"),
        ("input_mean", probes.INPUT_MEAN, probes.INPUT_MEAN + 0.1, "unscaled_input"),
        ("input_mean", -probes.INPUT_MEAN, -probes.INPUT_MEAN - 0.1, "unscaled_input"),
        ("input_std", probes.INPUT_STD_FACTOR, probes.INPUT_STD_FACTOR * 1.1, "unscaled_input"),
        ("input_std", 1.01 / probes.INPUT_STD_FACTOR, 0.9 / probes.INPUT_STD_FACTOR, "unscaled_input"),
        (
            "regularisation_frac",
            probes.REGULARISATION_FRAC,
            probes.REGULARISATION_FRAC + 0.01,
            "regularisation_dominates",
        ),
    ],
)
def test_probe_channels_are_judged_on_both_sides_and_not_assessed_without(channel, quiet, found, code):
    def probed(value):
        return plain(level(0.5), channels={channel: np.full(EPOCHS, value)})

    assert code not in codes(probed(quiet))
    assert codes(probed(found))[code] > ALARM_SEVERITY
    unknown = detect(probed(np.nan))
    assert code not in {finding.code for finding in unknown.findings}
    if code != "exploding_gradient":
        assert any(reason.startswith(f"{code} (no ") for reason in unknown.not_assessed)


@pytest.mark.parametrize(
    ("recall", "is_told", "is_alarm"),
    [(0.3, False, False), (0.29, True, False), (0.06, True, False), (0.05, True, True)],
)
def test_a_hard_class_is_told_and_one_that_is_never_recognised_is_a_fault(recall, is_told, is_alarm):
    found = codes(plain(level(0.5), channels={"class_recall_min": np.full(EPOCHS, recall)}))
    assert ("class_ignored" in found) is is_told
    assert (found.get("class_ignored", 0) > ALARM_SEVERITY) is is_alarm


@pytest.mark.parametrize(("doublings", "is_found"), [(2, False), (3, True)])
def test_a_gradient_that_doubles_three_epochs_in_a_row_explodes(doublings, is_found):
    growth = 2.1 ** np.clip(np.arange(EPOCHS) - 10, 0, doublings)
    loss = np.repeat(0.5 * 1.05 ** np.clip(np.arange(EPOCHS) - 10, 0, doublings), STEPS)
    assert ("exploding_gradient" in codes(plain(loss, grad_norm=np.repeat(growth, STEPS)))) is is_found


def noisy_level() -> Trace:
    rng = np.random.default_rng(6)
    return plain(0.5 * np.exp(rng.normal(0, 0.12, STEPS * EPOCHS)))


def loss_of(log_loss: float) -> float:
    return math.exp(log_loss) - 1e-3


# --- bad input -----------------------------------------------------------------------------------------------------

ARBITRARY = st.floats(allow_nan=True, allow_infinity=True)
KNOWN_CODES = {
    "outlier_batch", "loss_spike", "gradient_spike", "divergence", "not_learning", "too_slow", "oscillation",
    "same_order", "over_fitting", "getting_worse", "validation_spike", "validation_never_learns", "huge_first_loss",
    "plateau", "noisy_batches", "step_too_large", "step_too_small", "vanishing_gradient", "exploding_gradient",
    "dead_units", "class_ignored", "unscaled_input", "regularisation_dominates",
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    steps=npst.arrays(float, st.integers(0, 300), elements=ARBITRARY),
    norms=npst.arrays(float, st.integers(0, 300), elements=ARBITRARY),
    train=npst.arrays(float, st.integers(0, 30), elements=ARBITRARY),
    validation=npst.arrays(float, st.integers(0, 30), elements=ARBITRARY),
    rate=npst.arrays(float, st.integers(0, 30), elements=ARBITRARY),
    channel=npst.arrays(float, st.integers(0, 10), elements=ARBITRARY),
    per_epoch=st.integers(0, 40),
    planned=st.integers(0, 40),
    chance=ARBITRARY,
)
def test_any_numbers_of_any_lengths_have_a_defined_answer(
    steps, norms, train, validation, rate, channel, per_epoch, planned, chance
):
    names = ("update_ratio", "layer_grad_ratio", "zero_frac", "input_std", "regularisation_frac", "class_recall_min")
    trace = Trace(
        steps, norms, train, validation, rate, rate, per_epoch, planned, chance, channels=dict.fromkeys(names, channel)
    )
    found = detect(trace)
    for finding in found.findings:
        assert finding.code in KNOWN_CODES
        assert 0.0 <= finding.severity <= 1.0
        assert 0.0 <= finding.confidence <= 1.0
        assert all(math.isfinite(value) for value in finding.evidence.values()), finding
    assert [f.severity for f in found.findings] == sorted((f.severity for f in found.findings), reverse=True)
    assert verdict(trace).reason


@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, 1e300, 5e-324, math.nan, math.inf])
def test_constant_losses_have_a_defined_answer(value):
    trace = plain(level(value), chance=1.0)
    found = detect(trace)
    if math.isfinite(value) and value < 1:
        assert found.findings == ()
    else:
        assert verdict(trace).should_stop


def test_an_empty_trace_is_not_assessed_and_goes_on():
    found = detect(epochs_only())
    assert found.findings == ()
    assert len(found.not_assessed) >= len(DETECTORS)
    assert verdict(epochs_only()).reason == "Nothing to judge yet."


def test_negative_losses_are_not_assessed():
    found = detect(plain(-level(0.5)))
    assert any("negative losses have no logarithm" in reason for reason in found.not_assessed)


def test_without_a_chance_loss_the_first_loss_stands_for_it():
    trace = dataclasses.replace(plain(level(4.0)), chance_loss=math.nan)
    assert any("no chance loss" in reason for reason in detect(trace).not_assessed)
    assert verdict(trace).code == "not_learning"


def test_a_missing_validation_loss_is_not_assessed():
    found = detect(dataclasses.replace(plain(level(0.5)), validation_loss=np.empty(0)))
    assert any(reason.startswith("over_fitting (") for reason in found.not_assessed)
    assert any(reason == "validation loss (none recorded)" for reason in found.not_assessed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_loss": np.zeros((2, 2))}, r"step_loss has shape \(2, 2\), expected one dimension"),
        ({"steps_per_epoch": -1}, "steps_per_epoch is -1, expected 0 or more"),
        ({"planned_epochs": -3, "train_loss": np.zeros(())}, "train_loss .* planned_epochs is -3"),
    ],
)
@pytest.mark.parametrize("judge", [detect, verdict])
def test_what_is_no_trace_is_refused(change, message, judge):
    with pytest.raises(ValueError, match=message):
        judge(dataclasses.replace(plain(level(0.5)), **change))


def test_the_running_median_never_looks_ahead():
    values = np.random.default_rng(7).normal(size=60)
    for window in (1, 2, 5, 9, 100):
        past = [np.sort(values[max(0, end - window) : end]) for end in range(1, 61)]
        expected = [seen[len(seen) // 2] for seen in past]
        np.testing.assert_allclose(running_median(values, window), expected)


def test_every_detector_has_a_row_in_the_tests():
    assert {detector.__module__ for detector in DETECTORS} == {m.__name__ for m in (spikes, trends, waves, probes)}
    symptoms = {fault.symptom for fault in faults()}
    told = {detector.__name__ for detector in DETECTORS}
    assert told - symptoms <= {"validation_spike", "step_too_large", "step_too_small"}


@pytest.mark.parametrize(("epochs", "frac"), [(1000, 0.2), (1000, 0.3), (10_000, 0.3), (100_000, 0.2)])
def test_noise_in_a_long_log_is_no_fault(epochs, frac):
    rng = np.random.default_rng(1)
    level_of_epoch = 0.1 + 0.9 * np.exp(-7 * np.arange(epochs) / epochs)
    train, validation = (level_of_epoch * np.exp(rng.normal(0, frac, epochs)) for _ in range(2))
    assert detect(epochs_only(1.2 * validation, train)).alarms == ()


def test_a_long_log_that_diverges_is_found():
    rng = np.random.default_rng(1)
    loss = np.where(np.arange(5000) < 3000, 0.2, 0.9) * np.exp(rng.normal(0, 0.2, 5000))
    assert "divergence" in codes(epochs_only(loss, loss))
