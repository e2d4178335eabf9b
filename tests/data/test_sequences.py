from __future__ import annotations

import numpy as np
import pytest

from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError

RANDOM = np.random.default_rng(0)


def written(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


# ---- long tables: `series` with 3 + number % 3 steps, values that count up


def long_rows(num_series=12):
    return [
        (f"s{number}", step, 100 * number + step, -step, "up" if number % 2 else "down")
        for number in range(num_series)
        for step in range(3 + number % 3)
    ]


def long_table(tmp_path, rows=None, header="series,t,a,b,label"):
    return written(tmp_path / "long.csv", header, long_rows() if rows is None else rows)


LONG = ReadOptions(series_id="series", time="t")


def test_long_table(tmp_path):
    found = load(long_table(tmp_path), LONG)
    assert (found.spec.form, found.spec.kind, found.spec.input_shape) == ("long_table", "series", (5, 2))
    assert (found.spec.feature_names, found.spec.target, found.spec.is_padded) == (("a", "b"), "label", True)
    assert found.spec.reading["series_id"] == "series"
    assert found.row_names[:3] == ("s0", "s1", "s2")
    np.testing.assert_array_equal(found.x[1], [[100, 0], [101, -1], [102, -2], [103, -3], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.y, [0, 1] * 6)
    assert (found.groups, found.order) == (None, None)
    assert "12 series of 2 channels, by column 'series', ordered by 't'." in found.notes
    assert "Length 3 to 5 steps (median 4); shorter series are padded." in found.notes


def test_rows_are_put_in_the_order_of_time(tmp_path):
    shuffled = [long_rows()[row] for row in RANDOM.permutation(len(long_rows()))]
    found, expected = load(long_table(tmp_path, shuffled), LONG), load(long_table(tmp_path / "b"), LONG)
    order = [found.row_names.index(name) for name in expected.row_names]
    np.testing.assert_array_equal(found.x[order], expected.x)


def test_gaps_inside_a_series_stay_gaps(tmp_path):
    rows = [(name, t, "" if (name, t) == ("s1", 1) else a, b, label) for name, t, a, b, label in long_rows()]
    found = load(long_table(tmp_path, rows), LONG)
    np.testing.assert_array_equal(found.x[1, :4, 0], [100, np.nan, 102, 103])


def test_series_with_an_infinite_target_are_left_out_and_said(tmp_path):
    rows = [(name, t, a, b, "inf" if name == "s3" else f"{name[1:]}.5") for name, t, a, b, _ in long_rows()]
    found = load(long_table(tmp_path, rows), LONG)
    assert (found.spec.task, len(found.y), bool(np.isfinite(found.y).all())) == ("regression", 11, True)
    assert "1 of 12 series has no target and was left out: s3." in found.notes


def test_series_of_one_length_are_not_padded(tmp_path):
    rows = [row for row in long_rows() if row[1] < 3]
    found = load(long_table(tmp_path, rows), LONG)
    assert (found.spec.is_padded, found.x.shape) == (False, (12, 3, 2))
    short = long_table(tmp_path / "short", rows[:5])
    with pytest.raises(DataError, match=r"1 series has another length than the 3 steps .* such as 's1' with 2"):
        load_features(short, found.spec)


def test_series_without_a_target_are_left_out_and_said(tmp_path):
    rows = [(name, t, a, b, "" if name == "s3" or t else label) for name, t, a, b, label in long_rows()]
    found = load(long_table(tmp_path, rows), LONG)
    assert len(found.x) == 11
    assert "1 of 12 series has no target and was left out: s3." in found.notes


def test_groups_of_series(tmp_path):
    rows = [(*row, f"room{int(row[0][1:]) // 4}") for row in long_rows()]
    found = load(
        long_table(tmp_path, rows, "series,t,a,b,label,room"),
        ReadOptions(series_id="series", time="t", group="room", target="label"),
    )
    np.testing.assert_array_equal(found.groups, np.repeat([0, 1, 2], 4))
    assert found.spec.feature_names == ("a", "b")


def test_regression_of_series(tmp_path):
    rows = [(name, t, a, b, 0.5 * int(name[1:])) for name, t, a, b, _ in long_rows()]
    found = load(long_table(tmp_path, rows), LONG)
    assert found.spec.task == "regression"
    np.testing.assert_array_equal(found.y, 0.5 * np.arange(12))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (None, {"series_id": "id"}, r"no column 'id'\. Columns: series, t, a, b, label.*with --series-id"),
        (None, {"series_id": "series", "time": "when"}, r"no column 'when'.*with --time"),
        (None, {"series_id": "series", "group": "x"}, r"no column 'x'.*with --group"),
        (None, {"series_id": "series", "target": "b"}, r"Column 'b' .* changes within 12 of 12 series, such as 's0'"),
        (
            None,
            {"series_id": "series", "time": "label"},
            r"Column 'label' .* 48 of 48 rows hold no time, such as 'down'",
        ),
        ([("", 0, 1, 2, "up"), *long_rows()], {"series_id": "series"}, "Row 0 of .* has no value in column 'series'"),
        ([("s0", 9, "x", 2, "down"), *long_rows()], {"series_id": "series"}, "columns that are no numbers: column 'a'"),
        (None, {"series_id": "series", "stride": 2}, "--stride needs --window"),
        (None, {"series_id": "series", "image_size": 9}, r"--image-size 9 is for folders of images"),
    ],
)
def test_bad_long_tables(tmp_path, rows, options, message):
    with pytest.raises(DataError, match=message):
        load(long_table(tmp_path, rows), ReadOptions(**options))


