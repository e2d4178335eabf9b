from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stability.zoo_traces import build, faults, healthy
from tuner.data import choices
from tuner.records import DataSpec, Finding, Remedy, Trace
from tuner.stability.causes import CAUSES, FACT_WORDS
from tuner.stability.detectors import ALARM_SEVERITY, detect
from tuner.stability.diagnosis import diagnose
from tuner.stability.remedies import Change, apply_remedies, change_configuration, parse_change

# The design asks for these; the even seeds were looked at when the weights were set, the odd ones are reported.
TOP_1_FRAC, TOP_2_FRAC = 0.6, 0.8
HELD_OUT_SEEDS = (1, 3, 5)
# Every row of the table of causes in the design.
CODES = {
    "learning_rate_too_high", "learning_rate_too_low", "exploding_gradient", "vanishing_gradient", "over_fitting",
    "over_regularised", "no_scaling", "outliers", "missing_values", "skew", "class_imbalance", "wrong_labels",
    "train_validation_mismatch", "too_deep", "too_small", "batch_too_small", "numerics",
}  # fmt: skip


def finding(code: str, *, severity: float = 0.5, confidence: float = 1.0, **evidence: float) -> Finding:
    return Finding(code, "", severity, confidence, evidence, "")


def quiet_trace() -> Trace:
    """A trace that adds no facts of its own: noisy enough not to be smooth."""
    rng = np.random.default_rng(0)
    return build(0.5 * np.exp(rng.normal(0, 0.25, 400)), steps=20, chance=1.0, rng=rng)


def causes(*findings: Finding, **context) -> dict[str, Finding]:
    return {cause.code: cause for cause in diagnose(findings, trace=quiet_trace(), **context)}


def diagnosed(fault, seed: int) -> tuple[Finding, ...]:
    trace = fault.make(seed)
    return diagnose(
        detect(trace).findings,
        trace=trace,
        hyperparameters=fault.context.get("hyperparameters"),
        data_findings=[finding(code, confidence=0.9) for code in fault.context.get("data_findings", ())],
        model_findings=[finding(code, confidence=0.9) for code in fault.context.get("model_findings", ())],
    )


def test_the_right_cause_comes_first_or_second_on_the_held_out_half_of_the_zoo():
    answers = [
        (fault.causes[0], [cause.code for cause in diagnosed(fault, seed)])
        for fault in faults()
        for seed in HELD_OUT_SEEDS
    ]
    confusion = collections.Counter((right, told[0] if told else "none") for right, told in answers)
    assert np.mean([told[:1] == [right] for right, told in answers]) >= TOP_1_FRAC, confusion
    assert np.mean([right in told[:2] for right, told in answers]) >= TOP_2_FRAC, confusion


def test_every_row_of_the_design_is_a_cause_and_every_cause_is_in_the_zoo():
    assert {cause.code for cause in CAUSES} == CODES
    assert {fault.causes[0] for fault in faults()} == CODES


def test_healthy_traces_have_no_cause_worth_an_alarm():
    flagged = 0
    for seed in range(60):
        trace = healthy(seed)
        told = diagnose(detect(trace).findings, trace=trace)
        flagged += any(cause.severity > ALARM_SEVERITY for cause in told)
    assert flagged <= 3


def test_without_findings_nothing_is_explained_whatever_the_data_and_settings_are():
    assert (
        diagnose(
            (),
            trace=quiet_trace(),
            hyperparameters={"learning_rate": 10.0},
            data_findings=[finding("outliers"), finding("class_imbalance")],
        )
        == ()
    )


def test_supporting_facts_say_nothing_without_a_symptom_of_their_cause():
    told = causes(finding("over_fitting"), data_findings=[finding("outliers"), finding("missing_values")])
    assert "outliers" not in told
    assert "missing_values" not in told


# --- known answers -------------------------------------------------------------------------------------------------


def test_confidence_is_a_noisy_or_of_the_evidence():
    told = causes(finding("oscillation"), finding("step_too_large", confidence=0.5))
    assert told["learning_rate_too_high"].confidence == pytest.approx(1 - 0.3 * (1 - 0.7 * 0.5), abs=1e-3)
    assert told["learning_rate_too_high"].evidence == {"oscillation": 0.7, "step_too_large": 0.35}


