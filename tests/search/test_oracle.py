"""The oracle: Keras Tuner's search spaces, conditions included, through Optuna's study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from keras_tuner.engine import trial as trial_module

from tuner.config import SearchConfig
from tuner.errors import ConfigError
from tuner.records import Outcome
from tuner.search.oracle import StudyOracle
from tuner.search.ranges import baseline_space
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder

NUM_TRIALS = 10
GRID = (8, 16, 32, 64, 128)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig())


def oracle(folder: RunFolder, space: Any, *, max_trials: int = NUM_TRIALS, seed: int = 0) -> StudyOracle:
    return StudyOracle(Study(folder, algorithm="random", seed=seed), max_trials=max_trials, hyperparameters=space)


def end(oracle: StudyOracle, trial: trial_module.Trial, objective: float, outcome: Outcome | None = None) -> None:
    """Tell the oracle the objective, as Keras Tuner's loop does."""
    oracle.update_trial(trial.trial_id, {"objective": objective})
    if outcome is not None:
        oracle.record_outcome(trial.trial_id, outcome, "why")
    trial.status = trial_module.TrialStatus.COMPLETED
    oracle.end_trial(trial)


def proposals(folder: RunFolder, space: Any, *, count: int = NUM_TRIALS) -> list[dict[str, Any]]:
    """The values of some trials, each ended with a made-up objective; fewer when there are no more configurations."""
    made = oracle(folder, space, max_trials=count)
    values: list[dict[str, Any]] = []
    for index in range(count):
        trial = made.create_trial("tuner0")
        if trial.status == trial_module.TrialStatus.STOPPED:
            break
        values.append(dict(trial.hyperparameters.values))
        end(made, trial, float(index % 7))
    return values


def space_of(declare: Callable[[keras_tuner.HyperParameters], Any]) -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    declare(space)
    return space


# --- one hyperparameter of each kind -----------------------------------------------------------------------------


def near(value: float, allowed: list[float]) -> bool:
    return any(abs(value - other) <= 1e-9 * abs(other) for other in allowed)


@pytest.mark.parametrize(
    ("declare", "is_allowed", "default"),
    [
        (lambda hp: hp.Int("a", 1, 5), lambda v: type(v) is int and 1 <= v <= 5, 1),
        (lambda hp: hp.Int("a", 1, 10, step=3, default=7), lambda v: v in (1, 4, 7, 10), 7),
        (lambda hp: hp.Int("a", 1, 9, step=3), lambda v: v in (1, 4, 7), 1),
        (lambda hp: hp.Int("a", 8, 128, sampling="log", default=32), lambda v: type(v) is int and 8 <= v <= 128, 32),
        (
            lambda hp: hp.Int("a", 8, 128, step=2, sampling="log", default=32),
            lambda v: type(v) is int and v in GRID,
            32,
        ),
        (lambda hp: hp.Int("a", 1, 100, sampling="reverse_log"), lambda v: type(v) is int and 1 <= v <= 100, 1),
        (lambda hp: hp.Int("a", 3, 3), lambda v: v == 3, 3),
        (lambda hp: hp.Float("a", 0.0, 0.5), lambda v: type(v) is float and 0 <= v <= 0.5, 0.0),
        (lambda hp: hp.Float("a", 0.0, 0.5, step=0.1), lambda v: near(v + 1, [1, 1.1, 1.2, 1.3, 1.4, 1.5]), 0.0),
        (lambda hp: hp.Float("a", 0.0, 0.55, step=0.1), lambda v: near(v + 1, [1, 1.1, 1.2, 1.3, 1.4, 1.5]), 0.0),
        (lambda hp: hp.Float("a", 0.0, 1.0, step=0.1, default=0.3), lambda v: 0 <= v <= 1, 0.3),
        (lambda hp: hp.Float("a", 1e-4, 1e-1, sampling="log", default=1e-3), lambda v: 1e-4 <= v <= 1e-1, 1e-3),
        (
            lambda hp: hp.Float("a", 1e-4, 1e-1, step=10, sampling="log", default=1e-2),
            lambda v: near(v, [1e-4, 1e-3, 1e-2, 1e-1]),
            1e-2,
        ),
        (lambda hp: hp.Float("a", 1e-6, 1, step=10, sampling="log", default=1e-3), lambda v: 1e-6 <= v <= 1.0001, 1e-3),
        (lambda hp: hp.Float("a", 1e-4, 1e-1, sampling="reverse_log"), lambda v: 1e-4 <= v <= 1e-1, 1e-4),
        (
            lambda hp: hp.Int("a", 2, 16, step=2, sampling="reverse_log"),
            lambda v: type(v) is int and v in (2, 10, 14, 16),
            2,
        ),
        (lambda hp: hp.Float("a", 1, 2), lambda v: 1 <= v <= 2, 1),
        (lambda hp: hp.Float("a", 0.25, 0.25), lambda v: v == 0.25, 0.25),
        (lambda hp: hp.Choice("a", ["adam", "sgd"], default="sgd"), lambda v: v in ("adam", "sgd"), "sgd"),
        (lambda hp: hp.Choice("a", [0.1, 1e-3]), lambda v: v in (0.1, 1e-3), 0.1),
        (lambda hp: hp.Choice("a", [32, 64]), lambda v: type(v) is int and v in (32, 64), 32),
        (lambda hp: hp.Choice("a", ["only"]), lambda v: v == "only", "only"),
        (lambda hp: hp.Boolean("a", default=True), lambda v: type(v) is bool, True),
        (lambda hp: hp.Fixed("a", "x"), lambda v: v == "x", "x"),
        (lambda hp: hp.Fixed("a", 0.0), lambda v: v == 0.0, 0.0),
    ],
)
def test_values_are_in_range_and_the_default_comes_first(
    folder: RunFolder, declare: Any, is_allowed: Callable[[Any], bool], default: Any
) -> None:
    values = [proposal["a"] for proposal in proposals(folder, space_of(declare), count=4)]
    assert values[0] == default
    assert all(is_allowed(value) for value in values), values
    stored = [trial.hyperparameters["a"] for trial in load_trials(folder)]
    assert stored == values


