"""Synthetic traces with known faults, and healthy ones of every kind that must not be taken for faulty."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.records import Trace

Floats = npt.NDArray[np.floating[Any]]
Generator = np.random.Generator

NOISE_SHAPES = ("lognormal", "gamma", "student")
CURVES = (
    "exponential",
    "power",
    "plateau",
    "late_start",
    "rate_drop",
    "cosine",
    "warm_up",
    "regression",
    "converged",
    "flat_end",
)


def batch_noise(rng: Generator, count: int, frac: float, shape: str) -> Floats:
    """Factors of mean near 1 and relative standard deviation `frac`."""
    if shape == "lognormal":
        return np.exp(rng.normal(0, frac, count))
    if shape == "student":
        return np.maximum(1 + frac / np.sqrt(2) * rng.standard_t(4, count), 0.05)
    return rng.gamma(1 / frac**2, frac**2, count)


def healthy_curve(kind: str, rng: Generator, num_steps: int, epochs: int) -> tuple[Floats, Floats]:
    """Relative loss of each step without noise, and the learning rate at the end of each epoch."""
    time = np.arange(num_steps) / num_steps
    floor, speed = rng.uniform(0.05, 0.5), rng.uniform(3, 12)
    rate = np.full(epochs, 1e-3)
    loss = floor + (1 - floor) * np.exp(-speed * time)
    if kind == "power":
        loss = floor + (1 - floor) * (1 + 40 * time) ** -rng.uniform(0.7, 1.2)
    elif kind == "plateau":
        loss = np.where(time < 0.4, 0.6 + 0.4 * np.exp(-15 * time), 0)
        loss = np.where(time < 0.4, loss, floor / 2 + (0.6 - floor / 2) * np.exp(-speed * 2 * (time - 0.4)))
    elif kind == "late_start":
        start = rng.uniform(0.05, 0.2)
        loss = np.where(time < start, 1.0, floor + (1 - floor) * np.exp(-speed * 1.5 * (time - start)))
    elif kind == "rate_drop":
        drop = rng.integers(max(1, epochs // 3), max(2, epochs))
        rate[drop:] /= 10
        after = np.arange(num_steps) * epochs >= drop * num_steps
        loss = np.where(after, loss * rng.uniform(0.4, 0.7), loss)
    elif kind == "cosine":
        rate = 1e-3 * (1 + np.cos(np.pi * np.arange(1, epochs + 1) / epochs)) / 2
        loss = floor + (1 - floor) * (np.exp(-speed * time) * 0.8 + 0.2 * (1 - time**2))
        loss = np.minimum(loss, 1.0)
    elif kind == "warm_up":
        length = max(1, epochs // 10)
        rate[:length] = 1e-3 * np.arange(1, length + 1) / (length + 1)
        late = np.maximum(0, time - 0.05)
        loss = floor + (1 - floor) * np.exp(-speed * late)
    elif kind == "regression":
        loss = floor / 3 + (rng.uniform(1.2, 4) - floor / 3) * np.exp(-2 * speed * time)
    elif kind == "converged":
        loss = 2e-3 + np.exp(-2 * speed * time)
    elif kind == "flat_end":
        loss = floor + (1 - floor) * np.exp(-4 * speed * time)
    return loss, rate


def build(
    loss: Floats,
    *,
    steps: int,
    chance: float,
    validation: Floats | None = None,
    rate: Floats | None = None,
    grad_norm: Floats | None = None,
    planned: int | None = None,
    rng: Generator,
    **fields: Any,
) -> Trace:
    """A trace of these relative step losses."""
    epochs = len(loss) // steps
    with np.errstate(over="ignore", invalid="ignore"):
        train = chance * loss[: epochs * steps].reshape(epochs, steps).mean(axis=1)
    return Trace(
        step_loss=chance * loss,
        grad_norm=np.exp(rng.normal(0, 0.4, len(loss))) if grad_norm is None else grad_norm,
        train_loss=train,
        validation_loss=train * 1.1 if validation is None else chance * validation,
        learning_rate=np.full(epochs, 1e-3) if rate is None else rate,
        seconds=np.ones(epochs),
        steps_per_epoch=steps,
        planned_epochs=planned or epochs,
        chance_loss=chance,
        **fields,
    )


def epoch_means(loss: Floats, steps: int) -> Floats:
    """Mean of each epoch."""
    epochs = len(loss) // steps
    return np.asarray(loss[: epochs * steps].reshape(epochs, steps).mean(axis=1))


def healthy(seed: int) -> Trace:
    """A healthy training; the seed decides curve, noise, batch size, length, chance level and validation jitter."""
    rng = np.random.default_rng(seed)
    kind, shape = CURVES[seed % len(CURVES)], NOISE_SHAPES[(seed // len(CURVES)) % len(NOISE_SHAPES)]
    steps, epochs = int(rng.choice([8, 20, 45, 100, 250])), int(rng.choice([5, 8, 12, 20, 30, 50]))
    loss, rate = healthy_curve(kind, rng, steps * epochs, epochs)
    noisy = loss * batch_noise(rng, len(loss), float(rng.choice([0.05, 0.1, 0.2, 0.3, 0.5])), shape)
    gap = rng.uniform(0.0, 0.15)
    ends = loss[steps - 1 :: steps][:epochs]
    validation = (ends * (1 + gap) + rng.choice([0, 0.05])) * np.exp(
        rng.normal(0, rng.choice([0.005, 0.02, 0.05]), epochs)
    )
    # Gradients of a training that converges: smaller, and of heavier tails.
    norms = np.sqrt(loss) * np.exp(0.4 * rng.standard_t(5, len(loss)))
    return build(
        noisy,
        steps=steps,
        chance=float(rng.choice([0.01, 0.69, 2.3, 250.0])),
        validation=validation,
        rate=rate,
        grad_norm=norms,
        rng=rng,
    )


def prefix(trace: Trace, epochs: int) -> Trace:
    """What was recorded of a trace after so many epochs."""
    steps = epochs * trace.steps_per_epoch
    return dataclasses.replace(
        trace,
        step_loss=trace.step_loss[:steps],
        grad_norm=trace.grad_norm[:steps],
        train_loss=trace.train_loss[:epochs],
        validation_loss=trace.validation_loss[:epochs],
        learning_rate=trace.learning_rate[:epochs],
        seconds=trace.seconds[:epochs],
        metrics={name: values[:epochs] for name, values in trace.metrics.items()},
        channels={name: values[:epochs] for name, values in trace.channels.items()},
    )


@dataclasses.dataclass(frozen=True)
class Fault:
    """A known fault.

    Attributes:
        name: Of the specimen.
        symptom: Code of the finding that must be there.
        causes: Codes of causes that are right; the first is the best answer.
        make: Seed to trace.
        context: What `diagnose` is told beside the trace.
        stops: Code of the verdict that must end it, or None.
    """

    name: str
    symptom: str
    causes: tuple[str, ...]
    make: Callable[[int], Trace]
    context: dict[str, Any] = dataclasses.field(default_factory=dict)
    stops: str | None = None


@dataclasses.dataclass
class Base:
    """A clean training to put a fault into."""

    rng: Generator
    steps: int
    epochs: int
    loss: Floats
    noise_frac: float

    @property
    def count(self) -> int:
        return len(self.loss)

    def trace(self, loss: Floats | None = None, **fields: Any) -> Trace:
        return build(self.loss if loss is None else loss, steps=self.steps, chance=2.3, rng=self.rng, **fields)


def base(seed: int, *, steps: int = 0, epochs: int = 0, max_noise: float = 0.3, speed: float = 7.0) -> Base:
    """A clean exponential training of seeded length and noise."""
    rng = np.random.default_rng(10_000 + seed)
    steps, epochs = steps or int(rng.choice([20, 45, 100])), epochs or int(rng.choice([12, 20, 30]))
    time = np.arange(steps * epochs) / (steps * epochs)
    frac = float(rng.uniform(0.05, max_noise))
    shape = str(rng.choice(NOISE_SHAPES))
    loss = (0.1 + 0.9 * np.exp(-speed * time)) * batch_noise(rng, steps * epochs, frac, shape)
    return Base(rng, steps, epochs, loss, frac)


def spikes(seed: int, *, number: int, height: float = 8.0, leading_gradient: bool = False) -> Trace:
    """Spikes that decay over about 40 steps."""
    b = base(seed)
    loss, norms = b.loss.copy(), np.exp(b.rng.normal(0, 0.3, b.count))
    for at in np.linspace(0.3, 0.85, number):
        start = int(at * b.count)
        length = min(60, b.count - start)
        loss[start : start + length] *= 1 + (height - 1) * np.exp(-np.arange(length) / 25)
        if leading_gradient:
            norms[start - 1] *= 60
    return b.trace(loss, grad_norm=norms)


def outlier_batches(seed: int) -> Trace:
    b = base(seed, max_noise=0.2)
    loss = b.loss.copy()
    loss[[int(b.count * at) for at in (0.35, 0.55, 0.75)]] *= 20
    return b.trace(loss)


def nan_loss(seed: int, **fields: Any) -> Trace:
    b = base(seed)
    at = int(b.count * b.rng.uniform(0.2, 0.8))
    loss = b.loss.copy()
    ramp = min(10, at)
    loss[at - ramp : at] *= np.exp(np.linspace(0, 5, ramp))
    loss[at:] = np.nan
    return b.trace(loss, **fields)


def sudden_nan(seed: int) -> Trace:
    b = base(seed)
    at = int(b.count * b.rng.uniform(0.2, 0.8))
    loss = b.loss.copy()
    loss[at:] = np.nan
    return b.trace(loss)


def collapse(seed: int) -> Trace:
    b = base(seed, epochs=20)
    at = int(b.count * 0.5)
    loss = b.loss.copy()
    loss[at:] = 1.02 * batch_noise(b.rng, b.count - at, 0.05, "lognormal")
    return b.trace(loss)


def growing_loss(seed: int) -> Trace:
    b = base(seed, epochs=20)
    grows = np.exp(np.maximum(0, np.arange(b.count) - 0.5 * b.count) / b.count * 10)
    return b.trace(b.loss * grows)


def flat(seed: int, *, level: float = 1.02) -> Trace:
    b = base(seed)
    loss = level * batch_noise(b.rng, b.count, 0.08, "lognormal")
    return b.trace(loss, validation=np.full(b.epochs, level) * np.exp(b.rng.normal(0, 0.003, b.epochs)))


def slow(seed: int, *, update_ratio: float | None = -4.5) -> Trace:
    b = base(seed, max_noise=0.15)
    time = np.arange(b.count) / b.count
    # As fast at the end as at the start, or faster: it has hardly left chance.
    loss = (1 - b.rng.uniform(0.3, 0.5) * time**1.3) * batch_noise(b.rng, b.count, 0.1, "lognormal")
    channels = {} if update_ratio is None else {"update_ratio": np.full(b.epochs, update_ratio)}
    return b.trace(loss, channels=channels)


def wave(seed: int, *, period: int) -> Trace:
    b = base(seed, steps=50, epochs=20, max_noise=0.2)
    after = np.arange(b.count) > 0.3 * b.count
    swing = np.where(np.arange(b.count) // (period // 2) % 2, 1.6, 1.0)
    return b.trace(np.where(after, b.loss * swing, b.loss))


def zigzag(seed: int) -> Trace:
    b = base(seed, steps=12, epochs=30, max_noise=0.2)
    ups = np.where(np.arange(b.epochs) % 2, 1.35, 1.0)
    return b.trace(np.repeat(ups, b.steps) * b.loss, validation=epoch_means(b.loss, b.steps) * ups * 1.1)


def over_fitted(seed: int, *, epochs: int, growth: float) -> Trace:
    b = base(seed, epochs=epochs, speed=9.0)
    time = np.arange(b.count) / b.count
    loss = (0.02 + 0.98 * np.exp(-9 * time)) * batch_noise(b.rng, b.count, b.noise_frac, "lognormal")
    best = int(epochs * 0.35)
    validation = 0.3 + 0.7 * np.exp(-9 * np.minimum(np.arange(epochs) + 1, best) / epochs)
    validation = validation * growth ** np.maximum(0, np.arange(epochs) - best)
    return b.trace(loss, validation=validation * np.exp(b.rng.normal(0, 0.01, epochs)))


def worsening(seed: int) -> Trace:
    b = base(seed, epochs=14)
    worse = 1 + 0.08 * np.maximum(0, np.arange(b.count) / b.steps - 6)
    loss = np.maximum(b.loss, 0.3) * worse
    return b.trace(loss, validation=epoch_means(loss, b.steps) * 1.1)


def memorised(seed: int) -> Trace:
    b = base(seed, speed=5.0)
    validation = 1.0 + 0.8 * np.arange(b.epochs) / b.epochs
    return b.trace(validation=validation * np.exp(b.rng.normal(0, 0.01, b.epochs)))


def huge_start(seed: int, **fields: Any) -> Trace:
    b = base(seed)
    return b.trace(b.loss * (1 + 500 * np.exp(-np.arange(b.count) / 15)), **fields)


def probed(seed: int, *, level: float | None = None, **channels: float) -> Trace:
    """A training with probe channels; at `level` of chance if given."""
    b = base(seed)
    loss = b.loss if level is None else level * batch_noise(b.rng, b.count, 0.08, "lognormal")
    values = {name: value * np.exp(b.rng.normal(0, 0.02, b.epochs)) for name, value in channels.items()}
    return b.trace(loss, channels=values, validation=epoch_means(loss, b.steps))


def growing_gradient(seed: int) -> Trace:
    b = base(seed, epochs=20)
    time = np.arange(b.count) / b.steps
    grows = np.maximum(0, time - 10)
    return b.trace(b.loss * np.exp(0.2 * grows), grad_norm=np.exp(b.rng.normal(0, 0.3, b.count) + 0.9 * grows))


def too_small(seed: int) -> Trace:
    b = base(seed)
    time = np.arange(b.count) / b.count
    loss = (0.6 + 0.4 * np.exp(-25 * time)) * batch_noise(b.rng, b.count, 0.08, "lognormal")
    return b.trace(loss, validation=(0.61 + 0.4 * np.exp(-25 * np.arange(1, b.epochs + 1) / b.epochs)))


def noisy_small_batch(seed: int) -> Trace:
    b = base(seed, steps=100)
    time = np.arange(b.count) / b.count
    return b.trace((0.2 + 0.8 * np.exp(-7 * time)) * batch_noise(b.rng, b.count, 0.7, "lognormal"))


def same_order(seed: int) -> Trace:
    b = base(seed, steps=50, epochs=20, max_noise=0.2)
    return b.trace(b.loss * np.tile(np.exp(b.rng.normal(0, 0.3, b.steps)), b.epochs))


def hot(seed: int) -> Trace:
    return dataclasses.replace(
        spikes(seed, number=3, leading_gradient=True), channels={"update_ratio": np.full(10, -0.7)}
    )


def faults() -> tuple[Fault, ...]:
    """All specimens."""
    return (
        Fault("outlier batches", "outlier_batch", ("outliers",), outlier_batches),
        Fault(
            "one spike",
            "loss_spike",
            ("learning_rate_too_high", "outliers"),
            lambda seed: spikes(seed, number=1),
        ),
        Fault(
            "four spikes with gradients",
            "loss_spike",
            ("learning_rate_too_high",),
            lambda seed: spikes(seed, number=4, leading_gradient=True),
        ),
        Fault("spikes of a hot rate", "loss_spike", ("learning_rate_too_high",), hot),
        Fault(
            "gradient spikes",
            "gradient_spike",
            ("learning_rate_too_high",),
            lambda seed: spikes(seed, number=2, leading_gradient=True),
        ),
        Fault("loss runs away to NaN", "divergence", ("learning_rate_too_high",), nan_loss, stops="divergence"),
        Fault(
            "NaN at once",
            "divergence",
            ("numerics", "learning_rate_too_high"),
            sudden_nan,
            {"model_findings": ("softmax_with_from_logits",)},
            stops="divergence",
        ),
        Fault("collapse to chance", "divergence", ("learning_rate_too_high",), collapse, stops="divergence"),
        Fault("growing loss", "divergence", ("learning_rate_too_high",), growing_loss, stops="divergence"),
        Fault(
            "flat at a high rate",
            "not_learning",
            ("learning_rate_too_high",),
            flat,
            {"hyperparameters": {"learning_rate": 0.5, "optimizer": "sgd"}},
            stops="not_learning",
        ),
        Fault(
            "flat at a tiny rate",
            "not_learning",
            ("learning_rate_too_low",),
            flat,
            {"hyperparameters": {"learning_rate": 1e-6, "optimizer": "adam"}},
            stops="not_learning",
        ),
        Fault("slow", "too_slow", ("learning_rate_too_low",), slow),
        Fault("slow, no probe", "too_slow", ("learning_rate_too_low",), lambda seed: slow(seed, update_ratio=None)),
        Fault("wave of 2 steps", "oscillation", ("learning_rate_too_high",), lambda seed: wave(seed, period=2)),
        Fault("wave of 14 steps", "oscillation", ("learning_rate_too_high",), lambda seed: wave(seed, period=14)),
        Fault("wave of 40 steps", "oscillation", ("learning_rate_too_high",), lambda seed: wave(seed, period=40)),
        Fault("zigzag of epochs", "oscillation", ("learning_rate_too_high",), zigzag),
        Fault(
            "over-fitting",
            "over_fitting",
            ("over_fitting",),
            lambda seed: over_fitted(seed, epochs=40, growth=1.03),
            stops="over_fitting",
        ),
        Fault(
            "over-fitting, short",
            "over_fitting",
            ("over_fitting",),
            lambda seed: over_fitted(seed, epochs=14, growth=1.06),
            stops="over_fitting",
        ),
        Fault("getting worse", "getting_worse", ("learning_rate_too_high",), worsening),
        Fault(
            "wrong labels",
            "validation_never_learns",
            ("wrong_labels", "train_validation_mismatch"),
            memorised,
            {"data_findings": ("conflicting_labels",)},
        ),
        Fault(
            "other validation data",
            "validation_never_learns",
            ("train_validation_mismatch", "wrong_labels"),
            memorised,
        ),
        Fault("unscaled input", "huge_first_loss", ("no_scaling",), huge_start),
        Fault(
            "unscaled input, probed",
            "unscaled_input",
            ("no_scaling",),
            lambda s: probed(s, input_mean=120, input_std=70),
        ),
        Fault(
            "vanishing gradient",
            "vanishing_gradient",
            ("vanishing_gradient", "too_deep"),
            lambda seed: probed(seed, level=1.0, layer_grad_ratio=1e-5),
        ),
        Fault(
            "deep and vanishing",
            "vanishing_gradient",
            ("too_deep", "vanishing_gradient"),
            lambda seed: probed(seed, layer_grad_ratio=1e-5),
            {"hyperparameters": {"num_blocks": 12}, "model_findings": ("too_many_parameters",)},
        ),
        Fault(
            "exploding gradient, by layer",
            "exploding_gradient",
            ("exploding_gradient",),
            lambda seed: probed(seed, layer_grad_ratio=500.0),
        ),
        Fault("exploding gradient, by epoch", "exploding_gradient", ("exploding_gradient",), growing_gradient),
        Fault("dead units", "dead_units", ("vanishing_gradient",), lambda seed: probed(seed, dead_frac=0.8)),
        Fault("zero activations", "dead_units", ("vanishing_gradient",), lambda seed: probed(seed, zero_frac=0.92)),
        Fault(
            "regularisation",
            "regularisation_dominates",
            ("over_regularised",),
            lambda seed: probed(seed, level=0.8, regularisation_frac=0.85),
        ),
        Fault(
            "class ignored",
            "class_ignored",
            ("class_imbalance",),
            lambda seed: probed(seed, class_recall_min=0.05),
            {"data_findings": ("class_imbalance",)},
        ),
        Fault("too small", "plateau", ("too_small",), too_small),
        Fault("small batches", "noisy_batches", ("batch_too_small",), noisy_small_batch),
        Fault("order of samples", "same_order", ("batch_too_small",), same_order),
        Fault(
            "spikes from outliers",
            "loss_spike",
            ("outliers", "learning_rate_too_high"),
            lambda seed: spikes(seed, number=2),
            {"data_findings": ("outliers",)},
        ),
        Fault("missing values", "divergence", ("missing_values",), sudden_nan, {"data_findings": ("missing_values",)}),
        Fault("skew", "huge_first_loss", ("skew", "no_scaling"), huge_start, {"data_findings": ("skew",)}),
    )
