"""What the loss of a compiled model says about its labels and outputs."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["ends_with_logits", "is_classifier", "loss_name", "wants_one_hot"]

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
