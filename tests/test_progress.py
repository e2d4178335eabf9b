"""What a person and a machine see of a search."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tuner.config import SearchConfig
from tuner.data import folders
from tuner.data.cache import Estimate
from tuner.errors import EnvironmentFault
from tuner.progress import AuditProgress, Events, Progress, ReadingProgress
from tuner.records import (
    Adaptation,
    AdaptationStep,
    DatasetRecord,
    DataSpec,
    Finding,
    Narrowing,
    Outcome,
    RateRange,
    RateSweep,
    Remedy,
    SeedRun,
    StabilityMargin,
    StabilityScore,
    TrialRecord,
)
from tuner.stability.margin import SMALL_MARGIN
from tuner.wording import (
    audit_lines,
    describe_data,
    duration,
    fresh_line,
    leaders_table,
    metric_text,
    preparation_line,
    range_line,
    result,
    summary_lines,
)

# What exceptions of TensorFlow say: brackets that a terminal library takes for markup.
BRACKETS = "Incompatible shapes: [32,10] vs. [/job:localhost/replica:0] [[{{node x}}]] [bold] [link=x]"


def trial(
    number: int = 0,
    outcome: Outcome = Outcome.COMPLETED,
    *,
    objective: float | None = -1.0,
    stability: float = 0.9,
    metrics: dict[str, float] | None = None,
    has_record: bool = True,
    **changes: Any,
) -> TrialRecord:
    """A finished trial, unless told otherwise."""
    run = SeedRun(
        trial=number,
        seed_index=0,
        seed=1,
        outcome=outcome,
        objective=objective if objective is not None else 0.0,
        error=0.1,
        score=StabilityScore(stability, 0.1, 0.0, 0.0, 0.0, 0.0, None),
        metrics={"val_loss": 0.5, "val_accuracy": 0.9} if metrics is None else metrics,
        epochs=2,
        steps_per_epoch=3,
        num_parameters=10,
        seconds=4.0,
    )
    record = TrialRecord(
        number, outcome, {"learning_rate": 0.001234567, "optimizer": "adam"}, objective, started=10.0, finished=14.0
    )
    return dataclasses.replace(record, **{"seed_runs": (run,) if has_record else ()} | changes)


def unfinished(number: int, outcome: Outcome, *losses: float) -> TrialRecord:
    return TrialRecord(number, outcome, {"optimizer": "adam"}, epoch_losses=losses, started=10.0)


def shown(trials: list[TrialRecord], *more: list[TrialRecord], is_terminal: bool = False, **kwargs: Any) -> str:
    """What the progress display has written after these updates."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=200)
    with Progress(console, SearchConfig(trials=4, epochs=3), **kwargs) as progress:
        for update in (trials, *more):
            progress.update(update)
    return stream.getvalue()


# --- durations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (60, "1 m 00 s"),
        (200, "3 m 20 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"),
        (7500, "2 h 05 m"),
        (360000, "100 h 00 m"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- the live view -----------------------------------------------------------------------------------------------


def test_plain_lines_tell_each_finished_trial_once() -> None:
    first, second = trial(0), trial(1, objective=-2.0)
    text = shown([], [first], [first, unfinished(1, Outcome.RUNNING)], [first, second], [first, second])
    lines = text.splitlines()
    assert lines == [
        "trial 0: accuracy 0.900, validation loss 0.5, stability 0.90 in 4 s  <- best so far",
        "trial 1: accuracy 0.900, validation loss 0.5, stability 0.90 in 4 s  <- best so far",
    ]


def test_trials_that_had_ended_before_are_not_told_again() -> None:
    assert shown([trial(0)], [trial(0), trial(1)]).count("trial ") == 1


def test_quiet_is_silent() -> None:
    assert shown([], [trial(0)], detail="quiet") == ""
    assert shown([], [trial(0)], detail="quiet", is_terminal=True) == ""


def test_the_terminal_shows_the_running_epoch_and_the_best() -> None:
    text = shown([], [trial(0), unfinished(1, Outcome.RUNNING, 0.9, 0.75)], is_terminal=True)
    assert "trial 1: epoch 3 of 3, validation loss 0.75" in text
    assert "best so far: trial 0, accuracy 0.900" in text
    assert "1/4" in text


def test_the_terminal_says_why_nothing_moves_yet() -> None:
    assert "starting the worker" in shown([], is_terminal=True)
    assert "starting the worker" not in shown([trial(n) for n in range(4)], is_terminal=True)


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.DIVERGED, Outcome.CRASHED, Outcome.NOT_LEARNING])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_failures_say_why(outcome: Outcome, *, is_terminal: bool) -> None:
    told = shown([], [trial(0, outcome, message=BRACKETS)], is_terminal=is_terminal)
    assert f"trial 0: {outcome.replace('_', ' ')} in 4 s. {BRACKETS}" in told
    assert outcome.meaning in shown([], [trial(0, outcome)], is_terminal=is_terminal)


