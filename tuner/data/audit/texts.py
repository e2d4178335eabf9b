"""Checks of texts: debris of encodings and HTML, length, unknown words, labels that stand in the text, scripts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data import choices
from tuner.data.audit.sample import Sample, faulty, graded, share_text
from tuner.data.transformers import NormalizeText
from tuner.data.transformers.text import MIN_COUNT, pieces_of
from tuner.grammar import verb
from tuner.records import Finding, Remedy

__all__ = [
    "encoding_debris",
    "html_debris",
    "label_in_text",
    "mixed_scripts",
    "text_length",
    "truncated_texts",
    "unknown_words",
]

# Texts that are looked at; of more, some are drawn with a fixed seed. Source: convention; a second or two.
MAX_TEXTS = 20_000

# Share of the texts with debris in them that is worth a line. Source: convention.
DEBRIS_FRAC = 0.001

# Tokens of a text over the median, or the reverse, from which on it is odd, and share of such texts. Source:
# convention; the longest of Banking77 has 8 times the median.
LENGTH_RATIO = 10.0
LENGTH_FRAC = 0.001

# Share of the texts that the proposed `max_length` cuts. Source: the proposal covers 95 % as far as it can.
CUT_FRAC = 0.06

# Share of the words of validation or test part that the tokeniser will not know from the training part. Source:
# convention; Banking77 has 0.01, the SMS collection, where people spell as they like, 0.09.
UNKNOWN_FRAC = 0.2

# A token gives a class away if it stands in this share of its texts and in no more of the others. Source: convention;
# no word of the SMS collection stands in more than half of a class and in few of the others.
MARKER_IN_FRAC = 0.95
MARKER_OUT_FRAC = 0.02

# Share of the classes, or of the texts, that are given away. Source: Banking77, whose classes are named by their
# subject, such as "virtual", has 2 of 77 classes whose texts nearly all hold a word of their own.
GIVEN_AWAY_FRAC = 0.2

# Fewest texts of a class to judge by.
MIN_TEXTS = 10

# Share of the texts of another script than most. Source: convention.
SCRIPT_FRAC = 0.005

# What UTF-8 becomes when it is read as Windows-1252 or Latin-1: a first byte of two or three, read as a letter, and
# followers, read as signs. Of the two-byte ones only those of Latin letters and signs: others are words now and then.
_FOLLOWER = "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201e"
_FOLLOWER += "\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
_MOJIBAKE = re.compile(f"[\u00c2\u00c3]{_FOLLOWER}|[\u00e0-\u00ef]{_FOLLOWER}{{2}}")
# What could not be decoded, and controls that are no line break or tab: bytes of Windows-1252 read as Latin-1.
_UNDECODED = re.compile("[\ufffd\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

_HTML = re.compile(r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z][a-zA-Z0-9]+|#\d+|#[xX][0-9a-fA-F]+);")

_WORDS = re.compile(r"[^\W_]+")

_SCRIPTS = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Indian": "\u0900-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Korean": "\u1100-\u11ff\uac00-\ud7af",
    "Chinese or Japanese": "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff",
}
_OF_SCRIPT = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Texts in the tokens that the search starts with.

    Attributes:
        rows: Of the data; pieces and counts are in this order.
        pieces: Tokens of each text.
        counts: Their number.
        max_length: Tokens that the search starts with, after which it cuts.
    """

    rows: Rows
    pieces: list[list[str]]
    counts: npt.NDArray[np.int64]
    max_length: int


def _tokenise(sample: Sample) -> _Tokens:
    """Cut a sample of the texts into tokens."""
    dataset = sample.dataset
    rows = np.arange(len(dataset.x))
    if len(rows) > MAX_TEXTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_TEXTS, replace=False))
    proposed = choices.proposals(dataset.spec, dataset.x, rows=sample.split.train, findings=())
    pieces = [pieces_of(text, proposed["tokens"]) for text in NormalizeText().transform(dataset.x[rows])]
    return _Tokens(rows, pieces, np.array([len(each) for each in pieces], np.int64), int(proposed["max_length"]))


def encoding_debris(sample: Sample) -> Finding | None:
    """Texts that were read in another encoding than they were written in, here or earlier."""

    def found(text: str) -> int:
        return 0 if text.isascii() and text.isprintable() else len(_UNDECODED.findall(text) + _MOJIBAKE.findall(text))

    return _debris(
        sample,
        "encoding_debris",
        found,
        severity=(0.2, 0.7),
        cause="hold debris of a wrong encoding",
        remedy=Remedy(
            "data", "give --encoding, or mend the file", "Words with such signs in them are learned as other words."
        ),
    )


def html_debris(sample: Sample) -> Finding | None:
    """Texts with tags or entities of HTML."""
    return _debris(
        sample,
        "html_debris",
        lambda text: len(_HTML.findall(text)) if "<" in text or "&" in text else 0,
        severity=(0.1, 0.25),
        cause="hold tags or entities of HTML",
        remedy=Remedy("data", "leave them", "Tags are taken out and entities read as their signs before tokenising."),
    )


