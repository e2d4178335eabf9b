"""One configuration on one seed: build, train, record, judge. Whatever happens, a `SeedRun` comes out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import numpy.typing as npt

from tuner.errors import EnvironmentFault
from tuner.records import Finding, Outcome, SeedRun, Trace
from tuner.stability.detectors import Verdict, detect, verdict
from tuner.stability.diagnosis import diagnose
from tuner.stability.judgement import Judgement, first_epochs
from tuner.stability.score import first_failure
from tuner.training import programs
from tuner.training.checkpoint import Checkpoint, Stateful
from tuner.training.guard import SpikeGuard
from tuner.training.losses import wants_one_hot
from tuner.training.memory import WeightsTooLarge, bounded_weights, infeasibility, is_out_of_memory
from tuner.training.modelcheck import check_model
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch, restore_order
from tuner.training.programs import NeedsModelError, ProgramUse, StandIn, Trainee
from tuner.training.session import jit_of_models, set_random_seed

__all__ = [
    "StopTraining",
    "Training",
    "TrainingData",
    "build_model",
    "fit_model",
    "require_compiled",
    "train",
]

logger = logging.getLogger(__name__)

# Steps that one call of the compiled program does. Source: measured, about 20 % off the epoch of a small CNN on a CPU.
STEPS_PER_EXECUTION = 32
# Rows of a batch where nobody says it. Source: keras 3.15, `Model.fit`.
DEFAULT_BATCH_SIZE = 32
# Rows of the validation part that the probes look at after each epoch. Source: convention; ten of each class, as the
# recall of a class needs, for up to fifty classes.
PROBE_ROWS = 512


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on: arrays that are ready for it.

    Attributes:
        x, x_validation: Float32; shape (rows, ...).
        y, y_validation: Class codes or scaled numbers, shape (rows,); 0 and 1 of several labels, (rows, labels).
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
        model: The trained model as plain Keras; None if it failed or was pruned.
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
    """Ends a training whose outcome is certain, and tells the caller about every epoch.

    Args:
        monitor: Records the training.
        guard: Of the training, if it has one; before this in the list of callbacks.
        epochs: Its budget.
        seed: Decides the order of the rows where it is not dealt here (`tuner.training.order`).
        ends_early: Also for what is certain but still a number: diverged for good, not learning, over-fitting.
        on_epoch: The caller.

    Attributes:
        verdict: What ended the training, or would have after its last epoch; None if nothing did.
        best_epoch: Zero-based, with the lowest validation loss.
        best_weights: Of that epoch, if `ends_early`.
        pruned: Why the caller ended it, or empty.
    """

    def __init__(
        self,
        monitor: StabilityMonitor,
        *,
        guard: SpikeGuard | None,
        epochs: int,
        seed: int,
        ends_early: bool,
        on_epoch: Callable[[int, Trace], str | None] | None,
    ) -> None:
        super().__init__()
        self._seed = seed
        self.verdict: Verdict | None = None
        self.best_epoch = -1
        self.best_weights: list[npt.NDArray[Any]] = []
        self.pruned = ""
        self._lowest_loss = math.inf
        self._recorder = guard or monitor
        self._guard = guard
        self._epochs = epochs
        self._ends_early = ends_early
        self._on_epoch = on_epoch

    def get_state(self) -> dict[str, npt.NDArray[Any]]:
        """The best epoch so far, for a checkpoint."""
        best = {f"best/{position}": values for position, values in enumerate(self.best_weights)}
        return best | {"best_epoch": np.array(self.best_epoch), "lowest_loss": np.array(self._lowest_loss)}

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Know the best epoch of before."""
        self.best_epoch, self._lowest_loss = int(state["best_epoch"]), float(state["lowest_loss"])
        self.best_weights = [state[f"best/{position}"] for position in range(len(state) - 2)]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Other backends deal the rows with NumPy, and a model that is new to `fit` draws an order more than one whose
        # compiled functions are there.
        if keras.backend.backend() != "tensorflow":
            np.random.seed(self._seed % 2**32)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        trace = replace(self._recorder.trace, planned_epochs=self._epochs)
        guarded = self._guard.verdict if self._guard else None
        found = guarded or verdict(trace)
        if found.should_stop and (self._ends_early or guarded or first_failure(trace) is not None):
            self.verdict = found
            self.model.stop_training = True
        if self._ends_early:
            self._keep_best(trace)
        if self._on_epoch is not None:
            try:
                reason = self._on_epoch(epoch, trace)
            except Exception as error:
                raise _CallerFailedError(error) from error
            if reason and not self.verdict:
                self.pruned = reason
                self.model.stop_training = True

    def _keep_best(self, trace: Trace) -> None:
        if trace.validation_loss.size and trace.validation_loss[-1] < self._lowest_loss:
            self._lowest_loss = float(trace.validation_loss[-1])
            self.best_epoch = trace.num_epochs - 1
            self.best_weights = self.model.get_weights()


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
    ends_early: bool = False,
    is_guarded: bool = False,
    has_probes: bool = False,
    data_findings: Sequence[Finding] = (),
    on_epoch: Callable[[int, Trace], str | None] | None = None,
    checkpoint_file: Path | None = None,
    memory_bytes: int | None = None,
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
        ends_early: End the training after the epoch in which its outcome is certain. One that over-fits gets the
            weights of its best epoch back, and is judged as if it had ended there.
        is_guarded: Roll the training back when its loss spikes, find out why, and go on; a sound one is not touched.
        has_probes: Record the probe channels too (`Trace.channels`).
        data_findings: Of the data audit, as evidence for the causes.
        on_epoch: Called after every epoch with its zero-based number and the trace so far; may raise `StopTraining`.
            What it returns, unless it is empty, is why the training is not worth going on with: it ends as pruned.
        checkpoint_file: Where the state of the training is kept; one that was interrupted goes on from there. The
            caller removes it, once the result is safe.
        memory_bytes: What there is; a model that needs more is not trained. None: that is not looked at.
        fit_kwargs: Passed on to `fit`.

    Returns:
        The record, the trace of all epochs, and the model unless the training failed. A diverged training, and an
        exception in the user's model, are results.
    """
    started = time.perf_counter()

    def attempt() -> _Fitted:
        hook_kwargs = {"epochs": epochs, "seed": seed, "ends_early": ends_early, "on_epoch": on_epoch}
        watch = _watch(data, judgement, is_guarded=is_guarded, has_probes=has_probes, **hook_kwargs)
        # What the guard remembers, its snapshots and blocked steps, is in no checkpoint.
        if checkpoint_file is not None and watch.guard is None:
            belongs_to = {"hyperparameters": dict(hp.values), "seed": seed, "epochs": epochs, "ends_early": ends_early}
            parts: dict[str, Stateful] = {"monitor": watch.monitor, "hook": watch.hook}
            checkpoint = Checkpoint(checkpoint_file, belongs_to=belongs_to, epochs=epochs, parts=parts)
            watch = replace(watch, checkpoint=checkpoint)
        return _fit(
            hypermodel,
            hp,
            data=data,
            judgement=judgement,
            seed=seed,
            trial=trial,
            watch=watch,
            memory_bytes=memory_bytes,
            epochs=epochs,
            **fit_kwargs,
        )

    try:
        fitted = attempt()
    except NeedsModelError:
        # Its `fit` does more than to train: it is given the model itself from now on.
        fitted = attempt()
    model, exception, hook, guard = fitted.model, fitted.exception, fitted.watch.hook, fitted.watch.guard
    checkpoint = fitted.watch.checkpoint
    trace = kept = replace(fitted.watch.recorder.trace, planned_epochs=epochs)
    ended_by = hook.verdict.code if hook.verdict else ""
    if ended_by == "over_fitting" and not exception:
        kept = first_epochs(trace, hook.best_epoch + 1)
        fitted.set_weights(hook.best_weights)
    done = len(trace.step_loss) / max(1, epochs * trace.steps_per_epoch)
    judged = (
        judgement.failed(Outcome.INFEASIBLE if fitted.is_out_of_memory else Outcome.ERROR, done)
        if exception
        else judgement.judge(kept, ended_by="pruned" if hook.pruned else ended_by)
    )
    findings = detect(trace).findings
    causes = diagnose(
        findings,
        trace=trace,
        hyperparameters=hp.values,
        data_findings=data_findings,
        # Without a symptom there is nothing to explain.
        model_findings=fitted.model_findings if findings else (),
    )
    run = SeedRun(
        trial=trial,
        seed_index=seed_index,
        seed=seed,
        outcome=judged.outcome,
        objective=judged.objective,
        error=judged.error,
        score=judged.score,
        metrics=_last_metrics(kept),
        epochs=kept.num_epochs,
        steps_per_epoch=trace.steps_per_epoch,
        num_parameters=int(model.count_params()) if model is not None and model.built else 0,
        seconds=time.perf_counter() - started + (checkpoint.seconds_before if checkpoint else 0.0),
        message=exception or _message(hook.verdict, trace, kept) or _pruned_message(hook.pruned, trace),
        ended_by=ended_by,
        is_feasible=judged.is_feasible,
        findings=(*(guard.findings if guard else ()), *findings),
        causes=causes,
        program=fitted.program,
    )
    return Training(run, trace, None if judged.outcome.is_failed or hook.pruned else model)


@dataclass(frozen=True)
class _Watch:
    """What looks at one training."""

    monitor: StabilityMonitor
    guard: SpikeGuard | None
    hook: _EpochHook
    checkpoint: Checkpoint | None = None

    @property
    def recorder(self) -> StabilityMonitor | SpikeGuard:
        """Whose trace counts."""
        return self.guard or self.monitor

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """In the order that they need."""
        return [self.monitor, *([self.guard] if self.guard else []), self.hook]


def _watch(
    data: TrainingData, judgement: Judgement, *, is_guarded: bool, has_probes: bool, **hook_kwargs: Any
) -> _Watch:
    chance_loss = judgement.minimised_chance(data.y, data.class_weight)
    monitor = StabilityMonitor(
        chance_loss, metric=judgement.watched_metric, num_classes=judgement.num_classes, probes=has_probes
    )
    guard = SpikeGuard(monitor, chance_loss=chance_loss) if is_guarded else None
    return _Watch(monitor, guard, _EpochHook(monitor, guard=guard, **hook_kwargs))


@dataclass(frozen=True)
class _Fitted:
    """What came of one `fit`: the model, if it was built, what its check found, and the exception that ended it."""

    watch: _Watch
    model: Any
    model_findings: tuple[Finding, ...]
    exception: str = ""
    is_out_of_memory: bool = False
    trainee: Trainee | None = None

    @property
    def program(self) -> ProgramUse:
        """Whether it was trained in a shared program."""
        return self.trainee.use if self.trainee else ""

    def set_weights(self, weights: list[npt.NDArray[Any]]) -> None:
        """Give the model weights that it had in this training."""
        (self.trainee or self.model).set_weights(weights)


def _fit(
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    *,
    data: TrainingData,
    judgement: Judgement,
    seed: int,
    trial: int,
    watch: _Watch,
    memory_bytes: int | None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_kwargs: Any,
) -> _Fitted:
    """Build and fit under the eyes of monitor and guard; the exception of a model is a result."""
    model: Any = None
    model_findings: tuple[Finding, ...] = ()
    trainee: Trainee | None = None
    set_random_seed(seed)
    try:
        with bounded_weights(memory_bytes):
            model = build_model(hypermodel, hp)
        batch_size = int(hp.values.get("batch_size") or fit_kwargs.get("batch_size") or DEFAULT_BATCH_SIZE)
        reason = infeasibility(model, batch_size=batch_size, available_bytes=memory_bytes) if model.built else ""
        if reason:
            return _Fitted(watch, model, (), f"The model was not trained: {reason}", is_out_of_memory=True)
        # Before the training: it looks at the initial weights.
        model_findings = check_model(
            model,
            num_classes=judgement.num_classes,
            is_multilabel=judgement.is_multilabel,
            num_train=len(data.x),
        )
        if watch.monitor.has_probes:
            rows = np.random.default_rng(seed).permutation(len(data.x_validation))[:PROBE_ROWS]
            watch.monitor.probe_batch(data.x_validation[rows], _labels_for(model, data.y_validation[rows], judgement))
        checkpoint = watch.checkpoint
        fit_kwargs["callbacks"] = [*watch.callbacks, *callbacks, *([checkpoint] if checkpoint else [])]
        # The guard's first checkpoint is of an optimizer that is not built yet; in a shared program it is.
        if watch.guard is None and programs.shares(hypermodel):
            trainee = Trainee(
                hypermodel,
                model,
                seed=seed,
                monitor=watch.monitor,
                checkpoint=checkpoint,
                own_callbacks=[watch.hook],
            )
            fit_model(hypermodel, hp, model, trainee=trainee, data=data, judgement=judgement, **fit_kwargs)
        else:
            reshuffle_every_epoch(model, seed, on_deal=watch.guard.replay_from if watch.guard else None)
            if checkpoint is not None:
                checkpoint.watch(model)
            fit_model(hypermodel, hp, model, data=data, judgement=judgement, **fit_kwargs)
            restore_order(model)
        if not (trainee and trainee.use):
            watch.monitor.detach()
    except _CallerFailedError as failed:
        raise failed.error from None
    except StopTraining:
        if watch.checkpoint is not None:
            watch.checkpoint.save()
        raise
    except WeightsTooLarge as error:
        return _Fitted(watch, None, (), f"The model was not built: {error}", is_out_of_memory=True)
    except EnvironmentFault:
        raise
    except Exception as error:
        logger.exception("trial %d, seed %d ended with an exception", trial, seed)
        told = f"{type(error).__name__}: {error}"
        is_full = is_out_of_memory(error)
        return _Fitted(watch, model, model_findings, told, is_out_of_memory=is_full, trainee=trainee)
    return _Fitted(watch, model, model_findings, trainee=trainee)


def build_model(hypermodel: keras_tuner.HyperModel, hp: keras_tuner.HyperParameters) -> Any:
    """Build a compiled model that is ready to be trained fast.

    Raises:
        TypeError: `build` returned something else.
    """
    model = require_compiled(hypermodel.build(hp))
    if model.steps_per_execution == 1 and not model.run_eagerly:
        model.steps_per_execution = STEPS_PER_EXECUTION
    if (jit := jit_of_models()) is not None and not model.run_eagerly:
        model.jit_compile = jit
    return model


def require_compiled(built: object) -> Any:
    """Return what `build(hp)` of a search space returned, if it is a model that can be trained.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(built, keras.Model):
        raise TypeError(
            f"build(hp) of the search space returned an object of type {type(built).__name__}. "
            "Expected a compiled keras.Model; does it end with `return model`?"
        )
    if not built.compiled:
        raise TypeError(
            "build(hp) of the search space returned a model that is not compiled. "
            "Call model.compile(optimizer=..., loss=..., metrics=[...]) before returning it."
        )
    return built


