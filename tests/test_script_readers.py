"""The script of a bundle reads sounds and series, and splits them, as the search did."""

from __future__ import annotations

import importlib.util

import keras
import numpy as np
import pytest
import soundfile
from PIL import Image

from tuner.bundle import BundleConfig
from tuner.config import SearchConfig
from tuner.data import cache
from tuner.export import write_bundle
from tuner.search import setup
from tuner.search.context import prepared_data


def sounds(root, shift_hz=0):
    """Two classes of three speakers; one sound in stereo at another rate, one empty file."""
    for code, name in enumerate(("no", "yes")):
        (root / name).mkdir(parents=True)
        for number in range(12):
            rate_hz = 11_025 if number == 5 else 8000
            times = np.arange(round(rate_hz * (0.1 + 0.01 * (number % 3)))) / rate_hz
            wave = 0.5 * np.sin(2 * np.pi * (300 + shift_hz + 200 * code + 9 * number) * times)
            wave = np.stack([wave, 0.3 * wave], axis=1) if number == 5 else wave
            soundfile.write(root / name / f"{name}_{'abc'[number % 3]}_{number}.wav", wave, rate_hz)
    (root / "no" / "empty.wav").write_bytes(b"")
    return {"data": str(root), "group": "part2"}


def recording(root):
    """Rows out of order, by date, with gaps; no label in some."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [
        f"2024-03-{1 + row // 24:02d} {row % 24:02d}:00;{row},5;{'' if row % 9 == 0 else -row};{row // 9 % 2}"
        for row in range(400)
    ]
    (root / "r.csv").write_text("\n".join(["when;a;b;label", *rng.permutation(rows)]) + "\n")
    return {"data": str(root / "r.csv"), "time": "when", "window": 12, "stride": 4}


def recordings(root):
    """Three recordings of numbers to predict, without a header."""
    root.mkdir()
    rows = [f"{step},{np.sin(step + number):.4f},{number},{0.5 * step}" for number in range(8) for step in range(40)]
    (root / "r.csv").write_text("\n".join(rows) + "\n")
    return {"data": str(root / "r.csv"), "series_id": "c2", "window": 10, "task": "regression"}


def long_table(root):
    """Series of three lengths; one without a target."""
    root.mkdir()
    rows = [
        f"s{number},{step},{number + step},{'' if number == 3 else number % 2}"
        for number in range(40)
        for step in range(5 + number % 3)
    ]
    (root / "long.csv").write_text("\n".join(["who,t,a,label", *rows]) + "\n")
    return {"data": str(root / "long.csv"), "series_id": "who", "time": "t"}


def long_table_of_numbers(root):
    """Series to predict a number for; one without a target, one with an infinite one."""
    root.mkdir()
    targets = {3: "", 4: "inf"}
    rows = [f"s{number},{step + number},{targets.get(number, number / 3)}" for number in range(40) for step in range(5)]
    (root / "long.csv").write_text("\n".join(["who,a,label", *rows]) + "\n")
    return {"data": str(root / "long.csv"), "series_id": "who"}


def folder_of_series(root):
    """One table each, and a table of targets and one of rooms."""
    root.mkdir()
    for number in range(30):
        rows = [f"{number + step}\t{-step}" for step in range(5 + number % 3)]
        (root / f"walk_{number}.tsv").write_text("\n".join(["a\tb", *rows]) + "\n")
    for name, column in (("target", "speed"), ("room", "room")):
        value = (lambda number: 0.5 * number + 0.1) if name == "target" else (lambda number: number % 6)
        lines = [f"{number},{value(number)}" for number in range(30)]
        (root / f"walk_{name}.csv").write_text("\n".join([f"id,{column}", *lines]) + "\n")
    return {"data": str(root), "group": "room"}


def sounds_in_parts(root):
    """Sub-folders train, val and test."""
    for number, part in enumerate(("train", "val", "test")):
        sounds(root / part, shift_hz=3 * number)
    return {"data": str(root)}


def recording_with_a_test(root):
    """A test recording of its own."""
    options = recording(root)
    other = recording(root / "later")
    return options | {"test": other["data"]}


def folders_of_series(root):
    """Class folders, with a validation folder elsewhere."""
    for part, count in (("main", 30), ("elsewhere", 6)):
        for number in range(count):
            folder = root / part / ("up" if number % 2 else "down")
            folder.mkdir(parents=True, exist_ok=True)
            rows = [f"{len(part) + number + step},{-step}" for step in range(5 + number % 3)]
            (folder / f"{number}.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    return {"data": str(root / "main"), "validation": str(root / "elsewhere")}


def series_in_parts(root):
    """Sub-folders train and test, each with its table of targets."""
    root.mkdir()
    folder_of_series(root / "train")
    (root / "test").mkdir()
    for number in range(6):
        rows = [f"{100 + number + step}\t{-step}" for step in range(5 + number % 3)]
        (root / "test" / f"walk_{number}.tsv").write_text("\n".join(["a\tb", *rows]) + "\n")
    lines = [f"{number},{0.5 * number + 0.1}" for number in range(6)]
    (root / "test" / "walk_target.csv").write_text("\n".join(["id,speed", *lines]) + "\n")
    return {"data": str(root)}


def arrays_side_by_side(root):
    """Files x_train.npy and so on."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 6), ("test", 8)):
        np.save(root / f"X_{part}.npy", rng.normal(size=(count, 9, 2)).astype(np.float32))
        np.save(root / f"y_{part}.npy", np.arange(count) % 2)
    return {"data": str(root / "X_train.npy"), "kind": "series"}