# --- events ------------------------------------------------------------------------------------------------------


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]


def test_events_tell_what_happened_in_order(tmp_path: Path) -> None:
    log = Events(tmp_path / "new" / "events.jsonl")
    log.emit("search_started", run="r")
    log.update([])
    log.update([unfinished(0, Outcome.WAITING)])
    log.update([dataclasses.replace(unfinished(0, Outcome.RUNNING), hyperparameters={})])  # Being proposed.
    log.update([unfinished(0, Outcome.RUNNING)])
    log.update([unfinished(0, Outcome.RUNNING, 2.0, math.inf)])
    log.update([trial(0, epoch_losses=(2.0, math.inf, 1.0)), unfinished(1, Outcome.RUNNING, 3.0)])
    log.update([trial(0, epoch_losses=(2.0, math.inf, 1.0)), unfinished(1, Outcome.RUNNING, 3.0)])
    told = events(tmp_path / "new" / "events.jsonl")
    assert [(event["event"], event.get("trial"), event.get("epoch")) for event in told] == [
        ("search_started", None, None),
        ("trial_started", 0, None),
        ("epoch", 0, 0),
        ("epoch", 0, 1),
        ("epoch", 0, 2),
        ("trial_finished", 0, None),
        ("trial_started", 1, None),
        ("epoch", 1, 0),
    ]
    assert [event["val_loss"] for event in told if event["event"] == "epoch"] == [2.0, None, 1.0, 3.0]
    assert told[1]["hyperparameters"] == {"optimizer": "adam"}
    assert told[5]["outcome"] == "completed"
    assert (told[5]["objective"], told[5]["stability"]) == (-1.0, 0.9)
    assert all(event["time"] > 1e9 for event in told)


def test_adaptation_and_confirmation_are_events(tmp_path: Path) -> None:
    log = Events(tmp_path / "events.jsonl")
    narrowing = Narrowing("learning_rate", "upper", 0.01, (1e-4, 0.1), "learning_rate_too_high", (1, 2, 3))
    steps = (AdaptationStep(4, (narrowing,)), AdaptationStep(9, ()))
    log.update([trial(0)], Adaptation(steps[:0]))
    log.update([trial(0)], Adaptation(steps[:1]))
    fresh = dataclasses.replace(trial(0).seed_runs[0], seed_index=1)
    for _ in range(2):
        log.update([dataclasses.replace(trial(0), seed_runs=(*trial(0).seed_runs, fresh))], Adaptation(steps))
    told = events(tmp_path / "events.jsonl")
    assert [event["event"] for event in told] == ["adaptation", "adaptation", "confirmation"]
    assert told[0]["since"] == 4
    assert told[0]["ranges"] == [
        {"parameter": "learning_rate", "side": "upper", "bound": 0.01, "cause": "learning_rate_too_high"}
    ]
    assert (told[1]["since"], told[1]["ranges"]) == (9, [])
    assert (told[2]["trial"], told[2]["seed_index"], told[2]["outcome"]) == (0, 1, "completed")


