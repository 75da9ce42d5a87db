"""Contents of 3D Tiles made elsewhere: b3dm, i3dm, cmpt, pnts, glb and glTF, by their shape.

One idea: a content is sound when every length it claims lies inside of it, and what it points to
is returned for the caller to look for. Nothing is decoded that a viewer decodes by itself (Draco,
KTX 2, ...). Tiles of 3D Tiles 1.0 are read by py3dtiles besides, as a second opinion.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, field
from typing import Any

import orjson

from tiling.errors import FormatError

_COMPONENT_NBYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_COLUMNS = {"MAT2": 2, "MAT3": 3, "MAT4": 4}
_TABLES = struct.Struct("<4s6I")  # magic, version, bytes, feature JSON, binary, batch JSON, binary
_MAX_DEPTH = 16


@dataclass(slots=True)
class Content:
    """What a content is.

    Attributes:
        format: ``b3dm``, ``i3dm``, ``cmpt``, ``pnts``, ``glb``, ``gltf`` or ``tileset``.
        uris: files it needs, as it names them.
        document: of a ``tileset``, its JSON.
        doubts: what a viewer may stumble over.
        features: number of features that it tells apart, instances or points.
    """

    format: str
    uris: list[str] = field(default_factory=list)
    document: dict[str, Any] | None = None
    doubts: list[str] = field(default_factory=list)
    features: int = 0


def read_content(data: bytes, depth: int = 0, second_opinion: bool = False) -> Content:
    """Read a content by what it begins with, not by its name.

    Args:
        data: decoded bytes.
        depth: how many composites it lies in.
        second_opinion: let py3dtiles read b3dm and pnts too; takes 200 times as long.

    Raises:
        FormatError: it is none of them, truncated, or points outside of itself.
    """
    magic = data[:4]
    if magic == b"glTF":
        return _glb(data)
    if magic in (b"b3dm", b"i3dm", b"pnts"):
        content, end = _tables(data, magic.decode())
        if second_opinion:
            _second_opinion(data[:end], content)
        return content
    if magic == b"cmpt":
        return _composite(data, depth)
    if not data:
        raise FormatError("the file is empty")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return _json(data)
    raise FormatError(
        f"it begins with {magic!r}: neither b3dm, i3dm, cmpt, pnts, glb, glTF nor a tileset"
    )


def parse_json(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return a JSON object and what is doubtful about its text.

    Raises:
        FormatError: not JSON in UTF-8, or no object.
    """
    doubts = []
    if data.startswith(b"\xef\xbb\xbf"):
        doubts.append("the JSON begins with a byte order mark, which the standard forbids")
        data = data[3:]
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"not JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise FormatError(f"JSON, but no object: {type(document).__name__}")
    return document, doubts


def _json(data: bytes) -> Content:
    document, doubts = parse_json(data)
    if "root" in document or "geometricError" in document:
        return Content("tileset", document=document, doubts=doubts)
    if isinstance(document.get("asset"), dict):
        content = Content("gltf", doubts=doubts)
        _gltf(document, None, content)
        return content
    raise FormatError("JSON, but neither a tileset nor glTF")


def _header(data: bytes, nbytes: int) -> int:
    """Return the length that a tile of 3D Tiles 1.0 claims."""
    if len(data) < nbytes:
        raise FormatError(f"truncated: {len(data)} bytes are no header of {nbytes}")
    version, claimed = struct.unpack_from("<2I", data, 4)
    if version != 1:
        raise FormatError(f"version {version} of {data[:4].decode()} is not known")
    if not nbytes <= claimed <= len(data):
        raise FormatError(f"truncated: it claims {claimed} bytes and has {len(data)}")
    return int(claimed)


