from __future__ import annotations

import numpy as np
import pytest

from tuner.data.audit import SEVERE, audit
from tuner.data.audit import sample as sample_module
from tuner.data.dataset import Dataset
from tuner.data.sources import load
from tuner.data.split import Split, make_split
from tuner.records import DataSpec

NAMES = ("a", "b", "c", "d")


def table(x=None, y=None, *, count=400, split=None, task="classification"):
    generator = np.random.default_rng(0)
    x = generator.normal(5, 2, (count, len(NAMES))) if x is None else x
    y = np.arange(len(x)) % 2 if y is None else y
    class_names = tuple(map(str, range(int(y.max()) + 1))) if task == "classification" else ()
    spec = DataSpec("table", "series", task, x.shape[1:], class_names, "y", NAMES[: x.shape[1]])
    dataset = Dataset("t", spec, x, y, tuple(f"row {row}" for row in range(len(x))))
    return dataset, split or make_split(y, task=task, seed=0)


def images(x, y=None):
    y = np.arange(len(x)) % 2 if y is None else y
    dataset = Dataset(
        "i", DataSpec("npz", "image", "classification", x.shape[1:], ("0", "1")), x, y, tuple(map(str, y))
    )
    return dataset, make_split(y, task="classification", seed=0)


def clean():
    return np.random.default_rng(0).normal(5, 2, (400, 4))


def found(dataset, split):
    return {finding.code: finding for finding in audit(dataset, split)}


def test_clean_data_give_no_findings():
    assert audit(*table()) == ()
    assert audit(*table(y=np.linspace(0, 1, 400), task="regression")) == ()
    assert audit(*images(np.random.default_rng(0).integers(0, 256, (100, 5, 5, 1), dtype=np.uint8))) == ()


def test_worst_comes_first_and_severities_are_in_range():
    x = clean()
    x[:200, 0] = np.nan
    x[:, 1] = 3
    findings = audit(*table(x, np.repeat([0, 1], [380, 20])))
    severities = [finding.severity for finding in findings]
    assert len(findings) >= 3
    assert severities == sorted(severities, reverse=True)
    for finding in findings:
        assert 0 <= finding.severity <= 1
        assert 0 <= finding.confidence <= 1
        assert finding.cause.endswith(".")
        assert finding.remedies
        assert all(np.isfinite(value) for value in finding.evidence.values())


def test_missing_values():
    x = clean()
    x[:40, 1] = np.nan
    finding = found(*table(x))["missing_values"]
    assert (finding.where, finding.examples) == ("b", ("b",))
    assert finding.evidence["missing_frac"] == 0.025
    assert finding.evidence["worst_missing_frac"] == 0.1
    x = np.random.default_rng(0).normal(size=(1000, 4))
    x[0, 0] = np.nan
    assert "missing_values" in found(*table(x))
    assert "missing_values" not in found(*table(np.vstack([x, np.random.default_rng(1).normal(size=(9, 4))])))


def test_nothing_but_missing_is_severe():
    x = np.full((400, 4), np.nan)
    x[:15, 0] = np.arange(15)
    assert found(*table(x))["missing_values"].severity >= SEVERE


def test_infinite_values():
    x = clean()
    x[7, 2] = -np.inf
    finding = found(*table(x))["infinite_values"]
    assert (finding.examples, finding.evidence["rows_frac"]) == (("row 7",), 1 / 400)


@pytest.mark.parametrize("code", [-200.0, -999.0, 9999.0])
def test_sentinels(code):
    x = clean()
    x[:12, 3] = code
    finding = found(*table(x))["sentinel_values"]
    assert (finding.where, finding.evidence["code"], finding.evidence["worst_column_frac"]) == ("d", code, 0.03)


def test_numbers_within_the_range_are_no_sentinels():
    x = clean() * 300 - 1000
    x[:12, 3] = -999
    assert "sentinel_values" not in found(*table(x))


def test_sentinel_share_has_two_sides():
    x = np.random.default_rng(0).normal(5, 2, (2000, 1))
    x[0] = -999
    assert "sentinel_values" not in found(*table(x))
    x[1] = -999
    assert "sentinel_values" in found(*table(x))


