from __future__ import annotations

from pathlib import Path

import numpy as np

from tuner.config import SearchConfig
from tuner.search import setup
from tuner.search.context import discover_space

SPACE = """
import keras
from beside import UNITS

def build(hp):
    model = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense({extra}UNITS)])
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.1, 1.0)), "sparse_categorical_crossentropy")
    return model
"""


def test_a_run_keeps_to_its_own_copy_of_an_edited_space(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 255, (60, 9, 9), dtype=np.uint8), y=np.arange(60) % 2)
    (tmp_path / "beside.py").write_text("UNITS = 4\n")
    file = tmp_path / "space.py"
    file.write_text(SPACE.format(extra=""))
    config = SearchConfig(data=str(tmp_path / "data.npz"), space=f"{file}:build")
    folder, _ = setup.prepare(config, tmp_path / "run")
    file.write_text(SPACE.format(extra="10 * "))
    hypermodel, space = discover_space(folder)
    assert hypermodel.build(space.copy()).layers[1].units == 4
    file.unlink()
    assert discover_space(folder)[1].values.keys() >= {"rate"}
