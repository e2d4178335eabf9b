"""What a study holds a training against: metric, chance level, weight of stability; and what comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tuner.records import Outcome, StabilityScore, Trace
from tuner.stability.score import failed_objective, first_failure, objective, outcome_of, score, smoothed_end

__all__ = ["Judged", "Judgement", "MetricName", "ObjectiveName", "chance_levels", "choose_metric"]

MetricName = Literal["accuracy", "balanced_accuracy", "loss"]
ObjectiveName = Literal["stable", "val_loss", "val_accuracy"]

# Classes more unequal than this are judged by balanced accuracy. Source: convention (3:1).
BALANCED_FROM_IMBALANCE = 3.0


@dataclass(frozen=True)
class Judged:
    """How one training ended and what it is worth.

    Attributes:
        error: Error at the end; None if the training failed.
        objective: J, finite for every outcome.
    """

    outcome: Outcome
    error: float | None
    objective: float
    score: StabilityScore


@dataclass(frozen=True)
class Judgement:
    """The measure that all trials of a study share.

    Attributes:
        metric: What the error is made of.
        chance_loss: L0, in the unit of the loss; > 0.
        chance_error: Error of the best constant answer under `metric`; > 0.
        num_validation: Rows of the validation part: errors below one row cannot be told apart.
        objective: `stable` minimises error and instability; the others one number alone, for comparison.
        stability_weight: Lambda; only `stable` uses it.
        num_classes: 0 for regression.
    """

    metric: MetricName
    chance_loss: float
    chance_error: float
    num_validation: int
    objective: ObjectiveName = "stable"
    stability_weight: float = 0.2
    num_classes: int = 0

    def judge(self, trace: Trace) -> Judged:
        """Judge a training by what it recorded.

        Args:
            trace: Of a training that ran to its end, or stopped being finite.
        """
        result = score(trace)
        failed_at = first_failure(trace)
        if failed_at is not None or not trace.validation_loss.size:
            planned = max(1, trace.planned_epochs * trace.steps_per_epoch)
            worst = failed_objective((failed_at or 0) / planned, weight=self.weight)
            return Judged(Outcome.DIVERGED if failed_at is not None else Outcome.ERROR, None, worst, result)
        error = self.error(trace)
        value = objective(error, chance_error=self._chance, instability=result.instability, weight=self.weight)
        return Judged(outcome_of(trace), error, value, result)

    @property
    def weight(self) -> float:
        """Lambda as it is used: 0 for the objectives that look at one number alone."""
        return self.stability_weight if self.objective == "stable" else 0.0

    def error(self, trace: Trace) -> float:
        """Error at the end of a training, mean of its last three epochs."""
        if self.by_loss:
            return smoothed_end(trace.validation_loss)
        return 1.0 - smoothed_end(trace.metrics[self.watched_metric]) + 1.0 / self.num_validation

    @property
    def by_loss(self) -> bool:
        """Whether the error is the validation loss itself."""
        return self.objective == "val_loss" or (self.metric == "loss" and self.objective != "val_accuracy")

    @property
    def watched_metric(self) -> MetricName:
        """The metric to record during training."""
        return "accuracy" if self.objective == "val_accuracy" and self.num_classes else self.metric

    @property
    def _chance(self) -> float:
        return self.chance_loss if self.by_loss else self.chance_error


def choose_metric(class_counts: npt.ArrayLike) -> MetricName:
    """Accuracy; balanced accuracy when the classes are more unequal than 3:1; the loss for regression (no classes)."""
    counts = np.asarray(class_counts)
    counts = counts[counts > 0]
    if not counts.size:
        return "loss"
    return "balanced_accuracy" if counts.max() > BALANCED_FROM_IMBALANCE * counts.min() else "accuracy"


def chance_levels(y: npt.NDArray[Any], *, num_classes: int, metric: MetricName) -> tuple[float, float]:
    """Loss and error of the best constant answer.

    Args:
        y: Labels of the training part: class codes, or numbers for regression.
        num_classes: 0 for regression.
        metric: What the error is made of.

    Returns:
        (L0, chance error): label entropy in nats and 1 - the best constant accuracy; for regression the variance of y,
        which is the squared error of its mean, twice.
    """
    if not num_classes:
        variance = max(float(np.var(y)), math.ulp(1.0))
        return variance, variance
    share = np.bincount(y.astype(np.int64), minlength=num_classes) / len(y)
    entropy = float(-np.sum(share[share > 0] * np.log(share[share > 0])))
    error = {"accuracy": 1.0 - float(share.max()), "balanced_accuracy": 1.0 - 1.0 / num_classes, "loss": entropy}[
        metric
    ]
    return entropy, error
