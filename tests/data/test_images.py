from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tuner.data import folders
from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError

RANDOM = np.random.default_rng(0)


def picture(size=(20, 20), mode="RGB"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode)


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten images each."""

    def write(size=(20, 20), mode="RGB", suffix="png"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / name).mkdir(parents=True)
            for number in range(10):
                picture(size, mode).save(tmp_path / "pets" / name / f"{number}.{suffix}")
        return tmp_path / "pets"

    return write


def test_folders_are_classes(folder):
    found = load(str(folder()))
    assert (found.name, found.spec.form, found.spec.class_names) == ("pets", "image_folder", ("cat", "dog"))
    assert (found.x.shape, found.x.dtype) == ((20, 20, 20, 3), np.uint8)
    assert found.y.tolist() == [0] * 10 + [1] * 10
    assert found.row_names[0] == "cat/0.png"
    assert not found.notes


def test_pixels_are_exact_without_resizing(folder):
    root = folder()
    with Image.open(root / "dog" / "3.png") as image:
        np.testing.assert_array_equal(load(str(root)).x[13], np.asarray(image))


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "webp", "tiff", "PNG"])
def test_other_formats(folder, suffix):
    assert load(str(folder(suffix=suffix))).x.shape[:3] == (20, 20, 20)


@pytest.mark.parametrize(
    ("size", "image_size", "shape"),
    [
        ((64, 64), None, (64, 64)),
        ((65, 65), None, (64, 64)),
        ((128, 64), None, (32, 64)),
        ((20, 20), 40, (40, 40)),
        ((40, 20), 8, (4, 8)),
    ],
)
def test_size(folder, size, image_size, shape):
    found = load(str(folder(size)), ReadOptions(image_size=image_size))
    assert found.spec.input_shape == (*shape, 3)
    is_resized = size[::-1] != shape
    shown = f"20 images of {size[0]}x{size[1]} resized to {shape[1]}x{shape[0]} (--image-size changes it)."
    assert found.notes == ((shown,) if is_resized else ())


def test_most_common_size_wins_if_it_is_usual(folder):
    root = folder((20, 20))
    for number in range(10):
        picture((30 + number, 40)).save(root / "cat" / f"{number}.png")
    found = load(str(root))
    assert found.spec.input_shape == (20, 20, 3)
    assert found.notes == ("20 images of 11 sizes (10 of 20x20) resized to 20x20 (--image-size changes it).",)
    picture((50, 44)).save(root / "dog" / "0.png")
    # Now 9 of 20 have the most common size; the short sides are 9 x 20, 30 to 39 and 44, so the median is 30.5.
    assert load(str(root)).spec.input_shape == (30, 30, 3)


def test_camera_rotation_is_applied(folder):
    root = folder((20, 10))
    image = picture((10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "cat" / "0.png", exif=exif)
    found = load(str(root))
    assert found.spec.input_shape == (10, 20, 3)
    assert not found.notes
    np.testing.assert_array_equal(found.x[0], np.rot90(np.asarray(image), -1))


def test_what_decoding_loses_is_told(folder):
    root = folder((20, 10), suffix="jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture((300, 200)).save(root / "cat" / "0.jpg", exif=exif)
    picture((20, 10), "L").save(root / "cat" / "1.png")
    exif[0x0112] = 9
    picture((20, 10)).save(root / "cat" / "2.jpg", exif=exif)
    for name, content in (("1.jpg", b""), ("3.jpg", (root / "cat" / "3.jpg").read_bytes()[:300])):
        (root / "cat" / name).write_bytes(content)
    found = load(str(root))
    rows = [found.row_names.index(f"cat/{name}") for name in ("0.jpg", "1.png", "2.jpg", "4.jpg")]
    assert {name: values[rows].tolist() for name, values in found.facts.items()} == {
        "width_px": [200, 20, 20, 20],
        "height_px": [300, 10, 10, 10],
        "mode": ["RGB", "L", "RGB", "RGB"],
        "format": ["JPEG", "PNG", "JPEG", "JPEG"],
        "orientation": [6, 1, 1, 1],
    }
    assert {len(values) for values in found.facts.values()} == {len(found.x)} == {19}
    assert list(found.unreadable) == ["cat/1.jpg", "cat/3.jpg"]
    assert found.unreadable["cat/1.jpg"] == "the file is empty"


def test_big_jpeg_is_decoded_at_reduced_size(folder):
    root = folder((32, 32), suffix="jpg")
    ramp = np.linspace(0, 255, 2000).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (2000, 1))] * 3, axis=-1)).save(root / "cat" / "0.jpg")
    row = load(str(root)).x[0, 16, :, 0].astype(float)
    np.testing.assert_allclose(row, np.linspace(4, 251, 32), atol=4)


def test_grey_stays_grey(folder):
    assert load(str(folder(mode="L"))).spec.input_shape == (20, 20, 1)


def test_grey_among_colour_becomes_rgb(folder):
    root = folder()
    picture(mode="L").save(root / "cat" / "0.png")
    found = load(str(root))
    assert found.spec.input_shape == (20, 20, 3)
    assert found.notes == ("1 of 20 images is grey, and was read as RGB like the others.",)


def test_rgb_files_without_colour_are_grey(folder):
    root = folder(mode="L")
    for file in root.rglob("*.png"):
        with Image.open(file) as image:
            colour = image.convert("RGB")
        colour.save(file)
    found = load(str(root))
    assert found.spec.input_shape == (20, 20, 1)
    assert "read as grey" in found.notes[0]


def test_transparent_pixels_become_white(folder):
    root = folder()
    Image.new("RGBA", (20, 20), (10, 20, 30, 0)).save(root / "cat" / "0.png")
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(root / "cat" / "1.png", transparency=0)
    found = load(str(root))
    assert (found.x[0] == 255).all()
    assert (found.x[1] == 255).all()


def test_16_bit_values_are_scaled_down(folder):
    root = folder(mode="L")
    Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)).save(root / "cat" / "0.png")
    assert (load(str(root)).x[0] == 100).all()


def test_one_bit_and_cmyk_images(folder):
    root = folder()
    Image.new("1", (20, 20), 1).save(root / "cat" / "0.png")
    Image.new("CMYK", (20, 20), (0, 0, 0, 0)).save(root / "cat" / "1.jpg")
    assert (load(str(root)).x[:2] == 255).all()


def test_hidden_and_system_files_are_passed_over_and_said(folder):
    root = folder()
    (root / ".DS_Store").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "cat" / "._0.png").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / ".git").mkdir()
    (root / "cat" / "notes.txt").write_text("x")
    (root / "loose.png").write_bytes(b"x")
    (root / "empty").mkdir()
    found = load(str(root))
    assert len(found.x) == 20
    assert found.notes == (
        "2 files that are no images in a class folder were ignored: loose.png, cat/notes.txt.",
        "Sub-folders without images were ignored: empty.",
        "3 hidden or system files were ignored.",
    )


def test_deeper_folders_belong_to_their_class(folder):
    root = folder()
    (root / "cat" / "black").mkdir()
    picture().save(root / "cat" / "black" / "a.png")
    found = load(str(root))
    assert (found.row_names[10], found.y[10]) == ("cat/black/a.png", 0)


def test_unreadable_images_are_left_out_and_listed(folder):
    root = folder(suffix="jpg")
    (root / "cat" / "text.png").write_text("hello")
    (root / "cat" / "empty.jpg").write_bytes(b"")
    found = load(str(root))
    assert found.x.shape == (20, 20, 20, 3)
    assert found.notes[0].splitlines() == [
        "2 of 22 images cannot be read and were left out:",
        "  cat/empty.jpg: the file is empty",
        "  cat/text.png: not an image, whatever its name says",
    ]


def test_too_many_unreadable_images_are_refused(folder):
    root = folder(suffix="jpg")
    for name in ("a", "b", "c"):
        (root / "cat" / f"{name}.png").write_text("hello")
    with pytest.raises(DataError) as caught:
        load(str(root))
    assert str(caught.value).splitlines()[:2] == [
        f"3 of 23 images in {str(root)!r} cannot be read. Replace or remove:",
        "  cat/a.png: not an image, whatever its name says",
    ]


def test_truncated_images_are_left_out_and_listed(folder):
    root = folder((60, 60), suffix="jpg")
    whole = load(str(root))
    for name in ("dog/1.jpg", "dog/2.jpg"):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
    found = load(str(root))
    assert re.search(r"(?s)2 of 20 .*\n  dog/1.jpg: .*truncated.*dog/2.jpg", found.notes[0])
    np.testing.assert_array_equal(found.x, np.delete(whole.x, [11, 12], axis=0))
    assert found.row_names == tuple(name for name in whole.row_names if name not in ("dog/1.jpg", "dog/2.jpg"))
    np.testing.assert_array_equal(found.y, [0] * 10 + [1] * 8)


def test_broken_links_are_listed(folder):
    root = folder()
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    assert re.search(r"(?s)1 of 21 .*cat/gone.png: No such file or directory", load(str(root)).notes[0])


def test_a_class_of_unreadable_images_is_named(folder):
    root = folder()
    (root / "owl").mkdir()
    (root / "owl" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"No file of 'owl' in .* can be read"):
        load(str(root))


def test_long_lists_are_cut(folder):
    root = folder()
    for number in range(folders.MAX_NAMED + 3):
        (root / "cat" / f"x{number}.png").write_text("no")
    with pytest.raises(DataError, match=r"(?s)23 of 43 images .*and 3 more"):
        load(str(root))


def test_folders_that_hold_no_classes(tmp_path, folder):
    with pytest.raises(DataError, match=r"is empty. Expected: one sub-folder of images for each class"):
        load(str(tmp_path))
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(DataError, match=r"has no sub-folders \(it holds nothing but hidden files\)"):
        load(str(tmp_path))
    root = folder()
    with pytest.raises(DataError, match=r"has no sub-folders \(it holds 10 x .png\)"):
        load(str(root / "cat"))
    with pytest.raises(DataError, match=rf"one class only, 'pets'.*Did you mean '{root}'\?"):
        load(str(tmp_path))


def test_folders_without_images(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"hold no images, but nothing but hidden files. Expected: files"):
        load(str(tmp_path))
    (tmp_path / "a" / "1.mp3").write_text("x")
    with pytest.raises(DataError, match=r"hold no images, but 1 x \.mp3"):
        load(str(tmp_path))


def test_one_class_is_refused(folder):
    root = folder()
    for file in (root / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="images of one class only, 'cat'"):
        load(str(root))


def test_small_class_is_named(folder):
    root = folder()
    for number in range(8):
        (root / "dog" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="dog has 2; each needs at least 3"):
        load(str(root))


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    for part in ("val", "Test"):
        (tmp_path / part / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds parts of a data set \(Test, val\), but none to learn from"):
        load(str(tmp_path))


def test_options_that_do_not_fit(folder):
    root = str(folder())
    with pytest.raises(DataError, match=r"--kind series does not fit folders of images.*--series-id y is for"):
        load(root, ReadOptions(kind="series", series_id="y"))
    with pytest.raises(DataError, match=r"--target y and --task regression: the classes of .* are its sub-folders"):
        load(root, ReadOptions(task="regression", target="y"))


def test_features_for_prediction(folder, tmp_path):
    root = folder()
    trained = load(str(root))
    (root / "dog" / "notes.txt").write_text("x")
    notes: list[str] = []
    x, names = load_features(str(root), trained.spec, notes)
    np.testing.assert_array_equal(x, trained.x)
    assert (names, notes) == (trained.row_names, ["1 file that is no image was ignored: dog/notes.txt."])
    x, names = load_features(str(root / "dog" / "1.png"), trained.spec)
    np.testing.assert_array_equal(x[0], trained.x[11])
    assert names == ("1.png",)
    picture((50, 31), "L").save(tmp_path / "other.jpg")
    assert load_features(str(tmp_path / "other.jpg"), trained.spec)[0].shape == (1, 20, 20, 3)


def test_a_few_damaged_images_are_left_out_of_what_is_predicted_and_more_are_refused(folder):
    root = folder()
    trained = load(str(root))
    (root / "dog" / "1.png").write_bytes(b"")
    notes: list[str] = []
    x, names = load_features(str(root), trained.spec, notes)
    np.testing.assert_array_equal(x, np.delete(trained.x, 11, axis=0))
    assert names == tuple(name for name in trained.row_names if name != "dog/1.png")
    assert notes == ["1 of 20 images cannot be read and was left out:\n  dog/1.png: the file is empty"]
    for number in (2, 3):
        (root / "dog" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 20 images in .* cannot be read. Replace or remove:"):
        load_features(str(root), trained.spec)


def test_features_that_cannot_be_read(folder, tmp_path):
    spec = load(str(folder())).spec
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds nothing that can be read"):
        load_features(str(tmp_path / "none"), spec)
    (tmp_path / "bad.png").write_text("x")
    with pytest.raises(DataError, match=r"1 of 1 image .* cannot be read"):
        load_features(str(tmp_path / "bad.png"), spec)
