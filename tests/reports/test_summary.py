from __future__ import annotations

import re
from dataclasses import replace

import pytest

from reports import summary
from tests.reports import synthetic
from tuner.records import Outcome, RateSweep, StabilityMargin
from tuner.stability.margin import SMALL_MARGIN
from tuner.stability.ranking import rank

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def test_best_in_words() -> None:
    run = synthetic.run()
    ranked = rank(run.trials)
    text = " ".join(summary.best_sentences(ranked, run.dataset))
    assert f"The best of 30 finished configurations is trial {ranked[0].number}: accuracy 0.97" in text
    assert PLUS_MINUS in text
    assert "270 validation samples" in text
    assert re.search(r"Its stability is (0\.9|1)", text)
    assert "above its own best" in text
    assert "not confirmed on fresh seeds" in text


@pytest.mark.parametrize(("ratio", "is_small"), [(SMALL_MARGIN * 1.01, False), (SMALL_MARGIN * 0.99, True)])
def test_a_margin_is_said_and_a_small_one_warned_of(ratio: float, *, is_small: bool) -> None:
    run = synthetic.run()
    margin = StabilityMargin(RateSweep((0.5, 0.5), 30.0, 1.0), 0.5 / ratio)
    best = replace(rank(run.trials)[0], margin=margin)
    text = " ".join(summary.best_sentences([best], run.dataset))
    assert f"Its stability margin is {margin.text}: a sweep of the learning rate broke it at 0.5." in text
    assert ("another seed may fail" in text) is is_small
    unbroken = replace(best, margin=StabilityMargin(RateSweep((None, 0.5), 30.0, 1.0), 0.001))
    assert "could not break it on every seed" in " ".join(summary.best_sentences([unbroken], run.dataset))


def test_the_parts_that_were_not_assessed_are_named() -> None:
    run = synthetic.run(("clean", "clean"), epochs=2)
    assert "Not assessed: validation loss (fewer than 4 epochs)." in " ".join(
        summary.best_sentences(rank(run.trials), run.dataset)
    )


@pytest.mark.parametrize(
    ("error", "num_validation", "text"),
    [
        (0.026, 270, f"0.974 {PLUS_MINUS} 0.010"),
        (0.1, 900, f"0.900 {PLUS_MINUS} 0.010"),
        (0.1, 90, f"0.90 {PLUS_MINUS} 0.03"),
        (0.0, 270, "1.00"),
    ],
)
def test_metric_is_written_to_the_digit_that_is_known(error: float, num_validation: int, text: str) -> None:
    trial, _ = synthetic.trial(0, "clean")
    trial = replace(trial, seed_runs=(replace(trial.seed_runs[0], metrics={"val_accuracy": 1 - error}),))
    assert summary.metric_text(trial, synthetic.dataset(num_validation=num_validation)) == text


@pytest.mark.parametrize(
    ("behaviours", "is_good", "words"),
    [
        ((), False, "No trial has finished yet"),
        (("nan", "nan", "error"), False, "Every finished trial failed. The most frequent way: diverged."),
        (("spikes", "oscillation"), False, "No configuration reached a stability of 0.8."),
        (
            ("clean", "oscillation"),
            True,
            "1 of 2 finished configurations reached a stability of 0.8; the best is one of them.",
        ),
        (("clean",), True, "1 of 1 finished configuration reached"),
    ],
)
def test_verdict(behaviours: tuple[synthetic.Behaviour, ...], is_good: bool, words: str) -> None:
    found = summary.verdict(rank(synthetic.run(behaviours).trials))
    assert found[0] is is_good
    assert words in found[1]


def test_verdict_names_the_best_stable_one_when_the_best_is_not() -> None:
    best, _ = synthetic.trial(0, "oscillation")
    stable, _ = synthetic.trial(1, "clean")
    is_good, words = summary.verdict([best, stable])
    assert not is_good
    assert "the best one did not. The best stable one is trial 1." in words


def test_verdict_of_trainings_too_short_to_judge() -> None:
    trial, _ = synthetic.trial(0, "clean")
    parts = dict.fromkeys(
        ("drawdown", "unrecovered", "validation_drawdown", "validation_unrecovered", "gap_growth"), None
    )
    score = replace(
        trial.seed_runs[0].score, stability=1.0, instability=0.0, not_assessed=("training loss (12 steps)",), **parts
    )
    trial = replace(trial, seed_runs=(replace(trial.seed_runs[0], score=score),))
    assert summary.verdict([trial]) == (
        False,
        "Stability could not be judged: the trainings were too short. Search with more --epochs.",
    )
    assert "too short to judge its stability (training loss (12 steps))" in summary.stability_meaning(trial)


def test_meaning_of_the_other_standings() -> None:
    meanings = {
        behaviour: summary.stability_meaning(synthetic.trial(0, behaviour)[0]) for behaviour in ("nan", "error", "flat")
    }
    assert meanings["nan"] == meanings["error"] == "No usable model came out of it."
    assert meanings["flat"] == "Its loss stayed at chance level."


def test_outcomes_and_progress() -> None:
    run = synthetic.run(("clean", "nan", "error"), num_waiting=2)
    assert summary.outcome_sentence(run.trials) == (
        "Of 5 trials: 1 trained to the end, 1 diverged, 1 ended with an error, 1 training now, 1 waiting."
    )
    assert summary.progress_sentence(run.trials, run.config) == (
        "3 of 5 trials have finished; trial 3 has reached epoch 3 of 20."
    )
    assert summary.progress_sentence(run.trials[:3], run.config.model_copy(update={"trials": 3})) == ""
    assert summary.outcome_sentence([]) == ""


def test_outcome_words_say_when_a_training_ended_early() -> None:
    run = synthetic.run(("clean", "nan"))
    assert summary.outcome_words(run.trials[0], run.config) == "trained to the end"
    assert summary.outcome_words(run.trials[1], run.config).startswith("diverged (epoch ")


@pytest.mark.parametrize(
    ("accuracies", "text"),
    [
        ((0.985, 0.985, 0.985), f"accuracy 0.985 {PLUS_MINUS} 0 (standard deviation over 3 fresh seeds); "),
        ((0.98, 0.99, 0.985), f"accuracy 0.985 {PLUS_MINUS} 0.005 (standard deviation over 3 fresh seeds); "),
        ((), "accuracy 1.00; "),
    ],
)
def test_a_spread_has_its_number_also_where_it_is_none(accuracies: tuple[float, ...], text: str) -> None:
    run = synthetic.run(("clean", "clean"))
    best = rank(run.trials)[0]
    first = replace(best.seed_runs[0], metrics={"val_accuracy": 1.0})
    fresh = [
        replace(first, seed_index=index, metrics={"val_accuracy": value}) for index, value in enumerate(accuracies, 1)
    ]
    best = replace(best, seed_runs=(first, *fresh))
    assert text in summary.best_sentences([best], run.dataset)[0]


def test_regression_in_words() -> None:
    run = synthetic.run(("clean", "clean"), metric="loss")
    text = summary.best_sentences(rank(run.trials), run.dataset)[0]
    assert "validation loss 0." in text
    assert "always answering with the mean would have 1." in text


def test_every_outcome_has_words() -> None:
    trial, _ = synthetic.trial(0, "clean")
    config = synthetic.run(("clean",)).config
    assert all(summary.outcome_words(replace(trial, outcome=outcome), config) for outcome in Outcome)
