"""Room for samples: the same values in memory and in a file, and one clear error where neither has place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tuner.data import archives, arrays, room
from tuner.data.options import ReadOptions
from tuner.data.sources import load
from tuner.errors import DataError, EnvironmentFault

MAPS = Path("/proc/self/maps")
RANDOM = np.random.default_rng(0)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(room, "MAX_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(room, "PIECE_BYTES", 50)


def test_arrays_are_in_memory_up_to_the_threshold_and_in_a_file_beyond(monkeypatch):
    for most, is_mapped in ((400, False), (399, True)):
        monkeypatch.setattr(room, "MAX_IN_MEMORY_BYTES", most)
        found = room.allocated((10, 10), np.float32)
        assert isinstance(found, np.memmap) is is_mapped
        assert found.shape == (10, 10)
        assert found.dtype == np.float32
        found[:] = 3
        assert found.sum() == 300


@pytest.mark.usefixtures("everything_is_large")
def test_objects_are_never_in_a_file():
    assert not isinstance(room.allocated((10,), object), np.memmap)


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux says what is mapped")
@pytest.mark.usefixtures("everything_is_large")
def test_the_file_lies_in_tmpdir_and_has_no_name(monkeypatch, tmp_path):
    monkeypatch.setattr(room.tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = room.allocated((10, 10), np.float32)
    assert f"{tmp_path}/" in MAPS.read_text()
    assert not list(tmp_path.iterdir())
    del found
    assert f"{tmp_path}/" not in MAPS.read_text()


@pytest.mark.usefixtures("everything_is_large")
def test_a_disk_that_is_too_small_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "_scratch_folder", lambda: tmp_path)
    with pytest.raises(EnvironmentFault, match=r"needs 4,000,000\.00 GB in .* set TMPDIR"):
        room.allocated((10**15,), np.float32)


@pytest.mark.parametrize("dtype", [None, np.float64])
@pytest.mark.usefixtures("everything_is_large")
def test_joined_is_concatenate(dtype):
    parts = [RANDOM.normal(size=(count, 3, 2)).astype(np.float32) for count in (1, 20, 7)]
    found = room.joined(parts, dtype)
    assert isinstance(found, np.memmap)
    expected = np.concatenate(parts).astype(dtype or np.float32)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_single_array_of_the_right_type_is_not_copied():
    x = np.zeros((3, 2))
    assert room.joined([x]) is x
    assert room.joined([x], np.float64) is x
    assert room.joined([x], np.float32) is not x


@pytest.mark.usefixtures("everything_is_large")
def test_taken_is_indexing():
    x = RANDOM.normal(size=(30, 4))
    rows = RANDOM.integers(0, 30, 100)
    np.testing.assert_array_equal(room.taken(x, rows), x[rows])
    assert room.taken(x, rows[:0]).shape == (0, 4)


@pytest.mark.usefixtures("everything_is_large")
def test_pieces_are_the_rows_in_order():
    x = RANDOM.normal(size=(31, 3))
    found = list(room.pieces(x))
    assert len(found) > 3
    np.testing.assert_array_equal(np.concatenate(found), x)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i8", "?", ">f4"])
def test_large_npy_files_are_read_like_small_ones(tmp_path, monkeypatch, dtype):
    for part, count in (("train", 60), ("test", 30)):
        np.save(tmp_path / f"x_{part}.npy", RANDOM.integers(0, 2, (count, 9, 9)).astype(dtype))
        np.save(tmp_path / f"y_{part}.npy", np.where(np.arange(count) == 3, np.nan, np.arange(count) % 2))
    small = arrays.read(tmp_path / "x_train.npy", ReadOptions())
    monkeypatch.setattr(room, "MAX_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(room, "PIECE_BYTES", 500)
    large = arrays.read(tmp_path / "x_train.npy", ReadOptions())
    assert isinstance(large.x, np.memmap)
    assert large.x.dtype == small.x.dtype
    np.testing.assert_array_equal(large.x, small.x)
    np.testing.assert_array_equal(large.y, small.y)
    assert large.row_names == small.row_names
    assert large.spec == small.spec


def test_folders_of_many_files_are_read_like_those_of_few(tmp_path, monkeypatch):
    for folder, sample in (("images", _write_image), ("sounds", _write_sound)):
        for number in range(30):
            sample(tmp_path / folder / f"class{number % 2}", number)
        (tmp_path / folder / "class1/9.png").write_bytes(b"no image")
        (tmp_path / folder / "class1/9.wav").write_bytes(b"no sound")
        small = load(str(tmp_path / folder))
        with monkeypatch.context() as patched:
            patched.setattr(room, "MAX_IN_MEMORY_BYTES", 0)
            patched.setattr(room, "PIECE_BYTES", 500)
            large = load(str(tmp_path / folder))
        assert isinstance(large.x, np.memmap)
        assert len(large.x) == 29
        assert large.x.shape[-1] == small.x.shape[-1]
        np.testing.assert_array_equal(large.x, small.x)
        assert large.row_names == small.row_names


def _write_image(folder, number):
    """A grey one that is stored in colour."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(number).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    Image.fromarray(grey.repeat(3, axis=2)).save(folder / f"{number}.png")


def _write_sound(folder, number):
    folder.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(number).normal(0, 0.1, 100 + number)
    soundfile.write(folder / f"{number}.wav", wave, 8000)


def test_a_large_npy_file_that_is_cut_short_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_IN_MEMORY_BYTES", 0)
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((100, 10)))
    np.save(tmp_path / "y.npy", np.arange(100) % 2)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"'x\.npy' cannot be read"):
        archives.load(file)


def test_what_does_not_fit_into_memory_is_said_with_the_form_that_may(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 10)), y=np.arange(100) % 2)

    def failing(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(arrays, "read", failing)
    with pytest.raises(DataError, match=r"d\.npz' does not fit into memory \(Unable to allocate 9 TiB\).*x\.npy"):
        load(str(tmp_path / "d.npz"))
