"""Export, prediction and retraining, for every form of data; the stand-alone script reads and splits as we do."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from PIL import Image

from tuner.bundle import BundleConfig, read_config, write_config
from tuner.config import SearchConfig
from tuner.data import cache, sources, watching
from tuner.data.split import split_dataset
from tuner.errors import BundleError, DataError, RunError
from tuner.export import export_bundle, write_bundle
from tuner.inference import load_model, outputs, predict_file
from tuner.records import Outcome
from tuner.retrain import train_again
from tuner.search import setup
from tuner.search.context import hyperparameters_of, judgement_of, prepared_data, training_data
from tuner.search.study import Study, load_trials
from tuner.search.worker import work
from tuner.store import RunFolder

LABELS = ("sad", "very loud", "old")
HYPERPARAMETERS = {"num_blocks": "1", "filters_1": "8", "dense_units": "0", "batch_size": "16"}


def image_folder(root: Path) -> Path:
    """Three classes told apart by their brightness; some transparent, one rotated by EXIF, one of another size."""
    rng = np.random.default_rng(0)
    for code, name in enumerate(("dark", "grün", "light")):
        folder = root / "photos" / name
        (folder / "more").mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(80 * code, 80 * code + 70, (16, 12, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            if number == 0:
                image = Image.fromarray(np.dstack([pixels, np.full((16, 12), 100, np.uint8)]))
            if number == 1:
                image = image.resize((36, 48))
            place = folder / "more" if number > 9 else folder
            if number == 2:
                exif = Image.Exif()
                exif[0x0112] = 6
                Image.fromarray(np.rot90(pixels)).save(place / f"{number}.jpg", exif=exif, quality=95)
            else:
                image.save(place / f"{number}.png")
    return root / "photos"


def table(root: Path, *, target: str) -> Path:
    """Sixty rows of six columns, some values and one target missing."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 50, (60, 6))
    labels = np.where(x[:, 0] > 0, "yes", "no") if target == "label" else 1000 + 3 * x[:, 1] + rng.normal(0, 1, 60)
    path = root / f"{target}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow([*(f"s{column}" for column in range(6)), target])
        for row, (values, label) in enumerate(zip(x, labels, strict=True)):
            cells = ["" if row % 7 == column else f"{value:.3f}" for column, value in enumerate(values)]
            writer.writerow([*cells, "" if row == 5 else label])
    return path


def archive(root: Path) -> Path:
    """Grey images of two named classes, with a test part."""
    rng = np.random.default_rng(2)
    y = np.arange(60) % 2
    x = (rng.integers(0, 100, (60, 9, 9)) + 120 * y[:, None, None]).astype(np.uint8)
    path = root / "archive.npz"
    np.savez(path, x_train=x[:48], y_train=y[:48], x_test=x[48:], y_test=y[48:], class_names=["off", "on"])
    return path


def messages(root: Path) -> Path:
    """Texts of which one word tells the class; one class is half as large as the other."""
    rng = np.random.default_rng(3)
    path = root / "messages.tsv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("kind\tmessage\n")
        for row in range(90):
            words = " ".join(rng.choice(["the", "a", "Größe", "&amp;", "我们", "now"], 6))
            stream.write(f"{'spam' if row % 3 == 0 else 'ham'}\t{words} {'win' if row % 3 == 0 else 'home'} {row}\n")
    return path


def labelled_table(root: Path) -> Path:
    """Numbers that say which of three labels a row has, some missing; one row lacks a label."""
    rng = np.random.default_rng(5)
    y = rng.random((90, 3)) < (0.5, 0.4, 0.3)
    x = rng.normal(0, 0.3, (90, 6))
    x[:, :3] += y
    path = root / "labelled.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(f"s{column}" for column in range(6)), *LABELS])
        for row, (values, labels) in enumerate(zip(x, y, strict=True)):
            cells = ["" if row % 7 == column else f"{value:.3f}" for column, value in enumerate(values)]
            writer.writerow([*cells, *("" if row == 5 else ("no", "yes")[int(label)] for label in labels)])
    return path


