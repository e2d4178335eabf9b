"""Preprocessing as scikit-learn pipelines, made for a set of choices.

A pipeline fills missing values, tames outliers and scales. It is fitted on the training part only, gives finite
float32 with a channel axis whatever it is fed, and is stored with skops, which runs no code when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tuner.data import choices, transformers
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
from tuner.errors import BundleError
from tuner.records import DataSpec
from tuner.store import atomic_open

__all__ = [
    "build",
    "build_target",
    "load",
    "output_shape",
    "refine",
    "save",
    "vocabulary_size",
]

# What a stored pipeline may hold beside scikit-learn's own estimators, NumPy arrays and plain values.
TRUSTED_TYPES = (
    "numpy.dtype",
    *sorted(
        f"{kind.__module__}.{kind.__name__}"
        for kind in map(vars(transformers).get, transformers.__all__)
        if isinstance(kind, type)
    ),
)


def output_shape(spec: DataSpec, params: Mapping[str, str]) -> tuple[int, ...]:
    """The shape of one prepared sample, from how the data was read and the choices alone.

    Args:
        spec: How the data was read.
        params: Chosen values by name; missing ones get their default.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    chosen = choices.completed(spec, params)
    if spec.kind == "image":
        return spec.input_shape
    if spec.kind == "text":
        return (int(chosen["max_length"]),)
    if spec.kind == "audio":
        if chosen["front_end"] == "wave":
            return (*spec.input_shape, 1)
        hop_ms = float(chosen["hop_ms"])
        return (num_frames(spec.input_shape[0], choices.sample_rate_hz(spec), hop_ms=hop_ms), int(chosen["mels"]), 1)
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
    return int(choices.completed(spec, params)["vocabulary"]) if spec.kind == "text" else 0


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

    chosen = choices.completed(spec, params)
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
        steps.append(("trim", TrimSilence(sample_rate_hz=choices.sample_rate_hz(spec))))
    if chosen["loudness"] == "equal":
        steps.append(("loudness", NormalizeLoudness()))
    scaled = Pipeline([*_clean_steps({"imputer": "mean"}), ("scaler", StandardScaler())])
    per_band = ("scaled", PerChannel(scaled, padding="zero"))
    if chosen["front_end"] == "wave":
        return [*steps, ("channel", AddChannel(keeps_missing=True)), per_band]
    spectrogram = LogMel(
        sample_rate_hz=choices.sample_rate_hz(spec), num_mels=int(chosen["mels"]), hop_ms=float(chosen["hop_ms"])
    )
    return [*steps, ("log_mel", spectrogram), per_band, ("channel", AddChannel())]


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
    """Return the unfitted scaler of a regression target, for arrays (n, 1); None for classes and labels."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler() if spec.task == "regression" else None


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
