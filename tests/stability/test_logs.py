"""Logs of trainings made elsewhere: every form that people have them in, and everything that can be wrong with them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stability.traces import decay, trace
from tuner.errors import DataError, EnvironmentFault, RunError
from tuner.records import Finding, Outcome, SeedRun
from tuner.stability.csvlog import to_number
from tuner.stability.detectors import detect
from tuner.stability.examination import diagnose_log
from tuner.stability.logs import ForeignLog, read
from tuner.stability.score import score
from tuner.store import RunFolder

LOSSES = [2.3, 1.6, 1.2, 0.9, 0.7, 0.6]
VALIDATION = [2.2, 1.7, 1.3, 1.1, 1.0, 0.95]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def write_file(content: str | bytes, name: str = "log.csv") -> Path:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


def table(columns: dict[str, Sequence[object]], separator: str = ",") -> str:
    rows = [separator.join(columns), *(separator.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return "\n".join(rows) + "\n"


def only(path: Path, **options: Any) -> ForeignLog:
    (log,) = read(path, **options)
    return log


def notes(log: ForeignLog) -> str:
    return "\n".join(log.notes)


# --- CSVLogger


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_of_keras(write: Write, separator: str) -> None:
    columns = {"epoch": range(6), "accuracy": np.linspace(0.2, 0.8, 6), "loss": LOSSES, "val_accuracy": [0.4] * 6}
    log = only(write(table(columns | {"val_loss": VALIDATION, "learning_rate": [1e-3] * 6}, separator)))
    np.testing.assert_array_equal(log.trace.train_loss, LOSSES)
    np.testing.assert_array_equal(log.trace.validation_loss, VALIDATION)
    np.testing.assert_array_equal(log.trace.learning_rate, [1e-3] * 6)
    np.testing.assert_array_equal(log.trace.metrics["accuracy"], [0.4] * 6)
    assert log.metrics == ("accuracy", "val_accuracy", "learning_rate")
    assert (log.trace.chance_loss, log.trace.planned_epochs, log.trace.steps_per_epoch) == (2.3, 6, 1)
    assert "the loss of the first epoch, 2.3, stands for it" in notes(log)
    assert "regularisation" in notes(log)


def test_decimal_commas_of_a_spreadsheet(write: Write) -> None:
    log = only(write("epoch;loss;val_loss\n0;2,3;2,2\n1;1,6;1,7\n"))
    np.testing.assert_array_equal(log.trace.train_loss, [2.3, 1.6])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(write: Write, mark: str) -> None:
    log = only(write("epoch,größe,loss\r\n0,1,2.3\r\n1,1,1.2\r\n".encode(mark)))
    np.testing.assert_array_equal(log.trace.train_loss, [2.3, 1.2])


def test_without_validation_columns_that_csvlogger_fills_with_na(write: Write) -> None:
    log = only(write(table({"epoch": range(6), "loss": LOSSES, "val_loss": ["NA"] * 6})))
    assert log.trace.validation_loss.size == 0
    assert score(log.trace).validation_drawdown is None


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "1.#QNAN"])
def test_what_is_no_number_is_a_failure(write: Write, text: str) -> None:
    log = only(write(table({"epoch": range(4), "loss": [2.3, 1.5, text, text]})))
    assert log.trace.num_epochs == 4
    assert not np.isfinite(log.trace.train_loss[2:]).any()
    assert score(log.trace).stability < 0


def test_an_empty_cell_is_no_failure(write: Write) -> None:
    log = only(write(table({"epoch": range(6), "loss": [*LOSSES[:5], ""]})))
    np.testing.assert_array_equal(log.trace.train_loss, LOSSES[:5])
    assert "1 row without a training loss is left out" in notes(log)


def test_a_cell_that_holds_text_is_named(write: Write) -> None:
    log = only(write(table({"epoch": range(6), "loss": [*LOSSES[:5], "abc"]})))
    assert "1 cell holds no number, such as 'abc'" in notes(log)
    assert log.trace.num_epochs == 5


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("0.5", 0.5),
        (" 1e-3 ", 1e-3),
        ("0,5", 0.5),
        ("NA", None),
        ("", None),
        ("'2'", 2.0),
        ("-1.#INF", -math.inf),
        ("np.float32(0.25)", 0.25),
        ("tf.Tensor(0.25, shape=(), dtype=float32)", 0.25),
        ("1e999", math.inf),
        ("[0.1, 0.2]", "[0.1, 0.2]"),
        ("a" * 5000, "a" * 5000),
    ],
)
def test_numbers_in_cells(cell: str, number: float | str | None) -> None:
    assert to_number(cell) == number


def test_columns_of_text_and_ragged_rows(write: Write) -> None:
    log = only(write('epoch,loss,note,confusion\n0,2.3,start,"[1, 2]"\n1,1.2\n2,1.1,x,"[1, 2]",9,9\n'))
    np.testing.assert_array_equal(log.trace.train_loss, [2.3, 1.2, 1.1])
    assert log.metrics == ()
    assert "2 of 3 rows have not as many cells" in notes(log)


def test_a_single_epoch_is_not_judged(write: Write) -> None:
    log = only(write("epoch,loss,val_loss\n0,2.3,2.2\n"))
    result = score(log.trace)
    assert log.trace.num_epochs == 1
    assert (result.drawdown, result.validation_drawdown) == (None, None)


def test_several_trainings_in_one_file_are_judged_apart(write: Write) -> None:
    text = table({"epoch": range(6), "loss": LOSSES})
    logs = read(write(text + "\n".join(text.splitlines()[1:]) + "\n"))
    assert [log.name for log in logs] == ["log.csv, training 1 of 2", "log.csv, training 2 of 2"]
    for log in logs:
        np.testing.assert_array_equal(log.trace.train_loss, LOSSES)
        assert log.trace.chance_loss == 2.3
        assert "start anew 1 time: 2 trainings in one log" in notes(log)


def test_a_repeated_header_is_no_row(write: Write) -> None:
    text = table({"epoch": range(6), "loss": LOSSES})
    logs = read(write(text + text))
    assert [log.trace.num_epochs for log in logs] == [6, 6]
    assert "The header stands in the log 2 times" in notes(logs[0])


def test_a_training_that_goes_on_keeps_the_chance_level_of_the_first(write: Write) -> None:
    later = [0.6, 0.5, 0.5, 0.5, 0.49]
    logs = read(write(table({"epoch": [*range(6), *range(5)], "loss": LOSSES + later})))
    assert [log.trace.chance_loss for log in logs] == [2.3, 2.3]
    assert score(logs[1].trace).stability > 0.95


def test_a_loop_of_short_fits_is_one_training(write: Write) -> None:
    log = only(write(table({"epoch": [0] * 6, "loss": LOSSES})))
    np.testing.assert_array_equal(log.trace.train_loss, LOSSES)
    assert "count as one training" in notes(log)


def test_short_trainings_that_start_over_are_several(write: Write) -> None:
    logs = read(write(table({"epoch": [0, 1, 2] * 2, "loss": [2.3, 1.0, 0.5, 2.2, 0.9, 0.5]})))
    assert len(logs) == 2


def test_a_resumed_training_counts_the_later_rows(write: Write) -> None:
    epochs = [0, 1, 2, 3, 2, 3, 4]
    log = only(write(table({"epoch": epochs, "loss": [2.3, 1.5, 9.0, 9.0, 1.2, 1.0, 0.9]})))
    np.testing.assert_array_equal(log.trace.train_loss, [2.3, 1.5, 1.2, 1.0, 0.9])
    assert "of 2 epochs written again the later row counts" in notes(log)


def test_duplicates_and_gaps(write: Write) -> None:
    log = only(write(table({"epoch": [0, 0, 1, 2, 5, 6], "loss": [2.3, 2.3, 1.5, 1.2, 1.0, 0.9]})))
    np.testing.assert_array_equal(log.trace.train_loss, [2.3, 1.5, 1.2, 1.0, 0.9])
    assert "Of 1 row written twice one counts" in notes(log)
    assert "Epochs are missing (2), the first after epoch 2" in notes(log)


def test_a_few_missing_validations_are_filled_and_many_judged_apart(write: Write) -> None:
    few = only(write(table({"epoch": range(6), "loss": LOSSES, "val_loss": [*VALIDATION[:5], ""]})))
    np.testing.assert_array_equal(few.trace.validation_loss, [*VALIDATION[:5], VALIDATION[4]])
    assert "the one before stands in" in notes(few)
    many = ["", 2.0, "", 1.5, "", 1.2]
    whole, sparse = read(write(table({"epoch": range(6), "loss": LOSSES, "val_loss": many})))
    assert (whole.trace.num_epochs, whole.trace.validation_loss.size) == (6, 0)
    np.testing.assert_array_equal(sparse.trace.validation_loss, [2.0, 1.5, 1.2])
    np.testing.assert_array_equal(sparse.trace.train_loss, LOSSES[1::2])
    assert sparse.name == "log.csv, validated epochs"
    assert sparse.trace.chance_loss == 2.3


def test_negative_losses_are_lifted(write: Write) -> None:
    losses = [1.0, 0.0, -1.0, -2.0, -2.5, -2.4]
    log = only(write(table({"epoch": range(6), "loss": losses})))
    np.testing.assert_allclose(log.trace.train_loss - log.offset, losses)
    assert log.trace.train_loss.min() > 0
    assert log.trace.chance_loss == log.trace.train_loss[0]
    assert "Some losses are negative" in notes(log)


@pytest.mark.parametrize("losses", [[0.0] * 6, [math.nan] * 6, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0], [-1.0] * 6])
def test_odd_losses_have_a_score(write: Write, losses: list[float]) -> None:
    log = only(write(table({"epoch": range(6), "loss": losses})))
    assert log.trace.chance_loss > 0
    assert -1 <= score(log.trace).stability <= 1


def test_an_explosion_in_the_first_epoch_is_no_chance_level(write: Write) -> None:
    """Measured: a digits net at learning rate 30."""
    losses, accuracy = [278.0, 46.0, 53.0, 42.0, 41.0, 55.0], [0.104, 0.097, 0.099, 0.093, 0.096, 0.099]
    log = only(write(table({"epoch": range(6), "accuracy": accuracy, "loss": losses})))
    assert log.trace.chance_loss == pytest.approx(math.log(10), rel=0.05)
    assert "The accuracy never rose" in notes(log)
    risen = only(write(table({"epoch": range(6), "accuracy": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "loss": losses})))
    assert risen.trace.chance_loss == 278.0


def test_a_network_that_guesses_from_its_first_epoch_on_is_not_learning(write: Write) -> None:
    """Measured: a digits net with Adam at 0.3, whose first epoch is hardly above chance and whose guesses differ."""
    losses = [2.892, 2.351, 2.329, 2.333, 2.337, 2.338, 2.340, 2.341, 2.342, 2.343, 2.344, 2.344]
    accuracy = [0.126, 0.093, 0.083, 0.099, 0.1, 0.1, 0.098, 0.098, 0.098, 0.098, 0.098, 0.098]
    log = only(write(table({"epoch": range(12), "accuracy": accuracy, "loss": losses, "val_loss": losses})))
    assert log.trace.chance_loss == pytest.approx(math.log(10), rel=0.02)
    assert [finding.code for finding in detect(log.trace).findings][:1] == ["not_learning"]


@pytest.mark.parametrize(
    ("accuracy", "first_loss", "is_guessing"),
    [
        ([0.1] * 9, 2.5, False),
        ([0.1] * 9, 2.6, True),
        # Ten classes or a hundred: what a guess would cost is not known.
        ([0.4] * 9, 4.0, False),
        ([0.4] * 9, 5.0, True),
        # Up and down, or up.
        ([0.1, 0.14, 0.1] * 3, 9.0, True),
        ([0.1, 0.1, 0.1, 0.16, 0.16, 0.16, 0.1, 0.1, 0.1], 9.0, False),
        ([0.1] * 6 + [0.118] * 3, 9.0, True),
        ([0.1] * 6 + [0.122] * 3, 9.0, False),
        # Down: the first epochs were better than a guess by luck.
        ([0.17, 0.17, 0.1, 0.1, 0.1, 0.06, 0.06, 0.06, 0.06], 9.0, True),
        ([0.0] * 9, 9.0, False),
        ([1.0] * 9, 9.0, False),
    ],
)
def test_what_counts_as_a_loss_of_guessing(
    write: Write, accuracy: list[float], first_loss: float, is_guessing: bool
) -> None:
    losses = [first_loss] + [2.4] * 8
    log = only(write(table({"epoch": range(9), "accuracy": accuracy, "loss": losses})))
    assert ("The accuracy never rose" in notes(log)) is is_guessing


def test_a_network_whose_answers_were_worse_than_a_guess_learned_nothing(write: Write) -> None:
    """Of a digits net at a rate of 0.3: its accuracy of 0.057 is that of 18 classes, of which there are 10."""
    accuracy = [0.167, 0.08, 0.097, 0.09, 0.107, 0.09, 0.06, 0.057, 0.057, 0.057]
    losses = [115.3, 2.538, 2.403, 2.34, 2.32, 2.313, 2.315, 2.317, 2.316, 2.316]
    log = only(write(table({"epoch": range(10), "accuracy": accuracy, "loss": losses, "val_loss": losses})))
    assert log.trace.chance_loss == pytest.approx(2.313)
    assert [finding.code for finding in detect(log.trace).findings] == ["not_learning"]
    # An accuracy of 0.4 may be that of a network which has learned: the loss of guessing is what it is.
    lucky = only(write(table({"epoch": range(10), "accuracy": [0.4] * 10, "loss": [9.0, *losses[1:-1], 0.1]})))
    assert lucky.trace.chance_loss == pytest.approx(0.9163, abs=1e-3)


def test_a_loss_of_another_name(write: Write) -> None:
    file = write(table({"step": range(6), "train_loss": LOSSES, "valid": VALIDATION}))
    with pytest.raises(DataError, match=r"no column 'loss'. Columns of numbers: step, train_loss, valid. Did you mean"):
        read(file)
    log = only(file, loss_column="train_loss", val_column="valid")
    np.testing.assert_array_equal(log.trace.validation_loss, VALIDATION)
    with pytest.raises(DataError, match=r"--val-column 'valdi' is no column of 'log.csv'.*Did you mean .*'valid'"):
        read(file, loss_column="train_loss", val_column="valdi")
    with pytest.raises(DataError, match="--loss-column 'x' is no column"):
        read(file, loss_column="x")


def test_validation_of_a_named_loss_is_found(write: Write) -> None:
    file = write(table({"Epoch": range(6), "head_loss": LOSSES, "val_head_loss": VALIDATION}))
    np.testing.assert_array_equal(only(file, loss_column="head_loss").trace.validation_loss, VALIDATION)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("epoch,loss\n", "header and no rows: no epoch was finished. Columns: epoch, loss"),
        ("epoch,loss\n0,\n1,NA\n", "Column 'loss' of|no epoch with a value"),
        ("epoch,loss\n0,a\n1,b\n", "Column 'loss' of 'log.csv' holds no numbers"),
        ("epoch,accuracy\n0,0.5\n", "no column 'loss'. Columns of numbers: accuracy. Name it with --loss-column"),
        ("0,2.3\n1,1.2\n", "no header"),
        ("# Title, of a page\nSome text, more text\nand, more\n", "has no column of numbers, so it is no log"),
        ("just some text\nof a person\n", "no header"),
        ('epoch,loss\n0,"' + "x" * 200_000, "cannot be read as a table"),
        (b"epoch,loss\n0,\x001\n", "is a binary file"),
        (np.random.default_rng(0).bytes(32) + b"\x00", "is a binary file"),
        (b"\x80\x04\x95" + b"x" * 20, "is a pickle, which is not read, because a pickle runs any code.*json.dump"),
        (b"\x93NUMPY\x01\x00", "is a NumPy file, which is not read"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"PK\x03\x04", "is a zip archive"),
    ],
)
def test_files_that_are_no_log(write: Write, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(content))


def test_a_pickle_of_another_protocol_is_refused_by_its_name(write: Write) -> None:
    with pytest.raises(DataError, match="is a pickle, which is not read"):
        read(write(pickle.dumps({"loss": LOSSES}, protocol=0), "history.pkl"))


# --- JSON


@pytest.mark.parametrize(
    "content",
    [
        {"loss": LOSSES, "val_loss": VALIDATION},
        {"history": {"loss": LOSSES, "val_loss": VALIDATION}, "params": {"epochs": 6}, "epoch": list(range(6))},
        {"loss": [str(loss) for loss in LOSSES], "val_loss": [f"np.float32({loss})" for loss in VALIDATION]},
        {"loss": str(LOSSES), "val_loss": [[loss] for loss in VALIDATION]},
        {"loss": {str(epoch): loss for epoch, loss in enumerate(LOSSES)}, "val_loss": VALIDATION, "note": "x"},
        [{"epoch": n, "loss": a, "val_loss": b} for n, (a, b) in enumerate(zip(LOSSES, VALIDATION, strict=True))],
    ],
)
def test_history_as_json(write: Write, content: object) -> None:
    log = only(write(json.dumps(content), "history.json"))
    np.testing.assert_array_equal(log.trace.train_loss, LOSSES)
    np.testing.assert_array_equal(log.trace.validation_loss, VALIDATION)


def test_json_lines(write: Write) -> None:
    lines = "\n".join(json.dumps({"epoch": epoch, "loss": loss}) for epoch, loss in enumerate(LOSSES))
    np.testing.assert_array_equal(only(write(lines, "history.jsonl")).trace.train_loss, LOSSES)


def test_json_tokens_that_are_no_numbers(write: Write) -> None:
    log = only(write('{"loss": [2.3, 1.0, NaN, Infinity, "nan", 1' + "0" * 400 + "]}", "history.json"))
    assert np.isfinite(log.trace.train_loss).tolist() == [True, True, False, False, False, False]


def test_json_knows_the_budget(write: Write) -> None:
    log = only(write(json.dumps({"history": {"loss": LOSSES}, "params": {"epochs": 20}}), "history.json"))
    assert log.trace.planned_epochs == 20


def test_json_lists_of_unequal_length(write: Write) -> None:
    whole, sparse = read(write(json.dumps({"loss": LOSSES, "val_loss": [1.7, 1.1, 0.95]}), "history.json"))
    np.testing.assert_array_equal(sparse.trace.train_loss, LOSSES[1::2])
    assert "count as those of every 2 epochs" in notes(whole)
    cut = only(write(json.dumps({"loss": LOSSES, "val_loss": VALIDATION[:5]}), "history.json"))
    np.testing.assert_array_equal(cut.trace.validation_loss, [*VALIDATION[:5], VALIDATION[4]])
    longer = only(write(json.dumps({"loss": LOSSES[:5], "val_loss": VALIDATION}), "history.json"))
    np.testing.assert_array_equal(longer.trace.validation_loss, VALIDATION[:5])
    assert "the last ones are left out" in notes(longer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no valid JSON"),
        ("{}", "holds no list of numbers"),
        ("[]", "a list that is not of one mapping"),
        ("[1, 2]", "a list that is not of one mapping"),
        ('"text"', "holds a text, not lists"),
        ("3", "holds a number, not lists"),
        ("null", "holds nothing, not lists"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"loss": "high"}', "holds no list of numbers; its names are: loss"),
        ('{"loss": [true, false]}', "holds no list of numbers"),
        ('{"loss": []}', "holds no list of numbers"),
        ('{"loss": [null, null]}', "no epoch with a value"),
        ('{"accuracy": [0.5]}', "no column 'loss'"),
    ],
)
def test_json_that_is_no_history(write: Write, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(content, "history.json"))


# --- TensorBoard


def record(data: bytes) -> bytes:
    """A TFRecord, with the checksums of the package."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def event(step: int, *, seconds: float = 0.0, **values: float) -> bytes:
    """An event of scalars as a record; `values` by tag."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return record(Event(step=step, wall_time=seconds, summary=Summary(value=scalars)).SerializeToString())


def events(tag: str, losses: Sequence[float], start: float = 0.0) -> bytes:
    return b"".join(event(step, seconds=start + step, **{tag: loss}) for step, loss in enumerate(losses))


def keras_folder(folder: Path, *, train: bytes, validation: bytes = b"", number: int = 1) -> Path:
    for part, content in (("train", train), ("validation", validation)):
        if content:
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / f"events.out.tfevents.{number}.host.1.0.v2").write_bytes(content)
    return folder


def test_a_folder_of_keras(tmp_path: Path) -> None:
    folder = keras_folder(
        tmp_path / "logs", train=events("epoch_loss", LOSSES), validation=events("epoch_loss", VALIDATION)
    )
    log = only(folder)
    assert log.name == "logs"
    np.testing.assert_allclose(log.trace.train_loss, LOSSES, rtol=1e-6)
    np.testing.assert_allclose(log.trace.validation_loss, VALIDATION, rtol=1e-6)


def test_a_folder_of_keras_is_read_without_tensorflow(tmp_path: Path) -> None:
    folder = keras_folder(tmp_path / "logs", train=events("epoch_loss", LOSSES))
    code = (
        "import pathlib, sys; from tuner.stability.logs import read; "
        "assert read(pathlib.Path(sys.argv[1])); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60)


def test_a_folder_of_several_trainings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        keras_folder(tmp_path / "logs" / name, train=events("epoch_loss", LOSSES))
    assert [log.name for log in read(tmp_path / "logs")] == ["a", "b"]


def test_several_fits_in_one_folder_find_their_validation(tmp_path: Path) -> None:
    for number, start in ((1, 0.0), (2, 100.0)):
        keras_folder(
            tmp_path / "logs",
            train=events("epoch_loss", np.multiply(LOSSES, number).tolist(), start),
            validation=events("epoch_loss", np.multiply(VALIDATION, number).tolist(), start + 0.5)
            if number == 2
            else b"",
            number=number,
        )
    first, second = read(tmp_path / "logs")
    assert first.trace.validation_loss.size == 0
    np.testing.assert_allclose(second.trace.validation_loss, np.multiply(VALIDATION, 2), rtol=1e-6)


def test_one_file_with_both_losses(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.host"
    file.write_bytes(
        b"".join(event(n, loss=a, val_loss=b) for n, (a, b) in enumerate(zip(LOSSES, VALIDATION, strict=True)))
    )
    np.testing.assert_allclose(only(file).trace.validation_loss, VALIDATION, rtol=1e-6)
    np.testing.assert_allclose(only(tmp_path).trace.train_loss, LOSSES, rtol=1e-6)


def test_scalars_of_others_one_tag_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.host"
    file.write_bytes(events("Loss/train", LOSSES) + events("Loss/val", VALIDATION))
    with pytest.raises(DataError, match="Did you mean --loss-column 'Loss/train'"):
        read(file)
    log = only(file, loss_column="Loss/train", val_column="Loss/val")
    np.testing.assert_allclose(log.trace.validation_loss, VALIDATION, rtol=1e-6)


def test_batches_are_not_taken_for_epochs(tmp_path: Path) -> None:
    train = events("batch_loss", [9.0] * 50) + events("epoch_loss", LOSSES)
    log = only(keras_folder(tmp_path / "logs", train=train))
    np.testing.assert_allclose(log.trace.train_loss, LOSSES, rtol=1e-6)


def test_a_part_alone_says_so(tmp_path: Path) -> None:
    keras_folder(tmp_path, train=events("epoch_loss", LOSSES), validation=events("epoch_loss", VALIDATION))
    assert "Only the part 'train' was read" in notes(only(tmp_path / "train"))


def test_damaged_event_files(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.host"
    whole = events("epoch_loss", LOSSES)
    file.write_bytes(whole[:-7])
    assert only(file).trace.num_epochs == 5
    assert "ends inside a record" in notes(only(file))
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF
    file.write_bytes(bytes(flipped))
    assert only(file).trace.num_epochs == 5
    assert "a damaged record" in notes(only(file))
    file.write_bytes(whole + b"garbage that is no record at all")
    assert "is damaged, or no event file, from byte" in notes(only(file))
    file.write_bytes(whole + record(b"\xff\xff\xff") + record(b"x" * 100_000))
    assert "1 damaged record is left out" in notes(only(file))
    file.write_bytes(b"")
    with pytest.raises(DataError, match="holds no scalars"):
        read(file)


def test_validation_that_belongs_nowhere(tmp_path: Path) -> None:
    folder = keras_folder(
        tmp_path / "l", train=events("epoch_loss", LOSSES[:5]), validation=events("epoch_loss", LOSSES)
    )
    assert "1 validation value belongs to no epoch" in notes(only(folder))


def test_tensorboard_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = keras_folder(tmp_path / "logs", train=events("epoch_loss", LOSSES))
    for module in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(EnvironmentFault, match="pip install tensorboard"):
        read(folder)


# --- Our own runs


def seed_run(trial: int, index: int = 0, message: str = "") -> SeedRun:
    result = score(trace(decay()))
    return SeedRun(trial, index, 7, Outcome.COMPLETED, 0.1, 0.1, result, {}, 20, 100, 10, 1.0, message)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with two finished trials."""
    folder = RunFolder(tmp_path / "run")
    folder.trials_dir.mkdir(parents=True)
    folder.config_file.write_text("trials: 2\n")
    for number in range(2):
        folder.save_seed_run(seed_run(number), trace(decay(), metrics={"accuracy": np.ones(20)}))
    return folder