def test_support_counts_in_full_beside_a_strong_symptom_and_in_part_beside_a_weak_one():
    strong = causes(finding("oscillation"), hyperparameters={"learning_rate": 10.0})
    assert strong["learning_rate_too_high"].confidence == pytest.approx(1 - 0.3 * 0.4, abs=1e-3)
    weak = causes(finding("not_learning"), hyperparameters={"learning_rate": 10.0})
    assert weak["learning_rate_too_high"].confidence == pytest.approx(1 - 0.8 * (1 - 0.6 * 0.2 / 0.25), abs=1e-3)


def test_what_speaks_against_takes_its_share_and_is_told():
    told = causes(finding("oscillation"), hyperparameters={"learning_rate": 1e-7})["learning_rate_too_high"]
    assert told.confidence == pytest.approx(0.7 * 0.3, abs=1e-3)
    assert told.evidence["low_rate"] == pytest.approx(-0.7)


def test_a_cause_is_as_severe_as_its_worst_symptom_and_faults_come_before_what_is_good_to_know():
    told = diagnose(
        (finding("same_order", severity=0.25), finding("oscillation", severity=0.4, confidence=0.5)),
        trace=quiet_trace(),
    )
    assert [(cause.code, cause.severity) for cause in told] == [
        ("learning_rate_too_high", 0.4),
        ("batch_too_small", 0.25),
    ]
    assert told[1].confidence > told[0].confidence


@pytest.mark.parametrize(("confidence", "is_told"), [(0.2, False), (0.23, True)])
def test_weak_causes_are_not_told(confidence, is_told):
    assert ("learning_rate_too_high" in causes(finding("oscillation", confidence=confidence))) is is_told


def test_the_sentence_names_the_evidence():
    told = causes(finding("oscillation"), hyperparameters={"learning_rate": 1.0})["learning_rate_too_high"]
    assert told.cause == (
        "The learning rate is probably too high: the loss swings up and down; "
        "the learning rate is high for its optimizer."
    )


def test_every_fact_has_words():
    tables = [table for cause in CAUSES for table in (cause.symptoms, cause.support, cause.against)]
    names = {name for table in tables for name in table if not name.startswith("model:")}
    assert names - set(FACT_WORDS) <= {"data:label_errors"}
    weights = [weight for table in tables for weight in table.values()]
    assert all(0 < weight <= 0.9 for weight in weights)


@pytest.mark.parametrize(
    ("code", "evidence", "fact"),
    [
        ("loss_spike", {"num_spikes": 1.0}, "single_spike"),
        ("loss_spike", {"num_spikes": 2.0}, "recurring_spikes"),
        ("divergence", {"is_finite": 1.0, "is_recovered": 0.0}, "unrecovered"),
        ("divergence", {"is_finite": 1.0, "is_recovered": 1.0}, "single_spike"),
        ("divergence", {"is_finite": 0.0}, "nan"),
    ],
)
def test_the_numbers_of_a_finding_tell_causes_apart(code, evidence, fact):
    assert fact in causes(finding(code, **evidence))["learning_rate_too_high"].evidence


def test_a_gradient_that_jumps_before_the_loss_speaks_for_the_rate_and_alone_does_not():
    assert "learning_rate_too_high" in causes(finding("gradient_spike", num_before_loss_spike=2.0))
    assert "learning_rate_too_high" not in causes(finding("gradient_spike", num_before_loss_spike=0.0))


@pytest.mark.parametrize(("rise", "right"), [(1.5, "numerics"), (3.0, "learning_rate_too_high")])
def test_a_loss_that_rose_before_it_was_lost_ran_away(rise, right):
    loss = np.full(400, 0.5) * np.exp(np.random.default_rng(1).normal(0, 0.05, 400))
    loss[197:200] *= rise
    loss[200:] = np.nan
    trace = build(loss, steps=20, chance=1.0, rng=np.random.default_rng(1))
    assert diagnose(detect(trace).findings, trace=trace)[0].code == right