def _tables(data: bytes, kind: str) -> tuple[Content, int]:
    """Read b3dm, i3dm and pnts: two tables, and for the first two a model; and where it ends."""
    start = 32 if kind == "i3dm" else 28
    end = _header(data, start)
    content = Content(kind)
    if end < len(data):
        content.doubts.append("bytes follow the end that the header claims")
    elif end % 8:
        content.doubts.append("its length is no multiple of 8 bytes")
    lengths = _TABLES.unpack_from(data)[3:]
    if start + sum(lengths) > end:
        raise FormatError(f"its tables of {sum(lengths)} bytes are longer than its {end} bytes")
    table = _table(data[start : start + lengths[0]], "feature table")
    binary = start + lengths[0] + lengths[1]
    _table(data[binary : binary + lengths[2]], "batch table")
    body = data[start + sum(lengths) : end]
    count = {"b3dm": "BATCH_LENGTH", "i3dm": "INSTANCES_LENGTH", "pnts": "POINTS_LENGTH"}[kind]
    number = table.get(count, 0 if kind == "b3dm" else None)
    if not isinstance(number, int) or number < 0:
        raise FormatError(f"{count} is {number!r}, not a number of features")
    content.features = number
    if kind == "pnts":
        _points(table, number, lengths[1])
    elif kind == "i3dm" and struct.unpack_from("<I", data, 28)[0] == 0:
        content.uris.append(_text(body))
    else:
        if (len(data) - len(body) - (len(data) - end)) % 8:
            content.doubts.append("its model does not begin at a multiple of 8 bytes")
        _merge(content, _model(body, content))
    return content, end


def _table(text: bytes, what: str) -> dict[str, Any]:
    if not text.strip(b" \0"):
        return {}
    try:
        return parse_json(text.rstrip(b"\0"))[0]
    except FormatError as error:
        raise FormatError(f"its {what} is damaged: {error}") from error


def _text(body: bytes) -> str:
    try:
        return body.rstrip(b"\0 ").decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the address of its model is not UTF-8: {body[:80]!r}") from error


def _points(table: dict[str, Any], count: int, nbytes: int) -> None:
    widths = {"POSITION": 12, "POSITION_QUANTIZED": 6, "RGB": 3, "RGBA": 4, "NORMAL": 12}
    if "3DTILES_draco_point_compression" in (table.get("extensions") or {}):
        return
    if "POSITION" not in table and "POSITION_QUANTIZED" not in table:
        raise FormatError("points without POSITION or POSITION_QUANTIZED")
    for name, width in widths.items():
        if name in table:
            offset = table[name].get("byteOffset") if isinstance(table[name], dict) else None
            if not isinstance(offset, int) or offset < 0 or offset + width * count > nbytes:
                raise FormatError(f"{name} of {count} points leaves its {nbytes} bytes")


def _model(body: bytes, content: Content) -> Content:
    if body[:4] != b"glTF":
        raise FormatError(f"its model begins with {body[:4]!r}, not with glTF")
    length = struct.unpack_from("<I", body.ljust(12, b"\0"), 8)[0]
    if length < len(body):
        # Padding to 8 bytes, which old exporters did not count.
        if len(body) - length >= 8:
            content.doubts.append("bytes follow its model")
        body = body[:length]
    return _glb(body)


def _merge(content: Content, part: Content) -> None:
    content.uris += part.uris
    content.doubts += part.doubts


def _composite(data: bytes, depth: int) -> Content:
    end = _header(data, 16)
    if depth > _MAX_DEPTH:
        raise FormatError(f"composites inside of each other more than {_MAX_DEPTH} times")
    content = Content("cmpt")
    position = 16
    for number in range(struct.unpack_from("<I", data, 12)[0]):
        if position + 12 > end:
            raise FormatError(f"truncated at its part {number}")
        length = struct.unpack_from("<I", data, position + 8)[0]
        if length < 12 or position + length > end:
            raise FormatError(f"its part {number} claims {length} bytes and has {end - position}")
        part = read_content(data[position : position + length], depth + 1)
        _merge(content, part)
        content.features += part.features
        position += length
    return content


