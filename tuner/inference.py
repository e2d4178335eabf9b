"""Using a trained model: its outputs as probabilities or numbers, metrics, prediction of a file with a bundle."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.bundle import check_bundle, read_config
from tuner.data import cache, pipelines, sources, watching
from tuner.data.cache import Part
from tuner.errors import BundleError
from tuner.records import DataSpec
from tuner.store import atomic_open
from tuner.training.losses import BINARY_LOSSES, ends_with_logits, is_classifier, loss_name

__all__ = ["evaluate", "load_model", "outputs", "predict_file"]

# Rows that are predicted at a time.
BATCH_ROWS = 512
# Most rows that are prepared and predicted between two words on how far it is. Source: convention; whole batches.
PIECE_ROWS = 64 * BATCH_ROWS
# Bytes of samples that Keras is given at a time, of which TensorFlow makes copies. Source: convention.
PIECE_BYTES = 2**28
# Smallest probability in a log loss: one wrong, certain answer must not decide it alone. Source: Keras's epsilon.
MIN_PROBABILITY = 1e-7
# A label is predicted above this probability. Source: convention; what the cross-entropy is trained for.
LABEL_THRESHOLD = 0.5
# Between the labels that are predicted for one sample.
LABEL_JOINT = "; "


def load_model(file: Path) -> Any:
    """Read a model; Keras's safe mode stays on, so that no code in the file runs.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return keras.models.load_model(file)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(
            f"{str(file)!r} cannot be loaded by Keras {keras.__version__}: {error}. "
            "Install the versions in the bundle's requirements.txt, or export it again."
        ) from error


def outputs(model: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probability of each class, or numbers, whatever the model ends with.

    Args:
        model: Compiled; its loss says whether it ends with logits.
        x: Prepared samples; shape (rows, ...). They may be memory-mapped, and larger than the memory.

    Returns:
        Shape (rows, classes or labels), or (rows, 1) for regression.
    """
    # In whole executions, so that they are the same as in one call: a step alone can round otherwise than several.
    rows = BATCH_ROWS * model.steps_per_execution
    step = rows * max(1, PIECE_BYTES // (rows * max(1, x[:1].nbytes)))
    pieces = [
        np.asarray(model.predict(x[start : start + step], batch_size=BATCH_ROWS, verbose=0), dtype=np.float64)
        for start in range(0, len(x), step)
    ]
    raw = np.concatenate(pieces).reshape(len(x), -1)
    if not is_classifier(model):
        return raw
    if ends_with_logits(model):
        is_binary = raw.shape[1] == 1 or loss_name(model) in BINARY_LOSSES
        raw = special.expit(raw) if is_binary else special.softmax(raw, axis=1)
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else raw


def evaluate(model: Any, pieces: Iterable[Part], *, target_scaler: Any | None) -> dict[str, float]:
    """Metrics of a model on one part of the data, computed from its predictions.

    Args:
        model: Trained.
        pieces: Prepared samples and labels of the part, one piece after the other; at least one.
        target_scaler: Undoes the scaling of a regression target, so that errors are in the user's unit; None means
            classes or labels.
    """
    judged = [(piece.y, outputs(model, piece.x)) for piece in pieces]
    y, predicted = (np.concatenate(column) for column in zip(*judged, strict=True))
    if target_scaler is not None:
        return _regression_metrics(*(target_scaler.inverse_transform(v.reshape(-1, 1)) for v in (y, predicted)))
    if y.ndim == 2:
        return _label_metrics(y, predicted)
    answers = predicted.argmax(axis=1)
    recalls = [float(np.mean(answers[y == code] == code)) for code in np.unique(y)]
    given_to_truth = predicted[np.arange(len(y)), y]
    return {
        "accuracy": float(np.mean(answers == y)),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.mean(np.log(np.maximum(given_to_truth, MIN_PROBABILITY)))),
    }


def _label_metrics(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> dict[str, float]:
    """Of several labels; means over those that occur in the part."""
    from sklearn.metrics import average_precision_score, f1_score

    occurring = truth.any(axis=0)
    bounded = np.clip(predicted, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    cross_entropy = -np.mean(truth * np.log(bounded) + (1 - truth) * np.log1p(-bounded))
    figures = {"log_loss": float(cross_entropy)}
    if occurring.any():
        truth, answers = truth[:, occurring], predicted[:, occurring] > LABEL_THRESHOLD
        figures = {
            "mean_average_precision": float(average_precision_score(truth, predicted[:, occurring])),
            "macro_f1": float(f1_score(truth, answers, average="macro", zero_division=0.0)),
            "micro_f1": float(f1_score(truth, answers, average="micro", zero_division=0.0)),
        } | figures
    return figures


def _regression_metrics(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> dict[str, float]:
    residual = truth - predicted
    spread = max(float(np.sum((truth - truth.mean()) ** 2)), math.ulp(1.0))
    return {
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "mae": float(np.mean(np.abs(residual))),
        "r2": float(1 - np.sum(residual**2) / spread),
    }


def predict_file(bundle_root: Path, data: str, output: Path, *, notes: list[str] | None = None) -> int:
    """Predict a file or folder with a bundle.

    Args:
        bundle_root: The bundle.
        data: Samples in the form of the training data; labels may be there and are ignored.
        output: CSV: `row`, `prediction`, and for classes and labels one probability column each. Of several labels
            those above 0.5 are predicted, with "; " between them.
        notes: What is decided about the data is added.

    Returns:
        Number of rows.

    Raises:
        BundleError: The bundle is incomplete or was changed.
        DataError: The data does not fit the bundle.
    """
    import pandas as pd

    bundle = check_bundle(bundle_root)
    config = read_config(bundle.config_file)
    spec = config.data
    x, rows = sources.load_features(data, spec, notes)
    model, pipeline = load_model(bundle.model_file), pipelines.load(bundle.pipeline_file)
    choices = {name: str(value) for name, value in config.hyperparameters.items()}
    step = min(cache.rows_at_a_time(x, math.prod(pipelines.output_shape(spec, choices))), PIECE_ROWS)
    pieces = []
    for start in range(0, len(x), step):
        watching.tell("predicting", start, len(x), " rows")
        pieces.append(outputs(model, pipeline.transform(x[start : start + step])))
    watching.tell("predicting", len(x), len(x), " rows")
    predicted = np.concatenate(pieces)
    if spec.task == "regression":
        scaler = pipelines.load(bundle.target_scaler_file)
        columns = {"row": rows, "prediction": scaler.inverse_transform(predicted).ravel()}
    else:
        columns = {"row": rows, "prediction": _named(predicted, spec)}
        columns |= {f"p_{name}": predicted[:, code] for code, name in enumerate(spec.class_names)}
    with atomic_open(output) as stream:
        pd.DataFrame(columns).to_csv(stream, index=False)
    return len(rows)


def _named(predicted: npt.NDArray[Any], spec: DataSpec) -> list[str]:
    """The most probable class of each row, or all labels above `LABEL_THRESHOLD`."""
    if spec.task == "classification":
        return [spec.class_names[code] for code in predicted.argmax(axis=1)]
    return [
        LABEL_JOINT.join(name for name, value in zip(spec.class_names, row, strict=True) if value > LABEL_THRESHOLD)
        for row in predicted
    ]
