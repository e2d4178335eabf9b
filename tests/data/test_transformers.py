from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tuner.data import transformers
from tuner.data.transformers import (
    AddChannel,
    LogMel,
    NormalizeLoudness,
    NormalizeText,
    OutlierFlag,
    OverflowToMissing,
    PerChannel,
    RankToNormal,
    SignedLog,
    StandardizeEach,
    TokenSequences,
    TrimSilence,
    Winsorizer,
    channels,
    sound,
    text,
)

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
SERIES = RANDOM.normal(5, 2, (30, 12, 2))
PADDED = SERIES.copy()
PADDED[::3, 7:] = np.nan
ROWS = RANDOM.normal(size=(30, 7))
WAVES = RANDOM.normal(0, 0.1, (30, 900)).astype(np.float32)
WAVES[::3, 600:] = np.nan
TEXTS = np.array(["The CAT sat.", "a cat &amp; a dog", "le chien\ta vu"] * 10, object)

# Transformers whose result is ready for a network.
FINAL = [
    pytest.param(PerChannel(StandardScaler()), IMAGES, IMAGES.shape, id="PerChannel-images"),
    pytest.param(PerChannel(MinMaxScaler()), SERIES, SERIES.shape, id="PerChannel-series"),
    pytest.param(PerChannel(StandardScaler(), padding="zero"), PADDED, PADDED.shape, id="PerChannel-zero"),
    pytest.param(PerChannel(StandardScaler(), padding="flag"), PADDED, (30, 12, 3), id="PerChannel-flag"),
    pytest.param(AddChannel(), ROWS, (30, 7, 1), id="AddChannel"),
    pytest.param(TokenSequences(max_length=5), TEXTS, (30, 5), id="TokenSequences-word"),
    pytest.param(TokenSequences(tokens="character", max_length=9), TEXTS, (30, 9), id="TokenSequences-character"),
]
# Transformers that leave what is missing, or the padding, to others; or that give text.
INNER = [
    pytest.param(StandardizeEach(), PADDED, PADDED.shape, id="StandardizeEach"),
    pytest.param(AddChannel(keeps_missing=True), WAVES, (30, 900, 1), id="AddChannel-missing"),
    pytest.param(TrimSilence(sample_rate_hz=8000), WAVES, WAVES.shape, id="TrimSilence"),
    pytest.param(NormalizeLoudness(), WAVES, WAVES.shape, id="NormalizeLoudness"),
    pytest.param(LogMel(sample_rate_hz=8000, num_mels=20), WAVES, (30, 9, 20), id="LogMel"),
    pytest.param(NormalizeText(), TEXTS, (30,), id="NormalizeText"),
]


# Transformers of tables: those that scikit-learn's own checks fit.
OF_TABLES = [
    Winsorizer(),
    Winsorizer(lower_quantile=0.05, upper_quantile=0.95, reach=0.0),
    OverflowToMissing(),
    OutlierFlag(),
    SignedLog(),
    RankToNormal(),
    StandardizeEach(),
]


def test_every_transformer_is_in_one_of_the_suites():
    checked = [*OF_TABLES, *(each.values[0] for each in (*FINAL, *INNER))]
    assert {type(each).__name__ for each in checked} == {
        name for name in transformers.__all__ if isinstance(getattr(transformers, name), type)
    }


