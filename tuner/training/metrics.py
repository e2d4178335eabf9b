"""Metrics of a validation, whatever form labels and outputs have."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["BalancedAccuracy", "MacroF1", "MeanAveragePrecision", "PlainAccuracy", "class_codes"]

# Scores are counted in this many bins of equal width between logits of -`MAX_LOGIT` and `MAX_LOGIT`; those of one bin
# count as equal. Source: tests/training/test_metrics.py has it within 0.003 of the exact precision.
NUM_BINS = 1024
MAX_LOGIT = 16.0


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
        return _mean_of_occurring(self.right.value / keras.ops.maximum(self.seen.value, 1.0), self.seen.value)


class MeanAveragePrecision(keras.metrics.Metric):
    """Average precision of each label, mean over those that occur, of samples that may have several.

    It is that of scikit-learn's `average_precision_score`, from counts of the scores in narrow bins.

    Args:
        num_labels: Number of labels.
        threshold: 0.5 for outputs that are probabilities, 0 for logits.
    """

    def __init__(self, num_labels: int, *, threshold: float = 0.5) -> None:
        super().__init__(name="mean_average_precision")
        self._threshold = threshold
        self._num_labels = num_labels
        shape = (num_labels * NUM_BINS,)
        self.positives = self.add_variable(shape=shape, initializer="zeros", name="positives")
        self.total = self.add_variable(shape=shape, initializer="zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        ops = keras.ops
        labels, scores = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        if self._threshold:
            scores = ops.log(ops.maximum(scores, 1e-30)) - ops.log(ops.maximum(1 - scores, 1e-30))
        # Of a network that has diverged: what is no number has no place.
        scores = ops.where(ops.isnan(scores), 0.0, scores)
        places = ops.clip((scores + MAX_LOGIT) * (NUM_BINS / (2 * MAX_LOGIT)), 0, NUM_BINS - 1)
        bins = ops.reshape(ops.cast(places, "int32") + NUM_BINS * ops.arange(self._num_labels, dtype="int32"), (-1,))
        size = self._num_labels * NUM_BINS
        self.positives.assign_add(ops.segment_sum(ops.reshape(labels, (-1,)), bins, num_segments=size))
        self.total.assign_add(ops.segment_sum(ops.ones_like(bins, dtype="float32"), bins, num_segments=size))

    def result(self) -> Any:
        """Mean over labels of the sum over scores, highest first, of (rise of the recall) x precision."""
        ops = keras.ops
        positives, total = (
            ops.flip(ops.reshape(counts.value, (self._num_labels, NUM_BINS)), axis=1)
            for counts in (self.positives, self.total)
        )
        precision = ops.cumsum(positives, axis=1) / ops.maximum(ops.cumsum(total, axis=1), 1.0)
        num_positive = ops.sum(positives, axis=1)
        return _mean_of_occurring(ops.sum(positives * precision, axis=1) / ops.maximum(num_positive, 1.0), num_positive)


class MacroF1(keras.metrics.Metric):
    """F1 of each label, mean over those that occur, of samples that may have several.

    Args:
        num_labels: Number of labels.
        threshold: Above which an output says yes: 0.5 for a probability, 0 for a logit.
    """

    def __init__(self, num_labels: int, *, threshold: float = 0.5) -> None:
        super().__init__(name="macro_f1")
        self._threshold = threshold
        self.right = self.add_variable(shape=(num_labels,), initializer="zeros", name="right")
        self.answered = self.add_variable(shape=(num_labels,), initializer="zeros", name="answered")
        self.present = self.add_variable(shape=(num_labels,), initializer="zeros", name="present")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        labels = keras.ops.cast(y_true, "float32")
        answers = keras.ops.cast(keras.ops.convert_to_tensor(y_pred) > self._threshold, "float32")
        self.right.assign_add(keras.ops.sum(labels * answers, axis=0))
        self.answered.assign_add(keras.ops.sum(answers, axis=0))
        self.present.assign_add(keras.ops.sum(labels, axis=0))

    def result(self) -> Any:
        """Mean over labels of 2 x right / (answered + present)."""
        counted = keras.ops.maximum(self.answered.value + self.present.value, 1.0)
        return _mean_of_occurring(2 * self.right.value / counted, self.present.value)


def _mean_of_occurring(values: Any, counts: Any) -> Any:
    """Mean of the values whose count is not 0."""
    occurring = keras.ops.cast(counts > 0, "float32")
    return keras.ops.sum(values * occurring) / keras.ops.maximum(keras.ops.sum(occurring), 1.0)


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
