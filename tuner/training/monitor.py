"""Records the plain loss and the gradient norm of every step of a Keras training, on the device.

How it gets in without touching the model's graph:

* The loss is written by a metric that is appended to the model's metrics and fed from `compute_metrics`.
  Metric variables belong to the compiled state on every backend (JAX's stateless trainer included).
* The gradient norm is written in `optimizer.apply`, into a variable that the optimizer owns, for the same reason.

Both write into ring buffers that are read once an epoch; nothing runs in Python per batch. `detach` leaves the
model as it was, so that what is saved is plain Keras.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from tuner.records import FloatArray, Trace
from tuner.training.losses import ends_with_logits

__all__ = ["StabilityMonitor"]

# Ring buffer of one epoch's steps when the number of steps is not known beforehand; older steps of the epoch are lost.
DEFAULT_CAPACITY_STEPS = 8192

MetricName = Literal["accuracy", "balanced_accuracy", "loss"]
PLAIN_LOSS = "plain_loss"


def _harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook of the monitor that never breaks the user's training: it warns once, and steps aside for good."""

    @functools.wraps(hook)
    def guarded(self: StabilityMonitor, *args: Any, **kwargs: Any) -> None:
        if self.is_aside:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self.step_aside(error)

    return guarded


class StabilityMonitor(keras.callbacks.Callback):
    """Keras callback that leaves a `Trace` behind.

    Use it in any `fit`; it works with `steps_per_execution > 1` and sees the loss before regularisation terms,
    class weights and Keras's running mean. Not for multi-output models with one loss each: their losses are summed.

    Args:
        chance_loss: L0, the loss of the best constant answer. None: the first epoch's loss stands in for it.
        metric: Validation metric to record beside the loss.
        num_classes: Number of classes, for `balanced_accuracy`.
        capacity_steps: Room for the steps of one epoch; None: as many as `fit` announces.

    Attributes:
        trace: What was recorded so far; complete after every epoch.
        is_aside: Whether it met something that it cannot record, and let the training go on alone.
    """

    def __init__(
        self,
        chance_loss: float | None = None,
        *,
        metric: MetricName = "loss",
        num_classes: int = 0,
        capacity_steps: int | None = None,
    ) -> None:
        super().__init__()
        self.is_aside = False
        self._chance_loss = chance_loss
        self._metric: MetricName = metric
        self._num_classes = num_classes
        self._capacity = capacity_steps
        self._loss_ring: LossRing | None = None
        self._gradient_ring: GradientRing | None = None
        self._extra_metrics: list[keras.metrics.Metric] = []
        self._step_loss: list[FloatArray] = []
        self._grad_norm: list[FloatArray] = []
        self._epochs: dict[str, list[float]] = {}
        self._epoch_started = 0.0
        self._epoch_is_read = True
        self._planned_epochs = 0

    def set_params(self, params: dict[str, Any]) -> None:
        """Install the recorders; Keras calls this after `set_model` and before it compiles the training function."""
        super().set_params(params)
        if self._loss_ring is None and self.model is not None:
            self._attach(self._capacity or params.get("steps") or DEFAULT_CAPACITY_STEPS)

    @_harmless
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Remember the planned budget."""
        self._planned_epochs = int(self.params.get("epochs") or 0)

    @_harmless
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Mark where the epoch begins in the ring buffers."""
        self._epoch_started = time.perf_counter()
        self._epoch_is_read = False
        for ring in self._rings():
            ring.mark()

    @_harmless
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Read the epoch's steps before the validation writes over them."""
        self._read_steps()

    @_harmless
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch."""
        self._read_steps()
        logs = logs or {}
        row = {
            "train_loss": float(logs.get(PLAIN_LOSS, logs.get("loss", math.nan))),
            "learning_rate": _learning_rate(self.model.optimizer),
            "seconds": time.perf_counter() - self._epoch_started,
        }
        if f"val_{PLAIN_LOSS}" in logs:
            row["validation_loss"] = float(logs[f"val_{PLAIN_LOSS}"])
        row |= {
            f"metric/{name}": float(logs[f"val_{name}"])
            for name in ("accuracy", "balanced_accuracy")
            if f"val_{name}" in logs
        }
        for name, value in row.items():
            self._epochs.setdefault(name, []).append(value)

    def step_aside(self, error: Exception) -> None:
        """Stop recording, say so once, and let the training go on."""
        if not self.is_aside:
            self.is_aside = True
            warnings.warn(
                f"StabilityMonitor cannot record this training and steps aside ({type(error).__name__}: {error}). "
                "The training goes on without it.",
                stacklevel=2,
            )

    def detach(self) -> None:
        """Leave the model as it was before the training."""
        model = self.model
        if model is None or self._loss_ring is None:
            return
        for metric in (self._loss_ring, *self._extra_metrics):
            model._metrics.remove(metric)
        del model.compute_metrics
        if self._gradient_ring is not None:
            self._gradient_ring.remove()
        model.train_function = model.test_function = None
        self._loss_ring = self._gradient_ring = None
        self._extra_metrics = []

    def unread_steps(self) -> tuple[FloatArray, FloatArray]:
        """Loss and gradient norm of each step of the running epoch, which `trace` does not have yet."""
        if self._epoch_is_read:
            return np.empty(0), np.empty(0)
        rings = (self._loss_ring, self._gradient_ring)
        losses, norms = (ring.since_mark() if ring is not None else np.empty(0) for ring in rings)
        return losses, norms

    @property
    def buffers(self) -> list[Any]:
        """The variables that it writes to at every step: who repeats steps puts their values back."""
        return [variable for ring in self._rings() for variable in ring.buffers]

    @property
    def trace(self) -> Trace:
        """Everything recorded so far."""
        epochs = {name: np.asarray(values, dtype=float) for name, values in self._epochs.items()}
        step_loss = _concatenate(self._step_loss)
        train_loss = epochs.get("train_loss", np.empty(0))
        return Trace(
            step_loss=step_loss,
            grad_norm=_concatenate(self._grad_norm),
            train_loss=train_loss,
            validation_loss=epochs.get("validation_loss", np.empty(0)),
            learning_rate=epochs.get("learning_rate", np.empty(0)),
            seconds=epochs.get("seconds", np.empty(0)),
            steps_per_epoch=max((len(steps) for steps in self._step_loss), default=1),
            planned_epochs=max(self._planned_epochs, len(train_loss)),
            chance_loss=self._chance_loss or _first_finite(train_loss),
            metrics={
                name.removeprefix("metric/"): values for name, values in epochs.items() if name.startswith("metric/")
            },
        )

    @_harmless
    def _attach(self, capacity: int) -> None:
        model: Any = self.model
        self._loss_ring = LossRing(model, capacity)
        threshold = 0.0 if ends_with_logits(model) else 0.5
        if self._metric == "balanced_accuracy":
            self._extra_metrics.append(BalancedAccuracy(self._num_classes, threshold=threshold))
        if self._metric in ("accuracy", "balanced_accuracy"):
            self._extra_metrics.append(PlainAccuracy(threshold=threshold))
        recorders = [self._loss_ring, *self._extra_metrics]
        # The list itself: a built functional model refuses new state through its attributes.
        model._metrics.extend(recorders)
        compute_metrics = model.compute_metrics

        def recording_compute_metrics(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            self._update(recorders, y, y_pred)
            return compute_metrics(x, y, y_pred, sample_weight=sample_weight)

        model.compute_metrics = recording_compute_metrics
        if model.optimizer is not None:
            self._gradient_ring = GradientRing(model.optimizer, capacity)

    @_harmless
    def _update(self, recorders: list[Any], y: Any, y_pred: Any) -> None:
        """Runs while Keras traces the step; what fails there fails once, before the first step."""
        for recorder in recorders:
            recorder.update_state(y, y_pred)

    def _rings(self) -> list[LossRing | GradientRing]:
        return [ring for ring in (self._loss_ring, self._gradient_ring) if ring is not None]

    def _read_steps(self) -> None:
        if self._epoch_is_read:
            return
        self._epoch_is_read = True
        if self._loss_ring is not None:
            self._step_loss.append(self._loss_ring.since_mark())
        if self._gradient_ring is not None:
            self._grad_norm.append(self._gradient_ring.since_mark())


class _Ring:
    """A ring buffer on the device: a float variable, an integer counter, and where the host last looked."""

    def __init__(self, values: Any, count: Any) -> None:
        self.values = values
        self.count = count
        self.capacity = int(values.shape[0])
        self.marked = 0

    def write(self, value: Any) -> None:
        position = keras.ops.mod(self.count.value, self.capacity)
        entry = keras.ops.reshape(keras.ops.cast(value, "float32"), (1,))
        self.values.assign(keras.ops.slice_update(self.values.value, keras.ops.reshape(position, (1,)), entry))
        self.count.assign_add(1)

    def read(self) -> FloatArray:
        """What was written since the mark, at most one buffer full."""
        total = int(keras.ops.convert_to_numpy(self.count.value))
        new = min(total - self.marked, self.capacity)
        values = keras.ops.convert_to_numpy(self.values.value)
        return np.asarray(values[(total - new + np.arange(new)) % self.capacity], dtype=float)

    def mark(self) -> None:
        self.marked = int(keras.ops.convert_to_numpy(self.count.value))

    @property
    def variables(self) -> list[Any]:
        return [self.values, self.count]


class LossRing(keras.metrics.Mean):
    """Mean plain loss as a metric, and every single value in a ring buffer."""

    def __init__(self, model: Any, capacity: int) -> None:
        super().__init__(name=PLAIN_LOSS)
        if model._compile_loss is None:
            raise TypeError("the model was compiled without a loss")
        self._model_loss: Callable[..., Any] = model._compile_loss
        values = self.add_variable(shape=(capacity,), initializer="zeros", dtype="float32", name="losses")
        self._ring = _Ring(values, self.add_variable(shape=(), initializer="zeros", dtype="int32", name="count"))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Compute the batch's loss without weights and regularisation terms, and keep it."""
        loss = self._model_loss(y_true, y_pred)
        first = keras.tree.flatten(y_pred)[0]
        super().update_state(loss, sample_weight=keras.ops.shape(first)[0])
        self._ring.write(loss)

    def reset_state(self) -> None:
        """Start a new mean; the ring buffer goes on."""
        self.total.assign(0.0)
        self.count.assign(0.0)

    def mark(self) -> None:
        """What is written from now on is what `since_mark` returns."""
        self._ring.mark()

    def since_mark(self) -> FloatArray:
        """The batch losses since the mark; shape (steps,)."""
        return self._ring.read()

    @property
    def buffers(self) -> list[Any]:
        """The variables that are written to."""
        return self._ring.variables


