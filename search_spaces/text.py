"""The search space for text: an embedding and a 1-D convolutional network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from search_spaces.blocks import ConvolutionSpace
from search_spaces.series import SeriesSpace

__all__ = ["TextSpace"]

# Length of a word's vector. Source: 50 to 300 in Kim 2014 ("Convolutional neural networks for sentence
# classification"); learned from scratch on thousands of texts, the short end is enough.
EMBEDDING_SIZES = (32, 64, 128)
DEFAULT_EMBEDDING_SIZE = 64
# Share of words that are hidden in training. Source: Iyyer et al. 2015 ("Deep unordered composition"), section 3.1.
WORD_DROPOUT = 0.3

_WORDS = dataclasses.replace(
    SeriesSpace.dimension,
    # Phrases of 2 to 5 words; 1 is a bag of words. Source: Zhang & Wallace 2017 ("A sensitivity analysis of
    # convolutional neural networks for sentence classification"), section 4.3: 1 to 10 around 3 to 7.
    kernel_sizes=(1, 2, 3, 5),
    default_kernel_size=3,
    # Source: Zhang & Wallace 2017, section 4.4: 100 to 600 for a single layer.
    filters=(32, 64, 128, 256),
    default_filters=(128, 128, 128, 128),
    default_blocks=1,
    default_pooling="max",
)


class TextSpace(ConvolutionSpace):
    """Embedding and 1-D convolutional network for texts as sequences of numbered words or characters.

    Args:
        input_shape: (length,) of one prepared text: int32, 0 for padding.
        vocabulary_size: Numbers are below this.
        space_arguments: As for `SeriesSpace`.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import keras_tuner
        >>> space = TextSpace((32,), 5000, task="classification", num_classes=2, num_train=4000, epochs=10)
        >>> model = space.build(keras_tuner.HyperParameters())
        >>> model.input_shape, model.output_shape
        ((None, 32), (None, 2))
    """

    dimension = _WORDS

    def __init__(
        self,
        input_shape: Sequence[int],
        vocabulary_size: int,
        *,
        task: str,
        num_classes: int,
        num_train: int,
        epochs: int,
    ) -> None:
        self.vocabulary_size = vocabulary_size
        super().__init__(input_shape, task=task, num_classes=num_classes, num_train=num_train, epochs=epochs)

    def _validate_shape(self) -> None:
        if len(self.input_shape) != 1 or self.input_shape[0] < 1:
            raise ValueError(f"input_shape={self.input_shape} must be (length,) with at least one word.")
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size={self.vocabulary_size} must be at least 1.")

    def stem(self, hp: Any, inputs: Any) -> Any:
        """Vectors of the words, learned from scratch."""
        size = hp.Choice("embedding_size", list(EMBEDDING_SIZES), default=DEFAULT_EMBEDDING_SIZE)
        return self.augmented(hp, keras.layers.Embedding(self.vocabulary_size, size, name="embedding")(inputs))

    def augmentations(self) -> Mapping[str, Callable[[], Sequence[Any]]]:
        """Whole words are hidden."""
        shape = (None, self.input_shape[0], 1)
        return {
            "none": list,
            "word_dropout": lambda: [keras.layers.Dropout(WORD_DROPOUT, noise_shape=shape, name="words")],
        }
