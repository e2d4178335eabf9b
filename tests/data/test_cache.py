from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tuner.data import cache
from tuner.data.dataset import Dataset
from tuner.data.pipelines import choices
from tuner.data.split import make_split
from tuner.errors import ConfigError, EnvironmentFault, RunError
from tuner.records import DataSpec

RANDOM = np.random.default_rng(0)
IMAGE = DataSpec("npz", "image", "classification", (6, 5, 3), ("a", "b"))
SERIES = DataSpec("npz", "series", "classification", (9, 2), ("a", "b"))
TABLE = DataSpec("table", "series", "regression", (4,), target="y", feature_names=("a", "b", "c", "d"))
SPECS = pytest.mark.parametrize("spec", [IMAGE, SERIES, TABLE], ids=["image", "series", "table"])


def dataset(spec, count=60):
    if spec is IMAGE:
        x = RANDOM.integers(0, 256, (count, *spec.input_shape), dtype=np.uint8)
    else:
        x = RANDOM.normal(3, 2, (count, *spec.input_shape))
    y = RANDOM.normal(50, 9, count) if spec.task == "regression" else np.arange(count) % 2
    return Dataset("d", spec, x, y, tuple(map(str, range(count))))


def stored(data_dir, data):
    split = make_split(data.y, task=data.spec.task, seed=0)
    cache.save_raw(data_dir, data, split)
    return split


@SPECS
def test_raw_data_come_back_memory_mapped(spec, tmp_path):
    data = dataset(spec)
    split = stored(tmp_path, data)
    x, y, again = cache.load_raw(tmp_path)
    assert isinstance(x, np.memmap)
    np.testing.assert_array_equal(x, data.x)
    np.testing.assert_array_equal(y, data.y)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, name), getattr(split, name))
    assert cache.load_row_names(tmp_path) == data.row_names


