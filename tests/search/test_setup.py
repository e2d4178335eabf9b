"""Setting a run up: what is refused, what goes on, and where a search without --run goes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.config import SearchConfig, resolve
from tuner.data import cache
from tuner.errors import AuditError, ConfigError, DataError, EnvironmentFault, RunError, SpaceError
from tuner.records import Outcome
from tuner.search import setup
from tuner.search.setup import choose_folder, note_start, prepare, read_data
from tuner.search.study import Study
from tuner.store import RunFolder, write_json


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A clean table of three classes."""
    rng = np.random.default_rng(0)
    file = tmp_path / "flowers.csv"
    write_table(file, rng.normal(size=(90, 4)), np.arange(90) % 3)
    return file


def write_table(file: Path, x: np.ndarray, y: np.ndarray) -> None:
    columns = [f"c{index}" for index in range(x.shape[1])]
    rows = [",".join([*(f"{value:.6g}" for value in values), f"k{label}"]) for values, label in zip(x, y, strict=True)]
    file.write_text("\n".join([",".join([*columns, "label"]), *rows]) + "\n")


def config(table: Path, **changes: Any) -> SearchConfig:
    return resolve({"data": str(table), "target": "label", "trials": 3, "confirm": 0} | changes, None)


def finish_trials(folder: RunFolder, count: int) -> None:
    """Trials that ended, without training."""
    study = Study(folder)
    for _ in range(count):
        trial = study.ask(10**6)
        assert trial is not None
        study.finish(trial.number, 1.0, outcome=Outcome.COMPLETED)


# --- a new run ---------------------------------------------------------------------------------------------------


def test_each_check_of_the_audit_is_told_before_it_runs(table: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(config(table), tmp_path / "run", before=lambda *each: told.append(each))
    assert [number for _, number, _ in told] == list(range(told[0][2]))
    assert "duplicates" in {code for code, _, _ in told}


def test_a_new_run_holds_configuration_and_data(table: Path, tmp_path: Path) -> None:
    folder, record = prepare(config(table), tmp_path / "runs" / "x")
    assert folder.load_config() == config(table)
    assert folder.load_dataset() == record
    assert (record.num_train, record.num_validation, record.num_test) == (62, 14, 14)
    assert record.class_counts == (30, 30, 30)
    assert record.metric == "accuracy"
    assert record.chance_loss == pytest.approx(np.log(3), abs=1e-3)
    x, y, split = cache.load_raw(folder.data_dir)
    assert x.shape == (90, 4)
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(90))
    assert len(y) == 90


def test_the_seed_decides_the_split(table: Path) -> None:
    same = [read_data(config(table)).record.fingerprint for _ in range(2)]
    assert same[0] == same[1] != read_data(config(table, seed=1)).record.fingerprint


