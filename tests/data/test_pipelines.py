from __future__ import annotations

import argparse
import dataclasses
import subprocess

import numpy as np
import pytest
import skops.io
from scipy.stats import skew as skewness
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tuner.data import choices, pipelines
from tuner.errors import BundleError, ConfigError
from tuner.records import DataSpec

IMAGE = DataSpec("npz", "image", "classification", (6, 6, 3), ("a", "b"))
SERIES = DataSpec("npz", "series", "classification", (9, 2), ("a", "b"))
PADDED = DataSpec("sequence_folder", "series", "classification", (9, 2), ("a", "b"), is_padded=True)
TABLE = DataSpec("table", "series", "regression", (8,), target="y", feature_names=tuple("abcdefgh"))
WIDE = DataSpec("table", "series", "regression", (8,), target="y", feature_names=tuple(f"t{k}" for k in range(2, 10)))
TEXT = DataSpec("text_table", "text", "classification", (), ("a", "b"))
SOUND = DataSpec("audio_folder", "audio", "classification", (1000,), ("a", "b"), sample_rate_hz=8000, is_padded=True)
SPECS = {
    "image": IMAGE, "series": SERIES, "padded": PADDED, "table": TABLE, "wide": WIDE, "text": TEXT, "sound": SOUND,
}  # fmt: skip
RANDOM = np.random.default_rng(0)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "&amp;", "<b>loud</b>", "\u6211\u4eec", "caf\u00e9"]


def samples(spec, count=40):
    if spec is IMAGE:
        return RANDOM.integers(0, 256, (count, *spec.input_shape), dtype=np.uint8)
    if spec is TEXT:
        return np.array([" ".join(RANDOM.choice(WORDS, RANDOM.integers(0, 50))) for _ in range(count)], object)
    x = RANDOM.normal(3, 2, (count, *spec.input_shape))
    if spec.is_padded:
        x[::3, 6:] = np.nan
    return (0.1 * x).astype(np.float32) if spec is SOUND else x


def every_choice(spec):
    """Each value of each choice, the others at their default; and all that add channels together."""
    known = choices.offered(spec, has_missing=True, imbalance=9.0)
    defaults = {choice.name: choice.default for choice in known}
    yield from (defaults | {choice.name: value} for choice in known for value in choice.values)
    yield defaults | {choice.name: choice.values[-1] for choice in known}
    if "imputer" in defaults and spec is not IMAGE:
        yield defaults | {"imputer": "flag", "outliers": "flag"}


def test_sound_without_a_rate_is_refused():
    with pytest.raises(ConfigError, match="Sound needs a sample rate"):
        pipelines.build(dataclasses.replace(SOUND, sample_rate_hz=None), {})


