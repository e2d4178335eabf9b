"""A zoo of real small trainings: one known fault each, for every cause of the design, and as many healthy ones.

Every training takes about a second of one core. Data: scikit-learn's handwritten digits and, where it lies beside the
repository, a part of Fashion-MNIST (otherwise digits again); regressions on scikit-learn's diabetes patients and on
Friedman's function. A specimen draws the strength of its fault, its network and its rows from its seed. How the two
halves differ is told at `exhibits`.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA

from benchmarks.diagnosis import Recording
from tuner.data.audit import audit
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import DataSpec, HyperparameterValue
from tuner.stability.judgement import chance_levels
from tuner.stability.score import first_failure
from tuner.training.modelcheck import check_model
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import reshuffle_every_epoch, restore_order

__all__ = ["FAULTS", "HEALTHY", "Exhibit", "Specimen", "exhibits", "record"]

Half = Literal["tune", "report"]
Array = np.ndarray
FASHION = Path(__file__).resolve().parents[1] / "../shared/data/images/fashion_mnist_12k.npz"
NUM_TRAIN, NUM_VALIDATION = 1000, 400
PROBE_ROWS = 250
# As in the search.
STEPS_PER_EXECUTION = 32


@dataclass(frozen=True, eq=False)
class Material:
    """What a training is fed: images (n, height, width, 1) in 0..1, or a table (n, columns) of mean 0, deviation 1."""

    x: Array
    y: Array
    x_validation: Array
    y_validation: Array
    num_classes: int

    def dataset(self) -> tuple[Dataset, Split]:
        """As the audit of the data sees it."""
        x, y = np.concatenate((self.x, self.x_validation)), np.concatenate((self.y, self.y_validation))
        spec = DataSpec(
            form="npz" if x.ndim == 4 else "table",
            kind="image" if x.ndim == 4 else "series",
            task="classification" if self.num_classes else "regression",
            input_shape=x.shape[1:],
            class_names=tuple(map(str, range(self.num_classes))),
        )
        rows = np.arange(len(x))
        names = tuple(map(str, rows))
        return Dataset("zoo", spec, x, y, names), Split(rows[: len(self.x)], rows[len(self.x) :], rows[:0])


@dataclass(frozen=True)
class Network:
    """Layers of a small network; `recurrent` units read an image row by row."""

    convolutions: tuple[int, ...] = ()
    recurrent: int = 0
    dense: tuple[int, ...] = (48,)
    activation: str = "relu"
    initialiser: Any = "he_normal"
    bias: float = 0.0
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    batch_norm: bool = False
    residual: bool = False
    pooling: bool = True
    output: str | None = None


@dataclass(frozen=True)
class Setup:
    """One training before it starts. `rate` may be a schedule; `peak_rate` is then what the user calls the rate."""

    material: Material
    network: Network = field(default_factory=Network)
    optimizer: str = "adam"
    rate: Any = 1e-3
    peak_rate: float | None = None
    batch_size: int = 32
    epochs: int = 14
    clip_norm: float | None = None
    loss: Any = None
    shuffle: bool = True
    class_weight: dict[int, float] | None = None
    callbacks: tuple[Any, ...] = ()
    optimizer_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Specimen:
    """A kind of training. `cause` is the code of the right cause, empty for a healthy one."""

    name: str
    cause: str
    make: Callable[[np.random.Generator, str], Setup]


@dataclass(frozen=True)
class Exhibit:
    """A specimen with its draw: data set `digits` or `fashion`, and seed."""

    specimen: Specimen
    half: Half
    source: str
    seed: int


def exhibits(half: Half, *, seeds: int) -> Iterator[Exhibit]:
    """The trainings of one half.

    Every specimen is in both halves, on another data set: in `tune` the specimens of even number train on digits and
    the others on Fashion-MNIST, in `report` the other way round. Seeds, and with them rows, initial weights, networks
    and strengths of the faults, differ too.
    """
    first = 0 if half == "tune" else 100
    for number, specimen in enumerate(FAULTS + HEALTHY):
        source = ("digits", "fashion")[(number + (half == "report")) % 2]
        for seed in range(first, first + seeds):
            yield Exhibit(specimen, half, source, seed)


def record(exhibit: Exhibit) -> Recording:
    """Train one exhibit and gather what is known of it."""
    specimen = exhibit.specimen
    keras.utils.set_random_seed(exhibit.seed)
    rng = np.random.default_rng((exhibit.seed, zlib.crc32(specimen.name.encode())))
    setup = specimen.make(rng, exhibit.source)
    material, model = setup.material, _compiled(setup)
    chance_loss, _ = chance_levels(material.y, num_classes=material.num_classes, metric="loss")
    monitor = StabilityMonitor(
        chance_loss,
        metric="accuracy" if material.num_classes else "loss",
        num_classes=material.num_classes,
        probes=True,
        probe_data=_probe_rows(material),
    )
    model_findings = check_model(
        model,
        num_classes=material.num_classes,
        num_train=len(material.x),
        input_mean=float(np.nanmean(material.x)),
        input_std=float(np.nanstd(material.x)),
    )
    if setup.shuffle:
        reshuffle_every_epoch(model, exhibit.seed)
    model.fit(
        material.x,
        material.y,
        validation_data=(material.x_validation, material.y_validation),
        epochs=setup.epochs,
        batch_size=setup.batch_size,
        shuffle=setup.shuffle,
        class_weight=setup.class_weight,
        callbacks=[monitor, _EndOfNumbers(monitor), *setup.callbacks],
        verbose=0,
    )
    restore_order(model)
    trace = replace(monitor.trace, planned_epochs=setup.epochs)
    keras.backend.clear_session()
    return Recording(
        specimen.name,
        specimen.cause,
        exhibit.half,
        exhibit.source,
        exhibit.seed,
        trace,
        _hyperparameters(setup),
        audit(*material.dataset()),
        model_findings,
    )


class _EndOfNumbers(keras.callbacks.Callback):
    """Ends a training whose loss is no number any more, as a search does."""

    def __init__(self, monitor: StabilityMonitor) -> None:
        super().__init__()
        self._monitor = monitor

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if first_failure(self._monitor.trace) is not None:
            self.model.stop_training = True


def _probe_rows(material: Material) -> tuple[Array, Array]:
    """Some hundred training rows; of classes, the first of each, so that rare ones are seen."""
    rows = np.arange(min(len(material.y), PROBE_ROWS))
    if material.num_classes:
        share = PROBE_ROWS // material.num_classes
        rows = np.concatenate([np.flatnonzero(material.y == code)[:share] for code in range(material.num_classes)])
    return material.x[rows], material.y[rows]


def _hyperparameters(setup: Setup) -> dict[str, HyperparameterValue]:
    network = setup.network
    return {
        "optimizer": setup.optimizer,
        "learning_rate": setup.rate if setup.peak_rate is None else setup.peak_rate,
        "batch_size": setup.batch_size,
        "clip_norm": setup.clip_norm or 0.0,
        "dropout": network.dropout,
        "l1": network.l1,
        "l2": network.l2,
        "num_layers": len(network.convolutions) + len(network.dense),
    }


# --- Networks


def _compiled(setup: Setup) -> keras.Model:
    material, network = setup.material, setup.network
    inputs = keras.Input(material.x.shape[1:])
    x = _hidden(inputs, network)
    units, activation, loss = 1, None, "mean_squared_error"
    if material.num_classes:
        units, activation, loss = material.num_classes, "softmax", "sparse_categorical_crossentropy"
    outputs = keras.layers.Dense(units, activation=activation if network.output is None else network.output)(x)
    model = keras.Model(inputs, outputs)
    names = {"adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop", "adamw": "AdamW", "nadam": "Nadam"}
    options = {"momentum": 0.9} if setup.optimizer == "sgd" else {}
    if setup.clip_norm:
        options["global_clipnorm"] = setup.clip_norm
    optimizer = getattr(keras.optimizers, names[setup.optimizer])(setup.rate, **options, **setup.optimizer_options)
    model.compile(optimizer, setup.loss or loss, steps_per_execution=STEPS_PER_EXECUTION)
    return model


def _hidden(x: Any, network: Network) -> Any:
    penalty = keras.regularizers.L1L2(network.l1, network.l2) if network.l1 or network.l2 else None
    options = {
        "kernel_initializer": network.initialiser,
        "bias_initializer": keras.initializers.Constant(network.bias) if network.bias else "zeros",
        "kernel_regularizer": penalty,
    }
    if network.recurrent:
        x = keras.layers.Reshape(x.shape[1:3] if len(x.shape) == 4 else (x.shape[1], 1))(x)
        return keras.layers.SimpleRNN(
            network.recurrent, activation=network.activation, recurrent_initializer=network.initialiser
        )(x)
    for number, filters in enumerate(network.convolutions):
        x = _activated(keras.layers.Conv2D(filters, 3, padding="same", **options)(x), network)
        if network.pooling and min(x.shape[1:3]) >= 4 and number < 2:
            x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x) if len(x.shape) > 2 else x
    for units in network.dense:
        before = x
        x = _activated(keras.layers.Dense(units, **options)(x), network)
        if network.residual and before.shape == x.shape:
            x = keras.layers.Add()([before, x])
        if network.dropout:
            x = keras.layers.Dropout(network.dropout)(x)
    return x


def _activated(x: Any, network: Network) -> Any:
    if network.batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.Activation(network.activation)(x)


# --- Data


@functools.cache
def _images(source: str) -> tuple[Array, Array]:
    """Images in 0..1 with one channel, and class codes."""
    if source == "fashion" and FASHION.is_file():
        with np.load(FASHION) as archive:
            x, y = archive["x_train"], archive["y_train"]
        # Means of 2 x 2 pixels: a quarter of the time.
        x = x.reshape(len(x), 14, 2, 14, 2).mean(axis=(2, 4)) / 255.0
        return x[..., None].astype("float32"), y.astype("int64")
    x, y = datasets.load_digits(return_X_y=True)
    return (x / 16.0).reshape(-1, 8, 8, 1).astype("float32"), y.astype("int64")


@functools.cache
def _columns(source: str) -> tuple[Array, Array]:
    """The same samples as 20 uncorrelated columns of mean 0 and deviation 1."""
    x, y = _images(source)
    components = PCA(20, whiten=True, random_state=0).fit_transform(x.reshape(len(x), -1))
    return np.clip(components, -4, 4).astype("float32"), y


@functools.cache
def _regression(source: str) -> tuple[Array, Array]:
    """Columns and target of mean 0 and deviation 1."""
    if source == "digits":
        x, y = datasets.load_diabetes(return_X_y=True)
    else:
        x, y = datasets.make_friedman1(NUM_TRAIN + NUM_VALIDATION, noise=1.0, random_state=0)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.clip(x, -4, 4).astype("float32"), ((y - y.mean()) / y.std()).astype("float64")


def _drawn(
    rng: np.random.Generator, data: tuple[Array, Array], *, num_train: int = NUM_TRAIN, num_classes: int = 10
) -> Material:
    x, y = data
    num_train = min(num_train, len(x) * 3 // 4)
    rows = rng.permutation(len(x))[: num_train + NUM_VALIDATION]
    train, validation = rows[:num_train], rows[num_train:]
    return Material(x[train], y[train], x[validation], y[validation], num_classes)


def images(rng: np.random.Generator, source: str, **options: int) -> Material:
    """A draw of images."""
    return _drawn(rng, _images(source), **options)


def table(rng: np.random.Generator, source: str, **options: int) -> Material:
    """A draw of rows of a table, with classes."""
    return _drawn(rng, _columns(source), **options)


def numbers(rng: np.random.Generator, source: str) -> Material:
    """A draw of rows of a table, with a number to predict."""
    return _drawn(rng, _regression(source), num_classes=0)


def _classes(material: Material, counts: dict[int, int]) -> Material:
    """Only so many training rows of each class, and the same shares in the validation part."""
    largest = max(counts.values())

    def rows(y: Array) -> Array:
        share = {code: max(2, round(count / largest * np.count_nonzero(y == max(counts, key=counts.__getitem__))))
                 for code, count in counts.items()}  # fmt: skip
        return np.concatenate([np.flatnonzero(y == code)[: share[code]] for code in counts])

    train, validation = rows(material.y), rows(material.y_validation)
    codes = {code: number for number, code in enumerate(counts)}
    return Material(
        material.x[train],
        np.array([codes[code] for code in material.y[train]]),
        material.x_validation[validation],
        np.array([codes[code] for code in material.y_validation[validation]]),
        len(counts),
    )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn evenly on the logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _net(rng: np.random.Generator) -> Network:
    """A small network that trains well on images."""
    return (Network(convolutions=(8, 16), dense=(32,)), Network(dense=(64, 32)))[int(rng.integers(2))]


# --- Faults


def _high_rate_adam(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), _net(rng), rate=_between(rng, 0.08, 0.8))


def _high_rate_sgd(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), _net(rng), optimizer="sgd", rate=_between(rng, 0.6, 6.0))


def _low_rate_adam(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), _net(rng), rate=_between(rng, 1e-6, 2e-5))


def _low_rate_sgd(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), _net(rng), optimizer="sgd", rate=_between(rng, 1e-5, 2e-4))


def _exploding_depth(rng: np.random.Generator, source: str) -> Setup:
    size = keras.initializers.VarianceScaling(_between(rng, 12.0, 60.0))
    network = Network(dense=(32,) * int(rng.integers(5, 8)), initialiser=size)
    return Setup(table(rng, source), network, optimizer="sgd", rate=1e-3)


def _exploding_recurrence(rng: np.random.Generator, source: str) -> Setup:
    size = keras.initializers.Orthogonal(gain=_between(rng, 2.0, 3.5))
    network = Network(recurrent=32, activation="relu", initialiser=size)
    return Setup(images(rng, source), network, optimizer="sgd", rate=3e-3)


def _vanishing_sigmoid(rng: np.random.Generator, source: str) -> Setup:
    size = keras.initializers.RandomNormal(stddev=_between(rng, 0.02, 0.2))
    network = Network(dense=(32,) * int(rng.integers(4, 6)), activation="sigmoid", initialiser=size)
    return Setup(table(rng, source), network, rate=3e-4)


def _dead_relu(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), Network(dense=(48, 32), bias=-_between(rng, 4.0, 12.0)))


def _over_fitting_few(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source, num_train=int(rng.integers(90, 160)))
    noisy = replace(
        material,
        x=material.x + rng.normal(0, 1.0, material.x.shape).astype("float32"),
        x_validation=material.x_validation + rng.normal(0, 1.0, material.x_validation.shape).astype("float32"),
    )
    return Setup(noisy, Network(dense=(128, 128)), batch_size=16, epochs=40)


def _over_fitting_wide(rng: np.random.Generator, source: str) -> Setup:
    network = Network(dense=(int(rng.choice([192, 256, 320])),) * 2)
    material = numbers(rng, source)
    few = replace(material, x=material.x[:120], y=material.y[:120] + rng.normal(0, 1.2, 120))
    return Setup(few, network, batch_size=16, epochs=50)


def _over_regularised_l2(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), replace(_net(rng), l2=_between(rng, 0.1, 1.0)))


def _over_regularised_dropout(rng: np.random.Generator, source: str) -> Setup:
    return Setup(images(rng, source), Network(dense=(48, 48), dropout=float(rng.uniform(0.85, 0.95))))


def _unscaled_inputs(rng: np.random.Generator, source: str) -> Setup:
    scale, offset = _between(rng, 100.0, 3000.0), _between(rng, 30.0, 3000.0)
    material = images(rng, source)
    unscaled = replace(material, x=scale * material.x + offset, x_validation=scale * material.x_validation + offset)
    return Setup(unscaled, _net(rng))


def _unscaled_target(rng: np.random.Generator, source: str) -> Setup:
    scale, offset = _between(rng, 20.0, 500.0), _between(rng, 5.0, 30.0)
    material = numbers(rng, source)
    y, y_validation = scale * (material.y + offset), scale * (material.y_validation + offset)
    return Setup(replace(material, y=y, y_validation=y_validation), Network(dense=(32, 32)))


def _outlier_inputs(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source)
    x = material.x.copy()
    rows = rng.choice(len(x), int(rng.integers(4, 10)), replace=False)
    x[rows] *= rng.uniform(50, 300, (len(rows), 1))
    return Setup(replace(material, x=x), Network(dense=(48, 32)))


def _outlier_targets(rng: np.random.Generator, source: str) -> Setup:
    material = numbers(rng, source)
    x, y = material.x.copy(), material.y.copy()
    rows = rng.choice(len(y), int(rng.integers(3, 7)), replace=False)
    y[rows] += rng.choice([-1, 1], len(rows)) * rng.uniform(30, 80, len(rows))
    x[rows] *= rng.uniform(10, 30, (len(rows), 1))
    return Setup(replace(material, x=x, y=y), Network(dense=(32, 32)))


def _missing_values(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source)
    x = material.x.copy()
    x[rng.random(x.shape) < _between(rng, 0.002, 0.05)] = np.nan
    return Setup(replace(material, x=x), Network(dense=(48, 32)))


def _sentinels(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source)
    code = float(rng.choice([-200.0, -999.0, 9999.0]))
    columns = rng.choice(20, int(rng.integers(2, 6)), replace=False)
    share = float(rng.uniform(0.03, 0.12))
    parts = []
    for x in (material.x.copy(), material.x_validation.copy()):
        gaps = np.zeros(x.shape, dtype=bool)
        gaps[:, columns] = rng.random((len(x), len(columns))) < share
        x[gaps] = code
        parts.append(x)
    return Setup(replace(material, x=parts[0], x_validation=parts[1]), Network(dense=(48, 32)))


def _skewed(rng: np.random.Generator, material: Material) -> Material:
    power = float(rng.uniform(2.2, 3.2))
    x, x_validation = (np.exp(power * part) for part in (material.x, material.x_validation))
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    return replace(material, x=(x - mean) / deviation, x_validation=(x_validation - mean) / deviation)


def _skew_classes(rng: np.random.Generator, source: str) -> Setup:
    return Setup(_skewed(rng, table(rng, source)), Network(dense=(48, 32)), rate=3e-3)


def _skew_numbers(rng: np.random.Generator, source: str) -> Setup:
    return Setup(_skewed(rng, numbers(rng, source)), Network(dense=(48, 32)), rate=3e-3)


def _imbalance_two(rng: np.random.Generator, source: str) -> Setup:
    common, rare = (int(code) for code in rng.choice(10, 2, replace=False))
    material = table(rng, source, num_train=1300)
    noise = rng.normal(0, 1.2, material.x.shape), rng.normal(0, 1.2, material.x_validation.shape)
    material = replace(
        material,
        x=(material.x + noise[0]).astype("float32"),
        x_validation=(material.x_validation + noise[1]).astype("float32"),
    )
    y = np.where(material.y == rare, rare, common)
    y_validation = np.where(material.y_validation == rare, rare, common)
    return Setup(
        _classes(replace(material, y=y, y_validation=y_validation), {common: 1000, rare: int(rng.integers(12, 30))}),
        Network(dense=(8,)),
        rate=5e-4,
    )


def _imbalance_ten(rng: np.random.Generator, source: str) -> Setup:
    ratio = _between(rng, 20.0, 50.0)
    codes = rng.permutation(10)
    counts = {int(code): max(3, round(130 * ratio ** (-number / 9))) for number, code in enumerate(codes)}
    return Setup(_classes(images(rng, source, num_train=1300), counts), Network(dense=(16,)), rate=5e-4)


def _relabelled(rng: np.random.Generator, material: Material, share: float) -> Material:
    def relabel(y: Array) -> Array:
        wrong = rng.random(len(y)) < share
        return np.where(wrong, rng.integers(0, material.num_classes, len(y)), y)

    return replace(material, y=relabel(material.y), y_validation=relabel(material.y_validation))


def _labels_shuffled(rng: np.random.Generator, source: str) -> Setup:
    material = _relabelled(rng, images(rng, source, num_train=400), 1.0)
    return Setup(material, Network(dense=(128, 64)), epochs=30, rate=2e-3)


def _labels_noisy(rng: np.random.Generator, source: str) -> Setup:
    material = _relabelled(rng, images(rng, source), float(rng.uniform(0.4, 0.7)))
    return Setup(material, Network(dense=(128, 64)), epochs=20, rate=2e-3)


def _mismatch(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    change = (
        lambda x: 1.0 - x,
        lambda x: np.rot90(x, axes=(1, 2)).copy(),
        lambda x: np.roll(x, x.shape[1] // 2, axis=1),
    )[int(rng.integers(3))]
    return Setup(replace(material, x_validation=change(material.x_validation)), _net(rng))


def _leakage(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    rows = rng.choice(len(material.x), int(rng.uniform(0.5, 1.0) * NUM_VALIDATION), replace=False)
    x, y = material.x_validation.copy(), material.y_validation.copy()
    x[: len(rows)], y[: len(rows)] = material.x[rows][: len(x)], material.y[rows][: len(x)]
    return Setup(replace(material, x_validation=x, y_validation=y), _net(rng))


def _too_deep_dense(rng: np.random.Generator, source: str) -> Setup:
    network = Network(dense=(24,) * int(rng.integers(20, 31)), initialiser="glorot_uniform")
    return Setup(table(rng, source), network, rate=5e-4)


def _too_deep_convolution(rng: np.random.Generator, source: str) -> Setup:
    network = Network(convolutions=(6,) * int(rng.integers(16, 22)), dense=(), initialiser="glorot_uniform")
    return Setup(images(rng, source, num_train=600), network, rate=5e-4, epochs=10)


def _too_small_bottleneck(rng: np.random.Generator, source: str) -> Setup:
    network = Network(dense=(int(rng.integers(1, 3)),), activation="tanh", initialiser="glorot_uniform")
    return Setup(table(rng, source), network, rate=5e-3, epochs=30)


def _too_small_filters(rng: np.random.Generator, source: str) -> Setup:
    network = Network(convolutions=(1,), dense=(1,), activation="tanh", initialiser="glorot_uniform")
    return Setup(images(rng, source), network, rate=5e-3, epochs=30)


def _batch_tiny(rng: np.random.Generator, source: str) -> Setup:
    size = int(rng.integers(1, 3))
    return Setup(images(rng, source, num_train=400), Network(dense=(48,)), batch_size=size, epochs=8, rate=1e-3)


def _sorted_rows(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    order = np.argsort(material.y, kind="stable")
    ordered = replace(material, x=material.x[order], y=material.y[order])
    return Setup(ordered, Network(dense=(48,)), shuffle=False)


def _wrong_logits(rng: np.random.Generator, source: str) -> Setup:
    twice = bool(rng.integers(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=twice)
    return Setup(images(rng, source), replace(_net(rng), output="softmax" if twice else "linear"), loss=loss)


def _own_logarithm(rng: np.random.Generator, source: str) -> Setup:
    """A cross-entropy as one writes it by hand: the logarithm meets a rounded zero once the network is sure."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        target = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32"), 10)
        chances = target * keras.ops.log(y_pred) + (1 - target) * keras.ops.log(1 - y_pred)
        return -keras.ops.sum(chances, axis=-1)

    network = Network(dense=(128, 64), output="softmax")
    return Setup(images(rng, source), network, loss=loss, rate=_between(rng, 2e-3, 6e-3), epochs=25)