def labelled_images(root):
    """Files without class folders, several labels each, in lists; a test part elsewhere with its own table."""
    rng = np.random.default_rng(0)
    for part, count in (("main", 40), ("test", 6)):
        (root / part / "deep").mkdir(parents=True)
        lines = ["picture,tags"]
        for number in range(count):
            name = f"deep/{number}.png" if number % 2 else f"{number}.png"
            Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(root / part / name)
            lines.append(f"{number}.png,{('sky; sun', 'sea', '', 'sky;sea;sun')[number % 4]}")
        (root / part / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"data": str(root / "main"), "test": str(root / "test")}


def sounds_with_numbers(root):
    """Sounds, each with a number to predict, in a table elsewhere."""
    options = sounds(root / "sounds")
    lines = [f"{name}_{'abc'[number % 3]}_{number},{number / 4}" for name in ("no", "yes") for number in range(11)]
    (root / "pitch.csv").write_text("\n".join(["sound,pitch", *lines]) + "\n")
    return options | {"labels": str(root / "pitch.csv")}


@pytest.mark.parametrize(
    "make",
    [
        labelled_images,
        sounds_with_numbers,
        sounds,
        sounds_in_parts,
        recording,
        recording_with_a_test,
        recordings,
        long_table,
        long_table_of_numbers,
        folder_of_series,
        folders_of_series,
        series_in_parts,
        arrays_side_by_side,
    ],
)
def test_script_reads_and_splits_as_the_search_did(make, tmp_path):
    config = SearchConfig.model_validate(make(tmp_path / "data") | {"force": True})
    folder, dataset = setup.prepare(config, tmp_path / "run")
    write_bundle(
        tmp_path / "bundle",
        _bundle_config(config, dataset),
        model=_any_model(),
        prepared=prepared_data(folder, dataset, {}),
        space_file=folder.space_file,
        data_dir=folder.data_dir,
    )
    spec = importlib.util.spec_from_file_location("train", tmp_path / "bundle" / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x, y, given = script.read_data(config.data)
    expected_x, expected_y, parts = cache.load_raw(folder.data_dir)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)
    for found, expected in zip(script.split(y, given), (parts.train, parts.validation, parts.test), strict=True):
        np.testing.assert_array_equal(found, expected)
    fitted = script.PIPELINE.fit(x[parts.train])
    prepared = np.asarray(prepared_data(folder, dataset, {}).validation.x)
    np.testing.assert_array_equal(fitted.transform(x[parts.validation]), prepared)


def _any_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _bundle_config(config, dataset):
    return BundleConfig(
        run="run",
        trial=0,
        source=config.data,
        fingerprint=dataset.fingerprint,
        data=dataset.spec,
        space=dataset.spec.kind,
        hyperparameters={},
        epochs=1,
        seed=0,
        split_seed=config.seed,
        metric=dataset.metric,
        stability_weight=0.2,
        validation={},
        test={},
        stability=1.0,
    )
