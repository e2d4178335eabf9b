"""Checks of images."""

from __future__ import annotations

from tuner.data.audit.sample import Sample, graded
from tuner.records import Finding, Remedy

__all__ = ["blank_images"]

# Share of images without content that is worth a line. Source: convention.
BLANK_FRAC = 0.001


def blank_images(sample: Sample) -> Finding | None:
    """Images of a single colour."""
    pixels = sample.dataset.x[sample.rows].reshape(len(sample.rows), -1)
    blank = pixels.min(axis=1) == pixels.max(axis=1)
    share = float(blank.mean())
    if share < BLANK_FRAC:
        return None
    return Finding(
        code="blank_images",
        where="",
        severity=0.95 if share == 1 else graded(share, low=0.4, high=0.89),
        confidence=1.0,
        evidence={"blank_frac": share, "num_rows_examined": float(len(sample.rows))},
        cause=f"{share:.1%} of the images show a single colour.",
        examples=sample.examples(sample.rows[blank]),
        remedies=(Remedy("data", "remove these images", "They tell nothing about their class."),),
    )
