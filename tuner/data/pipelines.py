"""Preprocessing as scikit-learn pipelines: which choices there are, and the pipeline for a set of choices.

A pipeline fills missing values, tames outliers and scales. It is fitted on the training part only, gives finite
float32 with a channel axis whatever it is fed, and is stored with skops, which runs no code when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.transformers import AddChannel, OverflowToMissing, PerChannel, Winsorizer
from tuner.errors import BundleError, ConfigError, did_you_mean
from tuner.records import DataSpec
from tuner.store import atomic_open

__all__ = ["Choice", "build", "build_target", "choices", "class_weights", "load", "pipeline_params", "save"]

# Class weights are offered when the largest class is this many times the smallest, and are the default from the
# second figure on. Source: convention; 3:1 is also where balanced accuracy becomes the metric.
BALANCE_OFFERED_RATIO = 1.5
BALANCE_DEFAULT_RATIO = 3.0

# The choices that shape the pipeline; `balance` does not.
PIPELINE_CHOICES = ("imputer", "outliers", "scaler")

# What a stored pipeline may hold beside scikit-learn's own estimators, NumPy arrays and plain values.
TRUSTED_TYPES = (
    "numpy.dtype",
    "tuner.data.transformers.AddChannel",
    "tuner.data.transformers.OverflowToMissing",
    "tuner.data.transformers.PerChannel",
    "tuner.data.transformers.Winsorizer",
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


_IMPUTER = Choice("imputer", ("median", "mean"), "median", "What fills a missing value: its column's median or mean.")
_OUTLIERS = Choice(
    "outliers", ("none", "clip"), "clip", "Clip each column at three interquartile ranges beyond its quartiles, or not."
)
_IMAGE_SCALER = Choice(
    "scaler", ("standard", "minmax"), "standard", "Each channel to mean 0 and deviation 1, or to the range 0 to 1."
)
_SERIES_SCALER = Choice(
    "scaler",
    ("standard", "robust", "minmax", "yeo-johnson"),
    "standard",
    "Each column by mean and deviation, by median and quartiles, to the range 0 to 1, or made symmetric first.",
)


def choices(spec: DataSpec, *, has_missing: bool, imbalance: float) -> tuple[Choice, ...]:
    """The preprocessing hyperparameters that make sense for these data.

    Args:
        spec: How the data was read.
        has_missing: Whether any value is missing (NaN or infinite).
        imbalance: Largest class over smallest, at least 1; ignored for regression.
    """
    found = [_IMPUTER] if has_missing else []
    found += [_IMAGE_SCALER] if spec.kind == "image" else [_OUTLIERS, _SERIES_SCALER]
    if spec.task == "classification" and imbalance > BALANCE_OFFERED_RATIO:
        default = "class_weights" if imbalance >= BALANCE_DEFAULT_RATIO else "none"
        found.append(
            Choice("balance", ("none", "class_weights"), default, "Weigh classes by the inverse of their size, or not.")
        )
    return tuple(found)


def pipeline_params(spec: DataSpec, params: Mapping[str, str]) -> dict[str, str]:
    """The choices that shape the pipeline, complete: given ones checked, others at their default.

    Args:
        spec: How the data was read.
        params: Chosen values by name; names that do not concern the pipeline are ignored.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    known = {choice.name: choice for choice in choices(spec, has_missing=True, imbalance=1.0)}
    problems = [
        f"{name}={params[name]!r} is not one of {', '.join(choice.values)}.{did_you_mean(params[name], choice.values)}"
        for name, choice in known.items()
        if params.get(name, choice.default) not in choice.values
    ]
    if problems:
        raise ConfigError("Preprocessing: " + " ".join(problems))
    return {name: params.get(name, choice.default) for name, choice in known.items()}


def build(spec: DataSpec, params: Mapping[str, str]) -> Any:
    """Return the unfitted `sklearn.pipeline.Pipeline` for a set of choices.

    Its output is float32, finite, and has a channel axis: (n, height, width, channels) or (n, steps, channels).

    Args:
        spec: How the data was read.
        params: Chosen values by name; missing ones get their default.

    Raises:
        ConfigError: A value is not one of its choice.
    """
    from sklearn.pipeline import Pipeline

    steps = _column_steps(pipeline_params(spec, params))
    if len(spec.input_shape) == 1:
        return Pipeline([*steps, ("channel", AddChannel())])
    return Pipeline([("per_channel", PerChannel(Pipeline(steps)))])


def _column_steps(chosen: Mapping[str, str]) -> list[tuple[str, Any]]:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler

    # An imputer is always there: what was complete in training need not be so in prediction.
    steps: list[tuple[str, Any]] = [
        ("overflow", OverflowToMissing()),
        ("imputer", SimpleImputer(strategy=chosen["imputer"], keep_empty_features=True)),
    ]
    if chosen.get("outliers") == "clip":
        steps.append(("outliers", Winsorizer()))
    if chosen["scaler"] == "yeo-johnson":
        # Powers of values far outside the training range overflow.
        steps.append(("range", Winsorizer(lower_quantile=0.0, upper_quantile=1.0, reach=0.0)))
    if chosen["scaler"] in ("robust", "yeo-johnson"):
        # A column whose quartiles are equal has no interquartile range to be scaled by, and keeps this size; the fit
        # of the powers needs columns of moderate size.
        steps.append(("size", StandardScaler()))
    scalers = {
        "standard": StandardScaler,
        "robust": RobustScaler,
        "minmax": MinMaxScaler,
        "yeo-johnson": PowerTransformer,
    }
    steps.append(("scaler", scalers[chosen["scaler"]]()))
    return steps


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