def test_long_tables_to_predict(tmp_path):
    path = long_table(tmp_path)
    trained = load(path, LONG)
    x, names = load_features(path, trained.spec)
    np.testing.assert_array_equal(x, trained.x)
    assert names == trained.row_names
    other = written(tmp_path / "new.csv", "b,t,series,a", [(t, t, "new", t) for t in range(9)])
    notes: list[str] = []
    x, names = load_features(other, trained.spec, notes)
    np.testing.assert_array_equal(x[0, :, 0], range(5))
    assert names == ("new",)
    cut = "1 of 1 series is longer than those of the training data, and was cut at the end to 5 steps: new (9)."
    assert notes == [cut]
    with pytest.raises(DataError, match=r"has no column series, by which the series of .* Name the columns as in"):
        load_features(written(tmp_path / "unnamed.csv", "b,t,a", [(1, 0, 1)]), trained.spec)
    missing = written(tmp_path / "missing.csv", "t,series,a", [(0, "x", 1)])
    with pytest.raises(DataError, match="has no column b, which the model was trained on"):
        load_features(missing, trained.spec)


# ---- a recording of 200 rows, labels in blocks of 20


def recording(tmp_path, num_rows=200, header="a,b,label"):
    return written(tmp_path / "r.csv", header, [(row, -row, row // 20 % 2) for row in range(num_rows)])


def test_windows(tmp_path):
    found = load(recording(tmp_path), ReadOptions(window=10, stride=5))
    assert (found.spec.form, found.spec.input_shape, found.x.shape) == ("recording", (10, 2), (39, 10, 2))
    np.testing.assert_array_equal(found.x[3, :, 0], range(15, 25))
    np.testing.assert_array_equal(found.order, np.arange(0, 195, 5))
    assert (found.span, found.groups, found.spec.is_padded) == (10.0, None, False)
    assert found.row_names[3] == "15-24"
    # 15 to 19 are 0, 20 to 24 are 1: a draw goes to the first class.
    np.testing.assert_array_equal(found.y[:8], [0, 0, 0, 0, 1, 1, 1, 0])
    assert "39 windows of 10 rows, one every 5 rows; the most common label of a window is its target." in found.notes


@pytest.mark.parametrize(("window", "stride", "expected"), [(10, None, 39), (10, 10, 20), (200, 1, 1), (3, None, 198)])
def test_number_of_windows(tmp_path, window, stride, expected):
    rows = [(row, row, row % 7) for row in range(200)]
    path = written(tmp_path / "r.csv", "a,b,label", rows)
    if expected < 10:
        with pytest.raises(DataError):
            load(path, ReadOptions(window=window, stride=stride))
        return
    assert len(load(path, ReadOptions(window=window, stride=stride, task="regression")).x) == expected


@pytest.mark.parametrize("missing", ["", "inf"])
def test_window_of_a_regression_has_its_last_value(tmp_path, missing):
    path = written(tmp_path / "r.csv", "a,target", [(row, missing if row == 19 else 0.5 * row) for row in range(200)])
    found = load(path, ReadOptions(window=10, stride=10))
    np.testing.assert_array_equal(found.y, 0.5 * np.array([9, *range(29, 200, 10)]))
    assert "1 of 20 windows has no target and was left out." in found.notes
    assert "value in its last row" in found.notes[-2]


def test_windows_in_the_order_of_time(tmp_path):
    rows = [(f"2024-01-{1 + row // 24:02d} {row % 24:02d}:00", row, row // 20 % 2) for row in range(200)]
    shuffled = [rows[row] for row in RANDOM.permutation(200)]
    path = written(tmp_path / "r.csv", "when,a,label", shuffled)
    found = load(path, ReadOptions(window=10, time="when"))
    np.testing.assert_array_equal(found.x[0, :, 0], range(10))
    assert found.spec.feature_names == ("a",)


def test_windows_of_several_recordings_do_not_mix(tmp_path):
    rows = [(name, row, row % 2) for name in "uvw" for row in range(15)]
    found = load(written(tmp_path / "r.csv", "who,a,label", rows), ReadOptions(window=10, stride=5, series_id="who"))
    assert (len(found.x), found.order) == (6, None)
    np.testing.assert_array_equal(found.groups, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(found.x[:, 0, 0], [0, 5, 0, 5, 0, 5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 201}, r"has at most 200 rows in a series, fewer than a window of 201"),
        ({"window": 10, "split": "random"}, "--split random would put windows that overlap on both sides"),
        ({"window": 10, "group": "b"}, "--group b of a recording is the column of its parts: give it as --series-id"),
        ({"window": 10, "time": "c"}, r"no column 'c'.*--time"),
        ({"stride": 10}, "--stride needs --window"),
    ],
)
def test_bad_recordings(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        load(recording(tmp_path), ReadOptions(**options))


def test_windows_to_predict(tmp_path):
    path = recording(tmp_path)
    trained = load(path, ReadOptions(window=10, stride=5))
    x, names = load_features(path, trained.spec)
    np.testing.assert_array_equal(x, trained.x)
    assert names == trained.row_names
    short = written(tmp_path / "short.csv", "a,b", [(0, 0)] * 9)
    with pytest.raises(DataError, match="fewer than a window of 10"):
        load_features(short, trained.spec)


# ---- folders of one table each


def series_folder(tmp_path, num_series=12):
    root = tmp_path / "rooms"
    for number in range(num_series):
        rows = [(100 * number + step, -step) for step in range(3 + number % 3)]
        written(root / f"walk_{number}.csv", "#a, b", rows)
    written(root / "walk_target.csv", "#id, class", [(number, "in" if number % 2 else "out") for number in range(12)])
    written(root / "walk_rooms.csv", "#id, room", [(number, number // 4) for number in range(12)])
    return root


def test_folder_with_a_table_of_targets(tmp_path):
    found = load(str(series_folder(tmp_path)))
    assert (found.spec.form, found.spec.input_shape, found.spec.class_names) == (
        "sequence_folder",
        (5, 2),
        ("in", "out"),
    )
    assert (found.spec.target, found.spec.feature_names, found.spec.is_padded) == ("class", ("#a", "b"), True)
    assert found.row_names[:3] == ("walk_0.csv", "walk_1.csv", "walk_2.csv")
    np.testing.assert_array_equal(found.x[1], [[100, 0], [101, -1], [102, -2], [103, -3], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.y, [1, 0] * 6)
    assert found.groups is None
    assert "Targets: column 'class' of 'walk_target.csv', by column '#id'." in found.notes
    assert "Tables that are no series with a target were not learned from: walk_rooms.csv." in found.notes


def test_groups_from_a_table_beside_the_series(tmp_path):
    found = load(str(series_folder(tmp_path)), ReadOptions(group="room"))
    np.testing.assert_array_equal(found.groups, np.repeat([0, 1, 2], 4))
    with pytest.raises(DataError, match=r"no column 'house'\. Columns: class, room.*--group"):
        load(str(series_folder(tmp_path)), ReadOptions(group="house"))


def test_targets_by_file_name(tmp_path):
    root = tmp_path / "walks"
    names = [f"{name}.csv" for name in "abcdefghijkl"]
    for position, name in enumerate(names):
        written(root / "data" / name, "x", [(position,)] * 4)
    written(root / "labels.csv", "name,speed", [(name, 0.5 * position) for position, name in enumerate(names)])
    found = load(str(root))
    assert (found.spec.task, found.x.shape, found.spec.is_padded) == ("regression", (12, 4, 1), False)
    np.testing.assert_array_equal(found.y, 0.5 * np.arange(12))
    assert found.row_names[0] == "data/a.csv"


def test_class_folders_of_tables(tmp_path):
    for name in ("in", "out"):
        for number in range(8):
            written(
                tmp_path / "walks" / name / f"ann_{number % 4}_{number}.csv", "x,y", [(number, 1)] * (3 + number % 2)
            )
    found = load(str(tmp_path / "walks"), ReadOptions(group="part2"))
    assert (found.spec.class_names, found.spec.target, found.x.shape) == (("in", "out"), None, (16, 4, 2))
    np.testing.assert_array_equal(np.bincount(found.groups), [4] * 4)


def test_what_does_not_match_is_said(tmp_path):
    root = series_folder(tmp_path)
    (root / "walk_3.csv").unlink()
    written(root / "walk_99.csv", "#a, b", [(1, 2)])
    found = load(str(root))
    assert len(found.x) == 11
    assert "1 of 12 rows of 'walk_target.csv' has no series or no target: 3." in found.notes
    assert "not learned from: walk_99.csv, walk_rooms.csv." in "\n".join(found.notes)


def test_unreadable_series_are_left_out_with_the_reason(tmp_path):
    root = series_folder(tmp_path)
    (root / "walk_3.csv").write_bytes(b"")
    found = load(str(root))
    assert len(found.x) == 11
    assert "1 of 12 tables cannot be read and was left out:\n  walk_3.csv: 'walk_3.csv' is empty" in "\n".join(
        found.notes
    )
    assert list(found.unreadable) == ["walk_3.csv"]
    written(root / "walk_4.csv", "#a", [(1,)])
    with pytest.raises(DataError, match=r"(?s)2 of 12 tables .* cannot be read.*walk_4.csv.* has no column b"):
        load(str(root))


def test_bad_folders_of_series(tmp_path):
    root = series_folder(tmp_path)
    with pytest.raises(DataError, match=r"no column 'klass'\. Columns: class\."):
        load(str(root), ReadOptions(target="klass"))
    written(root / "other_target.csv", "#id, class", [(1, 2)])
    with pytest.raises(DataError, match=r"several tables of targets: other_target.csv, walk_target.csv"):
        load(str(root))
    (root / "other_target.csv").unlink()
    written(root / "walk_target.csv", "#id, class", [("x", "in"), ("y", "out")])
    with pytest.raises(DataError, match=r"No row of 'walk_target.csv' names one of the 13 tables"):
        load(str(root))
    written(root / "walk_target.csv", "#id, class", [(1, "in"), (1, "out")])
    with pytest.raises(DataError, match=r"'1' in column '#id' does not name one table and one row"):
        load(str(root))


def test_folders_of_series_to_predict(tmp_path):
    root = series_folder(tmp_path)
    trained = load(str(root))
    x, names = load_features(str(root), trained.spec)
    np.testing.assert_array_equal(x, trained.x)
    assert names == trained.row_names
    x, names = load_features(str(root / "walk_2.csv"), trained.spec)
    np.testing.assert_array_equal(x[0], trained.x[2])
    assert names == ("walk_2.csv",)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds nothing that can be read, but the model was trained on series"):
        load_features(str(tmp_path / "none"), trained.spec)


def test_real_indoor_movement(shared_data):
    found = load(str(shared_data / "series/movement_aal"), ReadOptions(group="dataset_ID"))
    assert (found.x.shape, found.spec.is_padded) == ((314, 74, 4), True)
    assert np.bincount(found.y).tolist() == [156, 158]
    assert np.bincount(found.groups).tolist() == [104, 106, 104]
    lengths = np.isfinite(found.x[..., 0]).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (19, 74)


def test_real_recordings(shared_data):
    found = load(str(shared_data / "messy/eeg_eye_state.csv"), ReadOptions(window=64, stride=32))
    assert (found.x.shape, found.span) == ((467, 64, 14), 64.0)
    options = ReadOptions(window=30, time="date")
    found = load(str(shared_data / "series/occupancy/datatraining.txt"), options)
    assert (found.x.shape, found.spec.target) == ((541, 30, 5), "Occupancy")
