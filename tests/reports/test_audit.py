"""The page of an audit, and its verdict in a sentence."""

from __future__ import annotations

import dataclasses

import pytest

from reports.audit import verdict, write_audit
from tests.reports import synthetic
from tuner.data.audit import SEVERE
from tuner.records import Finding, Remedy


def finding(severity: float, name: str = "a") -> Finding:
    return Finding(
        code="drift",
        where=name,
        severity=severity,
        confidence=0.7,
        evidence={"largest_distance": 0.5},
        cause=f"{name} moves.",
        examples=(name,),
        remedies=(Remedy("data", "--split time", "Shows it."),),
    )


@pytest.mark.parametrize(
    ("severities", "told"),
    [
        ((), "Clean: no check of the audit found anything to report."),
        ((0.3, 0.89), "2 findings, none of them severe: a search can start."),
        ((SEVERE, 0.3), "2 findings, 1 of them severe: a search refuses to start (--force starts it all the same)."),
    ],
)
def test_verdict(severities, told):
    assert verdict(tuple(map(finding, severities))) == told


def test_page_shows_findings_worst_first_and_escapes_what_data_hold(tmp_path):
    dataset = dataclasses.replace(
        synthetic.dataset(), findings=(finding(0.8, "<b>x</b>"), finding(0.2)), proposed={"outliers": "clip"}
    )
    text = write_audit(dataset, tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "<b>x</b>" not in text
    assert text.index("&lt;b&gt;x&lt;/b&gt; moves.") < text.index("a moves.")
    assert "--split time" in text
    assert "outliers=clip" in text
    assert "<script" not in text


def test_page_of_clean_data_says_so(tmp_path):
    dataset = dataclasses.replace(synthetic.dataset(), findings=(), proposed={})
    text = write_audit(dataset, tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "Clean: no check" in text
    assert "<h2>Data</h2>" in text
