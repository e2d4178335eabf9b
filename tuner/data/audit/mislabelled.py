"""Labels that a cheap model, fitted on the other samples, finds wrong: confident learning, by cleanlab."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Columns, Sample, graded
from tuner.grammar import verb
from tuner.records import Finding, Remedy

__all__ = ["Judged", "judge", "label_errors", "probabilities"]

# Folds of the cross-validation that gives probabilities of samples that a model was not fitted on.
NUM_FOLDS = 3

# Fewest samples of a class, and in all, that such a model says anything about. Source: convention.
MIN_CLASS = 10
MIN_ROWS = 100

# Most classes: the model's time grows with them. Source: convention; Banking77 has 77.
MAX_CLASSES = 100

# A label is doubted if confident learning does and the model's own choice is more probable than it by this much, and
# reported from this share of the samples on. Source: measured (docs/audit.md); at most 1.2 % of the labels of eight
# data sets are doubted as they are.
DOUBT_MARGIN = 0.8
DOUBTED_FRAC = 0.02

# Inverse strength of the model's L2 penalty, its steps, and the share of the overall deviation that is added to that of
# each component before it is divided by it, so that components of noise are not blown up. Source: measured, as above.
INVERSE_PENALTY = 0.1
MAX_STEPS = 30
NOISE_FLOOR = 0.1

# Least balanced accuracy above chance, as a share of what is possible, of a model that may doubt a label.
# Source: measured, docs/audit.md.
MIN_SKILL = 0.5


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model of the other samples says of labels.

    Attributes:
        rows: Of the data, that were judged.
        doubted: Which labels look wrong.
        margin: Probability of the model's own choice above that of the label.
        likely: Code of that choice.
    """

    rows: npt.NDArray[np.int64]
    doubted: npt.NDArray[np.bool_]
    margin: Columns
    likely: npt.NDArray[np.int64]


def label_errors(sample: Sample) -> Finding | None:
    """Samples whose label contradicts what the other samples say, with much confidence."""
    judged = judge(sample)
    if judged is None or (share := float(judged.doubted.mean())) < DOUBTED_FRAC:
        return None
    worst = np.flatnonzero(judged.doubted)[np.argsort(-judged.margin[judged.doubted], kind="stable")]
    dataset, rows = sample.dataset, judged.rows[worst]
    names = dataset.spec.class_names
    label, other = names[int(dataset.y[rows[0]])], names[int(judged.likely[worst[0]])]
    return Finding(
        code="label_errors",
        where="",
        severity=graded(5 * share, low=0.4, high=0.8),
        confidence=0.7,
        evidence={
            "doubted_frac": share,
            "num_doubted": float(len(worst)),
            "num_rows_examined": float(len(judged.rows)),
        },
        cause=f"{len(worst):,} of {len(judged.rows):,} labels examined ({share:.1%}) {verb(len(worst), 'look')} wrong "
        f"to a model of the other samples, such as {dataset.row_names[rows[0]]!r}, labelled {label!r}, that looks like "
        f"{other!r}.",
        examples=sample.examples(rows),
        remedies=(
            Remedy("data", "look at these samples and correct their labels", "A network learns wrong labels by heart."),
            Remedy("label_smoothing", "0.1", "Where it is a hyperparameter: wrong labels then pull less."),
        ),
    )


def judge(sample: Sample) -> Judged | None:
    """Doubt labels by the other samples; None where there are too few, or a cheap model tells too little of them."""
    rows, codes = _known(sample)
    if not len(rows):
        return None
    found = probabilities(sample.vectors[rows], codes)
    if _skill(found, codes) < MIN_SKILL:
        return None
    from cleanlab.filter import find_label_issues

    margin = found.max(axis=1) - found[np.arange(len(codes)), codes]
    issues = find_label_issues(codes, found, filter_by="both", n_jobs=1)
    kept = sample.model_rows[rows]
    likely = np.unique(sample.dataset.y[kept])[found.argmax(axis=1)]
    return Judged(kept, np.asarray(issues, bool) & (margin >= DOUBT_MARGIN), margin, likely)


def _known(sample: Sample) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions among `model_rows` of the classes that are large enough, and their codes from 0 on."""
    y = sample.dataset.y[sample.model_rows]
    large = np.flatnonzero(np.bincount(y) >= MIN_CLASS)
    rows = np.flatnonzero(np.isin(y, large))
    if not 2 <= len(large) <= MAX_CLASSES or len(rows) < MIN_ROWS or not sample.vectors.shape[1]:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return rows, np.searchsorted(large, y[rows])


def probabilities(vectors: Columns, codes: npt.NDArray[np.int64]) -> Columns:
    """Probability of each class for each sample, by a logistic regression of the others; (samples, classes)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    scaled = vectors / (vectors.std(axis=0) + NOISE_FLOOR * vectors.std() + 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_val_predict(
            LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_STEPS, tol=1e-3),
            scaled,
            codes,
            cv=folds,
            method="predict_proba",
        )
    return np.asarray(found, np.float64)


def _skill(found: Columns, codes: npt.NDArray[np.int64]) -> float:
    """Balanced accuracy, from 0 for chance to 1 for always right."""
    is_right = (found.argmax(axis=1) == codes).astype(np.float64)
    counts = np.bincount(codes)
    balanced = float((np.bincount(codes, is_right) / counts).mean())
    return (balanced - 1 / len(counts)) / (1 - 1 / len(counts))
