"""Preprocessing as scikit-learn pipelines: which choices there are, and the pipeline for a set of choices.

A pipeline fills missing values, tames outliers and scales. It is fitted on the training part only, gives finite
float32 with a channel axis whatever it is fed, and is stored with skops, which runs no code when it is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import transformers
from tuner.data.transformers import (
    AddChannel,
    LogMel,
    NormalizeLoudness,
    NormalizeText,
    OutlierFlag,
    OverflowToMissing,
    PerChannel,
    RankToNormal,
    SignedLog,
    StandardizeEach,
    TokenSequences,
    TrimSilence,
    Winsorizer,
)
from tuner.data.transformers.sound import num_frames
from tuner.data.transformers.text import MIN_COUNT, pieces_of
from tuner.errors import BundleError, ConfigError, did_you_mean
from tuner.records import DataSpec, Finding
from tuner.store import atomic_open

__all__ = [
    "Choice",
    "build",
    "build_target",
    "choices",
    "class_weights",
    "load",
    "output_shape",
    "oversampled_rows",
    "pipeline_params",
    "proposals",
    "refine",
    "save",
    "vocabulary_size",
]

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

# What a stored pipeline may hold beside scikit-learn's own estimators, NumPy arrays and plain values.
TRUSTED_TYPES = (
    "numpy.dtype",
    *sorted(
        f"{kind.__module__}.{kind.__name__}"
        for kind in map(vars(transformers).get, transformers.__all__)
        if isinstance(kind, type)
    ),
)


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


def choices(
    spec: DataSpec, *, has_missing: bool, imbalance: float, proposed: Mapping[str, str] | None = None
) -> tuple[Choice, ...]:
    """The preprocessing hyperparameters that make sense for these data.

    Args:
        spec: How the data was read.
        has_missing: Whether any value is missing (NaN or infinite).
        imbalance: Largest class over smallest, at least 1; ignored for regression.
        proposed: Other defaults by name, as `proposals` found them; those that fit no choice are ignored.
    """
    found = list(_pipeline_choices(spec))
    if not has_missing or spec.kind in ("text", "audio"):
        found = [choice for choice in found if choice.name != "imputer"]
    if spec.task == "classification" and imbalance > BALANCE_OFFERED_RATIO:
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
        findings: Of the audit, worst first.
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
    is_long = num_frames(spec.input_shape[0], _rate(spec), hop_ms=10.0) > MAX_FINE_FRAMES
    defaults = {"hop_ms": "20" if is_long else "10", "mels": "64" if _rate(spec) > 8000 else "32"}
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


def pipeline_params(spec: DataSpec, params: Mapping[str, str]) -> dict[str, str]:
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


def output_shape(spec: DataSpec, params: Mapping[str, str]) -> tuple[int, ...]:
    """The shape of one prepared sample, from how the data was read and the choices alone.

    Args:
        spec: How the data was read.
        params: Chosen values by name; missing ones get their default.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    chosen = pipeline_params(spec, params)
    if spec.kind == "image":
        return spec.input_shape
    if spec.kind == "text":
        return (int(chosen["max_length"]),)
    if spec.kind == "audio":
        if chosen["front_end"] == "wave":
            return (*spec.input_shape, 1)
        hop_ms = float(chosen["hop_ms"])
        return (num_frames(spec.input_shape[0], _rate(spec), hop_ms=hop_ms), int(chosen["mels"]), 1)
    steps, channels = spec.input_shape if len(spec.input_shape) > 1 else (*spec.input_shape, 1)
    return (steps, channels * (1 + len(_flags(chosen))) + spec.is_padded)


def vocabulary_size(spec: DataSpec, params: Mapping[str, str]) -> int:
    """All numbers of a prepared text are below this; 0 for other data.

    Args:
        spec: How the data was read.
        params: Chosen values by name; missing ones get their default.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    return int(pipeline_params(spec, params)["vocabulary"]) if spec.kind == "text" else 0


def build(spec: DataSpec, params: Mapping[str, str]) -> Any:
    """Return the unfitted `sklearn.pipeline.Pipeline` for a set of choices.

    Its output has the shape that `output_shape` says: finite float32 with a channel axis, or int32 for text.

    Args:
        spec: How the data was read.
        params: Chosen values by name; missing ones get their default.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    from sklearn.pipeline import Pipeline

    chosen = pipeline_params(spec, params)
    if spec.kind == "text":
        return Pipeline(_text_steps(chosen))
    if spec.kind == "audio":
        return Pipeline(_sound_steps(spec, chosen))
    each = [("each", StandardizeEach())] if chosen["scaler"] == "each" else []
    columns = _flagged_columns(chosen)
    if len(spec.input_shape) == 1:
        steps = columns.steps if isinstance(columns, Pipeline) else [("columns", columns)]
        return Pipeline([*each, *steps, ("channel", AddChannel(num_channels=1 + len(_flags(chosen))))])
    return Pipeline([*each, ("per_channel", PerChannel(columns, padding="flag" if spec.is_padded else None))])


