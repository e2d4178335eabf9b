"""Records the plain loss and the gradient norm of every step of a Keras training, on the device.

How it gets in without touching the model's graph:

* What is known of an update (gradient norm, rate, probes) is noted in `optimizer.apply`, while Keras traces the step.
* A metric that is appended to the model's metrics, and fed from `compute_metrics`, adds the plain loss and writes one
  row into a ring buffer. Metric variables belong to the compiled state on every backend (JAX's stateless trainer
  included). In a validation, where there is no update, the same metric keeps mean loss and accuracies.

The buffer is read once an epoch; nothing runs in Python per batch. `detach` leaves the model as it was, so that what is
saved is plain Keras.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tuner.records import FloatArray, MetricName, Trace
from tuner.tasks import METRIC_TITLES
from tuner.training.hooks import harmless
from tuner.training.losses import ends_with_logits, plain_loss
from tuner.training.metrics import BalancedAccuracy, MacroF1, MeanAveragePrecision, PlainAccuracy
from tuner.training.probes import (
    STEP_PROBES,
    DataProbe,
    global_norm,
    layer_grad_ratio,
    median_of_last,
    snapshot,
    update_ratio,
)
from tuner.training.replacement import Replacement

__all__ = ["RestartWatch", "StabilityMonitor", "StepRecorder"]

# Ring buffer of one epoch's steps when the number of steps is not known beforehand; older steps of the epoch are lost.
DEFAULT_CAPACITY_STEPS = 8192
# A learning rate that fell by this factor and then rises by it again is a warm restart; a warm-up only rises, and what
# changes less is no restart of anything. Source: convention; cosine restarts rise by far more.
RESTART_FACTOR = 2.0

# Columns of the ring buffer; the step probes follow.
LOSS, WEIGHTED_LOSS, NUM_SAMPLES, GRAD_NORM, RATE, NUM_COLUMNS = 0, 1, 2, 3, 4, 5


class StabilityMonitor(keras.callbacks.Callback):
    """Keras callback that leaves a `Trace` behind.

    Use it in any `fit`; it works with `steps_per_execution > 1` and sees the loss before regularisation terms,
    class weights, label smoothing and Keras's running mean. Of a model with its own `train_step`, steps are recorded if
    it updates `self.metrics` (by `compute_metrics` or one by one), else epochs only. Several outputs: their losses are
    summed.

    Args:
        chance_loss: L0, the loss of the best constant answer. None: the first epoch's loss stands in for it.
        metric: Validation metric to record beside the loss.
        num_classes: Number of classes, for `balanced_accuracy`, or of labels, for `mean_average_precision`, `macro_f1`.
        capacity_steps: Room for the steps of one epoch; None: as many as `fit` announces.
        probes: Whether to record the probe channels (`Trace.channels`) too; costs a little of every step.
        probe_data: x and y of a batch for those of them that need data, or None for the rest alone.

    Attributes:
        trace: What was recorded so far; complete after every epoch.
        is_aside: Whether it met something that it cannot record, and let the training go on alone.
        has_probes: Whether it records the probe channels.
    """

    TASK = "record"

    def __init__(
        self,
        chance_loss: float | None = None,
        *,
        metric: MetricName = "loss",
        num_classes: int = 0,
        capacity_steps: int | None = None,
        probes: bool = False,
        probe_data: tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        if probe_data is not None and not probes:
            raise ValueError("StabilityMonitor got probe_data without probes. Pass probes=True as well.")
        self.is_aside = False
        self._chance_loss = chance_loss
        self._metric: MetricName = metric
        self._num_classes = num_classes
        self._capacity = capacity_steps
        self.has_probes = probes
        self._data_probe = None if probe_data is None else DataProbe(*probe_data)
        self._recorder: StepRecorder | None = None
        self._replaced: list[Replacement] = []
        self._steps: list[FloatArray] = []
        self._epochs: dict[str, list[float]] = {}
        self._validation: dict[str, float] = {}
        self._channels: list[dict[str, float]] = []
        self._events: list[tuple[int, str]] = []
        self._restarts = RestartWatch()
        self._num_trainable = 0
        self._is_first_epoch = True
        self._epoch_started = 0.0
        self._epoch_is_read = True
        self._planned_epochs = 0

    def probe_batch(self, x: Any, y: Any) -> None:
        """Take these rows for the probes that need data, as `probe_data` would have been; before or between epochs."""
        self._data_probe = DataProbe(x, y) if self.has_probes else None

    def set_params(self, params: dict[str, Any]) -> None:
        """Install the recorder; Keras calls this after `set_model` and before it compiles the training function."""
        super().set_params(params)
        if self.model is not None and not self._is_attached():
            self.detach()
            self._attach(self._capacity or params.get("steps") or DEFAULT_CAPACITY_STEPS)

    @harmless
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Remember the planned budget."""
        self._planned_epochs = int(self.params.get("epochs") or 0)
        self._is_first_epoch = True

    @harmless
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Mark where the epoch begins in the ring buffer, and what is new since the last one."""
        num_trainable = len(self.model.trainable_variables)
        if self._is_first_epoch and (epoch > 0 or self._num_steps()):
            self._events.append((self._num_steps(), "resume"))
        if 0 < self._num_trainable < num_trainable:
            self._events.append((self._num_steps(), "unfreezing"))
        self._num_trainable = num_trainable
        self._is_first_epoch = self._epoch_is_read = False
        self._validation = {}
        self._epoch_started = time.perf_counter()
        if self._recorder is not None:
            self._recorder.mark()

    @harmless
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Read the epoch's steps."""
        self._read_steps()

    @harmless
    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Read the validation."""
        if self._recorder is not None:
            self._validation = self._recorder.validation()

    @harmless
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch."""
        steps = self._read_steps()
        row = {
            "train_loss": _weighted_mean(steps) if len(steps) else float((logs or {}).get("loss", math.nan)),
            "learning_rate": _learning_rate(self.model.optimizer),
            "seconds": time.perf_counter() - self._epoch_started,
            **self._validation,
        }
        for name, value in row.items():
            self._epochs.setdefault(name, []).append(value)
        if self.has_probes:
            self._channels.append(self._probe(steps))

    @property
    def kind(self) -> tuple[str, int, bool]:
        """What its recorder depends on beside the model; of the same kind, one can take over from another."""
        return self._metric, self._num_classes, self.has_probes

    def reserve(self, capacity_steps: int) -> None:
        """Make room for so many steps of an epoch; before the training."""
        self._capacity = capacity_steps

    def take_over(self, former: StabilityMonitor) -> None:
        """Record with what another monitor has installed, in a model that keeps its compiled functions.

        Args:
            former: Of a finished training, not detached; with the same metric and probes. It records no more.
        """
        self._recorder, self._replaced = former._recorder, former._replaced
        former._recorder, former._replaced = None, []
        if self._recorder is not None:
            self._recorder.owner = self

    def detach(self) -> None:
        """Leave the model as it was before the training."""
        if self._recorder is None:
            return
        for replacement in self._replaced:
            replacement.undo()
        model = self._replaced[0].owner
        model._metrics.remove(self._recorder)
        model.train_function = model.test_function = None
        self._recorder, self._replaced = None, []

    @property
    def is_weighted(self) -> bool:
        """Whether `fit` weighs the rows."""
        return self._recorder is not None and self._recorder.is_weighted

    def weighted_losses(self) -> FloatArray:
        """What the training minimises, but for penalties and smoothing: the loss of each step as `fit` weighs its rows.

        Those of the running epoch, which `trace` does not have yet, included; shape (steps,).
        """
        steps = [rows[:, WEIGHTED_LOSS] for rows in self._steps]
        if not self._epoch_is_read and self._recorder is not None:
            steps.append(self._recorder.since_mark()[:, WEIGHTED_LOSS])
        return np.concatenate([np.empty(0), *steps])

    @property
    def trace(self) -> Trace:
        """Everything recorded so far."""
        epochs = {name: np.asarray(values, dtype=float) for name, values in self._epochs.items()}
        steps = np.concatenate(self._steps) if self._steps else np.empty((0, NUM_COLUMNS))
        train_loss = epochs.get("train_loss", np.empty(0))
        return Trace(
            step_loss=steps[:, LOSS],
            grad_norm=steps[:, GRAD_NORM],
            train_loss=train_loss,
            validation_loss=epochs.get("validation_loss", np.empty(0)),
            learning_rate=epochs.get("learning_rate", np.empty(0)),
            seconds=epochs.get("seconds", np.empty(0)),
            steps_per_epoch=max((1, *map(len, self._steps))),
            planned_epochs=max(self._planned_epochs, len(train_loss)),
            chance_loss=self._chance_loss or _first_finite(train_loss),
            metrics={name: epochs[name] for name in METRIC_TITLES if name in epochs},
            channels=_by_name(self._channels),
            events=tuple(self._events),
        )

    def get_state(self) -> dict[str, npt.NDArray[Any]]:
        """What was recorded so far, as arrays, for `set_state` of a monitor that goes on after the same epoch."""
        others = {
            "epochs": self._epochs,
            "channels": self._channels,
            "events": self._events,
            "restarts": vars(self._restarts),
            "num_trainable": self._num_trainable,
            "steps_per_epoch": [len(steps) for steps in self._steps],
        }
        steps = np.concatenate(self._steps) if self._steps else np.empty((0, NUM_COLUMNS))
        # Python's own JSON has NaN and infinity, and gives back the very same numbers.
        return {"steps": steps, "others": np.array(json.dumps(others))}

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `get_state` found: the next epoch follows as if nothing had happened, without an event.

        To be called after `on_train_begin`.
        """
        others = json.loads(state["others"].item())
        self._steps = np.split(state["steps"], np.cumsum(others["steps_per_epoch"])[:-1])
        self._epochs, self._channels = others["epochs"], others["channels"]
        self._events = [(int(step), str(kind)) for step, kind in others["events"]]
        vars(self._restarts).update(others["restarts"])
        self._num_trainable = others["num_trainable"]
        self._is_first_epoch = False

    def _is_attached(self) -> bool:
        """Whether it is in place for this model, as it is compiled now."""
        owners = [replacement.owner for replacement in self._replaced]
        is_of_model = self._recorder is not None and self._recorder.compiled_loss is self.model._compile_loss
        return is_of_model and all(
            owner is present for owner, present in zip(owners, (self.model, self.model.optimizer), strict=False)
        )

    @harmless
    def _attach(self, capacity: int) -> None:
        model: Any = self.model
        num_columns = NUM_COLUMNS + (len(STEP_PROBES) if self.has_probes else 0)
        metrics = self._validation_metrics(model)
        recorder = StepRecorder(model._compile_loss, capacity=capacity, num_columns=num_columns, metrics=metrics)
        recorder.owner = self
        # The list itself: a built functional model refuses new state through its attributes.
        model._metrics.append(recorder)
        # A model that was trained before brings functions that know nothing of the recorder.
        model.train_function = model.test_function = None
        self._recorder = recorder
        self._replaced = [Replacement(model, "compute_metrics", _recording_compute_metrics(recorder))]
        if model.optimizer is not None:
            self._replaced.append(Replacement(model.optimizer, "apply", _recording_apply(recorder, model)))

    def _validation_metrics(self, model: Any) -> list[keras.metrics.Metric]:
        threshold = 0.0 if ends_with_logits(model) else 0.5
        metrics: list[keras.metrics.Metric] = []
        if self._metric == "balanced_accuracy":
            metrics.append(BalancedAccuracy(self._num_classes, threshold=threshold))
        if self._metric in ("accuracy", "balanced_accuracy"):
            metrics.append(PlainAccuracy(threshold=threshold))
        if self._metric in ("mean_average_precision", "macro_f1"):
            metrics.append(MeanAveragePrecision(self._num_classes, threshold=threshold))
            metrics.append(MacroF1(self._num_classes, threshold=threshold))
        return metrics

    # What follows runs while Keras traces the step; what fails there fails once, before the first step. It must not
    # touch `self.model`: under JAX, that writes the state back into the model's variables. What Keras calls
    # (`_recording_*`) asks the recorder for its monitor: a later training may have another one (`take_over`).

    @harmless
    def before_update(self, optimizer: Any, grads: list[Any], variables: list[Any]) -> tuple[list[Any], list[Any]]:
        """For the recording itself: what is known now, and the weights where the update itself is asked for."""
        # Gradients of mixed precision are scaled as the loss is.
        noted = [global_norm(grads) / optimizer.scale_loss(1.0), optimizer.learning_rate]
        if not self.has_probes:
            return noted, []
        return [*noted, layer_grad_ratio(grads, variables)], snapshot(variables)

    @harmless
    def after_update(self, noted: tuple[list[Any], list[Any]], variables: list[Any]) -> None:
        """For the recording itself: note the update."""
        values, before = noted
        if self._recorder is not None:
            self._recorder.note([*values, update_ratio(before, variables)] if before else values)

    @harmless
    def record(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """For the recording itself: add a row, or to the means of a validation."""
        if self._recorder is not None:
            self._recorder.update_state(y, y_pred, sample_weight)

    # From here on the host again.

    def _num_steps(self) -> int:
        """Steps recorded so far; of a training whose steps are not recorded, epochs."""
        return sum(map(len, self._steps)) or len(self._epochs.get("train_loss", ()))

    def _read_steps(self) -> FloatArray:
        """The steps of the running epoch; shape (steps, columns)."""
        if not self._epoch_is_read:
            self._epoch_is_read = True
            rows = np.empty((0, NUM_COLUMNS)) if self._recorder is None else self._recorder.since_mark()
            first = self._num_steps()
            self._events += [(first + step, "warm_restart") for step in self._restarts.feed(rows[:, RATE])]
            self._steps.append(rows)
        return self._steps[-1] if self._steps else np.empty((0, NUM_COLUMNS))

    def _probe(self, steps: FloatArray) -> dict[str, float]:
        columns = zip(STEP_PROBES, steps[:, NUM_COLUMNS:].T, strict=False)
        found = {name: median_of_last(name, values) for name, values in columns}
        if self._data_probe is not None:
            try:
                found |= self._data_probe.measure(self.model)
            except Exception as error:
                self._data_probe = None
                warnings.warn(
                    f"StabilityMonitor cannot probe this model with `probe_data` ({type(error).__name__}: {error}). "
                    "The training goes on; the channels that need data are not recorded any further.",
                    stacklevel=2,
                )
        return found


class RestartWatch:
    """Finds the steps at which a learning rate that had fallen rises again."""

    def __init__(self) -> None:
        self._peak = 0.0
        self._lowest: float | None = None

    def feed(self, rates: Sequence[float] | FloatArray) -> list[int]:
        """Positions of the restarts in the next stretch of rates, one for each step."""
        found = []
        for step, rate in enumerate(rates):
            if self._lowest is None:
                self._peak = max(self._peak, rate)
                self._lowest = rate if rate < self._peak and rate <= self._peak / RESTART_FACTOR else None
            elif 0 < rate >= RESTART_FACTOR * self._lowest:
                found.append(step)
                self._peak, self._lowest = rate, None
            else:
                self._lowest = min(self._lowest, rate)
        return found


class StepRecorder(keras.metrics.Metric):
    """Every training step as a row of a ring buffer; of a validation, the means.

    It shows nothing in the logs of `fit` (its result is empty), and so costs nothing there.

    Args:
        compiled_loss: Of the model, as Keras keeps it.
        capacity: Rows of the buffer.
        num_columns: Columns of the buffer.
        metrics: What a validation is judged by beside the loss.
    """

    def __init__(
        self, compiled_loss: Any, *, capacity: int, num_columns: int, metrics: Sequence[keras.metrics.Metric]
    ) -> None:
        super().__init__(name="stability_recorder")
        if compiled_loss is None:
            raise TypeError("the model was compiled without a loss")
        self.compiled_loss = compiled_loss
        self.is_weighted = False
        # The monitor that it records for.
        self.owner: StabilityMonitor | None = None
        self.loss = keras.metrics.Mean(name="validation_loss")
        self.validation_metrics = list(metrics)
        self.rows = self.add_variable(shape=(capacity, num_columns), initializer="zeros", dtype="float32", name="rows")
        self.count = self.add_variable(shape=(), initializer="zeros", dtype="int32", name="count")
        self._noted: tuple[Any, ...] | None = None
        self._marked = 0

    def note(self, noted: list[Any]) -> None:
        """What is known of the update whose loss the next `update_state` brings: gradient norm, rate, probes."""
        # Values: Keras takes a variable in an attribute for one of the metric's own.
        self._noted = tuple(keras.ops.copy(value) for value in noted)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Record one batch: of a training if there was an update, else of a validation."""
        noted, self._noted = self._noted, None
        # Without weights, smoothing and regularisation terms.
        loss = plain_loss(self.compiled_loss, y_true, y_pred)
        num_samples = keras.ops.shape(keras.tree.flatten(y_pred)[0])[0]
        if noted is None:
            self.loss.update_state(loss, sample_weight=num_samples)
            for metric in self.validation_metrics:
                metric.update_state(y_true, y_pred)
        else:
            weighted = loss
            if sample_weight is not None:
                self.is_weighted = True
                weighted = plain_loss(self.compiled_loss, y_true, y_pred, sample_weight=sample_weight)
            self._write([loss, weighted, num_samples, *noted])

    def _write(self, values: list[Any]) -> None:
        row = keras.ops.stack([keras.ops.cast(value, "float32") for value in values])
        position = keras.ops.mod(self.count.value, int(self.rows.shape[0]))
        # Not `slice_update`: 14 µs instead of 8 under TensorFlow (measured once, in a loop of writes alone on a CPU).
        rows = keras.ops.scatter_update(self.rows.value, keras.ops.reshape(position, (1, 1)), row[None])
        self.rows.assign(rows)
        self.count.assign_add(1)

    def result(self) -> dict[str, Any]:
        """Nothing for the logs."""
        return {}

    def reset_state(self) -> None:
        """Start new means; the ring buffer goes on."""
        for metric in (self.loss, *self.validation_metrics):
            metric.reset_state()

    def mark(self) -> None:
        """What is written from now on is what `since_mark` returns."""
        self._marked = int(keras.ops.convert_to_numpy(self.count.value))

    def since_mark(self) -> FloatArray:
        """The steps since the mark, at most one buffer full; shape (steps, columns)."""
        # Of a `train_step` that updates no metrics, something is left; the validation must not take it for its own.
        self._noted = None
        total = int(keras.ops.convert_to_numpy(self.count.value))
        capacity = int(self.rows.shape[0])
        new = min(total - self._marked, capacity)
        rows = keras.ops.convert_to_numpy(self.rows.value)
        return np.asarray(rows[(total - new + np.arange(new)) % capacity], dtype=float)

    def validation(self) -> dict[str, float]:
        """Plain loss and metrics of the validation that was just made."""
        means = {"validation_loss": self.loss} | {metric.name: metric for metric in self.validation_metrics}
        return {name: float(keras.ops.convert_to_numpy(metric.result())) for name, metric in means.items()}


