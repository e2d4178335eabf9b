from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile

from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError

RATE_HZ = 8000


def tone(seconds=0.2, rate_hz=RATE_HZ, frequency_hz=440.0):
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve sounds each, as `no_ann_0.wav` and so on: three speakers, four recordings each."""

    def write(suffix="wav", rate_hz=RATE_HZ, seconds=0.2, subtype=None):
        for code, name in enumerate(("no", "yes")):
            (tmp_path / "words" / name).mkdir(parents=True)
            for speaker in ("ann", "bob", "cleo"):
                for number in range(4):
                    wave = tone(seconds, rate_hz, 300 + 200 * code + number)
                    file = tmp_path / "words" / name / f"{name}_{speaker}_{number}.{suffix}"
                    soundfile.write(file, wave, rate_hz, subtype=subtype)
        return tmp_path / "words"

    return write


def test_class_folders_are_recognised_by_looking(folder):
    found = load(str(folder()))
    assert (found.spec.form, found.spec.kind, found.spec.class_names) == ("audio_folder", "audio", ("no", "yes"))
    assert (found.x.shape, found.x.dtype) == ((24, 1600), np.float32)
    assert (found.spec.input_shape, found.spec.sample_rate_hz, found.spec.is_padded) == ((1600,), RATE_HZ, False)
    np.testing.assert_allclose(found.x[0], tone(frequency_hz=300), atol=1e-4)
    np.testing.assert_array_equal(found.y, np.repeat([0, 1], 12))
    assert found.row_names[0] == "no/no_ann_0.wav"
    assert found.notes == ("24 sounds at 8,000 Hz (--sample-rate changes it).",)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("flac", None), ("ogg", "VORBIS"), ("wav", "FLOAT"), ("wav", "PCM_24")]
)
def test_formats_hold_the_same_sound(folder, suffix, subtype):
    x = load(str(folder(suffix=suffix, subtype=subtype))).x
    assert x.shape == (24, 1600)
    assert np.corrcoef(x[0], tone(frequency_hz=300))[0, 1] > 0.99


def test_the_most_common_rate_is_everyones(folder):
    root = folder()
    for name in ("a", "b"):
        soundfile.write(root / "no" / f"no_dan_{name}.wav", tone(0.2, 44_100, 300), 44_100)
    found = load(str(root))
    assert found.x.shape == (26, 1600)
    row = found.row_names.index("no/no_dan_a.wav")
    assert np.corrcoef(found.x[row], tone(frequency_hz=300))[0, 1] > 0.999
    assert found.notes[0] == (
        "26 sounds (24 at 8,000 Hz, 2 at 44,100 Hz) resampled to 8,000 Hz (--sample-rate changes it)."
    )


@pytest.mark.parametrize(
    ("rate_hz", "asked", "expected"), [(16_000, None, 16_000), (22_050, None, 16_000), (8_000, 4_000, 4_000)]
)
def test_rates_are_limited_or_asked_for(folder, rate_hz, asked, expected):
    found = load(str(folder(rate_hz=rate_hz)), ReadOptions(sample_rate=asked))
    assert (found.spec.sample_rate_hz, found.spec.input_shape) == (expected, (round(0.2 * expected),))


def test_channels_are_averaged_and_it_is_said(folder):
    root = folder()
    stereo = np.stack([tone(frequency_hz=300), np.zeros(1600)], axis=1)
    soundfile.write(root / "no" / "no_dan_0.wav", stereo, RATE_HZ)
    found = load(str(root))
    np.testing.assert_allclose(found.x[found.row_names.index("no/no_dan_0.wav")], tone(frequency_hz=300) / 2, atol=1e-4)
    assert "1 of 25 sounds has several channels, which were averaged." in found.notes


def test_shorter_sounds_end_in_nan(folder):
    root = folder()
    soundfile.write(root / "no" / "no_dan_0.wav", tone(0.15), RATE_HZ)
    found = load(str(root))
    row = found.row_names.index("no/no_dan_0.wav")
    assert found.spec.is_padded
    assert np.isfinite(found.x[row, :1200]).all()
    assert np.isnan(found.x[row, 1200:]).all()
    assert "Length 0.15 to 0.20 s (median 0.20); shorter sounds are padded." in found.notes


@pytest.mark.parametrize(("seconds", "is_cut"), [(0.3, False), (0.31, True)])
def test_a_few_far_longer_sounds_are_cut_and_listed(folder, seconds, is_cut):
    root = folder()
    for number in range(80):
        soundfile.write(root / "no" / f"no_eve_{number}.wav", tone(), RATE_HZ)
    soundfile.write(root / "no" / "long.wav", tone(seconds), RATE_HZ)
    found = load(str(root))
    assert found.x.shape[1] == (1600 if is_cut else round(seconds * RATE_HZ))
    assert ("1 was cut at the end to 0.20 s: no/long.wav (0.31)" in found.notes[-1]) == is_cut


def test_unreadable_sounds_are_left_out_with_the_reason(folder):
    root = folder()
    for number in range(30):
        soundfile.write(root / "no" / f"x_{number}.wav", tone(frequency_hz=500 + number), RATE_HZ)
    (root / "no" / "zero.wav").write_bytes(b"")
    (root / "no" / "text.wav").write_text("hello\n" * 50)
    whole = (root / "no" / "no_ann_0.wav").read_bytes()
    (root / "no" / "half.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(root / "no" / "short.wav", np.zeros(15), RATE_HZ)
    soundfile.write(root / "no" / "nan.wav", np.full(1600, np.nan), RATE_HZ, subtype="FLOAT")
    found = load(str(root))
    assert len(found.x) == len(found.y) == len(found.row_names) == 54
    assert sorted(found.notes[0].splitlines()) == [
        "  no/half.wav: truncated: its header promises 3,200 bytes of sound, 1,578 are there",
        "  no/nan.wav: it holds values that are no numbers",
        "  no/short.wav: it holds 15 samples, which is no sound",
        "  no/text.wav: not a sound, whatever its name says",
        "  no/zero.wav: the file is empty",
        "5 of 59 sounds cannot be read and were left out:",
    ]


def test_what_decoding_loses_is_told(folder):
    root = folder()
    clipped = np.clip(4 * tone(), -1, 1)
    soundfile.write(root / "no" / "no_ann_0.wav", clipped, RATE_HZ)
    soundfile.write(root / "no" / "no_ann_1.flac", np.stack([tone(0.5, 16_000)] * 2, axis=1), 16_000, subtype="PCM_24")
    (root / "no" / "no_ann_2.wav").write_bytes(b"")
    found = load(str(root))
    rows = [found.row_names.index(f"no/no_ann_{name}") for name in ("0.wav", "1.flac", "3.wav")]
    facts = {name: values[rows].tolist() for name, values in found.facts.items()}
    is_flat = np.abs(clipped) == 1
    assert facts.pop("clipped_frac") == [pytest.approx(is_flat.mean(), abs=0.01), 0, 0]
    assert facts == {
        "seconds": [0.2, 0.5, 0.2],
        "rate_hz": [8000, 16_000, 8000],
        "num_channels": [1, 2, 1],
        "encoding": ["PCM_16", "PCM_24", "PCM_16"],
    }
    assert {len(values) for values in found.facts.values()} == {len(found.x)} == {24}
    assert found.unreadable == {"no/no_ann_2.wav": "the file is empty"}


@pytest.mark.parametrize(
    ("level", "length", "clipped"),
    [(1.0, 3, 3), (1.0, 2, 0), (127 / 128, 5, 5), (0.98, 5, 0), (-1.0, 4, 4)],
)
def test_clipping_is_flat_at_full_scale_for_three_samples(folder, level, length, clipped):
    root = folder()
    wave = 0.3 * np.sin(np.arange(1000) / 9)
    wave[100 : 100 + length] = level
    soundfile.write(root / "no" / "no_ann_0.wav", wave, RATE_HZ)
    assert load(str(root)).facts["clipped_frac"][0] == clipped / 1000


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_truncated_compressed_sounds_are_left_out(folder, suffix):
    root = folder(suffix=suffix)
    content = (root / "no" / f"no_ann_0.{suffix}").read_bytes()
    (root / "no" / f"no_ann_0.{suffix}").write_bytes(content[: len(content) // 2])
    found = load(str(root))
    assert len(found.x) == 23
    assert f"1 of 24 sounds cannot be read and was left out:\n  no/no_ann_0.{suffix}: " in found.notes[0]


def test_files_written_as_a_stream_are_whole(folder):
    root = folder()
    file = root / "no" / "no_ann_0.wav"
    content = bytearray(file.read_bytes())
    data = content.index(b"data")
    content[4:8] = content[data + 4 : data + 8] = b"\xff" * 4
    file.write_bytes(content)
    assert len(load(str(root)).x) == 24


def test_many_unreadable_sounds_are_refused(folder):
    root = folder()
    for number in range(3):
        (root / "no" / f"zero{number}.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)3 of 27 sounds in .* cannot be read. Replace or remove:.*zero2.wav"):
        load(str(root))


def test_a_class_of_one_sound_is_named(folder):
    root = folder()
    (root / "maybe").mkdir()
    soundfile.write(root / "maybe" / "a.wav", tone(), RATE_HZ)
    with pytest.raises(DataError, match="maybe has 1; each needs at least 3"):
        load(str(root))


def test_options_that_do_not_fit(folder):
    with pytest.raises(
        DataError, match=r"--kind image does not fit folders of sounds.*--image-size 9 is for folders of"
    ):
        load(str(folder()), ReadOptions(kind="image", image_size=9))


def test_kind_decides_where_a_folder_holds_both(folder):
    from PIL import Image

    root = folder()
    for name in ("no", "yes"):
        for number in range(20):
            Image.fromarray(np.full((9, 9), 7 * number, np.uint8)).save(root / name / f"{number}.png")
    assert load(str(root)).spec.kind == "image"
    assert load(str(root), ReadOptions(kind="audio")).spec.kind == "audio"


@pytest.mark.parametrize(("group", "count"), [("part2", 3), ("part1", 2), ("part3", 4), ("folder", 2)])
def test_groups_come_from_the_path(folder, group, count):
    found = load(str(folder()), ReadOptions(group=group))
    assert len(np.unique(found.groups)) == count
    assert found.notes[-1].startswith(f"Groups by {group}: {count} (")
    assert found.spec.reading == {"group": group}


def test_groups_that_are_not_there_are_refused(folder):
    root = str(folder())
    with pytest.raises(
        DataError, match=r"24 of 24 files have no such part .*part1 of 'no/no_ann_0.wav' is 'no', part2"
    ):
        load(root, ReadOptions(group="part4"))
    with pytest.raises(DataError, match=r"--group 'speaker' is no part of the path of a file. Give `folder`"):
        load(root, ReadOptions(group="speaker"))


def test_predictions_are_read_like_the_training_data(folder, tmp_path):
    root = folder()
    trained = load(str(root))
    x, names = load_features(str(root), trained.spec)
    np.testing.assert_array_equal(x, trained.x)
    assert names == trained.row_names
    soundfile.write(tmp_path / "new.flac", tone(0.1, 44_100), 44_100)
    x, names = load_features(str(tmp_path / "new.flac"), trained.spec)
    assert (x.shape, int(np.isfinite(x).sum()), names) == ((1, 1600), 800, ("new.flac",))
    soundfile.write(tmp_path / "long.wav", tone(5), RATE_HZ)
    notes: list[str] = []
    assert np.isfinite(load_features(str(tmp_path / "long.wav"), trained.spec, notes)[0]).all()
    cut = "1 of 1 sound is longer than those of the training data, and was cut at the end to 0.20 s: long.wav (5)."
    assert notes == [cut]


def test_a_few_damaged_sounds_are_left_out_of_what_is_predicted(folder):
    root = folder()
    trained = load(str(root))
    gone = trained.row_names[3]
    (root / gone).write_bytes(b"")
    notes: list[str] = []
    x, names = load_features(str(root), trained.spec, notes)
    np.testing.assert_array_equal(x, np.delete(trained.x, 3, axis=0))
    assert names == tuple(name for name in trained.row_names if name != gone)
    assert notes == [f"1 of 24 sounds cannot be read and was left out:\n  {gone}: the file is empty"]


def test_unreadable_sounds_cannot_be_predicted(folder, tmp_path):
    spec = load(str(folder())).spec
    (tmp_path / "bad.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)1 of 1 sound .* cannot be read.*bad.wav: the file is empty"):
        load_features(str(tmp_path / "bad.wav"), spec)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="holds tables, but the model was trained on sounds"):
        load_features(str(tmp_path / "t.csv"), spec)


def test_real_digits(shared_data):
    found = load(str(shared_data / "audio/fsdd"), ReadOptions(group="part2"))
    assert (found.x.shape, found.spec.sample_rate_hz, found.spec.num_classes) == ((1500, 7532), 8000, 10)
    assert np.bincount(found.groups).tolist() == [250] * 6
    assert re.search(r"Length 0\.14 to 2\.28 s \(median 0\.42\); .* 14 were cut", "\n".join(found.notes))
