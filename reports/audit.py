"""The data of a run, and what its audit found: rows for the pages, and a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports import formats, shell
from tuner.grammar import counted
from tuner.records import DatasetRecord, Finding
from tuner.store import write_text
from tuner.tasks import TASKS

__all__ = ["data_rows", "verdict", "write_audit"]

# From this severity on a search refuses to start. Source: `tuner.data.audit`; reports know records alone.
SEVERE = 0.9


def write_audit(dataset: DatasetRecord, file: Path) -> Path:
    """Write what the audit of data found as one page that opens offline.

    Args:
        dataset: What is known of the data, with its findings.
        file: The page; an older one is replaced.

    Raises:
        EnvironmentFault: It cannot be written.
    """
    context = {
        "title": Path(dataset.source).name or dataset.source,
        "dataset": dataset,
        "data": data_rows(dataset),
        "verdict": verdict(dataset.findings),
        "is_good": not dataset.findings,
        "policy": shell.content_policy(()),
        "proposed": sorted(dataset.proposed.items()),
    }
    write_text(file, shell.template("audit.html.j2").render(context))
    return file


def verdict(findings: tuple[Finding, ...]) -> str:
    """What was found, in a sentence."""
    if not findings:
        return "Clean: no check of the audit found anything to report."
    severe = sum(finding.severity >= SEVERE for finding in findings)
    found = counted(len(findings), "findings")
    if severe:
        return f"{found}, {severe} of them severe: a search refuses to start (--force starts it all the same)."
    return f"{found}, none of them severe: a search can start."


def data_rows(dataset: DatasetRecord) -> dict[str, Any]:
    """The data of a run as rows of tables: facts, classes, findings."""
    spec, total = dataset.spec, sum(dataset.class_counts)
    if spec.task == "multilabel":
        total = dataset.num_train + dataset.num_validation + dataset.num_test
    counts = zip(spec.class_names, dataset.class_counts, strict=False)
    most = max(dataset.class_counts, default=0) or 1
    facts = [
        ("source", dataset.source),
        ("kind", f"{spec.kind}, read as {spec.form.replace('_', ' ')}"),
        ("task", f"{spec.task} of {spec.target}" if spec.target else spec.task),
        ("one sample", " \N{MULTIPLICATION SIGN} ".join(map(str, spec.input_shape)) or "one number"),
        ("training part", counted(dataset.num_train, "samples")),
        ("validation part", counted(dataset.num_validation, "samples")),
        ("test part", f"{counted(dataset.num_test, 'samples')}, untouched by the search"),
        ("features with missing values", formats.count(dataset.num_features_missing)),
        ("chance level", f"loss {formats.number(dataset.chance_loss)}, error {formats.number(dataset.chance_error)}"),
        ("fingerprint", dataset.fingerprint[:16]),
    ]
    return {
        "facts": facts,
        "classes": [
            (
                name,
                formats.count(amount),
                f"{100 * amount / total if total else 0:.1f} %",
                round(100 * amount / most, 2),
            )
            for name, amount in counts
        ],
        "noun": TASKS[spec.task].noun,
        "findings": [_finding(finding) for finding in dataset.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "record": finding,
        "name": finding.code.replace("_", " "),
        "severity": shell.severity_word(finding.severity),
        "numbers": f"{formats.number(finding.severity, 2)}, confidence {formats.number(finding.confidence, 2)}",
        "evidence": [formats.evidence(name, value) for name, value in finding.evidence.items()],
    }