@pytest.mark.parametrize(
    ("hyperparameters", "code", "fact", "is_there"),
    [
        ({"learning_rate": 2e-3}, "learning_rate_too_high", "high_rate", False),
        ({"learning_rate": 0.02}, "learning_rate_too_high", "high_rate", True),
        ({"learning_rate": 0.02, "optimizer": "sgd"}, "learning_rate_too_high", "high_rate", False),
        ({"learning_rate": 0.4, "optimizer": "sgd"}, "learning_rate_too_high", "high_rate", True),
        ({"clip_norm": 0.0}, "learning_rate_too_high", "no_clipping", True),
        ({"clip_norm": 1.0}, "learning_rate_too_high", "no_clipping", False),
        ({"batch_size": 31}, "batch_too_small", "small_batch", True),
        ({"batch_size": 32}, "batch_too_small", "small_batch", False),
        ({"num_blocks": 6}, "too_deep", "deep", False),
        ({"num_layers": 7}, "too_deep", "deep", True),
        ({"l2": 0.0009}, "over_regularised", "strong_regularisation", False),
        ({"l2": 0.0012}, "over_regularised", "strong_regularisation", True),
        ({"l1": 0.9e-4}, "over_regularised", "strong_regularisation", False),
        ({"l1": 1.2e-4}, "over_regularised", "strong_regularisation", True),
        ({"l2": 0.01, "use_l2": False}, "over_regularised", "strong_regularisation", False),
        ({"dropout": 0.4}, "over_regularised", "strong_regularisation", False),
        ({"dropout": 0.45}, "over_regularised", "strong_regularisation", True),
        ({"precision": "mixed_float16"}, "numerics", "float16", True),
        ({"precision": "float32"}, "numerics", "float16", False),
    ],
)
def test_hyperparameters_are_evidence_on_the_right_side_of_usual(hyperparameters, code, fact, is_there):
    symptoms = ("oscillation", "same_order", "vanishing_gradient", "regularisation_dominates", "sudden_nan")
    told = causes(*map(finding, symptoms), hyperparameters=hyperparameters)
    assert (fact in told[code].evidence) is is_there


@pytest.mark.parametrize(
    ("hyperparameters", "is_told"),
    [
        ({"use_l1": False, "use_l2": False, "dropout": 0.16}, False),
        ({"dropout": 0.4, "l2": 0.0009}, False),
        ({"dropout": 0.48}, True),
        ({"dropout": 0.16, "l2": 0.0012}, True),
        # Nothing is known of it.
        ({"learning_rate": 1e-3}, True),
    ],
)
def test_where_no_regularisation_is_strong_it_does_not_keep_the_network_from_learning(hyperparameters, is_told):
    told = causes(finding("not_learning"), hyperparameters=hyperparameters)
    assert ("over_regularised" in told) is is_told
    measured = causes(finding("regularisation_dominates"), hyperparameters=hyperparameters)["over_regularised"]
    assert "no_strong_regularisation" not in measured.evidence


@pytest.mark.parametrize(
    ("hyperparameters", "weakened"),
    [
        ({"l1": 6e-4, "l2": 1e-6, "dropout": 0.2}, {"l1"}),
        ({"l1": 0.9e-4, "l2": 1e-6, "dropout": 0.2}, {"l1", "l2", "dropout"}),
        ({"l1": 6e-4, "l2": 0.002, "dropout": 0.0}, {"l1", "l2"}),
        ({"l2": 1e-6, "dropout": 0.5}, {"dropout"}),
        ({}, {"l1", "l2", "dropout"}),
    ],
)
def test_the_regulariser_that_is_strong_is_the_one_to_weaken(hyperparameters, weakened):
    told = causes(finding("regularisation_dominates"), hyperparameters=hyperparameters)["over_regularised"]
    assert {remedy.parameter for remedy in told.remedies} == weakened


@pytest.mark.parametrize(
    ("hyperparameters", "is_there"),
    [
        ({"learning_rate": 4e-4}, False),
        ({"learning_rate": 2e-4}, True),
        ({"learning_rate": 4e-3, "optimizer": "SGD"}, False),
        ({"learning_rate": 2e-3, "optimizer": "SGD"}, True),
    ],
)
def test_a_low_rate_is_one_below_what_is_usual_for_its_optimizer(hyperparameters, is_there):
    told = causes(finding("too_slow"), hyperparameters=hyperparameters)["learning_rate_too_low"]
    assert ("low_rate" in told.evidence) is is_there


def test_strange_hyperparameters_are_ignored():
    strange = {"learning_rate": "fast", "optimizer": None, "num_blocks": True, "batch_size": -3, "l2": math.nan}
    assert causes(finding("oscillation"), hyperparameters=strange)["learning_rate_too_high"].confidence == 0.7


