"""The run folder: atomic writes, records that read back the same, damage that is named, the lock."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.config import SearchConfig
from tuner.errors import ConfigError, EnvironmentFault, RunError
from tuner.records import DatasetRecord, DataSpec, Finding, Outcome, Remedy, SeedRun, StabilityScore, Trace
from tuner.store import (
    RunFolder,
    atomic_open,
    atomic_path,
    read_json,
    read_trace,
    storage_errors,
    write_json,
    write_text,
    write_trace,
)

SCORE = StabilityScore(0.9, 0.1, 0.05, 0.0, 0.02, None, None, not_assessed=("gap_growth: no validation",))
SEED_RUN = SeedRun(
    trial=7,
    seed_index=0,
    seed=123,
    outcome=Outcome.COMPLETED,
    objective=-1.5,
    error=0.125,
    score=SCORE,
    metrics={"val_loss": 0.5, "val_accuracy": 0.875},
    epochs=2,
    steps_per_epoch=3,
    num_parameters=10,
    seconds=1.5,
)
DATASET = DatasetRecord(
    source="data.csv",
    spec=DataSpec("table", "series", "classification", (4,), ("a", "b"), "y", ("p", "q", "r", "s")),
    fingerprint="0" * 64,
    num_train=70,
    num_validation=15,
    num_test=15,
    class_counts=(60, 40),
    num_features_missing=1,
    chance_loss=0.67,
    chance_error=0.4,
    metric="accuracy",
    notes=("a note",),
    findings=(Finding("code", "p", 0.5, 1.0, {"share": 0.25}, "Cause.", ("row 3",), (Remedy("p", "drop", "why"),)),),
)


def trace(**changes: Any) -> Trace:
    """Two epochs of three steps."""
    values: dict[str, Any] = {
        "step_loss": np.arange(6, dtype=np.float32),
        "grad_norm": np.ones(6, np.float32),
        "train_loss": np.array([2.0, 1.0]),
        "validation_loss": np.array([2.5, 1.5]),
        "learning_rate": np.array([1e-3, 1e-4]),
        "seconds": np.array([0.5, 0.25]),
        "steps_per_epoch": 3,
        "planned_epochs": 2,
        "chance_loss": math.log(10),
        "metrics": {"accuracy": np.array([0.1, 0.2])},
    }
    return Trace(**values | changes)


def assert_same_trace(read: Trace, written: Trace) -> None:
    """Equal in every field, NaN equal to NaN, types of the arrays kept."""
    for field in dataclasses.fields(Trace):
        one, other = getattr(read, field.name), getattr(written, field.name)
        if field.name in ("metrics", "channels"):
            assert one.keys() == other.keys()
            for name in other:
                np.testing.assert_array_equal(one[name], other[name])
        elif isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other
            assert type(one) is type(other)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig(trials=3))


# --- atomic writes -----------------------------------------------------------------------------------------------


class Kill(BaseException):
    """Stands for the end of the process in the middle of a write."""


@pytest.mark.parametrize("exception", [Kill, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("has_old", [False, True])
def test_a_write_that_ends_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, exception: type[BaseException], *, has_old: bool
) -> None:
    file = tmp_path / "folder" / "record.json"
    if has_old:
        write_text(file, "old")

    def write_half() -> None:
        with atomic_open(file) as stream:
            stream.write("new, but not all of")
            stream.flush()
            assert (file.read_text() == "old") if has_old else not file.exists()
            raise exception

    with pytest.raises(exception):
        write_half()
    assert [path.name for path in file.parent.iterdir()] == (["record.json"] if has_old else [])
    assert not has_old or file.read_text() == "old"


def test_a_complete_write_replaces_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    for text in ("a long first text", "b"):
        write_text(file, text)
        assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_the_temporary_name_has_the_same_suffix_and_folder(tmp_path: Path) -> None:
    # Keras refuses to save a model under any name but *.keras.
    with atomic_path(tmp_path / "model.keras") as temporary:
        assert temporary.suffix == ".keras"
        assert temporary.parent == tmp_path
        assert temporary.name != "model.keras"
        temporary.write_bytes(b"x")
    assert (tmp_path / "model.keras").read_bytes() == b"x"


def test_text_is_utf8_and_bytes_are_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Größe 数 \N{ROCKET}\n")
    assert (tmp_path / "a.txt").read_bytes() == "Größe 数 \N{ROCKET}\n".encode()
    with atomic_open(tmp_path / "b.bin", "wb") as stream:
        stream.write(b"\xff\x00")
    assert (tmp_path / "b.bin").read_bytes() == b"\xff\x00"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_that_any_new_file_has(tmp_path: Path, mask: int) -> None:
    # A private mode would lock colleagues, and the web server that shows the report, out of a shared folder.
    old = os.umask(mask)
    try:
        write_text(tmp_path / "report.html", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o666 & ~mask


# --- the machine's faults ----------------------------------------------------------------------------------------

ENVIRONMENT = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS]


def raising(number: int) -> Callable[..., Any]:
    """A function that always fails with this error of the system."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("number", ENVIRONMENT)
