"""The command line: documented completely, every exit code, one clear error for bad input, JSON and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tuner import interrupts
from tuner.cli import cli, main
from tuner.config import SearchConfig
from tuner.records import Outcome
from tuner.search.study import Study
from tuner.store import RunFolder

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "cli.md"
COMMANDS = [
    "search",
    "audit",
    "status",
    "confirm",
    "report",
    "export",
    "predict",
    "train",
    "diagnose",
    "spaces",
    "submit",
    "cancel",
    "worker",
    "standby",
    "job",
]


class Ended(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Runs a command in this process, in an empty folder."""
    handler = signal.getsignal(signal.SIGTERM)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)


# --- the document ------------------------------------------------------------------------------------------------


def documented() -> dict[str, dict[str, str]]:
    """Default of each option by its flags, by command, as docs/cli.md tells them."""
    sections = re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    told = {}
    for section in sections:
        rows = re.findall(r"^\| (`-[^|]*) \| ([^|]*) \| [^|]+ \|$", section, re.MULTILINE)
        told[section.partition("\n")[0]] = {
            " ".join(re.findall(r"(?<![\w-])--?[\w-]+", options)): default for options, default in rows
        }
    del told["Exit codes"]
    # It takes the options of a search that are keys of its configuration, which are told once.
    keys = {f"--{name.replace('_', '-')}" for name in SearchConfig.model_fields}
    keys |= {"--config", *(f"--no-{name.replace('_', '-')}" for name in SearchConfig.model_fields)}
    shared = {flags: default for flags, default in told["search"].items() if flags in keys}
    told["submit"] = shared | told["submit"]
    return told


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {" ".join(option.opts): option for option in command.params if isinstance(option, click.Option)}


def test_every_command_is_documented_and_no_other() -> None:
    assert list(documented()) == COMMANDS
    assert set(cli.commands) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_and_no_other(name: str) -> None:
    assert documented()[name].keys() == options_of(cli.commands[name]).keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documented_defaults_are_the_real_ones(name: str) -> None:
    context = click.Context(cli.commands[name], **cli.context_settings)
    for flags, option in options_of(cli.commands[name]).items():
        default, told = option.get_default(context), documented()[name][flags]
        if option.is_flag:
            assert (default == option.flag_value, told) == (False, "off"), flags
        elif option.required:
            assert told == "required", flags
        elif option.multiple or not isinstance(default, str | int | float):
            assert told not in ("off", "required", ""), flags
        else:
            assert told == str(default), flags


def test_every_exit_code_is_documented_as_in_the_readme() -> None:
    codes = re.compile(r"^\| ([\d, ]+) \|", re.MULTILINE)
    document = DOCUMENT.read_text(encoding="utf-8").partition("## Exit codes")[2]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert codes.findall(document) == ["0", "1", "2", "3", "4", "70", "130, 143"]
    assert codes.findall(readme) == codes.findall(document)


def test_every_configuration_key_is_an_option_of_search() -> None:
    options = {option.name for option in cli.commands["search"].params}
    assert set(SearchConfig.model_fields) <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    command = cli.commands[name]
    for option in options_of(command).values():
        assert option.help, option.opts
        assert option.opts[-1] in result.stdout


def test_help_lists_the_commands_and_version_the_version(tuner: Run) -> None:
    told = tuner("-h")
    assert told.code == 0
    assert all(
        re.search(rf"^  {name} ", told.out, re.MULTILINE)
        for name in COMMANDS
        if name not in ("worker", "standby", "job")
    )
    assert re.fullmatch(r"tuner, version \d+\.\d+\.\d+\n", tuner("--version").out)
    assert tuner().code == 2


# --- bad usage ---------------------------------------------------------------------------------------------------


