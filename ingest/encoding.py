"""Text encoding of sources, decided on evidence: declaration, language byte, byte statistics.

In China a Shapefile without ``.cpg`` is almost always GBK, and GDAL decodes it as Latin-1 without
an error. So nobody here trusts one witness: what the file declares is compared with what its bytes
say, the decision carries its evidence into the report, and when the two contradict each other the
file is refused until the user decides (``--encoding``).

GBK and GB2312 are read as GB18030, which contains both.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiling.errors import EncodingUndecided

Confidence = Literal["declared", "certain", "likely"]

# Windows and .cpg names -> Python codecs; the display name is what reports show.
_DISPLAY = {
    "utf-8": "UTF-8",
    "gb18030": "GB18030",
    "cp950": "Big5",
    "cp1252": "windows-1252",
    "iso8859-1": "ISO-8859-1",
}
_ALIASES = {
    "65001": "utf-8",
    "936": "gb18030",
    "54936": "gb18030",
    "950": "cp950",
    "1252": "cp1252",
    "88591": "iso8859-1",
    "28591": "iso8859-1",
    "932": "cp932",
    "949": "cp949",
    "1251": "cp1251",
}
_SUPERSETS = {"gbk": "gb18030", "gb2312": "gb18030", "big5": "cp950", "latin-1": "iso8859-1"}

# DBF language driver byte (ESRI / FoxPro tables). Western and "ANSI" codes are what Chinese tools
# write without meaning them, so only the East Asian ones count as a declaration.
LDID_CODECS = {
    0x13: "cp932",
    0x7B: "cp932",
    0x4D: "gb18030",
    0x7A: "gb18030",
    0x4E: "cp949",
    0x79: "cp949",
    0x4F: "cp950",
    0x78: "cp950",
}

# So many characters that happen to be valid UTF-8 cannot be GBK: a common GBK character passes as
# a two-byte UTF-8 sequence with probability about 0.18, and 0.18 ** 6 < 1e-4.
_ENOUGH_CHARACTERS = 6
# A declared encoding may fail on this share of the non-ASCII values before it counts as wrong.
_TOLERATED_FAILURES = 0.02
MAX_SAMPLE_VALUES = 20_000


@dataclass(frozen=True, slots=True)
class EncodingDecision:
    """Which encoding a source's text is read with, and why.

    Attributes:
        encoding: a name that both Python and GDAL know, e.g. ``GB18030``.
        evidence: a sentence for the report.
        confidence: ``declared`` by file or user and not contradicted, ``certain`` by format or
            overwhelming byte statistics, ``likely`` by statistics.
    """

    encoding: str
    evidence: str
    confidence: Confidence


def codec(name: str) -> str | None:
    """Return the Python codec for a name found in a ``.cpg`` or given by a user, else None."""
    text = name.strip().strip("\ufeff").lower()
    digits = re.fullmatch(r"(?:cp|ansi|oem|windows|ms|iso)?[\s_-]*(\d[\d-]*)", text)
    if digits and (key := digits[1].replace("-", "")) in _ALIASES:
        return _ALIASES[key]
    try:
        found = codecs.lookup(text.replace(" ", "-")).name
    except (LookupError, ValueError):
        return None
    if not found or found in ("hex", "rot13", "base64", "zlib", "bz2", "uu", "quopri"):
        return None  # byte transforms of Python, not text encodings
    return _SUPERSETS.get(found, found)


def display(python_codec: str) -> str:
    """Return the name that reports show for a Python codec."""
    return _DISPLAY.get(python_codec, python_codec)


def decide(
    values: Sequence[bytes],
    *,
    declared: str | None = None,
    declared_by: str = "",
    override: str | None = None,
    source: str | Path | None = None,
) -> EncodingDecision:
    """Decide the encoding of a sample of raw text values.

    Args:
        values: raw bytes of values (and names); ASCII ones are ignored.
        declared: encoding name that the file itself declares, e.g. the content of a ``.cpg``.
        declared_by: where the declaration stands, for the evidence.
        override: what the user declared; it wins over everything that can be decoded with it.
        source: the file, for messages.

    Raises:
        EncodingUndecided: the declaration contradicts the bytes, or the bytes fit nothing.
    """
    sample = [v for v in values if not v.isascii()][:MAX_SAMPLE_VALUES]
    if override is not None:
        return _by_user(sample, override, source)
    known = None if declared is None else codec(declared)
    if not sample:
        chosen = known or "utf-8"
        why = f"{declared_by} says {declared!r}; " if known else ""
        sure: Confidence = "declared" if known else "certain"
        return EncodingDecision(display(chosen), f"{why}every sampled value is ASCII", sure)
    if known is None:
        return _by_statistics(
            sample, source, f"{declared_by} {declared!r} is unknown: " if declared else ""
        )
    return _check_declared(sample, known, f"{declared_by} says {declared!r}", source)


def _by_user(sample: Sequence[bytes], override: str, source: str | Path | None) -> EncodingDecision:
    chosen = codec(override)
    if chosen is None:
        raise EncodingUndecided(
            f"unknown encoding {override!r}",
            source=source,
            remedy="use a name such as UTF-8, GB18030, GBK or Big5",
        )
    if (failures := _failures(sample, chosen)) * 2 > len(sample):
        raise EncodingUndecided(
            f"the declared encoding {override!r} cannot decode {failures} of {len(sample)} "
            f"values with non-ASCII text, e.g. {_show(_first_failure(sample, chosen))}",
            source=source,
            remedy=f"the bytes look like {_guess_name(sample)}: declare --encoding accordingly",
        )
    return EncodingDecision(display(chosen), "declared by the user", "declared")


def _check_declared(
    sample: Sequence[bytes], known: str, claim: str, source: str | Path | None
) -> EncodingDecision:
    guess, sure, evidence = _statistics(sample)
    failures = _failures(sample, known)
    wrong = failures > _TOLERATED_FAILURES * len(sample)
    # Latin-1 and GBK decode almost any bytes, so "it decodes" is no proof for them.
    if not wrong and (guess in (known, None) or not sure or _same_family(guess, known)):
        return EncodingDecision(display(known), f"{claim}; {evidence}", "declared")
    what = (
        f"{failures} of {len(sample)} values do not decode with it"
        if wrong
        else f"the bytes say {display(guess)}"
        if guess
        else "the bytes contradict it"
    )
    raise EncodingUndecided(
        f"{claim}, but {what} ({evidence}); e.g. {_show(_first_failure(sample, known))}",
        source=source,
        remedy=f"declare the encoding: --encoding {display(guess) if guess else 'NAME'}",
    )


def _same_family(a: str | None, b: str) -> bool:
    western = {"cp1252", "iso8859-1"}
    # Python names East Asian relatives differently; Korean and Japanese are never guessed here.
    return (a in western and b in western) or (a == "gb18030" and b in ("cp932", "cp949"))


def _by_statistics(
    sample: Sequence[bytes], source: str | Path | None, prefix: str
) -> EncodingDecision:
    guess, sure, evidence = _statistics(sample)
    if guess is None:
        raise EncodingUndecided(
            f"the text encoding cannot be decided: {prefix}{evidence}; e.g. {_show(sample[0])}",
            source=source,
            remedy="declare it: --encoding GB18030 (or UTF-8, Big5, windows-1252)",
        )
    return EncodingDecision(display(guess), prefix + evidence, "certain" if sure else "likely")


def _guess_name(sample: Sequence[bytes]) -> str:
    guess = _statistics(sample)[0]
    return "no encoding this project can tell" if guess is None else display(guess)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Counts over the double-byte characters of a sample, read as GBK and as Big5."""

    characters: int
    gb_common: int
    big5_common: int
    isolated: int