@pytest.mark.parametrize(
    ("declare", "expected"),
    [
        (lambda hp: hp.Int("a", 1, 10, step=3), {1, 4, 7, 10}),
        (lambda hp: hp.Int("a", 8, 64, step=2, sampling="log"), {8, 16, 32, 64}),
        (lambda hp: hp.Choice("a", ["x", "y", "z"]), {"x", "y", "z"}),
        (lambda hp: hp.Boolean("a"), {False, True}),
    ],
)
def test_every_value_can_be_proposed(folder: RunFolder, declare: Any, expected: set[Any]) -> None:
    assert {proposal["a"] for proposal in proposals(folder, space_of(declare))} == expected


@pytest.mark.parametrize(
    ("declare", "nearest"),
    [
        (lambda hp: hp.Int("a", 1, 10, step=3, default=6), 7),
        (lambda hp: hp.Float("a", 0.0, 1.0, step=0.25, default=0.3), 0.25),
        (lambda hp: hp.Int("a", 8, 128, step=2, sampling="log", default=50), 64),
        (lambda hp: hp.Float("a", 1e-4, 1e-1, step=10, sampling="log", default=5e-4), 1e-4),
    ],
)
def test_a_default_between_the_steps_becomes_the_nearest_step(folder: RunFolder, declare: Any, nearest: float) -> None:
    assert proposals(folder, space_of(declare), count=2)[0]["a"] == nearest


# --- conditions --------------------------------------------------------------------------------------------------


def conditional_space() -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.Boolean("use_l2")
    with hp.conditional_scope("use_l2", [True]):
        hp.Float("l2", 1e-6, 1e-2, sampling="log")
    hp.Int("blocks", 1, 3)
    for block in (1, 2, 3):
        with hp.conditional_scope("blocks", list(range(block, 4))):
            hp.Choice(f"filters_{block}", [8, 16])
            hp.Choice(f"kind_{block}", ["plain", "deep"])
            with hp.conditional_scope(f"kind_{block}", ["deep"]):
                hp.Int(f"depth_{block}", 2, 4)
    return hp


def test_only_what_is_active_has_a_value(folder: RunFolder) -> None:
    made = proposals(folder, conditional_space())
    assert {values["blocks"] for values in made} == {1, 2, 3}
    for values in made:
        expected = {"use_l2", "blocks"} | ({"l2"} if values["use_l2"] else set())
        for block in range(1, values["blocks"] + 1):
            expected |= {f"filters_{block}", f"kind_{block}"}
            expected |= {f"depth_{block}"} if values[f"kind_{block}"] == "deep" else set()
        assert values.keys() == expected
    assert made[0] == {"use_l2": False, "blocks": 1, "filters_1": 8, "kind_1": "plain"}
    assert [trial.hyperparameters for trial in load_trials(folder)] == made


