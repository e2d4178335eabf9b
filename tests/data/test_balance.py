from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tuner.data import balance


def test_rows_of_smaller_classes_are_repeated():
    y = np.array([0, 1, 0, 0, 2, 0, 1])
    rows = balance.oversampled_rows(y, seed=3)
    assert rows[:7].tolist() == list(range(7))
    assert np.bincount(y[rows]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(rows, balance.oversampled_rows(y, seed=3))


def test_class_weights_are_scikit_learns():
    y = np.array([0, 0, 0, 2, 2, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert balance.class_weights(y) == pytest.approx(dict(enumerate(expected)))