def _recording_compute_metrics(recorder: StepRecorder) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(compute_metrics: Callable[..., Any]) -> Callable[..., Any]:
        def recording(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            if recorder.owner is not None:
                recorder.owner.record(y, y_pred, sample_weight)
            return compute_metrics(x, y, y_pred, sample_weight=sample_weight)

        return recording

    return wrap


def _recording_apply(recorder: StepRecorder, model: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(apply: Callable[..., Any]) -> Callable[..., Any]:
        def recording(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = list(model.trainable_variables if trainable_variables is None else trainable_variables)
            monitor = recorder.owner
            noted = monitor.before_update(model.optimizer, grads, variables) if monitor else None
            result = apply(grads, None if trainable_variables is None else variables)
            if monitor and noted:
                monitor.after_update(noted, variables)
            return result

        return recording

    return wrap


def _learning_rate(optimizer: Any) -> float:
    """Rate of the next step; a schedule is evaluated by Keras."""
    return float(keras.ops.convert_to_tensor(optimizer.learning_rate)) if optimizer is not None else math.nan


def _weighted_mean(steps: FloatArray) -> float:
    """Mean plain loss over the samples of an epoch."""
    return float(np.average(steps[:, LOSS], weights=steps[:, NUM_SAMPLES]))


def _by_name(channels: list[dict[str, float]]) -> dict[str, FloatArray]:
    """Channels of all epochs by name, without those that never said anything."""
    names = dict.fromkeys(name for found in channels for name in found)
    series = {name: np.array([found.get(name, math.nan) for found in channels]) for name in names}
    return {name: values for name, values in series.items() if not np.all(np.isnan(values))}


def _first_finite(values: FloatArray) -> float:
    finite = values[np.isfinite(values) & (values > 0)]
    return float(finite[0]) if finite.size else 1.0