def test_one_name_under_two_conditions_has_the_range_of_the_active_one(folder: RunFolder) -> None:
    hp = keras_tuner.HyperParameters()
    hp.Choice("optimizer", ["adam", "sgd"])
    with hp.conditional_scope("optimizer", ["adam"]):
        hp.Float("rate", 1e-4, 1e-3, sampling="log", default=5e-4)
    with hp.conditional_scope("optimizer", ["sgd"]):
        hp.Float("rate", 1e-2, 1e-1, sampling="log")
    made = proposals(folder, hp)
    assert made[0] == {"optimizer": "adam", "rate": 5e-4}
    assert {values["optimizer"] for values in made} == {"adam", "sgd"}
    for values in made:
        low, high = (1e-4, 1e-3) if values["optimizer"] == "adam" else (1e-2, 1e-1)
        assert low <= values["rate"] <= high


def test_a_conditional_parent_may_be_fixed(folder: RunFolder) -> None:
    hp = keras_tuner.HyperParameters()
    hp.Fixed("use_l2", True)
    with hp.conditional_scope("use_l2", [True]):
        hp.Float("l2", 1e-6, 1e-2, sampling="log")
    with hp.conditional_scope("use_l2", [False]):
        hp.Int("other", 1, 2)
    assert all(values.keys() == {"use_l2", "l2"} for values in proposals(folder, hp, count=5))


def test_a_space_without_hyperparameters_has_one_trial(folder: RunFolder) -> None:
    assert proposals(folder, keras_tuner.HyperParameters(), count=2) == [{}]
    assert folder.load_ending() == "the search space has no hyperparameters to search, so there is one trial"
    assert not RunFolder(folder.root.with_name("other")).load_ending()


# --- the course of a search --------------------------------------------------------------------------------------


def test_it_stops_at_the_budget(folder: RunFolder) -> None:
    made = oracle(folder, conditional_space(), max_trials=2)
    for number in range(2):
        trial = made.create_trial("tuner0")
        assert (trial.trial_id, trial.status) == (str(number), "RUNNING")
        end(made, trial, 1.0)
    assert made.create_trial("tuner0").status == "STOPPED"
    assert len(load_trials(folder)) == 2


def test_outcome_and_objective_reach_the_study(folder: RunFolder) -> None:
    made = oracle(folder, conditional_space())
    for objective, outcome in ((2.5, None), (4.0, Outcome.DIVERGED)):
        end(made, made.create_trial("tuner0"), objective, outcome)
    trials = load_trials(folder)
    assert [(trial.objective, trial.outcome, trial.message) for trial in trials] == [
        (2.5, Outcome.COMPLETED, ""),
        (4.0, Outcome.DIVERGED, "why"),
    ]


def test_another_oracle_on_the_same_study_goes_on(folder: RunFolder, tmp_path: Path) -> None:
    uninterrupted = proposals(RunFolder.create(tmp_path / "other", SearchConfig()), conditional_space(), count=6)
    resumed: list[dict[str, Any]] = []
    for _ in range(3):
        made = oracle(folder, conditional_space(), max_trials=6)
        made.study.give_back(crashed=False)
        for _ in range(2):
            trial = made.create_trial("tuner0")
            resumed.append(dict(trial.hyperparameters.values))
            end(made, trial, float((len(resumed) - 1) % 7))
        made.create_trial("tuner0")  # Interrupted.
    assert resumed == uninterrupted


