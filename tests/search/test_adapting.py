"""Adaptation in a search of made-up trainings: narrower proposals, the same ones after an interruption, the record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras_tuner
import numpy as np

from tuner.config import SearchConfig
from tuner.records import Adaptation, Finding, Outcome, Remedy, SeedRun, Trace
from tuner.search.adapting import Adapter
from tuner.search.oracle import StudyOracle
from tuner.search.study import Study, load_trials
from tuner.stability.score import failed_score
from tuner.store import RunFolder

EDGE = 0.3
# More than the ten that are proposed at random.
NUM_TRIALS = 13
EMPTY = np.empty(0)
TRACE = Trace(EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, 1, 1, 1.0)
TOO_HIGH = Finding(
    "learning_rate_too_high", "", 0.9, 0.8, {}, "too high", (), (Remedy("learning_rate", "upper <= x 0.5", ""),)
)


def space() -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.Float("learning_rate", 1e-4, 10.0, sampling="log", default=1e-3)
    hp.Float("dropout", 0.0, 0.5)
    hp.Int("num_blocks", 1, 4)
    hp.Choice("optimizer", ["sgd", "adam"])
    return hp


def oracle(folder: RunFolder, *, count: int, is_adapting: bool = True, seed: int = 0) -> StudyOracle:
    return StudyOracle(
        Study(folder, seed=seed),
        max_trials=count,
        hyperparameters=space(),
        adapt=Adapter(folder) if is_adapting else None,
    )


def run_one(folder: RunFolder, made: StudyOracle) -> float:
    """A trial that diverges beyond the edge, and is better the closer its rate is to 0.01."""
    trial = made.create_trial("tuner0")
    number, rate = int(trial.trial_id), trial.hyperparameters.values["learning_rate"]
    is_lost = rate > EDGE
    outcome = Outcome.DIVERGED if is_lost else Outcome.COMPLETED
    objective = 4.0 if is_lost else abs(math.log10(rate) + 2) - 2
    causes = (TOO_HIGH,) if is_lost else ()
    score = failed_score(0.1)
    run = SeedRun(number, 0, 0, outcome, objective, None, score, {}, 1, 1, 1, 1.0, causes=causes)
    folder.save_seed_run(run, TRACE)
    made.update_trial(trial.trial_id, {"objective": objective})
    made.record_outcome(trial.trial_id, outcome)
    trial.status = "COMPLETED"
    made.end_trial(trial)
    return float(rate)


def search(root: Path, *, count: int = NUM_TRIALS, **options) -> tuple[RunFolder, list[float]]:
    folder = RunFolder.create(root, SearchConfig())
    made = oracle(folder, count=count, **options)
    return folder, [run_one(folder, made) for _ in range(count)]


def test_later_trials_keep_to_what_earlier_ones_agree_on(tmp_path):
    folder, rates = search(tmp_path / "run")
    steps = folder.load_adaptation().steps
    assert steps
    first = steps[0]
    (found,) = first.ranges
    assert (found.parameter, found.side, found.whole) == ("learning_rate", "upper", (1e-4, 10.0))
    assert all(number < first.since and rates[number] > found.bound for number in found.trials)
    assert [trial.hyperparameters["learning_rate"] for trial in load_trials(folder)] == rates
    for number, rate in enumerate(rates):
        holding = [step for step in steps if step.since <= number]
        bound = holding[-1].ranges[0].bound if holding and holding[-1].ranges else 10.0
        assert rate <= bound
    assert json.loads(folder.adaptation_file.read_text())["schema_version"] == 1


def test_without_it_ranges_stay_whole(tmp_path):
    folder, rates = search(tmp_path / "run", is_adapting=False)
    assert folder.load_adaptation() == Adaptation()
    _, adapted = search(tmp_path / "adapted")
    same = rates.index(next(rate for rate, other in zip(rates, adapted, strict=True) if rate != other))
    assert same >= 3


def test_a_search_that_is_stopped_after_every_trial_proposes_the_same(tmp_path):
    folder, whole = search(tmp_path / "whole", count=NUM_TRIALS)
    assert folder.load_adaptation().steps
    folder = RunFolder.create(tmp_path / "parts", SearchConfig())
    parts = []
    for _ in range(NUM_TRIALS):
        # Killed while it trains: the trial is proposed, put back, and proposed again by another process.
        killed = oracle(folder, count=NUM_TRIALS)
        killed.create_trial("tuner0")
        killed.study.give_back(crashed=False)
        parts.append(run_one(folder, oracle(folder, count=NUM_TRIALS)))
    assert parts == whole
    assert folder.load_adaptation() == RunFolder(tmp_path / "whole").load_adaptation()