def test_a_run_a_trial_and_a_seed_run(run: RunFolder) -> None:
    assert [log.name for log in read(run.root)] == ["trial 0, seed run 0", "trial 1, seed run 0"]
    for path in (run.trials_dir / "0001", run.seed_run_dir(1, 0)):
        log = only(path)
        assert log.name == "trial 1, seed run 0"
        assert log.trace.step_loss.size == 2000
        assert log.metrics == ("accuracy",)


def test_of_a_run_of_ours_what_was_recorded_stands(run: RunFolder) -> None:
    recorded = Finding("loss_spike", "", 0.6, 0.9, {}, "as recorded")
    cause = Finding("learning_rate_too_high", "", 0.6, 0.9, {}, "the search knew the rate")
    folder = run.seed_run_dir(1, 0)
    kept = dataclasses.replace(run.load_seed_runs(1)[0], findings=(recorded,), causes=(cause,))
    run.save_seed_run(kept, run.load_trace(1, 0))
    (log,) = read(folder)
    found = diagnose_log(log)
    assert (found.symptoms, found.causes) == ((recorded,), (cause,))
    # Other evidence asks for another diagnosis; so do records of earlier versions, which hold none.
    assert recorded not in diagnose_log(log, {"learning_rate": 1.0}).symptoms
    assert diagnose_log(dataclasses.replace(log, findings=(), causes=())).causes != (cause,)