# A high byte starts a double-byte character; GB18030's four-byte form has a digit second.
_GB_CHARACTER = re.compile(
    rb"[\x81-\xfe](?:[\x30-\x39][\x81-\xfe][\x30-\x39]|[\x40-\x7e\x80-\xfe])"
)
# Rows 1-9 (punctuation, full-width, kana) and 16-55 (the 3755 common hanzi) of GB2312.
_GB_COMMON = re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]|....", re.DOTALL)
# Big5: punctuation and the 5401 frequent hanzi.
_BIG5_CHARACTER = re.compile(rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]")
_BIG5_COMMON = re.compile(rb"[\xa1-\xa3\xa4-\xc6][\x40-\x7e\xa1-\xfe]")
_ISOLATED = re.compile(rb"(?<![\x80-\xff])[\xc0-\xff](?![\x80-\xff])")
_HIGH_RUN = re.compile(rb"[\x80-\xff]")


def _statistics(sample: Sequence[bytes]) -> tuple[str | None, bool, str]:
    """Return (codec or None, whether it is overwhelming, evidence)."""
    n = len(sample)
    utf8_failures = _failures(sample, "utf-8")
    if utf8_failures <= _TOLERATED_FAILURES * n:
        return _weigh_utf8(sample, utf8_failures)
    gb, big5 = _share(sample, "gb18030"), _share(sample, "cp950")
    said = (
        f"{utf8_failures} of {n} non-ASCII values are not UTF-8; common characters: "
        f"{gb:.0%} as GB18030, {big5:.0%} as Big5"
    )
    if max(gb, big5) >= 0.6:
        # Where both fit, GBK is meant: of Big5 text only 0.36 ** n of n common characters would
        # look like common GBK, of GBK text 0.57 ** n look like common Big5.
        chosen, share = ("cp950", big5) if big5 >= gb + 0.1 else ("gb18030", gb)
        characters = sum(len(_HIGH_RUN.findall(v)) for v in sample) // 2
        sure = share >= 0.8 and abs(gb - big5) >= 0.1 and characters >= _ENOUGH_CHARACTERS
        return chosen, sure, said
    if _isolated_share(sample) >= 0.8 and _failures(sample, "cp1252") == 0:
        return "cp1252", False, said + "; single accented letters between ASCII ones"
    return None, False, said


