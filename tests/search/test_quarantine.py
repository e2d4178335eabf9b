"""Damaged files of a real run: each kind is named and set aside, and status, report, export and search go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest

from reports import write_report
from tuner.cli import cli
from tuner.records import Adaptation, Claim, ConfirmPlan, RateRange, RateSweep, SweptTrial
from tuner.search.quarantine import find_damaged, named, quarantine
from tuner.search.study import load_trials
from tuner.store import RunFolder, write_json

ROOT = Path(__file__).parents[2]

# One of each kind; those that a short search does not leave are written by `complete`.
KINDS = (
    "trials/0000/seed_0/record.json",
    "trials/0000/seed_0/trace.npz",
    "trials/0000/seed_0/model.keras",
    "trials/0000/seed_9/checkpoint.npz",
    "trials/0000/seed_9/crashes.json",
    "trials/0000/margin.json",
    "margins/key.json",
    "workers/7.json",
    "adaptation.json",
    "confirm.json",
    "rate_range.json",
    "ending.json",
    "environment.json",
    "data/prepared",
)


@pytest.fixture
def run(finished_copy: Path) -> RunFolder:
    folder = RunFolder(finished_copy)
    sweep = RateSweep((1.0, None), 2.0, 3.0)
    write_json(folder.sweep_file("key"), sweep)
    write_json(folder.swept_file(0), SweptTrial("key", 0.1))
    write_json(folder.claim_file(7), Claim(7, 0, 1))
    write_json(folder.adaptation_file, Adaptation())
    write_json(folder.confirm_file, folder.load_confirm_plan() or ConfirmPlan((0,), 3))
    write_json(folder.rate_range_file, RateRange(0.1, 1.0, (sweep,)))
    write_json(folder.ending_file, "it was enough")
    seed = folder.seed_run_dir(0, 9)
    write_json(seed / "crashes.json", 1)
    shutil.copy(folder.seed_run_dir(0, 0) / "trace.npz", seed / "checkpoint.npz")
    return folder


def damage(folder: RunFolder, kind: str, how: str) -> Path:
    """Cut one file short, or fill it with noise; returns what is set aside."""
    path = folder.root / kind
    if kind == "data/prepared":
        path = min(each for each in path.iterdir() if each.is_dir())
    file = path / "train_x.npy" if path.is_dir() else path
    content = file.read_bytes()
    noise = bytes(np.random.default_rng(0).integers(0, 256, len(content), dtype=np.uint8))
    file.write_bytes({"cut": content[: len(content) // 2 - 1], "noise": noise}[how])
    return path


def test_a_sound_run_has_no_damage(run: RunFolder) -> None:
    assert find_damaged(run) == []
    assert (named(run, []), quarantine(run, [])) == ("", "")
    assert not run.quarantine_dir.exists()
    assert all((run.root / kind).exists() for kind in KINDS)


@pytest.mark.parametrize("how", ["cut", "noise"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_named_and_set_aside(run: RunFolder, kind: str, how: str) -> None:
    path = damage(run, kind, how)
    assert find_damaged(run) == [path]
    place = str(path.relative_to(run.root))

    # What only reads leaves the file where it is.
    shown = click.testing.CliRunner().invoke(cli, ["status", str(run.root)], standalone_mode=False)
    assert shown.exception is None
    assert f"Damaged, and not used: {place}." in shown.output.replace("\n", " ")
    write_report(run)
    assert [trial.number for trial in load_trials(run)] == [0, 1]
    assert find_damaged(run) == [path]

    told = quarantine(run, find_damaged(run))
    assert told == f"Damaged, and not used: {place}. Moved to {run.quarantine_dir}; the rest goes on."
    assert (run.quarantine_dir / place).exists()
    assert not path.exists()
    assert find_damaged(run) == []
    write_report(run)


def test_a_file_that_is_damaged_twice_is_kept_twice(run: RunFolder) -> None:
    for _ in range(2):
        run.adaptation_file.write_text("{", encoding="utf-8")
        quarantine(run, find_damaged(run))
    assert sorted(file.name for file in run.quarantine_dir.iterdir()) == ["adaptation.json", "adaptation.json.1"]


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_and_an_export_go_on_without_what_is_damaged(finished_copy: Path, tmp_path: Path) -> None:
    folder = RunFolder(finished_copy)
    for kind in ("trials/0000/seed_1/record.json", "trials/0001/seed_0/trace.npz", "data/prepared", "environment.json"):
        if kind != "trials/0000/seed_1/record.json" or (folder.root / kind).is_file():
            damage(folder, kind, "cut")
    options = ["--trials", 3, "--epochs", 2, "--confirm", 0, "--workers", 1, "--run", folder.root]
    search = command("search", *options)
    assert search.returncode in (0, 1), search.stderr
    assert "Damaged, and not used: " in search.stderr
    assert [trial.outcome.is_failed for trial in load_trials(folder)] == [False, False, False]
    assert find_damaged(folder) == []

    for file in folder.trials_dir.glob("*/seed_*/model.keras"):
        file.write_bytes(file.read_bytes()[:1000])
    export = command("export", folder.root, "-o", tmp_path / "bundle")
    assert export.returncode == 0, export.stderr
    assert (tmp_path / "bundle" / "model.keras").is_file()