def assert_one_error(ended: Ended, code: int, message: str) -> None:
    """One error on stderr that matches, no traceback, nothing on stdout, the exit code."""
    assert re.search(message, ended.err), ended.err
    assert "Traceback" not in ended.err
    assert len(re.findall(r"^\w*(?:Error|Fault|Bug): ", ended.err, re.MULTILINE)) == 1, ended.err
    assert ended.out == ""
    assert ended.code == code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("serch", r"No such command 'serch'.*Did you mean 'search'"),
        ("search --trails 5", r"No such option.*--trails.*Did you mean .*--trials"),
        ("search --trials many", r"'many' is not a valid integer"),
        ("search --algorithm bayes", r"'bayes' is not one of 'tpe', 'random'"),
        ("search a b", r"unexpected extra argument"),
        ("status", r"Missing argument 'RUN'"),
        ("export x", r"Missing option '-o'"),
        ("export x -o y --trial -1", r"-1 is not in the range x>=0"),
        ("train x --seed -1", r"-1 is not in the range"),
        ("predict x", r"Missing argument 'DATA'"),
        ("search --events .", r"'\.' is a directory"),
        ("search --trials 0 --epochs 0", r"ConfigError: .*(\n.*)*trials: .*\n.*epochs: "),
        ("search --time-limit soon", r"time_limit: 'soon' is not a time\. Write 90s"),
        ("search --range learning_rate", r"--range 'learning_rate' is not of the form NAME=VALUE.*1e-4:1e-2"),
        ("search --fix =adam", r"--fix '=adam' is not of the form NAME=VALUE.*optimizer=adam"),
        ("search --config none.yaml", r"'none\.yaml' cannot be read: No such file"),
        ("audit --seed -1", r"ConfigError: .*\n.*seed: .*greater than or equal to 0"),
        ("audit --image-size 4", r"ConfigError: .*\n.*image_size: "),
        ("audit --task classfication", r"'classfication' is not one of"),
    ],
)
def test_bad_usage(tuner: Run, words: str, message: str) -> None:
    assert_one_error(tuner(*words.split()), 2, message)


@pytest.mark.parametrize("name", ["none", "file", "x" * 300, "a\nb", "[/red]", ""])
@pytest.mark.parametrize("command", ["status", "report", "export"])
def test_what_is_no_run_folder(tuner: Run, command: str, name: str) -> None:
    Path("file").write_text("x")
    more = ["-o", "bundle"] if command == "export" else []
    assert_one_error(tuner(command, name, *more), 2, r"RunError: .* is not a run folder.*python -m tuner search DATA")
    assert not Path("bundle").exists()


@pytest.mark.parametrize("name", ["none", "file", "x" * 300])
def test_what_is_no_bundle(tuner: Run, name: str) -> None:
    Path("file").write_text("x")
    message = r"BundleError: .* is no bundle: it has no manifest\.json\. Make one with: python -m tuner export"
    assert_one_error(tuner("predict", name, "data.csv", "-o", "out.csv"), 2, message)
    assert not Path("out.csv").exists()


# --- bad data ----------------------------------------------------------------------------------------------------


def table(text: str, name: str = "data.csv") -> str:
    Path(name).write_text(text)
    return name


def rows(num: int, *, label: Callable[[int], object] = lambda row: f"k{row % 2}", cell: str = "") -> str:
    """A table of two columns of numbers and a label."""
    lines = [f"{np.sin(row):.6f},{cell or f'{np.cos(3 * row):.6f}'},{label(row)}" for row in range(num)]
    return "\n".join(["a,b,label", *lines]) + "\n"


def empty_folder() -> str:
    Path("data").mkdir()
    return "data"


def folder_without_subfolders() -> str:
    Path("data").mkdir()
    Image.new("L", (8, 8)).save("data/a.png")
    return "data"


def unreadable_images(count: int) -> str:
    for name in ("cats", "dogs"):
        Path("data", name).mkdir(parents=True)
        for index in range(8):
            Image.new("L", (8, 8), index * 9).save(f"data/{name}/{index}.png")
    for index in range(count):
        Path(f"data/cats/{index}.png").write_bytes(b"no image")
    return "data"


def archive(**arrays: Any) -> str:
    np.savez("data.npz", **arrays)
    return "data.npz"


def unknown_type() -> str:
    Path("data.xyz").write_text("x")
    return "data.xyz"


