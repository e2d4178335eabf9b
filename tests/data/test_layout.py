from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tuner.data.sources import ReadOptions, load
from tuner.data.split import split_dataset
from tuner.errors import DataError


def pictures(root, *parts, count=12):
    rng = np.random.default_rng(0)
    for part in parts:
        for code, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count if part.lower().startswith("train") else 3):
                pixels = rng.integers(120 * code, 120 * code + 90, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return str(root)


def table(path, count):
    path.write_text("a,label\n" + "".join(f"{np.sin(row):.5f},{'xy'[row % 2]}\n" for row in range(count)))


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "dev", "test")]
)
def test_folders_named_for_parts_are_these(tmp_path, names):
    found = load(pictures(tmp_path / "photos", *names))
    split = split_dataset(found, seed=0)
    assert (found.name, found.spec.class_names, found.x.shape) == ("photos", ("dark", "light"), (36, 9, 12, 3))
    assert [len(split.train), split.validation.tolist(), split.test.tolist()] == [
        24,
        list(range(24, 30)),
        list(range(30, 36)),
    ]
    assert found.notes[0] == (
        f"'photos' holds parts: learned from {names[0]}, beside it {names[1]} (validation), {names[2]} (test). To "
        f"split {names[0]} alone, give it as DATA."
    )


def test_a_part_that_is_not_there_is_drawn(tmp_path):
    split = split_dataset(load(pictures(tmp_path, "train", "test")), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (20, 4, 6)


def test_a_part_that_was_given_comes_first(tmp_path):
    root = pictures(tmp_path / "photos", "train", "val", "test")
    other = pictures(tmp_path / "other", "mine")
    found = load(root, ReadOptions(test=f"{other}/mine"))
    assert found.row_names[-1] == "mine:light/2.png"
    assert {name: found.spec.reading[name] for name in ("train_part", "validation_part")} == {
        "train_part": "train",
        "validation_part": "val",
    }
    assert "test_part" not in found.spec.reading


def test_what_lies_beside_the_parts_is_named(tmp_path):
    root = pictures(tmp_path / "photos", "train", "test")
    (tmp_path / "photos" / "LICENSE").write_text("x")
    (tmp_path / "photos" / ".git").mkdir()
    assert load(root).notes[0].endswith(" Ignored: LICENSE.")


def test_classes_with_such_names_are_classes(tmp_path):
    root = pictures(tmp_path / "vehicles", "train", "ship")
    assert load(root).spec.class_names == ("ship", "train")


def test_parts_without_one_to_learn_from_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds parts of a data set \(test, val\), but none to learn from\. Call that"):
        load(pictures(tmp_path, "val", "test"))


def test_a_part_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds val and validation, which are the same part"):
        load(pictures(tmp_path, "train", "val", "validation"))


def test_labels_of_a_part_must_be_those_of_the_data(tmp_path):
    root = pictures(tmp_path, "train", "test")
    (tmp_path / "test" / "light").rename(tmp_path / "test" / "lihgt")
    with pytest.raises(DataError, match=r"Folder 'test' holds 'lihgt', which the training data does not have.*'light'"):
        load(root)


def test_files_named_for_parts_are_these(tmp_path):
    for name, count in (("train", 40), ("val", 10), ("test", 14)):
        table(tmp_path / f"{name}.csv", count)
    (tmp_path / "README.md").write_text("x")
    found = load(str(tmp_path))
    assert (len(found.x), found.validation_rows.tolist()) == (64, list(range(40, 50)))
    assert found.notes[0].endswith("give it as DATA. Ignored: README.md.")


def test_archives_named_for_parts_are_these(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 14)):
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=(count, 9)), y=np.arange(count) % 2)
    assert load(str(tmp_path)).test_rows.tolist() == list(range(40, 54))
