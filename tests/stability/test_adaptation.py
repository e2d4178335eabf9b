"""Which ranges the causes of finished trials narrow, and which not."""

from __future__ import annotations

import math
import operator
import random

import pytest

from tuner.records import AdaptationStep, Finding, Narrowing, Outcome, Remedy, SeedRun, TrialRecord
from tuner.stability.adaptation import (
    AGREEING_FRAC,
    BEST_FRAC,
    BLAMED_CONFIDENCE,
    KEPT_FRAC,
    MIN_AGREEING,
    Evidence,
    SearchRange,
    adaptation_lines,
    narrowed_ranges,
)
from tuner.stability.causes import CAUSES
from tuner.stability.detectors import ALARM_SEVERITY
from tuner.stability.explanation import top_cause
from tuner.stability.score import failed_score

RATE = {"learning_rate": SearchRange(1e-4, 10.0, is_log=True)}


def narrowings(trials, ranges):
    evidence = Evidence(ranges)
    evidence.add(trials)
    return evidence.narrowings()


def cause(code="learning_rate_too_high", *, confidence=0.8, severity=0.9, remedies=None):
    known = next((each for each in CAUSES if each.code == code), None)
    return Finding(code, "", severity, confidence, {}, "", (), known.remedies if remedies is None else remedies)


def trial(number, value, *, name="learning_rate", causes=(), outcome=Outcome.COMPLETED, objective=-1.0, stability=0.9):
    score = failed_score(0.0)
    score = type(score)(stability, *[getattr(score, field) for field in list(vars(score))[1:]])
    run = SeedRun(number, 0, 0, outcome, objective, 0.1, score, {}, 4, 10, 1, 1.0, causes=tuple(causes))
    return TrialRecord(number, outcome, {name: value, "optimizer": "adam"}, objective, (run,))


def diverged(number, value, *, name="learning_rate", **options):
    causes = [cause(**options)]
    return trial(number, value, name=name, causes=causes, outcome=Outcome.DIVERGED, objective=4.0, stability=-0.5)


GOOD = [trial(0, 1e-3), trial(1, 1e-2, objective=-2.0)]
BAD = [diverged(2, 4.0), diverged(3, 2.0), diverged(4, 1.0)]


def test_what_enough_trials_agree_on_bounds_the_range():
    (found,) = narrowings(GOOD + BAD, RATE)
    assert found == Narrowing(
        "learning_rate", "upper", 0.5, whole=(1e-4, 10.0), cause="learning_rate_too_high", trials=(2, 3, 4)
    )
    assert narrowed_ranges(RATE, [found]) == {"learning_rate": (1e-4, 0.5)}


def test_one_trial_fewer_changes_nothing():
    assert MIN_AGREEING == 3
    assert narrowings(GOOD + BAD[:2], RATE) == ()
    assert narrowings([], RATE) == ()


def test_the_order_of_the_trials_does_not_matter():
    assert narrowings(list(reversed(GOOD + BAD)), RATE) == narrowings(GOOD + BAD, RATE)


@pytest.mark.parametrize(("num_fine", "is_narrowed"), [(1, True), (2, False)])
def test_trials_beyond_the_bound_that_do_not_blame_it_speak_against_it(num_fine, is_narrowed):
    assert AGREEING_FRAC == 0.75
    fine = [trial(number, 1.5, objective=-0.1) for number in range(10, 10 + num_fine)]
    # Enough better ones that these are not protected as the best.
    good = [trial(number, 1e-3) for number in range(20, 30)]
    assert bool(narrowings(good + BAD + fine, RATE)) is is_narrowed


def test_later_evidence_takes_a_bound_back():
    narrow = narrowings(GOOD + BAD, RATE)
    assert narrow
    assert narrowings([*GOOD, *BAD, trial(5, 3.0, objective=-3.0)], RATE) == ()


