"""The plain models that results are held against: known answers on data made for them, and the table of a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.floors import band_energies, exported, floors, judged, measured_floors, pixels, summaries
from tuner.config import SearchConfig
from tuner.data import cache
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import DatasetRecord, DataSpec
from tuner.search import setup
from tuner.store import RunFolder, write_json


def test_pixels_are_means_of_blocks_and_small_images_stay_as_they_are() -> None:
    image = np.arange(64 * 64).reshape(1, 64, 64, 1)
    shrunk = pixels(image)
    assert shrunk.shape == (1, 32 * 32)
    assert shrunk[0, 0] == np.mean([0, 1, 64, 65])
    assert pixels(image[:, :32, :32]).tolist() == image[:, :32, :32].reshape(1, -1).tolist()


def test_band_energies_tell_tones_apart_whatever_their_length() -> None:
    low, high = (np.sin(2 * np.pi * tone_hz * np.arange(8000) / 8000) for tone_hz in (300, 3100))
    low[6000:] = np.nan
    energies = band_energies(np.stack([low, high])).reshape(2, 16, 24).mean(axis=1)
    assert energies.argmax(axis=1).tolist() == [int(300 / 4000 * 24), int(3100 / 4000 * 24)]


def test_summaries_of_a_padded_series_are_those_of_what_is_there() -> None:
    series = np.array([[[1.0, np.nan], [2.0, np.nan], [6.0, np.nan], [np.nan, np.nan]]])
    found = summaries(series).reshape(-1, 2)
    assert found[:, 0] == pytest.approx([3.0, np.std([1, 2, 6]), 1, 6, 1, 6, 2.5])
    assert np.isnan(found[:, 1]).all()


def spec_of(kind: str, *, shape: tuple[int, ...] = (), task: str = "classification") -> DataSpec:
    classes = ("no", "yes") if task == "classification" else ()
    return DataSpec(form="table", kind=kind, task=task, input_shape=shape, class_names=classes)  # type: ignore[arg-type]


def test_each_kind_of_data_has_a_floor_that_learns_what_is_easy() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    texts = np.array([f"{'good' if code else 'bad'} {row}" for row, code in enumerate(y)], object)
    known = [
        (spec_of("image", shape=(8, 8, 1)), rng.normal(0, 1, (80, 8, 8, 1)) + 6 * y[:, None, None, None]),
        (spec_of("text"), texts),
        (spec_of("audio", shape=(2000,)), np.sin(np.outer(0.3 + y, np.arange(2000)))),
        (spec_of("series", shape=(9,)), rng.normal(0, 1, (80, 9)) + 6 * y[:, None]),
        (spec_of("series", shape=(9, 2)), rng.normal(0, 1, (80, 9, 2)) + 6 * y[:, None, None]),
    ]
    for spec, x in known:
        for name, model in floors(spec, is_balanced=True).items():
            assert np.mean(model.fit(x[:60], y[:60]).predict(x[60:]) == y[60:]) >= 0.9, name


def test_the_metrics_have_known_answers() -> None:
    truth, answers = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert judged(truth, answers, task="classification") == {"accuracy": 0.75, "balanced_accuracy": 0.5}
    assert judged(truth, truth.mean() + 0 * truth, task="regression") == {"r2": 0.0, "mse": 0.1875}


def test_a_regression_is_fitted_on_the_rows_of_the_split_and_judged_on_its_test_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (200, 3))
    x[5, 1] = np.nan
    y = np.where(np.arange(200) < 150, x[:, 0], -x[:, 0])  # The test rows alone obey another law.
    split = Split(np.arange(100), np.arange(100, 150), np.arange(150, 200))
    spec = spec_of("series", shape=(3,), task="regression")
    folder = RunFolder(tmp_path)
    names = tuple(map(str, range(200)))
    cache.save_raw(folder.data_dir, Dataset(name="law", spec=spec, x=x, y=y, row_names=names), split)
    write_json(
        folder.dataset_file,
        DatasetRecord("law", spec, "", 100, 50, 50, (), 1, chance_loss=1.0, chance_error=1.0, metric="loss"),
    )
    assert exported(folder) == {}
    found = list(measured_floors(folder))
    assert [part for _, part, _ in found] == ["training", "training + validation"] * 2
    assert all(figures["r2"] < -1 for _, _, figures in found)


def test_the_digits_have_their_known_floor_and_what_was_exported_stands_beside_it(tmp_path: Path) -> None:
    folder, _ = setup.prepare(SearchConfig(), tmp_path / "run")
    write_json(folder.test_file, {"0/1": {"accuracy": 0.5, "balanced_accuracy": 0.5}})
    assert all(figures["accuracy"] > 0.9 for _, _, figures in measured_floors(folder))
    assert exported(folder)["0/1"]["accuracy"] == 0.5
    write_json(folder.test_file, {"0/1": {"rmse": 2.0, "r2": 0.1}})
    assert exported(folder)["0/1"]["mse"] == 4.0
