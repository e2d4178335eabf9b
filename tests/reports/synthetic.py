"""Realistic runs made of formulas: clean decays, spikes, oscillation, over-fitting, NaN, exceptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tuner.config import SearchConfig
from tuner.records import (
    DatasetRecord,
    DataSpec,
    Finding,
    Outcome,
    Remedy,
    SeedRun,
    Trace,
    TrialRecord,
)
from tuner.stability.score import (
    failed_objective,
    failed_score,
    first_failure,
    objective,
    outcome_of,
    score,
    smoothed_end,
)

Behaviour = Literal["clean", "spikes", "oscillation", "overfit", "nan", "flat", "error", "infinite"]
BEHAVIOURS: tuple[Behaviour, ...] = (
    "clean",
    "clean",
    "spikes",
    "clean",
    "overfit",
    "nan",
    "clean",
    "oscillation",
    "flat",
    "error",
)

STEPS_PER_EPOCH = 60


@dataclass(frozen=True)
class Run:
    """Everything that `render` takes."""

    config: SearchConfig
    dataset: DatasetRecord
    trials: list[TrialRecord]
    traces: dict[int, Trace]
    environment: dict[str, str]

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `render`."""
        return dict(vars(self))


def trace(
    behaviour: Behaviour,
    *,
    seed: int = 0,
    epochs: int = 20,
    floor: float = 0.08,
    rate: float = 1e-3,
    has_validation: bool = True,
) -> Trace:
    """A trace of ten classes (chance level ln 10) that behaves as asked."""
    rng = np.random.default_rng(seed)
    num_steps, chance = epochs * STEPS_PER_EPOCH, math.log(10)
    step = np.arange(num_steps)
    level = floor + (chance - floor) * np.exp(-step / (0.12 * num_steps + 20))
    if behaviour == "spikes":
        for start in rng.integers(num_steps // 4, num_steps - 40, 4):
            level[start : start + 30] *= 1 + 7 * np.exp(-np.arange(30) / 8)[: len(level[start : start + 30])]
    if behaviour == "oscillation":
        level = level * np.exp(0.9 * np.sin(step / 35) * (step > num_steps / 5))
    if behaviour == "flat":
        level = np.full(num_steps, 1.05 * chance)
    losses = level * np.exp(rng.normal(0, 0.02 if behaviour == "flat" else 0.18, num_steps))
    if behaviour in ("nan", "infinite"):
        at = int(num_steps * rng.uniform(0.2, 0.7))
        losses[at - 25 : at] *= np.exp(np.linspace(0, 9, 25))
        losses = losses[: (at // STEPS_PER_EPOCH + 1) * STEPS_PER_EPOCH]
        losses[at:] = np.nan if behaviour == "nan" else np.inf
    train = losses.reshape(-1, STEPS_PER_EPOCH).mean(axis=1)
    epoch = np.arange(len(train))
    grown = np.exp(np.maximum(0, epoch - 6) * 0.3) if behaviour == "overfit" else 1.0
    validation = (
        np.nan_to_num(train, nan=np.nan, posinf=np.inf) * 1.15 * grown * np.exp(rng.normal(0, 0.02, len(train)))
    )
    accuracy = np.clip(1 - 0.35 * validation, 0.1, 1)
    return Trace(
        step_loss=losses.astype(np.float32),
        grad_norm=np.abs(rng.normal(1, 0.2, len(losses))).astype(np.float32),
        train_loss=train,
        validation_loss=validation if has_validation else np.array([]),
        learning_rate=np.full(len(train), rate),
        seconds=np.full(len(train), 0.8),
        steps_per_epoch=STEPS_PER_EPOCH,
        planned_epochs=epochs,
        chance_loss=chance,
        metrics={"accuracy": accuracy} if has_validation else {},
    )


def hyperparameters(number: int) -> dict[str, Any]:
    """Like those of the image space, with conditional ones."""
    rng = np.random.default_rng(1000 + number)
    values: dict[str, Any] = {
        "scaler": str(rng.choice(["standard", "minmax"])),
        "optimizer": str(rng.choice(["adam", "sgd", "rmsprop"])),
        "learning_rate": float(10 ** rng.uniform(-4.5, -1)),
        "batch_size": int(rng.choice([16, 32, 64, 128])),
        "num_blocks": int(rng.integers(1, 4)),
        "dropout": round(float(rng.uniform(0, 0.6)), 2),
        "batch_norm": bool(rng.integers(2)),
        "use_l2": bool(rng.integers(2)),
        "dense_units": int(rng.choice([0, 64, 128])),
        "schedule": str(rng.choice(["constant", "cosine"])),
        "clip_norm": float(rng.choice([0.0, 1.0, 5.0])),
        "activation": "relu",
    }
    if values["use_l2"]:
        values["l2"] = float(10 ** rng.uniform(-7, -2))
    for block in range(values["num_blocks"]):
        values[f"filters_{block}"] = int(rng.choice([16, 32, 64]))
    return values


def trial(
    number: int, behaviour: Behaviour, *, metric: str = "accuracy", **options: Any
) -> tuple[TrialRecord, Trace | None]:
    """A finished trial of one seed run, with its trace."""
    values = hyperparameters(number)
    rate = values["learning_rate"]
    floor = 0.06 + 0.08 * abs(math.log10(rate) + 2.6) ** 1.5
    if behaviour == "error":
        message = "InvalidArgumentError: computed output size would be negative: <script>alert('x')</script>"
        failure = failed_score(0.0)
        run = SeedRun(
            number, 0, 7, Outcome.ERROR, failed_objective(0.0, weight=0.2), None, failure, {}, 0, 0, 0, 1.5, message
        )
        return TrialRecord(
            number, Outcome.ERROR, values, run.objective, (run,), started=0.0, finished=2.0, message=message
        ), None
    recorded = trace(behaviour, seed=number, floor=floor, rate=rate, **options)
    judged, outcome = score(recorded), outcome_of(recorded)
    failed_at = first_failure(recorded)
    errors = 1 - recorded.metrics["accuracy"] if metric == "accuracy" and recorded.metrics else recorded.train_loss
    error = None if failed_at is not None else smoothed_end(errors)
    chance_error = 0.9 if metric == "accuracy" else 1.0
    value = (
        failed_objective(failed_at / (recorded.planned_epochs * STEPS_PER_EPOCH), weight=0.2)
        if failed_at is not None or error is None
        else objective(error, chance_error=chance_error, instability=judged.instability, weight=0.2)
    )
    metrics = {"loss": float(recorded.train_loss[-1])}
    if recorded.validation_loss.size:
        metrics |= {
            "val_loss": float(recorded.validation_loss[-1]),
            "val_accuracy": float(recorded.metrics["accuracy"][-1]),
        }
    message = "the loss was not finite" if outcome is Outcome.DIVERGED else ""
    run = SeedRun(
        trial=number, seed_index=0, seed=4711 + number, outcome=outcome, objective=value, error=error, score=judged,
        metrics=metrics, epochs=recorded.num_epochs,
        steps_per_epoch=STEPS_PER_EPOCH, num_parameters=12_345 + 1000 * number,
        seconds=15.0 + number, message=message,
    )  # fmt: skip
    return TrialRecord(number, outcome, values, value, (run,), message=message), recorded


def dataset(*, num_classes: int = 10, **changes: Any) -> DatasetRecord:
    """The record of a small image set with findings."""
    names = tuple(str(code) for code in range(num_classes))
    counts = tuple(180 - 3 * (code % 7) for code in range(num_classes))
    findings = (
        Finding(
            "few_samples", "class 8", 0.65, 0.9, {"samples": 12.0, "median": 178.0},
            "This class has too few samples to be learned.",
            ("0012.png", "0471.png"),
            (Remedy("data", "add samples of this class", "more evidence is the only real cure"),),
        ),
        Finding("skew", "", 0.2, 0.5, {"skewness": 1.31}, "Pixel values are skewed."),
    )  # fmt: skip
    record = DatasetRecord(
        source="scikit-learn digits",
        spec=DataSpec(form="digits", kind="image", task="classification", input_shape=(8, 8, 1), class_names=names),
        fingerprint="9c1e" * 16,
        num_train=1257,
        num_validation=270,
        num_test=270,
        class_counts=counts,
        num_features_missing=0,
        chance_loss=math.log(num_classes),
        chance_error=1 - 1 / num_classes,
        metric="accuracy",
        notes=("No data was given, so the search uses scikit-learn's handwritten digits.",),
        findings=findings,
    )
    return replace(record, **changes)


ENVIRONMENT = {
    "command": "python -m tuner search --trials 30 --run 'runs/my digits'",
    "python": "3.11.7",
    "tensorflow": "2.21.0",
    "keras": "3.15.0",
    "hardware": "2 CPU cores, 8 GB",
}


def run(
    behaviours: tuple[Behaviour, ...] = BEHAVIOURS * 3,
    *,
    num_waiting: int = 0,
    metric: str = "accuracy",
    **options: Any,
) -> Run:
    """A whole run: one trial a behaviour, then trials that have not finished."""
    made = [trial(number, behaviour, metric=metric, **options) for number, behaviour in enumerate(behaviours)]
    trials = [record for record, _ in made]
    traces = {record.number: recorded for record, recorded in made if recorded is not None}
    first = len(trials)
    if num_waiting:
        trials.append(TrialRecord(first, Outcome.RUNNING, hyperparameters(first), epoch_losses=(2.1, 1.4, 0.9)))
        trials += [TrialRecord(first + more, Outcome.WAITING, {}) for more in range(1, num_waiting)]
    changes = (
        {} if metric == "accuracy" else {"metric": "loss", "chance_error": 1.0, "chance_loss": 1.0, "class_counts": ()}
    )
    config = SearchConfig(trials=max(1, len(trials)), epochs=options.get("epochs", 20))  # type: ignore[call-arg]
    return Run(config, dataset(**changes), trials, traces, dict(ENVIRONMENT))
