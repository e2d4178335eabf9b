"""One configuration on one seed: build, train, record, judge. Whatever happens, a `SeedRun` comes out."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import keras_tuner
import numpy.typing as npt

from tuner.records import Outcome, SeedRun, Trace
from tuner.stability.judgement import Judged, Judgement
from tuner.stability.score import failed_objective, failed_score, first_failure
from tuner.training.losses import wants_one_hot
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch, restore_order

__all__ = ["StopTraining", "Training", "TrainingData", "build_model", "fit_model", "release_memory", "train"]

logger = logging.getLogger(__name__)

# Steps that one call of the compiled program does. Source: measured, about 20 % off the epoch of a small CNN on a CPU.
STEPS_PER_EXECUTION = 32


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on: arrays that are ready for it.

    Attributes:
        x, x_validation: Float32; shape (rows, ...).
        y, y_validation: Class codes or scaled numbers; shape (rows,).
        class_weight: Weight of each class in the loss, or None.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_validation: npt.NDArray[Any]
    y_validation: npt.NDArray[Any]
    class_weight: dict[int, float] | None = None


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        model: The trained model as plain Keras; None if it failed.
    """

    run: SeedRun
    trace: Trace
    model: Any = None


class StopTraining(BaseException):
    """Raised by `on_epoch` to end a training without a result; no exception of a model, so nobody swallows it."""


class _CallerFailedError(StopTraining):
    """`on_epoch` raised: the caller's fault (a full disk, say), not the configuration's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _EpochHook(keras.callbacks.Callback):
    """Ends a training whose loss is no longer a number, and tells the caller about every epoch."""

    def __init__(self, monitor: StabilityMonitor, on_epoch: Callable[[int, Trace], None] | None) -> None:
        super().__init__()
        self._monitor = monitor
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        trace = self._monitor.trace
        if first_failure(trace) is not None:
            self.model.stop_training = True
        if self._on_epoch is not None:
            try:
                self._on_epoch(epoch, trace)
            except Exception as error:
                raise _CallerFailedError(error) from error


def train(
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    *,
    data: TrainingData,
    judgement: Judgement,
    epochs: int,
    seed: int,
    trial: int = 0,
    seed_index: int = 0,
    on_epoch: Callable[[int, Trace], None] | None = None,
    **fit_kwargs: Any,
) -> Training:
    """Train one configuration once.

    Args:
        hypermodel: Builds a compiled model; its own `fit` is honoured.
        hp: The configuration.
        data: Prepared arrays.
        judgement: What the result is held against.
        epochs: Budget.
        seed: Decides initial weights and order.
        trial, seed_index: For the record.
        on_epoch: Called after every epoch with its zero-based number and the trace so far; may raise `StopTraining`.
        fit_kwargs: Passed on to `fit`.

    Returns:
        The record, the trace, and the model unless the training failed. A diverged training, and an exception in the
        user's model, are results.
    """
    started = time.perf_counter()
    monitor = StabilityMonitor(
        judgement.chance_loss,
        metric=judgement.watched_metric,
        num_classes=judgement.num_classes,
    )
    model, message = None, ""
    keras.utils.set_random_seed(seed)
    try:
        model = build_model(hypermodel, hp)
        reshuffle_every_epoch(model, seed)
        callbacks = [monitor, _EpochHook(monitor, on_epoch), *fit_kwargs.pop("callbacks", ())]
        fit_model(
            hypermodel, hp, model, data=data, judgement=judgement, epochs=epochs, callbacks=callbacks, **fit_kwargs
        )
        restore_order(model)
        monitor.detach()
    except _CallerFailedError as failed:
        raise failed.error from None
    except Exception as error:
        logger.exception("trial %d, seed %d ended with an exception", trial, seed)
        message = f"{type(error).__name__}: {error}"
    trace = replace(monitor.trace, planned_epochs=epochs)
    verdict = _failed(trace, judgement) if message else judgement.judge(trace)
    run = SeedRun(
        trial=trial,
        seed_index=seed_index,
        seed=seed,
        outcome=verdict.outcome,
        objective=verdict.objective,
        error=verdict.error,
        score=verdict.score,
        metrics=_last_metrics(trace),
        epochs=trace.num_epochs,
        steps_per_epoch=trace.steps_per_epoch,
        num_parameters=int(model.count_params()) if model is not None and model.built else 0,
        seconds=time.perf_counter() - started,
        message=message or ("no validation loss was recorded" if verdict.outcome is Outcome.ERROR else ""),
    )
    return Training(run, trace, None if verdict.outcome.is_failed else model)


def release_memory() -> None:
    """Forget the graphs of models that are no longer used; without it memory grows from trial to trial."""
    keras.backend.clear_session()
    gc.collect()


def build_model(hypermodel: keras_tuner.HyperModel, hp: keras_tuner.HyperParameters) -> Any:
    """Build a compiled model that is ready to be trained fast.

    Raises:
        TypeError: `build` returned something else.
    """
    model = hypermodel.build(hp)
    if not isinstance(model, keras.Model):
        raise TypeError(f"build(hp) returned {type(model).__name__}; it must return a compiled keras.Model")
    if not model.compiled:
        raise TypeError("build(hp) returned a model that is not compiled; end it with model.compile(...)")
    if model.steps_per_execution == 1 and not model.run_eagerly:
        model.steps_per_execution = STEPS_PER_EXECUTION
    return model


def fit_model(
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    model: Any,
    *,
    data: TrainingData,
    judgement: Judgement,
    **fit_kwargs: Any,
) -> None:
    """Have the hypermodel fit its model to the data, in the form of labels that the model was compiled for.

    Args:
        hypermodel, hp, model: As for and from `build_model`.
        data: Prepared arrays.
        judgement: Knows the number of classes.
        fit_kwargs: Passed on to `fit`.
    """
    one_hot = wants_one_hot(model)
    y, y_validation = (
        keras.utils.to_categorical(labels, judgement.num_classes) if one_hot and labels.ndim == 1 else labels
        for labels in (data.y, data.y_validation)
    )
    fit_kwargs.setdefault("verbose", 0)
    if data.class_weight is not None:
        fit_kwargs["class_weight"] = data.class_weight
    hypermodel.fit(hp, model, data.x, y, validation_data=(data.x_validation, y_validation), **fit_kwargs)


def _failed(trace: Trace, judgement: Judgement) -> Judged:
    done = len(trace.step_loss) / max(1, trace.planned_epochs * trace.steps_per_epoch)
    return Judged(Outcome.ERROR, None, failed_objective(done, weight=judgement.weight), failed_score(done))


def _last_metrics(trace: Trace) -> dict[str, float]:
    series = {"val_loss": trace.validation_loss, "loss": trace.train_loss}
    series |= {f"val_{name}": values for name, values in trace.metrics.items()}
    return {name: float(values[-1]) for name, values in series.items() if values.size}
