"""What the spaces share: the ranges, and the pieces a convolutional network is put together from.

The hyperparameters, in the order they are declared (`python -m tuner spaces` prints them with their ranges):

    batch_size
    optimizer, learning_rate, schedule, warmup_frac, clip_norm
    use_l1 -> l1, use_l2 -> l2
    augmentation
    num_blocks -> filters_1, kernel_1 ... filters_4, kernel_4
    batch_norm, residual
    pooling, dense_units, dropout
    label_smoothing (classes and labels)

An arrow means: exists only while the one before it says so, so that no search spends a dimension on
the fourth block of a network of two. The defaults together are a configuration that trains well at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import keras_tuner

__all__ = [
    "HEADS",
    "ConvolutionSpace",
    "Dimension",
    "Head",
    "batch_sizes",
    "head",
    "loss",
    "optimizer",
    "regularizer",
]

# Samples a step. Below 16 an epoch on a CPU is mostly overhead, above 128 accuracy falls. Source: Masters & Luschi
# 2018 ("Revisiting small batch training for deep neural networks"), section 5: best results at 2 to 32.
BATCH_SIZES = (16, 32, 64, 128)
DEFAULT_BATCH_SIZE = 32
# A batch size that leaves fewer updates an epoch is not offered: nothing is learned in a few epochs then.
# Source: convention; stability is judged over windows of at least 9 steps.
MIN_STEPS_PER_EPOCH = 8

# The three families that differ in kind: adaptive, plain with momentum, adaptive without momentum.
OPTIMIZERS = ("adam", "sgd", "rmsprop")
# Source: Sutskever et al. 2013 ("On the importance of initialization and momentum"), and every image recipe since.
SGD_MOMENTUM = 0.9

# Log scale. Low end: Adam at 1e-4 still learns in 20 epochs; below, the budget ends first. High end: where plain
# SGD with momentum works best on normalised networks (He et al. 2016 start at 0.1 with batches of 256, which is
# about 0.01 to 0.03 at 32 to 64); Adam breaks near it, which is what a search for stability has to see.
LEARNING_RATE_RANGE = (1e-4, 3e-2)
# Source: Kingma & Ba 2015 ("Adam"), algorithm 1; the default of Keras.
DEFAULT_LEARNING_RATE = 1e-3
SCHEDULES = ("cosine", "constant")
# The cosine ends at this share of the peak rate, so that the last steps still count. Source: convention.
COSINE_FLOOR_FRAC = 0.01
# Share of all steps in which the rate rises to its peak. Source: Goyal et al. 2017 ("Accurate, large minibatch SGD"),
# section 2.2: 5 of 90 epochs; up to 0.2 because budgets here are shorter.
MAX_WARMUP_FRAC = 0.2
DEFAULT_WARMUP_FRAC = 0.05
# Largest global gradient norm that passes unchanged; 0 means no clipping. Source: Pascanu et al. 2013 ("On the
# difficulty of training recurrent neural networks"), section 3.2: half to ten times the usual norm, here about 1.
CLIP_NORMS = (0.0, 1.0, 5.0)

# Log scale; the boolean beside each decides whether there is any. L2 of 2.5e-4 is the weight decay of 5e-4 of most
# image recipes (Krizhevsky et al. 2012, section 5); 1e-2 is the default of Keras. L1 adds |w|, which for weights of
# about 0.05 is ten times its L2 counterpart's pull: its range lies a decade lower.
L1_RANGE = (1e-7, 1e-3)
DEFAULT_L1 = 1e-5
L2_RANGE = (1e-6, 1e-2)
DEFAULT_L2 = 1e-4

MAX_BLOCKS = 4
DEFAULT_BLOCKS = 3
# Cost on a CPU grows with the product of two neighbouring blocks' filters: 64 keeps a 64 x 64 image at a few
# milliseconds. Doubling with depth while pooling halves the sides: Simonyan & Zisserman 2015 (VGG), table 1.
FILTERS = (8, 16, 32, 64)
DEFAULT_FILTERS = (16, 32, 64, 64)
# Sides shorter than this are not pooled further, so any input fits. 4 leaves at least 2.
MIN_POOLED_SIZE = 4
# Keras' own 0.99 needs some 500 steps before validation sees current statistics, and the validation loss of the first
# epochs on small data looks like a fault that is none. Source: PyTorch's default; measured on scikit-learn's digits
# (45 steps an epoch, 3 seeds): validation loss after one epoch 0.47 to 0.55, with 0.99 it is 0.96 to 1.21.
BATCH_NORM_MOMENTUM = 0.9

# `grid` keeps roughly where something was found: right for tables, whose columns are places with a meaning; `global`
# keeps how much there was of it, `max` only that it was there: right for words.
POOLINGS = ("grid", "global", "max")
DENSE_UNITS = (0, 32, 64, 128)
DEFAULT_DENSE_UNITS = 64
# Source: Srivastava et al. 2014 ("Dropout"), section 7.3: useful between 0 and 0.5 for hidden units.
MAX_DROPOUT = 0.5
DEFAULT_DROPOUT = 0.1
# Source: Szegedy et al. 2016 ("Rethinking the Inception architecture"), section 7.
LABEL_SMOOTHINGS = (0.0, 0.1)


@dataclass(frozen=True)
class Head:
    """What a task ends a network with.

    Attributes:
        activation: Of the output.
        loss: Name of the loss in Keras.
        smoothed_loss: Class of the loss that can smooth labels, or None where there are none.
        least_units: Fewest output units, one for each class or label.
        metrics: That Keras shows in training.
    """

    activation: str
    loss: str
    smoothed_loss: Any = None
    least_units: int = 1
    metrics: tuple[str, ...] = ()


HEADS = {
    "classification": Head(
        "softmax", "sparse_categorical_crossentropy", keras.losses.CategoricalCrossentropy, 2, ("accuracy",)
    ),
    # Accuracy over all labels is high for a network that always says no, so none is shown.
    "multilabel": Head("sigmoid", "binary_crossentropy", keras.losses.BinaryCrossentropy, 2),
    "regression": Head("linear", "mean_squared_error"),
}


@dataclass(frozen=True)
class Dimension:
    """What differs between one axis (series, words) and two (images, spectra).

    Attributes:
        convolution, max_pooling, average_pooling, global_pooling: The Keras layers.
        axes: Number of axes that are convolved and pooled.
        kernel_sizes: Offered kernel sizes, in steps or pixels.
        default_kernel_size: One of them.
        large_size: An axis longer than this is pooled by 4 instead of 2 in a block.
        grid_size: Positions for each axis that the `grid` pooling leaves at most.
        global_max_pooling: The Keras layer.
        filters: Offered numbers of filters of a block.
        default_filters: Of each block.
        default_blocks: Number of blocks of the default network.
        default_pooling: One of `POOLINGS`.
    """

    convolution: Any
    max_pooling: Any
    average_pooling: Any
    global_pooling: Any
    global_max_pooling: Any
    axes: int
    kernel_sizes: tuple[int, ...]
    default_kernel_size: int
    large_size: int
    grid_size: int
    filters: tuple[int, ...] = FILTERS
    default_filters: tuple[int, ...] = DEFAULT_FILTERS
    default_blocks: int = DEFAULT_BLOCKS
    default_pooling: str = "grid"


class ConvolutionSpace(keras_tuner.HyperModel):
    """Convolution blocks, then a dense head; the spaces derived from it say in how many dimensions."""

    dimension: Dimension

    def __init__(self, input_shape: Sequence[int], *, task: str, num_classes: int, num_train: int, epochs: int) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.task = task
        self.num_classes = num_classes
        self.num_train = num_train
        self.epochs = epochs
        self._validate()

    def _validate(self) -> None:
        self._validate_shape()
        if self.task not in HEADS:
            raise ValueError(f"task={self.task!r} must be one of {', '.join(HEADS)}.")
        least = HEADS[self.task].least_units
        if least > 1 and self.num_classes < least:
            raise ValueError(f"num_classes={self.num_classes} must be at least {least} for {self.task}.")
        if self.num_train < 1 or self.epochs < 1:
            raise ValueError(f"num_train={self.num_train} and epochs={self.epochs} must be at least 1.")

    def _validate_shape(self) -> None:
        rank = self.dimension.axes + 1
        if len(self.input_shape) != rank or min(self.input_shape, default=0) < 1:
            raise ValueError(f"input_shape={self.input_shape} must be {rank} positive numbers, channels last.")

    def build(self, hp: Any) -> Any:
        """Build and compile the model that `hp` describes; hyperparameters that `hp` lacks are declared.

        Args:
            hp: A `keras_tuner.HyperParameters`.

        Returns:
            A compiled functional Keras model of Keras' own layers only.
        """
        chosen_optimizer = optimizer(hp, num_train=self.num_train, epochs=self.epochs)
        penalty = regularizer(hp)
        inputs = keras.Input(self.input_shape)
        x = self._blocks(hp, self.stem(hp, inputs), penalty=penalty)
        x = head(hp, x, dimension=self.dimension, penalty=penalty)
        ending = HEADS[self.task]
        outputs = keras.layers.Dense(
            self.num_classes if ending.least_units > 1 else 1,
            activation=ending.activation,
            kernel_regularizer=penalty,
            # Also where the layers compute in half the bits: a probability near 1 has no room for its distance from it.
            dtype="float32",
            name="output",
        )(x)
        model = keras.Model(inputs, outputs)
        model.compile(
            optimizer=chosen_optimizer,
            loss=loss(hp, ending),
            metrics=list(ending.metrics),
        )
        return model

    def augmentations(self) -> Mapping[str, Callable[[], Sequence[Any]]]:
        """Name to the layers that change what the blocks are fed, in training only; `none` is the default."""
        return {"none": list}

    def stem(self, hp: Any, inputs: Any) -> Any:
        """What comes before the blocks: the augmentation, and whatever else a space needs.

        Args:
            hp: A `keras_tuner.HyperParameters`.
            inputs: Of the network.
        """
        return self.augmented(hp, inputs)

    def augmented(self, hp: Any, x: Any) -> Any:
        """Declare the augmentation, and apply its layers.

        Args:
            hp: A `keras_tuner.HyperParameters`.
            x: What is changed in training.
        """
        offered = self.augmentations()
        for layer in offered[hp.Choice("augmentation", list(offered), default="none")]():
            x = layer(x)
        return x

    def fit(self, hp: Any, model: Any, *args: Any, **fit_kwargs: Any) -> Any:
        """Train with the batch size of `hp`, unless the caller gives one."""
        return model.fit(*args, **({"batch_size": hp.get("batch_size")} | fit_kwargs))

    def _blocks(self, hp: Any, x: Any, *, penalty: Any) -> Any:
        num_blocks = hp.Int("num_blocks", 1, MAX_BLOCKS, default=self.dimension.default_blocks)
        layers = [self._declare_block(hp, number) for number in range(1, MAX_BLOCKS + 1)]
        batch_norm = hp.Boolean("batch_norm", default=True)
        residual = hp.Boolean("residual", default=False)
        for number, (filters, kernel_size) in enumerate(layers[:num_blocks], start=1):
            shortcut = x
            x = self.dimension.convolution(
                filters,
                kernel_size,
                padding="same",
                # The shift of the normalisation takes the place of the bias.
                use_bias=not batch_norm,
                kernel_initializer="he_normal",
                kernel_regularizer=penalty,
                name=f"conv_{number}",
            )(x)
            if batch_norm:
                x = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"norm_{number}")(x)
            if residual:
                x = self._added(x, shortcut, penalty=penalty, number=number)
            x = keras.layers.Activation("relu", name=f"relu_{number}")(x)
            x = self._pooled(x, name=f"pool_{number}")
        return x

    def _declare_block(self, hp: Any, number: int) -> tuple[int | None, int | None]:
        """Declare the choices of one block; both are None while the network has fewer blocks."""
        deep_enough = list(range(number, MAX_BLOCKS + 1))
        condition = {} if number == 1 else {"parent_name": "num_blocks", "parent_values": deep_enough}
        filters = hp.Choice(
            f"filters_{number}",
            list(self.dimension.filters),
            default=self.dimension.default_filters[number - 1],
            **condition,
        )
        kernel_size = hp.Choice(
            f"kernel_{number}",
            list(self.dimension.kernel_sizes),
            default=self.dimension.default_kernel_size,
            **condition,
        )
        return filters, kernel_size

    def _added(self, x: Any, shortcut: Any, *, penalty: Any, number: int) -> Any:
        """The block's input added to its output, through a 1 x 1 convolution where their channels differ.

        Source: He et al. 2016 ("Deep residual learning"), section 3.2, equation 2.
        """
        filters = x.shape[-1]
        if shortcut.shape[-1] != filters:
            shortcut = self.dimension.convolution(
                filters, 1, use_bias=False, kernel_regularizer=penalty, name=f"shortcut_{number}"
            )(shortcut)
        return keras.layers.Add(name=f"add_{number}")([x, shortcut])

    def _pooled(self, x: Any, *, name: str) -> Any:
        """Halve each axis that is long enough, quarter the large ones, leave the short ones alone."""
        pool_size = tuple(
            4 if size > self.dimension.large_size else 2 if size >= MIN_POOLED_SIZE else 1 for size in x.shape[1:-1]
        )
        return x if max(pool_size) == 1 else self.dimension.max_pooling(pool_size, name=name)(x)


def batch_sizes(num_train: int) -> list[int]:
    """The batch sizes that leave enough steps an epoch; at least the smallest.

    Args:
        num_train: Samples in the training part.
    """
    fitting = [size for size in BATCH_SIZES if math.ceil(num_train / size) >= MIN_STEPS_PER_EPOCH]
    return fitting or [BATCH_SIZES[0]]


def optimizer(hp: Any, *, num_train: int, epochs: int) -> Any:
    """Declare batch size, optimizer, learning rate, schedule and clipping, and build the optimizer.

    Args:
        hp: A `keras_tuner.HyperParameters`.
        num_train: Samples in the training part.
        epochs: Budget of one training.
    """
    sizes = batch_sizes(num_train)
    batch_size = hp.Choice("batch_size", sizes, default=min(DEFAULT_BATCH_SIZE, sizes[-1]))
    name = hp.Choice("optimizer", list(OPTIMIZERS), default="adam")
    low, high = LEARNING_RATE_RANGE
    peak_rate = hp.Float("learning_rate", low, high, sampling="log", default=DEFAULT_LEARNING_RATE)
    schedule = hp.Choice("schedule", list(SCHEDULES), default="cosine")
    warmup_frac = hp.Float("warmup_frac", 0.0, MAX_WARMUP_FRAC, default=DEFAULT_WARMUP_FRAC)
    clip_norm = hp.Choice("clip_norm", list(CLIP_NORMS), default=0.0)
    total_steps = math.ceil(num_train / batch_size) * epochs
    settings: dict[str, Any] = {
        "learning_rate": _rate(peak_rate, schedule=schedule, warmup_frac=warmup_frac, total_steps=total_steps),
        "global_clipnorm": float(clip_norm) or None,
    }
    if name == "sgd":
        return keras.optimizers.SGD(momentum=SGD_MOMENTUM, nesterov=True, **settings)
    return {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[name](**settings)


def _rate(peak_rate: float, *, schedule: str, warmup_frac: float, total_steps: int) -> Any:
    """A plain number where the rate never changes, else Keras' `CosineDecay`, whose `alpha=1` means constant."""
    warmup_steps = round(warmup_frac * total_steps)
    if schedule == "constant" and warmup_steps == 0:
        return float(peak_rate)
    warmup: dict[str, Any] = {}
    if warmup_steps > 0:
        warmup = {"warmup_target": float(peak_rate), "warmup_steps": warmup_steps}
    return keras.optimizers.schedules.CosineDecay(
        # The first step of a warm-up counts: it starts one part above zero.
        initial_learning_rate=float(peak_rate) / (warmup_steps + 1),
        decay_steps=max(1, total_steps - warmup_steps),
        alpha=1.0 if schedule == "constant" else COSINE_FLOOR_FRAC,
        **warmup,
    )


