"""Encodings are decided on evidence, and never in silence against it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.encoding import codec, decide, decode
from tiling.errors import EncodingUndecided

# The 3755 common hanzi of GB2312 (rows 16-55), and frequent traditional ones.
COMMON = [
    bytes((row, cell)).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
    if (row, cell) < (0xD7, 0xFA)
]
SIMPLIFIED = [
    "随州市曾都区",
    "东城街道办事处",
    "建设工程学院图书馆",
    "白云大道1号楼",
    "广水市武胜关镇",
]
TRADITIONAL = [
    "臺灣總督府圖書館",
    "國際會議中心大廈",
    "龍華區觀瀾街道",
    "中華門歷史建築",
    "縣政府辦公樓",
]
WESTERN = ["Café de la Paix", "München Hauptbahnhof", "Año Nuevo", "Ångström laboratoriet"]


def raw(texts: list[str], name: str) -> list[bytes]:
    return [t.encode(name) for t in texts]


@pytest.mark.parametrize(
    ("texts", "name", "expected"),
    [
        (SIMPLIFIED, "gbk", "GB18030"),
        (SIMPLIFIED, "utf-8", "UTF-8"),
        (["中"], "utf-8", "UTF-8"),
        (["随州"], "gbk", "GB18030"),
        (TRADITIONAL, "cp950", "Big5"),
        (TRADITIONAL, "utf-8", "UTF-8"),
        (WESTERN, "cp1252", "windows-1252"),
        (WESTERN, "utf-8", "UTF-8"),
        (["Suizhou", "12"], "ascii", "UTF-8"),
        (["emoji 🏙 in a name"], "utf-8", "UTF-8"),
        (["㐀𠮷镇人民政府办公楼", "随州市"], "gb18030", "GB18030"),
    ],
)
def test_undeclared_text_is_recognised(texts: list[str], name: str, expected: str) -> None:
    decision = decide(raw(texts, name))
    assert decision.encoding == expected
    assert decision.confidence in ("certain", "likely")
    assert decision.evidence


@given(st.lists(st.sampled_from(COMMON), min_size=12, max_size=60, unique=True))
def test_common_chinese_is_told_apart_in_gbk_and_utf8(characters: list[str]) -> None:
    texts = ["".join(characters[i : i + 4]) for i in range(0, len(characters), 4)]
    assert decide(raw(texts, "gbk")).encoding == "GB18030"
    assert decide(raw(texts, "utf-8")).encoding == "UTF-8"


@given(st.text(st.sampled_from([*COMMON, "𠮷", "é", "A", "🏙"]), max_size=20), st.integers(0, 80))
def test_a_value_cut_at_any_byte_decodes_to_a_prefix(text: str, at: int) -> None:
    for name in ("utf-8", "gb18030"):
        decoded, whole = decode(text.encode(name)[:at], name)
        assert whole
        assert text.startswith(decoded)


@given(st.binary(max_size=40))
def test_decoding_never_raises_and_marks_what_it_replaced(value: bytes) -> None:
    for name in ("utf-8", "gb18030", "cp950"):
        text, whole = decode(value, name)
        if not whole:
            assert "\ufffd" in text


def test_a_declaration_that_agrees_is_taken() -> None:
    decision = decide(raw(SIMPLIFIED, "gbk"), declared="GBK", declared_by="a.cpg")
    assert (decision.encoding, decision.confidence) == ("GB18030", "declared")
    assert "a.cpg" in decision.evidence


@pytest.mark.parametrize(
    ("declared", "actual", "remedy"),
    [
        ("UTF-8", "gbk", "GB18030"),
        ("GBK", "utf-8", "UTF-8"),
        ("ISO-8859-1", "gbk", "GB18030"),
        ("1252", "utf-8", "UTF-8"),
        ("BIG5", "gbk", "GB18030"),
    ],
)
def test_a_declaration_that_the_bytes_contradict_is_refused_with_the_remedy(
    declared: str, actual: str, remedy: str
) -> None:
    with pytest.raises(EncodingUndecided, match=r"b'\\x") as caught:
        decide(raw(SIMPLIFIED, actual), declared=declared, declared_by="a.cpg", source="a.dbf")
    assert caught.value.remedy == f"declare the encoding: --encoding {remedy}"
    assert "a.cpg" in caught.value.problem
    assert decide(raw(SIMPLIFIED, actual), declared=declared, override=remedy).encoding == remedy


def test_one_broken_value_among_many_does_not_overthrow_a_declaration() -> None:
    values = [*raw(SIMPLIFIED * 40, "utf-8"), b"\xff\xfe\xff"]
    assert decide(values, declared="UTF-8", declared_by="a.cpg").encoding == "UTF-8"


def test_the_user_is_believed_unless_most_values_do_not_decode() -> None:
    assert decide(raw(["小"], "gbk"), override="gb2312").encoding == "GB18030"
    with pytest.raises(EncodingUndecided, match="cannot decode 5 of 5") as caught:
        decide(raw(SIMPLIFIED, "gbk"), override="UTF-8")
    assert "GB18030" in caught.value.remedy


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(EncodingUndecided, match="unknown encoding 'klingon'"):
        decide([], override="klingon")


def test_too_few_ambiguous_bytes_are_not_guessed() -> None:
    # 小 in GBK is also a Cyrillic letter in UTF-8.
    for texts in (["小"], ["一一", "一", "一"]):
        with pytest.raises(EncodingUndecided, match="as good as"):
            decide(raw(texts, "gbk"))


def test_bytes_that_fit_nothing_are_refused() -> None:
    with pytest.raises(EncodingUndecided, match="cannot be decided"):
        decide([bytes([0x81, 0xFF, 0x80, 0xFE, 0x81, 0xFF])] * 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("UTF-8", "utf-8"), ("utf8", "utf-8"), ("65001", "utf-8"), ("GBK", "gb18030"),
        ("GB2312", "gb18030"), ("936", "gb18030"), ("CP936", "gb18030"), ("ANSI 936", "gb18030"),
        ("ANSI_936", "gb18030"), ("Big5", "cp950"), ("950", "cp950"), ("ISO-8859-1", "iso8859-1"),
        ("ISO 88591", "iso8859-1"), ("88591", "iso8859-1"), ("1252", "cp1252"),
        ("windows-1252", "cp1252"), ("\ufeffUTF-8\n", "utf-8"), ("hex", None), ("", None),
        ("OEM", None), ("system", None),
    ],
)  # fmt: skip
def test_names_found_in_the_wild_mean_a_codec(name: str, expected: str | None) -> None:
    assert codec(name) == expected
