"""The stability margins of a run: each sweep done once, stored in the run folder, and shared by all its trials."""

from __future__ import annotations

from typing import Any

from keras_tuner.engine import hyperparameters as kinds

from tuner.records import HyperparameterValue

__all__ = ["random_values"]


def random_values(space: Any, *, seed: int) -> dict[str, HyperparameterValue]:
    """A random configuration of a space: the active hyperparameters and their values.

    Args:
        space: A `keras_tuner.HyperParameters`.
        seed: Decides the values.
    """
    drawn = kinds.HyperParameters()
    for number, hp in enumerate(space.space):
        drawn.merge([hp])
        if drawn.is_active(hp):
            drawn.values[hp.name] = hp.random_sample(seed + 7919 * number)
    return dict(drawn.values)
