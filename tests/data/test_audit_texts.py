from __future__ import annotations

import numpy as np
import pytest

from tuner.data.audit import audit, texts
from tuner.data.audit.sample import draw
from tuner.data.dataset import Dataset
from tuner.data.sources import load
from tuner.data.split import make_split, split_dataset
from tuner.records import DataSpec

SENTENCE = "the card was not taken at this shop and they told me that my bank had lost it again today"
WORDS = SENTENCE.split()


def messages(count=200, *, words=10):
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]


def found(lines, names=("first", "second"), y=None):
    """Findings by code, of texts of two classes in turn."""
    x = np.array(lines, object)
    y = np.arange(len(x)) % len(names) if y is None else y
    spec = DataSpec("text_table", "text", "classification", (), names, "label", ("text",))
    dataset = Dataset("t", spec, x, y, tuple(f"row {row}" for row in range(len(x))))
    sample = draw(dataset, make_split(y, task="classification", seed=0))
    findings = [getattr(texts, name)(sample) for name in texts.__all__]
    return {finding.code: finding for finding in findings if finding is not None}


def test_clean_texts_have_no_fault():
    assert found(messages()) == {}


@pytest.mark.parametrize(
    "debris",
    ["caf\u00c3\u00a9", "it\u00e2\u20ac\u2122s", "can\x92t", "50 \u00c2\u00a3", "na\ufffdve", "\u00e5\u00a5\u00bd"],
)
def test_debris_of_encodings(debris):
    lines = messages()
    lines[5] += f" {debris} more"
    lines[9] += f" {debris} {debris}"
    finding = found(lines)["encoding_debris"]
    assert (finding.examples, finding.evidence["num_texts"]) == (("row 9", "row 5"), 2)


@pytest.mark.parametrize(
    "text",
    [
        "caf\u00e9 \u00dcber \u00c0 la",
        "50 \u00a3",
        "CAF\u00c9\u201d",
        "line\nbreak\ttab",
        "\u597d\u7684",
    ],
)
def test_words_with_accents_and_quotes_are_no_debris(text):
    lines = messages()
    lines[5] += f" {text}"
    assert "encoding_debris" not in found(lines)


def test_one_text_in_a_thousand_is_worth_a_line():
    lines = messages(1000)
    lines[0] += " can\x92t"
    assert found(lines).keys() == {"encoding_debris"}
    assert found([*lines, lines[1] + " today"]) == {}


@pytest.mark.parametrize("debris", ["&lt;", "&#39;", "&#x27;", "<br/>", "</p>", '<a href="x">'])
def test_debris_of_html(debris):
    lines = messages()
    lines[5] += f" {debris} the"
    finding = found(lines)["html_debris"]
    assert (finding.examples, finding.severity < 0.3) == (("row 5",), True)
    assert repr(debris)[1:-1] in finding.cause


def test_signs_that_look_like_html_are_none():
    lines = messages()
    lines[5] += " <3 AT&T a < b & c > d &c; x&y"
    assert "html_debris" not in found([line.replace("&c;", "") for line in lines])


def test_length_has_two_sides():
    lines = messages()
    lines[3], lines[4] = "the " * 100, "the"
    assert found(lines) == {}
    lines[3] = "the " * 101
    finding = found(lines)["text_length"]
    assert finding.examples == ("row 3",)
    assert (finding.evidence["num_long"], finding.evidence["num_short"], finding.evidence["num_empty"]) == (1, 0, 0)


def test_short_and_empty_texts():
    lines = messages(words=11)
    lines[7], lines[8] = "the", "<br>"
    finding = found(lines)["text_length"]
    assert finding.examples == ("row 8", "row 7")
    assert (finding.evidence["num_short"], finding.evidence["num_empty"]) == (1, 1)
    assert "1 of them without a single token" in finding.cause


@pytest.mark.parametrize(("num_long", "is_fault"), [(11, False), (12, True)])
def test_texts_that_even_the_longest_choice_cuts(num_long, is_fault):
    lines = [*messages(180), *messages(20, words=300)]
    for row in range(0, 9 * num_long, 9):
        lines[row] = " ".join(WORDS * 30)
    findings = found(lines)
    assert ("truncated_texts" in findings) == is_fault
    if is_fault:
        assert findings["truncated_texts"].evidence["max_length"] == 512
        assert findings["truncated_texts"].evidence["cut_frac"] == 0.06


@pytest.mark.parametrize(("num_new", "is_fault"), [(3, False), (5, True)])
def test_unknown_words_have_two_sides(num_new, is_fault):
    """Of twenty tokens, so many are new in each text."""
    lines = [f"{line} {' '.join(f'new{row}x{new}' for new in range(num_new))}" for row, line in enumerate(messages())]
    lines = [" ".join([line, *messages(1, words=10 - num_new)]) for line in lines]
    findings = found(lines)
    assert ("unknown_words" in findings) == is_fault
    if is_fault:
        evidence = findings["unknown_words"].evidence
        assert evidence == {"validation_unknown_frac": 0.25, "test_unknown_frac": 0.25}
        assert findings["unknown_words"].remedies[0].change == "character"