def _flags(chosen: Mapping[str, str]) -> tuple[str, ...]:
    """The choices that mark something in channels of their own."""
    return tuple(name for name in ("imputer", "outliers") if chosen.get(name) == "flag")


def _flagged_columns(chosen: Mapping[str, str]) -> Any:
    """The pipeline of the columns, and beside it their flags."""
    from sklearn.impute import MissingIndicator
    from sklearn.pipeline import FeatureUnion, Pipeline

    found: list[tuple[str, Any]] = [("values", Pipeline(_column_steps(chosen)))]
    if "imputer" in _flags(chosen):
        found.append(("missing", Pipeline([*_clean_steps(chosen)[:1], ("flag", MissingIndicator(features="all"))])))
    if "outliers" in _flags(chosen):
        found.append(("outlying", Pipeline([*_clean_steps(chosen), ("flag", OutlierFlag())])))
    return FeatureUnion(found) if len(found) > 1 else found[0][1]


def _clean_steps(chosen: Mapping[str, str]) -> list[tuple[str, Any]]:
    from sklearn.impute import SimpleImputer

    # An imputer is always there: what was complete in training need not be so in prediction.
    strategy = "mean" if chosen["imputer"] == "mean" else "median"
    return [
        ("overflow", OverflowToMissing()),
        ("imputer", SimpleImputer(strategy=strategy, keep_empty_features=True)),
    ]


def _column_steps(chosen: Mapping[str, str]) -> list[tuple[str, Any]]:
    from sklearn.preprocessing import MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler

    steps = _clean_steps(chosen)
    outliers, skew, scaler = chosen.get("outliers", "none"), chosen.get("skew", "none"), chosen["scaler"]
    if outliers in ("clip", "flag"):
        steps.append(("outliers", Winsorizer()))
    if outliers == "winsorise":
        steps.append(("outliers", Winsorizer(lower_quantile=0.01, upper_quantile=0.99, reach=0.0)))
    if skew == "yeo-johnson":
        # Powers of values far outside the training range overflow, and their fit needs columns of moderate size.
        steps.append(("range", Winsorizer(lower_quantile=0.0, upper_quantile=1.0, reach=0.0)))
        steps.append(("size", StandardScaler()))
        steps.append(("skew", PowerTransformer(standardize=False)))
    if skew == "quantile":
        steps.append(("skew", RankToNormal()))
    if skew == "log":
        steps.append(("skew", SignedLog()))
    if scaler == "robust":
        # A column whose quartiles are equal has no interquartile range to be scaled by, and keeps this size.
        steps.append(("spread", StandardScaler()))
    scalers = {"standard": StandardScaler, "robust": RobustScaler, "minmax": MinMaxScaler}
    # After `each` every series has the same size already; a transformed column has not.
    if scaler in scalers or skew != "none":
        steps.append(("scaler", scalers.get(scaler, StandardScaler)()))
    return steps


def _text_steps(chosen: Mapping[str, str]) -> list[tuple[str, Any]]:
    sequences = TokenSequences(
        tokens=chosen["tokens"], vocabulary_size=int(chosen["vocabulary"]), max_length=int(chosen["max_length"])
    )
    return [("normalize", NormalizeText()), ("tokens", sequences)]


