"""The choices of the preprocessing, which are hyperparameters: what is offered for which data, and its defaults."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.transformers import NormalizeText
from tuner.data.transformers.sound import num_frames
from tuner.data.transformers.text import MIN_COUNT, pieces_of
from tuner.errors import ConfigError, did_you_mean
from tuner.records import DataSpec, Finding
from tuner.tasks import TASKS

__all__ = ["Choice", "completed", "offered", "proposals", "sample_rate_hz"]

# Class weights are offered when the largest class is this many times the smallest, and are the default from the
# second figure on. Source: convention; 3:1 is also where balanced accuracy becomes the metric.
BALANCE_OFFERED_RATIO = 1.5
BALANCE_DEFAULT_RATIO = 3.0

# Texts that defaults are proposed from, and share of them that is not cut. Source: convention; a second at most.
PROPOSAL_TEXTS = 20_000
COVERED_FRAC = 0.95

# Characters from space to space from which on a language has no spaces between words. Source: tests/data/test_pipelines
# has English at 5 to 6 and Finnish at 9; in Chinese and Japanese it is the length of a sentence.
CHARACTERS_PER_WORD = 14

# Most frames of a spectrogram at the finer hop, unless it is asked for. Source: convention; 5 s.
MAX_FINE_FRAMES = 500


@dataclass(frozen=True)
class Choice:
    """One preprocessing hyperparameter.

    Attributes:
        name: As in `--fix NAME=VALUE`.
        values: All it can be.
        default: What the first trial uses.
        help: One line for the user.
    """

    name: str
    values: tuple[str, ...]
    default: str
    help: str


_IMPUTER = Choice(
    "imputer",
    ("median", "mean", "flag"),
    "median",
    "What fills a missing value: its column's median or mean; or the median, and 1 in an extra channel.",
)
_IMAGE_IMPUTER = Choice("imputer", ("median", "mean"), "median", "What fills a missing value of a channel.")
_OUTLIERS = Choice(
    "outliers",
    ("none", "clip", "winsorise", "flag"),
    "clip",
    "Leave them; clip each column three interquartile ranges beyond its quartiles, or at its 1 % and 99 % quantiles; "
    "or clip, and 1 in an extra channel.",
)
_SKEW = Choice(
    "skew",
    ("none", "yeo-johnson", "quantile", "log"),
    "none",
    "Leave it; make each column symmetric by a power, by its ranks, or by a logarithm on both sides of 0.",
)
_IMAGE_SCALER = Choice(
    "scaler", ("standard", "minmax"), "standard", "Each channel to mean 0 and deviation 1, or to the range 0 to 1."
)
_SERIES_SCALER = Choice(
    "scaler",
    ("standard", "robust", "minmax"),
    "standard",
    "Each column (or channel) by mean and deviation, by median and quartiles, or to the range 0 to 1.",
)
_SIGNAL_SCALER = Choice(
    "scaler",
    (*_SERIES_SCALER.values, "each"),
    "standard",
    "Each column (or channel) by mean and deviation, by median and quartiles, or to the range 0 to 1; or each single "
    "series by its own mean and deviation.",
)
_TEXT = (
    Choice("tokens", ("word", "character"), "word", "What is numbered: words, or characters."),
    Choice("vocabulary", ("1000", "5000", "20000"), "5000", "Numbers for tokens; the rarer ones share one."),
    Choice("max_length", ("32", "64", "128", "256", "512"), "64", "Tokens of a text; the rest is cut off."),
)
_SOUND = (
    Choice("trim", ("none", "silence"), "silence", "Leave silence at both ends, or cut it off."),
    Choice("loudness", ("none", "equal"), "equal", "Leave recordings as loud as they are, or make them equally loud."),
    Choice("front_end", ("log_mel", "wave"), "log_mel", "What the network sees: power in mel bands, or the wave."),
    Choice("mels", ("32", "64"), "32", "Mel bands; of no effect on the wave."),
    Choice(
        "hop_ms", ("10", "20"), "10", "Milliseconds from one frame of mel bands to the next; of no effect on the wave."
    ),
)


def offered(
    spec: DataSpec, *, has_missing: bool, imbalance: float, proposed: Mapping[str, str] | None = None
) -> tuple[Choice, ...]:
    """The preprocessing hyperparameters that make sense for these data.

    Args:
        spec: How the data was read.
        has_missing: Whether any value is missing (NaN or infinite).
        imbalance: Largest class over smallest, at least 1; ignored where the task has no balance.
        proposed: Other defaults by name, as `proposals` found them; those that fit no choice are ignored.
    """
    found = list(_pipeline_choices(spec))
    if not has_missing or spec.kind in ("text", "audio"):
        found = [choice for choice in found if choice.name != "imputer"]
    if TASKS[spec.task].is_balanced and imbalance > BALANCE_OFFERED_RATIO:
        default = "class_weights" if imbalance >= BALANCE_DEFAULT_RATIO else "none"
        found.append(
            Choice(
                "balance",
                ("none", "class_weights", "oversample"),
                default,
                "Leave classes as unequal as they are, weigh them by the inverse of their size, or repeat rows of the "
                "smaller ones in training.",
            )
        )
    given = proposed or {}
    return tuple(
        replace(choice, default=given[choice.name]) if given.get(choice.name) in choice.values else choice
        for choice in found
    )


def proposals(
    spec: DataSpec, x: npt.NDArray[Any], *, rows: npt.NDArray[np.int64], findings: Sequence[Finding]
) -> dict[str, str]:
    """Defaults that these data ask for, by name: what the audit's findings name first as a remedy; of text, its size.

    Args:
        spec: How the data was read.
        x: Raw samples.
        rows: Of the training part.
        findings: Of the audit (`audit.propose`), of the training part alone; worst first.
    """
    if spec.kind == "text":
        return _text_proposals(x, rows)
    known = {choice.name: choice.values for choice in _pipeline_choices(spec)}
    remedies = [finding.remedies[0] for finding in reversed(findings) if finding.remedies]
    return {each.parameter: each.change for each in remedies if each.change in known.get(each.parameter, ())}


def _text_proposals(x: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> dict[str, str]:
    if len(rows) > PROPOSAL_TEXTS:
        rows = np.random.default_rng(0).choice(rows, PROPOSAL_TEXTS, replace=False)
    texts = NormalizeText().transform(x[rows])
    num_characters, num_words = sum(map(len, texts)), sum(len(text.split()) for text in texts)
    tokens = "character" if num_characters > CHARACTERS_PER_WORD * max(1, num_words) else "word"
    pieces = [pieces_of(text, tokens) for text in texts]
    counts = Counter(itertools.chain.from_iterable(pieces))
    needed = {
        "vocabulary": sum(count >= MIN_COUNT for count in counts.values()),
        "max_length": float(np.quantile([len(each) for each in pieces], COVERED_FRAC)) if pieces else 0.0,
    }
    proposed = {"tokens": tokens}
    for choice in _TEXT:
        if choice.name in needed:
            enough = (value for value in choice.values if int(value) >= needed[choice.name])
            proposed[choice.name] = next(enough, choice.values[-1])
    return proposed


def _pipeline_choices(spec: DataSpec) -> tuple[Choice, ...]:
    """All choices that shape the pipeline of such data."""
    if spec.kind == "image":
        return (_IMAGE_IMPUTER, _IMAGE_SCALER)
    if spec.kind == "text":
        return _TEXT
    if spec.kind == "audio":
        return _sound_choices(spec)
    return (_IMPUTER, _OUTLIERS, _SKEW, _SIGNAL_SCALER if _is_signal(spec) else _SERIES_SCALER)


def _sound_choices(spec: DataSpec) -> tuple[Choice, ...]:
    """The choices of sound; their defaults follow from its rate and length."""
    is_long = num_frames(spec.input_shape[0], sample_rate_hz(spec), hop_ms=10.0) > MAX_FINE_FRAMES
    defaults = {"hop_ms": "20" if is_long else "10", "mels": "64" if sample_rate_hz(spec) > 8000 else "32"}
    return tuple(replace(choice, default=defaults.get(choice.name, choice.default)) for choice in _SOUND)


def _is_signal(spec: DataSpec) -> bool:
    """Whether the steps are values of one thing after the other, not columns of a table that differ in kind.

    Columns are taken for steps if their names are numbered through, such as t0, t1, ...
    """
    if len(spec.input_shape) > 1 or not spec.feature_names:
        return True
    stems = {name.rstrip("0123456789") for name in spec.feature_names}
    numbers = [name[len(name.rstrip("0123456789")) :] for name in spec.feature_names]
    if len(stems) > 1 or not all(numbers):
        return False
    return [int(number) - int(numbers[0]) for number in numbers] == list(range(len(numbers)))


def completed(spec: DataSpec, params: Mapping[str, str]) -> dict[str, str]:
    """The choices that shape the pipeline, complete: given ones checked, others at their default.

    Args:
        spec: How the data was read.
        params: Chosen values by name; names that do not concern the pipeline are ignored.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    known = {choice.name: choice for choice in _pipeline_choices(spec)}
    problems = [
        f"{name}={params[name]!r} is not one of {', '.join(choice.values)}.{did_you_mean(params[name], choice.values)}"
        for name, choice in known.items()
        if params.get(name, choice.default) not in choice.values
    ]
    if problems:
        raise ConfigError("Preprocessing: " + " ".join(problems))
    return {name: params.get(name, choice.default) for name, choice in known.items()}


def sample_rate_hz(spec: DataSpec) -> int:
    """The sample rate of sound.

    Raises:
        ConfigError: It is not known.
    """
    if spec.sample_rate_hz is None:
        raise ConfigError("Sound needs a sample rate, and `sample_rate_hz` of these data is not set. Read them again.")
    return spec.sample_rate_hz
