from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tuner.data.audit import files, recurrence
from tuner.data.audit.sample import draw
from tuner.data.dataset import Dataset
from tuner.data.split import Split, make_split, split_dataset
from tuner.records import DataSpec

COUNT = 200


def images(*, names=None, **known):
    """Noise in two classes of a hundred each."""
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
    y = np.repeat([0, 1], COUNT // 2)
    names = names or tuple(f"{'cat' if row < COUNT // 2 else 'dog'}/{row}.png" for row in range(COUNT))
    spec = DataSpec("image_folder", "image", "classification", x.shape[1:], ("cat", "dog"))
    return Dataset("i", spec, x, y, names, **known)


def sizes(width=100.0, height=100.0, *, odd=()):
    facts = {"width_px": np.full(COUNT, width), "height_px": np.full(COUNT, height)}
    for row, size in enumerate(odd):
        facts["width_px"][row], facts["height_px"][row] = size
    return facts


def found(dataset, parts=None):
    sample = draw(dataset, parts or make_split(dataset.y, task="classification", seed=0))
    findings = [getattr(files, name)(sample) for name in files.__all__] + [recurrence.group_leak(sample)]
    return {finding.code: finding for finding in findings if finding is not None}


def test_unreadable_files_are_a_finding_with_names_and_reasons():
    assert found(images()) == {}
    finding = found(images(unreadable={"cat/x.png": "the file is empty", "dog/y.png": "cut"}))["unreadable_files"]
    assert finding.evidence == {"num_files": 2, "files_frac": 2 / 202}
    assert finding.examples == ("cat/x.png: the file is empty", "dog/y.png: cut")
    assert finding.cause == "2 of 202 files cannot be read and are missing from the data."


def test_odd_size_has_two_sides():
    assert found(images(facts=sizes(odd=[(299, 299), (34, 34)]))) == {}
    finding = found(images(facts=sizes(odd=[(301, 301), (3024, 3024), (33, 33)])))["odd_size"]
    assert finding.examples == ("cat/1.png", "cat/2.png", "cat/0.png")
    assert (finding.evidence["num_images"], finding.evidence["largest_ratio"]) == (3, pytest.approx(30.24))
    assert "3,024 x 3,024" in finding.cause


def test_odd_aspect_has_two_sides():
    assert found(images(facts=sizes(odd=[(199, 100), (100, 199)]))) == {}
    finding = found(images(facts=sizes(odd=[(201, 100), (100, 250)])))["odd_aspect"]
    assert finding.examples == ("cat/1.png", "cat/0.png")
    assert finding.evidence["largest_ratio"] == 2.5


def test_pictures_of_all_sizes_are_no_fault():
    sides = np.geomspace(100, 1600, COUNT)
    facts = {"width_px": sides, "height_px": np.roll(sides, 70)}
    assert not {"odd_size", "odd_aspect"} & set(found(images(facts=facts)))


def test_unknown_sizes_of_a_part_are_passed_over():
    facts = sizes(odd=[(500, 500)])
    for values in facts.values():
        values[150:] = np.nan
    assert found(images(facts=facts))["odd_size"].evidence["num_images"] == 1


@pytest.mark.parametrize(("num_png", "is_telling"), [(10, False), (60, True)])
def test_a_format_that_tells_the_class(num_png, is_telling):
    formats = np.full(COUNT, "JPEG")
    formats[100 : 100 + num_png] = "PNG"
    findings = found(images(facts={"format": formats}))
    assert ("format_tells_label" in findings) == is_telling
    if is_telling:
        finding = findings["format_tells_label"]
        assert (finding.where, finding.examples[0]) == ("format", "dog/100.png")
        assert "files with PNG are mostly 'dog'" in finding.cause
        assert finding.evidence["telling_frac"] == pytest.approx(0.6, abs=0.2)


def test_a_format_that_is_mixed_in_all_classes_tells_nothing():
    assert found(images(facts={"format": np.array(["JPEG", "PNG", "BMP", "PNG"] * 50)})) == {}
    many = np.random.default_rng(0).integers(100, 110, COUNT).astype(float)
    assert "format_tells_label" not in found(images(facts={"width_px": many, "height_px": many}))


def patients(name):
    """Images that resemble each other if they are of one of ten patients; `name` names them."""
    patient = np.arange(COUNT) % 10
    dataset = images(
        names=tuple(
            name(folder="cat" if row < COUNT // 2 else "dog", patient=f"p{patient[row]}", row=row)
            for row in range(COUNT)
        )
    )
    typical = np.random.default_rng(1).integers(0, 200, (10, 8, 8, 1))
    return dataclasses.replace(dataset, x=(typical[patient] + dataset.x // 8).astype(np.uint8)), patient


@pytest.mark.parametrize(
    ("name", "group"),
    [("{folder}/{patient}_{row}.png", "part1"), ("{folder}/scan-{row}-{patient}.png", "part3")],
)
def test_patients_on_both_sides_are_a_leak_and_the_option_is_named(name, group):
    dataset, _ = patients(name.format)
    finding = found(dataset)["group_leak"]
    assert (finding.where, finding.evidence["num_groups"]) == (group, 10)
    assert finding.evidence["leaked_frac"] == 1
    assert f"--group {group} keeps" in finding.remedies[0].reason


def test_folders_below_the_classes_may_be_the_groups():
    dataset, _ = patients("{folder}/{patient}/{row}.png".format)
    assert found(dataset)["group_leak"].where == "folder"


def test_names_that_mean_nothing_are_no_leak():
    assert "group_leak" not in found(images(names=tuple(f"cat/p{row % 10}_{row}.png" for row in range(COUNT))))


def test_groups_that_are_kept_together_are_no_leak():
    dataset, patient = patients("{folder}/{patient}_{row}.png".format)
    grouped = dataclasses.replace(dataset, groups=patient)
    assert "group_leak" not in found(grouped, split_dataset(grouped, seed=0))


@pytest.mark.parametrize(("distance", "is_odd"), [(3.4, False), (3.6, True)])
def test_distance_of_odd_sizes_from_the_quartiles_has_two_sides(distance, is_odd):
    """`FAR_OUT_IQR`: logarithms from -1 to 1 have quartiles of -0.5 and 0.5, so that 3 ranges reach to 3.5."""
    sides = 100 * np.exp(np.linspace(-1, 1, COUNT))
    sides[COUNT // 2] = 100 * np.exp(distance)
    assert ("odd_size" in found(images(facts={"width_px": sides, "height_px": sides}))) == is_odd


@pytest.mark.parametrize(("num_png", "is_telling"), [(9, False), (10, True)])
def test_files_of_a_property_have_two_sides(num_png, is_telling):
    """`MIN_WITH_VALUE` of them in the training part: cats are 0 to 99, dogs the others, those of 180 on held out."""
    formats = np.full(COUNT, "JPEG")
    formats[100 : 100 + num_png] = formats[180:] = "PNG"
    held_out = np.append(np.arange(10), np.arange(180, COUNT))
    parts = Split(np.setdiff1d(np.arange(140), held_out), held_out[::2], held_out[1::2])
    assert ("format_tells_label" in found(images(facts={"format": formats}), parts)) == is_telling