@pytest.mark.parametrize(("factor", "is_there"), [(0.55, True), (0.65, False)])
def test_a_validation_loss_far_below_the_training_loss_is_a_hint(factor, is_there):
    rng = np.random.default_rng(2)
    trace = build(np.full(400, 0.5), steps=20, chance=1.0, rng=rng, validation=np.full(20, 0.5 * factor))
    told = {
        cause.code: cause
        for cause in diagnose([finding("plateau")], trace=trace, data_findings=[finding("leaking_copies")])
    }
    assert ("train_validation_mismatch" in told) is is_there


def told_of(trace: Trace, *symptoms: str, **context) -> dict[str, Finding]:
    return {cause.code: cause for cause in diagnose([finding(code) for code in symptoms], trace=trace, **context)}


def epochs_of(train, validation=()) -> Trace:
    """A log of epochs, chance level 1."""
    train = np.asarray(train, dtype=float)
    return Trace(
        step_loss=np.empty(0),
        grad_norm=np.empty(0),
        train_loss=train,
        validation_loss=np.asarray(validation, dtype=float),
        learning_rate=np.empty(0),
        seconds=np.empty(0),
        steps_per_epoch=1,
        planned_epochs=len(train),
        chance_loss=1.0,
    )


@pytest.mark.parametrize(("noise", "is_there"), [(0.10, True), (0.20, False)])
def test_a_smooth_loss_that_still_falls_speaks_for_a_low_rate(noise, is_there):
    rng = np.random.default_rng(3)
    trace = build(0.5 * np.exp(rng.normal(0, noise, 400)), steps=20, chance=1.0, rng=rng)
    assert ("smooth" in told_of(trace, "too_slow")["learning_rate_too_low"].evidence) is is_there


@pytest.mark.parametrize(
    ("factor", "noise", "is_there"), [(1.1, 0.0, False), (1.35, 0.0, True), (1.35, 0.3, False), (4.0, 0.3, True)]
)
def test_a_rise_of_the_first_steps_speaks_for_a_high_rate_if_it_stands_out_of_the_noise(factor, noise, is_there):
    rng = np.random.default_rng(4)
    loss = np.concatenate([[1.0], np.full(6, factor), np.full(393, 0.5)])
    loss[1:] *= np.exp(rng.normal(0, noise, 399))
    told = told_of(build(loss, steps=20, chance=1.0, rng=rng), "oscillation")
    assert ("early_rise" in told["learning_rate_too_high"].evidence) is is_there


@pytest.mark.parametrize(
    ("ratios", "is_there"),
    [([-2.1] * 20, False), ([-1.8] * 20, True), ([-3, -3, -1.8] + [-3] * 17, True), ([-3] * 3 + [-1.8] * 17, False)],
)
def test_large_changes_of_the_weights_in_the_first_epochs_speak_for_a_high_rate(ratios, is_there):
    trace = dataclasses.replace(quiet_trace(), channels={"update_ratio": np.array(ratios, dtype=float)})
    told = told_of(trace, "oscillation")["learning_rate_too_high"].evidence
    assert ("large_first_steps" in told) is is_there


@pytest.mark.parametrize(("ratio", "is_there"), [(0.12, False), (0.08, True)])
def test_a_first_layer_with_a_small_gradient_speaks_for_vanishing_ones(ratio, is_there):
    trace = dataclasses.replace(quiet_trace(), channels={"layer_grad_ratio": np.full(20, ratio)})
    told = told_of(trace, "dead_units")["vanishing_gradient"].evidence
    assert ("weak_first_layer" in told) is is_there


@pytest.mark.parametrize(
    ("best", "gap", "end", "is_there"),
    [
        (0.78, 0.05, 0.2, True),
        (0.72, 0.05, 0.2, False),
        (0.78, 0.10, 0.2, True),
        (0.78, 0.14, 0.2, False),
        (0.78, 0.05, 0.50, True),
        (0.78, 0.05, 0.56, False),
    ],
)
def test_labels_learned_by_heart_have_their_best_validation_near_chance(best, gap, end, is_there):
    """Best validation loss of 1 at chance, the training loss of that epoch, and that of the last."""
    train = [1.0, best - gap, *np.linspace(best - gap, end, 9)[1:]]
    validation = [1.0, best, *np.linspace(best, 1.5, 9)[1:]]
    told = told_of(epochs_of(train, validation), "validation_never_learns")["wrong_labels"].evidence
    assert ("memorising" in told) is is_there


