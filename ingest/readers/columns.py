"""Attribute columns as tilers get them: plain Arrow types, unique names, decoded text.

Numbers, booleans, dates, text, binary and lists of these keep their type. Structures have no place
in tiles or tables, so they become JSON text, and a finding says which columns did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingest.encoding import decode
from tiling.findings import Findings

# Never part of a double-byte character in any encoding we decode, and never inside a DBF value.
_SEPARATOR = "\0"
_ESCAPE = re.compile(r"\\U\+([0-9A-Fa-f]{4})")
_RUNS = re.compile("[\x00-\xff]+|[^\x00-\xff]+")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain_column` gives a column of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return pa.string() if is_nested(kind) else kind


def is_nested(kind: pa.DataType) -> bool:
    """Say whether a type is a structure that becomes JSON text (a list of plain values is not)."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_nested(kind.value_type))
    return bool(pa.types.is_nested(kind))


def is_json(kind: pa.DataType) -> bool:
    """Say whether a type is text that holds JSON, as GDAL marks nested GeoJSON properties."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def plain_column(column: pa.Array) -> pa.Array:
    """Return a column in its plain type."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_column(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if is_nested(kind):
        return pa.array(
            [None if v is None else _json(v) for v in column.to_pylist()], type=pa.string()
        )
    plain = plain_type(kind)
    return column if plain == kind else column.cast(plain)


def _json(value: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def decode_column(column: pa.Array, name: str) -> tuple[pa.Array, list[int]]:
    """Decode text that was read as ISO-8859-1, where every code point is one raw byte.

    Args:
        column: (N,) Arrow string whose code points are bytes.
        name: Python codec of the bytes.

    Returns:
        the (N,) decoded column, and the rows whose bytes do not decode (they got U+FFFD).
    """
    values = column.fill_null("").to_pylist()
    try:
        decoded = _SEPARATOR.join(values).encode("latin-1").decode(name).split(_SEPARATOR)
    except UnicodeError:
        decoded = []
    bad: list[int] = []
    if len(decoded) != len(values):  # a value is cut, wrong or escaped: look at each
        pairs = [_decode_value(value, name) for value in values]
        decoded = [text for text, _ in pairs]
        bad = [row for row, (_, whole) in enumerate(pairs) if not whole]
    return pc.if_else(pc.is_valid(column), pa.array(decoded, type=pa.string()), None), bad


def _decode_value(value: str, name: str) -> tuple[str, bool]:
    # Drivers put escaped characters in themselves: what lies beyond Latin-1 is text already.
    parts = [
        decode(run.encode("latin-1"), name) if run[0] <= "\xff" else (run, True)
        for run in _RUNS.findall(value)
    ]
    return "".join(text for text, _ in parts), all(whole for _, whole in parts)


def unescape_dxf(column: pa.Array) -> pa.Array:
    r"""Replace ``\U+XXXX``, which a DXF writes for characters its code page lacks."""
    if not pc.any(pc.match_substring(column, "\\U+")).as_py():
        return column
    return pa.array(
        [
            None if v is None else _ESCAPE.sub(lambda m: chr(int(m[1], 16)), v)
            for v in column.to_pylist()
        ],
        type=pa.string(),
    )


def unique_names(names: Sequence[str], findings: Findings) -> list[str]:
    """Make column names unique and non-empty, counting what had to be renamed."""
    taken: set[str] = set()
    result = []
    for position, name in enumerate(names):
        wanted = fresh = name or f"field_{position + 1}"
        number = 2
        while fresh in taken or (fresh != name and fresh in names):
            fresh, number = f"{wanted}_{number}", number + 1
        if fresh != name:
            findings.add(
                "field-renamed",
                "repair",
                "fields renamed because their names were empty or repeated",
                samples=[f"{name} -> {fresh}"],
            )
        taken.add(fresh)
        result.append(fresh)
    return result
