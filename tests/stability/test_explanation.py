"""Causes of trials in a few words, as sure as they are."""

from __future__ import annotations

import pytest

from tuner.records import Finding, Outcome, Remedy, SeedRun, TrialRecord
from tuner.stability.explanation import PROBABLE_CONFIDENCE, explained, frequent_causes
from tuner.stability.score import failed_score

REMEDY = Remedy("learning_rate", "x 0.3", "")


def trial(
    number: int, confidence: float, *, code: str = "learning_rate_too_high", severity: float = 0.9
) -> TrialRecord:
    cause = Finding(code, "", severity, confidence, {}, "", (), (REMEDY,))
    run = SeedRun(
        number, 0, 0, Outcome.DIVERGED, 4.0, None, failed_score(0.1), {}, 4, 10, 1, 1.0, causes=(cause,)
    )  # fmt: skip
    return TrialRecord(number, Outcome.DIVERGED, {"learning_rate": 0.1}, 4.0, (run,))


@pytest.mark.parametrize(("confidence", "word"), [(PROBABLE_CONFIDENCE, "probably"), (0.49, "perhaps")])
def test_a_cause_is_told_as_sure_as_it_is(confidence: float, word: str) -> None:
    told = f"{word} learning rate too high; try learning_rate 0.03 instead of 0.1"
    assert explained(trial(0, confidence)) == told


def test_causes_are_grouped_the_most_frequent_first_and_as_sure_as_their_trials_in_the_mean() -> None:
    trials = [trial(3, 0.2), trial(1, 0.7), trial(2, 0.8, code="no_scaling"), trial(0, 0.9, severity=0.1)]
    assert frequent_causes(trials) == [
        ("perhaps", "learning rate too high", [1, 3]),
        ("probably", "no scaling", [2]),
    ]
    assert frequent_causes([*trials, trial(4, 0.9)])[0] == ("probably", "learning rate too high", [1, 3, 4])