@pytest.mark.parametrize(("share", "weaker"), [(0.015, "skew"), (0.025, "outliers")])
def test_many_values_far_outside_are_a_long_tail_and_few_are_outliers(share, weaker):
    data = [finding("skew"), finding("outliers", outlier_frac=share)]
    told = told_of(quiet_trace(), "outlier_batch", data_findings=data)
    strong = {"skew": "outliers", "outliers": "skew"}[weaker]
    # Support of 0.6 at full strength; what is left of the other explanation is 0.4 of it.
    assert told[weaker].evidence[f"data:{weaker}"] == pytest.approx(0.6 * 0.4)
    assert told[strong].evidence[f"data:{strong}"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("train", "fact", "is_there"),
    [
        ([1.0, 1.15, 1.17, 1.15, 1.17, 1.15], "far_above_chance", False),
        ([1.0, 1.25, 1.27, 1.25, 1.27, 1.25], "far_above_chance", True),
        ([9.0, 4.0, 2.0, 1.8, 1.6, 1.4], "far_above_chance", False),
        ([9.0, 4.0, 2.0, 2.0, 1.93, 1.93], "far_above_chance", True),
        ([3.0], "far_above_chance", False),
        ([3.0, 3.0], "far_above_chance", True),
        ([9.0, 3.0, 3.05, 3.0, 3.05, 3.0, 3.05, 3.0], "restless_above_chance", True),
        ([9.0, 3.0, 3.01, 3.0, 3.01, 3.0, 3.01, 3.0], "restless_above_chance", False),
        ([9.0, 1.15, 1.18, 1.15, 1.18, 1.15, 1.18], "restless_above_chance", False),
        ([9.0, 3.0, 4.0], "restless_above_chance", False),
        ([5.1, 1.1, 1.0, 1.0, 1.0], "exploded_start", True),
        ([4.9, 1.1, 1.0, 1.0, 1.0], "exploded_start", False),
        ([50.0, 9.0, 1.25, 1.25, 1.25], "exploded_start", False),
        ([50.0, 9.0, 0.8, 0.8, 0.8], "exploded_start", False),
    ],
)
def test_a_loss_that_ends_above_chance_stays_there_or_jumps_about(train, fact, is_there):
    told = told_of(epochs_of(train), "not_learning", "oscillation")["learning_rate_too_high"].evidence
    assert (fact in told) is is_there


@pytest.mark.parametrize(("rise", "is_there"), [(1.9, False), (2.1, True)])
def test_a_log_of_epochs_shows_a_loss_that_ran_away(rise, is_there):
    trace = epochs_of([1.0, 0.8, 0.5, 0.5, 0.5 * rise, math.nan])
    told = {cause.code: cause for cause in diagnose([finding("divergence", is_finite=0.0)], trace=trace)}
    assert ("runaway" in told["learning_rate_too_high"].evidence) is is_there


@pytest.mark.parametrize("losses", [[278, 46, 53, 42, 41, 55, 41, 41, 59, 51, 37, 54], [30.0] * 12, [40.0, 40.0, 40.0]])
def test_a_loss_that_was_thrown_far_above_chance_is_no_sign_of_a_low_rate(losses):
    """The first: epochs of a digits net at rate 30 (a chance loss of 2.3)."""
    trace = epochs_of(np.array(losses) / 2.3)
    told = [cause.code for cause in diagnose(detect(trace).findings, trace=trace)]
    assert told[0] == "learning_rate_too_high"
    assert "learning_rate_too_low" not in told


@pytest.mark.parametrize(
    ("losses", "is_creeping"),
    [
        (np.linspace(10.4, 9.5, 8), True),
        # Too few epochs, too many of them up, too large a fall in all: it may have been thrown there.
        (np.linspace(10.4, 9.5, 7), False),
        ([10.4, 10.3, 10.4, 10.2, 10.1, 10.0, 9.9, 10.0, 9.8, 9.7], False),
        (np.geomspace(20.2, 10.0, 8), False),
        (np.geomspace(19.8, 10.0, 8), True),
    ],
)
def test_a_loss_that_creeps_down_from_where_it_began_is_of_a_rate_too_low(losses, is_creeping):
    """The first: a digits net on pixels of 0 to 16 at a rate of 1e-5 (a chance loss of 2.3)."""
    trace = epochs_of(np.array(losses) / 2.3)
    told = diagnose(detect(trace).findings, trace=trace)
    assert (told[0].code == "learning_rate_too_low") is is_creeping
    assert any("creeping_above_chance" in cause.evidence for cause in told) is is_creeping


