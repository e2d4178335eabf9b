from __future__ import annotations

import numpy as np
import pytest
import soundfile
from PIL import Image

from tuner.data.sources import ReadOptions, load
from tuner.data.split import split_dataset
from tuner.errors import DataError


@pytest.fixture
def write(tmp_path):
    def file(name, rows, *, header="a,b,label\n", labels=("no", "yes"), separator=","):
        lines = "".join(f"{row},{row / 4},{labels[row % len(labels)]}\n" for row in rows)
        (tmp_path / name).write_text((header + lines).replace(",", separator))
        return str(tmp_path / name)

    return file


def test_files_of_their_own_are_the_parts(write):
    parts = {"validation": write("v.csv", range(40, 60)), "test": write("t.csv", range(60, 70))}
    found = load(write("main.csv", range(40)), ReadOptions(**parts))
    assert (found.x.shape, len(found.row_names), found.row_names[40]) == ((70, 2), 70, "v.csv:0")
    split = split_dataset(found, seed=0)
    assert sorted(split.train.tolist()) == list(range(40))
    assert split.validation.tolist() == list(range(40, 60))
    assert split.test.tolist() == list(range(60, 70))
    assert found.notes[-1].startswith("Test part: 10 samples of ")
    assert {name: found.spec.reading[name] for name in parts} == parts


def test_one_file_leaves_the_other_part_to_be_drawn(write):
    split = split_dataset(
        load(write("main.csv", range(100)), ReadOptions(test=write("t.csv", range(100, 111)))), seed=0
    )
    assert len(split.test) == 11
    assert len(split.train) + len(split.validation) == 100


def test_columns_go_by_name_and_formats_may_differ(write):
    test = write("t.tsv", range(3), header="b,a,label\n", separator="\t")
    found = load(write("main.csv", range(40)), ReadOptions(test=test))
    assert found.x[-1].tolist() == [0.5, 2]


def test_words_and_labels_keep_their_codes(write):
    main = write("main.csv", range(40), header="a,b,label\n", labels=("x", "y", "z"))
    found = load(main, ReadOptions(test=write("t.csv", range(5), labels=("z",))))
    assert found.y[-5:].tolist() == [2] * 5


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"labels": ("no", "yess")},
            r"Column 'label' of 't.csv' holds 'yess', which the training data does not have\. D",
        ),
        ({"header": "a,bb,label\n"}, r"'t.csv' has no column 'b', which the model was trained on.*Did you mean 'bb'"),
        ({"header": "a,b,kind\n"}, r"'t.csv' has no column 'label'"),
        ({"labels": ("",)}, r"All rows of column 'label' of 't.csv' are empty"),
    ],
)
def test_parts_that_do_not_fit_are_refused(write, part, message):
    with pytest.raises(DataError, match=message):
        load(write("main.csv", range(40)), ReadOptions(test=write("t.csv", range(6), **part)))


def test_a_part_of_one_number_is_enough(tmp_path):
    for name, count in (("main", 40), ("part", 1)):
        lines = "".join(f"{row},{row / 3}\n" for row in range(count))
        (tmp_path / f"{name}.csv").write_text(f"a,y\n{lines}")
    found = load(str(tmp_path / "main.csv"), ReadOptions(test=str(tmp_path / "part.csv"), task="regression"))
    assert (len(found.y), found.y[-1]) == (41, 0)


def test_parts_of_another_form_are_refused(write, tmp_path):
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), y=[0, 1, 0])
    with pytest.raises(DataError, match="does not have the form of the data, which is read as table"):
        load(write("main.csv", range(40)), ReadOptions(test=str(tmp_path / "t.npz")))
    with pytest.raises(DataError, match="does not exist"):
        load(write("main.csv", range(40)), ReadOptions(validation=str(tmp_path / "none.csv")))


def test_archives(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("main", 60), ("part", 8)):
        y = np.arange(count) % 2
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=(count, 9)), y=y, class_names=["off", "on"])
    found = load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))
    assert (found.x.shape, found.y[-8:].tolist()) == ((68, 9), [0, 1] * 4)
    assert found.validation_rows.tolist() == list(range(60, 68))
    np.savez(
        tmp_path / "part.npz", x=rng.normal(size=(8, 9)), y=[1.0, 2.0, np.nan, 1.0] * 2, class_names=["?", "on", "off"]
    )
    found = load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))
    assert found.y[60:].tolist() == [1, 0, 1] * 2
    np.savez(tmp_path / "part.npz", x=rng.normal(size=(8, 9)), y=np.arange(8) % 3, class_names=["off", "on"])
    with pytest.raises(DataError, match=r"y of 'part.npz' holds '2', but class_names has 2 names"):
        load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))
    np.savez(tmp_path / "part.npz", x=rng.normal(size=(8, 7)), y=np.arange(8) % 2)
    with pytest.raises(DataError, match=r"has shape \(8, 7\); \(samples, 9\) was expected, as in training"):
        load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))
    np.savez(tmp_path / "part.npz", x=rng.normal(size=(8, 9)), y=np.full(8, np.nan))
    with pytest.raises(DataError, match=r"y of 'part.npz' has no target that is a number"):
        load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))
    np.savez(tmp_path / "part.npz", x=rng.normal(size=(8, 9)))
    with pytest.raises(DataError, match="a part needs x and y"):
        load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "part.npz")))


