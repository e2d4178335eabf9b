from __future__ import annotations

import math

import pytest

from tuner.records import Outcome, TrialRecord
from tuner.stability.baseline import baseline_sentence


def trial(number, objective, outcome=Outcome.COMPLETED, *, is_baseline=False):
    return TrialRecord(number, outcome, {}, objective, is_baseline=is_baseline)


def test_there_may_be_no_baseline_or_an_unfinished_one():
    assert baseline_sentence([]) == baseline_sentence([trial(0, -1.0)]) == ""
    assert baseline_sentence([trial(0, -1.0), trial(1, None, Outcome.RUNNING, is_baseline=True)]) == ""


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        (
            trial(1, -1.0, is_baseline=True),
            "the best trial, 2, is better by 0.693 in the objective, as good as 50%",
        ),
        (trial(1, -3.0, is_baseline=True), "nothing better was found."),
        (trial(1, 9.0, Outcome.DIVERGED, is_baseline=True), "it failed. Loss or gradient became NaN"),
        (trial(1, 0.0, Outcome.PRUNED, is_baseline=True), "the best trial, 2, is better by 1.693"),
    ],
)
def test_what_the_search_gained(baseline, told):
    trials = [trial(0, -0.5), baseline, trial(2, -1.0 - math.log(2))]
    assert baseline_sentence(trials).startswith(f"Your baseline is trial 1: {told}")
