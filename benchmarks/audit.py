"""What the data audit takes, and how well it finds labels that were made wrong on purpose.

    python -m benchmarks.audit DATA [DATA ...]       # `digits` for scikit-learn's

Of each: seconds of all checks and of the slowest (processor time of this process), then for 0, 3 and 5 % of labels set
to another class the share that `label_errors` doubts, how many of the wrong ones are among them, and whether it is a
finding.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np

from tuner.data import sources, split
from tuner.data.audit import mislabelled
from tuner.data.audit.registry import checks_of
from tuner.data.audit.sample import Sample, draw
from tuner.data.options import ReadOptions

FLIPPED_FRACS = (0.0, 0.03, 0.05)


def report(source: str) -> None:
    """Measure one data set and print it."""
    dataset = sources.load(None if source == "digits" else source, ReadOptions())
    parts = split.split_dataset(dataset, seed=0)
    sample = draw(dataset, parts)
    seconds = {}
    for check in checks_of(dataset.spec):
        started = time.process_time()
        check.run(sample)
        seconds[check.code] = time.process_time() - started
    slowest = max(seconds, key=lambda code: seconds[code])
    print(f"{source}: {len(dataset.x):,} samples, {sum(seconds.values()):.1f} s ({slowest} {seconds[slowest]:.1f} s)")
    if dataset.spec.task == "classification":
        for frac in FLIPPED_FRACS:
            print(f"  {frac:4.0%} wrong: {doubts(sample, frac)}")


def doubts(sample: Sample, frac: float) -> str:
    """What is found when a share of the labels is wrong."""
    dataset, num_classes = sample.dataset, sample.dataset.spec.num_classes
    generator = np.random.default_rng(0)
    wrong = generator.choice(len(dataset.y), int(frac * len(dataset.y)), replace=False)
    y = dataset.y.copy()
    y[wrong] = (y[wrong] + generator.integers(1, num_classes, len(wrong))) % num_classes
    changed = draw(dataclasses.replace(dataset, y=y), sample.split)
    judged = mislabelled.judge(changed)
    if judged is None:
        return "not judged, the model of the other samples is too weak"
    is_wrong = np.isin(judged.rows, wrong)
    recall = f", {judged.doubted[is_wrong].mean():.0%} of the wrong ones" if is_wrong.any() else ""
    verdict = "a finding" if mislabelled.label_errors(changed) is not None else "no finding"
    return f"{judged.doubted.mean():.2%} doubted{recall}; {verdict}"


if __name__ == "__main__":
    for each in sys.argv[1:] or ["digits"]:
        report(each)
