from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from tuner.training.metrics import MacroF1, MeanAveragePrecision

GENERATOR = np.random.default_rng(0)
TRUTH = (GENERATOR.random((500, 5)) < (0.5, 0.3, 0.1, 0.02, 0.0)).astype(np.float32)
LOGITS = (GENERATOR.normal(-2, 3, TRUTH.shape) + 3 * TRUTH).astype(np.float32)
PROBABILITIES = 1 / (1 + np.exp(-LOGITS))


def fed(metric, answers):
    for start in range(0, len(TRUTH), 128):
        metric.update_state(TRUTH[start : start + 128], keras.ops.convert_to_tensor(answers[start : start + 128]))
    return float(metric.result())


@pytest.mark.parametrize(("answers", "threshold"), [(PROBABILITIES, 0.5), (LOGITS, 0.0)])
def test_average_precision_is_that_of_scikit_learn_over_labels_that_occur(answers, threshold):
    exact = average_precision_score(TRUTH[:, :4], LOGITS[:, :4])
    assert fed(MeanAveragePrecision(5, threshold=threshold), answers) == pytest.approx(exact, abs=0.003)


def test_average_precision_of_known_answers():
    metric = MeanAveragePrecision(2)
    metric.update_state(np.array([[1, 0], [0, 1], [0, 1], [0, 0]]), np.array([[0.9, 0.5], [0.2, 0.5]] * 2, np.float32))
    # The first label is ranked with another one, the second label like all others.
    assert float(metric.result()) == pytest.approx((0.5 + 0.5) / 2)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_a_constant_answer_has_the_share_of_the_labels():
    found = fed(MeanAveragePrecision(5), np.full(TRUTH.shape, 1e-9, np.float32))
    assert found == pytest.approx(TRUTH[:, :4].mean(), rel=1e-5)


@pytest.mark.parametrize(("answers", "threshold"), [(PROBABILITIES, 0.5), (LOGITS, 0.0)])
def test_macro_f1_is_that_of_scikit_learn_over_labels_that_occur(answers, threshold):
    exact = f1_score(TRUTH[:, :4], LOGITS[:, :4] > 0, average="macro", zero_division=0.0)
    assert fed(MacroF1(5, threshold=threshold), answers) == pytest.approx(exact, abs=1e-5)


def test_answers_that_are_no_numbers_are_counted_like_any():
    found = fed(MeanAveragePrecision(5), np.full(TRUTH.shape, np.nan, np.float32))
    assert found == pytest.approx(TRUTH[:, :4].mean(), rel=1e-5)