def test_unknown_values_are_all_named():
    with pytest.raises(ConfigError, match=r"outliers='x' is not one of none, clip.*scaler='standart'.*mean 'standard'"):
        pipelines.build(TABLE, {"scaler": "standart", "outliers": "x"})


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
class TestEveryPipeline:
    def test_output_is_finite_and_of_the_shape_that_was_said(self, spec):
        x = samples(spec)
        for params in every_choice(spec):
            result = pipelines.build(spec, params).fit_transform(x)
            assert result.shape[1:] == pipelines.output_shape(spec, params), params
            assert len(result) == 40
            assert result.dtype == (np.int32 if spec is TEXT else np.float32), params
            assert np.isfinite(result).all(), params
            if spec is TEXT:
                assert result.max() < pipelines.vocabulary_size(spec, params)

    def test_nothing_it_is_fed_makes_it_give_nan(self, spec):
        fit, new = samples(spec), samples(spec)
        if spec is TEXT:
            fit[:3], new[:3] = ["", "\x00", "x" * 99], [None, np.nan, "\ud800"]
        else:
            fit, new = fit.astype(np.float64), new.astype(np.float64)
            fit[..., 0] = np.nan  # a feature that training never saw
            fit[..., -1] = 4.0  # a constant
            fit[0] = np.inf
            fit[1] *= 1e20
            new[0], new[1], new[2], new[3] = np.nan, np.inf, 1e300, -1e25
        for params in every_choice(spec):
            result = pipelines.build(spec, params).fit(fit).transform(new)
            assert np.isfinite(result).all(), params
            assert result.shape[1:] == pipelines.output_shape(spec, params), params

    def test_one_sample_or_nothing_at_all_can_be_fitted(self, spec):
        one = samples(spec, 1)
        for params in every_choice(spec):
            assert np.isfinite(pipelines.build(spec, params).fit_transform(one)).all(), params
        if spec not in (IMAGE, TEXT):
            nothing = np.full_like(one, np.nan)
            for params in every_choice(spec):
                assert np.isfinite(pipelines.build(spec, params).fit_transform(nothing)).all(), params

    def test_saved_and_loaded_gives_the_same_numbers(self, spec, tmp_path):
        x = samples(spec)
        for params in every_choice(spec):
            fitted = pipelines.build(spec, params).fit(x)
            pipelines.save(fitted, tmp_path / "pipeline.skops")
            again = pipelines.load(tmp_path / "pipeline.skops")
            np.testing.assert_array_equal(again.transform(x), fitted.transform(x))

    def test_refined_on_all_rows_it_stays_usable(self, spec):
        x = samples(spec)
        for params in every_choice(spec):
            fitted = pipelines.build(spec, params).fit(x[:20])
            pipelines.refine(fitted, x)
            assert np.isfinite(fitted.transform(x)).all()


def test_scaler_learns_from_all_rows_when_it_is_refined():
    x = np.array([[1.0], [2.0], [3.0], [50.0]])
    for spec, values in ((one_column(), x), (DataSpec("npz", "series", "regression", (1, 1)), x[..., np.newaxis])):
        chosen = {"scaler": "minmax", "outliers": "none"}
        fitted = pipelines.build(spec, chosen).fit(values[:3])
        pipelines.refine(fitted, values)
        np.testing.assert_allclose(fitted.transform(values).ravel(), [0, 1 / 49, 2 / 49, 1])


def one_column():
    return DataSpec("table", "series", "regression", (1,), feature_names=("a",))


def test_flags_mark_what_was_missing_or_outlying():
    x = np.arange(9.0).reshape(-1, 1)
    fitted = pipelines.build(one_column(), {"imputer": "flag", "outliers": "flag"}).fit(x)
    # Median 4, quartiles 2 and 6: limits -10 and 18.
    found = fitted.transform(np.array([[4.0], [np.nan], [18.0], [18.1], [np.inf]]))
    assert found[:, 0, 1].tolist() == [0, 1, 0, 0, 1]
    assert found[:, 0, 2].tolist() == [0, 0, 0, 1, 0]
    assert found[[1, 4], 0, 0].tolist() == [0, 0]


def test_padding_of_series_is_zero_and_its_flag_the_last_channel():
    x = samples(PADDED)
    found = pipelines.build(PADDED, {"imputer": "flag"}).fit_transform(x)
    assert found.shape == (40, 9, 5)
    assert not found[::3, 6:].any()
    assert found[0, :, -1].tolist() == [1] * 6 + [0] * 3


def test_padding_of_sound_is_zero():
    x = samples(SOUND)
    for front_end in ("wave", "log_mel"):
        found = pipelines.build(SOUND, {"front_end": front_end, "trim": "none"}).fit_transform(x)
        assert not found[0, -1].any()
        assert found[1, -1].any()