def test_a_token_that_gives_a_class_away():
    lines = [line + (" [neg]" if row % 2 else "") for row, line in enumerate(messages())]
    finding = found(lines)["label_in_text"]
    assert (finding.where, finding.evidence["num_classes"], finding.evidence["texts_frac"]) == ("second", 1, 0.5)
    assert "'neg' in 'second'" in finding.cause
    for row in range(1, 11, 2):
        lines[row] = lines[row].replace("[neg]", "it")
    assert "label_in_text" in found(lines)
    lines[11] = lines[11].replace("[neg]", "it")
    assert found(lines) == {}


def test_a_mark_that_others_have_too_gives_nothing_away():
    lines = [line + (" mark" if row % 2 or row in (0, 2) else "") for row, line in enumerate(messages())]
    assert "label_in_text" in found(lines)
    lines[4] += " mark"
    assert found(lines) == {}


def test_the_name_of_a_class_in_its_texts():
    names = ("lost_card", "bank-fees")
    plain = [line.replace("lost", "had") for line in messages()]
    lines = [line + (" Bank fees!" if row % 2 else " lost it, no card") for row, line in enumerate(plain)]
    assert found(lines, names)["label_in_text"].evidence["num_classes"] == 2
    both = [line + " lost it no card bank and fees" for line in plain]
    assert "label_in_text" not in found(both, names)
    with_name = [line + (" bank fees" if row % 2 else "") for row, line in enumerate(both)]
    assert found(with_name, names)["label_in_text"].cause.count("'bank-fees' in 'bank-fees'") == 1


def test_classes_named_by_a_word_of_theirs_are_no_fault_while_they_are_few():
    y = np.arange(220) % 11
    names = tuple(f"class {code}" for code in range(11))
    lines = [line + (" virtual" if y[row] < 2 else "") for row, line in enumerate(messages(220))]
    assert "label_in_text" not in found(lines, names, y)
    lines = [line + (f" virtual{y[row]}" if y[row] < 3 else "") for row, line in enumerate(messages(220))]
    assert found(lines, names, y)["label_in_text"].evidence["num_classes"] == 3


@pytest.mark.parametrize(
    ("other", "script"),
    [
        ("\u043a\u0430\u0440\u0442\u0430 the", "Cyrillic"),
        ("\u5361\u4e0d\u89c1\u4e86", "Chinese or Japanese"),
        ("\u0628\u0637\u0627\u0642\u0629", "Arabic"),
    ],
)
def test_other_scripts_have_two_sides(other, script):
    lines = messages(400)
    lines[3] = other
    assert "mixed_scripts" not in found(lines)
    lines[4] = other
    finding = found(lines)["mixed_scripts"]
    assert finding.examples == ("row 3", "row 4")
    assert f"2 {script}" in finding.cause


def test_texts_of_numbers_have_no_script():
    assert "mixed_scripts" not in found([*messages(), *["123 456 789 000 111 222 333 444 555 666"] * 1])


def test_many_texts_are_sampled(monkeypatch):
    monkeypatch.setattr(texts, "MAX_TEXTS", 20)
    assert found([line + " &lt;" for line in messages()])["html_debris"].evidence["num_rows_examined"] == 20


def test_real_texts(shared_data):
    dataset = load(str(shared_data / "text/sms_spam.tsv"))
    findings = {finding.code: finding for finding in audit(dataset, split_dataset(dataset, seed=0))}
    ours = {"encoding_debris", "html_debris", "text_length"}
    assert set(findings) & set(texts.__all__) == ours
    assert findings["html_debris"].evidence["num_texts"] == 315
    assert findings["encoding_debris"].evidence["num_texts"] == 35
    assert "\\x92" in findings["encoding_debris"].cause
    assert findings["text_length"].evidence["num_empty"] == 0


def test_real_clean_texts_are_quiet(shared_data):
    dataset = load(str(shared_data / "text/banking77_train.csv"))
    findings = {finding.code for finding in audit(dataset, split_dataset(dataset, seed=0))}
    assert not findings & set(texts.__all__)


@pytest.mark.parametrize(("count", "is_judged"), [(9, False), (10, True)])
def test_fewest_texts_of_a_class_have_two_sides(count, is_judged):
    """`MIN_TEXTS`."""
    lines = messages()
    y = np.ones(len(lines), int)
    y[:count] = 0
    lines[:count] = [f"{line} zebra" for line in lines[:count]]
    assert ("label_in_text" in found(lines, y=y)) == is_judged
