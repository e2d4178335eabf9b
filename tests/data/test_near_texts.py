from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tuner.data import duplicates
from tuner.data.near_texts import NEAR_JACCARD, pairs
from tuner.data.sources import load
from tuner.data.split import split_dataset

RNG = np.random.default_rng(0)


def words(count):
    return ["".join(RNG.choice(list("abcdefghijklmnopqrstuvwxyz"), length)) for length in RNG.integers(3, 9, count)]


def found(*texts):
    return pairs(list(texts), most=len(texts)).tolist()


def jaccard(one, other):
    one, other = ({text[at : at + 4] for at in range(len(text) - 3)} for text in (one, other))
    return len(one & other) / len(one | other)


def test_all_pairs_above_the_threshold_are_found_and_no_other():
    texts = []
    for _ in range(60):
        original = words(int(RNG.integers(5, 60)))
        texts.append(" ".join(original))
        for num_changed in (1, 2, 4):
            changed = list(original)
            for at in RNG.integers(0, len(original), num_changed):
                changed[at] = words(1)[0]
            texts.append(" ".join(changed))
    texts = sorted(set(texts))
    expected = [
        [first, second]
        for first in range(len(texts))
        for second in range(first + 1, len(texts))
        if jaccard(texts[first], texts[second]) >= NEAR_JACCARD
    ]
    assert len(expected) > 20
    assert sorted(found(*texts)) == expected


@pytest.mark.parametrize(("length", "is_near"), [(95, False), (110, True)])
def test_one_letter_may_differ_in_a_long_text(length, is_near):
    text = "".join(RNG.permutation([chr(0x4E00 + code) for code in range(length)]))
    changed = text[:50] + "x" + text[51:]
    assert (jaccard(text, changed) >= NEAR_JACCARD) == is_near
    assert found(text, changed) == ([[0, 1]] if is_near else [])


def test_different_questions_that_differ_by_a_word():
    assert (
        found(
            "how do i activate my card",
            "how do i cancel my card",
            "how do i activate my new card",
            "why was my card payment declined",
            "why was my cash payment declined",
            "my top up has not arrived yet and i wonder why",
            "my transfer has not arrived yet and i wonder why",
        )
        == []
    )


@pytest.mark.parametrize("texts", [(), ("a",), ("a", "b"), ("abc", "abcd"), ("", "x" * 1000, "x" * 999)])
def test_short_and_dull_texts(texts):
    assert np.array(found(*texts)).tolist() == ([[1, 2]] if len(texts) == 3 else [])


def test_it_ends_when_most_texts_have_a_neighbour():
    letter = " ".join(words(80))
    assert pairs([f"{letter} {row}" for row in range(2000)], most=1000) is None


# ---- in the split


def table(tmp_path, texts):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{text},{'xy'[row % 2]}\n" for row, text in enumerate(texts)))
    return load(str(path))


def test_nearly_the_same_texts_stay_on_one_side(tmp_path):
    originals = [" ".join(words(40)) for _ in range(50)]
    copies = [f"{text} regards" for text in originals[1:11]]
    dataset = table(tmp_path, [*originals, *copies[1:], copies[0]])
    for seed in range(5):
        split = split_dataset(dataset, seed=seed)
        side = np.empty(60, int)
        for number, rows in enumerate((split.train, split.validation, split.test)):
            side[rows] = number
        assert side[1:11].tolist() == np.roll(side[50:], 1).tolist()
    assert "10 samples are (nearly) copies of others" in " ".join(split.notes)


def test_texts_of_one_template_are_no_copies(tmp_path):
    start = " ".join(words(60))
    assert duplicates.copies(table(tmp_path, [f"{start} {word}" for word in sorted(set(words(80)))])) is None


def test_real_questions_of_two_labels_are_not_joined(shared_data):
    dataset = load(str(shared_data / "text" / "banking77_train.csv"))
    codes = duplicates.copies(dataset)
    labels_of = {}
    for code, label in zip(codes.tolist(), dataset.y.tolist(), strict=True):
        labels_of.setdefault(code, set()).add(label)
    assert sum(len(labels) > 1 for labels in labels_of.values()) == MIXED
    assert len(labels_of) == 10_003 - COPIES


# Of Banking77: copies in all, and groups of copies with two labels, which are equal but for punctuation.
COPIES = 50
MIXED = 1


def test_memory_is_bounded_where_all_texts_are_alike():
    """80,000 pairs of 400 texts that are alike; all of them compared at once took 10 GB for 2,000 texts."""
    base = words(150)
    texts = [" ".join([*base, *words(2)]) for _ in range(400)]
    pairs(texts[:20], most=20)  # whatever is imported or kept on first use
    tracemalloc.start()
    try:
        pairs(texts, most=len(texts))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 150e6