def regularizer(hp: Any) -> Any:
    """Declare L1 and L2, and build the penalty on kernels, or None when both are off or exactly zero.

    Args:
        hp: A `keras_tuner.HyperParameters`.
    """
    l1 = _penalty(hp, "l1", bounds=L1_RANGE, default=DEFAULT_L1)
    l2 = _penalty(hp, "l2", bounds=L2_RANGE, default=DEFAULT_L2)
    if l1 and l2:
        return keras.regularizers.L1L2(l1=l1, l2=l2)
    if l1:
        return keras.regularizers.L1(l1)
    return keras.regularizers.L2(l2) if l2 else None


def _penalty(hp: Any, name: str, *, bounds: tuple[float, float], default: float) -> float:
    is_used = hp.Boolean(f"use_{name}", default=False)
    factor = hp.Float(name, *bounds, sampling="log", default=default, parent_name=f"use_{name}", parent_values=[True])
    return float(factor) if is_used else 0.0


def loss(hp: Any, ending: Head) -> Any:
    """Declare label smoothing where there are labels, and return the loss; of classes, smoothed, for one-hot labels.

    Args:
        hp: A `keras_tuner.HyperParameters`.
        ending: Of the task.
    """
    if ending.smoothed_loss is None:
        return ending.loss
    smoothing = hp.Choice("label_smoothing", list(LABEL_SMOOTHINGS), default=0.0)
    return ending.smoothed_loss(label_smoothing=float(smoothing)) if smoothing else ending.loss


def head(hp: Any, x: Any, *, dimension: Dimension, penalty: Any) -> Any:
    """Declare pooling, dense layer and dropout, and apply them: from feature maps to one vector a sample.

    Args:
        hp: A `keras_tuner.HyperParameters`.
        x: Feature maps, channels last.
        dimension: Which layers.
        penalty: Regulariser of the dense kernel, or None.
    """
    pooling = hp.Choice("pooling", list(POOLINGS), default=dimension.default_pooling)
    if pooling == "grid":
        pool_size = tuple(math.ceil(size / dimension.grid_size) for size in x.shape[1:-1])
        if max(pool_size) > 1:
            x = dimension.average_pooling(pool_size, padding="same", name="grid_pooling")(x)
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        layer = dimension.global_max_pooling if pooling == "max" else dimension.global_pooling
        x = layer(name="global_pooling")(x)
    units = hp.Choice("dense_units", list(DENSE_UNITS), default=DEFAULT_DENSE_UNITS)
    if units:
        x = keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty, name="dense")(x)
    rate = hp.Float("dropout", 0.0, MAX_DROPOUT, default=DEFAULT_DROPOUT)
    return keras.layers.Dropout(float(rate), name="dropout")(x)