@pytest.mark.parametrize(("pruner", "ended"), [("asha", [*range(8)]), ("none", [])])
def test_a_trial_behind_the_others_is_pruned_with_what_it_was_judged(
    folder: RunFolder, pruner: Any, ended: list[int]
) -> None:
    """Eight bad trials behind eight good ones, by the objective and not by the loss."""
    made = StudyOracle(
        Study(folder, algorithm="random"), max_trials=16, hyperparameters=conditional_space(), pruner=pruner
    )
    levels = [-1.0] * 8 + [1.0] * 8
    for level in levels:
        trial = made.create_trial("tuner0")
        for epoch in range(20):
            reason = made.report_epoch(trial.trial_id, epoch, objective=level, loss=-level, max_epochs=20)
            if reason:
                break
        end(made, trial, level, Outcome.PRUNED if reason else None)
    trials = load_trials(folder)
    pruned = [trial for trial in trials if trial.outcome is Outcome.PRUNED]
    assert [trial.number - 8 for trial in pruned] == ended
    assert all(trial.objective == 1.0 and trial.epoch_objectives == (1.0,) * 5 for trial in pruned)
    assert all(trial.epoch_losses == (-1.0,) * 5 for trial in pruned)
    assert made.study.best_numbers(16) == [number for number in range(16) if number - 8 not in ended]


def test_keras_tuner_writes_nothing_of_its_own(folder: RunFolder) -> None:
    made = oracle(folder, conditional_space())
    made._set_project_dir(str(folder.root), "x")
    end(made, made.create_trial("tuner0"), 1.0)
    made.save()
    made.reload()
    assert list(folder.root.rglob("*.json")) == []


def test_tpe_runs_through_a_conditional_space_without_warnings(folder: RunFolder) -> None:
    made = StudyOracle(Study(folder, seed=1), max_trials=13, hyperparameters=conditional_space())
    for index in range(13):
        end(made, made.create_trial("tuner0"), float(index % 5))
    assert len({str(trial.hyperparameters) for trial in load_trials(folder)}) > 7


# --- no configuration twice ----------------------------------------------------------------------------------------


def small_space() -> keras_tuner.HyperParameters:
    """Nine configurations: three without the condition, and three times two with it."""
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 0.1, 0.3, step=0.1)
    hp.Boolean("deep")
    with hp.conditional_scope("deep", [True]):
        hp.Choice("filters", [8, 16])
    return hp


def run_all(folder: RunFolder, algorithm: Any, *, max_trials: int = 30, **options: Any) -> list[dict[str, Any]]:
    """All trials of a search, each in an oracle of its own, the objective falling from trial to trial."""
    values = []
    while True:
        study = Study(folder, algorithm=algorithm)
        made = StudyOracle(study, max_trials=max_trials, hyperparameters=small_space(), **options)
        trial = made.create_trial("tuner0")
        if trial.status == trial_module.TrialStatus.STOPPED:
            return values
        values.append(dict(trial.hyperparameters.values))
        end(made, trial, -float(len(values)))


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
def test_all_configurations_are_tried_once_and_then_the_search_ends(folder: RunFolder, algorithm: Any) -> None:
    values = run_all(folder, algorithm)
    assert len(values) == len({str(sorted(each.items())) for each in values}) == 9
    what = "grid" if algorithm == "grid" else "space"
    assert folder.load_ending() == f"all 9 configurations of the {what} were tried"
    assert [trial.outcome for trial in load_trials(folder)] == [Outcome.COMPLETED] * 9


def test_running_trials_count_as_tried(folder: RunFolder) -> None:
    made = StudyOracle(Study(folder), max_trials=30, hyperparameters=small_space())
    values = [dict(made.create_trial("tuner0").hyperparameters.values) for _ in range(9)]
    assert len({str(sorted(each.items())) for each in values}) == 9
    assert made.create_trial("tuner0").status == trial_module.TrialStatus.STOPPED


def test_the_budget_may_end_before_the_space_does(folder: RunFolder) -> None:
    assert len(run_all(folder, "random", max_trials=8)) == 8
    assert folder.load_ending() == ""


# --- what the user gives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected", "numbers"),
    [
        ({"filters": "16"}, {"rate": 0.1, "deep": True, "filters": 16}, [1]),
        ({"rate": "0.3", "deep": "no"}, {"rate": 0.3, "deep": False}, [1]),
        ({"rate": "0.1"}, {"rate": 0.1, "deep": False}, [0]),
    ],
)
def test_the_baseline_is_tried_after_the_defaults(
    folder: RunFolder, given: dict[str, str], expected: dict[str, Any], numbers: list[int]
) -> None:
    run_all(folder, "tpe", max_trials=3, baseline=baseline_space(small_space(), given))
    trials = load_trials(folder)
    assert [trial.number for trial in trials if trial.is_baseline] == numbers
    assert trials[numbers[0]].hyperparameters == expected
    assert trials[0].hyperparameters == {"rate": 0.1, "deep": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filtres": "8"}, r"--baseline filtres=8: this space has no hyperparameter.*Did you mean 'filters'"),
        ({"rate": "0.7"}, r"--baseline rate=0.7: the search covers 0.1 to 0.3 .*Widen it with --range"),
        ({"filters": "9"}, r"--baseline filters=9: the search covers 8, 16"),
        ({"rate": "fast"}, r"--baseline rate=fast: 'fast' is not a number"),
    ],
)
def test_a_baseline_outside_the_space_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        baseline_space(small_space(), given)