def test_a_trial_put_back_starts_again_with_its_first_epoch(tmp_path: Path) -> None:
    log = Events(tmp_path / "events.jsonl")
    log.update([])
    log.update([unfinished(0, Outcome.RUNNING, 2.0, 1.0)])
    log.update([unfinished(0, Outcome.WAITING)])
    log.update([unfinished(0, Outcome.RUNNING, 2.0)])
    told = [(event["event"], event.get("epoch")) for event in events(tmp_path / "events.jsonl")]
    assert told == [("trial_started", None), ("epoch", 0), ("epoch", 1), ("trial_started", None), ("epoch", 0)]


def test_what_had_ended_before_the_search_went_on_is_no_event(tmp_path: Path) -> None:
    log = Events(tmp_path / "events.jsonl")
    log.update([trial(0, epoch_losses=(1.0,)), unfinished(1, Outcome.WAITING)])
    log.update([trial(0, epoch_losses=(1.0,)), unfinished(1, Outcome.RUNNING)])
    assert [(event["event"], event["trial"]) for event in events(tmp_path / "events.jsonl")] == [("trial_started", 1)]


def test_events_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        Events(tmp_path / "events.jsonl").emit("x")
    assert len(events(tmp_path / "events.jsonl")) == 2
    Events(None).emit("x")


def test_events_that_cannot_be_written_are_a_fault_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match=r"Cannot write '.*events\.jsonl'"):
        Events(tmp_path / "file" / "events.jsonl").emit("x")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        Events(tmp_path / "events.jsonl").emit("x")


# --- the end and the status --------------------------------------------------------------------------------------


def test_the_summary_names_the_best_its_settings_and_the_next_command(tmp_path: Path) -> None:
    trials = [trial(0), trial(1, objective=-2.0), trial(2, Outcome.DIVERGED), unfinished(3, Outcome.WAITING)]
    lines = summary_lines(trials, report=tmp_path / "report.html", root=Path("runs/a b's"))
    assert lines[0] == "Trials: 2 completed, 1 diverged, 1 waiting"
    assert lines[1].startswith("Best: trial 1, accuracy 0.900")
    assert "not confirmed" in lines[1]
    assert "  learning_rate = 0.001235" in lines
    assert f"Report: {tmp_path / 'report.html'}" in lines
    assert lines[-1] == """Next:   python -m tuner export 'runs/a b'"'"'s' -o bundle"""


@pytest.mark.parametrize(("stability", "start"), [(0.8, "Stable"), (0.7999, "Not stable"), (-1.0, "Not stable")])
def test_both_sides_of_stable(stability: float, start: str) -> None:
    lines = summary_lines([trial(0, stability=stability)], report=None, root=Path("r"))
    assert any(line.startswith(start) for line in lines)


def test_the_summary_of_nothing_usable() -> None:
    for trials in ([], [trial(0, Outcome.ERROR)], [unfinished(0, Outcome.WAITING)]):
        lines = summary_lines(trials, report=None, root=Path("r"))
        assert "No trial finished with a usable model; the report and the log say why." in lines
        assert not any("export" in line for line in lines)


def test_a_search_in_which_nothing_learned_names_no_best_to_export() -> None:
    trials = [trial(0, Outcome.NOT_LEARNING, objective=5.0), trial(1, Outcome.DIVERGED)]
    lines = summary_lines(trials, report=None, root=Path("r"))
    assert any(line.startswith("No trial learned anything: even the best, trial 0, is no better") for line in lines)
    assert not any(line.startswith(("Best:", "Next:", "Stable")) for line in lines)
    learned = summary_lines([*trials, trial(2)], report=None, root=Path("r"))
    assert any(line.startswith("Best: trial 2") for line in learned)


def test_the_result_as_json_has_the_keys_of_the_contract() -> None:
    trials = [trial(0), trial(1, Outcome.NOT_LEARNING, objective=5.0), unfinished(2, Outcome.RUNNING)]
    told = result(trials, root=Path("runs/x"), seconds=1.23456)
    assert told == {
        "run": "runs/x",
        "trials": {"total": 3, "completed": 1, "not_learning": 1, "running": 1},
        "best": {
            "trial": 0,
            "hyperparameters": {"learning_rate": 0.001234567, "optimizer": "adam"},
            "objective": -1.0,
            "stability": 0.9,
            "margin": None,
            "val_loss": 0.5,
            "val_accuracy": 0.9,
            "confirmed": False,
        },
        "seconds": 1.235,
    }