FAULTS: tuple[Specimen, ...] = (
    Specimen("Adam far too fast", "learning_rate_too_high", _high_rate_adam),
    Specimen("SGD far too fast", "learning_rate_too_high", _high_rate_sgd),
    Specimen("Adam far too slow", "learning_rate_too_low", _low_rate_adam),
    Specimen("SGD far too slow", "learning_rate_too_low", _low_rate_sgd),
    Specimen("weights too large at the start", "exploding_gradient", _exploding_depth),
    Specimen("recurrence that amplifies", "exploding_gradient", _exploding_recurrence),
    Specimen("stack of sigmoids", "vanishing_gradient", _vanishing_sigmoid),
    Specimen("dead ReLU", "vanishing_gradient", _dead_relu),
    Specimen("few noisy samples", "over_fitting", _over_fitting_few),
    Specimen("wide network, few rows", "over_fitting", _over_fitting_wide),
    Specimen("L2 far too strong", "over_regularised", _over_regularised_l2),
    Specimen("dropout far too strong", "over_regularised", _over_regularised_dropout),
    Specimen("inputs not scaled", "no_scaling", _unscaled_inputs),
    Specimen("target not scaled", "no_scaling", _unscaled_target),
    Specimen("rows far outside", "outliers", _outlier_inputs),
    Specimen("rows and targets far outside", "outliers", _outlier_targets),
    Specimen("empty cells", "missing_values", _missing_values),
    Specimen("codes for empty cells", "missing_values", _sentinels),
    Specimen("skewed columns, classes", "skew", _skew_classes),
    Specimen("skewed columns, numbers", "skew", _skew_numbers),
    Specimen("one rare class", "class_imbalance", _imbalance_two),
    Specimen("classes from common to rare", "class_imbalance", _imbalance_ten),
    Specimen("labels at random", "wrong_labels", _labels_shuffled),
    Specimen("half of the labels wrong", "wrong_labels", _labels_noisy),
    Specimen("other validation images", "train_validation_mismatch", _mismatch),
    Specimen("validation from training", "train_validation_mismatch", _leakage),
    Specimen("very deep, dense", "too_deep", _too_deep_dense),
    Specimen("very deep, convolutions", "too_deep", _too_deep_convolution),
    Specimen("one or two units", "too_small", _too_small_bottleneck),
    Specimen("one filter", "too_small", _too_small_filters),
    Specimen("one or two samples a step", "batch_too_small", _batch_tiny),
    Specimen("rows sorted by class", "batch_too_small", _sorted_rows),
    Specimen("logits or probabilities", "numerics", _wrong_logits),
    Specimen("logarithm of zero", "numerics", _own_logarithm),
)


