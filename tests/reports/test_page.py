from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import reports.page
import reports.shell
from reports.page import render, write_report
from tests.reports import synthetic
from tuner.config import SearchConfig, load_resolved
from tuner.errors import RunError
from tuner.records import Adaptation, AdaptationStep, DataSpec, Finding, Narrowing, Outcome, Remedy
from tuner.store import RunFolder

MARKUP = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>{{ 7 * 7 }}"
HOSTILE = f"{MARKUP}\u2028\u202e \N{SNOWMAN} \u0639\u0631\u0628\u064a"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """The parts of a page that tests ask about; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, without figures."""
        return re.sub(r"\s+", " ", "".join(self.words))

    def count(self, tag: str) -> int:
        """How many elements of that name there are."""
        return sum(name == tag for name, _ in self.tags)

    def plots(self) -> list[str | None]:
        """Names of the places for figures."""
        return [attrs["data-plot"] for _, attrs in self.tags if "plot" in (attrs.get("class") or "").split()]


@pytest.fixture(autouse=True, scope="module")
def small_plotly() -> Iterator[None]:
    """Five megabytes of script make parsing slow and say nothing here; the browser test has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports.shell.plotly.offline, "get_plotlyjs", lambda: "/* plotly.js */")
        yield


def page(run: synthetic.Run, **changes: Any) -> Page:
    return Page(render("runs/my run", **(run.arguments() | changes)))


@pytest.fixture(scope="module")
def digits() -> synthetic.Run:
    return synthetic.run()


@pytest.fixture(scope="module")
def text(digits: synthetic.Run, small_plotly: None) -> str:
    return render("runs/my run", **digits.arguments())


@pytest.fixture(scope="module")
def made(text: str) -> Page:
    return Page(text)


def test_sections_stand_in_the_order_a_user_asks(made: Page) -> None:
    ids = [attrs["id"] for tag, attrs in made.tags if tag == "h2"]
    assert ids == ["summary", "best", "leaderboard", "curves", "space", "data", "environment", "reproduce", "glossary"]
    links = [attrs["href"] for tag, attrs in made.tags if tag == "a" and (attrs.get("href") or "").startswith("#")]
    assert {f"#{name}" for name in ids} <= set(links)


def test_structure_is_accessible(made: Page) -> None:
    assert made.headings[0] == 1
    assert made.headings.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(made.headings, made.headings[1:], strict=False))
    assert made.count("table") == made.count("caption") > 4
    assert all("scope" in attrs for tag, attrs in made.tags if tag == "th")
    assert all(attrs.get("aria-label") for _, attrs in made.tags if attrs.get("role") in ("img", "region"))
    identities = [attrs["id"] for _, attrs in made.tags if attrs.get("id")]
    assert len(identities) == len(set(identities))
    assert ("html", {"lang": "en"}) in made.tags
    assert any(attrs.get("name") == "viewport" for _, attrs in made.tags)


def test_every_figure_has_its_source_and_it_is_json(text: str) -> None:
    sources = dict(re.findall(r'<script type="application/json" id="plot-([\w-]+)">(.*?)</script>', text, re.S))
    assert set(sources) == set(Page(text).plots())
    assert {"loss-curves", "parallel", "scatter-1", "tradeoff"} <= set(sources)
    assert all(json.loads(source)["data"] for source in sources.values())


def test_page_can_load_nothing(made: Page) -> None:
    policy = next(attrs["content"] for tag, attrs in made.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert not any(tag == "link" or "src" in attrs for tag, attrs in made.tags)
    assert not any(re.match("https?:", attrs.get("href") or "") for _, attrs in made.tags)


def test_leaderboard_ranks_marks_and_folds(digits: synthetic.Run, text: str) -> None:
    rows = re.findall(
        r'<tr class="(is-best )?([\w-]*)">\s*<th scope="row" class="n">(\d+)</th><td class="n">(\d+)</td>', text
    )
    assert [int(row[2]) for row in rows] == list(range(1, 31))
    assert [bool(row[0]) for row in rows] == [True] + [False] * 29
    unstable = {trial.number for trial in digits.trials if "unstable" in _row(text, trial.number)}
    assert unstable == {
        trial.number
        for trial in digits.trials
        if trial.stability is not None and 0 <= trial.stability < 0.8 and trial.outcome == "completed"
    }
    assert "Show the other 10 trials" in text


def _row(text: str, trial: int) -> str:
    found = re.search(rf'<th scope="row" class="n">\d+</th><td class="n">{trial}</td>.*?</tr>', text, re.S)
    assert found
    return re.sub("<[^>]*>", "", found[0])


@pytest.mark.parametrize(("number", "is_folded"), [(20, False), (21, True)])
def test_tables_fold_after_twenty_rows(number: int, is_folded: bool) -> None:
    run = synthetic.run(("clean",) * number, epochs=4)
    run = replace(run, dataset=synthetic.dataset(num_classes=number))
    text = page(run).text
    assert ("Show the other 1 trials" in text) is is_folded
    assert ("Show the other 1 classes" in text) is is_folded


def test_best_configuration_can_be_repeated(digits: synthetic.Run, tmp_path: Path) -> None:
    config = SearchConfig(data="my data.npz", epochs=7, range={"learning_rate": "1e-5:1e-1"}, seed=3, time_limit=90)  # type: ignore[call-arg]
    text = render("runs/x", **(digits.arguments() | {"config": config}))
    blocks = [html.unescape(block) for block in re.findall(r'<pre tabindex="0"><code>(.*?)</code></pre>', text, re.S)]
    command = " ".join(blocks[0].replace("\\\n", " ").split())
    best = reports.page.rank(digits.trials)[0]
    assert command.startswith(
        "python -m tuner search 'my data.npz' --epochs 7 --time-limit 90s --seed 3 --trials 1 --run runs/x-repeat"
    )
    for name, value in best.hyperparameters.items():
        assert f"--fix {name}={value}" in command
    file = tmp_path / "best.yaml"
    file.write_text(blocks[1], encoding="utf-8")
    loaded = load_resolved(file)
    assert loaded.fix == {name: str(value) for name, value in best.hyperparameters.items()}
    assert (loaded.trials, loaded.range, loaded.epochs, loaded.seed) == (1, {}, 7, 3)


def test_commands_to_reproduce(made: Page) -> None:
    assert "python -m tuner search --trials 30 --run 'runs/my digits'" in made.text
    assert "python -m tuner export 'runs/my run' -o 'runs/my run-bundle'" in made.text
    assert "python -m tuner train 'runs/my run-bundle/config.yaml'" in made.text
    assert "python -m tuner report 'runs/my run'" in made.text


def test_no_trial_finished_yet() -> None:
    made = page(synthetic.run((), num_waiting=3), environment={})
    assert made.plots() == []
    assert "No trial has finished yet, so there is nothing to judge." in made.text
    assert "The search has not finished: 0 of 3 trials have finished; trial 0 has reached epoch 3 of 20." in made.text
    assert "Versions and hardware are noted when the first worker starts." in made.text


def test_no_trial_at_all() -> None:
    assert page(synthetic.run(())).plots() == []


def test_all_failed() -> None:
    made = page(synthetic.run(("nan", "error", "infinite")))
    assert "There is none: every finished trial failed." in made.text
    assert "Every finished trial failed, so there is no result to hold against the hyperparameters." in made.text
    assert "tuner export" not in made.text
    assert "got furthest" in made.text


def test_only_errors_leave_no_curves() -> None:
    made = page(synthetic.run(("error", "error")))
    assert made.plots() == []
    assert "No trial has left a trace of its loss." in made.text
    assert "computed output size would be negative" in made.text


def test_one_trial_only() -> None:
    made = page(synthetic.run(("clean",)))
    assert "The only finished configuration is trial 0" in made.text
    assert "Only one trial has finished; a comparison needs two." in made.text
    assert "nothing to compare it with" in made.text
    assert made.plots() == ["loss-curves", "steps-0"]


def test_same_hyperparameters_everywhere() -> None:
    run = synthetic.run(("clean", "clean"))
    same = [replace(trial, hyperparameters={"learning_rate": 0.01}) for trial in run.trials]
    made = page(run, trials=same)
    assert "All finished trials had the same hyperparameters." in made.text
    assert "The same in all trials: learning_rate = 0.01." in made.text


def test_without_validation_loss() -> None:
    made = page(synthetic.run(("clean", "spikes"), metric="loss", has_validation=False))
    assert "Training loss; no validation loss was recorded." in made.text


def test_regression() -> None:
    run = synthetic.run(("clean", "spikes", "nan"), metric="loss")
    spec = DataSpec("table", "series", "regression", (12,), target="price", feature_names=("a", "b"))
    made = page(replace(run, dataset=replace(run.dataset, spec=spec, findings=(), notes=())))
    assert "regression of price" in made.text
    assert "The audit found nothing to report." in made.text
    assert "validation loss stands upside down" in made.text
    assert "Classes" not in made.text


def test_traces_that_cannot_be_read_are_named() -> None:
    run = synthetic.run(("clean", "spikes", "clean"))
    made = page(run, traces={1: run.traces[1]}, trace_faults=["Trial 0: Trace 'x' cannot be read: cut short."])
    assert "1 file could not be read and is left out." in made.text
    assert "Trial 0: Trace 'x' cannot be read: cut short." in made.text
    assert "loss-curves" in made.plots()


def test_what_was_unstable_is_told_with_its_cause_and_what_to_change() -> None:
    run = synthetic.run(("clean", "spikes", "nan"))
    spikes = Finding("loss_spike", "", 0.6, 0.9, {}, "The loss jumped 4 times.")
    remedies = (
        Remedy("learning_rate", "x 0.3", "Smaller steps."),
        Remedy("learning_rate", "upper <= x 0.5", "Later trials need not try it."),
    )
    cause = Finding(
        "learning_rate_too_high", "", 0.6, 0.62, {}, "The learning rate is probably too high.", (), remedies
    )
    mild = replace(spikes, severity=0.2)
    runs = [replace(trial.seed_runs[0], findings=(spikes,), causes=(cause,)) for trial in run.trials]
    runs[0] = replace(runs[0], findings=(mild,), causes=(replace(cause, severity=0.2),))
    trials = [replace(trial, seed_runs=(each,)) for trial, each in zip(run.trials, runs, strict=True)]
    narrowed = Narrowing("learning_rate", "upper", 0.05, (1e-4, 0.1), "learning_rate_too_high", (1, 2))
    made = page(run, trials=trials, adaptation=Adaptation((AdaptationStep(3, (narrowed,)),)))
    assert "probably learning rate too high: trials 1, 2" in made.text
    assert "loss spike: The loss jumped 4 times." in made.text
    assert "learning rate too high (62 %)" in made.text
    rate = trials[1].hyperparameters["learning_rate"]
    assert f"learning_rate {0.3 * rate:.3g} instead of {rate:.3g}" in made.text
    assert "upper <=" not in made.text
    assert "The search adapted itself: from trial 3 on learning_rate is searched only up to 0.05" in made.text
    assert "What was unstable" not in page(synthetic.run(("clean",))).text


def test_a_training_that_over_fitted_says_which_epochs_were_kept() -> None:
    run = synthetic.run(("overfit",))
    kept = replace(run.trials[0].seed_runs[0], ended_by="over_fitting", epochs=7, message="Kept: the weights of 7.")
    made = page(run, trials=[replace(run.trials[0], seed_runs=(kept,), message=kept.message)])
    assert "over-fitted; kept at epoch 7 of 20" in made.text
    assert "Kept: the weights of 7." in made.text


def test_many_trials_and_many_classes() -> None:
    run = synthetic.run(synthetic.BEHAVIOURS * 13, epochs=6)
    made = page(replace(run, dataset=synthetic.dataset(num_classes=77)))
    assert "Show the other 110 trials" in made.text
    assert "The first 20 of 77 classes" in made.text
    assert "Show the other 57 classes" in made.text


def test_hostile_text_is_text_everywhere() -> None:
    run = synthetic.run(("clean", "error", "clean"))
    finding = Finding(
        HOSTILE, HOSTILE, 0.95, 1.0, {HOSTILE: 1.0}, HOSTILE, (HOSTILE,), (Remedy(HOSTILE, HOSTILE, HOSTILE),)
    )
    spec = replace(run.dataset.spec, class_names=(HOSTILE, "b"), target=HOSTILE)
    dataset = replace(
        run.dataset, source=HOSTILE, spec=spec, class_counts=(3, 4), notes=(HOSTILE,), findings=(finding,)
    )
    trials = [
        replace(
            trial,
            message=HOSTILE,
            hyperparameters={HOSTILE: HOSTILE + str(trial.number), "learning_rate": 0.1 / (1 + trial.number)},
        )
        for trial in run.trials
    ]
    config = run.config.model_copy(update={"data": HOSTILE, "space": HOSTILE})
    text = render(
        f"runs/{HOSTILE}",
        **(run.arguments() | {"dataset": dataset, "trials": trials, "config": config, "trace_faults": [HOSTILE]}),
    )
    made = Page(text)
    assert made.count("img") == 0
    assert sum(tag == "script" and "type" not in attrs for tag, attrs in made.tags) == 2
    assert not any(name.startswith("on") for _, attrs in made.tags for name in attrs)
    assert "<script>alert" not in text
    assert "7 * 7" in text
    assert "severe" in made.text
    assert "\N{SNOWMAN}" in made.text


def test_contrast_of_both_palettes() -> None:
    css = (Path(reports.page.__file__).parent / "templates/report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"--paper: #.*?\}", css, re.S)[:2]
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        assert len(colours) >= 20
        for name in ("ink", "muted", "accent", "warn"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
            assert contrast(colours[name], colours["panel"]) >= 4.5, name
        for name in set(colours) - {"paper", "panel", "line", "grid"}:
            assert contrast(colours[name], colours["paper"]) >= 3.0, name


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours. Source: WCAG 2.2, section 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_of_figures_are_variables_that_the_page_has(text: str) -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert {name for name in used if f"{name}:" not in text} == set()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run folder of four trials; the study is replaced by their records."""
    run = synthetic.run(("clean", "spikes", "nan", "error"))
    made = RunFolder.create(tmp_path / "run", run.config)
    made.save_dataset(run.dataset)
    for trial in run.trials:
        if trial.number in run.traces:
            made.save_seed_run(trial.seed_runs[0], run.traces[trial.number])
    monkeypatch.setattr("tuner.search.study.load_trials", lambda _: run.trials)
    return made


def test_write_report(folder: RunFolder) -> None:
    path = write_report(folder)
    assert path == folder.report_file
    made = Page(path.read_text(encoding="utf-8"))
    assert {"loss-curves", "steps-0", "steps-2", "parallel"} <= set(made.plots())
    assert "could not be read" not in made.text
    assert [file.name for file in folder.root.iterdir() if file.name.startswith(".report")] == []


def test_write_report_names_missing_and_damaged_traces_and_goes_on(folder: RunFolder) -> None:
    (folder.seed_run_dir(0, 0) / "trace.npz").unlink()
    damaged = folder.seed_run_dir(1, 0) / "trace.npz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    made = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "2 files could not be read and are left out." in made.text
    assert "Trial 0: Trace" in made.text
    assert "Trial 1: Trace" in made.text
    assert "steps-2" in made.plots()


def test_write_report_names_a_damaged_adaptation_and_goes_on(folder: RunFolder) -> None:
    folder.adaptation_file.write_text("{")
    made = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "1 file could not be read and is left out." in made.text
    assert "adaptation.json' is damaged." in made.text


def test_a_failed_write_leaves_the_old_page(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.report_file.write_text("old", encoding="utf-8")
    monkeypatch.setattr(reports.page, "render", lambda *_, **__: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_report(folder)
    assert folder.report_file.read_text(encoding="utf-8") == "old"


def test_a_run_without_dataset_says_so(folder: RunFolder) -> None:
    folder.dataset_file.unlink()
    with pytest.raises(RunError, match=r"dataset\.json' is missing"):
        write_report(folder)


def test_import_stays_light() -> None:
    code = "import reports, sys; print({'tensorflow', 'keras', 'sklearn', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "set()"


def test_pruned_trials_a_baseline_and_an_early_end_are_told_in_words(digits: synthetic.Run) -> None:
    trials = [
        replace(
            trial,
            outcome=Outcome.PRUNED if trial.number in (0, 3) else trial.outcome,
            is_baseline=trial.number == 1,
        )
        for trial in digits.trials
    ]
    config = digits.config.model_copy(update={"baseline": {"optimizer": "sgd", "learning_rate": "0.01"}, "trials": 99})
    told = {"trials": trials, "config": config, "ending": "all 9 configurations of the space were tried"}
    made = page(digits, **told)
    words = " ".join(" ".join(made.words).split())
    assert "2 pruned" in words
    assert "The search ended early: all 9 configurations of the space were tried." in words
    assert "Your baseline is trial 1" in words
    assert "The search has not finished" not in words
    assert "--baseline optimizer=sgd,learning_rate=0.01" in words.replace("\\ ", "")
    assert reports.page.rank(trials)[0].number not in (0, 3)
