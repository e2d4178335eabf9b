"""The audit finds in real data what its README measured, and no more."""

from __future__ import annotations

import pytest

from tuner.data.audit import SEVERE, audit
from tuner.data.options import ReadOptions
from tuner.data.sources import load
from tuner.data.split import split_dataset

# File, options, what the README says (code, evidence: number), other codes that are found.
TABLES = [
    (
        "series/ecg5000.csv",
        {},
        {
            ("class_imbalance", "ratio"): 119.5,
            ("outliers", "outlier_frac"): 0.0065,
            ("skew", "num_columns"): 15,
            ("few_samples", "num_classes"): 1,
        },
        set(),
    ),
    (
        "series/occupancy/datatraining.txt",
        {},
        {("class_imbalance", "ratio"): 3.7, ("scale_spread", "ratio"): 3.7e5, ("giveaway_column", "score"): 0.99},
        {"duplicates", "outliers", "skew", "drift"},
    ),
    (
        "messy/secom_207.csv",
        {},
        {
            ("class_imbalance", "ratio"): 14.07,
            ("missing_values", "missing_frac"): 0.048,
            ("missing_values", "num_columns"): 189,
            ("missing_values", "worst_missing_frac"): 0.91,
            ("outliers", "outlier_frac"): 0.0115,
            ("skew", "num_columns"): 96,
            ("scale_spread", "ratio"): 4.06e7,
        },
        {"drift"},
    ),
    (
        "messy/eeg_eye_state.csv",
        {},
        {("outliers", "outlier_frac"): 0.0182, ("skew", "num_columns"): 14, ("time_leak", "num_runs"): 24},
        {"drift"},
    ),
    (
        "messy/AirQualityUCI.csv",
        {"target": "CO(GT)"},
        {
            ("sentinel_values", "code"): -200,
            ("sentinel_values", "worst_column_frac"): 0.902,
            ("target_sentinel", "code_frac"): 0.18,
        },
        {"outliers", "skew", "drift", "time_leak"},
    ),
    (
        "messy/AirQualityUCI.csv",
        {"target": "CO(GT)", "na": "-200"},
        {("outliers", "outlier_frac"): 0.00136, ("missing_values", "worst_missing_frac"): 0.884},
        {"target_outliers", "scale_spread", "drift"},
    ),
    (
        "curves/cifar10_cnn_learning_curves.csv",
        {},
        {("identifier_columns", "num_columns"): 1},
        {"giveaway_column", "outliers", "skew", "scale_spread", "target_outliers"},
    ),
]


def findings_of(folder, name, options):
    dataset = load(None if name is None else str(folder / name), ReadOptions(**options))
    return {finding.code: finding for finding in audit(dataset, split_dataset(dataset, seed=0))}


@pytest.mark.parametrize(("name", "options", "measured", "others"), TABLES)
def test_tables_have_what_their_readme_measured_and_no_more(shared_data, name, options, measured, others):
    findings = findings_of(shared_data, name, options)
    for (code, evidence), value in measured.items():
        assert findings[code].evidence[evidence] == pytest.approx(value, rel=0.02), (code, evidence)
    assert findings.keys() == {code for code, _ in measured} | others
    severe = {code for code, each in findings.items() if each.severity >= SEVERE}
    assert severe == ({"target_sentinel"} if options == {"target": "CO(GT)"} else set())


def test_light_nearly_gives_the_occupancy_away(shared_data):
    folder = shared_data / "series/occupancy"
    given = {"validation": str(folder / "datatest.txt"), "test": str(folder / "datatest2.txt")}
    findings = findings_of(shared_data, "series/occupancy/datatraining.txt", given)
    assert findings["giveaway_column"].where == "Light"
    assert "nearly gives the label away" in findings["giveaway_column"].cause
    assert "shifted_parts" in findings


def test_copies_and_imbalance_of_messages(shared_data):
    findings = findings_of(shared_data, "text/sms_spam.tsv", {})
    assert findings["class_imbalance"].evidence["ratio"] == pytest.approx(6.46, rel=0.01)
    assert findings["duplicates"].evidence["num_duplicates"] == 403
    assert "label_errors" not in findings


def test_questions_of_a_bank_are_sorted_and_unequal_and_without_copies(shared_data):
    test = str(shared_data / "text/banking77_test.csv")
    findings = findings_of(shared_data, "text/banking77_train.csv", {"test": test})
    assert findings["sorted_labels"].evidence["num_runs"] == 77
    assert not {"duplicates", "leaking_copies", "label_errors", "shifted_parts"} & findings.keys()


# Of what any kind of data is asked; images, texts and sounds have checks of their own beside these.
GENERAL = {
    "duplicates", "leaking_copies", "missing_values", "infinite_values", "conflicting_labels", "class_imbalance",
    "few_samples", "label_errors", "time_leak", "sorted_labels", "shifted_parts",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [None, "images/fashion_mnist_12k.npz", "images/cifar10_3k.npz", "images/sign_language_digits", "audio/fsdd"],
)
def test_clean_data_are_quiet(name, request):
    folder = None if name is None else request.getfixturevalue("shared_data")
    assert not GENERAL & findings_of(folder, name, {}).keys()


def test_series_of_a_folder_are_clean_but_for_one_sensor(shared_data):
    findings = findings_of(shared_data, "series/movement_aal", {})
    assert findings.keys() == {"constant_series"}
    assert findings["constant_series"].examples == ("MovementAAL_RSS_238.csv",)
