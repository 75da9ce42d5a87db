"""Point Cloud (``.pnts``) of 3D Tiles 1.0, for viewers without 1.1.

Layout, after the 3D Tiles 1.0 specification, "Point Cloud": a header of 28 bytes, then the feature
table and the batch table, each JSON and binary; every part begins on a multiple of eight bytes.
Positions are float32 around a centre, colours 8-bit sRGB, properties one value a point.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.errors import FormatError

MAGIC = b"pnts"
_HEADER = struct.Struct("<4sIIIIII")
_COMPONENTS = {
    "int8": "BYTE",
    "uint8": "UNSIGNED_BYTE",
    "int16": "SHORT",
    "uint16": "UNSIGNED_SHORT",
    "int32": "INT",
    "uint32": "UNSIGNED_INT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}
_DTYPES = {component: np.dtype(name) for name, component in _COMPONENTS.items()}


def encode_pnts(
    ecef: NDArray[np.float64],
    rgb: NDArray[np.uint8] | None,
    columns: Mapping[str, NDArray[Any]],
) -> bytes:
    """Return a pnts.

    Args:
        ecef: (N, 3) Earth-centred metres, at least one point; rounded to single precision around
            the middle of their box.
        rgb: (N, 3) sRGB, or None.
        columns: (N,) numbers of up to 64 bits by property.
    """
    centre = (ecef.min(axis=0) + ecef.max(axis=0)) / 2
    features: dict[str, Any] = {"POINTS_LENGTH": len(ecef), "RTC_CENTER": centre.tolist()}
    feature_binary, batch_binary = bytearray(), bytearray()
    features["POSITION"] = {"byteOffset": _add(feature_binary, (ecef - centre).astype("<f4"))}
    if rgb is not None:
        features["RGB"] = {"byteOffset": _add(feature_binary, rgb)}
    batch = {
        name: {
            "byteOffset": _add(batch_binary, values),
            "componentType": _COMPONENTS[values.dtype.name],
            "type": "SCALAR",
        }
        for name, values in columns.items()
    }
    tables = [
        _json(features, _HEADER.size),
        bytes(feature_binary),
        _json(batch, 0) if batch else b"",
        bytes(batch_binary),
    ]
    lengths = [len(table) for table in tables]
    header = _HEADER.pack(MAGIC, 1, _HEADER.size + sum(lengths), *lengths)
    return b"".join([header, *tables])


def _add(binary: bytearray, values: NDArray[Any]) -> int:
    start = len(binary)
    data = np.ascontiguousarray(values).tobytes()
    binary += data + bytes(-len(data) % 8)
    return start


def _json(document: dict[str, Any], before: int) -> bytes:
    text = orjson.dumps(document)
    return text + b" " * (-(before + len(text)) % 8)


def decode_pnts(
    data: bytes,
) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None, dict[str, NDArray[Any]]]:
    """Return what `encode_pnts` was given, positions as they were rounded.

    Raises:
        FormatError: something else, or cut short.
    """
    try:
        magic, version, total, *lengths = _HEADER.unpack_from(data)
        if magic != MAGIC or version != 1 or total != len(data):
            raise FormatError(f"not a pnts of {len(data)} bytes: {magic!r}, {version}, {total}")
        ends = np.cumsum([_HEADER.size, *lengths]).tolist()
        parts = [data[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        features = orjson.loads(parts[0])
        count = features["POINTS_LENGTH"]

        def read(part: int, at: int, dtype: Any, width: int) -> NDArray[Any]:
            return np.frombuffer(parts[part], dtype, count * width, at).reshape(count, width)

        local = read(1, features["POSITION"]["byteOffset"], "<f4", 3)
        ecef = local.astype(np.float64) + np.array(features["RTC_CENTER"])
        rgb = read(1, features["RGB"]["byteOffset"], np.uint8, 3) if "RGB" in features else None
        columns = {}
        for name, stated in (orjson.loads(parts[2]) if parts[2] else {}).items():
            dtype = _DTYPES[stated["componentType"]]
            columns[name] = read(3, stated["byteOffset"], dtype, 1)[:, 0]
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"not a pnts: {error!r}") from error
    return ecef, rgb, columns