def test_constant_columns():
    x = clean()
    x[:, 2] = 7
    finding = found(*table(x))["constant_columns"]
    assert (finding.where, finding.evidence["num_columns"]) == ("c", 1)
    assert finding.severity < SEVERE
    assert found(*table(x * 0))["constant_columns"].severity >= SEVERE


def test_outliers():
    # Quartiles of 1.25..399.25 and one more are 101 and 300.5: far out is beyond 899. In order, or whole, they would be
    # row numbers.
    x = np.tile(np.random.default_rng(0).permutation(np.arange(400.0))[:, np.newaxis] + 0.25, (1, 2))
    assert audit(*table(x)) == ()
    row = int(x[:, 0].argmin())
    x[row, 0] = 898
    assert "outliers" not in found(*table(x))
    x[row, 0] = 900
    finding = found(*table(x))["outliers"]
    assert finding.evidence["outlier_frac"] == 1 / 800
    assert (finding.where, finding.examples) == ("a", (f"row {row}",))


def test_one_giant_is_enough():
    x = np.tile(np.arange(2000.0)[:, np.newaxis], (1, 4))
    x[0, 0] = 99_000
    assert "outliers" not in found(*table(x))
    x[0, 0] = 110_000
    assert found(*table(x))["outliers"].evidence["largest_distance_iqr"] > 100


def test_skew():
    x = clean()
    x[:, 1] = np.exp(np.random.default_rng(1).normal(0, 1, 400))
    finding = found(*table(x))["skew"]
    assert (finding.where, finding.evidence["num_columns"]) == ("b", 1)
    # Share p of ones has the skewness (1 - 2 p) / sqrt(p (1 - p)): 2.04 for 14 %, 1.96 for 15 % (60 of 400).
    for count, is_skewed in ((57, True), (60, False)):
        x[:, 1] = np.arange(400) < count
        assert ("skew" in found(*table(x))) == is_skewed


def test_scale_spread():
    x = clean()
    x[:, 1] *= 990
    assert "scale_spread" not in found(*table(x))
    x[:, 1] *= 2
    assert found(*table(x))["scale_spread"].where == "b"


def test_class_imbalance_has_two_sides():
    assert "class_imbalance" not in found(*table(y=np.repeat([0, 1], [300, 100])))
    finding = found(*table(y=np.repeat([0, 1], [301, 99])))["class_imbalance"]
    assert (finding.where, finding.evidence["smallest"]) == ("1", 99)


def test_few_samples_has_two_sides():
    for count, is_few in ((19, True), (20, False)):
        y = np.repeat([0, 1], [100, count + 10])
        split = Split(np.arange(100 + count), np.arange(100 + count, 105 + count), np.arange(105 + count, 110 + count))
        dataset, _ = table(np.random.default_rng(0).normal(5, 2, (len(y), 4)), y)
        assert ("few_samples" in found(dataset, split)) == is_few


def test_duplicates_leaks_and_conflicts():
    x = clean()
    split = Split(np.arange(300), np.arange(300, 350), np.arange(350, 400))
    x[100] = x[0]
    assert found(*table(x, split=split)) == {}
    x[101] = x[1]
    assert found(*table(x, split=split)).keys() == {"duplicates"}
    x[300:310] = x[10:20]
    codes = found(*table(x, split=split))
    assert codes["leaking_copies"].evidence["num_leaked"] == 10
    assert codes["leaking_copies"].examples[0] == "row 300"
    assert codes["duplicates"].evidence["num_duplicates"] == 12
    assert "conflicting_labels" not in codes
    y = np.arange(400) % 2
    y[300] = 1 - y[10]
    conflict = found(*table(x, y, split=split))["conflicting_labels"]
    assert conflict.evidence["num_conflicting"] == 2
    assert conflict.examples == ("row 10", "row 300")


def test_contradicting_labels_everywhere_are_severe():
    x = np.repeat(clean()[:200], 2, axis=0)
    assert found(*table(x))["conflicting_labels"].severity >= SEVERE


def test_blank_images():
    x = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)
    x[5] = 200
    finding = found(*images(x))["blank_images"]
    assert finding.evidence["blank_frac"] == 0.001
    assert finding.severity < SEVERE
    assert "blank_images" not in found(*images(np.concatenate([x, x[6:7]])))
    assert found(*images(x * 0))["blank_images"].severity >= SEVERE


