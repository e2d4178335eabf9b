from __future__ import annotations

import dataclasses

import numpy as np

from tuner.data import choices
from tuner.records import DataSpec, Finding, Remedy

IMAGE = DataSpec("npz", "image", "classification", (6, 6, 3), ("a", "b"))
SERIES = DataSpec("npz", "series", "classification", (9, 2), ("a", "b"))
PADDED = DataSpec("sequence_folder", "series", "classification", (9, 2), ("a", "b"), is_padded=True)
TABLE = DataSpec("table", "series", "regression", (8,), target="y", feature_names=tuple("abcdefgh"))
WIDE = DataSpec("table", "series", "regression", (8,), target="y", feature_names=tuple(f"t{k}" for k in range(2, 10)))
TEXT = DataSpec("text_table", "text", "classification", (), ("a", "b"))
SOUND = DataSpec("audio_folder", "audio", "classification", (1000,), ("a", "b"), sample_rate_hz=8000, is_padded=True)


def names(spec, **kwargs):
    return [choice.name for choice in choices.offered(spec, **kwargs)]


def test_choices_of_images_and_series():
    assert names(IMAGE, has_missing=False, imbalance=1.0) == ["scaler"]
    assert names(SERIES, has_missing=True, imbalance=1.0) == ["imputer", "outliers", "skew", "scaler"]
    assert names(TEXT, has_missing=False, imbalance=1.0) == ["tokens", "vocabulary", "max_length"]
    assert names(SOUND, has_missing=True, imbalance=1.0) == ["trim", "loudness", "front_end", "mels", "hop_ms"]
    for spec in (IMAGE, SERIES, PADDED, TABLE, WIDE, TEXT, SOUND):
        for choice in choices.offered(spec, has_missing=True, imbalance=9.0):
            assert choice.default in choice.values
            assert choice.help


def test_each_series_by_itself_is_offered_for_steps_of_one_thing_only():
    def scalers(spec):
        return next(choice.values for choice in choices.offered(spec, has_missing=False, imbalance=1.0)[-1:])

    def table(*columns):
        return dataclasses.replace(TABLE, feature_names=columns, input_shape=(len(columns),))

    assert [("each" in scalers(spec)) for spec in (SERIES, PADDED, WIDE, TABLE)] == [True, True, True, False]
    assert "each" in scalers(table("c0", "c1"))
    assert "each" in scalers(table("0", "1", "2"))
    assert "each" not in scalers(table("c0", "c2"))
    assert "each" not in scalers(table("s1", "t2"))


def test_defaults_of_sound_follow_from_rate_and_length():
    def defaults(seconds, rate_hz):
        spec = dataclasses.replace(SOUND, input_shape=(int(seconds * rate_hz),), sample_rate_hz=rate_hz)
        known = {choice.name: choice.default for choice in choices.offered(spec, has_missing=False, imbalance=1.0)}
        return known["hop_ms"], known["mels"]

    assert defaults(5.0, 8000) == ("10", "32")
    assert defaults(5.1, 8000) == ("20", "32")
    assert defaults(1.0, 8001) == ("10", "64")


def proposed(texts):
    x = np.array(texts, object)
    return choices.proposals(TEXT, x, rows=np.arange(len(x)), findings=())


def test_proposals_for_text_follow_from_the_training_texts():
    assert proposed(["the cat sat on the mat"] * 9) == {"tokens": "word", "vocabulary": "1000", "max_length": "32"}
    assert (
        proposed(["\u6211\u4eec\u4eca\u5929\u53bb\u5317\u4eac\u770b\u957f\u57ce\uff0c\u7136\u540e\u56de\u5bb6"] * 9)[
            "tokens"
        ]
        == "character"
    )
    assert proposed([""])["tokens"] == "word"
    # 95 % of the texts decide.
    assert proposed(["a " * 33] * 6 + ["a"] * 94)["max_length"] == "64"
    assert proposed(["a " * 600] * 4 + ["a " * 32] * 96)["max_length"] == "32"
    assert proposed(["a " * 600] * 9)["max_length"] == "512"
    # Tokens seen twice count.
    assert proposed([" ".join(f"w{k}" for k in range(1001))] * 2 + ["only once"])["vocabulary"] == "5000"
    assert proposed([" ".join(f"w{k}" for k in range(1000))] * 2 + ["only once"])["vocabulary"] == "1000"


def test_held_out_texts_propose_nothing():
    x = np.array(["short"] * 9 + ["long " * 600] * 9, object)
    assert choices.proposals(TEXT, x, rows=np.arange(9), findings=())["max_length"] == "32"


def finding(*remedies):
    return Finding("f", "", 0.5, 1.0, {}, "c", remedies=remedies)


def test_proposals_are_the_first_remedies_of_the_findings_that_are_choices():
    findings = [
        finding(Remedy("scaler", "robust", "worst wins")),
        finding(Remedy("skew", "log", "fits"), Remedy("outliers", "none", "second")),
        finding(Remedy("data", "drop rows", "advice")),
        finding(Remedy("imputer", "median or mean", "advice")),
        finding(Remedy("scaler", "minmax", "less bad")),
        finding(),
    ]
    found = choices.proposals(TABLE, np.zeros((3, 8)), rows=np.arange(3), findings=findings)
    assert found == {"scaler": "robust", "skew": "log"}
    known = choices.offered(TABLE, has_missing=False, imbalance=1.0, proposed=found | {"outliers": "sell", "x": "y"})
    assert {choice.name: choice.default for choice in known} == {"outliers": "clip", "skew": "log", "scaler": "robust"}


def test_balance_is_offered_and_default_on_the_right_side_of_the_ratios():
    def balance(imbalance):
        found = choices.offered(IMAGE, has_missing=False, imbalance=imbalance)
        return next((choice.default for choice in found if choice.name == "balance"), None)

    assert [balance(ratio) for ratio in (1.5, 1.51, 2.99, 3.0)] == [None, "none", "none", "class_weights"]
    assert "balance" not in names(TABLE, has_missing=False, imbalance=99.0)


def test_parameters_are_completed_and_others_ignored():
    assert choices.completed(TABLE, {"scaler": "robust", "balance": "none", "dropout": "0.1"}) == {
        "imputer": "median",
        "outliers": "clip",
        "skew": "none",
        "scaler": "robust",
    }
    assert choices.completed(IMAGE, {}) == {"imputer": "median", "scaler": "standard"}
