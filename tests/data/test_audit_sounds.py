from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile

from tuner.data import roles
from tuner.data.audit import audit, sounds, waves
from tuner.data.audit.sample import draw
from tuner.data.dataset import Dataset
from tuner.data.sources import load
from tuner.data.split import make_split, split_dataset
from tuner.records import DataSpec

RATE_HZ = 8000
COUNT = 100


def noise(count=COUNT, *, length=800, level=0.1):
    x = np.random.default_rng(0).normal(0, level, (count, length)).clip(-0.9, 0.9)
    return (x - x.mean(axis=1, keepdims=True)).astype(np.float32)


def found(x, **facts):
    """Findings by code, of sounds of two classes in turn."""
    y = np.arange(len(x)) % 2
    spec = DataSpec(
        "audio_folder", "audio", "classification", x.shape[1:], ("a", "b"), sample_rate_hz=RATE_HZ, is_padded=True
    )
    names = tuple(f"{'ab'[row % 2]}/{row}.wav" for row in range(len(x)))
    dataset = Dataset("s", spec, x, y, names, facts={name: np.asarray(values) for name, values in facts.items()})
    sample = draw(dataset, make_split(y, task="classification", seed=0))
    findings = [getattr(sounds, name)(sample) for name in sounds.__all__]
    return {finding.code: finding for finding in findings if finding is not None}


def test_clean_sounds_have_no_fault():
    x = noise()
    x[::2, 600:] = np.nan
    x -= np.nanmean(x, axis=1, keepdims=True)
    facts = {"rate_hz": np.full(COUNT, 8000.0), "num_channels": np.ones(COUNT), "clipped_frac": np.zeros(COUNT)}
    assert found(x, seconds=np.tile([0.1, 0.075], 50), **facts) == {}


@pytest.mark.parametrize(
    ("fact", "usual", "other", "code"),
    [("rate_hz", 8000.0, 16_000.0, "mixed_rates"), ("num_channels", 1.0, 2.0, "mixed_channels")],
)
def test_mixed_rates_and_channels(fact, usual, other, code):
    values = np.full(COUNT, usual)
    values[[4, 5]] = other
    finding = found(noise(), **{fact: values})[code]
    assert finding.examples == ("a/4.wav", "b/5.wav")
    assert (finding.evidence["num_files"], finding.evidence["usual"]) == (2, usual)
    values[4:] = np.nan
    assert found(noise(), **{fact: values}) == {}


def test_clipping_has_two_sides_and_the_worst_comes_first():
    clipped = np.zeros(COUNT)
    clipped[3] = 0.0009
    assert found(noise(), clipped_frac=clipped) == {}
    clipped[[3, 8]] = 0.001, 0.05
    finding = found(noise(), clipped_frac=clipped)["clipped_sounds"]
    assert finding.examples == ("a/8.wav", "b/3.wav")
    assert "up to 5.0% of their samples" in finding.cause


def test_silent_and_quiet_sounds_have_two_sides():
    x = noise()
    x[6] *= 0.0199 / np.abs(x[6]).max()
    assert found(x).keys() == {"quiet_sounds"}
    x[6] *= 0.0201 / np.abs(x[6]).max()
    assert found(x) == {}
    x[6] *= 0.0011 / np.abs(x[6]).max()
    assert found(x).keys() == {"quiet_sounds"}
    x[6] *= 0.0009 / np.abs(x[6]).max()
    finding = found(x)["silent_sounds"]
    assert (finding.examples, finding.evidence["num_files"]) == (("a/6.wav",), 1)
    assert found(x).keys() == {"silent_sounds"}


def test_sounds_that_are_all_silent_are_one_fault_and_a_severe_one():
    findings = found(np.zeros((COUNT, 800), np.float32) + np.arange(COUNT, dtype=np.float32)[:, np.newaxis] * 1e-6)
    assert set(findings) == {"silent_sounds"}
    assert findings["silent_sounds"].severity >= 0.9


@pytest.mark.parametrize(("ratio", "is_fault"), [(9.0, False), (11.0, True)])
def test_loudness_spread_has_two_sides(ratio, is_fault):
    x = noise(level=0.03)
    x /= np.sqrt(np.square(x).mean(axis=1, keepdims=True)) / 0.01
    x[:50] *= ratio
    findings = found(x.astype(np.float32))
    assert ("loudness_spread" in findings) == is_fault
    if is_fault:
        assert findings["loudness_spread"].evidence["ratio"] == pytest.approx(11, rel=1e-3)
        assert (findings["loudness_spread"].remedies[0].parameter, findings["loudness_spread"].remedies[0].change) == (
            "loudness",
            "equal",
        )


