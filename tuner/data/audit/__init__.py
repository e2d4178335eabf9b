"""Checks of a data set before the first training second; each gives at most one finding.

Severity: below 0.3 good to know, below 0.6 costs accuracy or stability, below `SEVERE` likely to spoil the result,
from `SEVERE` on a search would be pointless. A check is a function of `Sample` and speaks only when its threshold
is passed, so that clean data give no findings. `registry` says which checks run for which data.
"""

from __future__ import annotations

from collections.abc import Callable

from tuner.data.audit.registry import checks_of
from tuner.data.audit.sample import SEVERE, draw
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import Finding

__all__ = ["SEVERE", "audit", "propose"]


def audit(
    dataset: Dataset, split: Split, *, before: Callable[[str, int, int], None] | None = None
) -> tuple[Finding, ...]:
    """Check a data set and its split.

    Args:
        dataset: As `sources.load` gave it.
        split: As `split.make_split` gave it.
        before: Is told of each check before it runs: its code, its number from 0, and how many there are.

    Returns:
        Findings, worst first; none for clean data.
    """
    sample, checks, findings = draw(dataset, split), checks_of(dataset.spec), []
    for number, check in enumerate(checks):
        if before is not None:
            before(check.code, number, len(checks))
        if (finding := check.run(sample)) is not None:
            findings.append(finding)
    return _worst_first(findings)


def propose(dataset: Dataset, split: Split) -> tuple[Finding, ...]:
    """Findings whose first remedy is where a search starts, seen in the training rows alone; worst first."""
    checks = [check for check in checks_of(dataset.spec) if check.proposes]
    sample = draw(dataset, split, among=split.train) if checks else None
    found = [check.run(sample) for check in checks if sample is not None]
    return _worst_first([finding for finding in found if finding is not None])


def _worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: -finding.severity))
