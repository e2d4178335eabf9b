from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tuner.data import transformers
from tuner.data.transformers import AddChannel, OverflowToMissing, PerChannel, Winsorizer

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
SERIES = RANDOM.normal(5, 2, (30, 12, 2))
ROWS = RANDOM.normal(size=(30, 7))

CONTRACT = [
    pytest.param(PerChannel(StandardScaler()), IMAGES, IMAGES.shape, id="PerChannel-images"),
    pytest.param(PerChannel(MinMaxScaler()), SERIES, SERIES.shape, id="PerChannel-series"),
    pytest.param(AddChannel(), ROWS, (30, 7, 1), id="AddChannel"),
]


@parametrize_with_checks(
    [Winsorizer(), Winsorizer(lower_quantile=0.05, upper_quantile=0.95, reach=0.0), OverflowToMissing()]
)
def test_scikit_learn_accepts_them(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("transformer", "samples", "shape"), CONTRACT)
class TestContract:
    def test_clone_keeps_parameters_and_forgets_the_fit(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        copy = clone(fitted)
        assert str(copy.get_params()) == str(transformer.get_params())
        with pytest.raises(ValueError, match="not fitted"):
            copy.transform(samples)

    def test_output_has_shape_type_and_finite_values(self, transformer, samples, shape):
        result = clone(transformer).fit_transform(samples)
        assert result.shape == shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()

    def test_input_is_not_changed(self, transformer, samples, shape):
        before = samples.copy()
        clone(transformer).fit_transform(samples)
        np.testing.assert_array_equal(samples, before)

    def test_rows_are_independent(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        np.testing.assert_array_equal(fitted.transform(samples)[3:5], fitted.transform(samples[3:5]))

    def test_hostile_values_stay_finite(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        hostile = samples.astype(np.float64)
        hostile[0] = 1e300
        hostile[1] = -1e300
        result = fitted.transform(hostile)
        assert np.isfinite(result).all()
        assert result.max() <= transformers.LARGEST_OUTPUT


def test_winsorizer_clips_at_three_interquartile_ranges():
    # Quartiles of 0..4 are 1 and 3: limits 1 - 3 * 2 and 3 + 3 * 2.
    fitted = Winsorizer().fit(np.arange(5.0).reshape(-1, 1))
    assert (fitted.lower_.tolist(), fitted.upper_.tolist()) == ([-5.0], [9.0])
    assert fitted.transform([[-5.1], [-5.0], [9.0], [9.1]]).ravel().tolist() == [-5.0, -5.0, 9.0, 9.0]


def test_winsorizer_without_reach_clips_at_the_quantiles():
    fitted = Winsorizer(lower_quantile=0.0, upper_quantile=1.0, reach=0.0).fit([[1.0], [3.0]])
    assert fitted.transform([[0.0], [2.0], [9.0]]).ravel().tolist() == [1.0, 2.0, 3.0]


def test_winsorizer_keeps_the_rare_values_of_a_flat_column():
    column = np.zeros((100, 1))
    column[:5] = 7
    fitted = Winsorizer().fit(column)
    np.testing.assert_array_equal(fitted.transform(column), column)
    assert fitted.transform([[99.0]]).item() == 7


@pytest.mark.parametrize(
    "params",
    [{"lower_quantile": 0.6, "upper_quantile": 0.4}, {"lower_quantile": -0.1}, {"reach": -1.0}, {"reach": np.nan}],
)
def test_winsorizer_refuses_parameters_that_are_no_limits(params):
    with pytest.raises(ValueError, match="are no limits: give 0 <= lower_quantile"):
        Winsorizer(**params).fit([[1.0], [2.0]])


def test_overflow_becomes_missing():
    big = transformers.LARGEST_INPUT
    found = OverflowToMissing().fit_transform([[1.0, np.inf], [-np.inf, np.nan], [big, -2 * big]])
    np.testing.assert_array_equal(found, [[1.0, np.nan], [np.nan, np.nan], [big, np.nan]])


def test_per_channel_standardises_each_channel():
    result = PerChannel(StandardScaler()).fit_transform(IMAGES).reshape(-1, 3)
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=0), 1, atol=1e-6)


def test_per_channel_fits_on_a_seeded_subsample(monkeypatch):
    monkeypatch.setattr(transformers, "FIT_VALUES", 50)
    first, again, other = (PerChannel(StandardScaler(), seed=seed).fit(SERIES) for seed in (0, 0, 1))
    assert first.transformer_.n_samples_seen_ == 50
    assert first.transformer_.mean_.tolist() == again.transformer_.mean_.tolist()
    assert first.transformer_.mean_.tolist() != other.transformer_.mean_.tolist()


def test_per_channel_in_pieces_equals_the_whole(monkeypatch):
    fitted = PerChannel(StandardScaler()).fit(IMAGES)
    whole = fitted.transform(IMAGES)
    monkeypatch.setattr(transformers, "CHUNK_VALUES", 7)
    np.testing.assert_array_equal(fitted.transform(IMAGES), whole)


@pytest.mark.parametrize("samples", [np.zeros((3, 4)), np.zeros((0, 4, 1))])
def test_per_channel_needs_channels_and_values(samples):
    with pytest.raises(ValueError, match=r"has shape .*\(n, steps, channels\) is needed"):
        PerChannel(StandardScaler()).fit(samples)


def test_per_channel_refuses_another_number_of_channels():
    with pytest.raises(ValueError, match="X has 2 channels, but this was fitted on 3"):
        PerChannel(StandardScaler()).fit(IMAGES).transform(SERIES)


def test_add_channel_refuses_another_number_of_steps():
    with pytest.raises(ValueError, match="expecting 7 features"):
        AddChannel().fit(ROWS).transform(ROWS[:, :3])


def test_file_can_stand_alone():
    tree = ast.parse(Path(transformers.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in modules} == {"__future__", "typing", "numpy", "sklearn"}