def test_a_full_disk_or_missing_right_is_a_fault_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, function: str
) -> None:
    file = tmp_path / "record.json"
    write_text(file, "old")
    monkeypatch.setattr(os, function, raising(number))
    with pytest.raises(
        EnvironmentFault, match=r"Cannot write '.*record\.json': .*intact.*run the same command again"
    ) as caught:
        write_text(file, "new")
    is_full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    assert ("Free some space" if is_full else "Choose a folder that you may write to") in str(caught.value)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_other_errors_of_the_system_are_not_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", raising(errno.EBADF))
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_text(tmp_path / "a.json", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "deeper" / "a.json"):
        with pytest.raises(EnvironmentFault, match="Cannot write"):
            write_text(path, "x")
    with pytest.raises(EnvironmentFault, match=r"Cannot write '.*file"):
        RunFolder.create(tmp_path / "file", SearchConfig())


def test_a_name_too_long_for_the_file_system_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="File name too long"):
        RunFolder.create(tmp_path / ("x" * 300), SearchConfig())


def test_a_block_without_error_passes(tmp_path: Path) -> None:
    with storage_errors(tmp_path):
        pass


# --- records -----------------------------------------------------------------------------------------------------


def test_a_seed_run_reads_back_the_same(folder: RunFolder) -> None:
    folder.save_seed_run(SEED_RUN, trace())
    assert folder.load_seed_runs(7) == (SEED_RUN,)
    assert_same_trace(folder.load_trace(7, 0), trace())


def test_nan_and_infinity_read_back_as_numbers(folder: RunFolder) -> None:
    run = dataclasses.replace(
        SEED_RUN,
        outcome=Outcome.DIVERGED,
        error=math.inf,
        metrics={"val_loss": math.nan, "low": -math.inf, "high": math.inf},
    )
    broken = trace(
        step_loss=np.array([1.0, np.nan, np.inf], np.float32),
        train_loss=np.array([np.nan]),
        metrics={"accuracy": np.array([np.nan]), "a/b c": np.array([np.inf])},
    )
    folder.save_seed_run(run, broken)
    read = folder.load_seed_runs(7)[0]
    assert math.isnan(read.metrics["val_loss"])
    assert (read.metrics["low"], read.metrics["high"], read.error) == (-math.inf, math.inf, math.inf)
    assert read.outcome is Outcome.DIVERGED
    assert_same_trace(folder.load_trace(7, 0), broken)
    json.loads((folder.seed_run_dir(7, 0) / "record.json").read_text(), parse_constant=pytest.fail)


def test_probe_channels_read_back_the_same_and_a_trace_without_them_too(folder: RunFolder) -> None:
    probed = trace(channels={"update_ratio": np.array([-3.0, np.nan]), "a/b": np.array([0.5, 0.75])})
    for written in (probed, trace()):
        folder.save_seed_run(SEED_RUN, written)
        assert_same_trace(folder.load_trace(7, 0), written)
    assert folder.load_trace(7, 0).channels == {}


def test_an_empty_trace_reads_back_the_same(folder: RunFolder) -> None:
    empty = trace(**{f.name: np.empty(0) for f in dataclasses.fields(Trace)[:6]}, metrics={}, steps_per_epoch=0)
    folder.save_seed_run(SEED_RUN, empty)
    assert_same_trace(folder.load_trace(7, 0), empty)
    assert folder.load_trace(7, 0).num_epochs == 0