def test_a_test_part_may_not_be_given_twice(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(60, 9)), np.arange(60) % 2
    np.savez(tmp_path / "main.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "part.npz", x=x, y=y)
    with pytest.raises(DataError, match="has a test part of its own; remove --test"):
        load(str(tmp_path / "main.npz"), ReadOptions(test=str(tmp_path / "part.npz")))


def test_folders_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for root, count in (("main", 12), ("part", 3)):
        for code, name in enumerate(("dark", "light")):
            (tmp_path / root / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(120 * code, 120 * code + 90, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / root / name / f"{number}.png")
    found = load(str(tmp_path / "main"), ReadOptions(test=str(tmp_path / "part")))
    assert (found.x.shape, found.y[-6:].tolist()) == ((30, 10, 10, 3), [0, 0, 0, 1, 1, 1])
    assert found.facts["width_px"].tolist() == [10] * 30
    assert found.facts["mode"].tolist() == ["RGB"] * 30
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' is empty\. Expected: one sub-folder of images for each class"):
        load(str(tmp_path / "main"), ReadOptions(test=str(tmp_path / "empty")))
    (tmp_path / "part" / "light").rename(tmp_path / "part" / "lihgt")
    with pytest.raises(DataError, match=r"Folder 'part' holds 'lihgt', which the training data does not have.*'light'"):
        load(str(tmp_path / "main"), ReadOptions(test=str(tmp_path / "part")))


# ---- forms whose parts are read by the reader of the data itself


def sounds(root, count, *, first=0, seconds=0.1, classes=("no", "yes")):
    """Tones in class folders, each of its own height."""
    for code, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            times = np.arange(round(8000 * seconds)) / 8000
            wave = 0.5 * np.sin(2 * np.pi * (200 + 300 * code + 7 * (first + number)) * times)
            soundfile.write(root / name / f"{number}.wav", wave, 8000)
    return str(root)


def test_folders_of_sounds(tmp_path):
    main = sounds(tmp_path / "main", 12)
    options = ReadOptions(
        validation=sounds(tmp_path / "v", 3, first=20), test=sounds(tmp_path / "t", 4, first=30, seconds=0.1)
    )
    found = load(main, options)
    assert (found.x.shape, found.y[-8:].tolist()) == ((38, 800), [0] * 4 + [1] * 4)
    assert found.validation_rows.tolist() == list(range(24, 30))
    with pytest.raises(DataError, match=r"Folder 'other' holds 'maybe', which the training data does not have"):
        load(main, ReadOptions(test=sounds(tmp_path / "other", 3, classes=("maybe", "yes"))))


def test_sounds_of_a_part_get_the_length_and_rate_of_the_data(tmp_path):
    main = sounds(tmp_path / "main", 12)
    longer = sounds(tmp_path / "longer", 3, first=20, seconds=0.3)
    found = load(main, ReadOptions(test=longer))
    assert found.x.shape == (30, 800)
    assert "6 were cut at the end to 0.10 s: no/0.wav (0.30)" in found.notes[-1]
    shorter = sounds(tmp_path / "shorter", 3, first=20, seconds=0.05)
    with pytest.raises(DataError, match=r"'shorter': 6 sounds are shorter than the 0\.10 s of the training data"):
        load(main, ReadOptions(test=shorter))


def long_table(path, count, *, first=0, steps=lambda number: 6, header="who,a,b,label"):
    rows = [
        f"s{number},{number + step},{-step},{['down', 'up'][number % 2]}"
        for number in range(first, first + count)
        for step in range(steps(number))
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_long_tables(tmp_path):
    main = long_table(tmp_path / "main.csv", 30, steps=lambda number: 4 + number % 3)
    parts = {"test": long_table(tmp_path / "t.csv", 6, first=100, steps=lambda _: 5)}
    found = load(main, ReadOptions(series_id="who", **parts))
    assert (found.x.shape, found.test_rows.tolist(), found.y[-6:].tolist()) == (
        (36, 6, 2),
        list(range(30, 36)),
        [0, 1] * 3,
    )
    np.testing.assert_array_equal(found.x[30, :, 0], [100, 101, 102, 103, 104, np.nan])


def test_channels_go_by_name_and_others_are_ignored(tmp_path):
    main = long_table(tmp_path / "main.csv", 30)
    part = tmp_path / "t.csv"
    rows = [
        f"x{number},{step},{number},remark,{['down', 'up'][number % 2]}" for number in range(6) for step in range(6)
    ]
    part.write_text("\n".join(["who,b,a,remark,label", *rows]) + "\n")
    found = load(main, ReadOptions(series_id="who", test=str(part)))
    assert found.x[-1].tolist() == [[5, step] for step in range(6)]
    long_table(part, 6, header="who,a,c,label")
    with pytest.raises(DataError, match=r"'t.csv' has no column b, which the model was trained on"):
        load(main, ReadOptions(series_id="who", test=str(part)))


def test_series_of_a_part_need_the_length_of_data_of_one_length(tmp_path):
    main = long_table(tmp_path / "main.csv", 30)
    part = long_table(tmp_path / "t.csv", 6, steps=lambda _: 4)
    with pytest.raises(DataError, match=r"'t': 6 series have another length than the 6 steps of the training data"):
        load(main, ReadOptions(series_id="who", test=part))


def recording(path, count, *, phase=0.0):
    rows = [f"{np.sin(row / 5 + phase):.4f},{row % 7},{['down', 'up'][row // 10 % 2]}" for row in range(count)]
    path.write_text("\n".join(["a,b,label", *rows]) + "\n")
    return str(path)


def test_recordings(tmp_path):
    main = recording(tmp_path / "main.csv", 400)
    parts = {
        "validation": recording(tmp_path / "v.csv", 100, phase=1),
        "test": recording(tmp_path / "t.csv", 80, phase=2),
    }
    found = load(main, ReadOptions(window=10, **parts))
    split = split_dataset(found, seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (79, 19, 15)
    assert found.row_names[-1] == "t.csv:70-79"
    with pytest.raises(DataError, match=r"'t.csv' has at most 80 rows in a series, fewer than a window of 90"):
        load(main, ReadOptions(window=90, **parts))


def walks(root, count, *, first=0):
    root.mkdir()
    for number in range(count):
        rows = [f"{first + number + step},{-step}" for step in range(5 + number % 3)]
        (root / f"walk_{number}.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    lines = [f"{number},{['down', 'up'][number % 2]}" for number in range(count)]
    (root / "walk_target.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    return str(root)


def test_folders_of_series(tmp_path):
    main = walks(tmp_path / "main", 30)
    found = load(
        main, ReadOptions(validation=walks(tmp_path / "v", 6, first=50), test=walks(tmp_path / "t", 8, first=90))
    )
    assert (found.x.shape, found.y[-8:].tolist()) == ((44, 7, 2), [0, 1] * 4)
    assert found.validation_rows.tolist() == list(range(30, 36))
    with pytest.raises(DataError, match=r"single.csv' does not have the form of the data.*sequence folder"):
        load(main, ReadOptions(test=recording(tmp_path / "single.csv", 30)))


def test_what_a_part_leaves_out_is_said(tmp_path):
    main = sounds(tmp_path / "main", 12)
    part = sounds(tmp_path / "part", 8, first=20)
    (tmp_path / "part" / "no" / "0.wav").write_bytes(b"")
    (tmp_path / "part" / "no" / "notes.txt").write_text("x")
    notes = load(main, ReadOptions(test=part)).notes
    assert "Test part: 1 file that is no sound in a class folder was ignored: no/notes.txt." in notes
    assert "Test part: 1 of 16 sounds cannot be read and was left out:\n  no/0.wav: the file is empty" in notes


def test_rows_of_a_part_without_a_target_are_told(write, tmp_path):
    test = write("t.csv", range(40, 50))
    with open(test, "a") as stream:
        stream.write("1,2,\n3,4,\n")
    found = load(write("main.csv", range(40)), ReadOptions(test=test))
    assert found.notes[-1] == "Test part: 2 of 12 rows have no target and were left out."
    assert len(found.test_rows) == 10
    assert not any("left out" in note for note in load(str(tmp_path / "main.csv")).notes)


def test_samples_of_a_part_without_a_target_are_told(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(40, 6)), np.linspace(0, 1, 40)
    np.savez(tmp_path / "main.npz", x=x, y=y)
    np.savez(tmp_path / "later.npz", x=x[:9] + 1, y=np.where(np.arange(9) == 4, np.nan, y[:9]))
    found = load(str(tmp_path / "main.npz"), ReadOptions(validation=str(tmp_path / "later.npz")))
    assert found.notes[-1] == "Validation part: 1 of 9 samples has no target and was left out."
    assert len(found.validation_rows) == 8


def test_tables_side_by_side_are_named_with_what_to_give(write, tmp_path):
    write("datatest.csv", range(5))
    write("datatraining.csv", range(40))
    with pytest.raises(DataError, match=r"2 tables and no sub-folders: .*such as '.*datatraining.csv', and others"):
        load(str(tmp_path))


def test_real_parts(shared_data):
    folder = shared_data / "series" / "occupancy"
    options = ReadOptions(validation=str(folder / "datatest.txt"), test=str(folder / "datatest2.txt"))
    split = split_dataset(load(str(folder / "datatraining.txt"), options), seed=0)
    assert [len(split.validation), len(split.test)] == [2665, 9752]
    assert len(split.train) <= 8143
