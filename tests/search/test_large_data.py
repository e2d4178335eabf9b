"""Data larger than the memory: from the file to predictions, every process kept below the size of the samples."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

# What a process may have beside files that it maps; TensorFlow alone takes 0.5 GB of it.
LIMIT_BYTES = 1_500_000_000
ROWS, STEPS, CHANNELS = 80_000, 50, 100

SPACE = f"""
import keras


def build(hp):
    layers = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential([keras.Input(({STEPS}, {CHANNELS})), *layers])
    rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


def written(folder):
    """Series whose level tells the class; samples of 1.6 GB."""
    folder.mkdir()
    y = np.arange(ROWS) % 2
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (ROWS, STEPS, CHANNELS))
    random = np.random.default_rng(0)
    for start in range(0, ROWS, 1000):
        rows = slice(start, start + 1000)
        x[rows] = random.normal(size=(1000, STEPS, CHANNELS)) + y[rows, np.newaxis, np.newaxis] / 2
    x.flush()
    assert x.nbytes > LIMIT_BYTES
    np.save(folder / "y.npy", y)
    return y


def tuner(*arguments):
    """Run a command in the limits, which its workers inherit."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES)),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process has beside mapped files")
def test_data_larger_than_the_memory_are_searched_exported_and_predicted(tmp_path):
    data, run, bundle, predictions = (tmp_path / name for name in ("data", "run", "bundle", "predictions.csv"))
    y = written(data)
    space = tmp_path / "space.py"
    space.write_text(SPACE)
    options = ["--kind", "series", "--space", f"{space}:build", "--trials", 1, "--epochs", 1, "--workers", 1]
    found = json.loads(tuner("search", data, *options, "--confirm", 0, "--run", run, "--json"))
    assert found["trials"]["completed"] == 1
    assert found["best"]["val_accuracy"] > 0.99
    tuner("export", run, "-o", bundle)
    tuner("predict", bundle, data / "x.npy", "-o", predictions)
    answers = np.loadtxt(predictions, delimiter=",", skiprows=1, usecols=1)
    assert np.mean(answers == y) > 0.99