def sounds(root: Path) -> Path:
    """High and low tones of several lengths, with silence before them."""
    rng = np.random.default_rng(4)
    for name, tone_hz in (("high", 1500), ("low", 300)):
        (root / "sounds" / name).mkdir(parents=True)
        for number in range(12):
            count = int(rng.integers(1200, 2400))
            wave = np.sin(2 * np.pi * tone_hz * np.arange(count) / 8000) + rng.normal(0, 0.05, count)
            soundfile.write(root / "sounds" / name / f"{number}.wav", np.append(np.zeros(200), 0.3 * wave), 8000)
    return root / "sounds"


FORMS = {
    "image_folder": image_folder,
    "table": lambda root: table(root, target="label"),
    "regression": lambda root: table(root, target="price"),
    "npz": archive,
    "text": messages,
    "sound": sounds,
    "labels": labelled_table,
}
FIXED = {"text": {"balance": "oversample", "filters_1": "32"}}


@pytest.fixture(scope="module", params=FORMS)
def run(request, tmp_path_factory):
    """A finished run of one trial on data of one form, trained in this process."""
    root = tmp_path_factory.mktemp(request.param)
    source = FORMS[request.param](root)
    target = {"regression": "price", "table": "label", "labels": ",".join(LABELS)}.get(request.param)
    config = SearchConfig(
        data=str(source),
        target=target,
        trials=1,
        epochs=5,
        confirm=0,
        fix=HYPERPARAMETERS | FIXED.get(request.param, {}),
    )
    folder, _ = setup.prepare(config, root / "run")
    work(folder, deadline=None)
    return folder


@pytest.fixture(scope="module")
def bundle(run):
    output = run.root.parent / "bundle"
    export_bundle(run, output)
    return output


def script(bundle: Path):
    """The bundle's train.py as a module."""
    spec = importlib.util.spec_from_file_location(f"train_{bundle.parent.name}", bundle / "train.py")
    module = importlib.util.module_from_spec(spec)
    path_before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path_before
        for name in [name for name in sys.modules if name.partition(".")[0] == "preprocessing"]:
            del sys.modules[name]
    return module


def test_bundle_is_complete_and_says_what_was_measured(run, bundle):
    names = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*")}
    expected = {
        "config.yaml",
        "model.keras",
        "pipeline.skops",
        "preprocessing/__init__.py",
        "train.py",
        "requirements.txt",
    }
    assert expected | {"README.md", "manifest.json"} <= names
    config = read_config(bundle)
    trial = load_trials(run)[0]
    assert config.hyperparameters == trial.hyperparameters
    assert (config.guard, config.ends_early) == (False, True)
    assert config.validation["val_loss"] == pytest.approx(trial.seed_runs[0].metrics["val_loss"])
    figure = {"regression": "rmse", "classification": "accuracy", "multilabel": "mean_average_precision"}
    assert figure[config.data.task] in config.test
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "**Not confirmed**" in card
    assert f"{config.stability:.3f}" in card
    assert ("one sample of shape" in card) is bool(config.data.input_shape)


