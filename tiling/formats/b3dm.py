"""Batched 3D Model (``.b3dm``) of 3D Tiles 1.0: a glb with a batch table, for viewers without 1.1.

Layout, after the 3D Tiles 1.0 specification, "Batched 3D Model": a header of 28 bytes, the feature
table, the batch table, the glb; each begins on a multiple of eight bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from tiling.errors import FormatError

MAGIC = b"b3dm"
_HEADER = struct.Struct("<4sIIIIII")
_GLB_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
_BYTE, _FLOAT = 5120, 5126
# What 3D Tiles 1.0 says elsewhere (the batch table) or what old viewers do not know.
_LATER = ("EXT_mesh_features", "EXT_structural_metadata", "KHR_mesh_quantization")


def encode_b3dm(glb: bytes, batch_table: Mapping[str, Any], batch_length: int) -> bytes:
    """Return a b3dm.

    Args:
        glb: with the attribute ``_BATCHID`` 0 .. `batch_length` - 1; see `batched_glb`.
        batch_table: per property `batch_length` values; lists, or NumPy arrays.
        batch_length: number of features.
    """
    feature_json = _padded(orjson.dumps({"BATCH_LENGTH": batch_length}), _HEADER.size)
    plain = {
        name: values.tolist() if isinstance(values, np.ndarray) else values
        for name, values in batch_table.items()
    }
    batch_json = _padded(orjson.dumps(plain), 0)
    body = glb + b"\0" * (-len(glb) % 8)
    total = _HEADER.size + len(feature_json) + len(batch_json) + len(body)
    header = _HEADER.pack(MAGIC, 1, total, len(feature_json), 0, len(batch_json), 0)
    return header + feature_json + batch_json + body


def decode_b3dm(data: bytes) -> tuple[bytes, dict[str, Any], int]:
    """Return the glb, the batch table and the number of features of a b3dm.

    Raises:
        FormatError: not a b3dm, or one cut short.
    """
    try:
        magic, version, total, feature, feature_bin, batch, batch_bin = _HEADER.unpack_from(data)
        if magic != MAGIC or version != 1 or total != len(data):
            raise FormatError(f"not a b3dm of {len(data)} bytes: {magic!r} {version} {total}")
        start = _HEADER.size
        features = orjson.loads(data[start : start + feature])
        start += feature + feature_bin
        table = orjson.loads(data[start : start + batch]) if batch else {}
        return data[start + batch + batch_bin :], table, int(features["BATCH_LENGTH"])
    except (struct.error, orjson.JSONDecodeError, KeyError) as error:
        raise FormatError(f"not a b3dm: {error}") from error


def batched_glb(glb: bytes) -> bytes:
    """Return a glb of ours as 3D Tiles 1.0 wants it.

    Feature ids become ``_BATCHID``, byte normals become floats (old viewers do not know
    KHR_mesh_quantization), and the property table goes: the batch table replaces it.
    """
    document, binary = _split(glb)
    for mesh in document["meshes"]:
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            attributes["_BATCHID"] = attributes.pop("_FEATURE_ID_0")
            primitive["extensions"].pop("EXT_mesh_features")
            binary = _float_normals(document, attributes["NORMAL"], binary)
            if not primitive["extensions"]:
                del primitive["extensions"]
    document["extensions"].pop("EXT_structural_metadata")
    binary = _drop_unused_views(document, binary)
    for name in ("extensionsUsed", "extensionsRequired"):
        document[name] = [e for e in document.get(name, ()) if e not in _LATER]
    for name in ("extensions", "extensionsUsed", "extensionsRequired"):
        if not document[name]:
            del document[name]
    document["buffers"] = [{"byteLength": len(binary)}]
    return _join(document, binary)


def _float_normals(document: dict[str, Any], index: int, binary: bytes) -> bytes:
    accessor = document["accessors"][index]
    if accessor["componentType"] != _BYTE:
        return binary
    view = document["bufferViews"][accessor["bufferView"]]
    stride = view.get("byteStride", 3)
    raw = np.frombuffer(binary, np.int8, view["byteLength"], view.get("byteOffset", 0))
    raw = np.pad(raw, (0, accessor["count"] * stride - len(raw)))
    normals = raw.reshape(accessor["count"], stride)[:, :3].astype("<f4") / 127
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    binary += b"\0" * (-len(binary) % 8)
    document["bufferViews"].append(
        {"buffer": 0, "byteOffset": len(binary), "byteLength": normals.nbytes}
        | {key: view[key] for key in ("target",) if key in view}
    )
    accessor.pop("normalized", None)
    accessor.pop("byteOffset", None)
    accessor.update(componentType=_FLOAT, bufferView=len(document["bufferViews"]) - 1)
    return binary + normals.tobytes()


def _drop_unused_views(document: dict[str, Any], binary: bytes) -> bytes:
    """Keep the buffer views that accessors name, and the bytes they hold."""
    used = sorted({accessor["bufferView"] for accessor in document["accessors"]})
    packed = bytearray()
    views = []
    for index in used:
        view = document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        packed += b"\0" * (-len(packed) % 8)
        views.append(view | {"byteOffset": len(packed)})
        packed += binary[start : start + view["byteLength"]]
    moved = {old: new for new, old in enumerate(used)}
    for accessor in document["accessors"]:
        accessor["bufferView"] = moved[accessor["bufferView"]]
    document["bufferViews"] = views
    # The buffer is as long as its chunk, which a b3dm wants to be a multiple of eight.
    return bytes(packed) + b"\0" * (-len(packed) % 8)


def _split(glb: bytes) -> tuple[dict[str, Any], bytes]:
    length, kind = _CHUNK.unpack_from(glb, _GLB_HEADER.size)
    start = _GLB_HEADER.size + _CHUNK.size
    if glb[:4] != b"glTF" or kind != b"JSON":
        raise FormatError("not a glb")
    binary = start + length + _CHUNK.size
    return orjson.loads(glb[start : start + length]), glb[binary:]


def _join(document: dict[str, Any], binary: bytes) -> bytes:
    text = orjson.dumps(document)
    text += b" " * ((4 - len(text)) % 8)
    total = _GLB_HEADER.size + 2 * _CHUNK.size + len(text) + len(binary)
    return b"".join(
        [
            _GLB_HEADER.pack(b"glTF", 2, total),
            _CHUNK.pack(len(text), b"JSON"),
            text,
            _CHUNK.pack(len(binary), b"BIN\0"),
            binary,
        ]
    )


def _padded(text: bytes, before: int) -> bytes:
    return text + b" " * (-(before + len(text)) % 8)
