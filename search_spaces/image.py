"""The search space for images: a 2-D convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from search_spaces.blocks import ConvolutionSpace, Dimension

__all__ = ["ImageSpace"]

# Share of the side by which an image is shifted at most. Source: 4 of 32 pixels, He et al. 2016 ("Deep residual
# learning"), section 4.2.
SHIFT_FRAC = 0.125
# Share of the side that a crop cuts off at most, before the rest is scaled up to the full side. Source: convention;
# Szegedy et al. 2015 ("Going deeper with convolutions"), section 6, cut off far more of much larger images.
CROP_FRAC = 0.2


_PLANE = Dimension(
    convolution=keras.layers.Conv2D,
    max_pooling=keras.layers.MaxPooling2D,
    average_pooling=keras.layers.AveragePooling2D,
    global_pooling=keras.layers.GlobalAveragePooling2D,
    global_max_pooling=keras.layers.GlobalMaxPooling2D,
    axes=2,
    # Two stacked 3x3 see what one 5x5 sees, at less cost. Source: Simonyan & Zisserman 2015 (VGG), section 2.3.
    # 1x1 sees no neighbourhood, 7x7 costs five times a 3x3 on a CPU: neither is offered.
    kernel_sizes=(3, 5),
    default_kernel_size=3,
    # From 65 pixels on a block halves twice. Source: convention of ResNet-like stems (stride 4 for 224 pixels).
    large_size=64,
    # 4 x 4 = 16 positions of at most 64 filters: the dense head then has at most 131,072 weights.
    grid_size=4,
)


class ImageSpace(ConvolutionSpace):
    """2-D convolutional networks for images of any size, number of channels and shape.

    Args:
        input_shape: (height, width, channels) of one prepared sample.
        task: `classification`, `multilabel` or `regression`.
        num_classes: Number of classes, or of labels; ignored for regression.
        num_train: Samples in the training part: limits the batch size, sets the length of schedules.
        epochs: Budget of one training: sets the length of schedules.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import keras_tuner
        >>> space = ImageSpace((28, 28, 1), task="classification", num_classes=10, num_train=8000, epochs=10)
        >>> model = space.build(keras_tuner.HyperParameters())
        >>> model.output_shape
        (None, 10)
    """

    dimension = _PLANE

    def augmentations(self) -> Mapping[str, Callable[[], Sequence[Any]]]:
        """Shifts, crops; flips are a choice of their own: the mirror image of a digit has another label, or none."""

        def shift() -> Any:
            return keras.layers.RandomTranslation(SHIFT_FRAC, SHIFT_FRAC, fill_mode="nearest", name="shift")

        def crop() -> Any:
            return keras.layers.RandomZoom((-CROP_FRAC, 0.0), fill_mode="nearest", name="crop")

        def flip() -> Any:
            return keras.layers.RandomFlip("horizontal", name="flip")

        return {
            "none": list,
            "shift": lambda: [shift()],
            "shift_crop": lambda: [shift(), crop()],
            "shift_flip": lambda: [shift(), flip()],
        }
