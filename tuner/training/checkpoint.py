"""The state of a training after its last epoch, in one file, so that one that was killed goes on with the next epoch.

What goes on is the same training, bit for bit (tests/training/test_checkpoint.py): weights, optimizer, the states of
Keras's, Python's and NumPy's random generators, the orders of the rows that were dealt already, what the monitor has
recorded. Where that cannot be promised, nothing is written and an interrupted training starts again: see `_refusal`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from tuner.errors import RunError, first_of
from tuner.store import read_arrays, write_arrays
from tuner.training.order import is_plain

__all__ = ["Checkpoint", "Stateful"]

logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]

SCHEMA_VERSION = 1
# Between two writes, so many times the seconds of the last one pass, so that writing takes 5 % of a training at most.
# Source: convention; of the CNN for digits an epoch takes 250 ms and a write 10, fsync included (docs/performance.md).
MIN_INTERVAL_RATIO = 20.0
# Rows of each array that are looked at to see whether these are the same data. The run itself refuses other data.
NUM_ROWS_COMPARED = 256
# Backends whose order of the rows is repeated: by `training.order`, or by NumPy's random state.
BACKENDS = ("tensorflow", "jax")


class Stateful(Protocol):
    """A part of a training whose state is arrays by name."""

    def get_state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that the next epoch depends on."""

    def set_state(self, state: Arrays) -> None:
        """Be as `get_state` found it."""


