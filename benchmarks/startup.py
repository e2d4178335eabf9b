"""How long until something happens: the light commands, and the first training step of a search.

    python -m benchmarks.startup

Each against what is bare in the same run: an empty Python, and a script that imports Keras, builds the same network and
trains it on the same data. The aim is `python -m tuner --help` under 0.5 s on two cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPEATS = 7
REPEATS_OF_SEARCH = 3
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import tuner": ["-c", "import tuner"],
    "tuner --help": ["-m", "tuner", "--help"],
    "tuner search --help": ["-m", "tuner", "search", "--help"],
    "tuner status --help": ["-m", "tuner", "status", "--help"],
}
# Notes the time of the first step into the file that the environment names.
NETWORK = """
import os
import time

import keras


class FirstStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if not os.path.exists(os.environ["FIRST_STEP"]):
            with open(os.environ["FIRST_STEP"], "w") as file:
                file.write(str(time.time()))


class Space(__import__("keras_tuner").HyperModel if "keras_tuner" in os.environ["NEEDS"] else object):
    def build(self, hp):
        rate = hp.Float("learning_rate", 1e-4, 1e-2) if hp else 1e-3
        layers = [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten()]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10, activation="softmax")])
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        return model.fit(*args, callbacks=[*callbacks, FirstStep()], **kwargs)
"""
BARE = """
from sklearn.datasets import load_digits
from network import Space

digits = load_digits()
space = Space()
space.fit(None, space.build(None), digits.images[..., None] / 16, digits.target, epochs=1, verbose=0)
"""


def seconds(arguments: list[str]) -> float:
    """Wall time of a command, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_to_first_step(arguments: list[str], place: Path, *, needs: str) -> float:
    """From the start of a command to the end of the first step of a training in it, in seconds."""
    file = place / "first_step"
    file.unlink(missing_ok=True)
    environment = os.environ | {"FIRST_STEP": str(file), "NEEDS": needs, "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.time()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    if not file.is_file():
        raise SystemExit(f"No step was taken:\n{done.stderr[-2000:]}")
    return float(file.read_text(encoding="ascii")) - started


def show(title: str, measures: dict[str, Callable[[], float]], *, repeats: int) -> None:
    """Print medians, and ratios to the first; the repetitions take turns."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            times[name].append(measure())
    table = Table(title=f"{title}, median of {repeats}")
    first = next(iter(times))
    for heading in ("command", "seconds", f"times {first}"):
        table.add_column(heading)
    for name, values in times.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.3f}", f"{median / statistics.median(times[first]):.1f}")
    Console(width=100).print(table)


def main() -> None:
    """Print two tables of seconds and ratios."""
    measures = {name: lambda arguments=arguments: seconds(arguments) for name, arguments in COMMANDS.items()}
    show("start of a command", measures, repeats=REPEATS)
    with tempfile.TemporaryDirectory(prefix="tuner-startup-") as root:
        place = Path(root)
        (place / "network.py").write_text(NETWORK, encoding="utf-8")
        (place / "bare.py").write_text(BARE, encoding="utf-8")
        runs = iter(range(REPEATS_OF_SEARCH + 1))

        def search() -> float:
            command = ["-m", "tuner", "search", "--space", f"{place / 'network.py'}:Space", "--run"]
            command += [str(place / f"run{next(runs)}"), "--trials", "1", "--epochs", "1", "--confirm", "0"]
            return seconds_to_first_step(command, place, needs="keras_tuner")

        def bare() -> float:
            return seconds_to_first_step([str(place / "bare.py")], place, needs="")

        show("until the first training step", {"bare script": bare, "tuner search": search}, repeats=REPEATS_OF_SEARCH)


if __name__ == "__main__":
    main()
