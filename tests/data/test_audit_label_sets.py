from __future__ import annotations

import numpy as np
import pytest

from tuner.data.audit import audit
from tuner.data.audit.classes import FEW_SAMPLES
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import DataSpec

COUNT = 400


def found(y, x=None):
    """Findings by code of data whose rows are all to train, but for the last two."""
    x = np.random.default_rng(0).normal(5, 2, (COUNT, 3)) if x is None else x
    spec = DataSpec("table", "series", "multilabel", (3,), tuple("abcd"[: y.shape[1]]))
    dataset = Dataset("t", spec, x, y.astype(np.int8), tuple(f"row {row}" for row in range(COUNT)))
    parts = Split(np.arange(COUNT - 2), np.array([COUNT - 2]), np.array([COUNT - 1]))
    return {finding.code: finding for finding in audit(dataset, parts)}


def clean():
    return np.random.default_rng(1).random((COUNT, 3)) < (0.5, 0.4, 0.3)


def test_clean_labels_give_no_findings():
    assert found(clean()) == {}


@pytest.mark.parametrize(("count", "is_rare"), [(FEW_SAMPLES, False), (FEW_SAMPLES - 1, True), (1, True)])
def test_rare_labels_have_two_sides(count, is_rare):
    y = clean()
    y[:, 1] = np.arange(COUNT) < count
    findings = found(y)
    assert set(findings) == ({"rare_labels"} if is_rare else set())
    if is_rare:
        assert (findings["rare_labels"].where, findings["rare_labels"].evidence["fewest"]) == ("b", count)


def test_labels_on_no_or_every_sample_are_named():
    y = clean()
    y[:, 0], y[:, 2] = 0, 1
    findings = found(y)
    assert set(findings) == {"constant_labels"}
    assert findings["constant_labels"].evidence == {"num_never": 1, "num_always": 1}
    assert findings["constant_labels"].examples == ("a", "c")


def test_one_label_each_is_told_to_be_classes():
    finding = found(np.eye(3)[np.arange(COUNT) % 3])["label_cardinality"]
    assert finding.evidence == {"labels_per_sample": 1, "bare_frac": 0}
    assert "these are classes" in finding.cause


@pytest.mark.parametrize(("num_bare", "is_told"), [(COUNT // 2, True), (COUNT // 2 - 1, False)])
def test_samples_without_labels_have_two_sides(num_bare, is_told):
    y = clean()
    y[:] |= ~y.any(axis=1, keepdims=True)
    y[:num_bare] = False
    findings = found(y)
    assert ("label_cardinality" in findings) == is_told
    if is_told:
        assert findings["label_cardinality"].examples[0] == "row 0"


def test_copies_with_other_labels_are_conflicts():
    x = np.random.default_rng(0).normal(5, 2, (COUNT, 3))
    x[10:20] = x[:10]
    y = clean()
    y[10:20] = y[:10]
    assert "conflicting_labels" not in found(y, x)
    y[10] = ~y[0]
    assert found(y, x)["conflicting_labels"].evidence["num_conflicting"] == 2