def test_predictions_equal_those_of_the_trained_model_on_the_prepared_data(run, bundle, tmp_path):
    config = read_config(bundle)
    told: list[tuple[str, int, int, str]] = []
    with watching.watched(lambda doing, done, total, unit="": told.append((doing, done, total, unit))):
        predict_file(bundle, run.load_config().data, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert told[-2:] == [("predicting", done, len(rows), " rows") for done in (0, len(rows))]
    hyperparameters = load_trials(run)[0].hyperparameters
    data = training_data(run, run.load_dataset(), hyperparameters)
    trained = outputs(load_model(run.model_file(0, 0)), np.asarray(data.x_validation))
    _, _, split = cache.load_raw(run.data_dir)
    if config.data.form == "npz":  # predict reads the test part of such a file
        assert len(rows) == len(split.test)
        return
    names = cache.load_row_names(run.data_dir)
    by_name = {row["row"]: row for row in rows}
    found = [by_name[names[position]] for position in split.validation]
    if config.data.task == "regression":
        prepared = cache.prepared(run.data_dir, config.data, {k: str(v) for k, v in hyperparameters.items()})
        expected = prepared.target_scaler.inverse_transform(trained).ravel()
        np.testing.assert_allclose([float(row["prediction"]) for row in found], expected, rtol=1e-5)
        return
    columns = [f"p_{name}" for name in config.data.class_names]
    np.testing.assert_allclose([[float(row[name]) for name in columns] for row in found], trained, atol=1e-6)
    if config.data.task == "multilabel":
        names = config.data.class_names
        assert names == LABELS
        said = ["; ".join(name for name, value in zip(names, row, strict=True) if value > 0.5) for row in trained]
        assert [row["prediction"] for row in found] == said
        return
    answers = [config.data.class_names[code] for code in trained.argmax(axis=1)]
    assert [row["prediction"] for row in found] == answers


def test_script_reads_and_splits_the_data_as_the_search_did(run, bundle):
    config = run.load_config()
    ours = sources.load(config.data, sources.ReadOptions.of(config))
    x, y, given = script(bundle).read_data(config.data)
    dtype = object if ours.spec.kind == "text" else float
    np.testing.assert_array_equal(np.asarray(x, dtype), np.asarray(ours.x, dtype).reshape(x.shape))
    np.testing.assert_allclose(y, ours.y)
    _, _, split = cache.load_raw(run.data_dir)
    for found, expected in zip(
        script(bundle).split(y, given), (split.train, split.validation, split.test), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def messy_table(root: Path) -> SearchConfig:
    """Decimal commas, a code for missing values, dates, words, and files of their own for validation and test."""
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 90).round(2)
    head = "Tag;größe;farbe;last;wert;;\n"

    def rows(start, end, mark=","):
        cells = (
            f"{1 + row % 28}.03.2024;{-200 if row % 9 == 0 else values[row]};{('rot', 'blau', '')[row % 3]};{row};"
            f"{'' if row == 5 else 2 * values[row]};;\n"
            for row in range(start, end)
        )
        return "".join(cells).replace(".", mark).replace(f"{mark}03{mark}", ".03.")

    (root / "main.csv").write_bytes((head + rows(0, 60) + ";;;;;;\n").encode("cp1252"))
    (root / "validation.csv").write_text(head + rows(60, 75), encoding="cp1252")
    (root / "test.csv").write_text((head + rows(75, 90)), encoding="cp1252")
    return SearchConfig(
        data=str(root / "main.csv"),
        na="-200",
        drop="last",
        validation=str(root / "validation.csv"),
        test=str(root / "test.csv"),
    )


def quoted_messages(root: Path) -> SearchConfig:
    """Two columns of text with quotation marks that enclose nothing, no header, some texts missing or twice."""
    lines = [f'{("ham", "spam")[row % 3 == 0]}\t"message {row % 50}, no {row}\tänd" {row % 7}' for row in range(60)]
    lines = [line.replace('änd"', "änd") if row % 2 else line for row, line in enumerate(lines)]
    (root / "sms.tsv").write_text("\n".join([*lines, "ham\t\t"]), encoding="utf-8")
    return SearchConfig(data=str(root / "sms.tsv"), target="c0", text="c1,c2")


def workbook(root: Path) -> SearchConfig:
    """An Excel file with an empty cell, and a column of words."""
    import pandas as pd

    frame = pd.DataFrame({"a": range(40), "b": [None, 1.5] * 20, "c": ["x", "y"] * 20, "label": [0, 1, 2, 1] * 10})
    frame.to_excel(root / "book.xlsx", index=False)
    return SearchConfig(data=str(root / "book.xlsx"), na="7")


def listed_labels(root: Path) -> SearchConfig:
    """Texts with lists of labels, some empty, and a test file of its own."""
    lists = ["sad; loud", "", "old;loud", "sad", "loud; old; sad"]
    for name, start, end in (("posts", 0, 60), ("later", 60, 75)):
        lines = [f"words number {row} {'x' * (row % 11)}\t{lists[row % 5]}" for row in range(start, end)]
        (root / f"{name}.tsv").write_text("\n".join(["post\ttags", *lines]) + "\n")
    return SearchConfig(data=str(root / "posts.tsv"), target="tags", test=str(root / "later.tsv"))


def label_rows(root: Path) -> SearchConfig:
    """Rows of 0 and 1 with names, some incomplete, and a test part."""
    rng = np.random.default_rng(6)
    y = (rng.random((60, 3)) < 0.4).astype(float)
    y[[4, 50], 1] = np.nan
    x = rng.normal(size=(60, 5))
    arrays = {"x_train": x[:48], "y_train": y[:48], "x_test": x[48:], "y_test": y[48:]}
    np.savez(root / "rows.npz", **arrays, class_names=LABELS)
    return SearchConfig(data=str(root / "rows.npz"))


@pytest.mark.parametrize("make", [messy_table, quoted_messages, workbook, listed_labels, label_rows])
def test_script_reads_tables_as_users_have_them(make, tmp_path):
    check_script(make(tmp_path), tmp_path)


def test_script_reads_tensorflow_datasets(tmp_path, monkeypatch):
    texts = np.array([f"größe {row}".encode() for row in range(60)], object)
    splits = {"test": (texts[:9], np.arange(9) % 2), "train": (texts, np.arange(60) % 2)}
    info = types.SimpleNamespace(
        features={"label": types.SimpleNamespace(names=["no", "yes"])}, supervised_keys=("text", "label")
    )
    fake = types.SimpleNamespace(load=lambda *args, **kwargs: (splits, info), as_numpy=lambda tensors: tensors)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    check_script(SearchConfig(data="tfds:toy"), tmp_path)


def check_script(config: SearchConfig, tmp_path: Path) -> None:
    """Write a bundle for these data; its script must read and split them as the search does."""
    ours = sources.load(config.data, sources.ReadOptions.of(config))
    split = split_dataset(ours, seed=0)
    cache.save_raw(tmp_path / "data", ours, split)
    prepared = cache.prepared(tmp_path / "data", ours.spec, {})
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    described = BundleConfig(
        run="run",
        trial=0,
        source=config.data,
        fingerprint="",
        data=ours.spec,
        space=ours.spec.kind,
        hyperparameters={},
        epochs=1,
        seed=0,
        split_seed=0,
        metric="loss",
        stability_weight=0.2,
        validation={},
        test={},
        stability=1.0,
    )
    bundle = tmp_path / "bundle"
    write_bundle(bundle, described, model=model, prepared=prepared, space_file=tmp_path, data_dir=tmp_path / "data")
    module = script(bundle)
    x, y, given = module.read_data(config.data)
    np.testing.assert_array_equal(x, ours.x)
    np.testing.assert_array_equal(y, ours.y)
    for found, expected in zip(module.split(y, given), (split.train, split.validation, split.test), strict=True):
        np.testing.assert_array_equal(found, expected)
    other = module.split(y[:-3], {name: rows[:-3] for name, rows in given.items()})
    assert sorted(np.concatenate(other).tolist()) == list(range(len(y) - 3))
    assert read_config(bundle).data == ours.spec


def test_script_has_the_same_pipeline(run, bundle):
    x, _, split = cache.load_raw(run.data_dir)
    fitted = script(bundle).PIPELINE.fit(np.asarray(x[split.train]))
    data = training_data(run, run.load_dataset(), load_trials(run)[0].hyperparameters)
    np.testing.assert_array_equal(fitted.transform(x[split.validation]), data.x_validation)


def test_script_repeats_the_same_rows_of_smaller_classes(run, bundle):
    hyperparameters = load_trials(run)[0].hyperparameters
    module = script(bundle)
    assert hasattr(module, "oversampled") == (hyperparameters.get("balance") == "oversample")
    if hasattr(module, "oversampled"):
        data = training_data(run, run.load_dataset(), hyperparameters)
        _, y, split = cache.load_raw(run.data_dir)
        rows = module.oversampled(y[split.train])
        np.testing.assert_array_equal(y[split.train][rows], data.y)
        assert len(data.x) == len(data.y) == 2 * np.bincount(y[split.train]).max()


@pytest.mark.slow
def test_script_trains_without_this_package(run, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tuner.py").write_text("raise ImportError('the package is not here')\n")
    environment = os.environ | {"PYTHONPATH": str(blocked), "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = subprocess.run(
        [sys.executable, "train.py", str(Path(run.load_config().data).absolute())],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "validation: " in found.stdout
    assert "test: " in found.stdout
    assert (copy / "retrained.keras").is_file()


def test_training_again_repeats_the_numbers(run, bundle):
    again = train_again(bundle, None, seed=None, output=None)
    assert again["val_loss"] == pytest.approx(load_trials(run)[0].seed_runs[0].metrics["val_loss"], rel=1e-4)


def test_training_again_with_another_seed_differs_and_writes_a_bundle(run, bundle, tmp_path):
    again = train_again(bundle / "config.yaml", None, seed=77, output=tmp_path / "again")
    assert again["seed"] == 77
    assert again["val_loss"] != load_trials(run)[0].seed_runs[0].metrics["val_loss"]
    assert read_config(tmp_path / "again").seed == 77
    assert predict_file(tmp_path / "again", run.load_config().data, tmp_path / "out.csv") > 0


@pytest.mark.parametrize(
    ("changes", "seed", "is_guarded", "expected"),
    [
        ({"ends_early": True}, None, True, (False, True)),
        ({"guard": True}, None, True, (True, False)),
        ({"guard": True}, None, False, (False, False)),
        ({"ends_early": True}, 5, True, (True, False)),
        ({}, 5, False, (False, False)),
    ],
)
def test_a_repetition_does_what_the_exported_training_did(
    changes, seed, is_guarded, expected, run, bundle, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr("tuner.retrain.train_configuration", lambda config, *_, **__: told.append(config) or 1 / 0)
    write_config(tmp_path / "config.yaml", dataclasses.replace(read_config(bundle), **{"ends_early": False} | changes))
    with pytest.raises(ZeroDivisionError):
        train_again(tmp_path, run.load_config().data, seed=seed, output=None, is_guarded=is_guarded)
    assert (told[0].guard, told[0].ends_early) == expected


def test_card_and_script_say_that_the_script_has_no_guard(run, bundle, tmp_path):
    prepared = prepared_data(run, run.load_dataset(), load_trials(run)[0].hyperparameters)
    for is_guarded in (False, True):
        config = dataclasses.replace(read_config(bundle), guard=is_guarded)
        written = tmp_path / str(is_guarded)
        model = load_model(bundle / "model.keras")
        write_bundle(written, config, model=model, prepared=prepared, space_file=run.space_file, data_dir=run.data_dir)
        assert ("**`train.py` has no guard**" in (written / "README.md").read_text(encoding="utf-8")) == is_guarded
        assert ("This script has none" in script(written).__doc__) == is_guarded


def test_model_is_plain_keras(bundle):
    code = (
        "import sys, keras; keras.models.load_model(sys.argv[1]); "
        "assert not any(name.startswith('tuner') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle / "model.keras")], check=True, timeout=120, cwd=bundle)


@pytest.mark.parametrize("name", ["model.keras", "pipeline.skops", "config.yaml", "train.py"])
def test_changed_bundle_is_refused(bundle, name, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with (copy / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(BundleError, match=rf"{name} was changed. Export it again"):
        predict_file(copy, "x.npz", tmp_path / "out.csv")


def test_test_part_is_used_once_for_each_trial_and_other_uses_are_said(run, tmp_path):
    used = json.loads(run.test_file.read_text()) if run.test_file.is_file() else {}
    run.test_file.write_text(json.dumps({**used, "9/0": {"accuracy": 1.0}}))
    lines = export_bundle(run, tmp_path / "bundle")
    assert any("used before, for trial 9" in line for line in lines)
    run.test_file.write_text(json.dumps(used))


def test_export_trains_again_when_the_model_was_not_kept(run, tmp_path):
    file = run.model_file(0, 0)
    kept = file.read_bytes()
    expected = load_model(file).get_weights()
    file.unlink()
    export_bundle(run, tmp_path / "bundle")
    for found, weights in zip(load_model(tmp_path / "bundle" / "model.keras").get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, weights, atol=1e-5)
    file.write_bytes(kept)


def test_occupied_folder_and_unknown_trial_are_refused(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"exists and is not empty\. Give -o a new folder"):
        export_bundle(run, tmp_path)
    with pytest.raises(RunError, match=r"Trial 5 can be exported .* Finished trials: 0"):
        export_bundle(run, tmp_path / "bundle", trial=5)
    assert not (tmp_path / "bundle").exists()


def test_an_empty_folder_by_any_name_is_filled(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_bundle(RunFolder(run.root.absolute()), Path())
    assert (tmp_path / "train.py").is_file()


@pytest.mark.parametrize("path", ["trials/0001", "trials/0000/seed_0"])
def test_a_trial_is_repeated_from_its_record(finished_run, path):
    number = int(path.split("/")[1])
    run = RunFolder.open(finished_run).load_seed_runs(number)[0]
    again = train_again(finished_run / path, None, seed=None, output=None)
    assert (again["outcome"], again["seed"]) == (str(run.outcome), run.seed)
    assert {name: again[name] for name in run.metrics} == run.metrics
    assert again["stability"] == run.score.stability


@pytest.mark.parametrize("path", ["trials/0099", "trials/0000/seed_77"])
def test_a_trial_that_is_not_there_says_which_are(finished_run, path):
    with pytest.raises(RunError, match=r"has no finished training to repeat.*finished: 0000, 0001"):
        train_again(finished_run / path, None, seed=None, output=None)


def test_retraining_refuses_an_occupied_folder_before_it_trains(bundle, monkeypatch):
    monkeypatch.setattr("tuner.retrain._train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(RunError, match="exists and is not empty"):
        train_again(bundle, None, seed=None, output=bundle)


def test_other_data_does_not_fit_the_configuration(bundle, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=rng.integers(0, 255, (90, 5, 5), dtype=np.uint8), y=np.arange(90) % 3)
    with pytest.raises(DataError):
        train_again(bundle, str(tmp_path / "other.npz"), seed=None, output=None)


def test_failed_trial_has_no_model_to_export(tmp_path):
    folder = RunFolder.create(tmp_path / "run", SearchConfig())
    study = Study(folder)
    study.enqueue_first({})
    study.ask(1)
    study.finish(0, 3.0, outcome=Outcome.DIVERGED)
    with pytest.raises(RunError, match="No trial of this run can be exported"):
        export_bundle(folder, tmp_path / "bundle")
    with pytest.raises(RunError, match=r"Trial 0 has no model to export"):
        export_bundle(folder, tmp_path / "bundle", trial=0)


def test_recorded_values_reach_the_model_builder(run):
    trial = load_trials(run)[0]
    hp = hyperparameters_of(trial.hyperparameters)
    assert hp.Choice("filters_1", [64, 32, 8]) == trial.hyperparameters["filters_1"] != 64
    assert judgement_of(run).num_validation == run.load_dataset().num_validation