def test_a_dataset_record_reads_back_the_same(folder: RunFolder) -> None:
    folder.save_dataset(DATASET)
    assert folder.load_dataset() == DATASET


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    objective=st.floats(allow_nan=False),
    message=st.text(),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
    outcome=st.sampled_from(Outcome),
    error=st.none() | st.floats(allow_nan=False),
)
def test_any_seed_run_reads_back_the_same(
    tmp_path: Path,
    objective: float,
    message: str,
    metrics: dict[str, float],
    outcome: Outcome,
    error: float | None,
) -> None:
    run = dataclasses.replace(
        SEED_RUN, objective=objective, message=message, metrics=metrics, outcome=outcome, error=error
    )
    write_json(tmp_path / "record.json", run)
    assert read_json(tmp_path / "record.json", SeedRun) == run


def test_a_message_that_is_no_valid_unicode_does_not_stop_the_record(folder: RunFolder) -> None:
    # File names that are not UTF-8 come into messages as lone surrogates.
    folder.save_seed_run(dataclasses.replace(SEED_RUN, message="cannot read 'caf\udce9.png'"), trace())
    assert "caf" in folder.load_seed_runs(7)[0].message


def test_seed_runs_come_in_the_order_of_their_index(folder: RunFolder) -> None:
    for index in (10, 2, 0):
        folder.save_seed_run(dataclasses.replace(SEED_RUN, seed_index=index), trace())
    assert [run.seed_index for run in folder.load_seed_runs(7)] == [0, 2, 10]
    assert folder.load_seed_runs(8) == ()


def test_the_record_is_written_after_the_trace(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a record exists, a reader may rely on the trace.
    def stop(*_: Any, **__: Any) -> None:
        raise Kill

    monkeypatch.setattr("tuner.store.write_json", stop)
    with pytest.raises(Kill):
        folder.save_seed_run(SEED_RUN, trace())
    assert_same_trace(folder.load_trace(7, 0), trace())
    assert folder.load_seed_runs(7) == ()


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_frac", [0.0, 0.5, 0.95])
def test_a_record_cut_short_is_named_and_left_out(folder: RunFolder, keep_frac: float) -> None:
    folder.save_seed_run(SEED_RUN, trace())
    file = folder.seed_run_dir(7, 0) / "record.json"
    file.write_bytes(file.read_bytes()[: int(keep_frac * file.stat().st_size)])
    faults: list[str] = []
    assert folder.load_seed_runs(7, faults) == folder.load_seed_runs(7) == ()
    assert re.search(r"record\.json' does not hold a valid SeedRun.*Delete that file", faults[0])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"null", b"[]", b'{"trial": 7}', b'{"trial": "seven"}', b"\x00" * 99])
def test_a_record_of_something_else_is_named(folder: RunFolder, content: bytes) -> None:
    folder.dataset_file.parent.mkdir()
    folder.dataset_file.write_bytes(content)
    with pytest.raises(RunError, match=r"dataset\.json' does not hold a valid DatasetRecord"):
        folder.load_dataset()


def test_a_missing_record_is_named(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"dataset\.json' is missing\. Run the same search again"):
        folder.load_dataset()
    assert folder.load_environment() == {}


@pytest.mark.parametrize("keep_frac", [0.0, 0.3, 0.7, 0.99])
def test_a_trace_cut_short_is_named(folder: RunFolder, keep_frac: float) -> None:
    folder.save_seed_run(SEED_RUN, trace())
    file = folder.seed_run_dir(7, 0) / "trace.npz"
    file.write_bytes(file.read_bytes()[: int(keep_frac * file.stat().st_size)])
    with pytest.raises(RunError, match=r"trace\.npz' cannot be read: .*rest of the run is not affected"):
        folder.load_trace(7, 0)


def flipped_bytes(content: bytes) -> Iterator[bytes]:
    """The content with one byte changed, at places all over it."""
    for position in range(0, len(content), 37):
        yield content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def test_a_trace_with_a_changed_byte_is_the_same_or_named(folder: RunFolder) -> None:
    folder.save_seed_run(SEED_RUN, trace())
    file = folder.seed_run_dir(7, 0) / "trace.npz"
    for content in list(flipped_bytes(file.read_bytes())):
        file.write_bytes(content)
        try:
            read = folder.load_trace(7, 0)
        except RunError as error:
            assert "trace.npz" in str(error)  # noqa: PT017
        else:
            assert_same_trace(read, trace())


@pytest.mark.parametrize("content", [b"not a zip", b"\x93NUMPY\x01\x00", b""])
def test_a_trace_of_something_else_is_named(folder: RunFolder, content: bytes) -> None:
    file = folder.seed_run_dir(7, 0) / "trace.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"trace\.npz' cannot be read"):
        folder.load_trace(7, 0)