def test_a_loss_that_stays_at_chance_may_be_of_a_rate_too_low():
    trace = epochs_of(np.full(12, 1.0))
    assert "learning_rate_too_low" in {cause.code for cause in diagnose(detect(trace).findings, trace=trace)}


@settings(max_examples=60, deadline=None)
@given(
    found=st.lists(
        st.tuples(
            st.sampled_from(
                sorted({name for cause in CAUSES for name in cause.symptoms} | {"loss_spike", "unheard_of"})
            ),
            st.floats(0, 1),
            st.floats(0, 1),
        ),
        max_size=8,
    ),
    hyperparameters=st.dictionaries(
        st.sampled_from(["learning_rate", "optimizer", "l2", "dropout", "num_blocks", "batch_size", "clip_norm"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    ),
)
def test_any_evidence_gives_causes_in_order_with_bounded_numbers(found, hyperparameters):
    findings = [finding(code, severity=severity, confidence=confidence) for code, severity, confidence in found]
    told = diagnose(findings, trace=quiet_trace(), hyperparameters=hyperparameters)
    for cause in told:
        assert cause.code in CODES
        assert 0.0 <= cause.severity <= 1.0
        assert 0.0 < cause.confidence <= 1.0
    keys = [(cause.severity <= ALARM_SEVERITY, -cause.confidence) for cause in told]
    assert keys == sorted(keys)


# --- remedies ------------------------------------------------------------------------------------------------------


def test_every_remedy_can_be_applied_or_is_advice():
    for cause in CAUSES:
        assert cause.remedies
        for remedy in cause.remedies:
            is_advice = parse_change(remedy.change) is None
            assert is_advice is (remedy.parameter in ("data", "model") or remedy.change.startswith("stop at")), remedy
            assert remedy.reason.endswith(".")


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("x 0.3", Change("scale", 0.3, is_relative=True)),
        ("= adam", Change("set", "adam")),
        ("= true", Change("set", True)),
        ("= 1", Change("set", 1)),
        ("= 1e-3", Change("set", 1e-3)),
        ("upper <= x 0.5", Change("upper", 0.5, is_relative=True)),
        ("upper <= 0.5", Change("upper", 0.5)),
        ("lower >= x 2", Change("lower", 2.0, is_relative=True)),
        ("lower >= 0.2", Change("lower", 0.2)),
        ("clip", None),
        ("x", None),
        ("x fast", None),
        ("lower >= ", None),
        ("x 0.3 to 0.5", None),
        ("", None),
    ],
)
def test_changes_are_parsed(text, change):
    assert parse_change(text) == change


RANGES = {"learning_rate": (1e-4, 0.1), "dropout": (0.0, 0.5), "num_blocks": (1, 4)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("upper <= x 0.5", (1e-4, 0.02)),
        ("lower >= x 0.5", (0.02, 0.1)),
        ("upper <= 0.03", (1e-4, 0.03)),
        ("lower >= 0.03", (0.03, 0.1)),
        ("upper <= 1", (1e-4, 0.1)),
        ("lower >= 1e-9", (1e-4, 0.1)),
        ("upper <= 1e-9", (1e-4, 0.1)),
        ("lower >= 3", (1e-4, 0.1)),
        ("x 0.3", (1e-4, 0.1)),
        ("= 0.05", (1e-4, 0.1)),
        ("less, please", (1e-4, 0.1)),
    ],
)
def test_ranges_are_narrowed_by_bounds_only_and_never_to_nothing(change, expected):
    narrowed = apply_remedies(RANGES, {"learning_rate": 0.04}, [Remedy("learning_rate", change, "")])
    assert narrowed["learning_rate"] == pytest.approx(expected)
    assert narrowed["dropout"] == RANGES["dropout"]


@pytest.mark.parametrize(
    "current", [{}, {"learning_rate": "fast"}, {"learning_rate": True}, {"learning_rate": math.inf}]
)
def test_a_multiple_of_what_is_no_number_is_not_applied(current):
    assert apply_remedies(RANGES, current, [Remedy("learning_rate", "upper <= x 0.5", "")]) == RANGES


