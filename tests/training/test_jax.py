"""The monitor, the guard and a whole search under JAX, each in a process of its own: a backend is chosen once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

# Weight 1 without bias, no update: of a batch of value v the loss is v^2 and the gradient 2 v^2.
SCRIPT = """
import json, sys
import keras
import numpy as np
from tuner import StabilityMonitor

steps_per_execution = int(sys.argv[1])
model = keras.Sequential([
    keras.Input((1,)),
    keras.layers.Dense(
        1, use_bias=False, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5)
    ),
])
schedule = keras.optimizers.schedules.CosineDecayRestarts(1e-9, first_decay_steps=5, t_mul=1.0)
model.compile(keras.optimizers.SGD(schedule), "mean_squared_error", steps_per_execution=steps_per_execution)
x = np.arange(1.0, 7.0, dtype="float32").repeat(2)[:, None]
monitor = StabilityMonitor(1.0, probes=True, probe_data=(x, 0 * x))
model.fit(
    x, 0 * x, batch_size=2, epochs=2, shuffle=False, verbose=0,
    validation_data=(x[:3], 0 * x[:3]), callbacks=[monitor],
)
trace = monitor.trace
print(json.dumps({
    "backend": keras.backend.backend(),
    "step_loss": trace.step_loss.tolist(),
    "grad_norm": trace.grad_norm.tolist(),
    "train_loss": trace.train_loss.tolist(),
    "validation_loss": trace.validation_loss.tolist(),
    "channels": {name: values.tolist() for name, values in trace.channels.items()},
    "events": trace.events,
    "is_aside": monitor.is_aside,
}))
"""

# The guard in a sound training, at a rate far too high, and over labels one of which is infinite.
GUARDED = """
import json
import keras
import numpy as np
from sklearn.datasets import load_digits
from tuner import SpikeGuard

x, y = load_digits(return_X_y=True)
x, y = (x / 16).astype("float32")[:500], y[:500]
numbers = (y - 4.5) / 2.9
numbers[17] = np.inf


def fitted(labels, *, rate, guard=None):
    keras.utils.set_random_seed(3)
    is_number = labels is numbers
    layers = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    output = keras.layers.Dense(1) if is_number else keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input((64,)), *layers, output])
    model.compile(keras.optimizers.Adam(rate), "mean_squared_error" if is_number else "sparse_categorical_crossentropy")
    callbacks = [guard] if guard else []
    history = model.fit(x, labels, batch_size=20, epochs=4, verbose=0, callbacks=callbacks).history
    return {
        "loss": history["loss"],
        "weights": float(sum(np.abs(values).sum() for values in model.get_weights())),
        "rate": float(model.optimizer.learning_rate),
        "is_gated_still": "apply" in vars(model.optimizer),
        "is_aside": guard is not None and guard.is_aside,
        "events": guard.trace.events if guard else (),
        "rates": guard.trace.learning_rate.tolist() if guard else [],
        "findings": [(finding.code, finding.evidence) for finding in guard.findings] if guard else [],
    }


print(json.dumps({
    "plain": fitted(y, rate=1e-2),
    "sound": fitted(y, rate=1e-2, guard=SpikeGuard()),
    "unguarded": fitted(y, rate=0.5),
    "guarded": fitted(y, rate=0.5, guard=SpikeGuard()),
    "infinite": fitted(numbers, rate=1e-2, guard=SpikeGuard()),
}))
"""

# Trainings that differ in numbers, in one program and each by itself.
SHARED = """
import json, sys
sys.path.insert(0, "tests/training")
import numpy as np
from sklearn.datasets import load_digits
from test_programs import TrainingData, trained

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
data = TrainingData(x[:200], y[:200], x[200:300], y[200:300])
differing = [
    {"warmup": 4},
    {"warmup": 8, "rate": 3e-2, "l1": 1e-3, "clip": 0.3},
    {"warmup": 4, "l2": 1e-2, "dropout": 0.5, "seed": 6, "options": {"is_guarded": False}},
    {"warmup": 4, "dropout": 0.0},
]
found = []
for values in differing:
    shared, alone = (trained(data, is_shared=is_shared, **values) for is_shared in (True, False))
    pairs = [(getattr(shared.trace, name), getattr(alone.trace, name)) for name in ("step_loss", "validation_loss")]
    pairs += zip(shared.model.get_weights(), alone.model.get_weights(), strict=True)
    difference = max(float(np.max(np.abs(first - second))) for first, second in pairs)
    found.append((shared.run.program, shared.run.message, difference, shared.trace.step_loss[-1]))