def test_large_data_are_sampled_and_the_evidence_says_so(monkeypatch):
    monkeypatch.setattr(sample_module, "MAX_ROWS", 100)
    x = clean()
    x[:, 0] = np.nan
    assert found(*table(x))["missing_values"].evidence["num_rows_examined"] == 100


def test_series_of_several_channels_are_judged_by_channel():
    x = np.random.default_rng(0).normal(5, 2, (60, 10, 2))
    x[:, :, 1] = 4
    y = np.arange(60) % 2
    dataset = Dataset("s", DataSpec("npz", "series", "classification", (10, 2), ("0", "1")), x, y, tuple(map(str, y)))
    finding = found(dataset, make_split(y, task="classification", seed=0))["constant_columns"]
    assert finding.where == "channel 1"


@pytest.mark.parametrize("name", ["images/fashion_mnist_12k.npz", "images/cifar10_3k.npz", None])
def test_real_clean_data_are_quiet(name, request):
    source = None if name is None else str(request.getfixturevalue("shared_data") / name)
    dataset = load(source)
    split = make_split(dataset.y, task="classification", seed=0, test_rows=dataset.test_rows)
    assert audit(dataset, split) == ()


# What the README of the real data measured.
@pytest.mark.parametrize(
    ("name", "measured"),
    [
        (
            "series/ecg5000.csv",
            {
                ("class_imbalance", "ratio"): 119.5,
                ("outliers", "outlier_frac"): 0.0065,
                ("skew", "num_columns"): 15,
                ("few_samples", "num_classes"): 1,
            },
        ),
        (
            "messy/secom_207.csv",
            {
                ("class_imbalance", "ratio"): 14.07,
                ("missing_values", "missing_frac"): 0.048,
                ("missing_values", "num_columns"): 189,
                ("skew", "num_columns"): 96,
                ("scale_spread", "ratio"): 4.06e7,
            },
        ),
        ("messy/eeg_eye_state.csv", {("outliers", "outlier_frac"): 0.0182, ("skew", "num_columns"): 14}),
    ],
)
def test_real_faults_are_found(shared_data, name, measured):
    dataset = load(str(shared_data / name))
    findings = found(dataset, make_split(dataset.y, task="classification", seed=0))
    for (code, evidence), value in measured.items():
        assert findings[code].evidence[evidence] == pytest.approx(value, rel=0.02)
    assert max(finding.severity for finding in findings.values()) < SEVERE


def test_absurdly_large_values_count_as_infinite_and_break_no_other_check():
    x = clean()
    x[::9, 1] = 1e300
    findings = found(*table(x))
    assert findings["infinite_values"].evidence["rows_frac"] == pytest.approx(45 / 400)
    assert not {"skew", "scale_spread", "outliers"} & set(findings)


def test_texts_and_sounds_are_not_checked_as_columns_but_for_copies():
    texts = np.array([f"text {row}" for row in range(100)] + ["again \ud800"] * 10, object)
    waves = np.random.default_rng(0).normal(0, 0.1, size=(110, 500))
    waves[::2, 300:] = np.nan
    waves -= np.nanmean(waves, axis=1, keepdims=True)
    waves[100:] = waves[0]
    for kind, x in (("text", texts), ("audio", waves)):
        spec = DataSpec("npz", kind, "classification", x.shape[1:], ("0", "1"), sample_rate_hz=8000, is_padded=True)
        dataset = Dataset(kind, spec, x, np.arange(110) % 2, tuple(map(str, range(110))))
        findings = found(dataset, make_split(dataset.y, task="classification", seed=0))
        assert set(findings) - {"unknown_words"} == {"duplicates", "leaking_copies", "conflicting_labels"}
        assert findings["duplicates"].evidence["num_duplicates"] == (9 if kind == "text" else 10)


@pytest.mark.parametrize("hole", [False, True])
def test_padding_of_series_is_not_missing_but_a_hole_is(hole):
    x = np.random.default_rng(0).normal(5, 2, (100, 20, 2))
    x[::2, 12:] = np.nan
    if hole:
        x[:, 5, 0] = np.nan
    spec = DataSpec("npz", "series", "classification", (20, 2), ("0", "1"), is_padded=True)
    dataset = Dataset("s", spec, x, np.arange(100) // 2 % 2, tuple(map(str, range(100))))
    findings = found(dataset, make_split(dataset.y, task="classification", seed=0))
    assert ("missing_values" in findings) == hole
