"""One compiled program per architecture: trainings that differ in numbers only share their train and test functions.

A training hands its model to a `Trainee`. When `fit` is called, the lifted copy of the model (`tuner.training.lifting`)
takes its numbers, weights and seeds, is trained in its place, and gives back what it learned: what is judged, saved and
exported is the plain model. The copies, with their compiled functions and what records in them, are kept in this
process, those used last. A training in a shared program has the same numbers as in a program of its own.

Trained by itself, as ever: what `key_of` cannot describe; data that are no plain arrays; unknown callbacks; the models
of a search space whose `fit` does more with its model than to call its `fit`; and, by the caller, what is guarded.
"""

from __future__ import annotations

import inspect
import math
import random
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import keras_tuner
import numpy as np
import numpy.typing as npt

from tuner.training.checkpoint import Checkpoint
from tuner.training.lifting import Lifted, key_of
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch, restore_order

__all__ = ["NeedsModelError", "ProgramUse", "StandIn", "Trainee", "clear", "num_kept", "shares"]

# Programs that are kept, and the memory of their weights and optimizers. Source: measured, the process grew by 13 MB
# with each program of a small CNN that was kept, and by 1 to 4 MB with each after those.
MAX_PROGRAMS = 8
MAX_BYTES = 2**28
# Room for the steps of an epoch in the recorder of a program, at least, so that batch sizes can share it. 20 kB.
MIN_CAPACITY_STEPS = 1024
# Keras' callbacks that look at losses and set the rate, the weights or the end of the training, and save no model.
KNOWN_CALLBACKS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.EarlyStopping,
    keras.callbacks.History,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
)

ProgramUse = Literal["", "built", "reused"]


@dataclass
class _Program:
    """A lifted model, and what records in it since it was compiled."""

    lifted: Lifted
    capacity_steps: int
    monitor: StabilityMonitor | None = None


_programs: OrderedDict[str, _Program] = OrderedDict()
_needing_model: weakref.WeakSet[keras_tuner.HyperModel] = weakref.WeakSet()


class NeedsModelError(BaseException):
    """A search space's `fit` does more with its model than to call its `fit`; nothing that user code swallows."""


def clear() -> None:
    """Forget all programs of this process."""
    _programs.clear()


def num_kept() -> int:
    """Number of programs that this process holds and a later training may find."""
    return len(_programs)


def shares(hypermodel: keras_tuner.HyperModel) -> bool:
    """Whether the models of this hypermodel may be trained by a `Trainee`: so far its `fit` was content with one."""
    return hypermodel not in _needing_model