IMAGES = np.zeros((20, 8, 8), np.uint8)
BAD_DATA: dict[str, tuple[Callable[[], str], list[str], str]] = {
    "missing path": (lambda: "none.csv", [], r"none\.csv"),
    "empty folder": (empty_folder, [], r"'data'"),
    "no sub-folders": (folder_without_subfolders, [], r"sub-folder"),
    "2 of 16 images unreadable": (lambda: unreadable_images(2), [], r"2 of 16 images(.|\n)*cats/1\.png: not an image"),
    "unknown file type": (unknown_type, [], r"data\.xyz"),
    "npz without the keys": (lambda: archive(a=IMAGES, b=np.zeros(20)), [], r"\ba\b.*\bb\b"),
    "x and y of different length": (lambda: archive(x=IMAGES, y=np.arange(19) % 2), [], r"20.*19"),
    "one class only": (lambda: table(rows(40, label=lambda _: "k")), ["--target", "label"], r"class"),
    "fewer samples than classes": (lambda: table(rows(4, label=lambda n: f"k{n}")), ["--target", "label"], r"4"),
    "target column missing": (lambda: table(rows(40)), ["--target", "lable"], r"'lable'.*Did you mean.*label"),
    "text in a numeric column": (
        lambda: table(rows(40).replace("-0.989992", "n/k!")),
        ["--target", "label"],
        r"'b'.*(\n.*)*n/k!",
    ),
    "columns without values": (
        lambda: table("a,b,label\n" + "".join(f",nan,k{row % 2}\n" for row in range(40))),
        ["--target", "label"],
        r"'data\.csv' has no column left to learn from",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("command", ["search", "audit"])
def test_bad_data_is_one_clear_error_and_leaves_nothing(tuner: Run, command: str, case: str) -> None:
    make, options, message = BAD_DATA[case]
    words = [command, make(), *options]
    ended = tuner(*words, *(["--quiet"] if command == "search" else []))
    assert_one_error(ended, 2, rf"DataError: (.|\n)*{message}")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: unreadable_images(1), r"1 of 16 images cannot be read and was left out:\s+cats/0\.png: not an image"),
        (lambda: table(rows(40, cell="nan")), r"Column b: left out, without any value"),
    ],
    ids=["1 of 16 images unreadable", "column without values"],
)
def test_what_is_left_out_of_the_data_is_said(tuner: Run, make: Callable[[], str], note: str) -> None:
    data = make()
    assert re.search(f"note: {note}", (told := tuner("audit", data)).err), told.err
    assert told.code in (0, 3)
    notes = json.loads(tuner("audit", data, "--json").out)["notes"]
    assert re.search(note, "\n".join(notes))


def test_severe_faults_stop_search_and_audit_with_exit_code_3(tuner: Run) -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(60, 2)), 2, axis=0)
    text = "a,b,label\n" + "".join(f"{p},{q},k{row % 2}\n" for row, (p, q) in enumerate(x))
    assert_one_error(
        tuner("search", table(text), "--target", "label", "-q"), 3, r"AuditError: .*severe faults(.|\n)*--force"
    )
    assert not Path("runs").exists()
    audited = tuner("audit", "data.csv", "--target", "label", "--json")
    assert audited.code == 3
    findings = json.loads(audited.out)["findings"]
    assert findings[0]["severity"] >= 0.9
    assert {"code", "severity", "evidence", "remedies"} <= findings[0].keys()
    assert tuner("audit", "data.csv", "--target", "label").code == 3


def test_clean_data_passes_the_audit(tuner: Run) -> None:
    told = tuner("audit", "--json")
    assert told.code == 0
    found = json.loads(told.out, parse_constant=pytest.fail)
    assert (found["data"], found["findings"]) == ("scikit-learn digits", [])
    assert "1,797 real handwritten digits" in found["notes"][0]
    assert tuner("audit").out == ""


def test_the_audit_as_a_page_and_in_lines_with_examples_and_remedies(tuner: Run) -> None:
    lines = rows(400, label=lambda row: f"k{row % 2}").splitlines()
    lines[7:9] = ["1e6,1,k0", "1e6,1,k1"]
    told = tuner("audit", table("\n".join(lines)), "--target", "label", "--html", "page.html")
    assert told.code == 0, told.err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "outliers" in page
    assert "default-src &#39;none&#39;" in page
    assert "outliers (severity " in told.err
    assert "    outliers: clip. Clips each column" in told.err
    assert "Page: page.html" in told.err


def test_json_of_hostile_data_is_strict(tuner: Run) -> None:
    lines = rows(60, label=lambda row: f"k{row % 2}").splitlines()
    lines[5:8] = ["inf,1e30,k0", "-inf,nan,k1", "nan,-1e30,k0"]
    told = tuner("audit", table("\n".join(lines)), "--target", "label", "--json")
    assert told.code in (0, 3)
    assert json.loads(told.out, parse_constant=pytest.fail)["findings"]