@parametrize_with_checks(OF_TABLES)
def test_scikit_learn_accepts_them(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("transformer", "samples", "shape"), [*FINAL, *INNER])
class TestContract:
    def test_clone_keeps_parameters_and_forgets_the_fit(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        copy = clone(fitted)
        assert str(copy.get_params()) == str(transformer.get_params())
        if not isinstance(transformer, NormalizeText | StandardizeEach):  # nothing is learned at all
            with pytest.raises(ValueError, match="not fitted"):
                copy.transform(samples)

    def test_output_has_the_shape_and_the_fit_can_be_repeated(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        result = fitted.transform(samples)
        assert result.shape == shape
        np.testing.assert_array_equal(fitted.fit(samples).transform(samples), result)

    def test_input_is_not_changed(self, transformer, samples, shape):
        before = samples.copy()
        clone(transformer).fit_transform(samples)
        np.testing.assert_array_equal(samples, before)

    def test_rows_are_independent(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        whole = fitted.transform(samples)
        for rows in (slice(3, 5), slice(3, 4)):
            if whole.dtype.kind == "f":  # The order of sums in a product of matrices depends on their size.
                np.testing.assert_allclose(fitted.transform(samples[rows]), whole[rows], rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(fitted.transform(samples[rows]), whole[rows])

    def test_stored_with_skops_it_gives_the_same(self, transformer, samples, shape):
        fitted = clone(transformer).fit(samples)
        names = [f"{type(fitted).__module__}.{type(fitted).__name__}", "numpy.dtype"]
        again = skops.io.loads(skops.io.dumps(fitted), trusted=names)
        np.testing.assert_array_equal(again.transform(samples), fitted.transform(samples))


@pytest.mark.parametrize(("transformer", "samples", "shape"), FINAL)
def test_result_is_finite_float32_or_numbers_of_tokens(transformer, samples, shape):
    result = clone(transformer).fit_transform(samples)
    assert result.dtype == (np.int32 if samples is TEXTS else np.float32)
    assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("transformer", "samples", "shape"), [case for case in FINAL if case.values[1] is not TEXTS] + INNER[:-1]
)
def test_hostile_values_stay_finite(transformer, samples, shape):
    fitted = clone(transformer).fit(samples)
    hostile = samples.astype(np.float64)
    hostile[0], hostile[1], hostile[2] = 1e300, -1e300, 0.0
    with np.errstate(all="raise", under="ignore"):
        result = fitted.transform(hostile)
    assert not np.isinf(result).any()
    assert np.nanmax(result) <= transformers.LARGEST_OUTPUT


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
    monkeypatch.setattr(channels, "FIT_VALUES", 50)
    first, again, other = (PerChannel(StandardScaler(), seed=seed).fit(SERIES) for seed in (0, 0, 1))
    assert first.transformer_.n_samples_seen_ == 50
    assert first.transformer_.mean_.tolist() == again.transformer_.mean_.tolist()
    assert first.transformer_.mean_.tolist() != other.transformer_.mean_.tolist()


def test_per_channel_in_pieces_equals_the_whole(monkeypatch):
    fitted = PerChannel(StandardScaler()).fit(IMAGES)
    whole = fitted.transform(IMAGES)
    monkeypatch.setattr(channels, "CHUNK_VALUES", 7)
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


def test_add_channel_makes_blocks_of_columns_channels():
    # Two columns, and their flags behind them.
    found = AddChannel(num_channels=2).fit_transform([[1.0, 2.0, 10.0, 20.0]])
    assert found.tolist() == [[[1.0, 10.0], [2.0, 20.0]]]
    with pytest.raises(ValueError, match="7 columns cannot be divided into 2 channels"):
        AddChannel(num_channels=2).fit(ROWS)


def test_padding_is_behind_the_last_value_only():
    nan = np.nan
    series = np.array([[[1.0, nan], [nan, nan], [nan, 2.0], [nan, nan]], np.full((4, 2), nan)])
    assert channels.is_value(series).tolist() == [[True, True, True, False], [False] * 4]


def test_padding_is_not_learned_from_and_becomes_zero_and_flag():
    series = np.full((2, 3, 1), np.nan)
    series[0, :2, 0], series[1, :1, 0] = [1.0, 5.0], [3.0]
    fitted = PerChannel(StandardScaler(), padding="flag").fit(series)
    assert fitted.transformer_.mean_.tolist() == [3.0]
    deviation = np.sqrt(8 / 3)
    expected = [[[-2 / deviation, 1], [2 / deviation, 1], [0, 0]], [[0, 1], [0, 0], [0, 0]]]
    np.testing.assert_allclose(fitted.transform(series), expected, rtol=1e-6)


def test_nothing_but_padding_can_be_fitted_and_transformed():
    nothing = np.full((2, 3, 1), np.nan)
    columns = Pipeline([("imputer", SimpleImputer(keep_empty_features=True)), ("scaler", StandardScaler())])
    for padding in ("zero", "flag"):
        assert not PerChannel(columns, padding=padding).fit_transform(nothing).any()


def test_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="padding='mask' is unknown"):
        PerChannel(StandardScaler(), padding="mask").fit(SERIES)


def test_each_series_gets_mean_0_and_deviation_1_whatever_its_size():
    series = np.array([[1.0, 2.0, 3.0], [1e29, 2e29, 3e29], [7.0, 7.0, 7.0], [1.0, np.nan, 3.0], [np.inf, 5.0, 6.0]])
    size = np.sqrt(1.5)
    nan = np.nan
    expected = [[-size, 0, size], [-size, 0, size], [0, 0, 0], [-1, nan, 1], [nan, -1, 1]]
    np.testing.assert_allclose(StandardizeEach().fit_transform(series), expected, atol=1e-12)


def test_signed_log_does_not_depend_on_the_unit_and_keeps_the_sign():
    column = np.array([[-4.0], [0.0], [2.0], [2.0], [100.0]])
    found = SignedLog().fit_transform(column).ravel()
    # Absolute values other than 0: 4, 2, 2, 100; their median is 3.
    np.testing.assert_allclose(found, [-np.log(7 / 3), 0, np.log(5 / 3), np.log(5 / 3), np.log(103 / 3)])
    np.testing.assert_allclose(SignedLog().fit_transform(column * 1e-9).ravel(), found)
    np.testing.assert_allclose(SignedLog().fit(np.zeros((3, 1))).transform([[1.0]]), np.log(2))


def test_ranks_become_normal_without_a_warning_for_few_rows():
    column = np.exp(np.arange(9.0)).reshape(-1, 1)
    found = RankToNormal().fit_transform(column).ravel()
    assert found[4] == pytest.approx(0)
    np.testing.assert_allclose(found[1:-1], -found[1:-1][::-1], atol=1e-9)


def test_text_is_made_plain():
    def plain(raw):
        return NormalizeText().transform([raw])[0]

    assert plain("<p>Caf\u0065\u0301 <br/> &lt;b&gt; &amp;  \n\uff28\uff29</p>") == "caf\u00e9 <b> & hi"
    assert plain("2 < 3 and 5 > 4") == "2 < 3 and 5 > 4"
    assert [plain(value) for value in (None, np.nan, 7, "", " \t")] == [""] * 5


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("don't stop, it's 5.", ["don't", "stop", ",", "it's", "5", "."]),
        ("\u6211\u4eec\u53bb abc", ["\u6211", "\u4eec", "\u53bb", "abc"]),
        # Vowel signs belong to their word.
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
         ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092d\u093e\u0937\u093e"]),
        ("\U0001f600\U0001f600 ok", ["\U0001f600\U0001f600", "ok"]),
        ("'quoted'", ["'", "quoted", "'"]),
        ("", []),
    ],
)  # fmt: skip
def test_words(raw, expected):
    assert text.pieces_of(raw, "word") == expected


