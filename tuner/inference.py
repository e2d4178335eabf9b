"""Using a trained model: its outputs as probabilities or numbers, metrics, prediction of a file with a bundle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.bundle import check_bundle, read_config
from tuner.data import pipelines, sources
from tuner.data.cache import Part
from tuner.errors import BundleError
from tuner.store import atomic_open
from tuner.training.losses import ends_with_logits, is_classifier

__all__ = ["evaluate", "load_model", "outputs", "predict_file"]

# Rows that are predicted at a time.
BATCH_ROWS = 512
# Smallest probability in a log loss: one wrong, certain answer must not decide it alone. Source: Keras's epsilon.
MIN_PROBABILITY = 1e-7


def load_model(file: Path) -> Any:
    """Read a model; Keras's safe mode stays on, so that no code in the file runs.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return keras.models.load_model(file)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"{str(file)!r} cannot be loaded by Keras {keras.__version__}: {error}. "
            "Install the versions in the bundle's requirements.txt, or export it again."
        ) from error


def outputs(model: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probability of each class, or numbers, whatever the model ends with.

    Args:
        model: Compiled; its loss says whether it ends with logits.
        x: Prepared samples; shape (rows, ...).

    Returns:
        Shape (rows, classes), or (rows, 1) for regression.
    """
    raw = np.asarray(model.predict(x, batch_size=BATCH_ROWS, verbose=0), dtype=np.float64).reshape(len(x), -1)
    if not is_classifier(model):
        return raw
    if ends_with_logits(model):
        raw = special.expit(raw) if raw.shape[1] == 1 else special.softmax(raw, axis=1)
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else raw


def evaluate(model: Any, part: Part, *, target_scaler: Any | None) -> dict[str, float]:
    """Metrics of a model on one part, computed from its predictions.

    Args:
        model: Trained.
        part: Prepared samples and labels.
        target_scaler: Undoes the scaling of a regression target, so that errors are in the user's unit; None means
            classification.
    """
    predicted = outputs(model, part.x)
    if target_scaler is not None:
        return _regression_metrics(*(target_scaler.inverse_transform(v.reshape(-1, 1)) for v in (part.y, predicted)))
    answers = predicted.argmax(axis=1)
    recalls = [float(np.mean(answers[part.y == code] == code)) for code in np.unique(part.y)]
    given_to_truth = predicted[np.arange(len(part.y)), part.y]
    return {
        "accuracy": float(np.mean(answers == part.y)),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.mean(np.log(np.maximum(given_to_truth, MIN_PROBABILITY)))),
    }


def _regression_metrics(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> dict[str, float]:
    residual = truth - predicted
    spread = max(float(np.sum((truth - truth.mean()) ** 2)), math.ulp(1.0))
    return {
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "mae": float(np.mean(np.abs(residual))),
        "r2": float(1 - np.sum(residual**2) / spread),
    }


def predict_file(bundle_root: Path, data: str, output: Path) -> int:
    """Predict a file or folder with a bundle.

    Args:
        bundle_root: The bundle.
        data: Samples in the form of the training data; labels may be there and are ignored.
        output: CSV: `row`, `prediction`, and for classes one probability column each.

    Returns:
        Number of rows.

    Raises:
        BundleError: The bundle is incomplete or was changed.
        DataError: The data does not fit the bundle.
    """
    import pandas as pd

    bundle = check_bundle(bundle_root)
    spec = read_config(bundle.config_file).data
    x, rows = sources.load_features(data, spec)
    predicted = outputs(load_model(bundle.model_file), pipelines.load(bundle.pipeline_file).transform(x))
    if spec.task == "regression":
        scaler = pipelines.load(bundle.target_scaler_file)
        columns = {"row": rows, "prediction": scaler.inverse_transform(predicted).ravel()}
    else:
        columns = {"row": rows, "prediction": np.asarray(spec.class_names)[predicted.argmax(axis=1)]}
        columns |= {f"p_{name}": predicted[:, code] for code, name in enumerate(spec.class_names)}
    with atomic_open(output) as stream:
        pd.DataFrame(columns).to_csv(stream, index=False)
    return len(rows)