def test_mel_bands_are_standardised_over_the_training_part():
    x = samples(SOUND)[1::3]  # no padding
    found = pipelines.build(SOUND, {"mels": "32"}).fit_transform(x)
    np.testing.assert_allclose(found.mean(axis=(0, 1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(0, 1, 3)), 1, atol=1e-4)


def test_vocabulary_size_is_that_of_text_alone():
    assert pipelines.vocabulary_size(TEXT, {"vocabulary": "20000"}) == 20000
    assert [pipelines.vocabulary_size(spec, {}) for spec in (IMAGE, TABLE, SOUND)] == [0, 0, 0]


@pytest.mark.parametrize("skew", ["yeo-johnson", "quantile", "log"])
def test_skew_is_taken_out(skew):
    x = np.exp(RANDOM.normal(0, 1.5, (2000, 1)))
    found = pipelines.build(one_column(), {"skew": skew, "outliers": "none"}).fit_transform(x).ravel()
    assert abs(skewness(found)) < 0.2 * skewness(x.ravel())


def test_image_minmax_is_range_0_to_1():
    x = np.zeros((4, 2, 2, 1), np.uint8)
    x[0] = 255
    spec = DataSpec("npz", "image", "classification", (2, 2, 1), ("a", "b"))
    assert np.unique(pipelines.build(spec, {"scaler": "minmax"}).fit_transform(x)).tolist() == [0.0, 1.0]


def test_missing_values_get_the_median_of_training():
    spec = DataSpec("table", "series", "regression", (1,), feature_names=("a",))
    chosen = {"scaler": "minmax", "outliers": "none"}
    fit = np.array([[0.0], [1.0], [10.0]])
    for imputer, expected in (("median", 0.1), ("mean", 11 / 30)):
        result = pipelines.build(spec, chosen | {"imputer": imputer}).fit(fit).transform([[np.nan]])
        assert result.item() == pytest.approx(expected)


def test_robust_scaling_does_not_leave_a_mostly_constant_column_at_its_raw_size():
    spec = DataSpec("table", "series", "regression", (1,), feature_names=("a",))
    x = np.zeros((100, 1))
    x[:10] = 5000
    assert pipelines.build(spec, {"scaler": "robust"}).fit_transform(x).max() == pytest.approx(5000 / 1500)


def test_robust_scaling_is_by_median_and_quartiles():
    spec = DataSpec("table", "series", "regression", (1,), feature_names=("a",))
    found = pipelines.build(spec, {"scaler": "robust"}).fit_transform(np.array([[0.0], [1.0], [2.0], [3.0], [9.0]]))
    np.testing.assert_allclose(found.ravel(), [-1, -0.5, 0, 0.5, 3.5], rtol=1e-6)


def test_target_scaler():
    assert pipelines.build_target(IMAGE) is None
    scaled = pipelines.build_target(TABLE).fit_transform([[1.0], [3.0]])
    assert scaled.ravel().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (Pipeline([("f", FunctionTransformer(subprocess.run))]), "subprocess.run"),
        (argparse.Namespace(a=1), "argparse.Namespace"),
        (LogisticRegression(), "LogisticRegression"),
        ({"a": 1}, "dict"),
    ],
)
def test_load_refuses_foreign_types(thing, named, tmp_path):
    skops.io.dump(thing, tmp_path / "p.skops")
    with pytest.raises(BundleError, match=rf"holds .*{named}.*which no pipeline of this program has"):
        pipelines.load(tmp_path / "p.skops")


def test_load_refuses_missing_and_damaged_files(tmp_path):
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        pipelines.load(tmp_path / "none.skops")
    (tmp_path / "p.skops").write_bytes(b"no zip")
    with pytest.raises(BundleError, match="is not a stored pipeline, or is damaged"):
        pipelines.load(tmp_path / "p.skops")
    pipelines.save(pipelines.build(TABLE, {}).fit(samples(TABLE)), tmp_path / "p.skops")
    content = (tmp_path / "p.skops").read_bytes()
    (tmp_path / "p.skops").write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="is not a stored pipeline, or is damaged"):
        pipelines.load(tmp_path / "p.skops")