class StandIn:
    """What the `fit` of a search space is given in place of its model: something to call `fit` of, once.

    Args:
        trainee: Does the work.

    Raises:
        NeedsModelError: Something else is asked for before the training, or a second training.
    """

    __slots__ = ("_trainee",)

    def __init__(self, trainee: Trainee) -> None:
        object.__setattr__(self, "_trainee", trainee)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train the model; same arguments, same result."""
        trainee: Trainee = object.__getattribute__(self, "_trainee")
        return trainee.fit(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        trainee: Trainee = object.__getattribute__(self, "_trainee")
        return getattr(trainee.trained_model(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        trainee: Trainee = object.__getattribute__(self, "_trainee")
        setattr(trainee.trained_model(), name, value)

    @property
    def __class__(self) -> Any:
        """What `isinstance` asks for."""
        trainee: Trainee = object.__getattribute__(self, "_trainee")
        return type(trainee.trained_model())

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise NeedsModelError


class Trainee:
    """A model that is trained in a shared program, where it can be.

    Args:
        hypermodel: Whose `fit` trains it.
        model: Freshly built, not trained yet.
        seed: Decides the order of the rows.
        monitor: Of this training.
        checkpoint: Of this training, or None.
        own_callbacks: That may see a lifted model, beside these.

    Attributes:
        use: Whether a program was built or reused; empty if the model was trained by itself.
    """

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel,
        model: Any,
        *,
        seed: int,
        monitor: StabilityMonitor,
        checkpoint: Checkpoint | None,
        own_callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        self.use: ProgramUse = ""
        self._hypermodel = hypermodel
        self._model = model
        self._seed = seed
        self._monitor = monitor
        self._checkpoint = checkpoint
        self._own_callbacks = {id(callback) for callback in (monitor, checkpoint, *own_callbacks)}
        self._lifted: Lifted | None = None
        self._is_trained = False

    def trained_model(self) -> Any:
        """The model itself, once it is trained.

        Raises:
            NeedsModelError: It is not; `shares` is False from then on.
        """
        if not self._is_trained:
            _needing_model.add(self._hypermodel)
            raise NeedsModelError
        return self._model

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train the model; same arguments, same result.

        Raises:
            NeedsModelError: It is trained already; `shares` is False from then on.
        """
        if self._is_trained:
            _needing_model.add(self._hypermodel)
            raise NeedsModelError
        bound = inspect.signature(self._model.fit).bind(*args, **kwargs)
        bound.apply_defaults()
        key = self._key(bound.arguments)
        if key is None:
            history = self._fit(self._model, bound.arguments)
            self._is_trained = True
            return history
        num_steps = math.ceil(len(bound.arguments["x"]) / (bound.arguments["batch_size"] or 32))
        program = self._program(key, num_steps, _first_rows(bound.arguments))
        try:
            history = self._fit(program.lifted.model, bound.arguments)
        except BaseException:
            # In the middle of a step, perhaps.
            _programs.pop(key, None)
            raise
        self._keep(key, program)
        program.lifted.give(self._model)
        self._is_trained = True
        return history

    def set_weights(self, weights: list[npt.NDArray[Any]]) -> None:
        """Give the model other weights, as a callback of the training got them from the model that it saw."""
        if self._lifted is None:
            self._model.set_weights(weights)
        else:
            self._lifted.model.set_weights(weights)
            self._lifted.give(self._model)

    def _fit(self, model: Any, arguments: dict[str, Any]) -> Any:
        reshuffle_every_epoch(model, self._seed)
        if self._checkpoint is not None:
            self._checkpoint.watch(model, stands_for=self._model)
        try:
            return model.fit(**arguments)
        finally:
            restore_order(model)

    def _key(self, arguments: dict[str, Any]) -> str | None:
        """What the program of this training depends on; None: it is trained by itself."""
        are_arrays = all(isinstance(arguments[name], np.ndarray) for name in ("x", "y"))
        validation = arguments["validation_data"]
        is_plain_validation = validation is None or (
            len(validation) == 2 and all(isinstance(part, np.ndarray) for part in validation)
        )
        has_more = any(arguments[name] is not None for name in ("sample_weight", "steps_per_epoch"))
        callbacks = arguments["callbacks"] or []
        are_known = isinstance(callbacks, list | tuple) and all(
            id(callback) in self._own_callbacks or type(callback) in KNOWN_CALLBACKS for callback in callbacks
        )
        if not (are_arrays and is_plain_validation and are_known) or has_more or arguments["validation_split"]:
            return None
        is_weighted = arguments["class_weight"] is not None
        key = key_of(self._model)
        return None if key is None else f"{key} {self._monitor.kind} {is_weighted}"

    def _program(self, key: str, num_steps: int, batch: tuple[Any, ...]) -> _Program:
        """The program of this key, ready for this training."""
        program = _programs.pop(key, None)
        if program is not None and program.capacity_steps >= num_steps:
            self.use = "reused"
            if program.monitor is not None:
                self._monitor.take_over(program.monitor)
        else:
            self.use = "built"
            # A copy draws initial weights of its own, and must not change what is drawn later.
            drawn, drawn_numpy = random.getstate(), np.random.get_state()
            program = _Program(
                Lifted(self._model, batch), max(MIN_CAPACITY_STEPS, 2 ** math.ceil(math.log2(num_steps)))
            )
            random.setstate(drawn)
            np.random.set_state(drawn_numpy)
            self._monitor.reserve(program.capacity_steps)
        self._lifted = program.lifted
        program.lifted.take(self._model)
        return program

    def _keep(self, key: str, program: _Program) -> None:
        """Keep the program, unless something in it stepped aside."""
        if self._monitor.is_aside:
            return
        program.monitor = self._monitor
        _programs[key] = program
        while len(_programs) > MAX_PROGRAMS or (
            len(_programs) > 1 and sum(kept.lifted.num_bytes for kept in _programs.values()) > MAX_BYTES
        ):
            _programs.popitem(last=False)


def _first_rows(arguments: dict[str, Any]) -> tuple[Any, ...]:
    """A batch of one row, as `fit` will see it."""
    weights = () if arguments["class_weight"] is None else (np.ones(1, np.float32),)
    return (arguments["x"][:1], arguments["y"][:1], *weights)
