"""Attribute columns as tilers get them: plain Arrow types, unique names, decoded text.

Numbers, booleans, dates, text, binary and lists of these keep their type. Structures have no place
in tiles or tables, so they become JSON text, and a finding says which columns did.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingest.encoding import decode
from tiling.findings import Findings

# Never part of a double-byte character in any encoding we decode, and never inside a DBF value.
_SEPARATOR = "\0"


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
    joined = _SEPARATOR.join(values).encode("latin-1")
    try:
        decoded = joined.decode(name).split(_SEPARATOR)
    except UnicodeDecodeError:
        decoded = []
    bad: list[int] = []
    if len(decoded) != len(values):  # a value is cut or wrong: look at each
        decoded = []
        for row, value in enumerate(values):
            text, whole = decode(value.encode("latin-1"), name)
            decoded.append(text)
            if not whole:
                bad.append(row)
    valid = pc.is_valid(column)
    return pc.if_else(valid, pa.array(decoded, type=pa.string()), None), bad


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
