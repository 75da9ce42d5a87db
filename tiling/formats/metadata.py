"""Property tables (EXT_structural_metadata) typed from Arrow: every attribute, Chinese intact.

The one idea: a schema is decided once a run from *all* values seen, then every tile encodes its
rows against it, so identifiers, types and no-data values never differ between tiles.

| Arrow | property |
|---|---|
| int8 … uint32, float32, float64 | SCALAR of the same component type |
| int64, uint64 | 32 bits when every value fits: JavaScript clients get 64 bits as BigInt |
| bool | BOOLEAN; with nulls INT8: 0, 1, -1 for null (BOOLEAN has no no-data value) |
| string | STRING, UTF-8 |
| date, time, timestamp | STRING, ISO 8601; time zones are converted to UTC (``Z``) |
| decimal | FLOAT64 up to 15 digits, otherwise STRING |
| binary | STRING of hexadecimal digits |
| struct | one property a member, ``parent.member`` |
| list of any scalar above | array of variable length; null is an array of one no-data value |
| list of lists or structs | STRING, JSON |
| duration | INT64 in its unit |

(`plain_columns.plain` does the part of this that needs no knowledge of other rows.)

Null stays null: a column with nulls gets a no-data value that occurs nowhere in its data, and a
column that is null throughout a tile is left out of that tile's table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.errors import TilingError
from tiling.formats.plain_columns import text_parts, unique_name

CLASS_ID = "feature"

_COMPONENT_TYPES: Mapping[pa.DataType, str] = {
    pa.int8(): "INT8",
    pa.uint8(): "UINT8",
    pa.int16(): "INT16",
    pa.uint16(): "UINT16",
    pa.int32(): "INT32",
    pa.uint32(): "UINT32",
    pa.int64(): "INT64",
    pa.uint64(): "UINT64",
    pa.float32(): "FLOAT32",
    pa.float64(): "FLOAT64",
}
_ARROW_TYPES = {name: arrow for arrow, name in _COMPONENT_TYPES.items()}
# Only these may be left out of a table: CesiumJS fills in the no-data value of a missing property
# itself, and fails on a 64-bit integer.
_OMISSIBLE = frozenset(_ARROW_TYPES) - {"INT64", "UINT64"}
_TEXT_NO_DATA = ("", "\u0000", "(null)", "\u2205", "\u0000null\u0000")


@dataclass(frozen=True, slots=True)
class Property:
    """One property of the schema.

    Attributes:
        id: identifier in the metadata, ``[A-Za-z_][A-Za-z0-9_]*``.
        name: name of the column in the source, any text.
        component_type: ``INT8`` … ``FLOAT64``, ``BOOLEAN`` or ``STRING``.
        array: whether each feature has a list of values.
        no_data: what stands for null, or None when the run has no null.
        source_type: Arrow type in the source.
    """

    id: str
    name: str
    component_type: str
    array: bool
    no_data: Any
    source_type: str

    def to_json(self) -> dict[str, Any]:
        """Return the class property of EXT_structural_metadata."""
        scalar = self.component_type not in ("STRING", "BOOLEAN")
        kind = (
            {"type": "SCALAR", "componentType": self.component_type}
            if scalar
            else {"type": self.component_type}
        )
        document: dict[str, Any] = {"name": self.name, "description": self.source_type, **kind}
        if self.array:
            document["array"] = True
        if self.no_data is None:
            document["required"] = True
        else:
            document["noData"] = [self.no_data] if self.array else self.no_data
        return document


@dataclass(frozen=True, slots=True)
class MetadataSchema:
    """The class that all features of a tileset belong to."""

    properties: tuple[Property, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the class of EXT_structural_metadata."""
        return {
            "name": "Feature",
            "properties": {p.id: p.to_json() for p in self.properties},
        }

    def dump(self) -> list[dict[str, Any]]:
        """Return JSON from which `load` makes an equal schema."""
        return [{slot: getattr(p, slot) for slot in Property.__slots__} for p in self.properties]

    @classmethod
    def load(cls, data: Iterable[Mapping[str, Any]]) -> MetadataSchema:
        """Return the schema that `dump` described."""
        return cls(tuple(Property(**entry) for entry in data))


