from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tuner.data.sources import ReadOptions, load, load_features
from tuner.data.split import make_split
from tuner.errors import DataError


def test_without_a_source_it_is_the_handwritten_digits():
    found = load(None)
    assert (found.name, found.spec.form, found.spec.num_classes) == ("digits", "digits", 10)
    assert (found.x.shape, found.x.dtype, found.x.max()) == ((1797, 8, 8, 1), np.uint8, 16)
    assert "1,797 real handwritten digits" in found.notes[0]


def test_digits_refuse_options_that_do_not_fit():
    with pytest.raises(
        DataError, match=r"--kind series does not fit the handwritten digits.*--target y.*--image-size 9"
    ):
        load(None, ReadOptions(kind="series", target="y", image_size=9))


def test_missing_paths_name_their_neighbours(tmp_path):
    (tmp_path / "flowers.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"flower\.npz' does not exist\. Did you mean 'flowers\.npz'\? Give a folder"):
        load(str(tmp_path / "flower.npz"))
    with pytest.raises(DataError, match=r"does not exist\. In '.*': flowers\.npz\."):
        load(str(tmp_path / "zzz"))
    with pytest.raises(DataError, match=r"does not exist, nor does its folder '.*no'\. Check the path"):
        load(str(tmp_path / "no" / "zzz"))


def test_what_may_not_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match="may not be read: permission denied"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "shown"), [("a.xls", "type '.xls'"), ("README", "no suffix"), ("a.mp3", "type '.mp3'")]
)
def test_unknown_types_are_refused(tmp_path, name, shown):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"'{name}' has {shown}, which cannot be read\. Expected: a folder with one"):
        load(str(tmp_path / name))
    with pytest.raises(DataError, match="which cannot be read"):
        load_features(str(tmp_path / name), load(None).spec)


def test_features_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.zeros((40, 5, 2)) + np.arange(5).reshape(5, 1), y=np.arange(40) % 2)
    series = load(str(tmp_path / "s.npz")).spec
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="holds tables, but the model was trained on series of shape 5x2"):
        load_features(str(tmp_path / "t.csv"), series)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    (tmp_path / "a.wav").write_bytes(b"x")
    with pytest.raises(DataError, match="holds images, but the model was trained on series"):
        load_features(str(tmp_path / "pictures"), series)
    with pytest.raises(DataError, match="holds images, but the model was trained on 8x8 scans with values 0 to 16"):
        load_features(str(tmp_path / "pictures"), load(None).spec)
    with pytest.raises(DataError, match=r"holds sounds, .* trained on series of shape 5x2\. Give a \.npz file"):
        load_features(str(tmp_path / "a.wav"), series)


def test_digits_can_be_predicted_from_an_archive(tmp_path):
    digits = load(None)
    np.savez(tmp_path / "d.npz", x=digits.x[:5, :, :, 0])
    np.testing.assert_array_equal(load_features(str(tmp_path / "d.npz"), digits.spec)[0], digits.x[:5])


def test_import_is_light():
    code = "import sys, tuner.data.sources; print(*sorted({'pandas', 'sklearn', 'keras', 'scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


# name, kind, task, input shape, classes, rows of the parts
REAL = [
    ("images/fashion_mnist_12k.npz", "image", "classification", (28, 28, 1), 10, (10200, 1800, 2000)),
    ("images/cifar10_3k.npz", "image", "classification", (32, 32, 3), 10, (2550, 450, 1000)),
    ("images/sign_language_digits", "image", "classification", (64, 64, 3), 10, (700, 150, 150)),
    ("series/ecg5000.csv", "series", "classification", (140,), 5, (3429, 735, 735)),
    ("messy/secom_207.csv", "series", "classification", (207,), 2, (1095, 236, 236)),
    ("messy/eeg_eye_state.csv", "series", "classification", (14,), 2, (10486, 2247, 2247)),
    ("curves/cifar10_cnn_learning_curves.csv", "series", "regression", (86,), 0, (121, 27, 27)),
    ("messy/AirQualityUCI.csv", "series", "regression", (12,), 0, (6549, 1404, 1404)),
    ("series/occupancy/datatraining.txt", "series", "classification", (5,), 2, (5699, 1222, 1222)),
    ("text/sms_spam.tsv", "text", "classification", (), 2, (3900, 837, 837)),
    ("text/banking77_train.csv", "text", "classification", (), 77, (7001, 1501, 1501)),
]


@pytest.mark.parametrize(("name", "kind", "task", "shape", "num_classes", "sizes"), REAL, ids=[row[0] for row in REAL])
def test_real_data(shared_data, name, kind, task, shape, num_classes, sizes):
    found = load(str(shared_data / name))
    assert (found.spec.kind, found.spec.task, found.spec.input_shape) == (kind, task, shape)
    assert found.spec.num_classes == num_classes
    split = make_split(found.y, task=task, seed=0, test_rows=found.test_rows)
    assert (len(split.train), len(split.validation), len(split.test)) == sizes
    assert len(found.row_names) == len(found.x) == len(found.y) == sum(sizes)


def test_real_phone_pictures_stand_upright(shared_data):
    found = load(str(shared_data / "images/sign_language_digits"), ReadOptions(image_size=32))
    assert found.spec.input_shape == (32, 32, 3)
    assert found.notes == ("1,000 images of 2 sizes (997 of 100x100) resized to 32x32 (--image-size changes it).",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "images of one class only, 'sign_language_digits'.*Did you mean"),
    ],
)
def test_real_data_of_later_kinds_are_refused_clearly(shared_data, name, message):
    with pytest.raises(DataError, match=message):
        load(str(shared_data / name))