def test_the_result_is_strict_json_whatever_the_metrics_are() -> None:
    told = result([trial(0, metrics={"val_loss": math.nan, "val_x": math.inf})], root=Path("r"), seconds=0)
    assert (told["best"]["val_loss"], told["best"]["val_x"]) == (None, None)
    json.dumps(told, allow_nan=False)
    assert result([], root=Path("r"), seconds=0)["best"] is None


def margin(ratio: float, *, is_bound: bool = False) -> StabilityMargin:
    rates = (1.0, None) if is_bound else (1.0, 1.0)
    sweep = RateSweep(rates, 1.0, 2.0)
    return StabilityMargin(sweep, peak_rate=1.0 / ratio)


@pytest.mark.parametrize(("ratio", "is_small"), [(SMALL_MARGIN * 1.01, False), (SMALL_MARGIN * 0.99, True)])
def test_the_summary_warns_of_a_small_margin(ratio: float, *, is_small: bool) -> None:
    lines = summary_lines([trial(0, margin=margin(ratio))], report=None, root=Path("r"))
    line = next(line for line in lines if line.startswith("Margin: x"))
    assert "broke at 1)" in line
    assert ("another seed may fail" in line) is is_small


def test_a_margin_shows_in_the_table_and_in_json_with_what_kind_of_number_it_is() -> None:
    trials = [trial(0, margin=margin(50, is_bound=True)), trial(1, objective=3.0)]
    assert "above x50" in table_text(trials)
    told = result(trials, root=Path("r"), seconds=0)["best"]["margin"]
    assert told == {"ratio": pytest.approx(50), "is_lower_bound": True, "diverging_rate": 1.0, "peak_rate": 0.02}
    assert "did not break it" in " ".join(summary_lines(trials, report=None, root=Path("r")))


def test_a_measured_range_is_said_once_with_its_numbers() -> None:
    found = RateRange(2e-4, 0.2, (RateSweep((0.5, 0.5), 30.0, 1.0), RateSweep((None, None), 30.0, 1.0)))
    stream = io.StringIO()
    with Progress(Console(file=stream, width=300), SearchConfig()) as live:
        live.show_range(None)
        for _ in range(2):
            live.show_range(found)
    assert stream.getvalue() == f"{range_line(found)}\n"
    assert "0.0002 to 0.2, from sweeps of 2 configurations, which broke at 0.5, above 30" in range_line(found)


def table_text(trials: list[TrialRecord]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=300).print(leaders_table(trials))
    return stream.getvalue()


def test_the_table_of_leaders_is_ranked_and_short() -> None:
    text = table_text([trial(number, objective=-float(number)) for number in range(30)])
    assert re.findall(r"^ +(\d+) ", text, re.MULTILINE) == [str(number) for number in range(29, 19, -1)]


def test_the_table_shows_messages_as_they_are() -> None:
    assert BRACKETS in table_text([trial(0, Outcome.ERROR, message=BRACKETS)])


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.NOT_LEARNING, Outcome.CRASHED])
def test_a_trial_whose_record_is_gone_is_still_told(outcome: Outcome) -> None:
    gone = trial(0, outcome, has_record=False)
    assert outcome.meaning in table_text([gone])
    assert outcome.meaning in metric_text(gone)
    assert summary_lines([gone], report=None, root=Path("r"))
    assert result([gone], root=Path("r"), seconds=0)["trials"]["total"] == 1
    assert "trial 0" in shown([], [gone])


def test_balanced_accuracy_and_regression_are_told_by_name() -> None:
    assert metric_text(trial(metrics={"val_balanced_accuracy": 0.5, "val_loss": 1.0})).startswith(
        "balanced accuracy 0.500, validation loss 1,"
    )
    assert metric_text(trial(metrics={"val_loss": 12345.678})).startswith("validation loss 1.235e+04, ")