@pytest.mark.parametrize("bad", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_ranges_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match=r"finite and low <= high: dropout=\("):
        apply_remedies({"dropout": bad}, {}, [])


@settings(max_examples=100)
@given(
    low=st.floats(1e-6, 1.0),
    width=st.floats(0.0, 10.0),
    current=st.floats(1e-9, 100.0),
    changes=st.lists(st.sampled_from(["upper <= x 0.5", "lower >= x 2", "upper <= 0.2", "lower >= 0.2", "x 3"])),
)
def test_a_narrowed_range_lies_inside_and_is_never_empty(low, width, current, changes):
    remedies = [Remedy("rate", change, "") for change in changes]
    narrowed = apply_remedies({"rate": (low, low + width)}, {"rate": current}, remedies)["rate"]
    assert low <= narrowed[0] <= narrowed[1] <= low + width


def test_a_configuration_is_changed_by_factors_and_values():
    current = {"learning_rate": 0.1, "num_blocks": 3, "clip_norm": 0.0, "batch_norm": False, "optimizer": "sgd"}
    remedies = [
        Remedy("learning_rate", "x 0.3", ""),
        Remedy("learning_rate", "upper <= x 0.5", ""),
        Remedy("num_blocks", "x 0.1", ""),
        Remedy("clip_norm", "= 1", ""),
        Remedy("batch_norm", "= true", ""),
        Remedy("optimizer", "= adam", ""),
        Remedy("optimizer", "x 2", ""),
        Remedy("dropout", "= 0.2", ""),
        Remedy("data", "look at it", ""),
    ]
    changed = change_configuration(current, remedies)
    assert changed == {
        "learning_rate": pytest.approx(0.03),
        "num_blocks": 1,
        "clip_norm": 1,
        "batch_norm": True,
        "optimizer": "adam",
    }
    assert current["learning_rate"] == 0.1


def test_remedies_that_are_in_force_or_cannot_apply_are_left_out():
    told = causes(
        finding("oscillation"),
        hyperparameters={"learning_rate": 0.1, "clip_norm": 1, "schedule": "cosine", "warmup_frac": 0.0},
    )
    names = {(remedy.parameter, remedy.change) for remedy in told["learning_rate_too_high"].remedies}
    assert ("learning_rate", "x 0.3") in names
    assert ("warmup_frac", "lower >= 0.05") in names
    assert not {("clip_norm", "= 1"), ("schedule", "= cosine")} & names
    held_back = causes(finding("regularisation_dominates"), hyperparameters={"l2": 0.01, "dropout": 0.0})
    parameters = {remedy.parameter for remedy in held_back["over_regularised"].remedies}
    assert parameters == {"l2"}
    assert ("dropout", "lower >= 0.2") in {
        (remedy.parameter, remedy.change)
        for remedy in causes(finding("over_fitting"), hyperparameters={"dropout": 0.0})["over_fitting"].remedies
    }


def test_the_diagnosis_of_a_hot_rate_narrows_the_search():
    told = causes(finding("oscillation"), hyperparameters={"learning_rate": 0.08})["learning_rate_too_high"]
    assert apply_remedies(RANGES, {"learning_rate": 0.08}, told.remedies)["learning_rate"] == pytest.approx(
        (1e-4, 0.04)
    )


KINDS = {
    "image": DataSpec("npz", "image", "classification", (8, 8, 1), ("a", "b")),
    "series": DataSpec("table", "series", "classification", (8,), ("a", "b")),
    "text": DataSpec("text_table", "text", "classification", (), ("a", "b")),
    "audio": DataSpec("audio_folder", "audio", "classification", (800,), ("a", "b"), sample_rate_hz=8000),
}


def test_remedies_set_what_the_preprocessing_offers() -> None:
    offered: dict[str, set[str]] = {}
    for spec in KINDS.values():
        for choice in choices.offered(spec, has_missing=True, imbalance=10.0):
            offered.setdefault(choice.name, set()).update(choice.values)
    changes = [(remedy.parameter, parse_change(remedy.change)) for cause in CAUSES for remedy in cause.remedies]
    told = {(name, change.value) for name, change in changes if change and change.kind == "set" and name in offered}
    assert {name for name, _ in told} >= {"skew", "outliers", "imputer", "scaler", "balance"}
    assert [(name, value) for name, value in told if value not in offered[name]] == []