@SPECS
def test_parts_are_what_the_pipeline_gives(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_VALUES", 200)
    data = dataset(spec)
    split = stored(tmp_path, data)
    found = cache.prepared(tmp_path, spec, {})
    for part, rows in ((found.train, split.train), (found.validation, split.validation)):
        assert isinstance(part.x, np.memmap)
        assert not part.x.flags.writeable
        assert part.x.dtype == np.float32
        np.testing.assert_array_equal(part.x, found.pipeline.transform(data.x[rows]))
        np.testing.assert_array_equal(part.y, cache.scaled_target(data.y[rows], found.target_scaler))
    test = cache.test_part(tmp_path, found, spec)
    np.testing.assert_array_equal(test.x, found.pipeline.transform(data.x[split.test]))
    assert (found.target_scaler is None) == (spec.task == "classification")


def test_regression_target_is_scaled_and_can_be_undone(tmp_path):
    data = dataset(TABLE)
    split = stored(tmp_path, data)
    found = cache.prepared(tmp_path, TABLE, {})
    assert found.train.y.dtype == np.float32
    assert found.train.y.mean() == pytest.approx(0, abs=1e-6)
    assert found.train.y.std() == pytest.approx(1, abs=1e-6)
    back = found.target_scaler.inverse_transform(np.asarray(found.validation.y).reshape(-1, 1)).ravel()
    np.testing.assert_allclose(back, data.y[split.validation], rtol=1e-6)


@SPECS
def test_only_the_training_part_is_learned_from(spec, tmp_path):
    data = dataset(spec)
    split = stored(tmp_path / "clean", data)
    poisoned_x, poisoned_y = data.x.copy(), data.y.copy()
    held_out = np.concatenate([split.validation, split.test])
    poisoned_x[held_out] = 255 if spec is IMAGE else 1e12
    if spec.task == "regression":
        poisoned_y[held_out] = -1e12
    poisoned = Dataset("d", spec, poisoned_x, poisoned_y, data.row_names)
    cache.save_raw(tmp_path / "poisoned", poisoned, split)
    for params in ({}, *({choice.name: value} for choice in all_choices(spec) for value in choice.values)):
        clean, dirty = (cache.prepared(tmp_path / name, spec, params) for name in ("clean", "poisoned"))
        np.testing.assert_array_equal(clean.train.x, dirty.train.x)
        np.testing.assert_array_equal(clean.train.y, dirty.train.y)
        assert state(clean.pipeline) == state(dirty.pipeline)


def all_choices(spec):
    return choices(spec, has_missing=True, imbalance=1.0)


def state(estimator):
    """Everything that was fitted, as text."""
    found = {}
    for name, value in sorted(vars(estimator).items()):
        nested = [value] if hasattr(value, "get_params") else [step for _, step in value] if name == "steps" else []
        found[name] = (
            [state(part) for part in nested] if nested else np.array2string(np.asarray(value), threshold=10**6)
        )
    return found


def test_folder_is_shared_and_only_choices_that_matter_make_a_new_one(tmp_path):
    stored(tmp_path, dataset(TABLE))
    first = cache.prepared(tmp_path, TABLE, {"scaler": "standard", "balance": "none", "units": "7"})
    changed = first.folder.stat().st_mtime_ns
    again = cache.prepared(tmp_path, TABLE, {"balance": "class_weights"})
    other = cache.prepared(tmp_path, TABLE, {"scaler": "robust"})
    assert first.folder == again.folder != other.folder
    assert again.folder.stat().st_mtime_ns == changed


def test_unknown_choice_is_refused(tmp_path):
    stored(tmp_path, dataset(TABLE))
    with pytest.raises(ConfigError, match=r"scaler='robusst' is not one of .*Did you mean 'robust'"):
        cache.prepared(tmp_path, TABLE, {"scaler": "robusst"})


SCRIPT = """
import sys
from pathlib import Path
from tuner.data import cache
from tuner.records import DataSpec
if {kill!r}:
    import os, signal
    os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
spec = DataSpec("table", "series", "regression", (4,), target="y", feature_names=("a", "b", "c", "d"))
print("ready", flush=True)
sys.stdin.readline()
found = cache.prepared(Path({folder!r}), spec, {{"scaler": "yeo-johnson"}})
print(found.folder.name, float(found.train.x.sum()))
"""


def started(folder, *, kill=False):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(folder=str(folder), kill=kill)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_at_once_share_one_folder(tmp_path):
    stored(tmp_path, dataset(TABLE, 5000))
    processes = [started(tmp_path) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs[0] == outputs[1]
    assert outputs[0][0].split()[0] in os.listdir(tmp_path / "prepared")
    assert outputs[0][1] == ""
    assert len([name for name in os.listdir(tmp_path / "prepared") if not name.endswith(".lock")]) == 1


def test_killed_half_way_it_is_done_again(tmp_path):
    stored(tmp_path, dataset(TABLE))
    process = started(tmp_path, kill=True)
    process.communicate("go\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in os.listdir(tmp_path / "prepared"))
    found = cache.prepared(tmp_path, TABLE, {"scaler": "yeo-johnson"})
    assert np.isfinite(found.train.x).all()
    assert [name for name in os.listdir(tmp_path / "prepared") if not name.endswith(".lock")] == [found.folder.name]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    stored(tmp_path, dataset(TABLE))
    monkeypatch.setattr(os, "rename", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        cache.prepared(tmp_path, TABLE, {})
    assert [name for name in os.listdir(tmp_path / "prepared") if not name.endswith(".lock")] == []


def test_missing_and_damaged_files_are_run_errors(tmp_path):
    with pytest.raises(RunError, match=r"The stored data in .* cannot be read: .*Delete that folder"):
        cache.load_raw(tmp_path)
    with pytest.raises(RunError, match="The stored data in"):
        cache.load_row_names(tmp_path)
    stored(tmp_path, dataset(TABLE))
    found = cache.prepared(tmp_path, TABLE, {})
    (found.folder / "train_x.npy").write_bytes(b"")
    with pytest.raises(RunError, match=r"The prepared data in .* cannot be read: .*Delete that folder"):
        cache.prepared(tmp_path, TABLE, {})
    (tmp_path / "split.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match="The stored data in"):
        cache.load_raw(tmp_path)
