from __future__ import annotations

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest

from tuner.data import cache, choices, pipelines
from tuner.data.dataset import Dataset
from tuner.data.pipelines import output_shape
from tuner.data.split import make_split
from tuner.data.transformers import AddChannel, channels
from tuner.errors import ConfigError, EnvironmentFault, RunError
from tuner.records import DataSpec

RANDOM = np.random.default_rng(0)
IMAGE = DataSpec("npz", "image", "classification", (6, 5, 3), ("a", "b"))
SERIES = DataSpec("npz", "series", "classification", (9, 2), ("a", "b"))
TABLE = DataSpec("table", "series", "regression", (4,), target="y", feature_names=("a", "b", "c", "d"))
PADDED = DataSpec("sequence_folder", "series", "classification", (9, 2), ("a", "b"), is_padded=True)
TEXT = DataSpec("text_table", "text", "classification", (), ("a", "b"))
SOUND = DataSpec("audio_folder", "audio", "classification", (500,), ("a", "b"), sample_rate_hz=8000, is_padded=True)
KINDS = {"image": IMAGE, "series": SERIES, "table": TABLE, "padded": PADDED, "text": TEXT, "sound": SOUND}
SPECS = pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)


def dataset(spec, count=60):
    if spec.kind == "image":
        x = RANDOM.integers(0, 256, (count, *spec.input_shape), dtype=np.uint8)
    elif spec is TEXT:
        x = np.array([" ".join(RANDOM.choice(list("abcdé我"), 1 + row % 9)) for row in range(count)], object)
    else:
        x = RANDOM.normal(3, 2, (count, *spec.input_shape))
    if spec.is_padded:
        x[::3, 6:] = np.nan
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
    assert isinstance(x, np.memmap) or spec is TEXT
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
        assert part.x.dtype == (np.int32 if spec is TEXT else np.float32)
        assert part.x.shape == (len(rows), *output_shape(spec, {}))
        # Chunks of another size round sums of products otherwise.
        np.testing.assert_allclose(part.x, found.pipeline.transform(data.x[rows]), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(part.y, cache.scaled_target(data.y[rows], found.target_scaler))
    monkeypatch.setattr(cache, "CHUNK_VALUES", 16)
    pieces = list(cache.test_parts(tmp_path, found, spec))
    assert len(pieces) > 1
    test = np.concatenate([piece.x for piece in pieces])
    np.testing.assert_allclose(test, found.pipeline.transform(data.x[split.test]), rtol=1e-5, atol=1e-5)
    targets = np.concatenate([piece.y for piece in pieces])
    np.testing.assert_array_equal(targets, cache.scaled_target(data.y[split.test], found.target_scaler))
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
    poisoned_x[held_out] = {"image": 255, "text": "poison " * 600}.get(spec.kind, 1e12)
    if spec.task == "regression":
        poisoned_y[held_out] = -1e12
    poisoned = Dataset("d", spec, poisoned_x, poisoned_y, data.row_names)
    cache.save_raw(tmp_path / "poisoned", poisoned, split)
    assert proposals(data, split) == proposals(poisoned, split)
    for params in ({}, *({choice.name: value} for choice in all_choices(spec) for value in choice.values)):
        clean, dirty = (cache.prepared(tmp_path / name, spec, params) for name in ("clean", "poisoned"))
        np.testing.assert_array_equal(clean.train.x, dirty.train.x)
        np.testing.assert_array_equal(clean.train.y, dirty.train.y)
        assert state(clean.pipeline) == state(dirty.pipeline)


def proposals(data, split):
    return choices.proposals(data.spec, data.x, rows=split.train, findings=())


def all_choices(spec):
    return choices.offered(spec, has_missing=True, imbalance=1.0)


def state(estimator):
    """Everything that was fitted, as text."""
    found = {}
    for name, value in sorted(vars(estimator).items()):
        are_parts = name in ("steps", "transformer_list")
        nested = [value] if hasattr(value, "get_params") else [step for _, step in value] if are_parts else []
        found[name] = (
            [state(part) for part in nested] if nested else np.array2string(np.asarray(value), threshold=10**6)
        )
    return found


def test_folder_is_shared_and_only_choices_that_matter_make_a_new_one(tmp_path):
    stored(tmp_path, dataset(TABLE))
    first = cache.prepared(tmp_path, TABLE, {"scaler": "standard", "balance": "none", "units": "7"})
    changed = (first.folder / "train_x.npy").stat().st_mtime_ns
    again = cache.prepared(tmp_path, TABLE, {"balance": "class_weights"})
    other = cache.prepared(tmp_path, TABLE, {"scaler": "robust"})
    assert first.folder == again.folder != other.folder
    assert (again.folder / "train_x.npy").stat().st_mtime_ns == changed


def test_choices_that_make_the_same_pipeline_share_a_folder(tmp_path):
    stored(tmp_path, dataset(SOUND))
    wave = cache.prepared(tmp_path, SOUND, {"front_end": "wave", "mels": "32"})
    assert wave.folder == cache.prepared(tmp_path, SOUND, {"front_end": "wave", "mels": "64"}).folder


def test_texts_of_any_characters_come_back(tmp_path):
    texts = ["", "\n\r\t", "\x00 \u2028", "\ud800", '"quoted"', "我们", "a" * 10_000]
    data = dataset(TEXT, 12)
    data.x[: len(texts)] = texts
    stored(tmp_path, data)
    assert cache.load_raw(tmp_path)[0].tolist() == data.x.tolist()


LARGE_SHAPES = {"image": (16, 16, 3), "padded": (64, 8), "sound": (4000,)}


@pytest.mark.parametrize("kind", LARGE_SHAPES)
def test_memory_is_bounded_by_the_pieces_not_by_the_data(kind, tmp_path, monkeypatch):
    """Measured: 0.9 to 1.5 MB for 0.3, 3, 5 and 12 million values alike; texts are in memory as they are."""
    for module, name in ((cache, "CHUNK_VALUES"), (cache, "FIT_VALUES"), (channels, "CHUNK_VALUES")):
        monkeypatch.setattr(module, name, 20_000)
    shape = LARGE_SHAPES[kind]
    spec = dataclasses.replace(KINDS[kind], input_shape=shape)
    few, count = dataset(spec, 100), 5_000_000 // math.prod(shape)
    stored(tmp_path, Dataset("d", spec, np.resize(few.x, (count, *shape)), np.resize(few.y, count), ()))
    params = {"front_end": "wave"} if kind == "sound" else {"scaler": "minmax"}
    stored(tmp_path / "few", few)
    cache.prepared(tmp_path / "few", spec, params)  # whatever is imported or kept on first use
    tracemalloc.start()
    try:
        found = cache.prepared(tmp_path, spec, params)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.train.x.nbytes > 13e6
    assert peak_bytes < 7e6


def test_large_data_are_fitted_on_a_part_and_refined_on_all(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache, "FIT_VALUES", 40)
    data = dataset(TABLE)
    split = stored(tmp_path, data)
    with caplog.at_level("INFO", logger="tuner.data.cache"):
        found = cache.prepared(tmp_path, TABLE, {"scaler": "minmax", "outliers": "none"})
    assert "the pipeline is fitted on 10 of 42 training rows, drawn at random" in caplog.text
    np.testing.assert_allclose(found.train.x.min(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(found.train.x.max(axis=(0, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(found.pipeline[-2].data_max_, data.x[split.train].max(axis=0))


def disk_of(monkeypatch, free_bytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free_bytes))


@pytest.mark.parametrize(("free_bytes", "fits"), [(858, False), (860, True)])
def test_a_disk_that_is_too_full_is_said_before_the_work(free_bytes, fits, tmp_path, monkeypatch):
    stored(tmp_path, dataset(TABLE))  # 51 rows to train and validate, of 4 values of 4 bytes: 816 bytes
    disk_of(monkeypatch, free_bytes)
    if fits:
        cache.prepared(tmp_path, TABLE, {})
        return
    with pytest.raises(EnvironmentFault, match=r"needs [\d.]+ MB for the data, and its disk has [\d.]+ MB free"):
        cache.prepared(tmp_path, TABLE, {})
    with pytest.raises(EnvironmentFault, match=r"Free some space, or give --run a folder on another disk"):
        stored(tmp_path / "other", dataset(TABLE))


def test_what_was_not_used_for_longest_makes_room(tmp_path, monkeypatch):
    stored(tmp_path, dataset(TABLE))
    folders = [cache.prepared(tmp_path, TABLE, {"scaler": name}).folder for name in ("standard", "robust", "minmax")]
    for age, folder in enumerate(folders):
        os.utime(folder, (age, age))
    cache.prepared(tmp_path, TABLE, {"scaler": "standard"})
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: types.SimpleNamespace(free=500 if folders[1].is_dir() else 10_000)
    )
    new = cache.prepared(tmp_path, TABLE, {"skew": "log"}).folder
    assert [folder.is_dir() for folder in (*folders, new)] == [True, False, True, True]


def test_a_folder_that_was_removed_in_between_is_made_again(tmp_path, monkeypatch):
    stored(tmp_path, dataset(TABLE))
    first = cache.prepared(tmp_path, TABLE, {})
    load, removals = pipelines.load, iter([True])

    def load_after_removal(path):
        if next(removals, False):
            shutil.rmtree(first.folder)
        return load(path)

    monkeypatch.setattr(pipelines, "load", load_after_removal)
    again = cache.prepared(tmp_path, TABLE, {})
    np.testing.assert_array_equal(again.train.x, first.train.x)


@SPECS
def test_estimate_is_the_size_on_the_disk(spec, tmp_path):
    stored(tmp_path, dataset(spec))
    found = cache.estimate(tmp_path, spec, {})
    data = cache.prepared(tmp_path, spec, {})
    assert found.size_bytes == data.train.x.nbytes + data.validation.x.nbytes
    assert found.free_bytes > 0
    assert found.seconds > 0


def test_progress_of_the_preparation_can_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_VALUES", 4000)
    stored(tmp_path, dataset(TABLE, 9000))
    assert cache.preparing_frac(tmp_path) is None
    seen = []
    transform = AddChannel.transform

    def watched(self, x):
        seen.append(cache.preparing_frac(tmp_path))
        return transform(self, x)

    monkeypatch.setattr(AddChannel, "transform", watched)
    cache.prepared(tmp_path, TABLE, {})
    assert 0 <= seen[0] < seen[-1] <= 1
    assert cache.preparing_frac(tmp_path) is None


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
found = cache.prepared(Path({folder!r}), spec, {{"skew": "yeo-johnson"}})
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
    found = cache.prepared(tmp_path, TABLE, {"skew": "yeo-johnson"})
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
