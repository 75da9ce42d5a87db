"""Mapbox Vector Tiles 2.1: whole layers encoded with arrays.

The one idea: every message of a layer is a row of a ragged byte array, so a layer of any number of
features costs a fixed number of NumPy passes. Coordinates are tile units: x to the east, y to the
south, 0 .. extent within the tile. Written after
https://github.com/mapbox/vector-tile-spec/blob/master/2.1/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.json_text import json_text
from tiling.formats.mvt_geometry import encode_geometry
from tiling.formats.ragged import RaggedBytes
from tiling.formats.varint import encode_varints, zigzag

EXTENT = 4096
BUFFER = 64
_VERSION = b"\x78\x02"


@dataclass(frozen=True, slots=True)
class LayerContent:
    """What goes into one layer of a tile.

    Attributes:
        name: unique within the tile.
        ids: (N,) int64, not negative.
        geometry: (N,) shapely points, lines or polygons (multi or not), 2D, tile units; rounded
            to whole units by the encoder.
        attributes: N rows of the types that `plain_attributes` returns.
    """

    name: str
    ids: NDArray[np.int64]
    geometry: NDArray[np.object_]
    attributes: pa.Table


def encode_tile(layers: Iterable[LayerContent]) -> tuple[bytes, list[NDArray[np.bool_]]]:
    """Encode a tile.

    A feature whose geometry collapses when rounded is left out; so is a layer without features.

    Returns:
        the bytes, empty when no feature is left, and per layer (N,) bool: which features are in.

    Raises:
        FormatError: a collection among the geometries, or an attribute type that no tile holds.
    """
    pieces, kept = [], []
    for layer in layers:
        data, present = encode_layer(layer)
        kept.append(present)
        if data:
            pieces.append(_message(0x1A, [data]))
    return b"".join(pieces), kept


def encode_layer(layer: LayerContent) -> tuple[bytes, NDArray[np.bool_]]:
    """Encode the body of one layer; see `encode_tile` for what is returned and raised."""
    commands, kinds = encode_geometry(layer.geometry)
    present = commands.lengths > 0
    rows = np.flatnonzero(present)
    if not len(rows):
        return b"", present
    table = layer.attributes
    if len(rows) < len(present):
        commands, kinds = commands.take(rows), kinds[rows]
        table = table.take(pa.array(rows))
    names, values, tags = _encode_tags(table, len(rows))
    features = RaggedBytes.beside(
        [
            _numbers(0x08, layer.ids[rows]),
            _optional(_field(0x12, tags), tags.lengths > 0),
            _numbers(0x18, kinds),
            _field(0x22, commands),
        ]
    )
    keys = RaggedBytes.text(pa.array(names, pa.large_string()))
    body = [
        _VERSION,
        _message(0x0A, [layer.name.encode()]),
        _field(0x12, features).tobytes(),
        _field(0x1A, keys).tobytes(),
        _field(0x22, values).tobytes(),
        b"\x28" + encode_varints([EXTENT]).tobytes(),
    ]
    return b"".join(body), present


def plain_attributes(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Bring attributes to the types that a tile holds.

    Dates and times become ISO 8601 text, lists and structures JSON text, decimals doubles;
    numbers that are not finite become null, because clients' JSON has no word for them.

    Returns:
        the table with bool, int64, uint64, float, double and large_string columns, and the names
        of the columns left out because their type (binary) has no place in a tile.
    """
    columns, names, omitted = [], [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        plain = _plain(column.combine_chunks())
        if plain is None:
            omitted.append(name)
        else:
            names.append(name)
            columns.append(plain)
    if not columns:
        # A table without columns would forget its rows.
        return table.select([]), omitted
    return pa.table(columns, names=names), omitted


def field_types(schema: pa.Schema) -> dict[str, str]:
    """Return ``Number``, ``String`` or ``Boolean`` per field, the words of ``vector_layers``."""
    words = {}
    for field in schema:
        if pa.types.is_boolean(field.type):
            words[field.name] = "Boolean"
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            words[field.name] = "Number"
        else:
            words[field.name] = "String"
    return words


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array | None:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_boolean(kind) or pa.types.is_large_string(kind):
        return array
    if pa.types.is_unsigned_integer(kind):
        return pc.cast(array, pa.uint64())
    if pa.types.is_integer(kind) or pa.types.is_duration(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        wide = pa.float32() if kind.bit_width <= 32 else pa.float64()
        number = pc.cast(array, wide)
        return pc.if_else(pc.is_finite(number), number, pa.scalar(None, wide))
    if pa.types.is_timestamp(kind):
        return _iso(array)
    if pa.types.is_nested(kind):
        return json_text(array)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    if pa.types.is_fixed_size_binary(kind):
        return None
    return pc.cast(array, pa.large_string())


def _iso(array: pa.Array) -> pa.Array:
    zone = array.type.tz
    ending = "" if zone is None else "Z"
    local = pc.cast(array, pa.timestamp(array.type.unit))  # the UTC wall clock when zoned
    text = pc.cast(pc.strftime(local, format="%Y-%m-%dT%H:%M:%S"), pa.large_string())
    text = pc.replace_substring_regex(text, r"\.0+$", "")
    if not ending:
        return text
    return pc.binary_join_element_wise(text, *(pa.scalar(t, text.type) for t in (ending, "")))


def _encode_tags(table: pa.Table, rows: int) -> tuple[list[str], RaggedBytes, RaggedBytes]:
    # Returns the names of the keys in use, the value table, and (key, value) pairs per feature.
    # `rows` is told, because a table without columns forgets how many it had when rows are taken.
    # Values are looked up per type: the int 73 and the double 73.0 are two values.
    by_type: dict[str, list[int]] = {}
    for i, field in enumerate(table.schema):
        by_type.setdefault(_wire_type(field), []).append(i)
    index = np.full((rows, table.num_columns), -1, dtype=np.int64)
    tables: list[RaggedBytes] = []
    base = 0
    for wire, columns in by_type.items():
        chunks = [c for i in columns for c in table.column(i).chunks]
        coded = pa.chunked_array(chunks, table.schema.field(columns[0]).type).combine_chunks()
        if not len(coded):
            continue
        coded = coded.dictionary_encode()
        places = pc.fill_null(coded.indices, -1).to_numpy().reshape(len(columns), -1)
        index[:, columns] = np.where(places >= 0, places.astype(np.int64) + base, -1).T
        tables.append(_encode_values(wire, coded.dictionary))
        base += len(coded.dictionary)
    present = index >= 0
    used = np.asarray(present.any(axis=0))
    keys = np.cumsum(used) - 1
    pairs = np.stack([np.broadcast_to(keys, index.shape)[present], index[present]], axis=1)
    tags = encode_varints(pairs.ravel()).group(2 * present.sum(axis=1))
    names = [name for name, use in zip(table.column_names, used.tolist(), strict=True) if use]
    return names, RaggedBytes.below(tables), tags


def _wire_type(field: pa.Field) -> str:
    kind = field.type
    for test, name in (
        (pa.types.is_large_string, "string"),
        (pa.types.is_boolean, "bool"),
        (pa.types.is_int64, "int"),
        (pa.types.is_uint64, "uint"),
        (pa.types.is_float64, "double"),
        (pa.types.is_float32, "float"),
    ):
        if test(kind):
            return name
    raise FormatError(f"attribute {field.name!r} of type {kind} has no place in a vector tile")


def _encode_values(wire: str, values: pa.Array) -> RaggedBytes:
    if wire == "string":
        return _field(0x0A, RaggedBytes.text(values))
    numbers = values.to_numpy(zero_copy_only=False)
    if wire == "double":
        return RaggedBytes.beside(
            [RaggedBytes.constant(b"\x19", len(values)), RaggedBytes.fixed(numbers)]
        )
    if wire == "float":
        return RaggedBytes.beside(
            [RaggedBytes.constant(b"\x15", len(values)), RaggedBytes.fixed(numbers)]
        )
    if wire == "bool":
        return _numbers(0x38, numbers.astype(np.uint64))
    if wire == "uint":
        return _numbers(0x28, numbers)
    # sint costs a bit for the sign, int ten bytes for every negative value.
    negative = numbers < 0
    tags = np.where(negative, np.uint8(0x30), np.uint8(0x20))
    plain = np.where(negative, zigzag(numbers), numbers.view(np.uint64))
    return RaggedBytes.beside([RaggedBytes.fixed(tags), encode_varints(plain)])


def _field(tag: int, rows: RaggedBytes) -> RaggedBytes:
    # A length-delimited field per row.
    head = RaggedBytes.constant(bytes([tag]), len(rows))
    return RaggedBytes.beside([head, encode_varints(rows.lengths.astype(np.uint64)), rows])


def _numbers(tag: int, values: NDArray[np.generic]) -> RaggedBytes:
    head = RaggedBytes.constant(bytes([tag]), len(values))
    return RaggedBytes.beside([head, encode_varints(values.astype(np.uint64))])


def _optional(rows: RaggedBytes, wanted: NDArray[np.bool_]) -> RaggedBytes:
    # Rows that are not wanted become empty.
    kept = rows.take(np.flatnonzero(wanted))
    lengths = np.where(wanted, rows.lengths, 0)
    return RaggedBytes(kept.data, lengths)


def _message(tag: int, pieces: Sequence[bytes]) -> bytes:
    nbytes = sum(len(p) for p in pieces)
    return b"".join([bytes([tag]), encode_varints([nbytes]).tobytes(), *pieces])
