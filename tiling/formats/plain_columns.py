"""Arrow columns brought down to the few types that tile metadata can hold.

Afterwards a column is a number, bool, large_string, or a large_list of those: dates are ISO
texts, structs are flattened, dictionaries decoded. Whole columns at a time, nulls stay nulls.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.errors import TilingError
from tiling.formats.json_text import json_text

NUMBER_TYPES = frozenset(
    {
        *(pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32()),
        *(pa.int64(), pa.uint64(), pa.float32(), pa.float64()),
    }
)


def plain(table: pa.Table) -> pa.Table:
    """Return the table with every column as a number, bool, large_string or list of those.

    Raises:
        TilingError: a column's type has no counterpart (maps, lists of them).
    """
    while any(pa.types.is_struct(f.type) for f in table.schema):
        table = table.flatten()
    columns = [_plain_column(name, table.column(i)) for i, name in enumerate(table.column_names)]
    return pa.table(dict(_named(table.column_names, columns)))


def _named(
    names: list[str], columns: list[pa.ChunkedArray]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield (name, column); a name that occurs again gets a numbered suffix."""
    seen: set[str] = set()
    for name, column in zip(names, columns, strict=True):
        yield unique_name(name, seen), column


def unique_name(name: str, seen: set[str]) -> str:
    """Return `name`, numbered if it was seen before, and remember it in `seen`."""
    candidate, number = name, 2
    while candidate in seen:
        candidate, number = f"{name}_{number}", number + 1
    seen.add(candidate)
    return candidate


def _plain_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain_column(name, column.cast(kind.value_type))
    if _is_list(kind):
        if _is_list(kind.value_type) or pa.types.is_struct(kind.value_type):
            return pa.chunked_array([json_text(_combined(column))])
        lists = _combined(column.cast(pa.large_list(kind.value_type)))
        items = _plain_column(name, pa.chunked_array([lists.values]))
        flat = items.combine_chunks()
        offsets = lists.offsets
        return pa.chunked_array(
            [pa.LargeListArray.from_arrays(offsets, flat, mask=lists.is_null())]
        )
    if kind in NUMBER_TYPES or pa.types.is_boolean(kind):
        return column
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.large_string())
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64() if kind.precision <= 15 else pa.large_string())
    if pa.types.is_temporal(kind):
        return _iso_text(column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _hex_text(column)
    raise _unsupported(name, kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _combined(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    # Arrow gives back a chunked array of no chunks as it is.
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _unsupported(name: str, kind: pa.DataType) -> TilingError:
    return TilingError(
        f"attribute {name!r} is of type {kind}, which 3D Tiles metadata cannot hold; "
        "turn it into text (JSON) or leave it out"
    )


def _iso_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    suffix = ""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column, suffix = column.cast(pa.timestamp(column.type.unit, tz="UTC")), "Z"
        column = column.cast(pa.timestamp(column.type.unit))
    text = column.cast(pa.large_string())
    text = pc.replace_substring(text, " ", "T")
    # Arrow prints all digits of the unit; a fraction of zeros says nothing.
    text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
    text = pc.replace_substring_regex(text, r"\.$", "")
    joined: pa.ChunkedArray = pc.binary_join_element_wise(
        text, pa.scalar(suffix, pa.large_string()), pa.scalar("", pa.large_string())
    )
    return joined


def _hex_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    array = column.cast(pa.large_binary()).combine_chunks()
    offsets, values = text_parts(array)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.stack([digits[values >> 4], digits[values & 15]], axis=1).tobytes()
    return pa.chunked_array(
        [
            pa.LargeStringArray.from_buffers(
                len(array),
                pa.py_buffer((2 * offsets).astype(np.int64)),
                pa.py_buffer(text),
                _validity(array),
                array.null_count,
            )
        ]
    )


def _validity(array: pa.Array) -> pa.Buffer | None:
    if not array.null_count:
        return None
    bits = np.packbits(np.asarray(array.is_valid()), bitorder="little")
    return pa.py_buffer(bits.tobytes())


def text_parts(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return (N + 1,) int64 offsets from zero and the uint8 bytes of a large string array."""
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[
        array.offset : array.offset + len(array) + 1
    ]
    if not len(array):
        return np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint8)
    values = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, np.uint8)
    return offsets - offsets[0], values[offsets[0] : offsets[-1]]
