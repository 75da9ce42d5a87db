"""Nested Arrow columns as JSON text, a column at a time.

Formats without lists and structures (vector tiles, Shapefile) carry them as text; every level of
nesting is one pass of Arrow kernels, never a loop over rows.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

_ESCAPES = [("\\", "\\\\"), ('"', '\\"')] + [(chr(c), json.dumps(chr(c))[1:-1]) for c in range(32)]
_NULL = pa.scalar("null", pa.large_string())
_CONTROL = r"[\x00-\x1f]"


def json_text(array: pa.Array) -> pa.Array:
    """Return one JSON text per row.

    Args:
        array: (N,) of any nesting of lists and structs over numbers, strings, booleans, dates.

    Returns:
        (N,) large_string; null rows stay null. Numbers that JSON lacks (NaN, inf) become null.
    """
    return pc.if_else(pc.is_valid(array), _tokens(array), pa.scalar(None, pa.large_string()))


def _tokens(array: pa.Array) -> pa.Array:
    # Every row a JSON token, nulls included.
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _tokens(array.dictionary_decode())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        tokens = _list(array)
    elif pa.types.is_struct(kind):
        tokens = _struct(array)
    elif pa.types.is_floating(kind):
        text = pc.cast(array, pa.large_string())
        tokens = pc.if_else(pc.is_finite(array), text, pa.scalar(None, pa.large_string()))
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        tokens = pc.cast(array, pa.large_string())
    else:
        tokens = _quoted(pc.cast(array, pa.large_string()))
    # Null rows of lists and structs have tokens by now, too: those of an empty value.
    return pc.if_else(pc.is_valid(array), _known(tokens), _NULL)


def _known(tokens: pa.Array) -> pa.Array:
    return pc.fill_null(tokens, _NULL)


def _quoted(text: pa.Array) -> pa.Array:
    special = _ESCAPES if pc.any(pc.match_substring_regex(text, _CONTROL)).as_py() else _ESCAPES[:2]
    for plain, escaped in special:
        text = pc.replace_substring(text, plain, escaped)
    return _join('"', text, '"')


def _list(array: pa.Array) -> pa.Array:
    # Rebuilt from lengths, because slices and null rows keep values that belong to nobody.
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = pa.concat_arrays(
        [pa.array([0], pa.int64()), pc.cumulative_sum(pc.cast(lengths, pa.int64()))]
    )
    rows = pa.LargeListArray.from_arrays(offsets, _tokens(pc.list_flatten(array)))
    joined = pc.binary_join(rows, pa.scalar(",", pa.large_string()))
    return _join("[", joined, "]")


def _struct(array: pa.Array) -> pa.Array:
    members: list[pa.Array | str] = ["{"]
    for i, field in enumerate(array.type):
        name = json.dumps(field.name, ensure_ascii=False)
        value = _tokens(pc.struct_field(array, [i]))
        members += [f"{',' if i else ''}{name}:", value]
    if len(members) == 1:
        return pa.array(["{}"] * len(array), pa.large_string())
    return _join(*members, "}")


def _join(*pieces: pa.Array | str) -> pa.Array:
    # Arrow joins only what has one width of string.
    wide = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in (*pieces, "")]
    return pc.binary_join_element_wise(*wide)