def test_a_plain_array_is_no_trace(folder: RunFolder) -> None:
    file = folder.seed_run_dir(7, 0) / "trace.npz"
    file.parent.mkdir(parents=True)
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(RunError, match=r"trace\.npz' cannot be read"):
        folder.load_trace(7, 0)


def test_a_missing_trace_is_named(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"trace\.npz' cannot be read: .*No such file"):
        folder.load_trace(7, 0)


def test_a_damaged_configuration_is_named(folder: RunFolder) -> None:
    folder.config_file.write_text("trials: [1,")
    with pytest.raises(ConfigError, match=r"config\.yaml' is not valid YAML"):
        folder.load_config()


# --- the folder --------------------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    "with space",
    "quote'",
    'double"quote',
    "Größe 数 \N{ROCKET}",
    "hash#tag",
    "what?",
    "per%20cent",
    "100%",
    "{braces}",
    "[brackets]",
    "a;b&c|d",
    "-dash",
    "~tilde",
    "$HOME",
    "star*",
    "back\\slash",
    ".hidden",
    "new\nline",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path / name, SearchConfig(trials=3))
    folder.save_dataset(DATASET)
    folder.save_seed_run(SEED_RUN, trace())
    folder.model_file(7, 0).write_bytes(b"model")
    again = RunFolder.open(tmp_path / name)
    assert again.load_config() == SearchConfig(trials=3)
    assert again.load_dataset() == DATASET
    assert again.load_seed_runs(7) == (SEED_RUN,)
    with again.lock():
        again.keep_models(set())
    assert not again.model_file(7, 0).exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_opening_what_is_no_run_says_where_runs_are(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config\.yaml.*Start one with: python -m tuner search DATA"):
        RunFolder.open(tmp_path / "runs" / "none")
    RunFolder.create(tmp_path / "runs" / "flowers", SearchConfig())
    with pytest.raises(RunError, match=r"'.*none' is not a run folder.*Runs beside it: .*flowers\."):
        RunFolder.open(tmp_path / "runs" / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is not a run folder"):
        RunFolder.open(tmp_path / "file")


def test_only_the_named_models_are_kept(folder: RunFolder) -> None:
    for trial in range(12):
        folder.save_seed_run(dataclasses.replace(SEED_RUN, trial=trial), trace())
        folder.model_file(trial, 0).write_bytes(b"model")
    folder.keep_models({(3, 0), (11, 0), (11, 1), (99, 0)})
    kept = sorted(file.relative_to(folder.trials_dir).as_posix() for file in folder.trials_dir.rglob("*.keras"))
    assert kept == ["0003/seed_0/model.keras", "0011/seed_0/model.keras"]
    assert len(list(folder.trials_dir.rglob("record.json"))) == 12


def test_paths_of_trials_above_9999_are_found_again(folder: RunFolder) -> None:
    folder.save_seed_run(dataclasses.replace(SEED_RUN, trial=12345), trace())
    assert folder.load_seed_runs(12345)[0].trial == 12345


def test_clearing_a_trial_leaves_the_others(folder: RunFolder) -> None:
    for trial in (1, 2):
        folder.save_seed_run(dataclasses.replace(SEED_RUN, trial=trial), trace())
    folder.clear_trial(1)
    folder.clear_trial(55)
    assert folder.load_seed_runs(1) == ()
    assert len(folder.load_seed_runs(2)) == 1


# --- the lock ----------------------------------------------------------------------------------------------------

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_held_by_another_process_is_refused_until_it_ends(folder: RunFolder) -> None:
    with folder.lock():
        pass
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=r"Another search is working on '.*run'.*another --run"), folder.lock():
            pytest.fail("the lock was given twice")
        holder.kill()
        holder.wait(10)
    with folder.lock():
        pass


def test_the_lock_is_released_after_an_error(folder: RunFolder) -> None:
    with pytest.raises(Kill), folder.lock():
        raise Kill
    with folder.lock():
        pass


def test_a_lock_that_may_not_be_written_is_a_fault_of_the_environment(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filelock.FileLock.acquire", raising(errno.EACCES))
    with pytest.raises(EnvironmentFault, match="Permission denied"), folder.lock():
        pass


def test_known_events_of_a_trace_read_back(tmp_path: Path) -> None:
    whole = trace(events=((0, "resume"), (1200, "warm_restart")))
    write_trace(tmp_path / "trace.npz", whole)
    assert read_trace(tmp_path / "trace.npz").events == whole.events
