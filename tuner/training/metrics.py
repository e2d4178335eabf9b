"""Accuracies of a validation, whatever form labels and outputs have."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["BalancedAccuracy", "PlainAccuracy", "class_codes"]


class PlainAccuracy(keras.metrics.Mean):
    """Share of right answers.

    Args:
        threshold: From which on a single output unit answers class 1: 0.5 for a probability, 0 for a logit.
    """

    def __init__(self, *, threshold: float = 0.5) -> None:
        super().__init__(name="accuracy")
        self._threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        labels, answers = class_codes(y_true, y_pred, threshold=self._threshold)
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
        labels, answers = class_codes(y_true, y_pred, threshold=self._threshold)
        rows = keras.ops.one_hot(labels, self._num_classes, dtype="float32")
        hits = keras.ops.cast(keras.ops.equal(labels, answers), "float32")
        self.seen.assign_add(keras.ops.sum(rows, axis=0))
        self.right.assign_add(keras.ops.sum(rows * hits[:, None], axis=0))

    def result(self) -> Any:
        """Mean over classes of right / seen."""
        occurring = keras.ops.cast(self.seen.value > 0, "float32")
        recall = self.right.value / keras.ops.maximum(self.seen.value, 1.0)
        return keras.ops.sum(recall) / keras.ops.maximum(keras.ops.sum(occurring), 1.0)


def class_codes(y_true: Any, y_pred: Any, *, threshold: float) -> tuple[Any, Any]:
    """Class codes of labels and answers.

    Args:
        y_true: Codes or one-hot rows.
        y_pred: Probabilities or logits, of each class or of one.
        threshold: From which on a single output answers class 1.

    Returns:
        Labels and answers as int32; shape (rows,), or (rows, ...) where every sample has several.
    """
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