def _sound_steps(spec: DataSpec, chosen: Mapping[str, str]) -> list[tuple[str, Any]]:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps: list[tuple[str, Any]] = []
    if chosen["trim"] == "silence":
        steps.append(("trim", TrimSilence(sample_rate_hz=_rate(spec))))
    if chosen["loudness"] == "equal":
        steps.append(("loudness", NormalizeLoudness()))
    scaled = Pipeline([*_clean_steps({"imputer": "mean"}), ("scaler", StandardScaler())])
    per_band = ("scaled", PerChannel(scaled, padding="zero"))
    if chosen["front_end"] == "wave":
        return [*steps, ("channel", AddChannel(keeps_missing=True)), per_band]
    spectrogram = LogMel(sample_rate_hz=_rate(spec), num_mels=int(chosen["mels"]), hop_ms=float(chosen["hop_ms"]))
    return [*steps, ("log_mel", spectrogram), per_band, ("channel", AddChannel())]


def _rate(spec: DataSpec) -> int:
    if spec.sample_rate_hz is None:
        raise ConfigError("Sound needs a sample rate, and `sample_rate_hz` of these data is not set. Read them again.")
    return spec.sample_rate_hz


def refine(fitted: Any, x: npt.NDArray[Any]) -> None:
    """Let a pipeline that was fitted on some rows learn from more, as far as it can.

    The scaler at its end learns from them if it is one that learns in pieces (mean and deviation, range); fills,
    limits, quantiles and vocabularies stay as they are.

    Args:
        fitted: The pipeline, or a part of it.
        x: Raw samples.
    """
    from sklearn.pipeline import FeatureUnion

    steps = [step for _, step in fitted.steps]
    if isinstance(steps[-1], AddChannel):
        del steps[-1]
    for step in steps[:-1]:
        x = step.transform(x)
    last = steps[-1]
    if isinstance(last, PerChannel):
        x, last = last.rows(x), last.transformer_
    if isinstance(last, FeatureUnion):
        last = last.transformer_list[0][1]
    if hasattr(last, "steps"):
        refine(last, x)
    elif hasattr(last, "partial_fit"):
        last.partial_fit(x)


def build_target(spec: DataSpec) -> Any | None:
    """Return the unfitted scaler of a regression target, for arrays (n, 1); None for classification."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler() if spec.task == "regression" else None


def class_weights(y: npt.NDArray[Any]) -> dict[int, float]:
    """Weight of each class code: rows / (classes x rows of the class), scikit-learn's "balanced".

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]))
        {0: 0.6666666666666666, 1: 2.0}
    """
    codes, counts = np.unique(y, return_counts=True)
    weights = len(y) / (len(codes) * counts)
    return dict(zip(codes.tolist(), weights.tolist(), strict=True))


def oversampled_rows(y: npt.NDArray[Any], *, seed: int) -> npt.NDArray[np.int64]:
    """Positions of rows such that every class has as many as the largest: all rows once, then rows drawn again.

    For the training part only, as imbalanced-learn's `RandomOverSampler`.

    Args:
        y: Class codes.
        seed: Decides which rows are repeated.

    Example:
        >>> oversampled_rows(np.array([0, 0, 0, 1]), seed=0).tolist()
        [0, 1, 2, 3, 3, 3]
    """
    generator = np.random.default_rng(seed)
    codes, counts = np.unique(y, return_counts=True)
    drawn = [
        generator.choice(np.flatnonzero(y == code), counts.max() - count)
        for code, count in zip(codes, counts, strict=True)
    ]
    return np.concatenate([np.arange(len(y)), *drawn])


def save(pipeline: Any, path: Path) -> None:
    """Write a fitted pipeline, or target scaler, with skops; atomically."""
    import skops.io

    with atomic_open(path, "wb") as stream:
        stream.write(skops.io.dumps(pipeline))


def load(path: Path) -> Any:
    """Read what `save` wrote; nothing but scikit-learn's estimators and `TRUSTED_TYPES` is ever created.

    Raises:
        BundleError: The file is missing, damaged or holds another type.
    """
    import skops.io
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read: {error.strerror}. Export the run again.") from error
    try:
        strange = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
        loaded = None if strange else skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except Exception as error:
        # A damaged archive can fail in any way that zip, JSON or a constructor can; none of them is our bug.
        raise BundleError(
            f"{str(path)!r} is not a stored pipeline, or is damaged ({type(error).__name__}: {error}). "
            "Export the run again."
        ) from error
    if not strange and not isinstance(loaded, Pipeline | StandardScaler):
        strange = [type(loaded).__name__]
    if strange:
        raise BundleError(
            f"{str(path)!r} holds {', '.join(strange)}, which no pipeline of this program has. It was made elsewhere "
            "or changed: do not use it, and export the run again."
        )
    return loaded
