"""Property tables (EXT_structural_metadata) typed from Arrow: every attribute, Chinese intact.

The one idea: the schema of a tile is decided from its own rows, so a tile depends on nothing but
them; what is common to all tiles is only the identifier of each property, and that comes from the
names of the columns. Types are as narrow as the rows allow, and always such that a JavaScript
client gets plain numbers and text:

| Arrow | property |
|---|---|
| integers | SCALAR of the narrowest type up to 32 bits; beyond, FLOAT64 up to 2**53, else STRING |
| float32, float64 | FLOAT32 where that holds every value exactly, otherwise FLOAT64 |
| bool | BOOLEAN; with nulls INT8: 0, 1, -1 for null (BOOLEAN has no no-data value) |
| string | ENUM where few texts repeat, otherwise STRING, UTF-8 |
| date, time, timestamp | as string, ISO 8601; time zones are converted to UTC (``Z``) |
| decimal | as float64 up to 15 digits, otherwise as string |
| binary | as string of hexadecimal digits |
| struct | one property a member, ``parent.member`` |
| list of any scalar above | array of variable length; null is an array of one no-data value |
| list of lists or structs | as string, JSON |
| duration | as integer in its unit |

(`plain_columns.plain` does the part of this that needs no knowledge of other rows.)

Null stays null: a column with nulls gets a no-data value that occurs nowhere in the tile, and a
column that is null throughout has no values in its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.errors import TilingError
from tiling.formats.plain_columns import text_parts, unique_name

_NUMPY: Mapping[str, Any] = {
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
}
_INTEGERS = ("UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32")
_TEXT_NO_DATA = ("", "\u0000", "(null)", "\u2205", "\u0000null\u0000")
# The name of an enum's value may not be empty.
_ENUM_NO_DATA = _TEXT_NO_DATA[1:]
_ENUM_VALUES = 250
# Measurements of ours, to a millimetre: single precision holds them.
_SINGLE = frozenset({"cim:base_m", "cim:height_m"})
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class EncodedProperty:
    """A column as the buffers of a property table.

    Attributes:
        id: property id.
        values: bytes of the values; None: the column is null throughout.
        array_offsets: (N + 1,) element offsets of arrays, or None.
        string_offsets: (M + 1,) byte offsets of strings, or None.
    """

    id: str
    values: bytes | None
    array_offsets: NDArray[Any] | None = None
    string_offsets: NDArray[Any] | None = None


@dataclass(slots=True)
class EncodedTable:
    """A property table with its schema.

    Attributes:
        count: rows.
        properties: class properties, JSON by id.
        enums: JSON by id.
        columns: the values.
    """

    count: int
    properties: dict[str, Any] = field(default_factory=dict)
    enums: dict[str, Any] = field(default_factory=dict)
    columns: list[EncodedProperty] = field(default_factory=list)


def property_ids(names: Sequence[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return the property id of each column; decided by the names alone.

    Args:
        names: columns, each once.
        reserved: columns that get their identifiers first, in case others sanitise to the same.
    """
    first = [name for name in reserved if name in names]
    seen: set[str] = set()
    order = [*first, *(name for name in names if name not in set(first))]
    ids = {name: unique_name(identifier(name), seen) for name in order}
    return {name: ids[name] for name in names}


def identifier(name: str) -> str:
    """Return a metadata identifier for any text: ``楼高`` becomes ``u697C_u9AD8``.

    ASCII that may not stand in an identifier becomes an underscore; every other character its
    code point, so that different Chinese names stay different.
    """
    coded = re.sub(r"[^\x00-\x7f]+", lambda m: "_".join(f"u{ord(c):04X}" for c in m[0]) + "_", name)
    coded = re.sub(r"[^A-Za-z0-9_]", "_", coded)
    coded = coded.removesuffix("_") if not name.endswith("_") else coded
    return coded if re.match(r"[A-Za-z_]", coded) else f"_{coded}"