def _glb(data: bytes) -> Content:
    content = Content("glb")
    if len(data) < 20:
        raise FormatError(f"truncated: {len(data)} bytes are no glb")
    _, version, length = struct.unpack_from("<4sII", data)
    if version == 1:
        content.doubts.append("its model is glTF 1.0, which many viewers no longer read")
        return content
    if version != 2:
        raise FormatError(f"version {version} of glTF is not known")
    if length > len(data):
        raise FormatError(f"truncated: its model claims {length} bytes and has {len(data)}")
    if length < len(data):
        content.doubts.append("bytes follow its model")
    chunks, position = [], 12
    while position + 8 <= length:
        nbytes, kind = struct.unpack_from("<I4s", data, position)
        if position + 8 + nbytes > length:
            raise FormatError(f"truncated: a chunk claims {nbytes} bytes at {position}")
        chunks.append((kind, data[position + 8 : position + 8 + nbytes]))
        position += 8 + nbytes
    if not chunks or chunks[0][0] != b"JSON":
        raise FormatError("the first chunk of its model is not JSON")
    binary = chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None
    document, doubts = parse_json(chunks[0][1])
    content.doubts += doubts
    _gltf(document, binary, content)
    return content


def _gltf(document: dict[str, Any], binary: bytes | None, content: Content) -> None:
    """Check that views lie in their buffers and accessors in their views; collect addresses."""
    try:
        version = str(document["asset"]["version"])
        if version.split(".")[0] != "2":
            content.doubts.append(f"its model is glTF {version}, which many viewers do not read")
            return
        _buffers(document, binary, content)
        for image in document.get("images", []):
            if "uri" in image and not image["uri"].startswith("data:"):
                content.uris.append(image["uri"])
        schema = document.get("extensions", {}).get("EXT_structural_metadata", {})
        if "schemaUri" in schema:
            content.uris.append(schema["schemaUri"])
        meshes = document.get("meshes", [])
        for node in document.get("nodes", []):
            if "mesh" in node:
                meshes[node["mesh"]]["primitives"][0]["attributes"].keys()
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"its model is damaged: {error!r}") from error


def _buffers(document: dict[str, Any], binary: bytes | None, content: Content) -> None:
    buffers, views = document.get("buffers", []), document.get("bufferViews", [])
    for index, buffer in enumerate(buffers):
        if "uri" in buffer:
            if not buffer["uri"].startswith("data:"):
                content.uris.append(buffer["uri"])
        elif index == 0 and binary is not None and buffer["byteLength"] > len(binary):
            raise FormatError(f"a buffer of {buffer['byteLength']} bytes, of which {len(binary)}")
    for view in views:
        end = view.get("byteOffset", 0) + view["byteLength"]
        if view.get("byteOffset", 0) < 0 or end > buffers[view["buffer"]]["byteLength"]:
            raise FormatError(f"a buffer view leaves its buffer: {view}")
    for accessor in document.get("accessors", []):
        if "bufferView" not in accessor:
            continue
        view = views[accessor["bufferView"]]
        size = _COMPONENT_NBYTES[accessor["componentType"]]
        width = size * _COMPONENTS[accessor["type"]]
        if accessor["type"] in _COLUMNS:  # columns of matrices begin at multiples of 4
            columns = _COLUMNS[accessor["type"]]
            width = columns * -(-(width // columns) // 4) * 4
        stride = view.get("byteStride", width)
        used = accessor.get("byteOffset", 0) + (accessor["count"] - 1) * stride + width
        if accessor["count"] < 1 or used > view["byteLength"]:
            raise FormatError(f"an accessor leaves its buffer view: {accessor}")


def _second_opinion(data: bytes, content: Content) -> None:
    """Let py3dtiles read b3dm and pnts; what it refuses beyond our own reading is a doubt."""
    if content.format == "i3dm" or any("glTF 1" in doubt for doubt in content.doubts):
        return
    # Takes a second to import, and only those who import old tilesets need it.
    from py3dtiles.exceptions import Py3dtilesException
    from py3dtiles.tileset.content import B3dm, Pnts

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (B3dm if content.format == "b3dm" else Pnts).from_bytes(data)
    except (
        Py3dtilesException, ValueError, KeyError, IndexError, TypeError, AttributeError,
        struct.error, NotImplementedError,
    ) as error:  # fmt: skip
        content.doubts.append(f"py3dtiles does not read it: {type(error).__name__}: {error}"[:200])