def test_the_data_in_a_few_lines() -> None:
    spec = DataSpec("table", "series", "regression", (4,), (), "y")
    finding = Finding("code", "p", 0.5, 1.0, {}, "Column 'p' has [/gaps].")
    record = DatasetRecord("d.csv", spec, "0", 7000, 15, 15, (), 1, 1.0, 1.0, "loss", ("a note",), (finding,))
    assert describe_data(record) == [
        "d.csv: series data, 4, regression; 7,000 rows to train, 15 to validate, 15 kept for the test",
        "note: a note",
        "audit: Column 'p' has [/gaps].",
        "judged by validation loss; a constant answer has error 1.000",
    ]


def test_epochs_are_shown_one_by_one_when_asked_for() -> None:
    first, then = unfinished(0, Outcome.RUNNING, 0.5), unfinished(0, Outcome.RUNNING, 0.5, 0.25)
    told = shown([], [first], [then], detail="epochs")
    assert told.count("epoch 1 of") == 1
    assert "trial 0: epoch 2 of" in told
    assert "0.25" in told
    assert "epoch" not in shown([], [first], [then])


@pytest.mark.parametrize(
    ("size_bytes", "seconds", "is_said"),
    [(99_999_999, 9.9, False), (100_000_000, 0.1, True), (1000, 10.0, True)],
)
def test_what_the_preprocessing_costs_is_said_where_it_is_much(size_bytes: int, seconds: float, is_said: bool) -> None:
    line = preparation_line(Estimate(size_bytes, 5 * 10**9, seconds))
    assert bool(line) == is_said
    if is_said:
        assert line.endswith(f"and {size_bytes / 1e9:.2f} GB on the disk, which has 5.0 GB free")


def test_a_preparation_is_shown_while_it_lasts() -> None:
    def told(done_frac: float | None) -> str:
        stream = io.StringIO()
        with Progress(Console(file=stream, force_terminal=True, width=200), SearchConfig()) as live:
            live.show_preparation(done_frac)
            live.update([])
        return stream.getvalue()

    assert "preparing data" in told(0.42)
    assert "42/100" in told(0.42)
    assert "preparing data" not in told(None)


def test_what_the_data_suggest_is_said() -> None:
    spec = DataSpec("text_table", "text", "regression", (), (), "y")
    record = DatasetRecord("d", spec, "0", 7, 1, 1, (), 0, 1.0, 1.0, "loss", proposed={"tokens": "word", "a": "b"})
    assert "the search starts from tokens=word, a=b, as these data suggest" in describe_data(record)


def test_an_audit_is_told_with_examples_and_remedies() -> None:
    spec = DataSpec("table", "series", "regression", (4,), (), "y")
    remedy = Remedy("data", "--split time", "Judges by the last rows.")
    findings = (
        Finding("time_leak", "", 0.654, 1.0, {}, "Rows are alike [/b].", ("3", "14"), (remedy,)),
        Finding("skew", "p", 0.2, 1.0, {}, "Skewed.", ("p", "7")),
    )
    record = DatasetRecord("d.csv", spec, "0", 7000, 15, 15, (), 1, 1.0, 1.0, "loss", (), findings)
    assert audit_lines(record)[-6:] == [
        "",
        "time leak (severity 0.65): Rows are alike [/b].",
        "    such as rows 3, 14",
        "    --split time. Judges by the last rows.",
        "skew (severity 0.20): Skewed.",
        "    such as p, 7",
    ]
    assert audit_lines(dataclasses.replace(record, findings=()))[-1] == (
        "No faults found: every check of the audit passed."
    )


def test_a_long_audit_says_which_check_runs() -> None:
    times = iter([0.0, 2.9, 3.0])
    stream = io.StringIO()
    told = AuditProgress(Console(file=stream, width=80), clock=lambda: next(times))
    for number in range(3):
        told.tell("label_errors", number, 20)
    assert stream.getvalue().split() == ["auditing:", "label", "errors", "(3", "of", "20)"]