class GradientRing:
    """Global gradient norm of every step, recorded inside the optimizer's `apply`."""

    def __init__(self, optimizer: Any, capacity: int) -> None:
        self._optimizer = optimizer
        with keras.name_scope(optimizer.name):
            values = optimizer.add_variable(shape=(capacity,), initializer="zeros", dtype="float32", name="grad_norms")
            count = optimizer.add_variable(shape=(), initializer="zeros", dtype="int32", name="grad_norm_count")
        self._ring = _Ring(values, count)
        apply = optimizer.apply

        def recording_apply(grads: Any, trainable_variables: Any = None) -> Any:
            self._ring.write(_global_norm(grads))
            return apply(grads, trainable_variables)

        optimizer.apply = recording_apply

    def mark(self) -> None:
        """What is written from now on is what `since_mark` returns."""
        self._ring.mark()

    def since_mark(self) -> FloatArray:
        """The gradient norms since the mark; shape (steps,)."""
        return self._ring.read()

    @property
    def buffers(self) -> list[Any]:
        """The variables that are written to."""
        return self._ring.variables

    def remove(self) -> None:
        """Take the recorder and its variables out of the optimizer again."""
        del self._optimizer.apply
        for variable in (self._ring.values, self._ring.count):
            _remove_identical(self._optimizer._variables, variable)


