from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tuner.data.columns import FREE_TEXT_FRAC
from tuner.data.sources import ReadOptions, load, load_features
from tuner.errors import DataError


@pytest.fixture
def table(tmp_path):
    def write(text, name="t.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def messages(count=60, *, num_different=60, header="label,text\n"):
    lines = (f"{('ham', 'spam')[row % 3 == 0]},message {row % num_different} for you\n" for row in range(count))
    return header + "".join(lines)


def test_text_and_label_are_found_and_said(table):
    found = load(table(messages()))
    assert (found.spec.form, found.spec.kind, found.spec.task) == ("text_table", "text", "classification")
    assert (found.spec.input_shape, found.spec.feature_names, found.spec.target) == ((), ("text",), "label")
    assert (found.x.dtype, found.x.shape, found.x[1]) == (object, (60,), "message 1 for you")
    assert (found.spec.class_names, found.spec.reading["text"]) == (("ham", "spam"), "text")
    assert "Text: column 'text' (--text changes it)." in found.notes


def test_without_a_header_the_text_is_not_the_target(table):
    found = load(table(messages(header="")))
    assert (found.spec.target, found.spec.feature_names) == ("c0", ("c1",))


def test_free_text_differs_in_a_fifth_of_its_rows(table):
    assert FREE_TEXT_FRAC == 0.2
    assert load(table(messages(200, num_different=40))).spec.kind == "text"
    with pytest.raises(DataError, match="39 different words are too many for a category; give --drop text"):
        load(table(messages(200, num_different=39)))


def test_kind_text_takes_a_column_of_few_different_texts(table):
    found = load(table(messages(200, num_different=5)), ReadOptions(text="text"))
    assert (found.spec.kind, len(set(found.x))) == ("text", 5)


def test_target_of_a_text_may_be_a_number(table):
    lines = "".join(f"review {row} of it,{row / 7:.3f}\n" for row in range(60))
    found = load(table(f"text,stars\n{lines}"))
    assert (found.spec.kind, found.spec.task, found.y[7]) == ("text", "regression", 1.0)


def two_texts():
    lines = (f"{row},title {row},{'' if row == 3 else f'body {row}'},{row % 2}\n" for row in range(60))
    return "size,title,body,label\n" + "".join(lines)


def test_several_texts_are_joined_in_the_order_that_the_user_gave(table):
    found = load(table(two_texts()), ReadOptions(text="body,title"))
    assert (found.x[2], found.x[3]) == ("body 2\ntitle 2", "title 3")
    assert found.spec.feature_names == ("body", "title")
    assert "Only the text of body, title is learned from; left out: size." in found.notes


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (two_texts(), {}, r"(?s)column 'title' holds text.*give --text title to learn from the text alone, or --drop"),
        (two_texts(), {"kind": "text"}, r"several columns of text: title, body\. Name the one .*: --text title,body"),
        (two_texts(), {"text": "titel"}, r"has no column 'titel'.*Did you mean 'title'\? Give one of them with --text"),
        ("a,b,label\n" + "1,2,0\n3,4,1\n" * 20, {"kind": "text"}, r"no column of free text: a, b\. Name the one"),
        ("text,label\n" + ",0\n,1\n" * 20, {"text": "text"}, r"Column text of 't.csv' holds no text at all"),
    ],
)
def test_what_is_not_clear_is_refused(table, text, options, message):
    with pytest.raises(DataError, match=message):
        load(table(text), ReadOptions(**options))


def test_rows_without_text_are_left_out_of_training_and_kept_in_prediction(table):
    found = load(table(messages() + "ham,\nspam,  \n"))
    assert len(found.x) == len(found.y) == len(found.row_names) == 60
    assert "2 of 62 rows have no text and were left out." in found.notes
    x, rows = load_features(table("text\nhello\n\n?\nbye\n"), found.spec)
    assert (x.tolist(), rows) == (["hello", "", "bye"], ("0", "1", "2"))
    notes: list[str] = []
    x, _ = load_features(table('text\nhello\n""\n\n'), found.spec, notes)
    assert (x.tolist(), notes) == (["hello", ""], ["1 of 2 rows has no text."])


def test_numbers_may_be_text(table):
    found = load(
        table("code,label\n" + "".join(f"{row},{'ab'[row % 2]}\n" for row in range(60))), ReadOptions(text="code")
    )
    assert found.x[7] == "7"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "今天天气很好"),
        ("shift_jis", "今日はいい天気です"),
        ("latin-1", "où est le café préféré"),
        ("utf-16", "今天"),
    ],
)
def test_prediction_decodes_each_file_by_itself(table, encoding, text):
    lines = "".join(f"{text} {row},{'xy'[row % 2]}\n" for row in range(60))
    found = load(table(f"text,label\n{lines}", encoding=encoding))
    assert found.x[5] == f"{text} 5"
    assert load_features(table(f"text\n{text}\n", "p.csv"), found.spec)[0].tolist() == [text]
    assert load_features(table(f"text\n{text}\n", "p.csv", encoding="utf-8-sig"), found.spec)[0].tolist() == [text]


def test_unbalanced_quotes_lose_no_message(table):
    lines = "".join(
        f"{('ham', 'spam')[row % 3 == 0]}\t{chr(34) if row % 5 == 0 else ''}message {row}\n" for row in range(60)
    )
    found = load(table(f"label\ttext\n{lines}", "t.tsv"))
    assert (len(found.x), found.x[0]) == (60, '"message 0')


def test_excel_and_parquet_hold_text_too(tmp_path):
    frame = pd.DataFrame({"text": [f"message {row}" for row in range(60)], "label": ["a", "b", "c"] * 20})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.xlsx", "t.parquet"):
        found = load(str(tmp_path / name))
        assert (found.spec.kind, found.x[4]) == ("text", "message 4")
        np.testing.assert_array_equal(found.y[:3], [0, 1, 2])