def _debris(
    sample: Sample,
    code: str,
    count: Callable[[str], int],
    *,
    severity: tuple[float, float],
    cause: str,
    remedy: Remedy,
) -> Finding | None:
    """A finding of texts in which something is counted."""
    rows = sample.once(_tokenise).rows
    counts = np.array([count(text) for text in sample.dataset.x[rows]], np.int64)
    share = float(np.mean(counts > 0))
    if share < DEBRIS_FRAC:
        return None
    return faulty(
        sample,
        code,
        counts > 0,
        noun="texts",
        rows=rows,
        badness=counts,
        severity=graded(share, low=severity[0], high=severity[1]),
        cause=f"{cause}, such as {_excerpt(sample, rows[counts.argmax()], code)}",
        remedies=(remedy,),
    )


def _excerpt(sample: Sample, row: int, code: str) -> str:
    """The first debris of a text with a little of what stands around it."""
    text = str(sample.dataset.x[row])
    patterns = (_HTML,) if code == "html_debris" else (_UNDECODED, _MOJIBAKE)
    first = min((match.start() for pattern in patterns if (match := pattern.search(text))), default=0)
    return repr(text[max(0, first - 10) : first + 15])


def text_length(sample: Sample) -> Finding | None:
    """Texts that are empty after cleaning, or far shorter or longer than the others."""
    tokens = sample.once(_tokenise)
    median = float(np.median(tokens.counts))
    is_empty = tokens.counts == 0
    is_long = tokens.counts > LENGTH_RATIO * median
    is_odd = is_empty | is_long | (tokens.counts < median / LENGTH_RATIO)
    share = float(is_odd.mean())
    if share < LENGTH_FRAC:
        return None
    order = np.argsort(-np.abs(np.log((tokens.counts + 0.5) / (median + 0.5))), kind="stable")
    empty = f", {np.count_nonzero(is_empty):,} of them without a single token" if is_empty.any() else ""
    return Finding(
        code="text_length",
        where="",
        severity=graded(share, low=0.15, high=0.6),
        confidence=0.8,
        evidence={
            "texts_frac": share,
            "num_empty": float(np.count_nonzero(is_empty)),
            "num_long": float(np.count_nonzero(is_long)),
            "num_short": float(np.count_nonzero(is_odd & ~is_long & ~is_empty)),
            "median_tokens": median,
            "num_rows_examined": float(len(tokens.rows)),
        },
        cause=f"{share_text(is_odd, 'texts')} {verb(int(is_odd.sum()), 'are')} more than {LENGTH_RATIO:g} times as "
        f"long or as short as the median of {median:g} tokens (from {tokens.counts.min():,} to "
        f"{tokens.counts.max():,}){empty}.",
        examples=sample.examples(tokens.rows[order[is_odd[order]]]),
        remedies=(Remedy("data", "look at these texts, and remove what is none", "They may be something else."),),
    )


def truncated_texts(sample: Sample) -> Finding | None:
    """Texts of which the end will not be read: even the longest `max_length` is too short for them."""
    tokens = sample.once(_tokenise)
    is_cut = tokens.counts > tokens.max_length
    share = float(is_cut.mean())
    if share < CUT_FRAC:
        return None
    return Finding(
        code="truncated_texts",
        where="",
        severity=graded(share, low=0.25, high=0.6),
        confidence=0.9,
        evidence={
            "cut_frac": share,
            "max_length": float(tokens.max_length),
            "longest": float(tokens.counts.max()),
            "num_rows_examined": float(len(tokens.rows)),
        },
        cause=f"{share:.0%} of the texts are longer than {tokens.max_length:,} tokens, after which they are cut.",
        examples=sample.examples(tokens.rows[np.argsort(-tokens.counts, kind="stable")]),
        remedies=(
            Remedy("max_length", str(tokens.max_length), "The longest there is; the search starts with it."),
            Remedy("data", "cut the texts to what matters", "Only their beginnings are read."),
        ),
    )


def unknown_words(sample: Sample) -> Finding | None:
    """Words of the validation or test part that the training part does not teach."""
    tokens = sample.once(_tokenise)
    is_train = np.isin(tokens.rows, sample.split.train)
    taught = Counter(piece for row in np.flatnonzero(is_train) for piece in tokens.pieces[row])
    shares = {}
    for part, rows in (("validation", sample.split.validation), ("test", sample.split.test)):
        of_part = [tokens.pieces[row] for row in np.flatnonzero(np.isin(tokens.rows, rows))]
        total = sum(map(len, of_part))
        unknown = sum(taught[piece] < MIN_COUNT for pieces in of_part for piece in pieces)
        shares[part] = unknown / max(1, total)
    worst = max(shares, key=lambda part: shares[part])
    if shares[worst] < UNKNOWN_FRAC:
        return None
    unknown_in = np.array([sum(taught[piece] < MIN_COUNT for piece in pieces) for pieces in tokens.pieces])
    order = np.argsort(-(unknown_in / np.maximum(1, tokens.counts)), kind="stable")
    return Finding(
        code="unknown_words",
        where=worst,
        severity=graded(shares[worst], low=0.3, high=0.85),
        confidence=0.8,
        evidence={f"{part}_unknown_frac": share for part, share in shares.items()},
        cause=f"{shares[worst]:.0%} of the tokens of the {worst} part are not in the training part, or only once, and "
        "all count as one unknown token.",
        examples=sample.examples(tokens.rows[order[~is_train[order]]]),
        remedies=(
            Remedy("tokens", "character", "Characters are known where words are not; the search tries both."),
            Remedy("data", "add texts to learn from", "A word that is never seen says nothing."),
        ),
    )


