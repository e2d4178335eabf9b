"""What the loss of a compiled model says about its labels and outputs."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["BINARY_LOSSES", "ends_with_logits", "is_classifier", "loss_name", "plain_loss", "wants_one_hot"]

# Losses that take each output for the probability of a yes.
BINARY_LOSSES = ("binary_crossentropy", "binary_focal_crossentropy")

_ONE_HOT_LOSSES = ("categorical_crossentropy", "categorical_focal_crossentropy", "kl_divergence")


def is_classifier(model: Any) -> bool:
    """Whether the loss compares class probabilities."""
    return any(word in loss_name(model) for word in ("crossentropy", "focal", "kl_divergence"))


def wants_one_hot(model: Any) -> bool:
    """Whether the model was compiled for one-hot labels, as much existing code is; ours are class codes."""
    return loss_name(model) in _ONE_HOT_LOSSES


def ends_with_logits(model: Any) -> bool:
    """Whether the outputs are logits, which a sigmoid or softmax turns into probabilities."""
    config = model.loss.get_config() if isinstance(model.loss, keras.losses.Loss) else {}
    return bool(config.get("from_logits", False))


def loss_name(model: Any) -> str:
    """Name of the loss, in the long form of Keras; a function's own name if it is the user's."""
    loss = keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss
    return str(getattr(loss, "name", getattr(loss, "__name__", "")))


def plain_loss(compiled_loss: Any, y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> Any:
    """Loss of a batch without label smoothing; what Keras shows of several outputs does not change.

    Args:
        compiled_loss: Of a compiled model, as Keras keeps it.
        y_true, y_pred: Labels and outputs.
        sample_weight: Of its rows, if they are to count.
    """
    if not compiled_loss.built:
        compiled_loss(y_true, y_pred)
    kept = compiled_loss._flat_losses, compiled_loss._metrics
    compiled_loss._flat_losses = [each._replace(loss=_unsmoothed(each.loss)) for each in kept[0]]
    compiled_loss._metrics = [None] * len(kept[0])
    try:
        return compiled_loss(y_true, y_pred, sample_weight)
    finally:
        compiled_loss._flat_losses, compiled_loss._metrics = kept


def _unsmoothed(loss: Any) -> Any:
    if not getattr(loss, "label_smoothing", 0):
        return loss
    return type(loss).from_config(loss.get_config() | {"label_smoothing": 0.0})
