"""What follows from the task that data ask for: by what its trainings are judged, and what it is called.

What a task means for a network (head and loss) is in `search_spaces.blocks`, which imports nothing of ours; its chance
levels are in `tuner.stability.judgement`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.records import MetricName, Task

__all__ = ["METRIC_TITLES", "TASKS", "TaskTraits"]

METRIC_TITLES: dict[MetricName, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mean_average_precision": "mean average precision",
    "macro_f1": "macro F1",
    "loss": "validation loss",
}


@dataclass(frozen=True)
class TaskTraits:
    """What one task means outside the network.

    Attributes:
        metrics: By which its trainings can be judged beside the loss.
        is_balanced: Whether classes of unequal size can be made to count alike.
        noun: What `DataSpec.class_names` names, in the plural; empty for no names.
        title: What it is called in a sentence.
    """

    metrics: tuple[MetricName, ...]
    is_balanced: bool
    noun: str
    title: str


TASKS: dict[Task, TaskTraits] = {
    "classification": TaskTraits(
        ("balanced_accuracy", "accuracy"), is_balanced=True, noun="classes", title="classification"
    ),
    # Weights of classes mean nothing where a sample has several, and weights of single labels would move every
    # probability, and with it what 0.5 means; the metrics count each label the same instead.
    "multilabel": TaskTraits(
        ("mean_average_precision", "macro_f1"), is_balanced=False, noun="labels", title="multi-label classification"
    ),
    "regression": TaskTraits((), is_balanced=False, noun="", title="regression"),
}
