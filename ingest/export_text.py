"""Names and texts that fit the narrow fields of a DBF, cut between characters and counted."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tiling.errors import ConfigError
from tiling.findings import Findings

DBF_TEXT_NBYTES = 254
_GDAL_NAMES = {"gbk": "GBK", "gb18030": "GB18030", "gb2312": "GBK", "utf-8": "UTF-8"}


def legal_encoding(name: str) -> str:
    """Return GDAL's name of a text encoding.

    Raises:
        ConfigError: Python knows no such encoding.
    """
    try:
        known = codecs.lookup(name).name
    except LookupError as error:
        raise ConfigError(f"--encoding {name!r} is unknown; use UTF-8, GBK or GB18030") from error
    return _GDAL_NAMES.get(known, known.upper())


def fit_names(names: Sequence[str], limit_nbytes: int, encoding: str) -> dict[str, str]:
    """Return a name for each field, unique and at most `limit_nbytes` long (0: any length).

    Shortened names end between characters; colons become underscores; repetitions are numbered.
    Names that need no change keep it, whatever precedes them. GDAL finds fields without regard to
    case, so names that differ in case alone would receive each other's values.
    """
    plain = {n: n.replace(":", "_") if limit_nbytes else n for n in names}
    fitting = {n: _cut(p, limit_nbytes, encoding) for n, p in plain.items()}
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda n: fitting[n] != n):  # stable: unchanged ones first
        candidate, number = fitting[name], 2
        while candidate.casefold() in taken:
            ending = f"_{number}"
            candidate = _cut(plain[name], limit_nbytes, encoding, len(ending)) + ending
            number += 1
        taken.add(candidate.casefold())
        result[name] = candidate
    return {name: result[name] for name in names}


def fit_text(column: pa.Array, field: str, encoding: str, findings: Findings) -> pa.Array:
    """Return texts that a DBF holds: representable in `encoding`, at most 254 bytes.

    Only texts that need a change are handled one by one.
    """
    # No character of these encodings takes more than four bytes.
    long = pc.greater(pc.utf8_length(column), DBF_TEXT_NBYTES // 4)
    foreign = pa.scalar(False)
    if encoding not in ("UTF-8", "GB18030"):
        foreign = pc.invert(pc.string_is_ascii(column))
    rows = pc.indices_nonzero(pc.fill_null(pc.or_(long, foreign), False)).to_pylist()
    if not rows:
        return column
    values = column.to_pylist()
    cut, lost = [], []
    for row in rows:
        text = values[row]
        kept = text.encode(encoding, "replace").decode(encoding)
        if kept != text:
            lost.append(text)
        shortened = _cut(kept, DBF_TEXT_NBYTES, encoding)
        if shortened != kept:
            cut.append(text[:40])
        values[row] = shortened
    findings.add(
        "text-truncated",
        "drop",
        f"field {field!r}: a DBF holds {DBF_TEXT_NBYTES} bytes of text; the rest was cut",
        len(cut),
        cut,
    )
    findings.add(
        "text-not-encodable",
        "drop",
        f"field {field!r}: characters that {encoding} lacks were written as '?'",
        len(lost),
        lost,
    )
    return pa.array(values, column.type)


def _cut(text: str, limit_nbytes: int, encoding: str, spare: int = 0) -> str:
    if not limit_nbytes:
        return text
    raw = text.encode(encoding, "replace")[: limit_nbytes - spare]
    return raw.decode(encoding, "ignore")
