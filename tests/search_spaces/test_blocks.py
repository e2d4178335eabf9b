"""The pieces of the spaces, one by one, against known answers."""

from __future__ import annotations

import math
from typing import Any

import keras
import keras_tuner
import pytest

from search_spaces import blocks
from search_spaces.image import ImageSpace


def optimizer_with(*, num_train: int = 320, epochs: int = 10, **values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values |= values
    return blocks.optimizer(hp, num_train=num_train, epochs=epochs)


def regularizer_with(**values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values |= values
    return blocks.regularizer(hp)


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [
        (1, [16]),
        (112, [16]),
        (113, [16]),
        (224, [16]),
        (225, [16, 32]),
        (448, [16, 32]),
        (449, [16, 32, 64]),
        (896, [16, 32, 64]),
        (897, [16, 32, 64, 128]),
    ],
)
def test_batch_sizes_leave_eight_steps_an_epoch(num_train: int, expected: list[int]) -> None:
    assert blocks.batch_sizes(num_train) == expected


def test_default_batch_size_is_the_largest_where_thirty_two_is_too_much() -> None:
    hp = keras_tuner.HyperParameters()
    blocks.optimizer(hp, num_train=100, epochs=1)
    assert hp.get("batch_size") == 16


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", keras.optimizers.Adam), ("sgd", keras.optimizers.SGD), ("rmsprop", keras.optimizers.RMSprop)],
)
def test_optimizers(name: str, kind: type[Any]) -> None:
    assert type(optimizer_with(optimizer=name)) is kind


def test_sgd_has_momentum() -> None:
    assert optimizer_with(optimizer="sgd").momentum == blocks.SGD_MOMENTUM


def test_constant_rate_without_warmup_is_a_plain_number() -> None:
    built = optimizer_with(schedule="constant", warmup_frac=0.0, learning_rate=0.01)
    assert built.get_config()["learning_rate"] == pytest.approx(0.01)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_to_the_peak_from_the_first_step(schedule: str) -> None:
    built = optimizer_with(schedule=schedule, warmup_frac=0.1, learning_rate=0.011, batch_size=32)
    rates = [float(rate_at(built, step)) for step in range(101)]
    # 320 / 32 steps x 10 epochs = 100 steps, 10 of them warm-up: from 1/11 of the peak, in equal parts.
    assert rates[:11] == pytest.approx([0.001 * (step + 1) for step in range(11)], rel=1e-4)
    assert rates[100] == pytest.approx(0.011 * (1.0 if schedule == "constant" else blocks.COSINE_FLOOR_FRAC), rel=1e-3)
    assert max(rates) == pytest.approx(0.011)


def rate_at(built: Any, step: int) -> Any:
    built.iterations.assign(step)
    return keras.ops.convert_to_numpy(built.learning_rate)


def test_cosine_without_warmup_starts_at_the_peak_and_is_half_way_in_the_middle() -> None:
    built = optimizer_with(schedule="cosine", warmup_frac=0.0, learning_rate=0.01, batch_size=32)
    assert float(rate_at(built, 0)) == pytest.approx(0.01)
    assert float(rate_at(built, 50)) == pytest.approx(0.01 * (0.5 * 0.99 + 0.01), rel=1e-4)


def test_warmup_shorter_than_half_a_step_is_none() -> None:
    built = optimizer_with(schedule="constant", warmup_frac=0.004, num_train=32, epochs=100, batch_size=32)
    assert built.get_config()["learning_rate"] == pytest.approx(blocks.DEFAULT_LEARNING_RATE)


def test_warmup_over_the_whole_budget_is_possible() -> None:
    built = optimizer_with(schedule="cosine", warmup_frac=1.0, num_train=32, epochs=1, batch_size=32)
    assert math.isfinite(float(rate_at(built, 1)))


@pytest.mark.parametrize(("clip_norm", "expected"), [(0.0, None), (1.0, 1.0), (5, 5.0)])
def test_clip_norm_of_zero_means_none(clip_norm: float, expected: float | None) -> None:
    assert optimizer_with(clip_norm=clip_norm).global_clipnorm == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"use_l2": True}, {"l2": blocks.DEFAULT_L2}),
        ({"use_l1": True}, {"l1": blocks.DEFAULT_L1}),
        ({"use_l1": True, "l1": 1e-3, "use_l2": True, "l2": 1e-2}, {"l1": 1e-3, "l2": 1e-2}),
        ({"use_l1": True, "l1": 0.0}, None),
        ({"use_l1": True, "l1": 0.0, "use_l2": True, "l2": 0.0}, None),
        ({"use_l1": True, "l1": 0.0, "use_l2": True, "l2": 0.5}, {"l2": 0.5}),
    ],
)
def test_penalty_is_none_when_it_is_exactly_zero(values: dict[str, Any], expected: dict[str, float] | None) -> None:
    penalty = regularizer_with(**values)
    assert (penalty.get_config() if penalty else None) == (pytest.approx(expected) if expected else None)


def test_penalty_is_on_every_kernel() -> None:
    hp = keras_tuner.HyperParameters()
    hp.values |= {"use_l2": True}
    model = ImageSpace((8, 8, 1), task="classification", num_classes=3, num_train=500, epochs=2).build(hp)
    penalised = [layer.name for layer in model.layers if getattr(layer, "kernel_regularizer", None)]
    assert penalised == ["conv_1", "conv_2", "conv_3", "dense", "output"]


@pytest.mark.parametrize(
    ("size", "expected"), [(3, 3), (4, 2), (8, 4), (64, 32), (65, 16)], ids=["short", "4", "8", "64", "large"]
)
def test_pooling_halves_long_sides_and_quarters_large_ones(size: int, expected: int) -> None:
    hp = keras_tuner.HyperParameters()
    hp.values |= {"num_blocks": 1}
    model = ImageSpace((size, 1, 1), task="classification", num_classes=3, num_train=500, epochs=2).build(hp)
    pools = [layer for layer in model.layers if layer.name == "pool_1"]
    assert (pools[0].output.shape[1:3] if pools else (size, 1)) == (expected, 1)


@pytest.mark.parametrize(("side", "positions"), [(4, 16), (5, 9), (32, 16)])
def test_grid_leaves_at_most_sixteen_places(side: int, positions: int) -> None:
    inputs = keras.Input((side, side, 7))
    outputs = blocks.head(keras_tuner.HyperParameters(), inputs, dimension=ImageSpace.dimension, penalty=None)
    flat = keras.Model(inputs, outputs).get_layer("flatten").output
    assert flat.shape == (None, positions * 7)


def test_no_dense_layer_when_units_are_zero() -> None:
    hp = keras_tuner.HyperParameters()
    hp.values |= {"dense_units": 0, "pooling": "global"}
    inputs = keras.Input((4, 4, 7))
    model = keras.Model(inputs, blocks.head(hp, inputs, dimension=ImageSpace.dimension, penalty=None))
    assert [type(layer).__name__ for layer in model.layers] == ["InputLayer", "GlobalAveragePooling2D", "Dropout"]
