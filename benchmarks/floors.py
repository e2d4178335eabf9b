"""What plain scikit-learn models reach on the data and split of a run: the floor that its result is held against.

    python benchmarks/floors.py RUN ...

Each model is fitted on the training rows of the run, and on training and validation rows together (a plain model has
no use for a validation part), and judged on its test rows, beside what `export` measured there. Nothing is searched:
the settings are scikit-learn's own but for what stands in `floors`. Where the run is judged by balanced accuracy,
the models that can weigh classes do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from tuner.data import cache
from tuner.records import DataSpec
from tuner.store import RunFolder, read_json

# An image is shrunk to at most this side; a sound is cut into this many equal pieces of this many frequency bands.
IMAGE_SIDE_PX = 32
NUM_PIECES, NUM_BANDS = 16, 24
NUM_COMPONENTS, NUM_NEIGHBOURS = 60, 5

Array = npt.NDArray[Any]


def pixels(x: Array) -> Array:
    """Images (n, height, width, channels) shrunk by block means, one row each."""
    block = max(1, -(-max(x.shape[1:3]) // IMAGE_SIDE_PX))
    height, width = (size // block * block for size in x.shape[1:3])
    whole = np.asarray(x[:, :height, :width], np.float32)
    blocks = whole.reshape(len(x), height // block, block, width // block, block, -1)
    return blocks.mean(axis=(2, 4)).reshape(len(x), -1)


def band_energies(x: Array) -> Array:
    """Log power of recordings (n, samples), NaN behind their end, in equal pieces of time and bands of frequency."""
    found = np.zeros((len(x), NUM_PIECES, NUM_BANDS), np.float32)
    for row, wave in enumerate(x):
        present = wave[~np.isnan(wave)]
        for piece, samples in enumerate(np.array_split(present, NUM_PIECES)):
            power = np.abs(np.fft.rfft(samples, n=max(2 * NUM_BANDS, len(samples)))) ** 2
            found[row, piece] = [np.log(band.mean() + 1e-6) for band in np.array_split(power, NUM_BANDS)]
    return found.reshape(len(x), -1)


def summaries(x: Array) -> Array:
    """Mean, deviation, extremes, first, last and mean step of each channel of series (n, steps[, channels])."""
    found = []
    for series in x.astype(np.float64).reshape(*x.shape[:2], -1):
        present = series[~np.isnan(series).all(axis=1)]
        steps = np.abs(np.diff(present, axis=0)) if len(present) > 1 else np.zeros_like(present)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # A channel without any value stays missing.
            of = [np.nanmean, np.nanstd, np.nanmin, np.nanmax]
            found.append([*(each(present, axis=0) for each in of), present[0], present[-1], np.nanmean(steps, axis=0)])
    return np.asarray(found).reshape(len(x), -1)


def floors(spec: DataSpec, *, is_balanced: bool) -> dict[str, Any]:
    """Unfitted scikit-learn models for raw samples of such data, by name.

    Args:
        spec: How the data was read.
        is_balanced: Whether classes of unequal size are to count alike.
    """
    weight = "balanced" if is_balanced else None
    logistic = LogisticRegression(max_iter=1000, class_weight=weight)
    if spec.kind == "image":
        nearest = KNeighborsClassifier(NUM_NEIGHBOURS)
        return {
            f"{NUM_NEIGHBOURS}-NN on {NUM_COMPONENTS} principal components": make_pipeline(
                FunctionTransformer(pixels), PCA(NUM_COMPONENTS, random_state=0), nearest
            ),
            "logistic regression on pixels": make_pipeline(FunctionTransformer(pixels), StandardScaler(), logistic),
        }
    if spec.kind == "text":
        return {"TF-IDF and linear SVM": make_pipeline(TfidfVectorizer(), LinearSVC(class_weight=weight))}
    if spec.kind == "audio":
        energies = FunctionTransformer(band_energies)
        return {"logistic regression on log band energies": make_pipeline(energies, StandardScaler(), logistic)}
    return _series_floors(spec, logistic, weight=weight)


def _series_floors(spec: DataSpec, logistic: Any, *, weight: str | None) -> dict[str, Any]:
    is_table = len(spec.input_shape) == 1 and not spec.is_padded
    rows = FunctionTransformer(None if is_table else summaries)
    on = "" if is_table else " on summaries"
    complete = [SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()]
    if spec.task == "regression":
        return {
            f"ridge regression{on}": make_pipeline(rows, *complete, Ridge()),
            f"gradient boosting{on}": make_pipeline(rows, HistGradientBoostingRegressor(random_state=0)),
        }
    boosting = HistGradientBoostingClassifier(class_weight=weight, random_state=0)
    found = {
        f"logistic regression{on}": make_pipeline(rows, *complete, logistic),
        f"gradient boosting{on}": make_pipeline(rows, boosting),
    }
    return found | ({"1-NN": make_pipeline(*complete, KNeighborsClassifier(1))} if is_table else {})


def judged(truth: Array, answers: Array, *, task: str) -> dict[str, float]:
    """Metrics of answers, under the names that the table has."""
    if task == "regression":
        return {"r2": metrics.r2_score(truth, answers), "mse": metrics.mean_squared_error(truth, answers)}
    recalls = [float(np.mean(answers[truth == code] == code)) for code in np.unique(truth)]
    return {"accuracy": float(np.mean(answers == truth)), "balanced_accuracy": float(np.mean(recalls))}


def measured_floors(folder: RunFolder) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name of the model, what it was fitted on, and its metrics on the test rows of the run.

    Args:
        folder: A run whose data was read.
    """
    record = folder.load_dataset()
    x, y, split = cache.load_raw(folder.data_dir)
    fitted_on = {"training": split.train, "training + validation": np.append(split.train, split.validation)}
    for name, model in floors(record.spec, is_balanced=record.metric == "balanced_accuracy").items():
        for part, rows in fitted_on.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x[rows], y[rows])
            yield name, part, judged(y[split.test], model.predict(x[split.test]), task=record.spec.task)


def exported(folder: RunFolder) -> dict[str, dict[str, float]]:
    """What `export` measured on the test part, by trial and training; empty before the first export."""
    if not folder.test_file.is_file():
        return {}
    used = read_json(folder.test_file, dict[str, dict[str, float]])
    return {name: _with_mse(found) for name, found in used.items()}


def _with_mse(found: Mapping[str, float]) -> dict[str, float]:
    return dict(found) | ({"mse": found["rmse"] ** 2} if "rmse" in found else {})


def main() -> None:
    """Print a table for each run."""
    for argument in sys.argv[1:]:
        folder = RunFolder.open(Path(argument))
        record = folder.load_dataset()
        names = ("r2", "mse") if record.spec.task == "regression" else ("accuracy", "balanced_accuracy")
        table = Table(title=f"{argument}: {record.num_test:,} test rows, judged by {record.metric}")
        for heading in ("model", "fitted on", *(name.replace("_", " ") for name in names)):
            table.add_column(heading)
        for model, part, figures in measured_floors(folder):
            table.add_row(model, part, *(f"{figures[name]:.3f}" for name in names))
        for name, figures in exported(folder).items():
            table.add_row(f"tuner, trial/training {name}", "training", *(f"{figures[each]:.3f}" for each in names))
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