def test_a_run_without_trials_or_with_damaged_ones(run: RunFolder) -> None:
    (run.seed_run_dir(0, 0) / "trace.npz").write_bytes(b"")
    (log,) = read(run.root)
    assert "cannot be read" in notes(log)
    (run.seed_run_dir(1, 0) / "record.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        read(run.root)
    for number in range(2):
        run.clear_trial(number)
    with pytest.raises(RunError, match="no finished trial yet"):
        read(run.root)


def test_a_run_has_no_columns_to_choose(run: RunFolder) -> None:
    with pytest.raises(DataError, match="which has no column 'loss'"):
        read(run.root, loss_column="loss")


# --- Paths


def test_a_wrong_path_names_its_neighbours(write: Write, tmp_path: Path) -> None:
    write("", "training.csv")
    with pytest.raises(DataError, match=r"no file or folder .*Did you mean '.*training\.csv'"):
        read(tmp_path / "trainng.csv")
    with pytest.raises(DataError, match=r"In its folder: training\.csv"):
        read(tmp_path / "x")
    with pytest.raises(DataError, match="There is no file or folder"):
        read(tmp_path / "no" / "such" / "folder")
    with pytest.raises(DataError, match=r"There is no file or folder|cannot be read"):
        read(tmp_path / ("x" * 5000))


def test_a_folder_without_a_log(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run and holds no TensorBoard event files"):
        read(tmp_path)
    write("epoch,loss\n0,1\n")
    with pytest.raises(DataError, match=r"Did you mean '.*log\.csv'"):
        read(tmp_path)


def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(write: Write) -> None:
    file = write("epoch,loss\n0,1\n")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read(file)


def test_a_log_that_is_far_too_long(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.stability.logs.MAX_LOG_BYTES", 10)
    with pytest.raises(DataError, match="too many for a log"):
        read(write("epoch,loss\n0,1\n"))


def test_a_hundred_thousand_epochs(write: Write) -> None:
    num_epochs = 100_000
    losses = decay(num_epochs)
    log = only(write(table({"epoch": range(num_epochs), "loss": losses.tolist(), "val_loss": losses.tolist()})))
    np.testing.assert_array_equal(log.trace.train_loss, losses)


# --- Anything at all

CELLS = st.one_of(
    st.sampled_from(["", "NA", "nan", "inf", "-inf", "0", "1", "2", "0.5", "1e999", "-3", "x", '"', ",", ";", "#"]),
    st.floats().map(str),
    st.text(max_size=5),
)
NAMES = st.sampled_from(["epoch", "loss", "val_loss", "lr", "accuracy", "val_x", "", "loss"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def judge(path: Path) -> None:
    """Read it, or be told why not in words; what was read has a score."""
    try:
        logs = read(path)
    except (DataError, RunError):
        return
    assert logs
    for log in logs:
        assert log.trace.num_epochs > 0
        assert len(log.trace.validation_loss) in (0, log.trace.num_epochs)
        assert 0 < log.trace.chance_loss < math.inf
        assert -1 <= score(log.trace).stability <= 1


@given(st.binary(max_size=200))
@example(b"epoch,loss\n0,1\n0,1e308\n")
@QUICK
def test_any_bytes(write: Write, content: bytes) -> None:
    for name in ("log.csv", "history.json", "events.out.tfevents.1"):
        judge(write(content, name))


@given(st.lists(NAMES, max_size=5), st.lists(st.lists(CELLS, max_size=6), max_size=12), st.sampled_from(",;\t|"))
@example(["epoch", "loss"], [["0", "-1e308"], ["1", "1e308"], ["2", "0"]], ",")
@example(["epoch", "loss", "accuracy"], [["0", "2", "1e-320"], ["1", "1", "1e-320"]], ",")
@QUICK
def test_any_table(write: Write, header: list[str], rows: list[list[str]], separator: str) -> None:
    text = "\n".join(separator.join(row) for row in [header, *rows])
    judge(write(text.encode("utf-8", "surrogatepass")))


@given(VALUES)
@QUICK
def test_any_json(write: Write, value: object) -> None:
    judge(write(json.dumps(value), "history.json"))


@given(st.lists(st.tuples(st.integers(-5, 5), st.floats(width=32), st.booleans()), max_size=12), st.binary(max_size=30))
@QUICK
def test_any_events(tmp_path: Path, scalars: list[tuple[int, float, bool]], tail: bytes) -> None:
    parts = {
        is_train: b"".join(event(step, epoch_loss=value) for step, value, which in scalars if which is is_train)
        for is_train in (True, False)
    }
    judge(keras_folder(tmp_path / "logs", train=parts[True] + tail, validation=parts[False] + record(tail)))
