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


NOISE_SHAPES = ("lognormal", "gamma", "gamma4", "student", "clipped")


def noisy(loss: Floats, frac: float, seed: int | list[int], shape: str = "lognormal") -> Floats:
    """The loss times noise of mean near 1 and relative standard deviation `frac`; positive."""
    rng = np.random.default_rng(seed)
    size = len(loss)
    if shape == "lognormal":
        return loss * np.exp(rng.normal(0, frac, size))
    if shape == "student":
        return loss * np.maximum(1 + frac / np.sqrt(2) * rng.standard_t(4, size), 0.05)
    if shape == "gamma4":
        return loss * np.maximum(1 + 2 * frac * (rng.gamma(4, 0.25, size) - 1), 0.05)
    if shape == "clipped":
        return loss * np.maximum(1 + frac * rng.standard_normal(size), 0.05)
    return loss * rng.gamma(1 / frac**2, frac**2, size)


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


def wave(num_steps: int, period: int, factor: float = 2.0) -> Floats:
    """A square wave between 1 and `factor`."""
    return np.where(np.arange(num_steps) % period < period // 2, 1.0, factor)


def clean_validation(epochs: int = EPOCHS, *, noise_frac: float = 0.005, seed: int = 0) -> Floats:
    """The validation loss of a clean training, a tenth above its training loss."""
    ends = decay(epochs * STEPS)[STEPS - 1 :: STEPS]
    return noisy(1.1 * ends, noise_frac, seed)


def over_fitted(validation: Floats, *, from_frac: float = 0.25, growth: float = 1.05) -> Floats:
    """The validation loss, rising by `growth` an epoch from this share of the epochs on."""
    best = int(from_frac * len(validation))
    epochs = np.arange(len(validation))
    return np.where(epochs < best, validation, validation[best] * growth ** np.maximum(0, epochs - best))


def faults(clean: Floats, *, steps: int, factor: float = 2.0) -> dict[str, Trace]:
    """The faults that the contract orders, from harmless to fatal, each where it shows.

    Spikes and oscillation are in the training loss, over-fitting in the validation loss, the collapse in both.

    Args:
        clean: Step losses of a clean training, noise included.
        steps: Steps per epoch.
        factor: Peak over trough of the oscillations.
    """
    size = len(clean)
    epochs, length = size // steps, size // 50
    validation = clean_validation(epochs)
    one = spiked(clean, size // 2, length=length)
    four = clean
    for at in (0.25, 0.5, 0.7, 0.9):
        four = spiked(four, int(at * size), length=length)
    dead = np.arange(size) >= int(0.6 * size)
    broken = np.where(dead, np.nan, clean)
    losses = {
        "clean": clean,
        "outlier batch": spiked(clean, size // 2, length=1),
        "spike": one,
        "four spikes": four,
        "oscillation of period 2": clean * wave(size, 2, factor),
        "oscillation of period 40": clean * wave(size, 40, factor),
        "over-fitting": clean,
        "collapse": np.where(dead, clean / decay(size) * CHANCE, clean),
        "NaN": broken,
    }
    changed = {
        "over-fitting": over_fitted(validation),
        "collapse": np.where(np.arange(epochs) >= int(0.6 * epochs), CHANCE * 1.01, validation),
    }
    return {name: trace(loss, steps=steps, validation=changed.get(name, validation)) for name, loss in losses.items()}