def test_the_best_trial_is_never_excluded_even_if_its_own_cause_asks_for_it():
    shaky = trial(5, 3.0, causes=[cause()], stability=0.3, objective=-3.0)
    (found,) = narrowings([*GOOD, *BAD, diverged(6, 8.0), diverged(7, 9.0), diverged(8, 7.0), shaky], RATE)
    assert found.bound >= 3.0


def test_a_third_of_the_range_always_stays():
    low = [diverged(number, value) for number, value in enumerate((2e-4, 1.0, 2.0, 5.0))]
    (found,) = narrowings(low, RATE)
    assert found.bound == pytest.approx(1e-4 * (1e5) ** KEPT_FRAC)


def test_two_bounds_leave_a_third_between_them():
    ranges = {"x": SearchRange(0.0, 9.0)}
    both = [
        Narrowing("x", "upper", 5.0, (0.0, 9.0), "a", (1,)),
        Narrowing("x", "lower", 4.0, (0.0, 9.0), "b", (2,)),
    ]
    assert narrowed_ranges(ranges, both)["x"] == pytest.approx((2.0, 5.0))


def test_whole_numbers_stay_whole():
    ranges = {"num_blocks": SearchRange(1, 8, is_whole=True)}
    deep = [
        trial(number, value, name="num_blocks", causes=[cause("exploding_gradient")], outcome=Outcome.DIVERGED)
        for number, value in enumerate((7, 7, 8))
    ]
    (found,) = narrowings(deep, ranges)
    assert found.bound == 6.0  # three quarters of 7 is 5.25


def test_absolute_bounds_exclude_what_lies_below_them():
    ranges = {"dropout": SearchRange(0.0, 0.5)}
    fitted = [
        trial(number, value, name="dropout", causes=[cause("over_fitting")], stability=0.5)
        for number, value in enumerate((0.0, 0.1, 0.15))
    ]
    good = [trial(number, 0.3, name="dropout", objective=-3.0) for number in range(5, 9)]
    (found,) = narrowings([*fitted, *good], ranges)
    assert (found.side, found.bound) == ("lower", 0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": BLAMED_CONFIDENCE - 0.01},
        {"severity": ALARM_SEVERITY},
        {"remedies": (Remedy("data", "look at it", ""), Remedy("learning_rate", "x 0.3", ""))},
        {"remedies": (Remedy("learning_rate", "upper <= x 0.000001", ""),)},
    ],
    ids=["not sure", "no fault", "no bound", "a bound outside"],
)
def test_what_blames_nothing(changes):
    weak = [diverged(number, value, **changes) for number, value in ((2, 4.0), (3, 2.0), (4, 1.0))]
    assert narrowings(GOOD + weak, RATE) == ()


def test_stable_trials_blame_nothing():
    calm = [trial(number, value, causes=[cause()], objective=0.0) for number, value in ((2, 4.0), (3, 2.0), (4, 1.0))]
    assert narrowings(GOOD + calm, RATE) == ()


def test_trials_without_a_training_to_explain_do_not_count():
    others = [
        TrialRecord(9, Outcome.RUNNING, {"learning_rate": 5.0}),
        TrialRecord(10, Outcome.CRASHED, {"learning_rate": 5.0}, 5.0),
        trial(11, 5.0, outcome=Outcome.ERROR, objective=5.0),
    ]
    assert narrowings(GOOD + BAD + others, RATE) == narrowings(GOOD + BAD, RATE)


def test_evidence_grows_trial_by_trial_and_counts_none_twice():
    evidence, trials = Evidence(RATE), [*BAD, *GOOD]
    for count in range(1, len(trials) + 1):
        evidence.add(trials[:count])
        assert evidence.narrowings() == narrowings(trials[:count], RATE)
    assert evidence.narrowings() != ()


