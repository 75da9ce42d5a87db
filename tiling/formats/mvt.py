"""Mapbox Vector Tiles 2.1: tiles from geometries and tables.

Geometry and attributes are columns until `write_layer` makes bytes of them. Coordinates are tile
units: x to the east, y to the south, 0 .. extent within the tile. Written after
https://github.com/mapbox/vector-tile-spec/blob/master/2.1/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.formats.json_text import json_text
from tiling.formats.mvt_geometry import encode_geometry
from tiling.formats.mvt_layer import EXTENT, code_attributes, message, write_layer
from tiling.formats.ragged import RaggedBytes

__all__ = [
    "BUFFER",
    "EXTENT",
    "LAYER_FIELD",
    "LayerContent",
    "encode_tile",
    "field_types",
    "plain_attributes",
]

BUFFER = 64
LAYER_FIELD = 0x1A


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
        commands, kinds = encode_geometry(layer.geometry)
        present = commands.lengths > 0
        kept.append(present)
        rows = np.flatnonzero(present)
        if len(rows):
            # A row without commands has no bytes among them.
            commands = RaggedBytes(commands.data, commands.lengths[rows])
            coded = code_attributes(layer.attributes, len(present))
            body = write_layer(layer.name, layer.ids[rows], kinds[rows], commands, coded, rows)
            pieces.append(message(LAYER_FIELD, body))
    return b"".join(pieces), kept


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
