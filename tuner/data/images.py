"""Reader of image folders: one sub-folder of images per class.

All images get one size and one mode, so that they fit into one array:

- size: the most common size of the folder (if at least `USUAL_FRAC` of the images have it, else a square of the
  median short side), reduced to at most `MAX_SIDE_PX`; `--image-size` sets the longest side instead;
- mode: grey if every image is grey, else RGB; transparent pixels become white;
- the rotation that a camera noted in EXIF is applied.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tuner.data.dataset import Dataset
from tuner.errors import DataError
from tuner.records import DataSpec

__all__ = ["IMAGE_SUFFIXES", "read", "read_features"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Longest side without --image-size. Source: convention; a small CNN on two cores trains in minutes up to there.
MAX_SIDE_PX = 64

# Share of the images that must have the most common size for it to count as the usual one. Source: convention.
USUAL_FRAC = 0.5

# What systems leave in folders of pictures; hidden files (leading dot) are passed over as well.
JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r")

# Names of folders that hold the parts of a data set rather than its classes.
PART_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}

# At most this many files are named in a message.
MAX_NAMED = 20

# EXIF tag and those of its values that swap width and height. Source: EXIF 2.32, section 4.6.4.
_ORIENTATION_TAG = 0x0112
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")

# What Pillow's readers raise for damaged files; SyntaxError is PNG's.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, Image.DecompressionBombError)

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Header:
    """What the first bytes of a file say; `problem` is empty if it could be opened."""

    size: Size
    is_grey: bool
    problem: str = ""


def read(root: Path, *, image_size: int | None) -> Dataset:
    """Read a folder of class folders.

    Args:
        root: The folder; each of its sub-folders is a class, at any depth below.
        image_size: Longest side in pixels, or None for the usual size.

    Raises:
        DataError: There are no class folders or images, fewer than two classes, or some images cannot be read.
    """
    files, notes = _find(root)
    class_names = tuple(sorted({file.relative_to(root).parts[0] for file in files}))
    if len(class_names) < 2:
        below = [entry for entry in (root / class_names[0]).iterdir() if entry.is_dir() and not _is_junk(entry.name)]
        hint = f" Did you mean {str(root / class_names[0])!r}?" if below else ""
        raise DataError(
            f"{str(root)!r} has images of one class only, {class_names[0]!r}. A classifier needs at least two: one "
            f"sub-folder for each.{hint}"
        )
    headers = _in_threads(_header, files)
    _refuse_unreadable(root, files, [header.problem for header in headers])
    size = _choose_size([header.size for header in headers], image_size)
    mode = "L" if all(header.is_grey for header in headers) else "RGB"
    x = _decode(root, files, size, mode)
    if mode == "RGB" and np.array_equal(x[..., 0], x[..., 1]) and np.array_equal(x[..., 0], x[..., 2]):
        x, mode = x[..., :1].copy(), "L"
    notes += [_size_note([header.size for header in headers], size), _mode_note(headers, mode)]
    codes = {name: code for code, name in enumerate(class_names)}
    return Dataset(
        name=root.resolve().name,
        spec=DataSpec("image_folder", "image", "classification", tuple(x.shape[1:]), class_names),
        x=x,
        y=np.array([codes[file.relative_to(root).parts[0]] for file in files], np.int64),
        row_names=tuple(file.relative_to(root).as_posix() for file in files),
        notes=tuple(note for note in notes if note),
    )


def read_features(path: Path, spec: DataSpec) -> tuple[Pixels, tuple[str, ...]]:
    """Read images to predict: one image, or all images below a folder, in the size and mode of the training data.

    Args:
        path: An image file or a folder.
        spec: How the training data was read.

    Raises:
        DataError: There are no images, or some cannot be read.
    """
    root = path if path.is_dir() else path.parent
    files = _images_below(path)[0] if path.is_dir() else [path]
    if not files:
        raise DataError(f"{str(path)!r} holds no images. Expected: files ending in {', '.join(IMAGE_SUFFIXES)}.")
    height, width, channels = spec.input_shape
    pixels = _decode(root, files, (width, height), "L" if channels == 1 else "RGB")
    return pixels, tuple(file.relative_to(root).as_posix() for file in files)


def _find(root: Path) -> tuple[list[Path], list[str]]:
    """All images in class folders, and notes on what was passed over."""
    entries = sorted(root.iterdir())
    if not entries:
        raise DataError(f"Folder {str(root)!r} is empty. Expected: one sub-folder of images for each class.")
    folders = [entry for entry in entries if entry.is_dir() and not _is_junk(entry.name)]
    if not folders:
        kinds = Counter(entry.suffix.lower() or "no suffix" for entry in entries if not _is_junk(entry.name))
        found = ", ".join(f"{count} x {suffix}" for suffix, count in kinds.most_common(3)) or "hidden files only"
        raise DataError(
            f"Folder {str(root)!r} has no sub-folders (it holds {found}). Expected: one sub-folder of images for each "
            "class, such as cats/ and dogs/; or give a single .npz, .csv, .tsv or .parquet file."
        )
    if {folder.name.lower() for folder in folders} <= PART_NAMES:
        names = ", ".join(folder.name for folder in folders)
        raise DataError(
            f"Folder {str(root)!r} holds parts of a data set ({names}), not classes. Give the one to learn from, such "
            f"as {str(folders[0])!r}; it is split into training, validation and test."
        )
    return _find_in_classes(root, folders, [entry for entry in entries if not entry.is_dir()])


def _find_in_classes(root: Path, folders: list[Path], loose: list[Path]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    others, empty, num_junk = [file for file in loose if not _is_junk(file.name)], [], len(loose)
    num_junk -= len(others)
    for folder in folders:
        images, strange, junk = _images_below(folder)
        files += images
        others += strange
        num_junk += junk
        if not images:
            empty.append(folder.name)
    if not files:
        kinds = Counter(file.suffix.lower() or "no suffix" for file in others)
        found = ", ".join(f"{count} x {suffix}" for suffix, count in kinds.most_common(3)) or "nothing"
        raise DataError(
            f"The sub-folders of {str(root)!r} hold no images, but {found}. Expected: files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    notes = []
    if others:
        notes.append(
            f"{len(others):,} files that are no images in a class folder were ignored: {_named(root, others)}."
        )
    if empty:
        notes.append(f"Sub-folders without images were ignored: {', '.join(empty)}.")
    if num_junk:
        notes.append(f"{num_junk:,} hidden or system files were ignored.")
    return files, notes


def _images_below(folder: Path) -> tuple[list[Path], list[Path], int]:
    """Images, other files, and the number of hidden and system files, at any depth."""
    images: list[Path] = []
    others: list[Path] = []
    num_junk = 0
    for parent, folder_names, file_names in os.walk(folder):
        folder_names[:] = sorted(name for name in folder_names if not _is_junk(name))
        for name in sorted(file_names):
            if _is_junk(name):
                num_junk += 1
            elif name.lower().endswith(IMAGE_SUFFIXES):
                images.append(Path(parent, name))
            else:
                others.append(Path(parent, name))
    return images, others, num_junk


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK_NAMES


def _named(root: Path, files: Sequence[Path]) -> str:
    more = f" and {len(files) - MAX_NAMED:,} more" if len(files) > MAX_NAMED else ""
    return ", ".join(file.relative_to(root).as_posix() for file in files[:MAX_NAMED]) + more


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Pillow lets go of the interpreter while it reads and decodes."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items))


def _header(file: Path) -> _Header:
    try:
        with Image.open(file) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION_TAG) in _SWAPPING_ORIENTATIONS:
                width, height = height, width
            return _Header((width, height), image.mode in _GREY_MODES)
    except _UNREADABLE as error:
        return _Header((0, 0), False, _reason(file, error))


def _reason(file: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, whatever its name says"
    return str(error) or type(error).__name__


def _refuse_unreadable(root: Path, files: Sequence[Path], problems: Sequence[str]) -> None:
    bad = [(file, problem) for file, problem in zip(files, problems, strict=True) if problem]
    if not bad:
        return
    lines = [f"  {file.relative_to(root).as_posix()}: {problem}" for file, problem in bad[:MAX_NAMED]]
    if len(bad) > MAX_NAMED:
        lines.append(f"  and {len(bad) - MAX_NAMED:,} more")
    count = "1 image" if len(bad) == 1 else f"{len(bad):,} images"
    raise DataError(
        f"{count} of {len(files):,} in {str(root)!r} cannot be read. Replace or remove:\n" + "\n".join(lines)
    )


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
        return f"{len(sizes):,} images of {usual[0]}x{usual[1]} resized to {shown} (--image-size changes it)."
    return (
        f"{len(sizes):,} images of {len(counts)} sizes ({count:,} of {usual[0]}x{usual[1]}) resized to {shown} "
        "(--image-size changes it)."
    )


def _mode_note(headers: Sequence[_Header], mode: str) -> str:
    num_grey = sum(header.is_grey for header in headers)
    if mode == "L" and num_grey < len(headers):
        return "All images hold equal red, green and blue, and were read as grey."
    if mode == "RGB" and num_grey:
        return f"{num_grey:,} of {len(headers):,} images are grey, and were read as RGB like the others."
    return ""


def _decode(root: Path, files: Sequence[Path], size: Size, mode: str) -> Pixels:
    """Read all files into one array (n, height, width, channels)."""
    pixels = np.empty((len(files), size[1], size[0], 1 if mode == "L" else 3), np.uint8)

    def decode(row: int) -> str:
        try:
            pixels[row] = _pixels(files[row], size, mode)
        except _UNREADABLE as error:
            return _reason(files[row], error)
        return ""

    _refuse_unreadable(root, files, _in_threads(decode, range(len(files))))
    return pixels


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
