"""Whatever is learned from data is learned on its training part: poison in the other parts changes none of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tuner.config import SearchConfig
from tuner.data import balance, cache, choices
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import DataSpec
from tuner.search import setup

NUM_TRAIN, NUM_ROWS = 60, 100
PARTS = Split(np.arange(NUM_TRAIN), np.arange(NUM_TRAIN, 80), np.arange(80, NUM_ROWS))
RANDOM = np.random.default_rng(0)


def table():
    x = RANDOM.lognormal(size=(NUM_ROWS, 5))
    x[RANDOM.random(x.shape) < 0.1] = np.nan
    return DataSpec("table", "series", "classification", (5,), ("a", "b")), x, 1e6


def image():
    x = RANDOM.integers(0, 200, (NUM_ROWS, 9, 9, 1), dtype=np.uint8)
    return DataSpec("npz", "image", "classification", (9, 9, 1), ("a", "b")), x, 255


def series():
    x = RANDOM.normal(5, 2, (NUM_ROWS, 12, 3))
    for row in range(NUM_ROWS):
        x[row, 6 + row % 7 :] = np.nan
    return DataSpec("long_table", "series", "classification", (12, 3), ("a", "b"), is_padded=True), x, 1e6


def audio():
    x = RANDOM.normal(0, 0.1, (NUM_ROWS, 4000)).astype(np.float32)
    x[::3, 3000:] = np.nan
    spec = DataSpec("audio_folder", "audio", "classification", (4000,), ("a", "b"), sample_rate_hz=8000, is_padded=True)
    return spec, x, 1e3


def text():
    words = np.array(["red", "green", "blue", "sun", "moon"])
    x = np.array([" ".join(RANDOM.choice(words, 6)) for _ in range(NUM_ROWS)], dtype=object)
    return DataSpec("text_table", "text", "classification", (), ("a", "b")), x, "poison poison 毒 " * 30


KINDS = {make.__name__: make for make in (table, image, series, audio, text)}


def clean_and_poisoned(spec, x, poison):
    """The same data twice; the second with other values and labels outside the training part."""
    y = np.arange(NUM_ROWS) % 2
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[NUM_TRAIN:], bad_y[NUM_TRAIN:] = poison, 1
    names = tuple(map(str, range(NUM_ROWS)))
    return [Dataset("d", spec, values, codes, names) for values, codes in ((x, y), (bad_x, bad_y))]


def all_choices(spec):
    """The defaults, and every other value of each choice."""
    offered = choices.offered(spec, has_missing=True, imbalance=20.0)
    yield {}
    for choice in offered:
        yield from ({choice.name: value} for value in choice.values if value != choice.default)


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_pipelines_and_vocabularies(kind, tmp_path):
    spec, *values = KINDS[kind]()
    folders = [tmp_path / name for name in ("clean", "poisoned")]
    for folder, dataset in zip(folders, clean_and_poisoned(spec, *values), strict=True):
        cache.save_raw(folder, dataset, PARTS)
    for params in all_choices(spec):
        clean, poisoned = (cache.prepared(folder, spec, params) for folder in folders)
        np.testing.assert_array_equal(clean.train.x, poisoned.train.x, err_msg=str(params))
        # New samples come out the same, too: nothing else was learned.
        again = [each.pipeline.transform(values[0][:7]) for each in (clean, poisoned)]
        np.testing.assert_array_equal(*again, err_msg=str(params))
        assert not np.array_equal(clean.validation.x, poisoned.validation.x), params


def test_scaled_targets(tmp_path):
    spec, x, _ = table()
    spec = dataclasses.replace(spec, task="regression", class_names=())
    y = RANDOM.normal(10, 3, NUM_ROWS)
    bad_y = np.where(np.arange(NUM_ROWS) < NUM_TRAIN, y, 1e9)
    names = tuple(map(str, range(NUM_ROWS)))
    scaled = []
    for name, targets in (("clean", y), ("poisoned", bad_y)):
        cache.save_raw(tmp_path / name, Dataset("d", spec, x, targets, names), PARTS)
        scaled.append(cache.prepared(tmp_path / name, spec, {}).train.y)
    np.testing.assert_array_equal(*scaled)


def test_chance_levels_class_weights_and_metric():
    records, weights = [], []
    for dataset in clean_and_poisoned(*table()):
        # All labels outside the training part are of one class: over all parts they are 7:3.
        record = setup.describe_dataset(SearchConfig(), dataset, PARTS, findings=())
        records.append((record.chance_loss, record.chance_error, record.metric, record.proposed))
        weights.append(balance.class_weights(dataset.y[PARTS.train]))
    assert records[0] == records[1]
    assert records[0][-1] == {"outliers": "clip", "skew": "yeo-johnson"}
    assert weights[0] == weights[1] == {0: 1.0, 1: 1.0}


@pytest.mark.parametrize(("num_small", "metric"), [(14, "balanced_accuracy"), (15, "accuracy")])
def test_the_metric_follows_the_training_part_alone(num_small, metric):
    """15 of 60 training rows are 3:1, 14 are less; the other parts are all of the small class."""
    spec, x, _ = table()
    y = np.ones(NUM_ROWS, np.int64)
    y[num_small:NUM_TRAIN] = 0
    dataset = Dataset("d", spec, x, y, tuple(map(str, range(NUM_ROWS))))
    assert setup.describe_dataset(SearchConfig(), dataset, PARTS, findings=()).metric == metric


def test_texts_that_the_defaults_are_proposed_by():
    spec, *values = text()
    proposed = [
        choices.proposals(spec, dataset.x, rows=PARTS.train, findings=())
        for dataset in clean_and_poisoned(spec, *values)
    ]
    assert proposed[0] == proposed[1]