# --- Healthy


def _steps(material: Material, *, batch_size: int = 32, epochs: int = 14) -> int:
    return -(-len(material.x) // batch_size) * epochs


def _healthy_drop(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    at = int(_steps(material) * rng.uniform(0.4, 0.7))
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([at], [3e-3, 3e-4])
    return Setup(material, _net(rng), rate=rate, peak_rate=3e-3)


def _healthy_cosine(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, _steps(material))
    return Setup(material, _net(rng), rate=rate, peak_rate=2e-3)


def _healthy_warm_up(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    steps = _steps(material)
    rate = keras.optimizers.schedules.CosineDecay(1e-6, steps, warmup_target=3e-3, warmup_steps=steps // 8)
    return Setup(material, _net(rng), rate=rate, peak_rate=3e-3)


def _healthy_restarts(rng: np.random.Generator, source: str) -> Setup:
    material = images(rng, source)
    rate = keras.optimizers.schedules.CosineDecayRestarts(2e-3, _steps(material) // 3, t_mul=2.0)
    return Setup(material, _net(rng), rate=rate, peak_rate=2e-3)


def _healthy_class_weights(rng: np.random.Generator, source: str) -> Setup:
    codes = rng.permutation(10)
    counts = {int(code): round(110 * 2.6 ** (-number / 9)) for number, code in enumerate(codes)}
    material = _classes(images(rng, source, num_train=1300), counts)
    sizes = np.bincount(material.y, minlength=10)
    weights = {code: float(len(material.y) / (10 * size)) for code, size in enumerate(sizes)}
    return Setup(material, Network(convolutions=(8, 16), dense=(32,)), class_weight=weights)


def _healthy_two_classes(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source)
    material = replace(material, y=material.y % 2, y_validation=material.y_validation % 2, num_classes=2)
    return Setup(material, Network(dense=(24,)), epochs=10)


def _healthy_jitter(rng: np.random.Generator, source: str) -> Setup:
    material = table(rng, source)
    noise = rng.normal(0, 0.7, material.x.shape).astype("float32")
    noise_validation = rng.normal(0, 0.7, material.x_validation.shape).astype("float32")
    noisy = replace(material, x=material.x + noise, x_validation=material.x_validation + noise_validation)
    return Setup(noisy, Network(dense=(16,)), epochs=10)


def _healthy(**options: Any) -> Callable[[np.random.Generator, str], Setup]:
    """Images with these options of the setup; `network` options are given as a mapping."""
    network = options.pop("network", None)

    def make(rng: np.random.Generator, source: str) -> Setup:
        callbacks = tuple(callback() for callback in options.get("callbacks", ()))
        material = images(rng, source)
        return Setup(material, Network(**network) if network else _net(rng), **(options | {"callbacks": callbacks}))

    return make


def _healthy_numbers(**options: Any) -> Callable[[np.random.Generator, str], Setup]:
    def make(rng: np.random.Generator, source: str) -> Setup:
        return Setup(numbers(rng, source), Network(dense=(24,), l2=1e-3), **({"epochs": 12} | options))

    return make


def _plateau() -> Any:
    return keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.3)


CNN = {"convolutions": (8, 16), "dense": (32,)}
HEALTHY: tuple[Specimen, ...] = tuple(
    Specimen(name, "", make)
    for name, make in {
        "Adam": _healthy(),
        "Adam, convolutions": _healthy(network=CNN),
        "Adam, a little faster": _healthy(rate=4e-3, epochs=10),
        "Adam, a little slower": _healthy(rate=4e-4, epochs=20),
        "SGD": _healthy(optimizer="sgd", rate=0.02),
        "SGD, convolutions": _healthy(optimizer="sgd", rate=0.02, network=CNN),
        "SGD, Nesterov": _healthy(optimizer="sgd", rate=0.03, optimizer_options={"nesterov": True}),
        "RMSprop": _healthy(optimizer="rmsprop"),
        "AdamW": _healthy(optimizer="adamw"),
        "Nadam": _healthy(optimizer="nadam"),
        "good drop": _healthy_drop,
        "cosine": _healthy_cosine,
        "warm-up": _healthy_warm_up,
        "warm restarts": _healthy_restarts,
        "plateau callback": _healthy(callbacks=(_plateau,), rate=2e-3),
        "batches of 8": _healthy(batch_size=8, epochs=8, rate=5e-4),
        "batches of 16": _healthy(batch_size=16, epochs=10),
        "batches of 128": _healthy(batch_size=128, rate=3e-3, epochs=20),
        "dropout 0.3": _healthy(network={"dense": (64, 64), "dropout": 0.3}),
        "dropout 0.5": _healthy(network={"dense": (96, 96), "dropout": 0.5}, epochs=20),
        "L2": _healthy(network={"dense": (64, 32), "l2": 3e-4}),
        "L1": _healthy(network={"dense": (64, 32), "l1": 1e-5}),
        "batch normalisation": _healthy(network=CNN | {"batch_norm": True}, epochs=10),
        "residual, ten layers": _healthy(network={"dense": (32,) * 10, "residual": True, "batch_norm": True}),
        "clipping": _healthy(clip_norm=1.0, optimizer="sgd", rate=0.03),
        "tanh": _healthy(network={"dense": (48, 32), "activation": "tanh", "initialiser": "glorot_uniform"}),
        "GELU": _healthy(network={"dense": (48, 32), "activation": "gelu"}),
        "short": _healthy(epochs=5, rate=2e-3),
        "moving average": _healthy(optimizer_options={"use_ema": True}),
        "class weights": _healthy_class_weights,
        "two classes": _healthy_two_classes,
        "noisy inputs": _healthy_jitter,
        "regression": _healthy_numbers(),
        "regression, SGD": _healthy_numbers(optimizer="sgd", rate=3e-3),
        "regression, batches of 16": _healthy_numbers(batch_size=16, epochs=8),
        "regression, Huber": _healthy_numbers(loss=keras.losses.Huber()),
    }.items()
)
