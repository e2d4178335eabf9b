from __future__ import annotations

import pytest

from tuner.data.dialect import (
    CONSISTENT_FRAC,
    LATIN_FRAC,
    MIXED_FRAC,
    SAMPLE_CHARACTERS,
    WHITESPACE,
    detect,
    separator_of,
)
from tuner.errors import DataError


@pytest.fixture
def file(tmp_path):
    def write(text, encoding="utf-8"):
        content = text if isinstance(text, bytes) else text.encode(encoding)
        (tmp_path / "t.csv").write_bytes(content)
        return tmp_path / "t.csv"

    return write


def test_plain_file(file):
    found = detect(file("a,b,label\n1,2.5,x\n3,4.5,y\n"))
    assert (found.encoding, found.sep, found.decimal, found.is_quoted) == ("utf-8-sig", ",", ".", True)
    assert (found.has_header, found.has_row_names, found.columns) == (True, False, ("a", "b", "label"))
    assert (found.num_rows, found.notes) == (2, ())
    assert found.as_reading() == {"sep": ",", "decimal": ".", "encoding": "utf-8-sig"}


SENTENCES = {
    "cp1252": "naïve,café\nGröße,übel\nstraße,élève\n",
    "gb18030": "文本,标签\n今天天气很好,正面\n这个产品太差了,负面\n",
    "cp932": "テキスト,ラベル\n今日はいい天気です,良い\nこの製品は悪いです,悪い\n",
    "big5": "文本,標籤\n今天天氣很好,正面\n這個產品太差了,負面\n",
    "cp949": "텍스트,라벨\n오늘 날씨가 좋습니다,긍정\n",
    "cp1251": "текст,метка\nсегодня хорошая погода,да\n",  # noqa: RUF001
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_legacy_encodings_are_found_and_said(file, encoding):
    path = file(SENTENCES[encoding] * 5, encoding)
    found = detect(file("text,label\n" + SENTENCES[encoding] * 5, encoding))
    assert found.encoding == encoding
    assert found.notes[0] == (f"Encoding: {encoding}, guessed because 't.csv' is not UTF-8 (--encoding changes it).")
    assert path.read_text(found.encoding).startswith("text,label")


def test_a_single_accent_is_western_european(file):
    assert detect(file("né,label\n1,2\n", "latin-1")).encoding == "cp1252"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("größe", "cp1252"), ("テキスト,データ\nアイテム,タイプ", "cp932"), ("a\u2019s \u201cb\u201d", "cp1252")],
)
def test_short_texts_are_read_right(file, text, encoding):
    assert detect(file(f"x,y\n{text},1\n" if "," not in text else f"{text}\n", encoding)).encoding == encoding


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_found_and_needs_no_word(file, encoding):
    found = detect(file("größe,kind\n1,x\n2,y\n", encoding))
    assert (found.columns, found.notes) == (("größe", "kind"), ())


def test_a_named_encoding_is_used(file):
    assert detect(file("é,b\n1,2\n", "mac_roman"), encoding="mac-roman").columns == ("é", "b")


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("a,b\n", "klingon", r"--encoding klingon is not known\. Give one that Python knows, such as utf-8"),
        ("a,b\n1,é\n", "ascii", r"Line 2 of 't.csv' is not text in the encoding ascii\. Give another with --encoding"),
        (b"a,b\n1,2\n\0\1\2\3\n", None, r"'t.csv' holds zero bytes, so it is no text"),
        (b"PK\3\4" + bytes(range(256)) * 9, None, "holds zero bytes"),
        (b"a,b\n\xff\xff\xff\x98,1\n", None, r"is not UTF-8 \(line 2\), and no other encoding fits it well"),
    ],
)
def test_what_cannot_be_decoded_is_refused(file, content, encoding, message):
    with pytest.raises(DataError, match=message):
        detect(file(content), encoding=encoding)


def test_western_european_is_told_by_accents_beside_letters(file):
    assert LATIN_FRAC == 0.5
    line = "сегодня хорошая погода,да\n".encode("cp1251")
    assert detect(file(b"text,label\n" + line * 5 + b"n\xe9,1\n" * 21)).encoding == "cp1252"
    with pytest.raises(DataError, match="no other encoding fits it well"):
        detect(file(b"text,label\n" + line * 5 + b"n\xe9,1\n" * 20))


def mixed(num_utf8, num_latin):
    lines = ["né,1\n".encode()] * num_utf8 + ["né,1\n".encode("latin-1")] * num_latin
    return b"text,label\n" + b"".join(lines)


def test_mixed_encodings_are_refused_from_half_on(file):
    assert MIXED_FRAC == 0.5
    with pytest.raises(
        DataError, match=r"mixes encodings: line 7 is not UTF-8, though 5 of its 10 lines outside ASCII"
    ):
        detect(file(mixed(5, 5)))
    assert detect(file(mixed(4, 6))).encoding == "cp1252"


