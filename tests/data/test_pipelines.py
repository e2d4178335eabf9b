from __future__ import annotations

import argparse
import itertools
import subprocess

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.class_weight import compute_class_weight

from tuner.data import pipelines
from tuner.errors import BundleError, ConfigError
from tuner.records import DataSpec

IMAGE = DataSpec("npz", "image", "classification", (6, 6, 3), ("a", "b"))
SERIES = DataSpec("npz", "series", "classification", (9, 2), ("a", "b"))
TABLE = DataSpec("table", "series", "regression", (8,), target="y", feature_names=tuple("abcdefgh"))
RANDOM = np.random.default_rng(0)


def samples(spec):
    if spec is IMAGE:
        return RANDOM.integers(0, 256, (40, *spec.input_shape), dtype=np.uint8)
    return RANDOM.normal(3, 2, (40, *spec.input_shape))


def every_choice(spec):
    known = pipelines.choices(spec, has_missing=True, imbalance=9.0)
    for values in itertools.product(*(choice.values for choice in known)):
        yield dict(zip((choice.name for choice in known), values, strict=True))


def names(spec, **kwargs):
    return [choice.name for choice in pipelines.choices(spec, **kwargs)]


def test_choices_of_images_and_series():
    assert names(IMAGE, has_missing=False, imbalance=1.0) == ["scaler"]
    assert names(SERIES, has_missing=True, imbalance=1.0) == ["imputer", "outliers", "scaler"]
    for choice in pipelines.choices(SERIES, has_missing=True, imbalance=9.0):
        assert choice.default in choice.values
        assert choice.help


def test_balance_is_offered_and_default_on_the_right_side_of_the_ratios():
    def balance(imbalance):
        found = pipelines.choices(IMAGE, has_missing=False, imbalance=imbalance)
        return next((choice.default for choice in found if choice.name == "balance"), None)

    assert [balance(ratio) for ratio in (1.5, 1.51, 2.99, 3.0)] == [None, "none", "none", "class_weights"]
    assert "balance" not in names(TABLE, has_missing=False, imbalance=99.0)


def test_parameters_are_completed_and_others_ignored():
    assert pipelines.pipeline_params(TABLE, {"scaler": "robust", "balance": "none", "dropout": "0.1"}) == {
        "imputer": "median",
        "outliers": "clip",
        "scaler": "robust",
    }
    assert pipelines.pipeline_params(IMAGE, {}) == {"imputer": "median", "scaler": "standard"}


def test_unknown_values_are_all_named():
    with pytest.raises(ConfigError, match=r"outliers='x' is not one of none, clip.*scaler='standart'.*mean 'standard'"):
        pipelines.build(TABLE, {"scaler": "standart", "outliers": "x"})


@pytest.mark.parametrize("spec", [IMAGE, SERIES, TABLE], ids=["image", "series", "table"])
class TestEveryPipeline:
    def test_output_is_finite_float32_with_a_channel_axis(self, spec):
        x = samples(spec)
        for params in every_choice(spec):
            result = pipelines.build(spec, params).fit_transform(x)
            assert result.shape == (40, *spec.input_shape, *([1] if spec is TABLE else [])), params
            assert result.dtype == np.float32, params
            assert np.isfinite(result).all(), params

    def test_nothing_it_is_fed_makes_it_give_nan(self, spec):
        fit = samples(spec).astype(np.float64)
        fit[..., 0] = np.nan  # a feature that training never saw
        fit[..., -1] = 4.0  # a constant
        fit[0] = np.inf
        fit[1] *= 1e20
        new = samples(spec).astype(np.float64)
        new[0], new[1], new[2], new[3] = np.nan, np.inf, 1e300, -1e25
        for params in every_choice(spec):
            result = pipelines.build(spec, params).fit(fit).transform(new)
            assert np.isfinite(result).all(), params

    def test_saved_and_loaded_gives_the_same_numbers(self, spec, tmp_path):
        x = samples(spec)
        for params in every_choice(spec):
            fitted = pipelines.build(spec, params).fit(x)
            pipelines.save(fitted, tmp_path / "pipeline.skops")
            again = pipelines.load(tmp_path / "pipeline.skops")
            np.testing.assert_array_equal(again.transform(x), fitted.transform(x))


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


def test_class_weights_are_scikit_learns():
    y = np.array([0, 0, 0, 2, 2, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert pipelines.class_weights(y) == pytest.approx(dict(enumerate(expected)))


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