class PlainAccuracy(keras.metrics.Mean):
    """Share of right answers, whatever form labels and outputs have.

    Args:
        threshold: From which on a single output unit answers class 1: 0.5 for a probability, 0 for a logit.
    """

    def __init__(self, *, threshold: float = 0.5) -> None:
        super().__init__(name="accuracy")
        self._threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        labels, answers = _codes(y_true, y_pred, self._threshold)
        super().update_state(keras.ops.cast(keras.ops.equal(labels, answers), "float32"))


class BalancedAccuracy(keras.metrics.Metric):
    """Mean recall of the classes that occur.

    Args:
        num_classes: Number of classes.
        threshold: As for `PlainAccuracy`.
    """

    def __init__(self, num_classes: int, *, threshold: float = 0.5) -> None:
        super().__init__(name="balanced_accuracy")
        self._threshold = threshold
        self._num_classes = num_classes
        self.right = self.add_variable(shape=(num_classes,), initializer="zeros", name="right")
        self.seen = self.add_variable(shape=(num_classes,), initializer="zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        labels, answers = _codes(y_true, y_pred, self._threshold)
        rows = keras.ops.one_hot(labels, self._num_classes, dtype="float32")
        hits = keras.ops.cast(keras.ops.equal(labels, answers), "float32")
        self.seen.assign_add(keras.ops.sum(rows, axis=0))
        self.right.assign_add(keras.ops.sum(rows * hits[:, None], axis=0))

    def result(self) -> Any:
        """Mean over classes of right / seen."""
        occurring = keras.ops.cast(self.seen.value > 0, "float32")
        recall = self.right.value / keras.ops.maximum(self.seen.value, 1.0)
        return keras.ops.sum(recall) / keras.ops.maximum(keras.ops.sum(occurring), 1.0)


def _codes(y_true: Any, y_pred: Any, threshold: float) -> tuple[Any, Any]:
    """Class codes of labels (codes or one-hot) and outputs (probabilities or logits, of each class or of one)."""
    outputs = keras.ops.convert_to_tensor(y_pred)
    labels = keras.ops.convert_to_tensor(y_true)
    num_outputs = outputs.shape[-1]
    if num_outputs == 1:
        answers = keras.ops.cast(keras.ops.reshape(outputs, (-1,)) > threshold, "int32")
        return keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32"), answers
    answers = keras.ops.cast(keras.ops.argmax(outputs, axis=-1), "int32")
    if len(labels.shape) == len(outputs.shape) and labels.shape[-1] == num_outputs:
        return keras.ops.cast(keras.ops.argmax(labels, axis=-1), "int32"), answers
    return keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32"), answers


def _global_norm(grads: Any) -> Any:
    """Euclidean norm over all gradients; sparse ones (embeddings) by their values."""
    squares = [
        keras.ops.sum(keras.ops.square(keras.ops.cast(getattr(grad, "values", grad), "float32")))
        for grad in grads
        if grad is not None
    ]
    return keras.ops.sqrt(sum(squares[1:], squares[0])) if squares else keras.ops.zeros(())


def _learning_rate(optimizer: Any) -> float:
    """Rate of the last step; a schedule is evaluated by Keras."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate)) if optimizer is not None else math.nan


def _remove_identical(items: list[Any], item: Any) -> None:
    """Remove by identity: Keras variables compare element by element."""
    del items[next(index for index, other in enumerate(items) if other is item)]


def _concatenate(parts: list[FloatArray]) -> FloatArray:
    return np.concatenate(parts) if parts else np.empty(0)


def _first_finite(values: FloatArray) -> float:
    finite = values[np.isfinite(values) & (values > 0)]
    return float(finite[0]) if finite.size else 1.0