@pytest.mark.parametrize(
    ("text", "sep"),
    [
        ("a;b;c\n1;2;3\n", ";"),
        ("a\tb\n1,5\t2,5\n3,5\t4,5\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("2,6;1360\n2,7;1370\n", ";"),
        ("ham\tHello, you, there\nspam\tBuy, now\nham\tWell\n", "\t"),
        ("text,label\nred; green,1\nblue; white,2\n", ","),
        ("a  b   c\n1 2.5  3\n4 5.5 6\n", WHITESPACE),
        ("alone\n1\n2\n", ","),
        ('"a,b,c,d";e;kind\n1;2;3\n', ";"),
    ],
)
def test_separator_is_found(file, text, sep):
    assert detect(file(text)).sep == sep


def test_separator_must_hold_in_nearly_all_lines(file):
    def text(num_other):
        return "a;b,c\n" + "1;2,5\n" * (100 - num_other) + "1 2,5\n" * num_other

    assert CONSISTENT_FRAC == 0.9
    with pytest.raises(DataError, match="10 rows without the 2 fields of the others"):
        detect(file(text(10)))
    assert detect(file(text(11))).sep == ","


def test_given_separators():
    assert [separator_of(sep) for sep in ("tab", "\\t", "space", ":", "\t")] == ["\t", "\t", WHITESPACE, ":", "\t"]
    for sep in (";;", "", '"', ".", "\n"):
        with pytest.raises(DataError, match=r"cannot separate fields\. Give one character such as ';', or tab, or"):
            separator_of(sep)


def test_given_separator_and_decimal_win(file):
    found = detect(file("a:b\n1,5:2,5\n"), sep=":", decimal=".")
    assert (found.sep, found.decimal, found.columns, found.notes) == (":", ".", ("a", "b"), ())


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [("1,5;2,5", ","), ("1.5;2,5", "."), ("1;2", "."), ("1,5e-3;x", ","), ("18.00.00;2,6", ","), ("a,5;b", ".")],
)
def test_decimal_mark_is_found(file, cells, decimal):
    found = detect(file(f"a;b\n{cells}\n"))
    assert found.decimal == decimal
    assert any("Decimal commas" in note for note in found.notes) == (decimal == ",")


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("1,2,3\n4,5,6\n", False),
        ("1,,3\n4,5,6\n", False),
        ("nan,1\n2,3\n", False),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n6.3,3.3,virginica\n", False),
        ("ham,hello\nspam,buy\nham,bye\n", False),
        ("label,text\nham,hello\nspam,buy\n", True),
        ("2019,2020,label\n1,2,x\n3,4,y\n", True),
        ("label,a\nx,1\nlabel,2\n", True),
    ],
)
def test_header_is_found(file, text, has_header):
    assert detect(file(text)).has_header is has_header


def test_row_names_without_a_header(file):
    found = detect(file("a,b\nr1,1,2\nr2,3,4\n"))
    assert (found.has_row_names, found.columns) == (True, ("", "a", "b"))


def test_quotes_that_enclose_nothing_lose_no_row(file):
    text = 'label\ttext\nham\t"Hello\nspam\tbuy" now\nham\t"quoted"\nham\tlast "\n'
    found = detect(file(text))
    assert (found.num_rows, found.is_quoted) == (4, False)
    assert "do not enclose cells; they are read as part of the text" in found.notes[0]
    assert found.as_reading()["quotes"] == "none"


def test_quotes_that_enclose_line_breaks_are_kept_and_counted(file):
    found = detect(file('text,label\n"one\ntwo, three",x\nfour,y\n"a ""word""\n",z\n'))
    assert (found.num_rows, found.is_quoted) == (3, True)
    assert found.notes == ("2 rows have line breaks inside quoted cells.",)


def test_cells_may_be_as_long_as_documents(file):
    assert detect(file(f'text,label\n"{"long " * 100_000}",x\n"short, too",y\n')).num_rows == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'t.csv' is empty\. Expected: a header line, then one sample a row"),
        ('a,b\n"1,2\n3,4,5\n', r"has a quotation mark that is never closed.*Close it"),
        (
            "a,b\n1,2\n1,2,3\n4\n",
            r"has 2 rows without the 2 fields of the others: line 3 has 3, line 4 has 1\. Com",
        ),
        ("a,b,c,d\n1,2\n3,4\n", r"The first line of 't.csv' has 4 fields, the others 2\. It must name the columns"),
        ("Export of today\n\na,b\n1,2\n3,4\n", r"The first line of 't.csv' has 1 field, the others 2"),
        ("a,b\n1,2,\n3,4,\n", r"rows of 't.csv' end in a separator that its header does not have\. Add it"),
        ("a,b\nkgs,mms\n1,2\n3,4\n", r"two header lines: the second line holds 'kgs', 'mms' above columns of numbers"),
        ("a,b\n1,2\na,b\n3,4\n", r"Line 3 of 't.csv' repeats its header: files were put together\. Remove it"),
        ("1,2\n3,4,5\n6,7\n8,9\n", r"has 1 row without the 2 fields of the others: line 2 has 3"),
    ],
)
def test_damaged_files_give_one_clear_error(file, text, message):
    with pytest.raises(DataError, match=message):
        detect(file(text))


def test_marks_of_missing_values_are_no_second_header(file):
    assert detect(file("a,b\n?,NA\n1,2\n3,4\n")).num_rows == 3


def test_faults_far_behind_the_sample_are_found(file):
    text = "a,b\n" + "1,2\n" * SAMPLE_CHARACTERS
    with pytest.raises(DataError, match=rf"line {SAMPLE_CHARACTERS + 2:,} has 3"):
        detect(file(text + "1,2,3\n"))