@pytest.mark.parametrize(("offset", "is_fault"), [(0.099, False), (0.101, True)])
def test_dc_offset_has_two_sides(offset, is_fault):
    x = noise()
    x[1] += offset * np.sqrt(np.square(x[1]).mean())
    findings = found(x)
    assert ("dc_offset" in findings) == is_fault
    if is_fault:
        assert findings["dc_offset"].examples == ("b/1.wav",)


@pytest.mark.parametrize(("blocks", "is_fault"), [(1, False), (3, True)])
def test_silence_at_the_ends_has_two_sides(blocks, is_fault):
    """Twenty blocks of 10 ms each."""
    x = noise(length=1600)
    x[:, : blocks * 80] = 0
    findings = found(x)
    assert ("silent_ends" in findings) == is_fault
    if is_fault:
        assert findings["silent_ends"].evidence["silent_frac"] == pytest.approx(0.15)
        assert findings["silent_ends"].remedies[0].change == "silence"


def test_odd_length_has_two_sides():
    seconds = np.full(COUNT, 0.3)
    seconds[[0, 1]] = 0.89, 0.101
    assert found(noise(), seconds=seconds) == {}
    seconds[[0, 1]] = 0.91, 0.09
    finding = found(noise(), seconds=seconds)["odd_length"]
    assert finding.examples == ("b/1.wav", "a/0.wav")
    assert (finding.evidence["num_long"], finding.evidence["num_short"]) == (1, 1)


def test_many_sounds_are_sampled(monkeypatch):
    monkeypatch.setattr(waves, "MAX_WAVE_VALUES", 800 * 10)
    x = noise()
    x[:50] *= 0.01
    assert found(x)["quiet_sounds"].evidence["num_rows_examined"] == 10


def test_bad_files_of_a_folder_are_findings_not_tracebacks(tmp_path):
    tones = np.sin(np.outer(np.arange(400, 440, 2), np.arange(1600) / RATE_HZ)) / 2
    for row, wave in enumerate(tones):
        folder = tmp_path / "words" / ("no" if row % 2 else "yes")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{row}.wav", np.clip(3 * wave, -1, 1) if row == 4 else wave, RATE_HZ)
    (tmp_path / "words" / "no" / "zero.wav").write_bytes(b"")
    soundfile.write(tmp_path / "words" / "no" / "none.wav", np.empty(0), RATE_HZ)
    dataset = load(str(tmp_path / "words"))
    findings = {finding.code: finding for finding in audit(dataset, split_dataset(dataset, seed=0))}
    assert findings["unreadable_files"].examples == (
        "no/none.wav: it holds 0 samples, which is no sound",
        "no/zero.wav: the file is empty",
    )
    assert findings["clipped_sounds"].examples == ("yes/4.wav",)


@pytest.mark.parametrize(
    ("code", "spoil", "count"),
    [
        ("silent_sounds", lambda wave: 0.0001 * wave, 1000),
        ("quiet_sounds", lambda wave: 0.02 * wave, 200),
        ("dc_offset", lambda wave: wave + 0.05, 200),
    ],
)
def test_the_share_of_faulty_files_has_two_sides(code, spoil, count):
    """`FAULTY_FRAC`, `QUIET_FRAC`, `OFFSET_FRAC`: one file of so many is told, of one more it is not."""
    x = noise(count + 1, length=100)
    x[3] = spoil(x[3])
    assert code in found(x[:-1])
    assert code not in found(x)


@pytest.fixture(scope="module")
def digits(shared_data):
    return load(str(shared_data / "audio/fsdd"))


def test_real_sounds(digits):
    findings = {finding.code: finding for finding in audit(digits, split_dataset(digits, seed=0))}
    assert set(findings) & set(sounds.__all__) == {"loudness_spread", "quiet_sounds", "odd_length", "dc_offset"}
    assert (findings["group_leak"].where, findings["group_leak"].evidence["num_groups"]) == ("part2", 6)
    assert findings["loudness_spread"].evidence["ratio"] == pytest.approx(34, abs=2)
    assert findings["quiet_sounds"].evidence["num_files"] == 32
    assert findings["odd_length"].evidence["num_long"] == 3
    assert findings["odd_length"].examples[0] == "9/9_theo_16.wav"


def test_real_sounds_split_by_speaker_leak_nothing(digits):
    groups, _ = roles.groups_of_files(digits.row_names, "part2")
    by_speaker = dataclasses.replace(digits, groups=groups)
    assert "group_leak" not in {finding.code for finding in audit(by_speaker, split_dataset(by_speaker, seed=0))}