def test_words_of_later_rows_are_not_known_in_training(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    lines = "".join(f"{row},{'old' if row < 80 else 'new'},k{row % 2}\n" for row in range(100))
    file.write_text(f"a,colour,label\n{lines}")
    record = read_data(config(file, split="time")).record
    assert (record.spec.feature_names, record.spec.input_shape) == (("a", "colour=old"), (2,))
    assert any("colour=new" in note for note in record.notes)


def test_an_empty_folder_may_be_used(table: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    prepare(config(table), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(table: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(RunError, match=r"'.*photos' exists and is no run folder\. Give --run an empty or new folder"):
        prepare(config(table), tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_bundle_is_no_run_folder(table: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.yaml").write_text("run: x\ntrial: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'run'"):
        prepare(config(table), tmp_path / "bundle")


def test_a_file_is_no_folder(table: Path, tmp_path: Path) -> None:
    for root in (table, table / "deeper"):
        with pytest.raises(EnvironmentFault, match="Cannot write"):
            prepare(config(table), root)
    assert table.read_text().startswith("c0,")


def test_a_name_that_the_file_system_refuses_is_a_fault_of_the_environment(table: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="File name too long"):
        prepare(config(table), tmp_path / ("x" * 300))


def test_what_was_half_set_up_is_set_up_again(table: Path, tmp_path: Path) -> None:
    # Killed before the data was written: the record of the data is the last file.
    folder, record = prepare(config(table), tmp_path / "run")
    folder.dataset_file.unlink()
    (folder.data_dir / "x.npy").unlink(missing_ok=True)
    assert prepare(config(table), tmp_path / "run")[1] == record
    assert folder.load_dataset() == record


def test_killed_before_the_configuration_was_written_is_set_up_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_config", kill)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(table), tmp_path / "run")
    prepare(config(table), tmp_path / "run")


# --- going on ----------------------------------------------------------------------------------------------------


def test_the_same_again_goes_on(table: Path, tmp_path: Path) -> None:
    folder, record = prepare(config(table), tmp_path / "run")
    finish_trials(folder, 1)
    raw = (folder.data_dir / "x.npy").stat().st_mtime_ns
    assert prepare(config(table), tmp_path / "run")[1] == record
    assert (folder.data_dir / "x.npy").stat().st_mtime_ns == raw


@pytest.mark.parametrize("changes", [{"trials": 50}, {"trials": 1}, {"time_limit": 60.0}, {"force": True}])
def test_budgets_may_change(table: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    finish_trials(folder, 1)
    prepare(config(table, **changes), tmp_path / "run")
    assert folder.load_config() == config(table, **changes)


def test_other_settings_are_refused_all_at_once(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    finish_trials(folder, 1)
    other = config(table, epochs=7, stability_weight=0.5, fix={"optimizer": "adam"}, trials=9)
    with pytest.raises(RunError) as caught:
        prepare(other, tmp_path / "run")
    message = str(caught.value)
    assert "was started with other settings" in message
    assert "  epochs: 20 then, 7 now" in message
    assert "  stability-weight: 0.2 then, 0.5 now" in message
    assert "  fix: {} then, {'optimizer': 'adam'} now" in message
    assert "trials:" not in message
    assert "use a new --run" in message
    assert folder.load_config() == config(table)


def test_settings_may_be_mended_before_the_first_trial(table: Path, tmp_path: Path) -> None:
    # A mistake in --range shows only when the worker has built the space: after the folder was made.
    folder, _ = prepare(config(table, range={"leaning_rate": "1e-4:1e-3"}), tmp_path / "run")
    Study(folder)
    mended = config(table, range={"learning_rate": "1e-4:1e-3"}, metric="balanced_accuracy", seed=1)
    record = prepare(mended, tmp_path / "run")[1]
    assert folder.load_config() == mended
    assert folder.load_dataset() == record == read_data(mended).record


def test_a_space_that_was_edited_is_another_space(table: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_bytes(b"# caf\xe9\ndef build(hp): ...\n")
    mine = config(table, space=f"{space}:build")
    folder, _ = prepare(mine, tmp_path / "run")
    assert folder.space_file.read_bytes() == space.read_bytes()
    finish_trials(folder, 1)
    prepare(mine, tmp_path / "run")
    old = space.read_bytes()
    space.write_text("def build(hp): pass\n")
    with pytest.raises(RunError, match=r"other settings:\n  space: '.*space\.py' has been edited"):
        prepare(mine, tmp_path / "run")
    assert folder.space_file.read_bytes() == old


def test_other_data_is_refused(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    finish_trials(folder, 1)
    text = table.read_text()
    table.write_text(text.replace("k0", "kx", 1).replace("kx", "k0") + "1,2,3,4,k0\n")
    with pytest.raises(
        RunError, match=r"made from other data \(fingerprint \w{8}\.\.\., now \w{8}\.\.\.\)\. Use a new"
    ):
        prepare(config(table), tmp_path / "run")
    table.write_text(text)
    prepare(config(table), tmp_path / "run")


def test_the_same_data_may_lie_elsewhere(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    finish_trials(folder, 1)
    moved = table.rename(tmp_path / "moved.csv")
    prepare(config(moved), tmp_path / "run")
    assert folder.load_config().data == str(moved)


def test_a_run_that_another_process_works_on_is_not_touched(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    with folder.lock(), pytest.raises(RunError, match="Another search is working on"):
        prepare(config(table, trials=99), tmp_path / "run")
    assert folder.load_config().trials == 3


def test_a_damaged_configuration_is_named_and_kept(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    folder.config_file.write_text("trials: [")
    with pytest.raises(ConfigError, match=r"config\.yaml' is not valid YAML"):
        prepare(config(table), tmp_path / "run")
    assert folder.config_file.read_text() == "trials: ["


# --- bad data ----------------------------------------------------------------------------------------------------


def test_severe_faults_stop_a_search_unless_it_is_forced(table: Path, tmp_path: Path) -> None:
    # Labels that contradict each other: every row twice, with two labels.
    x = np.repeat(np.random.default_rng(0).normal(size=(60, 4)), 2, axis=0)
    write_table(table, x, np.arange(120) % 2)
    with pytest.raises(AuditError, match=r"severe faults:\n  \w+: .*(\n.*)*search all the same with --force"):
        prepare(config(table), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    _, record = prepare(config(table, force=True), tmp_path / "run")
    assert record.findings[0].severity >= 0.9


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("imgae", r"'imgae' is unknown. Expected one of .* Did you mean 'image'\?"),
        ("nothing.py:Space", r"'nothing.py' does not exist"),
    ],
)
def test_a_space_that_is_not_there_is_told_before_the_data_are_read(space: str, told: str, tmp_path: Path) -> None:
    config = SearchConfig(data=str(tmp_path / "nor are these"), space=space)
    with pytest.raises(SpaceError, match=told):
        prepare(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_worked_on_is_refused_before_the_data_are_read(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    monkeypatch.setattr(setup, "read_data", lambda *_, **__: pytest.fail("the data were read"))
    with folder.lock(), pytest.raises(RunError, match="Another search is working on"):
        prepare(config(table), tmp_path / "run")


def test_data_that_cannot_be_read_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare(config(tmp_path / "none.csv"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"metric": "accuracy"}, {"metric": "balanced_accuracy"}, {"objective": "val_accuracy"}]
)
def test_accuracy_of_a_regression_is_refused(table: Path, changes: dict[str, str]) -> None:
    regression = {"target": "c0", "task": "regression", "data": str(table)}
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()))
    with pytest.raises(ConfigError, match=r"does not fit numbers \(task regression\)\. Use --metric loss"):
        read_data(resolve(regression | changes, None))
    record = read_data(resolve(regression, None)).record
    assert (record.metric, record.chance_loss, record.chance_error) == ("loss", 1.0, 1.0)


# --- a search without --run ----------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_the_first_search_gets_a_folder_named_after_its_data(table: Path, runs: Path) -> None:
    path, goes_on = choose_folder(config(table), runs_dir=runs)
    assert not goes_on
    assert path.parent == runs
    assert path.name.startswith("flowers-20")
    assert choose_folder(resolve({}, None), runs_dir=runs)[0].name.startswith("digits-20")
    assert choose_folder(resolve({"data": "photos/"}, None), runs_dir=runs)[0].name.startswith("photos-20")
    assert choose_folder(resolve({"data": "."}, None), runs_dir=runs)[0].name.startswith(f"{Path.cwd().stem}-20")
    assert choose_folder(resolve({"data": "/"}, None), runs_dir=runs)[0].name.startswith("data-20")
    assert not runs.exists()


def test_names_of_the_same_second_are_told_apart(table: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.time, "strftime", lambda _: "now")
    names = []
    for _ in range(3):
        path, _ = choose_folder(config(table, seed=len(names)), runs_dir=runs)
        path.mkdir(parents=True)
        names.append(path.name)
    assert names == ["flowers-now", "flowers-now-2", "flowers-now-3"]


def test_an_unfinished_run_of_the_same_search_goes_on(table: Path, runs: Path) -> None:
    folder, _ = prepare(config(table), runs / "mine")
    finish_trials(folder, 2)
    assert choose_folder(config(table), runs_dir=runs) == (runs / "mine", True)
    assert choose_folder(config(table, time_limit=5.0, force=True), runs_dir=runs) == (runs / "mine", True)
    for other in ({"trials": 4}, {"epochs": 2}, {"seed": 1}, {"data": None, "target": None}):
        assert not choose_folder(config(table, **other), runs_dir=runs)[1]


def test_a_finished_run_stays_as_it_is(table: Path, runs: Path) -> None:
    folder, _ = prepare(config(table), runs / "mine")
    finish_trials(folder, 3)
    path, goes_on = choose_folder(config(table), runs_dir=runs)
    assert not goes_on
    assert path != runs / "mine"


def test_a_run_without_its_confirmation_is_unfinished(table: Path, runs: Path) -> None:
    folder, _ = prepare(config(table, confirm=2), runs / "mine")
    finish_trials(folder, 3)
    assert choose_folder(config(table, confirm=2), runs_dir=runs) == (runs / "mine", True)


def test_the_newest_unfinished_run_goes_on(table: Path, runs: Path) -> None:
    for age, name in ((300, "old"), (100, "new"), (200, "middle")):
        folder, _ = prepare(config(table), runs / name)
        os.utime(folder.config_file, (1e9 - age, 1e9 - age))
    assert choose_folder(config(table), runs_dir=runs) == (runs / "new", True)
    finish_trials(RunFolder(runs / "new"), 3)
    assert choose_folder(config(table), runs_dir=runs) == (runs / "middle", True)


def test_damaged_runs_beside_it_do_not_matter(table: Path, runs: Path) -> None:
    for name in ("yaml", "study", "record", "bundle"):
        folder, _ = prepare(config(table), runs / name)
        finish_trials(folder, 1)
    (runs / "yaml" / "config.yaml").write_text("trials: [")
    (runs / "study" / "study.db").write_bytes(b"x" * 4096)
    record = runs / "record" / "trials" / "0000" / "seed_0" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    (runs / "bundle" / "config.yaml").write_text("run: x\n")
    prepare(config(table), runs / "whole")
    assert choose_folder(config(table), runs_dir=runs) == (runs / "whole", True)


# --- a start that is refused -------------------------------------------------------------------------------------


def test_a_folder_with_hidden_files_of_the_user_is_refused(table: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / ".git").mkdir(parents=True)
    with pytest.raises(RunError, match="exists and is no run folder"):
        prepare(config(table), root)
    assert (root / ".git").is_dir()


def test_a_refused_start_removes_its_own_files_and_no_other(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    (folder.root / "notes.txt").write_text("mine")
    setup.discard_if_unused(folder)
    assert [file.name for file in folder.root.iterdir()] == ["notes.txt"]


def test_a_refused_start_leaves_nothing_of_a_folder_of_its_own(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    setup.discard_if_unused(folder)
    assert not folder.root.exists()


def test_a_run_with_trials_or_held_by_another_is_not_discarded(table: Path, tmp_path: Path) -> None:
    folder, _ = prepare(config(table), tmp_path / "run")
    with folder.lock():
        setup.discard_if_unused(RunFolder(folder.root))
    assert folder.config_file.is_file()
    finish_trials(folder, 1)
    setup.discard_if_unused(folder)
    assert folder.config_file.is_file()


def test_the_command_and_the_state_of_the_repository_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder.environment_file.write_text("cut sho")
    note_start(folder, ["search", "my data", "--trials", "3"])
    assert folder.load_environment() == {"command": "python -m tuner search 'my data' --trials 3"}
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], check=True)
    write_json(folder.environment_file, {"python": "3.11"})
    note_start(folder, ["search"])
    found = folder.load_environment()
    assert re.fullmatch(r"[0-9a-f]{40}", found["git"])
    assert found["python"] == "3.11"


def test_several_labels_have_their_own_metrics(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    y = generator.random((100, 3)) < (0.5, 0.3, 0.2)
    np.savez(tmp_path / "labels.npz", x=generator.normal(size=(100, 4)), y=y)
    options = {"data": str(tmp_path / "labels.npz")}
    record = read_data(resolve(options, None)).record
    assert (record.metric, record.class_counts) == ("mean_average_precision", tuple(y.sum(axis=0).tolist()))
    assert read_data(resolve(options | {"metric": "macro_f1"}, None)).record.metric == "macro_f1"
    with pytest.raises(ConfigError, match=r"--metric accuracy does not fit several labels \(task multilabel\)"):
        read_data(resolve(options | {"metric": "accuracy"}, None))
    with pytest.raises(ConfigError, match=r"--objective val_accuracy does not fit.*or loss --objective stable"):
        read_data(resolve(options | {"objective": "val_accuracy"}, None))
