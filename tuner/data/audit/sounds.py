"""Checks of recorded sound: how it was recorded, how loud and how long it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import Sample, faulty, graded
from tuner.data.audit.waves import Numbers, measure
from tuner.records import Finding, Remedy

__all__ = [
    "clipped_sounds",
    "dc_offset",
    "loudness_spread",
    "mixed_channels",
    "mixed_rates",
    "odd_length",
    "quiet_sounds",
    "silent_ends",
    "silent_sounds",
]

# Share of files with a fault that is worth a line. Source: convention.
FAULTY_FRAC = 0.001

# Share of its samples that are flat at full scale from which on a file counts as clipped. Source: convention; in the
# Free Spoken Digit Dataset no file has any.
CLIPPED_FRAC = 0.001

# A file whose loudest sample lies below this holds no sound. Source: convention, 60 dB below full scale; the quietest
# spoken digit of the Free Spoken Digit Dataset has 0.012.
SILENT_PEAK = 0.001

# A file that stays below this is quiet: of 16 bits, the upper 5 are not used. Source: the same data set, where 2 % of
# the files do.
QUIET_PEAK = 0.02
QUIET_FRAC = 0.005

# Loudness of the 99th over the 1st percentile. Source: convention, 20 dB; the same data set has 34.
LOUDNESS_RATIO = 10.0

# Mean over root mean square from which on a file has an offset, and share of such files. Source: convention, 20 dB
# below the sound.
OFFSET_RATIO = 0.1
OFFSET_FRAC = 0.005

# Share of all that was recorded that is silence at the ends. Source: convention; the same data set, whose recordings
# were cut at their ends, has 0.07.
SILENT_ENDS_FRAC = 0.1

# Length over the median one, or the reverse. Source: convention; three of the same 1,500 files are longer.
LENGTH_RATIO = 3.0

_EQUAL = Remedy("loudness", "equal", "Brings all recordings to mean 0 and one loudness; the default.")

Flags = npt.NDArray[np.bool_]


def mixed_rates(sample: Sample) -> Finding | None:
    """Recordings at another sample rate than most: what was resampled upwards has no high tones."""
    return _minority(
        sample,
        fact="rate_hz",
        code="mixed_rates",
        told="are at another sample rate than most, {value:,.0f} Hz, and were resampled",
        remedy=Remedy(
            "data", "record all at one rate", "Files from lower rates lack high tones, by which they can be told."
        ),
    )


def mixed_channels(sample: Sample) -> Finding | None:
    """Recordings of another number of channels than most: averaging them changes how they sound."""
    return _minority(
        sample,
        fact="num_channels",
        code="mixed_channels",
        told="have another number of channels than most, {value:,.0f}; channels were averaged",
        remedy=Remedy("data", "store all with one channel", "Averaged channels sound different from single ones."),
    )


def _minority(sample: Sample, *, fact: str, code: str, told: str, remedy: Remedy) -> Finding | None:
    """A finding of files of which a fact is another than of most."""
    if fact not in sample.dataset.facts:
        return None
    values = sample.dataset.facts[fact]
    different, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(different) < 2:
        return None
    usual = different[int(counts.argmax())]
    is_other = ~np.isnan(values) & (values != usual)
    return faulty(
        sample,
        code,
        is_other,
        noun="files",
        rows=np.arange(len(values)),
        severity=graded(2 * float(is_other.mean()), low=0.25, high=0.5),
        cause=told.format(value=usual),
        remedies=(remedy,),
        more={"usual": float(usual), "num_values": float(len(different))},
    )


def clipped_sounds(sample: Sample) -> Finding | None:
    """Recordings that stay at full scale where the sound was louder."""
    if "clipped_frac" not in sample.dataset.facts:
        return None
    clipped = np.nan_to_num(sample.dataset.facts["clipped_frac"])
    rows = np.arange(len(clipped))
    is_clipped = clipped >= CLIPPED_FRAC
    return _faulty(
        sample,
        "clipped_sounds",
        is_clipped,
        rows=rows,
        badness=clipped,
        severity=(0.25, 0.7),
        cause=f"are clipped: up to {clipped.max():.1%} of their samples are flat at full scale",
        remedies=(Remedy("data", "record these again, less loud", "What was cut off cannot be brought back."),),
    )


def silent_sounds(sample: Sample) -> Finding | None:
    """Recordings without any sound."""
    waves = sample.once(measure)
    return _faulty(
        sample,
        "silent_sounds",
        waves.peak < SILENT_PEAK,
        rows=waves.rows,
        badness=-waves.peak,
        severity=(0.4, 0.95),
        cause=f"are silent: nothing in them reaches {SILENT_PEAK:.1%} of full scale",
        remedies=(Remedy("data", "remove these files", "They tell nothing about their class."),),
    )


def quiet_sounds(sample: Sample) -> Finding | None:
    """Recordings that use a fraction of full scale, so that their steps are coarse and noise is near."""
    waves = sample.once(measure)
    return _faulty(
        sample,
        "quiet_sounds",
        (waves.peak < QUIET_PEAK) & (waves.peak >= SILENT_PEAK),
        rows=waves.rows,
        badness=-waves.peak,
        severity=(0.2, 0.5),
        least=QUIET_FRAC,
        cause=f"peak below {QUIET_PEAK:.0%} of full scale, the quietest at {waves.peak.min():.2%}",
        remedies=(_EQUAL,),
    )


def loudness_spread(sample: Sample) -> Finding | None:
    """Recordings of very different loudness."""
    waves = sample.once(measure)
    has_sound = waves.peak >= SILENT_PEAK
    if not has_sound.any():
        return None
    loudness = waves.loudness[has_sound]
    low, high = np.quantile(loudness, [0.01, 0.99])
    ratio = float(high / max(low, np.finfo(np.float64).tiny))
    if ratio < LOUDNESS_RATIO:
        return None
    return Finding(
        code="loudness_spread",
        where="",
        severity=0.25,
        confidence=1.0,
        evidence={"ratio": ratio, "num_rows_examined": float(len(waves.rows))},
        cause=f"The loudest recordings are {ratio:,.0f} times as loud as the quietest (99th over 1st percentile).",
        examples=sample.examples(waves.rows[has_sound][np.argsort(loudness, kind="stable")]),
        remedies=(_EQUAL,),
    )


def dc_offset(sample: Sample) -> Finding | None:
    """Recordings whose mean is not 0, as a badly adjusted recorder leaves them."""
    waves = sample.once(measure)
    ratio = np.abs(waves.offset) / np.maximum(waves.loudness, np.finfo(np.float64).tiny)
    has_offset = (ratio > OFFSET_RATIO) & (waves.peak >= SILENT_PEAK)
    largest = float(np.abs(waves.offset[has_offset]).max(initial=0.0))
    return _faulty(
        sample,
        "dc_offset",
        has_offset,
        rows=waves.rows,
        badness=np.where(has_offset, ratio, 0.0),
        severity=(0.15, 0.4),
        least=OFFSET_FRAC,
        cause=f"have a mean that is not 0, but up to {largest:.2%} of full scale",
        remedies=(_EQUAL,),
    )


def silent_ends(sample: Sample) -> Finding | None:
    """Silence before and after the sound."""
    waves = sample.once(measure)
    lengths = np.count_nonzero(~np.isnan(sample.dataset.x[waves.rows]), axis=1)
    share = float(np.average(waves.silent_frac, weights=np.maximum(lengths, 1)))
    if share < SILENT_ENDS_FRAC:
        return None
    return Finding(
        code="silent_ends",
        where="",
        severity=graded(share, low=0.15, high=0.4),
        confidence=0.9,
        evidence={"silent_frac": share, "num_rows_examined": float(len(waves.rows))},
        cause=f"{share:.0%} of what was recorded is silence at the ends of the files.",
        examples=sample.examples(waves.rows[np.argsort(-waves.silent_frac, kind="stable")]),
        remedies=(Remedy("trim", "silence", "Cuts silence off at both ends; the default."),),
    )


def odd_length(sample: Sample) -> Finding | None:
    """Recordings far longer or shorter than the others."""
    if "seconds" not in sample.dataset.facts:
        return None
    seconds = sample.dataset.facts["seconds"]
    median = float(np.nanmedian(seconds))
    distance = np.nan_to_num(np.abs(np.log(seconds / median)))
    is_long = np.nan_to_num(seconds) > LENGTH_RATIO * median
    is_short = np.nan_to_num(seconds, nan=median) < median / LENGTH_RATIO
    finding = _faulty(
        sample,
        "odd_length",
        is_long | is_short,
        rows=np.arange(len(seconds)),
        badness=distance,
        severity=(0.2, 0.5),
        cause=f"are more than {LENGTH_RATIO:g} times as long or as short as the median of {median:.2f} s (from "
        f"{np.nanmin(seconds):.2f} to {np.nanmax(seconds):.2f} s)",
        remedies=(
            Remedy("data", "cut or remove these files", "All get one length: others are padded up to long ones."),
        ),
    )
    if finding is not None:
        finding.evidence.update(num_long=float(np.count_nonzero(is_long)), num_short=float(np.count_nonzero(is_short)))
    return finding


def _faulty(
    sample: Sample,
    code: str,
    is_faulty: Flags,
    *,
    rows: npt.NDArray[np.int64],
    badness: Numbers,
    severity: tuple[float, float],
    cause: str,
    remedies: tuple[Remedy, ...],
    least: float = FAULTY_FRAC,
) -> Finding | None:
    """A finding of files with a fault, if there are enough of them."""
    share = float(is_faulty.mean())
    if share < least:
        return None
    return faulty(
        sample,
        code,
        is_faulty,
        noun="files",
        rows=rows,
        badness=badness,
        severity=graded(share, low=severity[0], high=severity[1]),
        cause=cause,
        remedies=remedies,
    )
