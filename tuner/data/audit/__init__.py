"""Checks of a data set before the first training second; each gives at most one finding.

Severity: below 0.3 good to know, below 0.6 costs accuracy or stability, below `SEVERE` likely to spoil the result,
from `SEVERE` on a search would be pointless. A check is a function of `Sample` and speaks only when its threshold
is passed, so that clean data give no findings. `registry` says which checks run for which data.
"""

from __future__ import annotations

from tuner.data.audit.registry import checks_of
from tuner.data.audit.sample import SEVERE, draw
from tuner.data.dataset import Dataset
from tuner.data.split import Split
from tuner.records import Finding

__all__ = ["SEVERE", "audit"]


def audit(dataset: Dataset, split: Split) -> tuple[Finding, ...]:
    """Check a data set and its split.

    Args:
        dataset: As `sources.load` gave it.
        split: As `split.make_split` gave it.

    Returns:
        Findings, worst first; none for clean data.
    """
    sample = draw(dataset, split)
    findings = [finding for check in checks_of(dataset.spec) if (finding := check.run(sample)) is not None]
    return tuple(sorted(findings, key=lambda finding: -finding.severity))