def fit_model(
    hypermodel: keras_tuner.HyperModel,
    hp: keras_tuner.HyperParameters,
    model: Any,
    *,
    data: TrainingData,
    judgement: Judgement,
    trainee: Trainee | None = None,
    **fit_kwargs: Any,
) -> None:
    """Have the hypermodel fit its model to the data, in the form of labels that the model was compiled for.

    Args:
        hypermodel, hp, model: As for and from `build_model`.
        data: Prepared arrays.
        judgement: Knows the number of classes.
        trainee: Trains the model, in a shared program if it can; None: the model itself.
        fit_kwargs: Passed on to `fit`.
    """
    y, y_validation = (_labels_for(model, labels, judgement) for labels in (data.y, data.y_validation))
    fit_kwargs.setdefault("verbose", 0)
    if data.class_weight is not None:
        fit_kwargs["class_weight"] = data.class_weight
    trained = StandIn(trainee) if trainee else model
    hypermodel.fit(hp, trained, data.x, y, validation_data=(data.x_validation, y_validation), **fit_kwargs)


def _labels_for(model: Any, labels: npt.NDArray[Any], judgement: Judgement) -> npt.NDArray[Any]:
    """Labels in the form that the model was compiled for."""
    if labels.ndim > 1 or not wants_one_hot(model):
        return labels
    one_hot: npt.NDArray[Any] = keras.utils.to_categorical(labels, judgement.num_classes)
    return one_hot


def _message(found: Verdict | None, trace: Trace, kept: Trace) -> str:
    """Why a training has no model, or ended early, for the user; empty for one that simply trained."""
    if found is None:
        return "" if trace.validation_loss.size else "no validation loss was recorded"
    early = f"Ended after epoch {trace.num_epochs} of {trace.planned_epochs}. "
    told = (early if trace.num_epochs < trace.planned_epochs else "") + found.reason
    if kept is trace:
        return told
    return f"{told} Kept: the weights of epoch {kept.num_epochs}, where the validation loss was lowest."


def _pruned_message(reason: str, trace: Trace) -> str:
    return f"Ended after epoch {trace.num_epochs} of {trace.planned_epochs}: {reason}." if reason else ""


def _last_metrics(trace: Trace) -> dict[str, float]:
    series = {"val_loss": trace.validation_loss, "loss": trace.train_loss}
    series |= {f"val_{name}": values for name, values in trace.metrics.items()}
    return {name: float(values[-1]) for name, values in series.items() if values.size}