print(json.dumps(found))
"""


# A training that is interrupted after its second epoch and goes on, beside one that is not.
RESUMED = """
import json, pathlib, sys
import keras
import keras_tuner
import numpy as np
from sklearn.datasets import load_digits
from tuner.stability.judgement import Judgement
from tuner.training.seedrun import StopTraining, TrainingData, train

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
data = TrainingData(x[:300], y[:300], x[300:400], y[300:400])


def build(hp):
    layers = keras.layers
    model = keras.Sequential([keras.Input((64,)), layers.Dropout(0.3), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


class Space(keras_tuner.HyperModel):
    def build(self, hp):
        return build(hp)


def trained(file=None, on_epoch=None):
    judgement = Judgement(metric="accuracy", chance_loss=2.3, chance_error=0.9, num_validation=100, num_classes=10)
    return train(
        Space(), keras_tuner.HyperParameters(), data=data, judgement=judgement, epochs=4, seed=5,
        checkpoint_file=file, on_epoch=on_epoch,
    )


def stop(epoch, trace):
    if epoch == 1:
        raise StopTraining


def told(training):
    weights = [values.tolist() for values in training.model.get_weights()]
    return [training.trace.step_loss.tolist(), training.trace.validation_loss.tolist(), weights]


expected = told(trained())
file = pathlib.Path(sys.argv[1])
try:
    trained(file, stop)
except StopTraining:
    np.random.seed(99)
epochs = []
resumed = trained(file, lambda epoch, trace: epochs.append(epoch))
print(json.dumps({"epochs": epochs, "is_same": told(resumed) == expected}))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_known_losses_and_gradients_are_recorded(steps_per_execution):
    # keras 3.15 with NumPy 2: the one warning that is not ours (see setup.cfg).
    done = run("-W", "error::UserWarning", "-W", "error::RuntimeWarning", "-c", SCRIPT, str(steps_per_execution))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    squares = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0]
    assert found["backend"] == "jax"
    assert not found["is_aside"]
    assert found["step_loss"] == pytest.approx(squares * 2, rel=1e-5)
    # The penalty 0.5 w^2 adds w = 1 to the gradient, and nothing to the loss.
    assert found["grad_norm"] == pytest.approx([2 * square + 1 for square in squares] * 2, rel=1e-5)
    assert found["train_loss"] == pytest.approx([sum(squares) / 6] * 2, rel=1e-5)
    assert found["validation_loss"] == pytest.approx([2.0] * 2, rel=1e-5)
    assert found["events"] == [[5, "warm_restart"], [10, "warm_restart"]]
    assert found["channels"]["regularisation_frac"] == pytest.approx([0.5 / (0.5 + sum(squares) / 6)] * 2, rel=1e-5)
    assert all(len(values) == 2 for values in found["channels"].values())


def test_the_guard_gates_updates_and_rolls_back():
    done = run("-W", "error::UserWarning", "-c", GUARDED)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not any(training["is_aside"] or training["is_gated_still"] for training in found.values())
    assert [found["sound"][name] for name in ("loss", "weights", "findings")] == [
        *(found["plain"][name] for name in ("loss", "weights")),
        [],
    ]
    assert [code for code, _ in found["guarded"]["findings"]] == ["guard_rollback"]
    assert found["guarded"]["events"] == [[25, "rollback"]]
    assert found["guarded"]["rates"] == pytest.approx([0.15] * 4)
    assert found["guarded"]["rate"] == 0.5
    assert found["guarded"]["loss"][-1] < 1.5 < 2.2 < found["unguarded"]["loss"][-1]
    assert found["infinite"]["findings"] == [["guard_not_finite", {"num_updates": 4.0}]]
    assert np.isfinite(found["infinite"]["weights"])


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    done = run("-c", RESUMED, str(tmp_path / "checkpoint.npz"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"epochs": [2, 3], "is_same": True}


def test_numbers_of_a_shared_program_reach_the_compiled_step():
    done = run("-c", SHARED)
    assert done.returncode == 0, done.stderr
    uses, messages, differences, last_losses = zip(*json.loads(done.stdout), strict=True)
    assert uses == ("built", "reused", "reused", "reused")
    assert set(messages) == {""}
    # XLA fuses constants and variables in different ways: the last digits differ, and grow in training.
    assert max(differences) < 1e-3
    assert len(set(last_losses)) == 4


@pytest.mark.slow
def test_a_search_runs_under_jax(tmp_path):
    options = ["--trials", "2", "--epochs", "2", "--confirm", "0", "--run", str(tmp_path / "run"), "--json"]
    done = run("-m", "tuner", "search", *options)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["trials"]["completed"] + found["trials"].get("not_learning", 0) == 2
    assert found["best"]["val_accuracy"] > 0