def test_figures_that_are_no_numbers_are_null(tuner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"val_loss": float("nan"), "outcome": "diverged", "more": [float("inf"), 1.5]}
    monkeypatch.setattr("tuner.retrain.train_again", lambda *_, **__: figures)
    told = tuner("train", "bundle", "--json")
    assert json.loads(told.out, parse_constant=pytest.fail) == {
        "val_loss": None,
        "outcome": "diverged",
        "more": [None, 1.5],
    }


# --- run folders and the environment -------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["file", "file/deeper", "y" * 300])
def test_a_run_folder_that_cannot_be_made_is_a_fault_of_the_environment(tuner: Run, root: str) -> None:
    Path("file").write_text("x")
    assert_one_error(tuner("search", "-q", "--run", root), 4, r"EnvironmentFault: Cannot write '")


def test_no_permission_is_a_fault_of_the_environment(tuner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # As root every folder may be written, so the system's answer is made up.
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_one_error(tuner("search", "-q", "--run", "runs/x"), 4, r"Cannot write 'runs/x.*': Permission denied")


def test_a_missing_package_is_a_fault_of_the_environment(tuner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    ended = tuner("audit")
    assert_one_error(ended, 4, r"EnvironmentFault: The package 'rich' is missing or broken.*-m pip install rich")


def test_a_bug_is_told_with_its_traceback(tuner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr("tuner.search.setup.prepare", fail)
    ended = tuner("search")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "ZeroDivisionError: made up" in ended.err
    assert "This is a bug of tuner" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(("exception", "code"), [(KeyboardInterrupt, 130), (interrupts.Terminated, 143)])
def test_a_stop_before_the_first_worker(
    tuner: Run, monkeypatch: pytest.MonkeyPatch, exception: type[BaseException], code: int
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise exception

    monkeypatch.setattr("tuner.search.setup.prepare", stop)
    ended = tuner("search", "--json")
    assert (ended.code, ended.out) == (code, "")
    assert "Everything finished so far is saved" in ended.err


# --- on a finished run -------------------------------------------------------------------------------------------

BEST_KEYS = {"trial", "hyperparameters", "objective", "stability", "val_loss", "val_accuracy", "confirmed"}


def assert_result(text: str, root: Path, *, total: int) -> dict[str, Any]:
    """The text is the JSON document of the contract."""
    told: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    assert told.keys() == {"run", "trials", "best", "seconds"}
    assert told["run"] == str(root)
    assert told["trials"]["total"] == total == sum(told["trials"].values()) - total
    assert set(told["trials"]) - {"total"} <= set(Outcome)
    assert told["best"].keys() >= BEST_KEYS
    assert isinstance(told["best"]["confirmed"], bool)
    assert told["seconds"] > 0
    return told


def test_a_search_that_is_over_says_so_again_without_a_worker(
    tuner: Run, finished_search: subprocess.CompletedProcess[str], finished_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("tuner.search.standby.start_process", fail)
    monkeypatch.setattr("tuner.search.crew.start_process", fail)
    config = RunFolder(finished_copy).load_config()
    words = ["--trials", config.trials, "--epochs", config.epochs, "--confirm", config.confirm, "--seed", config.seed]
    words += ["--workers", config.workers, "--json", "--run", finished_copy]
    again = tuner("search", *words)
    assert again.code == finished_search.returncode, again.err
    assert json.loads(again.out)["best"] == json.loads(finished_search.stdout)["best"]
    assert f"Going on with {finished_copy}" in again.err


def test_a_run_with_a_damaged_configuration_is_one_clear_error_also_when_it_is_over(
    tuner: Run, finished_copy: Path
) -> None:
    (finished_copy / "config.yaml").write_text("trials: [", encoding="utf-8")
    assert_one_error(tuner("search", "--run", finished_copy), 2, "config.yaml")


def test_a_search_ends_with_its_json_and_its_story(
    finished_search: subprocess.CompletedProcess[str], finished_run: Path
) -> None:
    told = assert_result(finished_search.stdout, finished_run, total=2)
    stability = told["best"]["stability"]
    assert finished_search.returncode == (0 if stability >= 0.8 else 1)
    for part in (
        "New run in",
        "1,257 rows to train",
        "trial 0: ",
        "Best: trial ",
        "Report: ",
        "Next:   python -m tuner",
    ):
        assert part in finished_search.stderr
    assert "Traceback" not in finished_search.stderr
    assert (finished_run / "report.html").is_file()
    lines = (finished_run.parent / "events.jsonl").read_text().splitlines()
    events = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("search_started", "search_finished")
    assert [names.count(name) for name in ("trial_started", "epoch", "trial_finished")] == [2, 4, 2]
    assert [event["trial"] for event in events if event["event"] == "trial_finished"] == [0, 1]
    assert all(
        event["hyperparameters"].keys() >= {"learning_rate"} for event in events if event["event"] == "trial_started"
    )


def test_status_tells_the_same(tuner: Run, finished_run: Path) -> None:
    told = assert_result(tuner("status", finished_run, "--json").out, finished_run, total=2)
    assert told["seconds"] < 600
    shown = tuner("status", finished_run)
    assert (shown.code, shown.out) == (0, "")
    assert f"{finished_run}: 2 of 2 trials finished" in shown.err


def test_status_shows_folders_and_messages_with_brackets(tuner: Run, finished_copy: Path) -> None:
    root = Path(shutil.move(finished_copy, finished_copy.parent / "a [bold] [" / "y] name"))
    study = Study(RunFolder(root))
    trial = study.ask(99)
    assert trial is not None
    study.finish(trial.number, 9.0, outcome=Outcome.ERROR, message="bad [/job:localhost] [x]")
    shown = tuner("status", root)
    assert shown.code == 0
    assert f"{root}: 3 of 2 trials finished" in shown.err
    assert "bad [/job:localhost] [x]" in " ".join(shown.err.split())


def test_time_does_not_run_for_a_trial_that_was_put_back(tuner: Run, finished_copy: Path) -> None:
    before = json.loads(tuner("status", finished_copy, "--json").out)["seconds"]
    study = Study(RunFolder(finished_copy))
    study.ask(99)
    study.give_back(crashed=False)
    told = json.loads(tuner("status", finished_copy, "--json").out)
    assert told["trials"]["waiting"] == 1
    assert told["seconds"] == before


def test_the_time_of_a_run_counts_its_fresh_trainings_too(tuner: Run, finished_copy: Path) -> None:
    before = json.loads(tuner("status", finished_copy, "--json").out)["seconds"]
    folder = RunFolder(finished_copy)
    (run,) = folder.load_seed_runs(0)
    folder.save_seed_run(dataclasses.replace(run, seed_index=1, seconds=100.0), folder.load_trace(0, 0))
    assert json.loads(tuner("status", finished_copy, "--json").out)["seconds"] == pytest.approx(before + 100)


def test_a_run_whose_record_is_gone_is_still_shown(tuner: Run, finished_copy: Path) -> None:
    record = finished_copy / "trials" / "0000" / "seed_0" / "record.json"
    record.write_text(record.read_text()[:100])
    for command in ("status", "report"):
        ended = tuner(command, finished_copy)
        assert ended.code == 0
    assert re.search(r"record\.json.*Delete that file", tuner("status", finished_copy).err)
    assert "record.json" in (finished_copy / "report.html").read_text()
    for file in (finished_copy / "trials" / "0000").rglob("record.json"):
        file.unlink()
    assert tuner("status", finished_copy).code == 0
    assert tuner("report", finished_copy).code == 0
    ended = tuner("export", finished_copy, "-o", "bundle", "--trial", 0)
    assert_one_error(ended, 2, r"RunError: ")


def test_a_damaged_study_is_a_fault_of_the_environment(tuner: Run, finished_copy: Path) -> None:
    (finished_copy / "study.db").write_bytes(b"no database, but as long as one" * 60)
    for words in (["status", finished_copy], ["report", finished_copy], ["export", finished_copy, "-o", "b"]):
        assert_one_error(tuner(*words), 4, r"EnvironmentFault: The study .*study\.db' cannot be used")


def test_report_prints_its_path(tuner: Run, finished_copy: Path) -> None:
    (finished_copy / "report.html").unlink()
    ended = tuner("report", finished_copy)
    assert (ended.code, ended.out, ended.err) == (0, f"{finished_copy / 'report.html'}\n", "")
    assert (finished_copy / "report.html").stat().st_size > 10_000


def test_other_settings_and_other_data_are_refused(tuner: Run, finished_copy: Path, finished_run: Path) -> None:
    ended = tuner("search", "-q", "--trials", 2, "--epochs", 3, "--run", finished_copy)
    assert_one_error(ended, 2, r"RunError: .*other settings:\n  epochs: 2 then, 3 now\n")
    data = table(rows(60))
    ended = tuner("search", data, "-q", "--trials", 2, "--epochs", 2, "--run", finished_copy)
    assert_one_error(ended, 2, r"RunError: .*made from other data")
    assert (finished_copy / "config.yaml").read_bytes() == (finished_run / "config.yaml").read_bytes()


def test_a_run_that_is_searched_already_is_refused(tuner: Run, finished_copy: Path) -> None:
    with RunFolder(finished_copy).lock():
        ended = tuner("search", "-q", "--trials", 2, "--epochs", 2, "--run", finished_copy)
    assert_one_error(ended, 2, r"RunError: Another search is working on")


# --- what loads Keras --------------------------------------------------------------------------------------------


def test_spaces_as_json(tuner: Run) -> None:
    ended = tuner("spaces", "image", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out, parse_constant=pytest.fail)
    assert list(told) == ["image"]
    assert {"optimizer", "learning_rate", "l2", "scaler"} <= {row["name"] for row in told["image"]}


def test_a_space_that_cannot_be_found(tuner: Run) -> None:
    Path("space.py").write_text("def build_model(hp): ...\n")
    for name, message in (
        ("imgae", r"imgae.*Did you mean 'image'"),
        ("none.py:build", r"none\.py"),
        ("space.py:build", r"'?build'?.*build_model"),
    ):
        assert_one_error(tuner("spaces", name), 2, rf"SpaceError: (.|\n)*{message}")


def test_an_exported_bundle_that_was_changed_is_refused(tuner: Run, finished_copy: Path) -> None:
    exported = tuner("export", finished_copy, "-o", "bundle")
    assert (exported.code, exported.out) == (0, "")
    assert_one_error(tuner("export", finished_copy, "-o", "bundle"), 2, r"'bundle'")
    assert_one_error(tuner("export", finished_copy, "-o", "b2", "--trial", 99), 2, r"99")
    card = Path("bundle/README.md")
    card.write_text(card.read_text() + "accuracy: 1.0\n")
    ended = tuner("predict", "bundle", "none.npz", "-o", "out.csv")
    assert_one_error(ended, 2, r"BundleError: .*cannot be trusted: README\.md was changed")
    assert not Path("out.csv").exists()


# A learning rate beyond all measure.
DIVERGING = """
import keras

def build(hp):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(hp.Float("rate", 1e30, 1e31)), "sparse_categorical_crossentropy")
    return model
"""


# --- true processes ----------------------------------------------------------------------------------------------


def process(*words: object, **environment: str) -> Ended:
    ended = subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_exit_codes_reach_the_shell(tmp_path: Path, finished_run: Path) -> None:
    assert process("status", finished_run).code == 0
    assert_one_error(process("status", tmp_path / "none"), 2, r"RunError: ")
    (tmp_path / "file").write_text("x")
    assert_one_error(process("search", "-q", "--run", tmp_path / "file"), 4, r"EnvironmentFault: ")


def test_a_search_without_tensorflow_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ModuleNotFoundError('No module named x', name='tensorflow')\n")
    ended = process("search", "-q", "--run", tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert_one_error(ended, 4, r"The package 'tensorflow' is missing or broken.*-m pip install tensorflow")


@pytest.mark.slow
def test_mistakes_that_only_the_worker_sees(tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text("def build(hp):\n    hp.Int('units', 1, 9)\n    raise ValueError('my own bug')\n")
    common = ("--trials", 1, "--epochs", 1, "--confirm", 0, "-q", "--run", tmp_path / "run")
    ended = process("search", *common, "--range", "leaning_rate=1e-4:1e-3")
    assert_one_error(ended, 2, r"'leaning_rate'.*Did you mean 'learning_rate'")
    # The same folder, with the mistake mended into another one.
    assert_one_error(process("search", *common, "--space", f"{space}:build"), 2, r"my own bug")


@pytest.mark.slow
def test_a_search_that_finds_nothing_stable_ends_with_1(tmp_path: Path) -> None:
    common = ("--trials", 1, "--epochs", 1, "--confirm", 0, "-q", "--json", "--run", tmp_path / "run")
    space = tmp_path / "space.py"
    space.write_text(DIVERGING)
    ended = process("search", *common, "--space", f"{space}:build")
    assert ended.code == 1, ended.err
    told = json.loads(ended.out, parse_constant=pytest.fail)
    assert told["best"] is None
    assert told["trials"] == {"total": 1, "diverged": 1}
    assert "No trial finished with a usable model" in ended.err
    assert RunFolder(tmp_path / "run").load_seed_runs(0)[0].score.stability < 0
