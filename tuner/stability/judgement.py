"""What a study holds a training against: metric, chance level, objective; and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tuner.records import MetricName, Outcome, SeedRun, StabilityScore, Trace
from tuner.stability.alarm import ROLLBACK
from tuner.stability.ranking import STABLE
from tuner.stability.score import (
    failed_objective,
    failed_score,
    first_failure,
    objective,
    outcome_of,
    score,
    smoothed_end,
)

__all__ = [
    "Judged",
    "Judgement",
    "ObjectiveName",
    "chance_cross_entropy",
    "chance_levels",
    "choose_metric",
    "first_epochs",
    "worst_objective",
]

ObjectiveName = Literal["stable", "constrained", "pareto", "val_loss", "val_accuracy"]

# What the objective `constrained` asks of a training: to be stable.
CONSTRAINT = STABLE
# A training that had to be rolled back is not stable, however smooth the rest of it. Source: just below `STABLE`.
ROLLED_BACK_STABILITY = 0.79
# Classes more unequal than this are judged by balanced accuracy. Source: convention (3:1).
BALANCED_FROM_IMBALANCE = 3.0


@dataclass(frozen=True)
class Judged:
    """How one training ended and what it is worth.

    Attributes:
        error: Error at the end; None if the training failed.
        objective: J, finite for every outcome.
        is_feasible: Whether it keeps the constraint of the objective `constrained`; the others have none.
    """

    outcome: Outcome
    error: float | None
    objective: float
    score: StabilityScore
    is_feasible: bool = True


@dataclass(frozen=True)
class Judgement:
    """The measure that all trials of a study share.

    Attributes:
        metric: What the error is made of.
        chance_loss: L0, in the unit of the loss; > 0.
        chance_error: Error of the best constant answer under `metric`; > 0.
        num_validation: Rows of the validation part: errors below one row cannot be told apart.
        objective: `stable` minimises error and instability together; `constrained` the error among stable trainings,
            with those that are not ordered by stability behind them; `pareto` searches for the best of both apart
            (`axes`), and ranks as `stable` does; the others are one number alone, for comparison.
        stability_weight: Lambda; only `stable` and `pareto` use it.
        num_classes: Of several labels, their number; 0 for regression.
        is_multilabel: Whether a sample has several labels, or none.
    """

    metric: MetricName
    chance_loss: float
    chance_error: float
    num_validation: int
    objective: ObjectiveName = "stable"
    stability_weight: float = 0.2
    num_classes: int = 0
    is_multilabel: bool = False

    def judge(self, trace: Trace, *, ended_by: str = "") -> Judged:
        """Judge a training by what it recorded.

        Args:
            trace: Of a training that ran to its end, or was ended; one that over-fitted, of the epochs that are kept.
            ended_by: Code of the verdict that ended it (`tuner.stability.detectors.verdict`), `pruned`, or empty.
        """
        failed_at = first_failure(trace)
        if failed_at is None and ended_by == "divergence":
            failed_at = len(trace.step_loss) or trace.num_epochs * trace.steps_per_epoch
        if failed_at is not None:
            return self.failed(Outcome.DIVERGED, failed_at / max(1, trace.planned_epochs * trace.steps_per_epoch))
        if not trace.validation_loss.size:
            return replace(self.failed(Outcome.ERROR, 0.0), score=score(trace))
        result = _with_rollbacks(score(trace), trace)
        outcome = Outcome.NOT_LEARNING if ended_by == "not_learning" else outcome_of(trace)
        error = self.error(trace)
        is_feasible = self.objective != "constrained" or (
            outcome is Outcome.COMPLETED and result.stability >= CONSTRAINT
        )
        value = (
            objective(error, chance_error=self._chance, instability=result.instability, weight=self._weight)
            if is_feasible
            else _infeasible_objective(result)
        )
        return Judged(Outcome.PRUNED if ended_by == "pruned" else outcome, error, value, result, is_feasible)

    def failed(self, outcome: Outcome, progress_frac: float) -> Judged:
        """Judge a training from which no usable model came.

        Args:
            outcome: How it failed.
            progress_frac: Share of the planned budget done by then.
        """
        worst = worst_objective(self.objective, stability_weight=self.stability_weight, progress_frac=progress_frac)
        return Judged(outcome, None, worst, failed_score(progress_frac), is_feasible=self.objective != "constrained")

    def axes(self, run: SeedRun) -> tuple[float, float]:
        """What `pareto` minimises: error and instability; of a training that failed those of a constant answer."""
        return (self._chance if run.error is None else run.error, run.score.instability)

    @property
    def _weight(self) -> float:
        return _used_weight(self.objective, self.stability_weight)

    def error(self, trace: Trace) -> float:
        """Error at the end of a training, mean of its last three epochs."""
        if self.by_loss:
            return smoothed_end(trace.validation_loss)
        return 1.0 - smoothed_end(trace.metrics[self.watched_metric]) + 1.0 / self.num_validation

    def minimised_chance(self, y: npt.NDArray[Any], class_weight: Mapping[int, float] | None) -> float:
        """L0 of what a training minimises: of the rows that it is fed, with the weights of their classes.

        Where classes count alike, by weights or by repeated rows, it is also the plain loss of the constant answer that
        the training is drawn to, ln(classes). The entropy of the labels as they are lies far below that: held against
        it, sound trainings on SECOM (14 to 1) were ended as if they did not learn.

        Args:
            y: Labels of the training part as it is fed; class codes, unless it is a regression or has several columns.
            class_weight: What a row of each class counts; None: 1.
        """
        return chance_cross_entropy(y, class_weight) if self.num_classes and y.ndim == 1 else self.chance_loss

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


def worst_objective(name: ObjectiveName, *, stability_weight: float, progress_frac: float = 0.0) -> float:
    """J of a training that failed, under any objective; worse than that of any that did not.

    Args:
        name: The objective.
        stability_weight: Lambda.
        progress_frac: Share of the planned budget done by then; later is a little better.
    """
    if name == "constrained":
        return _infeasible_objective(failed_score(progress_frac))
    return failed_objective(progress_frac, weight=_used_weight(name, stability_weight))


def _used_weight(name: ObjectiveName, stability_weight: float) -> float:
    """Which objectives add the instability to the error."""
    return stability_weight if name in ("stable", "pareto") else 0.0


def _infeasible_objective(result: StabilityScore) -> float:
    """J of a training that breaks the constraint: the further below, the worse; at least the worst of those that don't.

    One that did not learn, however calmly, counts as one at the constraint.
    """
    return failed_objective(1.0, weight=0.0) + max(0.0, CONSTRAINT - result.stability)


def first_epochs(trace: Trace, count: int) -> Trace:
    """The trace of the same training, ended and planned to end after so many epochs.

    Args:
        trace: Of at least as many epochs.
        count: At least 1.
    """
    steps = count * trace.steps_per_epoch
    return replace(
        trace,
        step_loss=trace.step_loss[:steps],
        grad_norm=trace.grad_norm[:steps],
        train_loss=trace.train_loss[:count],
        validation_loss=trace.validation_loss[:count],
        learning_rate=trace.learning_rate[:count],
        seconds=trace.seconds[:count],
        planned_epochs=count,
        metrics={name: values[:count] for name, values in trace.metrics.items()},
        channels={name: values[:count] for name, values in trace.channels.items()},
        events=tuple((step, kind) for step, kind in trace.events if step < steps),
    )


def _with_rollbacks(result: StabilityScore, trace: Trace) -> StabilityScore:
    """The score of a training that the guard may have rolled back: its spike may be all in what is not judged."""
    if not any(kind == ROLLBACK for _, kind in trace.events):
        return result
    return replace(
        result,
        stability=min(result.stability, ROLLED_BACK_STABILITY),
        instability=max(result.instability, -math.log(ROLLED_BACK_STABILITY)),
    )


def choose_metric(class_counts: npt.ArrayLike, *, is_multilabel: bool = False) -> MetricName:
    """The metric that a study is judged by if the user names none.

    Classes: accuracy, or balanced accuracy if they are more unequal than 3:1. Several labels: mean average precision.
    It asks of each label whether the samples that have it are ranked before those that do not, so a rare label whose
    probability never reaches 0.5 still tells one network from another, which macro F1 cannot. Regression (no classes):
    the loss.

    Args:
        class_counts: Rows of each class, or with each label.
        is_multilabel: Whether a row may have several.

    Source: Everingham et al. 2010 ("The PASCAL VOC challenge"), section 4.2; Gemmeke et al. 2017 ("Audio Set"),
    section 4.
    """
    if is_multilabel:
        return "mean_average_precision"
    counts = np.asarray(class_counts)
    counts = counts[counts > 0]
    if not counts.size:
        return "loss"
    return "balanced_accuracy" if counts.max() > BALANCED_FROM_IMBALANCE * counts.min() else "accuracy"


def chance_cross_entropy(codes: npt.NDArray[Any], class_weight: Mapping[int, float] | None = None) -> float:
    """Loss of the best constant answer to these labels, in nats.

    Args:
        codes: Class codes; shape (rows,).
        class_weight: What a row of each class counts; None: 1.
    """
    present, counts = np.unique(codes, return_counts=True)
    weights = counts * [(class_weight or {}).get(int(code), 1.0) for code in present]
    weights = weights[weights > 0]
    return float(-np.sum(weights * np.log(weights / weights.sum())) / counts.sum())


def chance_levels(y: npt.NDArray[Any], *, num_classes: int, metric: MetricName) -> tuple[float, float]:
    """Loss and error of the best constant answer.

    Args:
        y: Labels of the training part: class codes, rows of 0 and 1 of several labels, or numbers for regression.
        num_classes: 0 for regression.
        metric: What the error is made of.

    Returns:
        (L0, chance error): label entropy in nats and 1 - the best constant accuracy; of several labels the mean over
        them, as the loss takes it; for regression the variance of y, which is the squared error of its mean, twice.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        return _label_chance_levels(y, metric)
    if not num_classes:
        variance = max(float(np.var(y)), math.ulp(1.0))
        return variance, variance
    share = np.bincount(y.astype(np.int64), minlength=num_classes) / len(y)
    entropy = chance_cross_entropy(y)
    error = {"accuracy": 1.0 - float(share.max()), "balanced_accuracy": 1.0 - 1.0 / num_classes, "loss": entropy}[
        metric
    ]
    return entropy, error


def _label_chance_levels(y: npt.NDArray[Any], metric: MetricName) -> tuple[float, float]:
    """Of several labels: of answers that are the same for every row. Labels that no row has are not judged."""
    share = y.mean(axis=0, dtype=np.float64)
    varied = share[(share > 0) & (share < 1)]
    entropy = -float(np.sum(varied * np.log(varied) + (1 - varied) * np.log1p(-varied))) / len(share)
    present = share[share > 0]
    # Where all rows rank alike, the precision is the share of the label; of yes and no, always yes has the best F1.
    errors = {
        "mean_average_precision": 1.0 - float(present.mean()),
        "macro_f1": 1.0 - float(np.mean(2 * present / (1 + present))),
        "loss": entropy,
    }
    return entropy, errors[metric]
