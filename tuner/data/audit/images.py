"""Checks of images: those that show little, look unlike the others, or were scaled differently.

An image is dark, light, blurry or poor in information only if it passes a fixed bound *and* stands out from the rest:
a collection of X-rays is not all dark. The bounds were measured on images as the network sees them (at most 64 px
unless asked for), on Fashion-MNIST, CIFAR-10, sign language digits and scikit-learn's digits, which have none such,
and on copies of them that were spoiled on purpose; `docs/audit.md` has the figures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.data.audit.pictures import Numbers, Pictures, measure
from tuner.data.audit.sample import Sample, faulty, graded, share_text
from tuner.grammar import verb
from tuner.records import Finding, Remedy

__all__ = [
    "already_standardised",
    "blank_images",
    "blurry_images",
    "dark_images",
    "grey_among_colour",
    "light_images",
    "low_information",
    "mixed_ranges",
    "two_valued_images",
]

# Share of images with a fault that is worth a line. Source: convention.
BLANK_FRAC = 0.001
POOR_FRAC = 0.001

# Brightness (0 black, 1 white) that 99 % of the pixels of a dark image do not reach, and distance from white that 99 %
# of a light one do not reach. Source: measured; the darkest clean image has 0.27, the lightest 0.45, images dimmed or
# bleached to a fifth of their range 0.2 or less. Cleanvision has 0.37, which 7 images of Fashion-MNIST do not reach.
DARK_BRIGHTNESS = 0.25
LIGHT_DISTANCE = 0.25

# Sharpness (see `Pictures`) of a blurry image. Source: measured; the softest clean image has 0.94, a Gaussian blur of
# 1 px leaves 0.8, of 1.5 px 0.58, of 2 px 0.46 (medians on CIFAR-10).
BLURRY_SHARPNESS = 0.75

# Entropy and contrast of an image that shows hardly anything. Source: measured; the poorest clean image has 1.08 bits
# and a deviation of 0.028 of the range.
POOR_ENTROPY_BITS = 1.0
POOR_CONTRAST = 0.02

# An image stands out if it has less than this share of what the median image has.
STANDS_OUT_FRAC = 0.5
SOFT_STANDS_OUT_FRAC = 0.6
POOR_STANDS_OUT_FRAC = 0.25

# Largest difference of the channels, as a share of the range, of a picture without colour, and least contrast of one
# that could show any. Source: convention; 3 of 255 levels, which JPEG may leave.
GREY_CHROMA = 0.012
GREY_CONTRAST = 0.05
# Share of grey images among coloured ones that is worth a line. Source: CIFAR-10, which is taken for clean, has 1.5 %.
GREY_FRAC = 0.02

# A highest value this many times another's, one of them at most 1, is another scale. Source: convention; 255 and 1.
OTHER_SCALE_RATIO = 10.0

# Mean (in deviations) and deviation of all channels that a standardisation leaves. Source: convention.
STANDARD_MEAN = 0.05
STANDARD_DEVIATION = (0.9, 1.1)

_RETAKE = Remedy("data", "remove or retake these images", "The network can learn little from them, or the wrong thing.")

Flags = npt.NDArray[np.bool_]


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


def dark_images(sample: Sample) -> Finding | None:
    """Images far darker than the others, with hardly a bright pixel."""
    pictures = sample.once(measure)
    bound = min(DARK_BRIGHTNESS, STANDS_OUT_FRAC * float(np.median(pictures.brightest)))
    is_dark = _has_content(pictures) & (pictures.brightest < bound)
    cause = f"are dark: 99 % of their pixels lie below {bound:.0%} of the range, far below the other images'"
    return _poor(sample, "dark_images", is_dark, badness=-pictures.brightest, cause=cause, bound=bound)


def light_images(sample: Sample) -> Finding | None:
    """Images far lighter than the others, with hardly a dark pixel: bleached, overexposed."""
    pictures = sample.once(measure)
    distance = 1 - pictures.darkest
    bound = min(LIGHT_DISTANCE, STANDS_OUT_FRAC * float(np.median(distance)))
    is_light = _has_content(pictures) & (distance < bound)
    cause = f"are bleached: 99 % of their pixels lie above {1 - bound:.0%} of the range, far above the other images'"
    return _poor(sample, "light_images", is_light, badness=-distance, cause=cause, bound=bound)


def blurry_images(sample: Sample) -> Finding | None:
    """Images far less sharp than the others."""
    pictures = sample.once(measure)
    bound = min(BLURRY_SHARPNESS, SOFT_STANDS_OUT_FRAC * float(np.median(pictures.sharpness)))
    is_blurry = _has_content(pictures) & (pictures.sharpness < bound)
    cause = f"are blurry (sharpness below {bound:.2f}, the median image has {np.median(pictures.sharpness):.2f})"
    return _poor(sample, "blurry_images", is_blurry, badness=-pictures.sharpness, cause=cause, bound=bound)


def low_information(sample: Sample) -> Finding | None:
    """Images that are almost of one colour, such as placeholders, and neither dark nor light."""
    pictures = sample.once(measure)
    entropy, contrast = pictures.entropy_bits, pictures.contrast
    entropy_bound = min(POOR_ENTROPY_BITS, POOR_STANDS_OUT_FRAC * float(np.median(entropy)))
    contrast_bound = min(POOR_CONTRAST, POOR_STANDS_OUT_FRAC * float(np.median(contrast)))
    has_light = (pictures.brightest >= DARK_BRIGHTNESS) & (1 - pictures.darkest >= LIGHT_DISTANCE)
    is_poor = _has_content(pictures) & has_light & ((entropy < entropy_bound) | (contrast < contrast_bound))
    cause = f"show hardly anything: almost no contrast, or an entropy below {entropy_bound:.2g} bit"
    return _poor(sample, "low_information", is_poor, badness=-entropy, cause=cause, bound=entropy_bound)


def _has_content(pictures: Pictures) -> Flags:
    """Neither blank nor on another scale, which are findings of their own."""
    return ~pictures.is_blank & ~_is_other_scale(pictures)


def _poor(sample: Sample, code: str, is_poor: Flags, *, badness: Numbers, cause: str, bound: float) -> Finding | None:
    """A finding of images that show too little, if there are enough of them."""
    pictures = sample.once(measure)
    share = float(is_poor.mean())
    if share < POOR_FRAC:
        return None
    return faulty(
        sample,
        code,
        is_poor,
        noun="images",
        rows=pictures.rows,
        badness=badness,
        severity=graded(share, low=0.25, high=0.7),
        confidence=0.8,
        cause=cause,
        remedies=(_RETAKE,),
        more={"worst": float(abs(badness[is_poor].max())), "bound": bound},
    )


def grey_among_colour(sample: Sample) -> Finding | None:
    """Images without colour among coloured ones."""
    pictures = sample.once(measure)
    is_grey = (pictures.chroma < GREY_CHROMA) & (pictures.contrast >= GREY_CONTRAST)
    share = float(is_grey.mean())
    if sample.dataset.x.shape[-1] != 3 or not GREY_FRAC <= share < 1:
        return None
    evidence = {
        "grey_frac": share,
        "num_grey": float(np.count_nonzero(is_grey)),
        "num_rows_examined": float(len(pictures.rows)),
    }
    classes = ""
    if sample.dataset.spec.task == "classification":
        names = sample.dataset.spec.class_names
        counts = np.bincount(sample.dataset.y[pictures.rows[is_grey]], minlength=len(names))
        evidence["largest_class_frac"] = float(counts.max() / counts.sum())
        classes = f", {counts.max() / counts.sum():.0%} of them in class {names[int(counts.argmax())]!r}"
    return Finding(
        code="grey_among_colour",
        where="",
        severity=graded(evidence.get("largest_class_frac", 0.0), low=0.2, high=0.6),
        confidence=0.9,
        evidence=evidence,
        cause=f"{share_text(is_grey, 'images')} {verb(int(is_grey.sum()), 'are')} grey, the others coloured{classes}.",
        examples=sample.examples(pictures.rows[is_grey]),
        remedies=(
            Remedy(
                "data", "make all of them grey, or remove these", "Whether there is colour should not tell the class."
            ),
        ),
    )


def mixed_ranges(sample: Sample) -> Finding | None:
    """Images from 0 to 1 among others from 0 to 255: some were divided once too often, or not at all."""
    pictures = sample.once(measure)
    is_other = _is_other_scale(pictures)
    if not is_other.any():
        return None
    usual, other = float(np.median(pictures.highest)), float(np.median(pictures.highest[is_other]))
    return faulty(
        sample,
        "mixed_ranges",
        is_other,
        noun="images",
        rows=pictures.rows,
        severity=graded(float(is_other.mean()), low=0.6, high=0.89),
        cause=f"reach up to {other:.3g}, the others to {usual:.3g}: they are on another scale",
        more={"usual_highest": usual, "other_highest": other},
        remedies=(Remedy("data", "bring all images to one range", "One scaler holds for all of them."),),
    )


def _is_other_scale(pictures: Pictures) -> Flags:
    """Whether an image ends at 1 where most go far beyond, or goes far beyond where most end at 1."""
    usual = float(np.median(pictures.highest))
    if usual > OTHER_SCALE_RATIO:
        return (pictures.highest > 0) & (pictures.highest <= 1)
    if 0 < usual <= 1:
        return pictures.highest > OTHER_SCALE_RATIO
    return np.zeros(len(pictures.rows), bool)


def two_valued_images(sample: Sample) -> Finding | None:
    """Whole-number pixels of 0 and 1 alone, as they are left when bytes are divided by 255 and rounded down."""
    pictures = sample.once(measure)
    if sample.dataset.x.dtype != np.uint8 or pictures.highest.max() != 1:
        return None
    ones = float(np.mean(sample.dataset.x[pictures.rows]))
    return Finding(
        code="two_valued_images",
        where="",
        severity=0.5,
        confidence=0.6,
        evidence={"ones_frac": ones, "num_rows_examined": float(len(pictures.rows))},
        cause=f"The pixels are whole numbers of which none is above 1 ({ones:.1%} are 1): drawings in black and white, "
        "or photographs that were divided by 255 and cut to whole numbers.",
        remedies=(
            Remedy("data", "save the pixels as they were, from 0 to 255", "Rounding took all shades from them."),
        ),
    )


def already_standardised(sample: Sample) -> Finding | None:
    """Images that were brought to mean 0 and deviation 1 before they were saved."""
    if sample.dataset.x.dtype.kind != "f" or np.isnan(sample.columns).all(axis=0).any():
        return None
    mean, deviation = np.nanmean(sample.columns, axis=0), np.nanstd(sample.columns, axis=0)
    low, high = STANDARD_DEVIATION
    if np.any(np.abs(mean) > STANDARD_MEAN) or np.any(deviation < low) or np.any(deviation > high):
        return None
    return Finding(
        code="already_standardised",
        where="",
        severity=0.15,
        confidence=0.8,
        evidence={"largest_mean": float(np.abs(mean).max()), "deviation": float(deviation.mean())},
        cause="The pixels have mean 0 and deviation 1 already: they were standardised before, perhaps by the mean of "
        "the validation and test images, too.",
        remedies=(Remedy("data", "save the pixels as they were", "The search scales by the training part alone."),),
    )