def label_in_text(sample: Sample) -> Finding | None:
    """Classes that a single token, or their own name, gives away: then nothing else is learned."""
    tokens = sample.once(_tokenise)
    y, names = sample.dataset.y[tokens.rows], sample.dataset.spec.class_names
    texts = [frozenset(each) for each in tokens.pieces]
    total = Counter(piece for text in texts for piece in text)
    plain = [_plain(str(text)) for text in sample.dataset.x[tokens.rows]]
    markers: dict[int, str] = {}
    for code, name in enumerate(names):
        rows = np.flatnonzero(y == code)
        if len(rows) < MIN_TEXTS or len(rows) == len(y):
            continue
        marker = _marker([texts[row] for row in rows], total, num_others=len(y) - len(rows))
        if marker is None and _stands_in(name, plain, y == code):
            marker = name
        if marker is not None:
            markers[code] = marker
    is_marked = np.isin(y, list(markers))
    texts_frac, classes_frac = float(is_marked.mean()), len(markers) / max(1, len(names))
    if max(texts_frac, classes_frac) < GIVEN_AWAY_FRAC:
        return None
    shown = ", ".join(f"{marker!r} in {names[code]!r}" for code, marker in list(markers.items())[:3])
    return Finding(
        code="label_in_text",
        where=names[next(iter(markers))],
        severity=graded(texts_frac, low=0.5, high=0.89),
        confidence=0.8,
        evidence={"num_classes": float(len(markers)), "texts_frac": texts_frac},
        cause=f"The texts of {len(markers):,} of {len(names):,} classes nearly all hold a token that the others hardly "
        f"have: {shown}. If it was put there with the label, it will be missing in new texts.",
        examples=sample.examples(tokens.rows[is_marked]),
        remedies=(Remedy("data", "take these marks out of the texts", "Otherwise the network reads nothing else."),),
    )


def _marker(texts: list[frozenset[str]], total: Counter[str], *, num_others: int) -> str | None:
    """The token that nearly all of these texts have and hardly any other."""
    here = Counter(piece for text in texts for piece in text)
    marks = [
        piece
        for piece, count in here.items()
        if count >= MARKER_IN_FRAC * len(texts) and total[piece] - count <= MARKER_OUT_FRAC * num_others
    ]
    return max(marks, key=lambda piece: (here[piece] - total[piece], len(piece), piece), default=None)


def _stands_in(name: str, plain: list[str], is_class: npt.NDArray[np.bool_]) -> bool:
    """Whether the name of a class, of a word at least, stands in nearly all of its texts and hardly in others."""
    words = _plain(name)
    if not re.search(r"[^\W\d_]{2}", words):
        return False
    has = np.array([words in text for text in plain])
    return bool(has[is_class].mean() >= MARKER_IN_FRAC and has[~is_class].mean() <= MARKER_OUT_FRAC)


def _plain(text: str) -> str:
    """Words in lower case, with a space around each."""
    return " ".join(["", *_WORDS.findall(text.casefold()), ""])


def mixed_scripts(sample: Sample) -> Finding | None:
    """Texts in another script than most: another language, hardly seen in training."""
    rows = sample.once(_tokenise).rows
    scripts = np.array([_script(str(text)) for text in sample.dataset.x[rows]], object)
    counts = Counter(script for script in scripts if script)
    if len(counts) < 2:
        return None
    (usual, _), *others = counts.most_common()
    is_other = np.array([bool(script) and script != usual for script in scripts])
    share = float(is_other.mean())
    if share < SCRIPT_FRAC:
        return None
    listed = ", ".join(f"{count:,} {name}" for name, count in others)
    return Finding(
        code="mixed_scripts",
        where="",
        severity=graded(2 * share, low=0.2, high=0.5),
        confidence=0.9,
        evidence={"texts_frac": share, "num_scripts": float(len(counts)), "num_rows_examined": float(len(rows))},
        cause=f"{share:.1%} of the texts are not written in {usual} letters as most are: {listed}.",
        examples=sample.examples(rows[is_other]),
        remedies=(Remedy("data", "learn from one language at a time", "Few texts of a language teach little of it."),),
    )


def _script(text: str) -> str:
    """The script of most letters of a text; empty if it has none that is known."""
    if text.isascii():
        return "Latin" if re.search("[A-Za-z]", text) else ""
    counts = {name: len(pattern.findall(text)) for name, pattern in _OF_SCRIPT.items()}
    script = max(counts, key=lambda name: counts[name])
    return script if counts[script] else ""