def encode_properties(table: pa.Table, ids: Mapping[str, str]) -> EncodedTable:
    """Encode the rows of a tile with a schema of their own.

    Args:
        table: what `plain` returned, (N rows).
        ids: property id of every column.

    Raises:
        TilingError: a column uses every value that could stand for null.
    """
    encoded = EncodedTable(table.num_rows)
    for name in table.column_names:
        _encode(encoded, name, ids[name], _combined(table.column(name)))
    return encoded


def _encode(table: EncodedTable, name: str, identity: str, column: pa.Array) -> None:
    array_offsets = None
    document: dict[str, Any] = {"name": name}
    kind = column.type
    if pa.types.is_large_list(kind):
        if column.null_count:
            # Null is an array of one no-data value, so every null list gets one null item.
            filler = pa.scalar([None], type=kind)
            column = _combined(pc.if_else(column.is_valid(), column, filler))
        starts = np.asarray(column.offsets, dtype=np.int64)
        array_offsets = _narrow_offsets(starts - starts[0])
        column = _combined(pc.list_flatten(column))
        document["array"] = True
    if column.null_count == len(column):
        _encode_nothing(table, identity, document, column, array_offsets)
        return
    if pa.types.is_boolean(column.type):
        encoded = _boolean(identity, document, column)
    elif pa.types.is_integer(column.type):
        encoded = _integer(name, identity, document, column)
    elif pa.types.is_floating(column.type):
        encoded = _real(name, identity, document, column)
    else:
        encoded = _text(table, name, identity, document, column)
    if "noData" not in document:
        document["required"] = True
    elif "array" in document:
        document["noData"] = [document["noData"]]
    table.properties[identity] = document
    table.columns.append(
        EncodedProperty(identity, encoded.values, array_offsets, encoded.string_offsets)
    )


def _encode_nothing(
    table: EncodedTable,
    identity: str,
    document: dict[str, Any],
    column: pa.Array,
    array_offsets: NDArray[Any] | None,
) -> None:
    """Encode a column without any value: null throughout, or lists that are all empty."""
    kind = column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    document |= {"type": "SCALAR", "componentType": "INT8"} if number else {"type": "STRING"}
    table.properties[identity] = document
    no_data = -1 if number else ""
    if array_offsets is None:
        document["noData"] = no_data
        table.columns.append(EncodedProperty(identity, None))
        return
    # An empty list and none at all are told apart by its one item.
    document |= {"noData": [no_data]} if len(column) else {"required": True}
    values = np.full(len(column), -1, dtype=np.int8).tobytes() if number else b""
    string_offsets = None if number else np.zeros(len(column) + 1, dtype="<u1")
    table.columns.append(EncodedProperty(identity, values, array_offsets, string_offsets))


def _boolean(identity: str, document: dict[str, Any], column: pa.Array) -> EncodedProperty:
    if not column.null_count:
        document["type"] = "BOOLEAN"
        bits = np.packbits(column.to_numpy(zero_copy_only=False), bitorder="little")
        return EncodedProperty(identity, bits.tobytes())
    document |= {"type": "SCALAR", "componentType": "INT8", "noData": -1}
    numbers = pc.fill_null(column.cast(pa.int8()), -1).to_numpy(zero_copy_only=False)
    return EncodedProperty(identity, numbers.astype(np.int8).tobytes())


def _integer(
    name: str, identity: str, document: dict[str, Any], column: pa.Array
) -> EncodedProperty:
    low, high = (int(v) for v in pc.min_max(column).as_py().values())
    for component in _INTEGERS:
        limits = np.iinfo(_NUMPY[component])
        if low < limits.min or high > limits.max:
            continue
        if column.null_count:
            free = next(
                (v for v in (int(limits.min), int(limits.max)) if not low <= v <= high), None
            )
            if free is None:
                continue
            document["noData"] = free
            column = pc.fill_null(column.cast(pa.int64()), free)
        document |= {"type": "SCALAR", "componentType": component}
        values = column.to_numpy(zero_copy_only=False).astype(_NUMPY[component])
        return EncodedProperty(identity, _little(values))
    if -_EXACT <= low and high <= _EXACT:
        return _real(name, identity, document, column.cast(pa.float64()))
    # No number of JavaScript holds them.
    return _string(name, identity, document, column.cast(pa.large_string()))


