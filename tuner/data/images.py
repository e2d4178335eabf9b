"""Reader of image folders: one sub-folder of images per class, or a table of labels beside them.

All images get one size and one mode, so that they fit into one array:

- size: the most common size of the folder (if at least `USUAL_FRAC` of the images have it, else a square of the
  median short side), reduced to at most `MAX_SIDE_PX`; `--image-size` sets the longest side instead;
- mode: grey if every image is grey, else RGB; transparent pixels become white;
- the rotation that a camera noted in EXIF is applied.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tuner.data import folders, label_files, roles, room
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.grammar import counted, verb
from tuner.records import DataSpec

__all__ = ["IMAGE_SUFFIXES", "read", "read_features"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Longest side without --image-size. Source: convention; a small CNN on two cores trains in minutes up to there.
MAX_SIDE_PX = 64

# Share of the images that must have the most common size for it to count as the usual one. Source: convention.
USUAL_FRAC = 0.5

# EXIF tag and those of its values that swap width and height. Source: EXIF 2.32, section 4.6.4.
_ORIENTATION_TAG = 0x0112
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
_UPRIGHT = 1

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")

# What Pillow's readers raise for damaged files; SyntaxError is PNG's.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, Image.DecompressionBombError)

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class _Header:
    """What the first bytes of a file say; the size is that of the upright image."""

    size: Size
    mode: str
    format: str
    orientation: int
    num_frames: int

    @property
    def is_grey(self) -> bool:
        return self.mode in _GREY_MODES


def read(root: Path, options: ReadOptions, *, like: DataSpec | None = None) -> Dataset:
    """Read a folder of class folders, or of files beside a table of labels.

    Args:
        root: The folder; without a table of labels (`label_files`) each of its sub-folders is a class, at any depth.
        options: `image_size` is the longest side in pixels, None for the usual size; `group` by path.
        like: How other data was read, whose size and mode these images get.

    Raises:
        DataError: There are no class folders or images, fewer than two classes, or too many images cannot be read.
    """
    found = label_files.find(root, IMAGE_SUFFIXES, options, noun="images", like=like)
    readable = folders.Readable(root, found.files, noun="images")
    headers = readable.each(_header)
    header_of = dict(zip(readable.files, headers, strict=True))
    sizes = [header.size for header in headers]
    if like is not None:
        size, mode = _size_and_mode(like)
    else:
        size = _choose_size(sizes, options.image_size)
        mode = "L" if all(header.is_grey for header in headers) else "RGB"
    x = _decoded(readable, size, mode)
    if like is None and mode == "RGB" and all(np.all(piece == piece[..., :1]) for piece in room.pieces(x)):
        x, mode = room.taken(x[..., :1], np.arange(len(x))), "L"
    kept = [header_of[file] for file in readable.files]  # without those whose pixels cannot be read
    notes = (
        readable.note,
        _size_note([header.size for header in kept], size),
        _mode_note(kept, mode),
        _frames_note(kept),
    )
    encoded = found.encoded(readable.files)
    groups, group_notes = roles.groups_of_files(readable.names, options.group)
    return Dataset(
        name=root.resolve().name,
        spec=DataSpec(
            "image_folder",
            "image",
            encoded.task,
            tuple(x.shape[1:]),
            encoded.class_names,
            target=found.target.name if found.target else None,
            reading=found.reading | ({"group": options.group} if options.group else {}),
        ),
        x=x,
        y=encoded.y,
        row_names=readable.names,
        groups=groups,
        notes=(*found.notes, *filter(None, notes), *group_notes, *encoded.notes),
        facts=_facts(kept),
        unreadable=readable.unreadable,
    )


def read_features(path: Path, spec: DataSpec, notes: list[str]) -> tuple[Pixels, tuple[str, ...]]:
    """Read images to predict: one image, or all images below a folder, in the size and mode of the training data.

    Args:
        path: An image file or a folder.
        spec: How the training data was read.
        notes: What is decided is added.

    Raises:
        DataError: There are no images, or too many of them cannot be read.
    """
    readable = folders.to_predict(path, IMAGE_SUFFIXES, noun="images")
    x = _decoded(readable, *_size_and_mode(spec))
    notes += filter(None, [readable.note])
    return x, readable.names


def _size_and_mode(spec: DataSpec) -> tuple[Size, str]:
    height, width, channels = spec.input_shape
    return (width, height), "L" if channels == 1 else "RGB"


def _header(file: Path) -> _Header | str:
    try:
        with Image.open(file) as image:
            width, height = image.size
            noted = image.getexif().get(_ORIENTATION_TAG)
            orientation = noted if isinstance(noted, int) and 1 <= noted <= 8 else _UPRIGHT
            if orientation in _SWAPPING_ORIENTATIONS:
                width, height = height, width
            num_frames = getattr(image, "n_frames", 1)
            return _Header((width, height), image.mode, image.format or "", orientation, num_frames)
    except _UNREADABLE as error:
        return _reason(file, error)


def _facts(headers: Sequence[_Header]) -> dict[str, npt.NDArray[Any]]:
    return {
        "width_px": np.array([header.size[0] for header in headers], np.float64),
        "height_px": np.array([header.size[1] for header in headers], np.float64),
        "mode": np.array([header.mode for header in headers]),
        "format": np.array([header.format for header in headers]),
        "orientation": np.array([header.orientation for header in headers], np.float64),
    }


def _reason(file: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, whatever its name says"
    return str(error) or type(error).__name__


def _choose_size(sizes: Sequence[Size], image_size: int | None) -> Size:
    """Width and height that all images get."""
    (width, height), count = Counter(sizes).most_common(1)[0]
    if count < USUAL_FRAC * len(sizes):
        width = height = int(np.median([min(size) for size in sizes]))
    longest = image_size or min(MAX_SIDE_PX, max(width, height))
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _size_note(sizes: Sequence[Size], size: Size) -> str:
    counts = Counter(sizes)
    (usual, count), shown = counts.most_common(1)[0], f"{size[0]}x{size[1]}"
    if len(counts) == 1:
        if usual == size:
            return ""
        return f"{counted(len(sizes), 'images')} of {usual[0]}x{usual[1]} resized to {shown} (--image-size changes it)."
    return (
        f"{len(sizes):,} images of {len(counts)} sizes ({count:,} of {usual[0]}x{usual[1]}) resized to {shown} "
        "(--image-size changes it)."
    )


def _mode_note(headers: Sequence[_Header], mode: str) -> str:
    num_grey = sum(header.is_grey for header in headers)
    if mode == "L" and num_grey < len(headers):
        return "All images hold equal red, green and blue, and were read as grey."
    if mode == "RGB" and num_grey:
        return (
            f"{counted(num_grey, 'images', 'are', of=len(headers))} grey, and {verb(num_grey, 'were')} read "
            "as RGB like the others."
        )
    return ""


def _frames_note(headers: Sequence[_Header]) -> str:
    num_stacks = sum(header.num_frames > 1 for header in headers)
    if not num_stacks:
        return ""
    told = counted(num_stacks, "images", of=len(headers))
    return f"{told} {verb(num_stacks, 'have')} several frames or pages, of which the first was read."


def _decoded(readable: folders.Readable, size: Size, mode: str) -> Pixels:
    """Images as one array (n, height, width, channels)."""

    def pixels(file: Path) -> Pixels | str:
        try:
            return _pixels(file, size, mode)
        except _UNREADABLE as error:
            return _reason(file, error)

    shape = (len(readable.files), size[1], size[0], 1 if mode == "L" else 3)
    return readable.into(room.allocated(shape, np.uint8), pixels)


def _pixels(file: Path, size: Size, mode: str) -> Pixels:
    with Image.open(file) as opened:
        # JPEG decodes at a half, quarter or eighth for free; at least twice the size keeps the resize smooth.
        opened.draft(mode, (2 * max(size), 2 * max(size)))
        image = ImageOps.exif_transpose(opened)
        image = _flattened(image, mode)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(size[1], size[0], -1)


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    """In 8-bit grey or RGB, transparent pixels white, 16-bit values scaled down."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _to_8_bit(image: Image.Image) -> Image.Image:
    values: npt.NDArray[Any] = np.asarray(image, np.float32)
    if image.mode.startswith("I"):
        values = values / 257
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