@dataclass(slots=True)
class _Column:
    """What was seen of a column: its type, its range, and which no-data values are still free."""

    type: pa.DataType
    source_type: str
    nulls: bool = False
    low: float | int | None = None
    high: float | int | None = None
    taken: set[Any] = field(default_factory=set)


class SchemaBuilder:
    """Watches every batch of a run, then decides the schema."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._rows = 0

    def observe(self, table: pa.Table, sources: Mapping[str, str] | None = None) -> None:
        """Take note of a table that `plain` returned; `sources` are the types before that."""
        for name in table.column_names:
            array = table.column(name)
            column = self._columns.get(name)
            if column is None:
                source = (sources or {}).get(name, str(array.type))
                column = self._columns[name] = _Column(array.type, source, nulls=self._rows > 0)
            column.type = _common_type(name, column.type, array.type)
            _observe(column, array)
        for name in self._columns.keys() - set(table.column_names):
            self._columns[name].nulls = True
        self._rows += table.num_rows

    def finish(self, reserved: Iterable[str] = ()) -> MetadataSchema:
        """Return the schema.

        Args:
            reserved: columns that get their identifiers first, in case others sanitise to the same.
        """
        first = [name for name in reserved if name in self._columns]
        order = [*first, *(name for name in self._columns if name not in set(first))]
        seen: set[str] = set()
        ids = {name: unique_name(identifier(name), seen) for name in order}
        return MetadataSchema(
            tuple(_decide(ids[name], name, column) for name, column in self._columns.items())
        )


def identifier(name: str) -> str:
    """Return a metadata identifier for any text: ``楼高`` becomes ``u697C_u9AD8``.

    ASCII that may not stand in an identifier becomes an underscore; every other character its
    code point, so that different Chinese names stay different.
    """
    coded = re.sub(r"[^\x00-\x7f]+", lambda m: "_".join(f"u{ord(c):04X}" for c in m[0]) + "_", name)
    coded = re.sub(r"[^A-Za-z0-9_]", "_", coded)
    coded = coded.removesuffix("_") if not name.endswith("_") else coded
    return coded if re.match(r"[A-Za-z_]", coded) else f"_{coded}"


def _common_type(name: str, old: pa.DataType, new: pa.DataType) -> pa.DataType:
    if old == new:
        return old
    schemas = [pa.schema([(name, old)]), pa.schema([(name, new)])]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError as error:
        raise TilingError(
            f"attribute {name!r} changes its type from {old} to {new} within one source"
        ) from error


def _observe(column: _Column, array: pa.ChunkedArray) -> None:
    column.nulls = column.nulls or array.null_count > 0
    if pa.types.is_large_list(array.type):
        array = pc.list_flatten(array)
        column.nulls = column.nulls or array.null_count > 0
    for value in _candidates(array.type):
        if (
            value not in column.taken
            and pc.any(pc.equal(array, pa.scalar(value, array.type))).as_py()
        ):
            column.taken.add(value)
    if pa.types.is_integer(array.type) and len(array) > array.null_count:
        low, high = pc.min_max(array).as_py().values()
        column.low = low if column.low is None else min(column.low, low)
        column.high = high if column.high is None else max(column.high, high)


def _candidates(kind: pa.DataType) -> tuple[Any, ...]:
    if pa.types.is_large_string(kind):
        return _TEXT_NO_DATA
    if pa.types.is_floating(kind):
        limits = np.finfo(kind.to_pandas_dtype())
        return (float(limits.min), float(limits.max))
    return ()


def _decide(identity: str, name: str, column: _Column) -> Property:
    kind = column.type
    array = pa.types.is_large_list(kind)
    if array:
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        component, no_data = ("INT8", -1) if column.nulls else ("BOOLEAN", None)
    elif pa.types.is_integer(kind):
        component, no_data = _decide_integer(name, kind, column)
    else:
        component = _COMPONENT_TYPES.get(kind, "STRING")
        free = [v for v in _candidates(kind) if v not in column.taken]
        if column.nulls and not free:
            raise TilingError(f"attribute {name!r} uses every value that could stand for null")
        no_data = free[0] if column.nulls else None
    return Property(identity, name, component, array, no_data, column.source_type)


def _decide_integer(name: str, kind: pa.DataType, column: _Column) -> tuple[str, int | None]:
    low, high = int(column.low or 0), int(column.high or 0)
    narrow = (pa.int32(), pa.uint32()) if kind.bit_width == 64 else (kind,)
    wider = (pa.int16(), pa.int32(), pa.int64(), pa.uint64())
    for candidate in (*narrow, kind, *(w for w in wider if w.bit_width > kind.bit_width)):
        limits = np.iinfo(candidate.to_pandas_dtype())
        if low < limits.min or high > limits.max:
            continue
        component = _COMPONENT_TYPES[candidate]
        if not column.nulls:
            return component, None
        # JSON numbers are doubles to most clients, so the ends of 64 bits will not do for them.
        lowest = max(int(limits.min), -(2**53) + 1)
        highest = min(int(limits.max), 2**53 - 1)
        if low > lowest:
            return component, lowest
        if high < highest:
            return component, highest
    raise TilingError(f"attribute {name!r} uses every integer that could stand for null")


@dataclass(frozen=True, slots=True)
class EncodedProperty:
    """A column as the buffers of a property table.

    Attributes:
        id: property id.
        values: bytes of the values.
        array_offsets: (N + 1,) uint32 element offsets of arrays, or None.
        string_offsets: (M + 1,) uint32 byte offsets of strings, or None.
    """

    id: str
    values: bytes
    array_offsets: NDArray[np.uint32] | None = None
    string_offsets: NDArray[np.uint32] | None = None


def encode_table(schema: MetadataSchema, table: pa.Table) -> list[EncodedProperty]:
    """Encode the rows of a tile.

    Args:
        schema: of the run.
        table: what `plain` returned, (N rows); columns that the schema lacks are ignored.

    Returns:
        one entry a property; those without any value in this tile are left out.
    """
    encoded = []
    for prop in schema.properties:
        if prop.name not in table.column_names:
            continue
        column = table.column(prop.name)
        omissible = (
            prop.array or prop.component_type == "STRING" or (prop.component_type in _OMISSIBLE)
        )
        if column.null_count == len(column) and prop.no_data is not None and omissible:
            continue
        encoded.append(_encode(prop, column))
    return encoded


def _encode(prop: Property, column: pa.ChunkedArray) -> EncodedProperty:
    array_offsets = None
    if prop.array:
        lists = _combined(column.cast(pa.large_list(column.type.value_type)))
        if lists.null_count:
            # Null is an array of one no-data value, so every null list gets one null item.
            filler = pa.scalar([None], type=lists.type)
            lists = _combined(pc.if_else(lists.is_valid(), lists, filler))
        starts = np.asarray(lists.offsets, dtype=np.int64)
        array_offsets = (starts - starts[0]).astype("<u4")
        column = pa.chunked_array([pc.list_flatten(lists)])
    if prop.component_type == "STRING":
        text = _combined(column.cast(pa.large_string()))
        if text.null_count:
            text = pc.fill_null(text, prop.no_data)
        offsets, values = text_parts(text)
        return EncodedProperty(prop.id, values.tobytes(), array_offsets, offsets.astype("<u4"))
    if prop.component_type == "BOOLEAN":
        bits = np.packbits(_combined(column).to_numpy(zero_copy_only=False), bitorder="little")
        return EncodedProperty(prop.id, bits.tobytes(), array_offsets)
    numbers = _combined(column.cast(_ARROW_TYPES[prop.component_type]))
    if numbers.null_count:
        numbers = pc.fill_null(numbers, pa.scalar(prop.no_data, numbers.type))
    values = numbers.to_numpy(zero_copy_only=False)
    return EncodedProperty(
        prop.id, values.astype(values.dtype.newbyteorder("<")).tobytes(), array_offsets
    )


def _combined(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