def test_vocabulary_is_what_training_has_seen_twice_most_frequent_first():
    texts = ["b a", "b a c", "b rare", "c"]
    fitted = TokenSequences(max_length=4).fit(texts)
    assert fitted.vocabulary_ == "b\na\nc"
    assert fitted.transform(["c b a a b", "rare new b", ""]).tolist() == [[4, 2, 3, 3], [1, 1, 2, 0], [0, 0, 0, 0]]
    assert TokenSequences(vocabulary_size=3).fit(texts).vocabulary_ == "b"
    assert TokenSequences().fit(texts[::-1]).vocabulary_ == fitted.vocabulary_
    assert TokenSequences(vocabulary_size=3).fit(texts).transform(["a b c"]).max() < 3


def test_nothing_to_learn_from_makes_all_tokens_unknown():
    assert TokenSequences(max_length=2).fit(["", "x"]).transform(["", "x y z"]).tolist() == [[0, 0], [1, 1]]


def test_odd_characters_and_long_tokens_do_no_harm():
    odd = ["\x00\ud800 \u2028\n", "\n\n", "a" * 41, "a" * 41, "a" * 40, "a" * 40]
    for tokens in ("word", "character"):
        found = TokenSequences(tokens=tokens).fit(odd).transform(odd)
        assert found.max() < 5000
        assert (found >= 0).all()
    assert TokenSequences().fit(odd).vocabulary_ == "a" * 40


@pytest.mark.parametrize("params", [{"tokens": "letter"}, {"vocabulary_size": 1}, {"max_length": 0}])
def test_token_sequences_refuse_parameters_out_of_range(params):
    with pytest.raises(ValueError, match="expected one of word, character, at least 2 and at least 1"):
        TokenSequences(**params).fit(["a"])


def tone(frequency_hz, *, rate_hz=8000, seconds=0.5, amplitude=1.0):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(
        np.float32
    )


