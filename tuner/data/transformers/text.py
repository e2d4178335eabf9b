"""Transformers of text: from strings to sequences of numbered words or characters."""

# scikit-learn's own names, which its tools rely on: capital X for the samples.
# ruff: noqa: N803

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

__all__ = ["MIN_COUNT", "PADDING", "UNKNOWN", "NormalizeText", "TokenSequences", "pieces_of"]

# Numbers of what is no token of the vocabulary.
PADDING, UNKNOWN = 0, 1

# A token that training has seen less often is unknown: nothing could be learned of it, and "unknown" is learned from
# these. Source: convention.
MIN_COUNT = 2

# Longer tokens (addresses, codes) are unknown. Source: convention; the longest word of banking77 has 18.
MAX_TOKEN_CHARACTERS = 40

_TAG = re.compile(r"<(?:[a-zA-Z/!][^<>]*)>")
_SPACE = re.compile(r"\s+")
# Scripts without spaces between words: each character of them is a word. Kana, CJK ideographs.
_IDEOGRAPHS = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# ASCII, Latin-1, general and CJK punctuation. Not "everything but \w": the vowel signs of Indian scripts are no \w.
_MARKS = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3001-\u303f"
_WORD = rf"[^\s{_MARKS}{_IDEOGRAPHS}]+"
_TOKENS = {"word": re.compile(rf"{_WORD}(?:'{_WORD})*|\S"), "character": re.compile(r".", re.DOTALL)}


class NormalizeText(TransformerMixin, BaseEstimator):
    r"""Plain lower-case text: HTML tags and entities, Unicode forms and white space made one. Nothing is learned.

    Example:
        >>> NormalizeText().transform(["<p>Caf&eacute; \uff21\n\n1 &lt; 2"]).tolist()
        ['café a 1 < 2']
    """

    def fit(self, X: Iterable[str], y: Any = None) -> NormalizeText:
        """Do nothing."""
        return self

    def transform(self, X: Iterable[str]) -> npt.NDArray[np.object_]:
        """Return the texts (n,); what is no string is an empty one."""
        found = [_normalized(text) if isinstance(text, str) else "" for text in X]
        result = np.empty(len(found), object)
        result[:] = found
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _normalized(text: str) -> str:
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _SPACE.sub(" ", text.lower()).strip()


def pieces_of(text: str, tokens: str) -> list[str]:
    """The words (with punctuation marks of their own) or characters of a text."""
    return _TOKENS[tokens].findall(text)


class TokenSequences(TransformerMixin, BaseEstimator):
    """Turn texts into sequences of numbers, (n, max_length) in int32: 0 is padding, 1 an unknown token.

    The vocabulary is learned from the training texts: the most frequent tokens, from 2 on. The start of a text that
    is too long is kept.

    Args:
        tokens: `word` or `character`. A Chinese or Japanese character is a word.
        vocabulary_size: All numbers are below it.
        max_length: Tokens of a text, after which it is cut.

    Attributes:
        vocabulary_: The tokens, most frequent first, one a line.

    Example:
        >>> TokenSequences(max_length=4).fit(["a b", "b a c"]).transform(["b c a", ""]).tolist()
        [[3, 1, 2, 0], [0, 0, 0, 0]]
    """

    def __init__(self, *, tokens: str = "word", vocabulary_size: int = 5000, max_length: int = 64) -> None:
        self.tokens = tokens
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length

    def fit(self, X: Iterable[str], y: Any = None) -> TokenSequences:
        """Learn the vocabulary.

        Raises:
            ValueError: A parameter is out of its range.
        """
        if self.tokens not in _TOKENS or self.vocabulary_size <= UNKNOWN or self.max_length < 1:
            raise ValueError(
                f"tokens={self.tokens!r}, vocabulary_size={self.vocabulary_size}, max_length={self.max_length}: "
                f"expected one of {', '.join(_TOKENS)}, at least {UNKNOWN + 1} and at least 1."
            )
        counts = Counter(itertools.chain.from_iterable(pieces_of(text, self.tokens) for text in X))
        counts.pop("\n", None)
        known = [item for item in counts.items() if item[1] >= MIN_COUNT and len(item[0]) <= MAX_TOKEN_CHARACTERS]
        # Ties by the token, so that the order of the rows does not matter.
        known.sort(key=lambda item: (-item[1], item[0]))
        # One string: a list of thousands of strings is slow to store safely.
        self.vocabulary_ = "\n".join(token for token, _ in known[: self.vocabulary_size - UNKNOWN - 1])
        return self

    def transform(self, X: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the numbers of the tokens."""
        check_is_fitted(self)
        known = self.vocabulary_.split("\n") if self.vocabulary_ else []
        numbers = {token: number for number, token in enumerate(known, start=UNKNOWN + 1)}
        texts = list(X)
        result = np.full((len(texts), self.max_length), PADDING, np.int32)
        for row, text in enumerate(texts):
            found = [numbers.get(token, UNKNOWN) for token in pieces_of(text, self.tokens)[: self.max_length]]
            result[row, : len(found)] = found
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags
