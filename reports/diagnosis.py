"""What went wrong in a training, in words: a line, a table for the terminal, a document for machines, a page."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import formats, shell, standings
from reports.picture import PictureInfo, draw_pages, draw_png, picture_info
from reports.standings import Band
from tuner.errors import ConfigError
from tuner.grammar import counted
from tuner.records import Finding, Outcome, Remedy
from tuner.stability.examination import Diagnosis, diagnose_log
from tuner.stability.logs import ForeignLog
from tuner.stability.remedies import told
from tuner.store import atomic_open, write_text

__all__ = [
    "Examination",
    "causes_table",
    "document",
    "examine",
    "headline",
    "remarks",
    "show",
    "symptoms_table",
    "write_picture",
]

# Parts of the instability below this are not worth a word, in nats. Source: convention, two decimals are shown.
SMALLEST_PART_NATS = 0.005
# Trainings that one picture shows, the worst first. Source: legibility, looked at.
MAX_PICTURES = 6
# Severity from which a finding stands out. Source: as it is worded in `reports.shell`.
SERIOUS = 0.6
# Evidence that the table on the terminal shows of each finding. Source: legibility.
MAX_EVIDENCE = 4


class Examination(Diagnosis):
    """One training with what was found, as reports tell it."""

    @property
    def band(self) -> Band:
        """Where the training stands."""
        judged = standings.score_band(self.score)
        if self.outcome is Outcome.DIVERGED:
            return Band.FAILED
        return Band.NOT_LEARNING if self.outcome is Outcome.NOT_LEARNING and judged is not Band.NOT_ASSESSED else judged

    def advice(self, finding: Finding) -> tuple[Remedy, ...]:
        """Remedies that suit this log: those that bound the ranges of a search only where there was one."""
        if self.log.is_ours:
            return finding.remedies
        return tuple(remedy for remedy in finding.remedies if not remedy.change.startswith(("upper ", "lower ")))


def examine(logs: Iterable[ForeignLog]) -> list[Examination]:
    """Score and diagnose trainings, and order them worst first."""
    examined = [Examination(**vars(diagnose_log(log))) for log in logs]
    return sorted(examined, key=lambda found: (-_worst(found), found.score.stability))


def headline(examination: Examination) -> str:
    """Name, stability and what it is made of, in one or two sentences."""
    log, result, band = examination.log, examination.score, examination.band
    epochs = counted(log.trace.num_epochs, "epochs")
    if band is Band.NOT_ASSESSED:
        return f"{log.name}: {epochs}; too little to say how stable the training was."
    start = f"{log.name}: {epochs}, stability {formats.fixed(result.stability)} ({band.label})."
    if band is Band.FAILED:
        return f"{start} The loss did not stay a finite number of any use."
    if band is Band.NOT_LEARNING:
        start += " The loss never came below the chance level."
    parts = [
        f"{part.name} {formats.fixed(value)}"
        for part in standings.PARTS
        if (value := getattr(result, part.field)) is not None and value >= SMALLEST_PART_NATS
    ]
    if not parts:
        return start if band is Band.NOT_LEARNING else f"{start} The loss stayed at its best all along."
    return f"{start} As if the loss had been {_above(result.instability)} its best all along: {', '.join(parts)}."


def remarks(examination: Examination) -> list[str]:
    """What else a reader must know: nothing found, what was not assessed, what was assumed."""
    lines = [] if examination.symptoms else ["Nothing wrong was found in what could be assessed."]
    lines += _not_assessed_lines(examination)
    return [*lines, *(f"Note: {note}" for note in examination.log.notes)]


def show(examinations: Sequence[Examination], console: Console) -> None:
    """Print what was found, the worst training first; those without a finding in short at the end."""
    in_full = [bool(examination.symptoms) or len(examinations) == 1 for examination in examinations]
    for examination in itertools.compress(examinations, in_full):
        console.print(headline(examination), highlight=False, markup=False, soft_wrap=True)
        if examination.symptoms:
            console.print(symptoms_table(examination))
        if examination.causes:
            console.print(causes_table(examination))
        for line in remarks(examination):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print()
    for examination in itertools.compress(examinations, (not is_full for is_full in in_full)):
        line = f"{headline(examination)} Nothing wrong was found."
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def symptoms_table(examination: Examination) -> Table:
    """What happened, for a terminal."""
    table = _table(("severity", 2), ("where", 2), ("what happened", 7), ("evidence", 4))
    for finding in examination.symptoms:
        # Text: names and messages may have brackets in them, which rich would take for markup.
        table.add_row(
            Text(shell.severity_word(finding.severity), style="bold red" if finding.severity >= SERIOUS else ""),
            Text(finding.where or "all of it"),
            Text.assemble((_words(finding.code), "bold"), f"\n{finding.cause}"),
            Text("\n".join(_evidence(finding)[:MAX_EVIDENCE])),
        )
    return table


def causes_table(examination: Examination) -> Table:
    """Why it probably happened and what to do, for a terminal."""
    table = _table(("confidence", 2), ("probable cause", 5), ("what to do", 6))
    for finding in examination.causes:
        remedies = [f"- {told(remedy)}. {remedy.reason}" for remedy in examination.advice(finding)]
        table.add_row(
            Text(formats.percent(finding.confidence)),
            Text.assemble((_words(finding.code), "bold"), f"\n{finding.cause}"),
            Text("\n".join(remedies) or "nothing proposed"),
        )
    return table


def document(source: str, examinations: Sequence[Examination]) -> dict[str, Any]:
    """All of it for `--json`."""
    judged = [found.score.stability for found in examinations if found.band is not Band.NOT_ASSESSED]
    return {
        "log": source,
        "stability": min(judged, default=None),
        "findings": [
            {"training": found.log.name, "kind": kind, **dataclasses.asdict(finding)}
            for found in examinations
            for kind, findings in (("symptom", found.symptoms), ("cause", found.causes))
            for finding in findings
        ],
        "not_assessed": _unique(reason for found in examinations for reason in found.not_assessed),
        "notes": _unique(note for found in examinations for note in found.log.notes),
        "trainings": [_training_values(found) for found in examinations],
    }


def write_picture(source: str, examinations: Sequence[Examination], file: Path) -> Path:
    """Write the curves with what was found on them.

    Args:
        source: The log, for the title.
        examinations: Worst first; the first few are drawn.
        file: Ends in `.html` (a page that opens offline) or `.png`.

    Raises:
        ConfigError: The file has another ending.
        EnvironmentFault: The file cannot be written, or a package is missing.
    """
    ending = file.suffix.lower()
    if ending not in (".html", ".htm", ".png"):
        raise ConfigError(f"--output {str(file)!r} must end in .html or .png. Write it like: -o diagnosis.html")
    shown = examinations[:MAX_PICTURES]
    infos = [
        picture_info(found.log, found.symptoms, title=headline(found), is_fault=found.band.is_warning)
        for found in shown
    ]
    if ending == ".png":
        with atomic_open(file, "wb") as stream:
            stream.write(draw_png(infos))
    else:
        write_text(file, _page(source, shown, infos, num_left_out=len(examinations) - len(shown)))
    return file


# --- One training


def _above(instability: float) -> str:
    """An instability in nats as what it means for the loss."""
    if instability < math.log(2):
        return f"{formats.percent(math.expm1(instability))} above"
    return f"{formats.compact(math.exp(instability), 2)} times"


def _not_assessed_lines(examination: Examination) -> list[str]:
    """What was not assessed: together what the log does not hold, then what has reasons of its own."""
    unrecorded: list[str] = []
    others: list[str] = []
    for text in examination.not_assessed:
        name, _, reason = text.removesuffix(")").partition(" (")
        is_missing = any(word in reason for word in ("recorded", "single steps", "epoch-level"))
        (unrecorded if is_missing else others).append(name.replace("_", " ") if is_missing else text.replace("_", " "))
    lines = [f"Not in this log, so not assessed: {', '.join(_unique(unrecorded))}."] if unrecorded else []
    return lines + ([f"Not assessed: {'; '.join(others)}."] if others else [])


def _worst(examination: Examination) -> float:
    return max((finding.severity for finding in examination.symptoms), default=0.0)


def _table(*columns: tuple[str, int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), leading=1)
    for heading, ratio in columns:
        table.add_column(heading, ratio=ratio, overflow="fold")
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def _evidence(finding: Finding) -> list[str]:
    return [formats.evidence(name, value) for name, value in finding.evidence.items()]


# --- For machines


def _training_values(examination: Examination) -> dict[str, Any]:
    is_judged = examination.band is not Band.NOT_ASSESSED
    parts = {part.field: getattr(examination.score, part.field) for part in standings.PARTS}
    return {
        "name": examination.log.name,
        "epochs": examination.log.trace.num_epochs,
        "outcome": str(examination.outcome) if is_judged else "not_assessed",
        "stability": examination.score.stability if is_judged else None,
        "instability": examination.score.instability if is_judged else None,
        "parts": parts,
        "symptoms": [finding.code for finding in examination.symptoms],
        "causes": [finding.code for finding in examination.causes],
        "metrics": list(examination.log.metrics),
    }


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


# --- The page


def _page(source: str, shown: Sequence[Examination], infos: Sequence[PictureInfo | None], *, num_left_out: int) -> str:
    scripts = shell.page_scripts()
    plots = shell.Plots()
    names = [
        plots.add(f"training-{number}", figure) if figure is not None else ""
        for number, figure in enumerate(draw_pages(infos))
    ]
    context = {
        "title": Path(source).name or source,
        "source": source,
        "policy": shell.content_policy(scripts.values()),
        "scripts": scripts,
        "plots": plots.sources,
        "num_left_out": num_left_out,
        "trainings": [
            {
                "title": found.log.name,
                "headline": headline(found).removeprefix(f"{found.log.name}: "),
                "is_good": found.band.is_stable and not found.symptoms,
                "remarks": remarks(found),
                "name": name,
                "info": info,
                "symptoms": [_finding_row(finding, ()) for finding in found.symptoms],
                "causes": [_finding_row(finding, found.advice(finding)) for finding in found.causes],
            }
            for found, info, name in zip(shown, infos, names, strict=True)
        ],
    }
    return shell.template("diagnosis.html.j2").render(context)


def _finding_row(finding: Finding, remedies: Sequence[Remedy]) -> dict[str, Any]:
    return {
        "name": _words(finding.code),
        "severity": shell.severity_word(finding.severity),
        "confidence": formats.percent(finding.confidence),
        "where": finding.where or "all of it",
        "cause": finding.cause,
        "evidence": _evidence(finding),
        "remedies": remedies,
    }
