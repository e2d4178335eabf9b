"""Which checks there are, and for which kind of data and task each of them runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from tuner.data.audit import classes, copies, files, images, label_sets, recurrence, sounds, texts, values
from tuner.data.audit.sample import Sample
from tuner.records import DataSpec, Finding, Kind, Task

__all__ = ["CHECKS", "Check", "checks_of"]

_ALL_KINDS: tuple[Kind, ...] = get_args(Kind)
_ALL_TASKS: tuple[Task, ...] = get_args(Task)
_CLASSES: tuple[Task, ...] = ("classification",)
_LABELS: tuple[Task, ...] = ("multilabel",)
# Kinds whose single values are measurements.
_MEASURED: tuple[Kind, ...] = ("image", "series")


@dataclass(frozen=True)
class Check:
    """One check of the audit.

    Attributes:
        run: The check; it gives a finding if a threshold is passed, and is named like the finding's code.
        kinds: Kinds of data that it understands.
        tasks: Tasks that it makes sense for.
    """

    run: Callable[[Sample], Finding | None]
    kinds: tuple[Kind, ...] = _ALL_KINDS
    tasks: tuple[Task, ...] = _ALL_TASKS

    @property
    def code(self) -> str:
        """Of its finding."""
        return self.run.__name__


CHECKS = (
    Check(copies.duplicates),
    Check(copies.leaking_copies),
    Check(values.missing_values, kinds=_MEASURED),
    Check(values.infinite_values, kinds=_MEASURED),
    Check(copies.conflicting_labels, tasks=(*_CLASSES, *_LABELS)),
    Check(classes.class_imbalance, tasks=_CLASSES),
    Check(classes.few_samples, tasks=_CLASSES),
    Check(label_sets.constant_labels, tasks=_LABELS),
    Check(label_sets.rare_labels, tasks=_LABELS),
    Check(label_sets.label_cardinality, tasks=_LABELS),
    Check(files.unreadable_files),
    Check(files.odd_size, kinds=("image",)),
    Check(files.odd_aspect, kinds=("image",)),
    Check(files.format_tells_label, kinds=("image", "audio"), tasks=_CLASSES),
    Check(recurrence.group_leak, kinds=("image", "audio"), tasks=_CLASSES),
    Check(images.blank_images, kinds=("image",)),
    Check(images.dark_images, kinds=("image",)),
    Check(images.light_images, kinds=("image",)),
    Check(images.blurry_images, kinds=("image",)),
    Check(images.low_information, kinds=("image",)),
    Check(images.grey_among_colour, kinds=("image",)),
    Check(images.mixed_ranges, kinds=("image",)),
    Check(images.two_valued_images, kinds=("image",)),
    Check(images.already_standardised, kinds=("image",)),
    Check(sounds.silent_sounds, kinds=("audio",)),
    Check(sounds.clipped_sounds, kinds=("audio",)),
    Check(sounds.mixed_rates, kinds=("audio",)),
    Check(sounds.mixed_channels, kinds=("audio",)),
    Check(sounds.loudness_spread, kinds=("audio",)),
    Check(sounds.quiet_sounds, kinds=("audio",)),
    Check(sounds.odd_length, kinds=("audio",)),
    Check(sounds.silent_ends, kinds=("audio",)),
    Check(sounds.dc_offset, kinds=("audio",)),
    Check(texts.label_in_text, kinds=("text",), tasks=_CLASSES),
    Check(texts.encoding_debris, kinds=("text",)),
    Check(texts.unknown_words, kinds=("text",)),
    Check(texts.truncated_texts, kinds=("text",)),
    Check(texts.text_length, kinds=("text",)),
    Check(texts.mixed_scripts, kinds=("text",)),
    Check(texts.html_debris, kinds=("text",)),
    Check(values.sentinel_values, kinds=("series",)),
    Check(values.constant_columns, kinds=("series",)),
    Check(values.outliers, kinds=("series",)),
    Check(values.skew, kinds=("series",)),
    Check(values.scale_spread, kinds=("series",)),
)


def checks_of(spec: DataSpec) -> tuple[Check, ...]:
    """The checks that run for such data; findings of the same severity are told in this order."""
    return tuple(check for check in CHECKS if spec.kind in check.kinds and spec.task in check.tasks)
