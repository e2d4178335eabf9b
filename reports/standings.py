"""What a trial's record says, in the terms that the page is written in."""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.records import FINISHED_OUTCOMES, DatasetRecord, Outcome, SeedRun, StabilityScore, TrialRecord
from tuner.stability.ranking import STABLE

__all__ = [
    "PARTS",
    "Band",
    "Part",
    "band",
    "error",
    "finished",
    "largest_part",
    "metric_spread",
    "metric_value",
    "score_band",
    "shown_run",
    "validation_loss",
]

# Bounds of the finer bands, for colour and symbol only. Source: convention; exp(-0.05) and exp(-0.7) (half) rounded.
_VERY_STABLE_FROM = 0.95
_VERY_UNSTABLE_BELOW = 0.5


class Band(enum.Enum):
    """Where a trial stands; the one thing that colour and symbol say everywhere on the page."""

    VERY_STABLE = "very-stable"
    STABLE = "stable"
    UNSTABLE = "unstable"
    VERY_UNSTABLE = "very-unstable"
    NOT_LEARNING = "not-learning"
    NOT_ASSESSED = "not-assessed"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def label(self) -> str:
        """In words."""
        return self.value.replace("-", " ")

    @property
    def is_stable(self) -> bool:
        """Whether it reaches the threshold."""
        return self in (Band.VERY_STABLE, Band.STABLE)

    @property
    def is_warning(self) -> bool:
        """Whether the trial trained, but must be marked."""
        return self in (Band.UNSTABLE, Band.VERY_UNSTABLE, Band.NOT_LEARNING)


@dataclass(frozen=True)
class Part:
    """One part of the instability I.

    Attributes:
        weight: With which it enters the sum I.
        meaning: What it measures, in one line.
    """

    symbol: str
    field: str
    name: str
    weight: float
    meaning: str


PARTS = (
    Part(
        "U",
        "drawdown",
        "training drawdown",
        1.0,
        "how far, and for how long, the training loss was above its own best: spikes, oscillation",
    ),
    Part(
        "R",
        "unrecovered",
        "unrecovered training loss",
        1.0,
        "rise of the training loss that was still there at the end",
    ),
    Part(
        "V",
        "validation_drawdown",
        "validation drawdown",
        0.5,
        "how far, and for how long, the validation loss was above its own best",
    ),
    Part(
        "E",
        "validation_unrecovered",
        "unrecovered validation loss",
        1.0,
        "rise of the validation loss that was still there at the end: over-fitting",
    ),
    Part(
        "G",
        "gap_growth",
        "gap growth",
        0.25,
        "how much the gap between validation and training loss grew after the best validation epoch",
    ),
)


def finished(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that ended, in the order given."""
    return [trial for trial in trials if trial.outcome in FINISHED_OUTCOMES]


def shown_run(trial: TrialRecord) -> SeedRun | None:
    """The seed run that stands for the trial: the least stable one, whose stability is the trial's."""
    return min(trial.judged_runs, key=lambda run: run.score.stability, default=None)


def band(trial: TrialRecord) -> Band:
    """Where the trial stands."""
    run = shown_run(trial)
    if trial.outcome.is_failed or run is None or run.outcome.is_failed:
        return Band.FAILED
    if trial.outcome is Outcome.PRUNED:
        return Band.PRUNED
    if Outcome.NOT_LEARNING in (trial.outcome, run.outcome):
        return Band.NOT_LEARNING
    return score_band(run.score)


def score_band(score: StabilityScore) -> Band:
    """Where a training stands that did not fail and has learned something, by its score alone."""
    if all(getattr(score, part.field) is None for part in PARTS):
        return Band.NOT_ASSESSED
    if score.stability < _VERY_UNSTABLE_BELOW:
        return Band.VERY_UNSTABLE
    if score.stability < STABLE:
        return Band.UNSTABLE
    return Band.VERY_STABLE if score.stability >= _VERY_STABLE_FROM else Band.STABLE


def error(trial: TrialRecord) -> float | None:
    """Mean error over the seed runs that have one."""
    return _mean([run.error for run in trial.judged_runs if run.error is not None])


def metric_value(trial: TrialRecord, dataset: DatasetRecord) -> float | None:
    """The study's metric after the last epoch, mean over the seed runs: what the trained model has.

    The objective is made of the mean of the last three epochs instead (`error`).
    """
    return _mean(_metric_values(trial, dataset))


def _metric_values(trial: TrialRecord, dataset: DatasetRecord) -> list[float]:
    """Of each seed run that did not fail."""
    name = f"val_{dataset.metric}"
    return [run.metrics[name] for run in trial.judged_runs if run.error is not None and name in run.metrics]


def validation_loss(trial: TrialRecord) -> float | None:
    """Validation loss at the end, mean over the seed runs; else the last one that was reported."""
    values = [run.metrics["val_loss"] for run in trial.judged_runs if "val_loss" in run.metrics]
    return _mean(values) if values else (trial.epoch_losses[-1] if trial.epoch_losses else None)


def metric_spread(trial: TrialRecord, dataset: DatasetRecord) -> tuple[float, str] | None:
    """How exactly the metric is known: a number for behind +- and what it is; None where nothing can be said.

    Over several seed runs it is their standard deviation. Over one, the standard error of a share counted
    on the validation part; balanced accuracy takes the mean of such shares, one a class.
    """
    values = _metric_values(trial, dataset)
    if len(values) > 1:
        return statistics.stdev(values), f"standard deviation over {len(values)} fresh seeds"
    total = sum(dataset.class_counts)
    is_share = dataset.metric in ("accuracy", "balanced_accuracy")
    if not is_share or not values or dataset.num_validation < 1 or not 0 <= values[0] <= 1:
        return None
    variance = values[0] * (1 - values[0])
    if dataset.metric == "balanced_accuracy" and total and all(dataset.class_counts):
        sizes = [max(1.0, amount / total * dataset.num_validation) for amount in dataset.class_counts]
        deviation = math.sqrt(sum(variance / size for size in sizes)) / len(sizes)
    else:
        deviation = math.sqrt(variance / dataset.num_validation)
    return deviation, f"standard error on {dataset.num_validation:,} validation samples; one seed"


def largest_part(score: StabilityScore) -> Part | None:
    """The part that contributes most to the instability, or None if none contributes."""
    weighted = [(part.weight * (getattr(score, part.field) or 0.0), part) for part in PARTS]
    value, part = max(weighted, key=lambda pair: pair[0])
    return part if value > 0 else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
