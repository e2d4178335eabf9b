"""Synthetic traces with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.records import Trace

CHANCE = 2.3
STEPS, EPOCHS = 100, 20
Floats = npt.NDArray[np.floating[Any]]


def decay(num_steps: int = STEPS * EPOCHS) -> Floats:
    """A clean training: from chance down to a tenth of it."""
    return 0.2 + (CHANCE - 0.2) * np.exp(-np.arange(num_steps) / (0.15 * num_steps))


def noisy(loss: Floats, frac: float, seed: int, shape: str = "lognormal") -> Floats:
    """The loss times noise of mean near 1 and relative standard deviation `frac`."""
    rng = np.random.default_rng(seed)
    if shape == "lognormal":
        return loss * np.exp(rng.normal(0, frac, len(loss)))
    if shape == "student":
        return loss * np.maximum(1 + frac / np.sqrt(2) * rng.standard_t(4, len(loss)), 0.05)
    return loss * rng.gamma(1 / frac**2, frac**2, len(loss))


def trace(
    step_loss: npt.ArrayLike,
    *,
    steps: int = STEPS,
    planned: int | None = None,
    validation: npt.ArrayLike | None = None,
    chance: float = CHANCE,
    **fields: Any,
) -> Trace:
    """A trace of these step losses; validation 10 % above the training loss unless given."""
    losses = np.asarray(step_loss, dtype=float)
    epochs = len(losses) // steps
    with np.errstate(over="ignore", invalid="ignore"):
        train = losses[: epochs * steps].reshape(epochs, steps).mean(axis=1)
    return Trace(
        step_loss=losses,
        grad_norm=np.ones_like(losses),
        train_loss=train,
        validation_loss=train * 1.1 if validation is None else np.asarray(validation, dtype=float),
        learning_rate=np.full(epochs, 1e-3),
        seconds=np.ones(epochs),
        steps_per_epoch=steps,
        planned_epochs=planned or epochs,
        chance_loss=chance,
        **fields,
    )


def spiked(loss: Floats, at: int, *, height: float = 8.0, length: int = 40) -> Floats:
    """The loss with a stretch `height` times as high."""
    result = loss.copy()
    result[at : at + length] *= height
    return result