@pytest.mark.parametrize("name", ["learning_rate", "depth"])
def test_what_is_agreed_on_is_what_comparing_every_trial_with_every_bound_finds(name):
    """Three hundred made-up studies; a reference that goes by the words of the rule."""
    is_lower = name == "depth"
    ranges = {name: SearchRange(1e-4, 10.0, is_log=True)}
    remedy = (Remedy(name, "lower >= x 2" if is_lower else "upper <= x 0.5", ""),)
    num_found = 0
    for seed in range(300):
        rng = random.Random(seed)
        edge = rng.uniform(-3, 0.5)
        trials = []
        for number in range(rng.randrange(3, 40)):
            exponent = rng.uniform(-4, 1)
            is_lost = (exponent < edge if is_lower else exponent > edge) is (rng.random() < 0.93)
            make = diverged if is_lost else trial
            options = {"remedies": remedy} if is_lost else {"objective": rng.uniform(-3, 0)}
            trials.append(make(number, 10**exponent, name=name, **options))
        found = narrowings(trials, ranges)
        assert [(each.bound, each.trials) for each in found] == reference(trials, name, is_lower=is_lower)
        num_found += len(found)
    assert 30 < num_found < 270


def reference(trials, name, *, is_lower):
    whole, beyond = SearchRange(1e-4, 10.0, is_log=True), operator.lt if is_lower else operator.gt
    value = {each.number: each.hyperparameters[name] for each in trials}
    lost = [each for each in trials if each.outcome is Outcome.DIVERGED]
    fine = sorted((each for each in trials if each not in lost), key=lambda each: each.objective)
    best = [value[each.number] for each in fine[: math.ceil(BEST_FRAC * len(fine))]]
    limit = whole.at(1 - KEPT_FRAC if is_lower else KEPT_FRAC)
    outward = min if is_lower else max
    # A bound outside of the range is none.
    asked = {each.number: value[each.number] * (2 if is_lower else 0.5) for each in lost}
    asked = {number: bound for number, bound in asked.items() if whole.low <= bound <= whole.high}
    bounds = {outward(bound, limit) for bound in asked.values()}
    for bound in sorted(bounds, reverse=is_lower):
        there = [number for number in value if beyond(value[number], bound)]
        blaming = [number for number in asked if beyond(value[number], bound)]
        enough = len(blaming) >= max(MIN_AGREEING, AGREEING_FRAC * len(there))
        if enough and not any(beyond(each, bound) for each in best):
            return [(bound, tuple(blaming))]
    return []


def test_inactive_and_unknown_parameters_are_left_alone():
    assert narrowings(GOOD + BAD, {}) == ()
    assert narrowings(GOOD + BAD, {"l2": SearchRange(1e-6, 1e-2, is_log=True)}) == ()
    words = [diverged(number, True) for number in (2, 3, 4)]
    assert narrowings(words, RATE) == ()


def test_top_cause_is_of_the_training_that_the_search_chose_by():
    assert top_cause(BAD[0]).code == "learning_rate_too_high"
    assert top_cause(GOOD[0]) is None
    assert top_cause(TrialRecord(1, Outcome.CRASHED, {})) is None


def test_sentences_say_what_changed_and_why():
    (found,) = narrowings(GOOD + BAD, RATE)
    step = AdaptationStep(5, (found,))
    assert adaptation_lines(step) == [
        "from trial 5 on learning_rate is searched only up to 0.5 (the range is 0.0001 to 10): trials 2, 3 and 4 were "
        "unstable beyond that, most likely because of: learning rate too high"
    ]
    assert adaptation_lines(step, step) == []
    assert adaptation_lines(AdaptationStep(9, ()), step) == [
        "from trial 9 on learning_rate is searched up to 10 again: later trials speak against the narrower range"
    ]


def test_a_range_knows_its_scale():
    log, linear = SearchRange(1.0, 100.0, is_log=True), SearchRange(0.0, 10.0)
    assert log.at(0.5) == pytest.approx(10.0)
    assert log.frac(10.0) == pytest.approx(0.5)
    assert (linear.at(0.5), linear.frac(5.0)) == (5.0, 0.5)
    assert math.isclose(log.at(log.frac(3.0)), 3.0)