def _real(name: str, identity: str, document: dict[str, Any], column: pa.Array) -> EncodedProperty:
    if column.null_count:
        limit = float(np.finfo(np.float32).max)
        candidates = [-limit, limit, -limit / 2]
        taken = {v for v in candidates if pc.any(pc.equal(column, v)).as_py()}
        free = [v for v in candidates if v not in taken]
        if not free:
            raise TilingError(f"attribute {name!r} uses every number that could stand for null")
        document["noData"] = free[0]
        column = pc.fill_null(column.cast(pa.float64()), free[0])
    values = column.to_numpy(zero_copy_only=False)
    # Numbers beyond single precision become infinite there, and so differ.
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    exact = np.array_equal(single.astype(np.float64), values, equal_nan=True)
    component = "FLOAT32" if exact or name in _SINGLE else "FLOAT64"
    document |= {"type": "SCALAR", "componentType": component}
    return EncodedProperty(identity, _little(values.astype(_NUMPY[component])))


def _text(
    table: EncodedTable, name: str, identity: str, document: dict[str, Any], column: pa.Array
) -> EncodedProperty:
    column = column.cast(pa.large_string())
    if "array" not in document and len(column) >= 8:
        coded = column.dictionary_encode()
        names = coded.dictionary.to_pylist()
        free = [v for v in _ENUM_NO_DATA if v not in names]
        few = len(names) <= min(_ENUM_VALUES, len(column) // 4)
        if few and "" not in names and (free or not column.null_count):
            return _enum(table, identity, document, coded, names, free[0] if free else "")
    return _string(name, identity, document, column)


def _enum(
    table: EncodedTable,
    identity: str,
    document: dict[str, Any],
    coded: pa.DictionaryArray,
    names: list[str],
    no_data: str,
) -> EncodedProperty:
    rows = np.asarray(pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False))
    # By name, so that the order of the rows does not show in the schema.
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names) + 1, dtype=np.uint8)
    rank[order] = np.arange(len(names), dtype=np.uint8)
    rank[len(names)] = len(names)
    values = [{"name": names[i], "value": rank} for rank, i in enumerate(order)]
    if coded.null_count:
        values.append({"name": no_data, "value": len(names)})
        document["noData"] = no_data
    table.enums[identity] = {"valueType": "UINT8", "values": values}
    document |= {"type": "ENUM", "enumType": identity}
    return EncodedProperty(identity, rank[rows].tobytes())


def _string(
    name: str, identity: str, document: dict[str, Any], column: pa.Array
) -> EncodedProperty:
    if column.null_count:
        taken = set(pc.unique(column).to_pylist())
        free = [v for v in _TEXT_NO_DATA if v not in taken]
        if not free:
            raise TilingError(f"attribute {name!r} uses every text that could stand for null")
        document["noData"] = free[0]
        column = pc.fill_null(column, free[0])
    document["type"] = "STRING"
    offsets, values = text_parts(_combined(column))
    return EncodedProperty(identity, values.tobytes(), string_offsets=_narrow_offsets(offsets))


def _narrow_offsets(offsets: NDArray[np.int64]) -> NDArray[Any]:
    last = int(offsets[-1])
    return offsets.astype("<u1" if last < 2**8 else "<u2" if last < 2**16 else "<u4")


def _little(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _combined(column: Any) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    array = column.combine_chunks()
    # Arrow gives back a chunked array of no chunks as it is.
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
