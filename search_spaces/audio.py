"""The search space for sound: a 2-D convolutional network over log-mel spectra, or a 1-D one over the wave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from search_spaces.blocks import ConvolutionSpace
from search_spaces.image import ImageSpace
from search_spaces.series import JITTER, SeriesSpace

__all__ = ["AudioSpace"]

# Share of the recording by which it is shifted in time at most. Source: convention; Salamon & Bello 2017 ("Deep
# convolutional neural networks and data augmentation for environmental sound classification") shift in time, too.
SHIFT_FRAC = 0.1
# Largest share of the bands, and of the frames, that one mask covers. Source: Park et al. 2019 ("SpecAugment"),
# table 1: 27 of 80 bands; of the frames at most 0.2 on speech commands that are short (policies SM and SS).
MASKED_BANDS_FRAC = 0.34
MASKED_FRAMES_FRAC = 0.2
# The first layer on a wave is a bank of filters of 10 ms at 8 kHz, every half a millisecond. Source: Dai et al. 2017
# ("Very deep convolutional neural networks for raw waveforms"), table 1: 80 samples, every 4.
FILTER_BANK_SIZE = 64
FILTER_BANK_LENGTH = 80
FILTER_BANK_STRIDE = 4

# The same kernel sizes as on spectra, so that one hyperparameter serves both. Source: Dai et al. 2017, table 1: 3.
_WAVE = dataclasses.replace(SeriesSpace.dimension, kernel_sizes=(3, 5), default_kernel_size=3)


class AudioSpace(ConvolutionSpace):
    """Convolutional networks for sound; the shape of a prepared sample says which.

    Args:
        input_shape: (frames, bands, 1) of a log-mel spectrum, or (samples, 1) of a wave.
        space_arguments: As for `ImageSpace`.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import keras_tuner
        >>> space = AudioSpace((100, 40, 1), task="classification", num_classes=10, num_train=1000, epochs=10)
        >>> model = space.build(keras_tuner.HyperParameters())
        >>> model.output_shape
        (None, 10)
    """

    def __init__(self, input_shape: Sequence[int], *, task: str, num_classes: int, num_train: int, epochs: int) -> None:
        self._is_wave = len(input_shape) == _WAVE.axes + 1
        self.dimension = _WAVE if self._is_wave else ImageSpace.dimension
        super().__init__(input_shape, task=task, num_classes=num_classes, num_train=num_train, epochs=epochs)

    def stem(self, hp: Any, inputs: Any) -> Any:
        """A wave goes through a learned bank of filters first; a spectrum came from a computed one."""
        x = self.augmented(hp, inputs)
        if not self._is_wave:
            return x
        x = keras.layers.Conv1D(
            FILTER_BANK_SIZE,
            FILTER_BANK_LENGTH,
            strides=FILTER_BANK_STRIDE,
            padding="same",
            kernel_initializer="he_normal",
            activation="relu",
            name="filter_bank",
        )(x)
        return keras.layers.MaxPooling1D(4, padding="same", name="filter_bank_pool")(x)

    def augmentations(self) -> Mapping[str, Callable[[], Sequence[Any]]]:
        """`light` shifts in time; `strong` also masks bands and frames of a spectrum, or adds noise to a wave."""
        shift, disturb = (_shift_wave, _noise) if self._is_wave else (_shift_spectrum, _masks)
        return {
            "none": list,
            "light": lambda: shift(self.input_shape),
            "strong": lambda: [*shift(self.input_shape), *disturb()],
        }


def _shift_spectrum(_: tuple[int, ...]) -> list[Any]:
    return [keras.layers.RandomTranslation(SHIFT_FRAC, 0.0, fill_mode="nearest", name="shift")]


def _shift_wave(input_shape: tuple[int, ...]) -> list[Any]:
    """Keras shifts images only: the wave is one of a single column."""
    return [
        keras.layers.Reshape((*input_shape, 1), name="as_image"),
        keras.layers.RandomTranslation(SHIFT_FRAC, 0.0, fill_mode="constant", name="shift"),
        keras.layers.Reshape(input_shape, name="as_wave"),
    ]


def _masks() -> list[Callable[[Any], Any]]:
    """Neighbouring bands are masked over all frames, then neighbouring frames over all bands, each once."""
    return [
        lambda x: _masked(x, axis=2, share=MASKED_BANDS_FRAC, name="mask_bands"),
        lambda x: _masked(x, axis=1, share=MASKED_FRAMES_FRAC, name="mask_frames"),
    ]


def _masked(x: Any, *, axis: int, share: float, name: str) -> Any:
    """Set a stretch of one axis to 0, the mean: Keras erases rectangles, of which the longest shadow is taken."""
    # Keras draws the square of a side's share.
    rectangle = keras.layers.RandomErasing(1.0, (0.0, share**2), fill_value=0.0, name=name)(keras.ops.ones_like(x))
    return x * keras.ops.min(rectangle, axis=3 - axis, keepdims=True)


def _noise() -> list[Any]:
    return [keras.layers.GaussianNoise(JITTER, name="jitter")]