def test_silence_at_both_ends_is_cut():
    wave = np.concatenate([np.zeros(800), tone(500), np.zeros(400)]).astype(np.float32)
    found = TrimSilence(sample_rate_hz=8000).fit_transform(wave[np.newaxis])[0]
    np.testing.assert_array_equal(found[:4000], tone(500))
    assert np.isnan(found[4000:]).all()


@pytest.mark.parametrize(("quieter_db", "is_cut"), [(39, False), (41, True)])
def test_what_is_40_db_below_the_loudest_is_silence(quieter_db, is_cut):
    wave = np.concatenate([tone(500), tone(500, amplitude=10 ** (-quieter_db / 20))])[np.newaxis]
    assert np.isnan(TrimSilence(sample_rate_hz=8000).fit_transform(wave)[0, -1]) == is_cut


def test_silent_and_empty_recordings_stay_as_they_are():
    waves = np.zeros((3, 500), np.float32)
    waves[1], waves[2, 100:] = np.nan, np.nan
    for transformer in (TrimSilence(sample_rate_hz=8000), NormalizeLoudness()):
        np.testing.assert_array_equal(transformer.fit_transform(waves), waves)
    spectrum = LogMel(sample_rate_hz=8000).fit_transform(waves)
    np.testing.assert_allclose(spectrum[0], np.log(sound.POWER_FLOOR), rtol=1e-6)
    assert np.isnan(spectrum[1]).all()


def test_loudness_is_made_equal_up_to_a_limit_and_the_offset_is_taken_out():
    waves = np.stack([tone(500, amplitude=0.9) + 0.05, tone(500, amplitude=0.01), tone(500, amplitude=1e-5)])
    found = NormalizeLoudness().fit_transform(waves)
    rms = np.sqrt((found**2).mean(axis=1))
    np.testing.assert_allclose(rms, [0.1, 0.1, 1e-3 / np.sqrt(2)], rtol=1e-3)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-4)


def test_log_mel_of_a_tone_is_in_its_band_with_its_power():
    found = LogMel(sample_rate_hz=8000, num_mels=32).fit_transform(tone(1000)[np.newaxis])[0]
    assert found.shape == (48, 32)
    # 1000 Hz is 1000 mel, of 2146 in all, between the edges of 33 steps of 65 mel.
    assert set(found.argmax(axis=1).tolist()) <= {14, 15}
    # Power 1, times the noise bandwidth of a Hann window, 1.5 bins, each of which is two after filling up to twice it.
    assert np.exp(found[5]).sum() == pytest.approx(3.0, rel=0.02)


def test_frames_behind_the_end_of_a_recording_are_missing():
    wave = np.full((1, 1000), np.nan, np.float32)
    wave[0, :401] = 0.1
    found = LogMel(sample_rate_hz=8000).fit_transform(wave)[0]
    assert np.isnan(found).all(axis=1).tolist() == [False] * 6 + [True] * 5


@pytest.mark.parametrize(
    ("num_samples", "expected"), [(1, 1), (199, 1), (200, 1), (279, 1), (280, 2), (359, 2), (360, 3)]
)
def test_number_of_frames_follows_from_length_and_rate(num_samples, expected):
    assert sound.num_frames(num_samples, 8000, hop_ms=10.0) == expected
    wave = np.zeros((1, num_samples), np.float32)
    assert LogMel(sample_rate_hz=8000).fit_transform(wave).shape[1] == expected


@pytest.mark.parametrize("rate_hz", [4000, 8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("num_mels", [32, 64])
def test_every_mel_band_has_a_frequency(rate_hz, num_mels):
    size = 2 * round(rate_hz * 0.025)
    filters = sound.mel_filters(num_mels, rate_hz, size=size)
    assert filters.shape == (size // 2 + 1, num_mels)
    assert (filters.sum(axis=0) > 0).all()


def test_files_can_stand_alone():
    for file in Path(transformers.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {name.split(".")[0] for name in modules} <= {*sys.stdlib_module_names, "numpy", "scipy", "sklearn"}


def test_steps_of_a_pipeline_work_together():
    pipeline = Pipeline([("text", NormalizeText()), ("tokens", TokenSequences(max_length=3))]).fit(TEXTS)
    assert pipeline.transform(np.array([None, "THE cat"], object)).tolist()[0] == [0, 0, 0]