def told_of_reading(folder: Path, times: Iterable[float], **options: Any) -> str:
    stream = io.StringIO()
    left = iter(times)
    console = Console(file=stream, width=80, **options.pop("terminal", {}))
    with ReadingProgress(console, clock=lambda: next(left), **options):
        folders.Readable(folder, [folder / str(row) for row in range(5)], noun="images").each(lambda file: 0)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("times", "lines"),
    [
        pytest.param([0.0, 1.0, 2.0, 2.9, 3.0], [], id="short"),
        pytest.param(
            [0.0, 3.0, 10.0, 13.0, 14.0],
            ["reading images: 2 of 5, about 9 s left", "reading images: 4 of 5, about 4 s left"],
            id="long",
        ),
    ],
)
def test_a_long_reading_says_how_far_it_is_and_how_long_it_takes(
    times: list[float], lines: list[str], tmp_path: Path
) -> None:
    assert told_of_reading(tmp_path, times).splitlines() == lines


def test_on_a_terminal_the_reading_is_one_line_that_goes_away(tmp_path: Path) -> None:
    found = told_of_reading(tmp_path, [0.0, 4.0, 5.0, 6.0, 7.0], terminal={"force_terminal": True})
    assert re.search(r"reading images: \d of 5, about \d+ s left", found)
    assert found.endswith("\x1b[2K")


def test_each_thing_that_takes_long_begins_anew_and_has_its_unit() -> None:
    stream = io.StringIO()
    times = iter([0.0, 10.0, 20.0, 30.0, 31.0, 34.0])
    told = ReadingProgress(Console(file=stream, width=80), clock=lambda: next(times))
    for doing, done in (("checking a.csv", 0), ("checking a.csv", 50), ("checking a.csv", 100)):
        told.tell(doing, done, 100, " %")
    for done in (0, 1, 2):
        told.tell("predicting", 100 * done, 1200, " rows")
    assert stream.getvalue().splitlines() == [
        "checking a.csv: 50 of 100 %, about 10 s left",
        "predicting: 200 of 1,200 rows, about 20 s left",
    ]


def test_a_quiet_reading_says_nothing_and_nobody_listens_afterwards(tmp_path: Path) -> None:
    assert told_of_reading(tmp_path, [0.0, 9.0, 99.0, 999.0, 9999.0], is_quiet=True) == ""
    told_of_reading(tmp_path, [0.0] * 5)
    folders.Readable(tmp_path, [tmp_path], noun="images").each(lambda file: 0)


def test_the_front_is_told_where_it_is_asked_for() -> None:
    trials = [trial(0), trial(1, Outcome.DIVERGED)]
    lines = summary_lines(trials, report=None, root=Path("r"), is_pareto=True)
    assert "Pareto front of error and instability, 1 of 2 trials (export takes --trial):" in lines
    assert any(line.startswith("  trial 0: error 0.1, instability ") for line in lines)
    assert result(trials, root=Path("r"), seconds=1.0, is_pareto=True)["front"] == [0]
    assert "front" not in result(trials, root=Path("r"), seconds=1.0)
    assert not any("Pareto" in line for line in summary_lines(trials[1:], report=None, root=Path("r"), is_pareto=True))


def test_a_fresh_training_is_told_by_the_numbers_that_its_trial_is_summarised_by() -> None:
    runs = [
        dataclasses.replace(trial(0).seed_runs[0], seed_index=index, metrics={"val_accuracy": accuracy}, seconds=3.0)
        for index, accuracy in ((1, 0.7), (2, 0.8))
    ]
    assert fresh_line(runs[0]).startswith("confirming trial 0, fresh seed 1: accuracy 0.700, stability ")
    told = metric_text(dataclasses.replace(trial(0), seed_runs=(*trial(0).seed_runs, *runs)))
    assert told.startswith("accuracy 0.750 +- 0.071 over 2 fresh seeds, stability ")
    failed = dataclasses.replace(runs[0], outcome=Outcome.DIVERGED, metrics={"val_accuracy": math.nan})
    assert fresh_line(failed).startswith("confirming trial 0, fresh seed 1: failed, stability ")
