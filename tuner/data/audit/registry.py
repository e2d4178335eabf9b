"""Which checks there are, and for which kind of data and task each of them runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from tuner.data.audit import (
    classes,
    copies,
    files,
    images,
    label_sets,
    leakage,
    mislabelled,
    order,
    recurrence,
    sounds,
    targets,
    texts,
    values,
)
from tuner.data.audit.sample import Sample
from tuner.records import DataSpec, Finding, Kind, Task

__all__ = ["CHECKS", "Check", "checks_of"]

_ALL_KINDS: tuple[Kind, ...] = get_args(Kind)
_ALL_TASKS: tuple[Task, ...] = get_args(Task)
_CLASSES: tuple[Task, ...] = ("classification",)
_NUMBERS: tuple[Task, ...] = ("regression",)
# Tasks of one answer for each sample.
_ONE_TARGET: tuple[Task, ...] = ("classification", "regression")
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
        proposes: Whether its first remedy is where the search starts, so that training rows alone may decide.
    """

    run: Callable[[Sample], Finding | None]
    kinds: tuple[Kind, ...] = _ALL_KINDS
    tasks: tuple[Task, ...] = _ALL_TASKS
    proposes: bool = False

    @property
    def code(self) -> str:
        """Of its finding."""
        return self.run.__name__


CHECKS = (
    Check(copies.duplicates),
    Check(copies.leaking_copies),
    Check(copies.near_copies, kinds=("series",)),
    Check(copies.copies_but_one, kinds=("series",)),
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
    Check(values.zero_codes, kinds=("series",)),
    Check(values.constant_columns, kinds=("series",)),
    Check(values.constant_series, kinds=("series",)),
    Check(values.outliers, kinds=("series",), proposes=True),
    Check(values.skew, kinds=("series",), proposes=True),
    Check(values.scale_spread, kinds=("series",), proposes=True),
    Check(targets.target_sentinel, tasks=_NUMBERS),
    Check(targets.few_target_values, tasks=_NUMBERS),
    Check(targets.target_outliers, tasks=_NUMBERS),
    Check(targets.target_skew, tasks=_NUMBERS),
    Check(mislabelled.label_errors, tasks=_CLASSES),
    Check(leakage.giveaway_column, kinds=("series",), tasks=_ONE_TARGET),
    Check(leakage.identifier_columns, kinds=("series",)),
    Check(order.time_leak, tasks=_ONE_TARGET),
    Check(order.sorted_labels, tasks=_CLASSES),
    Check(order.drift, kinds=("series",)),
    Check(order.shifted_parts),
)


def checks_of(spec: DataSpec) -> tuple[Check, ...]:
    """The checks that run for such data; findings of the same severity are told in this order."""
    return tuple(check for check in CHECKS if spec.kind in check.kinds and spec.task in check.tasks)
