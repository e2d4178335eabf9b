from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tuner.data.audit import audit, images, pictures
from tuner.data.audit.sample import draw
from tuner.data.dataset import Dataset
from tuner.data.sources import load
from tuner.data.split import make_split, split_dataset
from tuner.records import DataSpec

SIDE = 16


def noise(count=100, channels=3, side=SIDE):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def found(x):
    """Findings by code, of images of two classes in turn."""
    y = np.arange(len(x)) % 2
    names = tuple(f"image {row}" for row in range(len(x)))
    dataset = Dataset("i", DataSpec("npz", "image", "classification", x.shape[1:], ("a", "b")), x, y, names)
    sample = draw(dataset, make_split(y, task="classification", seed=0))
    findings = [getattr(images, name)(sample) for name in images.__all__]
    return {finding.code: finding for finding in findings if finding is not None}


def half(low, high, *, share=0.5):
    """A grey image of two values in random places."""
    is_high = np.random.default_rng(1).permutation(SIDE * SIDE) < share * SIDE * SIDE
    return np.where(is_high, high, low).reshape(SIDE, SIDE, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 1 / 255, 1 / 16])
def test_noise_in_any_range_has_no_fault(channels, scale):
    x = noise(channels=channels)
    assert found(x) == found((x * np.float32(scale)).astype(np.float32)) == {}


@pytest.mark.parametrize(
    ("code", "image"),
    [
        ("dark_images", lambda value: half(0, value)),
        ("light_images", lambda value: half(255 - value, 255)),
    ],
)
def test_dark_and_light_have_two_sides(code, image):
    x = noise()
    x[7] = image(64)
    assert found(x) == {}
    x[7] = image(63)
    finding = found(x)[code]
    assert (finding.examples, finding.evidence["num_images"], finding.evidence["bound"]) == (("image 7",), 1, 0.25)
    assert finding.evidence["worst"] == pytest.approx(63 / 255)
    x[3] = image(40)
    assert found(x)[code].examples == ("image 3", "image 7")


def test_one_in_a_thousand_is_worth_a_line():
    x = noise(1000, channels=1)
    x[0] = half(0, 40)
    assert found(x).keys() == {"dark_images"}
    assert found(np.concatenate([x, x[1:2]])) == {}


def test_images_that_are_all_alike_are_not_dark_light_blurry_or_poor():
    x = noise(channels=1)
    assert found(x // 5) == found(255 - x // 5) == {}
    assert found(gaussian_filter(x, (0, 3, 3, 0))) == {}
    few_shades = np.where(x > 240, np.uint8(255), np.uint8(0))
    few_shades[0] = half(0, 255, share=0.04)
    assert found(few_shades) == {}


def test_sharpness_of_a_wave_is_known_and_has_two_sides():
    """A sine of w radians a pixel: second differences are 2 sin(w / 2) times the first, which is 0.75 at 0.769."""
    x = noise(channels=1, side=60)

    def wave(step):
        return np.tile(127.5 + 127 * np.sin(step * np.arange(60)), (60, 1))[..., np.newaxis]

    x[5] = wave(0.80)
    assert found(x) == {}
    x[5] = wave(0.74)
    finding = found(x)["blurry_images"]
    assert finding.examples == ("image 5",)
    assert finding.evidence["worst"] == pytest.approx(2 * np.sin(0.37), rel=0.02)


def test_sharpness_does_not_depend_on_contrast_and_tiny_images_have_none():
    x = noise(channels=1)
    x[4] = 100 + x[4] // 8
    assert found(x) == {}
    tiny = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 1), dtype=np.uint8)
    assert "blurry_images" not in found(tiny)


def test_images_of_hardly_anything():
    x = noise()
    x[9] = half(0, 255)
    assert found(x) == {}
    x[9] = half(0, 255, share=0.25)
    assert found(x)["low_information"].examples == ("image 9",)
    x[9] = half(122, 134)
    assert found(x) == {}
    x[9] = half(123, 133)
    assert found(x).keys() == {"low_information"}


