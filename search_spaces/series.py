"""The search space for numeric series and tables: a 1-D convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from search_spaces.blocks import ConvolutionSpace, Dimension

__all__ = ["JITTER", "SeriesSpace"]

# Standard deviation of the noise, where scaled values have 1. Source: Um et al. 2017 ("Data augmentation of wearable
# sensor data"), section 3: jittering with 0.05.
JITTER = 0.05

_LINE = Dimension(
    convolution=keras.layers.Conv1D,
    max_pooling=keras.layers.MaxPooling1D,
    average_pooling=keras.layers.AveragePooling1D,
    global_pooling=keras.layers.GlobalAveragePooling1D,
    global_max_pooling=keras.layers.GlobalMaxPooling1D,
    axes=1,
    # Series need longer kernels than images: 8, 5 and 3 steps in the strong baseline of Wang, Yan & Oates 2017
    # ("Time series classification from scratch", FCN), 11 as a longer one that is still cheap in one dimension.
    kernel_sizes=(3, 5, 7, 11),
    default_kernel_size=5,
    # From 257 steps on a block quarters: four blocks bring 4,096 steps down to 32.
    large_size=256,
    # 8 positions of at most 64 filters: the dense head then has at most 65,536 weights.
    grid_size=8,
)


class SeriesSpace(ConvolutionSpace):
    """1-D convolutional networks for series of any length and number of channels, and for tables as series.

    Args:
        input_shape: (steps, channels) of one prepared sample; a table has its columns as steps, and one channel.
        task: `classification`, `multilabel` or `regression`.
        num_classes: Number of classes, or of labels; ignored for regression.
        num_train: Samples in the training part: limits the batch size, sets the length of schedules.
        epochs: Budget of one training: sets the length of schedules.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import keras_tuner
        >>> space = SeriesSpace((140, 1), task="regression", num_classes=0, num_train=3000, epochs=10)
        >>> model = space.build(keras_tuner.HyperParameters())
        >>> model.output_shape
        (None, 1)
    """

    dimension = _LINE

    def augmentations(self) -> Mapping[str, Callable[[], Sequence[Any]]]:
        """Noise on the scaled values."""
        return {"none": list, "jitter": lambda: [keras.layers.GaussianNoise(JITTER, name="jitter")]}
