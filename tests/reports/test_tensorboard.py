"""What is written for TensorBoard, read by TensorBoard's own reader and by `diagnose`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reports.tensorboard import write_tensorboard
from tuner.errors import EnvironmentFault, RunError
from tuner.search.study import load_trials
from tuner.stability import logs
from tuner.store import RunFolder


def test_tensorboard_reads_curves_and_configurations(finished_run: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = RunFolder.open(finished_run)
    trials = load_trials(folder)
    assert write_tensorboard(folder, tmp_path / "tb") == len(trials) == 2
    for trial in trials:
        events = EventAccumulator(str(tmp_path / "tb" / f"trial_{trial.number:04d}"))
        events.Reload()
        assert [each.value for each in events.Scalars("val_loss")] == pytest.approx(trial.epoch_losses)
        assert [each.step for each in events.Scalars("loss")] == [1, 2]
        assert events.Scalars("objective")[0].value == pytest.approx(trial.objective)
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = HParamsPluginData.FromString(content).session_start_info
        assert start.group_name == f"trial_{trial.number:04d}"
        assert start.hparams["learning_rate"].number_value == pytest.approx(trial.hyperparameters["learning_rate"])
        assert start.hparams["optimizer"].string_value == trial.hyperparameters["optimizer"]


def test_a_trial_without_a_trace_has_what_was_reported(finished_copy: Path, tmp_path: Path) -> None:
    folder = RunFolder.open(finished_copy)
    (folder.seed_run_dir(1, 0) / "trace.npz").unlink()
    write_tensorboard(folder, tmp_path / "tb")
    first, second = logs.read(tmp_path / "tb", loss_column="val_loss")
    assert first.trace.num_epochs == second.trace.num_epochs == 2
    assert set(first.trace.metrics) - set(second.trace.metrics) == {"accuracy"}


def test_a_folder_with_something_in_it_is_refused(finished_run: Path, tmp_path: Path) -> None:
    folder = RunFolder.open(finished_run)
    (tmp_path / "tb").mkdir()
    write_tensorboard(folder, tmp_path / "tb")
    with pytest.raises(RunError, match=r"is not empty, and TensorBoard would show both\. Name a new folder"):
        write_tensorboard(folder, tmp_path / "tb")


def test_a_missing_package_is_named(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(EnvironmentFault, match=r"tensorboard.* is missing or broken.*pip install tensorboard"):
        write_tensorboard(RunFolder.open(finished_run), tmp_path / "tb")