def test_grey_among_colour_has_two_sides_and_names_the_class():
    x = noise()
    x[2] = noise(channels=1)[2]
    assert found(x) == {}
    x[4] = noise(channels=1)[4]
    finding = found(x)["grey_among_colour"]
    assert finding.examples == ("image 2", "image 4")
    assert "100% of them in class 'a'" in finding.cause
    assert found(np.repeat(noise(channels=1), 3, axis=-1)) == {}


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_that_were_divided_once_too_often(kind):
    x = noise().astype(kind)
    x[3] = np.where(x[3] > 127, 1, 0) if kind == np.uint8 else x[3] / 255
    finding = found(x)["mixed_ranges"]
    assert (finding.examples, finding.evidence["other_highest"]) == (("image 3",), 1)
    x[3, 0, 0] = 2
    assert "mixed_ranges" not in found(x)


def test_images_that_were_not_divided():
    x = noise().astype(np.float32) / 255
    x[3] *= 255
    assert found(x)["mixed_ranges"].examples == ("image 3",)
    x[3] /= 26
    assert "mixed_ranges" not in found(x)


def test_bytes_that_were_divided_and_cut():
    x = (noise() // 255).astype(np.uint8)
    assert found(x)["two_valued_images"].evidence["ones_frac"] == pytest.approx(1 / 256, rel=0.2)
    assert "two_valued_images" not in found(2 * x)


def test_standardised_before():
    x = np.random.default_rng(0).normal(size=(100, 8, 8, 3)).astype(np.float32)
    assert found(x).keys() == {"already_standardised"}
    assert found(x + 0.1) == found(1.2 * x) == found(0.8 * x) == {}


def test_missing_and_infinite_pixels_do_not_break_the_checks():
    x = noise().astype(np.float32)
    x[0] = np.nan
    x[1, 0, 0] = np.inf
    assert set(found(x)) <= {"blank_images"}


def test_many_images_are_sampled(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PICTURE_VALUES", 10 * SIDE * SIDE)
    x = noise(channels=1)
    x[::5] = half(0, 20)
    assert found(x)["dark_images"].evidence["num_rows_examined"] == 10


@pytest.fixture(scope="module", params=["fashion_mnist_12k.npz", "cifar10_3k.npz", None])
def real_images(request):
    """A thousand images; of the digits, which reach up to 16, in the range of bytes."""
    if request.param is None:
        return load(None).x[:1000] * 15
    return load(str(request.getfixturevalue("shared_data") / "images" / request.param)).x[:1000]


# Share of spoiled copies that is found; none of the others is.
@pytest.mark.parametrize(
    ("code", "spoil", "recall"),
    [
        ("blurry_images", lambda x: gaussian_filter(x, (0, 1.5, 1.5, 0)), 0.95),
        ("dark_images", lambda x: x * 0.2, 1.0),
        ("light_images", lambda x: 255 - (255 - x) * 0.2, 1.0),
        ("low_information", lambda x: 128 + (x - x.mean()) * 0.02, 1.0),
    ],
)
def test_spoiled_real_images_are_found_and_no_others(real_images, code, spoil, recall):
    assert found(real_images) == {}
    rows = np.arange(0, 1000, 25)
    x = real_images.copy()
    x[rows] = np.round([spoil(image) for image in x[rows, np.newaxis].astype(np.float32)])[:, 0].astype(np.uint8)
    findings = found(x)
    assert findings.keys() == {code}
    assert recall * len(rows) <= findings[code].evidence["num_images"] <= len(rows)


def test_real_folder_of_images(shared_data):
    dataset = load(str(shared_data / "images/sign_language_digits"))
    finding = {each.code: each for each in audit(dataset, split_dataset(dataset, seed=0))}["odd_size"]
    assert finding.evidence["num_images"] == 3
    assert finding.examples == ("7/IMG_5874.JPG", "7/IMG_5935.JPG", "7/IMG_5978.JPG")


@pytest.mark.parametrize(("high", "is_fault"), [(125, False), (126, True)])
def test_contrast_of_grey_images_has_two_sides(high, is_fault):
    """`GREY_CONTRAST`: an image of hardly any contrast could show no colour; 12.75 of 255 levels is the bound."""
    x = noise()
    x[[2, 4]] = half(100, high)
    assert ("grey_among_colour" in found(x)) == is_fault