@pytest.mark.parametrize(("target", "count"), [(-2.0, 2), (-2.1, 3), (None, 5)])
def test_the_search_ends_when_the_target_is_reached(folder: RunFolder, target: float | None, count: int) -> None:
    assert len(run_all(folder, "random", max_trials=5, target=target)) == count
    told = f"trial {count - 1} reached the target: its objective is -{count}.000" if target else ""
    assert folder.load_ending() == told


# --- trials that refine a leading one -------------------------------------------------------------------------------


def layered_space() -> keras_tuner.HyperParameters:
    """Choices that make an architecture, and real numbers, one of them conditional."""
    hp = keras_tuner.HyperParameters()
    for number in range(4):
        hp.Choice(f"width_{number}", [8, 16, 32, 64])
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    hp.Boolean("decays", default=True)
    with hp.conditional_scope("decays", [True]):
        hp.Float("decay", 1e-6, 1e-2, sampling="log")
    return hp


def choices_of(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("rate", "decay")}


def objective_of(values: dict[str, Any]) -> float:
    return abs(values["width_0"] - 32) + abs(values["width_1"] - 16)


def searched(folder: RunFolder, algorithm: Any, *, count: int, workers: int = 1) -> list[dict[str, Any]]:
    """The values of all trials; the workers take turns."""
    made = [
        StudyOracle(
            Study(folder, algorithm=algorithm, worker=worker), max_trials=count, hyperparameters=layered_space()
        )
        for worker in range(workers)
    ]
    found = []
    for number in range(count):
        asking = made[number % workers]
        trial = asking.create_trial("tuner0")
        found.append(dict(trial.hyperparameters.values))
        end(asking, trial, objective_of(found[-1]))
    return found


def leading(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(before, key=objective_of)[:3]


def test_every_second_trial_refines_a_leading_one(folder: RunFolder) -> None:
    found = searched(folder, "tpe", count=20)
    for number in range(1, 20, 2):
        leader = [each for each in leading(found[:number]) if choices_of(each) == choices_of(found[number])]
        assert leader
        assert all(each["rate"] != found[number]["rate"] for each in leader)
    others = [choices_of(found[number]) for number in range(0, 20, 2)]
    assert len({str(each) for each in others}) > 5


def test_refined_trials_take_turns_with_the_leaders(folder: RunFolder) -> None:
    found = searched(folder, "tpe", count=16)
    assert len({str(choices_of(found[number])) for number in range(1, 16, 2)}) > 1


def test_a_worker_refines_what_it_has_trained(folder: RunFolder) -> None:
    """Of three workers that take turns, each has a part of the leading trials at most."""
    found = searched(folder, "tpe", count=16, workers=3)
    for number in range(1, 16, 2):
        best = leading(found[:number])
        expected = [each for each in best if each in found[number % 3 : number : 3]] or best
        assert choices_of(found[number]) in [choices_of(each) for each in expected]


def test_other_algorithms_propose_as_they_do(folder: RunFolder) -> None:
    found = searched(folder, "random", count=20)
    assert len({str(choices_of(each)) for each in found}) > 15


def test_a_space_without_real_numbers_is_searched_through(folder: RunFolder) -> None:
    def declare(hp: keras_tuner.HyperParameters) -> None:
        hp.Choice("width", [8, 16, 32, 64])
        hp.Int("depth", 1, 4)

    made = StudyOracle(Study(folder), max_trials=16, hyperparameters=space_of(declare))
    values = []
    for number in range(16):
        trial = made.create_trial("tuner0")
        values.append(str(sorted(trial.hyperparameters.values.items())))
        end(made, trial, float(number))
    assert len(set(values)) == 16