class Checkpoint(keras.callbacks.Callback):
    """Callback that writes the state of a training after its epochs, and brings it back; the last in the list.

    Args:
        file: Where; read once, when `fit` is called.
        belongs_to: What the training follows from beside model and data: hyperparameters, seed, epochs.
        epochs: Its budget.
        parts: Parts of the training with a state of their own, by name; callbacks among them may be in `fit`.

    Attributes:
        num_resumed: Epochs that were done before this process; 0 if it began anew.
        seconds_before: What these took, their interrupted attempts included.
    """

    def __init__(
        self, file: Path, *, belongs_to: Mapping[str, Any], epochs: int, parts: Mapping[str, Stateful]
    ) -> None:
        super().__init__()
        self.num_resumed = 0
        self.seconds_before = 0.0
        self._file = file
        self._belongs_to = dict(belongs_to)
        self._epochs = epochs
        self._parts = parts
        self._started = time.perf_counter()
        self._fingerprint: str | None = None
        self._state: Arrays | None = None
        self._num_fits = 0
        self._epoch = -1
        self._written_at = -float("inf")
        self._write_s = 0.0

    def watch(self, model: Any, *, stands_for: Any = None) -> None:
        """Have the model's next `fit` go on where the file says; call it after everything else that replaces `fit`.

        Args:
            model: Compiled.
            stands_for: The model that it is a lifted copy of, and that knows what it is made of; None: itself.
        """
        described = model if stands_for is None else stands_for
        fit = model.fit
        signature = inspect.signature(fit)

        def resumable_fit(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            self._num_fits += 1
            self._prepare(described, bound.arguments, num_variables=len(model.variables))
            if self._state is None:
                return fit(*args, **kwargs)
            return fit(**(bound.arguments | {"initial_epoch": self.num_resumed}))

        model.fit = resumable_fit

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Bring the state back; only now are all variables there."""
        if self._state is None:
            return
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        for variable, name in _variables(self.model):
            variable.assign(self._state[name])
        for name, part in self._parts.items():
            part.set_state(_group(self._state, f"{name}/"))
        _set_random_state(self._state)
        self._state = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember which one."""
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write, unless the training ends here or the last write was too short a time ago."""
        if (
            not self.model.stop_training
            and time.perf_counter() >= self._written_at + MIN_INTERVAL_RATIO * self._write_s
        ):
            self.save()

    def save(self) -> None:
        """Write the state after the epoch that has just ended; nothing for a training that cannot go on.

        Raises:
            EnvironmentFault: The disk is full or the folder may not be written.
        """
        done = self._epoch + 1
        if self._fingerprint is None or not 0 < done < self._epochs:
            return
        started = time.perf_counter()
        about = {
            "fingerprint": self._fingerprint,
            "epochs_done": done,
            "seconds": self.seconds_before + started - self._started,
        }
        arrays = {"about": np.array(json.dumps(about)), **_random_state()}
        arrays |= {name: _as_array(variable) for variable, name in _variables(self.model)}
        for name, part in self._parts.items():
            arrays |= {f"{name}/{key}": value for key, value in part.get_state().items()}
        write_arrays(self._file, arrays)
        self._written_at = time.perf_counter()
        self._write_s = self._written_at - started

    def _prepare(self, model: Any, arguments: Mapping[str, Any], *, num_variables: int) -> None:
        """Find out whether this `fit` can go on later, and whether it goes on now."""
        self._fingerprint = None
        allowed = {id(self), *(id(part) for part in self._parts.values())}
        refusal = _refusal(model, arguments, allowed=allowed, epochs=self._epochs, num_fits=self._num_fits)
        if refusal:
            logger.info("%s: interrupted, this training would start again: %s", self._file.parent, refusal)
            self._file.unlink(missing_ok=True)
            return
        self._fingerprint = _fingerprint(model, arguments, self._belongs_to | {"num_variables": num_variables})
        if self._file.is_file():
            self._load()

    def _load(self) -> None:
        try:
            state = read_arrays(self._file)
            about = json.loads(state["about"].item())
            if about["fingerprint"] == self._fingerprint:
                self._state = state
                self.num_resumed, self.seconds_before = int(about["epochs_done"]), float(about["seconds"])
                logger.info("%s: the training goes on with epoch %d", self._file.parent, self.num_resumed + 1)
                return
            reason = "it belongs to another configuration, other data or other versions"
        except (RunError, KeyError, ValueError, TypeError) as error:
            reason = f"it is damaged ({error})"
        logger.warning("%s is not used and the training starts again: %s", self._file, reason)
        self._file.unlink(missing_ok=True)


def _refusal(model: Any, arguments: Mapping[str, Any], *, allowed: set[int], epochs: int, num_fits: int) -> str:
    """Why a training cannot go on in its middle; empty if it can."""
    own = [name for name in ("fit", "train_step") if getattr(type(model), name) is not getattr(keras.Model, name)]
    callbacks = arguments["callbacks"]
    reasons = {
        f"the order of the rows is not repeated under {keras.backend.backend()}": keras.backend.backend()
        not in BACKENDS,
        "the search space trains more than once": num_fits > 1,
        f"the model has its own {first_of(own)}": bool(own),
        "there are callbacks whose state is not known": not isinstance(callbacks, Sequence)
        or not {id(callback) for callback in callbacks} <= allowed,
        "the search space chooses the epochs itself": arguments["epochs"] != epochs or arguments["initial_epoch"],
        "the data are no arrays that are dealt as a whole": not is_plain(arguments),
        "the model is not built, or cannot say what it is made of": not model.built or not _config_of(model),
    }
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def _fingerprint(model: Any, arguments: Mapping[str, Any], belongs_to: Mapping[str, Any]) -> str:
    """What two trainings that are the same one have in common."""
    about = {
        **belongs_to,
        "schema_version": SCHEMA_VERSION,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "model": _config_of(model),
        "class_weight": arguments["class_weight"],
        "batch_size": arguments["batch_size"],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for array in (arguments["x"], arguments["y"], *(arguments["validation_data"] or ())):
        values = np.asarray(array)
        rows = np.unique(np.linspace(0, len(values) - 1, NUM_ROWS_COMPARED).astype(np.int64))
        digest.update(f"{values.shape} {values.dtype}".encode() + np.ascontiguousarray(values[rows]).tobytes())
    return digest.hexdigest()


def _config_of(model: Any) -> str:
    """Layers, loss and optimizer, without the numbers that Keras counts its names by; empty if a model cannot say."""
    try:
        config = json.dumps([model.get_config(), model.get_compile_config()], sort_keys=True, default=str)
    except Exception:  # Of others: their `get_config`.
        return ""
    return re.sub(r"_\d+(?=[\"/])", "", config)


def _variables(model: Any) -> list[tuple[Any, str]]:
    """What a training changes, by name: weights, generators of layers, optimizer; metrics begin anew each epoch."""
    metrics = {id(variable) for variable in model.metrics_variables}
    kept = [variable for variable in model.variables if id(variable) not in metrics]
    names = [(variable, f"model/{position}") for position, variable in enumerate(kept)]
    return names + [(variable, f"optimizer/{position}") for position, variable in enumerate(model.optimizer.variables)]


def _as_array(variable: Any) -> npt.NDArray[Any]:
    values = np.asarray(keras.ops.convert_to_numpy(variable.value))
    # NumPy files know no bfloat16; float32 holds all of its values.
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def _group(state: Arrays, prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}


def _random_state() -> dict[str, npt.NDArray[Any]]:
    """States of Python's and NumPy's global generators: spaces draw from the one, JAX deals rows by the other."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "random/python": np.array(json.dumps(random.getstate())),
        "random/numpy": np.array(json.dumps([name, *rest])),
        "random/numpy_keys": np.asarray(keys),
    }


def _set_random_state(state: Arrays) -> None:
    version, internal, gauss = json.loads(state["random/python"].item())
    random.setstate((version, tuple(internal), gauss))
    name, *rest = json.loads(state["random/numpy"].item())
    np.random.set_state((name, state["random/numpy_keys"], *rest))