def _weigh_utf8(sample: Sequence[bytes], failures: int) -> tuple[str | None, bool, str]:
    n = len(sample)
    text = "".join(decode(v, "utf-8")[0] for v in sample)
    characters = sum(not c.isascii() for c in text)
    wide = sum(ord(c) >= 0x800 for c in text)
    said = f"{n - failures} of {n} non-ASCII values are valid UTF-8 ({characters} characters)"
    # A repeated character is the same coincidence again, so only different ones count.
    distinct = len({c for c in text if not c.isascii()})
    if failures == 0 and (wide >= 2 or distinct >= _ENOUGH_CHARACTERS):
        return "utf-8", True, said
    if failures == 0 and wide == 0 and _share(sample, "gb18030") == 1 and not _accents(text):
        # 小 is D0 A1 in GBK and a Cyrillic letter in UTF-8: too few characters to tell.
        return None, False, said + ", and as good as GB18030"
    return "utf-8", False, said


def _accents(text: str) -> bool:
    return re.search(r"[A-Za-z][\u00c0-\u024f]|[\u00c0-\u024f][A-Za-z]", text) is not None


def _share(sample: Iterable[bytes], name: str) -> float:
    """Return the share of the non-ASCII characters that are common ones in `name`.

    Bytes that do not form a character count against it.
    """
    every, common = (
        (_GB_CHARACTER, _GB_COMMON) if name == "gb18030" else (_BIG5_CHARACTER, _BIG5_COMMON)
    )
    total = hits = 0
    for value in sample:
        found = every.findall(value)
        hits += sum(common.fullmatch(c) is not None for c in found)
        total += len(found) + len(_HIGH_RUN.findall(every.sub(b"", value.rstrip(b" \0"))[:-1]))
    return hits / total if total else 0.0


def _isolated_share(sample: Iterable[bytes]) -> float:
    high = lone = 0
    for value in sample:
        high += len(_HIGH_RUN.findall(value))
        lone += len(_ISOLATED.findall(value))
    return lone / high if high else 0.0


def _failures(sample: Iterable[bytes], name: str) -> int:
    return sum(not decode(v, name)[1] for v in sample)


def _first_failure(sample: Sequence[bytes], name: str) -> bytes:
    return next((v for v in sample if not decode(v, name)[1]), sample[0])


def _show(value: bytes) -> str:
    return repr(value[:24]) + ("…" if len(value) > 24 else "")


def decode(value: bytes, name: str) -> tuple[str, bool]:
    """Decode one raw value, forgiving a last character that the field's width cut in half.

    Args:
        value: raw bytes.
        name: a Python codec.

    Returns:
        the text without the cut character, and True; or, if other bytes do not decode, the text
        with U+FFFD in their place, and False.
    """
    try:
        return value.decode(name), True
    except UnicodeDecodeError as error:
        # At most three bytes of a UTF-8 or GB18030 character can be left over at the end.
        if len(value) - error.start < 4 and _is_cut(value[error.start :], name):
            return value[: error.start].decode(name), True
        return value.decode(name, "replace"), False


def _is_cut(tail: bytes, name: str) -> bool:
    """Say whether `tail` is the beginning of a character, not a wrong one."""
    try:
        return codecs.getincrementaldecoder(name)().decode(tail, final=False) == ""
    except UnicodeDecodeError:
        return False
