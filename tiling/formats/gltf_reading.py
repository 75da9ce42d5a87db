"""A glb read back with the eyes of a client: its own small decoder, sharing nothing with encoders.

Reads what 3D Tiles content of features needs: node matrices, positions, indices, feature ids,
property tables. Everything that points outside of the file is an error, never a guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats import meshopt
from tiling.formats.extent import axis_range, placed

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_Y_UP_TO_Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MESHOPT = "EXT_meshopt_compression"
# What Python raises where a document holds other things than it should: among them nodes that
# are their own children, and numbers too large for any array.
DAMAGE = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    OverflowError,
)
_NUMBERS = {
    "INT8": "<i1",
    "UINT8": "<u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "FLOAT32": "<f4",
    "FLOAT64": "<f8",
}


@dataclass(frozen=True, slots=True)
class Primitive:
    """Triangles as a client sees them.

    Attributes:
        ecef: (V, 3) float64, Earth-centred metres.
        triangles: (T, 3) int64.
        feature_ids: (V,) int64, or None.
        feature_count: declared number of features, 0 without feature ids.
    """

    ecef: NDArray[np.float64]
    triangles: NDArray[np.int64]
    feature_ids: NDArray[np.int64] | None
    feature_count: int


class Glb:
    """A parsed glb.

    Raises:
        FormatError: the bytes are not a glb, or one that points outside of itself.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self.document, self._binary = _split(data)
        except (struct.error, orjson.JSONDecodeError) as error:
            raise FormatError(f"not a glb: {error}") from error

    def primitives(self) -> list[Primitive]:
        """Return every primitive of the default scene, in Earth-centred coordinates."""
        with _guard("mesh"):
            scene = self.document["scenes"][self.document.get("scene", 0)]
            found: list[Primitive] = []
            for node in scene["nodes"]:
                self._visit(node, np.eye(4), found)
            return found

    def _visit(self, index: int, above: NDArray[np.float64], found: list[Primitive]) -> None:
        node = self.document["nodes"][index]
        if {"translation", "rotation"} & node.keys():
            raise FormatError(f"node {index} is placed by translation or rotation")
        matrix = above @ np.array(node.get("matrix", np.eye(4).ravel())).reshape(4, 4).T
        matrix = matrix @ np.diag([*node.get("scale", (1.0, 1.0, 1.0)), 1.0])
        if "mesh" in node:
            for primitive in self.document["meshes"][node["mesh"]]["primitives"]:
                found.append(self._primitive(primitive, matrix))
        for child in node.get("children", []):
            self._visit(child, matrix, found)

    def _primitive(self, primitive: dict[str, Any], matrix: NDArray[np.float64]) -> Primitive:
        attributes = primitive["attributes"]
        local = self._accessor(attributes["POSITION"]).astype(np.float64)
        self._check_range(attributes["POSITION"], local)
        # glTF is y-up, tiles are z-up: clients turn (x, y, z) into (x, -z, y).
        ecef = placed(local, _Y_UP_TO_Z_UP @ matrix)
        indices = self._accessor(primitive["indices"]).astype(np.int64)
        if len(indices) % 3 or (len(indices) and indices.max() >= len(local)):
            raise FormatError(f"{len(indices)} indices do not fit {len(local)} vertices")
        ids, count = None, 0
        features = primitive.get("extensions", {}).get("EXT_mesh_features")
        if features is not None:
            declared = features["featureIds"][0]
            count = int(declared["featureCount"])
            ids = self.feature_ids(attributes[f"_FEATURE_ID_{declared['attribute']}"])
            if len(ids) != len(local):
                raise FormatError(f"{len(ids)} feature ids for {len(local)} vertices")
        return Primitive(ecef, indices.reshape(-1, 3), ids, count)

    def _check_range(self, index: int, local: NDArray[np.float64]) -> None:
        declared = self.document["accessors"][index]
        if local.ndim != 2 or local.shape[1] != 3 or not np.isfinite(local).all():
            raise FormatError("positions are not three finite numbers each")
        low, high = axis_range(local)
        if not (np.array_equal(low, declared["min"]) and np.array_equal(high, declared["max"])):
            raise FormatError("the accessor's min and max are not those of its positions")

    def accessor(self, index: int) -> NDArray[Any]:
        """Return the elements of an accessor: (N,) or (N, width).

        Raises:
            FormatError: it points outside of the file.
        """
        with _guard("accessor"):
            return self._accessor(index)

    def _accessor(self, index: int) -> NDArray[Any]:
        accessor = self.document["accessors"][index]
        view = self.document["bufferViews"][accessor["bufferView"]]
        data = self._view(accessor["bufferView"])
        dtype = np.dtype(_DTYPES[accessor["componentType"]])
        if accessor["count"] < 1:
            raise FormatError(f"accessor {index} has no element")
        width, count = _WIDTHS[accessor["type"]], accessor["count"]
        stride = view.get("byteStride", width * dtype.itemsize)
        start = accessor.get("byteOffset", 0)
        if start + stride * (count - 1) + width * dtype.itemsize > len(data):
            raise FormatError(f"accessor {index} is longer than its buffer view")
        values: NDArray[Any] = np.ndarray(
            (count, width), dtype, data, start, (stride, dtype.itemsize)
        )
        return values[:, 0] if width == 1 else values

    def feature_ids(self, index: int) -> NDArray[np.int64]:
        """Return the elements of an accessor of feature ids, (N,), from 0 to 2**32 - 1.

        Raises:
            FormatError: it points outside of the file, or these are no feature ids.
        """
        given = self.accessor(index)
        # Single-precision floats are allowed, and what is not a number is not in the range either.
        if given.ndim != 1 or not ((given >= 0) & (given < 2**32)).all():
            raise FormatError(f"accessor {index} does not hold feature ids")
        return given.astype(np.int64)

    def view(self, index: int) -> bytes:
        """Return the bytes of a buffer view.

        Raises:
            FormatError: it points outside of the file.
        """
        with _guard("buffer view"):
            return self._view(index)

    def _view(self, index: int, alignment: int = 1) -> bytes:
        view = self.document["bufferViews"][index]
        if _MESHOPT in view.get("extensions", {}):
            return self._decoded(view["extensions"][_MESHOPT], view["byteLength"])
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if start + length > len(self._binary) or start % alignment:
            raise FormatError(
                f"buffer view {index} is misaligned or longer than its buffer: {view}"
            )
        return self._binary[start : start + length]

    def _decoded(self, extension: dict[str, Any], nbytes: int) -> bytes:
        start, length = extension.get("byteOffset", 0), extension["byteLength"]
        count, stride, mode = extension["count"], extension["byteStride"], extension["mode"]
        if extension["buffer"] != 0 or start + length > len(self._binary):
            raise FormatError("compressed data is longer than its buffer")
        if count * stride != nbytes or extension.get("filter", "NONE") != "NONE":
            raise FormatError(f"compressed data of {count} × {stride} bytes for {nbytes}")
        # Sixteen elements take at least a quarter byte for each of their bytes: nothing expands
        # without bounds.
        if nbytes > 4096 * max(length, 1):
            raise FormatError(f"{length} compressed bytes claim to be {nbytes}")
        data = self._binary[start : start + length]
        if mode == meshopt.ATTRIBUTES:
            return meshopt.decode_attributes(data, count, stride).tobytes()
        dtype = {2: "<u2", 4: "<u4"}[stride]
        if mode == meshopt.TRIANGLES:
            indices = meshopt.decode_triangles(data, count // 3).reshape(-1)
        else:
            indices = meshopt.decode_indices(data, count)
        if len(indices) and indices.max() > np.iinfo(dtype).max:
            raise FormatError("a compressed index is larger than its type")
        return indices.astype(dtype).tobytes()

    def features(self) -> tuple[int, dict[str, NDArray[Any]]]:
        """Return the row count of the first property table and its columns by property id.

        Null is None in object columns; number columns without nulls keep their type.
        """
        with _guard("property table"):
            extension = self.document.get("extensions", {}).get("EXT_structural_metadata")
            if extension is None:
                return 0, {}
            table = extension["propertyTables"][0]
            enums = extension["schema"].get("enums", {})
            properties = extension["schema"]["classes"][table["class"]]["properties"]
            columns = {
                name: self._column(properties[name], entry, table["count"], enums)
                for name, entry in table["properties"].items()
            }
            absent = [n for n, p in properties.items() if p.get("required") and n not in columns]
            if absent:
                raise FormatError(f"required properties are absent: {absent}")
            return int(table["count"]), columns

    def _column(
        self, prop: dict[str, Any], entry: dict[str, Any], count: int, enums: dict[str, Any]
    ) -> NDArray[Any]:
        offsets = None
        length = count
        if prop.get("array") and "count" not in prop:
            kind = entry.get("arrayOffsetType", "UINT32")
            offsets = self._offsets(entry["arrayOffsets"], count, kind)
            length = int(offsets[-1])
        values = self._values(prop, entry, length, enums)
        if offsets is not None:
            parts = np.split(values, offsets[1:-1]) if count else []
            values = np.fromiter((part.tolist() for part in parts), dtype=object, count=count)
        if "noData" not in prop:
            return values
        column = values.astype(object)
        column[np.array([value == prop["noData"] for value in column], dtype=bool)] = None
        return column

    def _values(
        self, prop: dict[str, Any], entry: dict[str, Any], length: int, enums: dict[str, Any]
    ) -> NDArray[Any]:
        data = self._view(entry["values"], alignment=8)
        if prop["type"] == "STRING":
            kind = entry.get("stringOffsetType", "UINT32")
            offsets = self._offsets(entry["stringOffsets"], length, kind)
            if int(offsets[-1]) > len(data):
                raise FormatError("string offsets point behind the strings")
            texts = [data[a:b].decode() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
            return np.array([*texts, None], dtype=object)[:-1]
        if prop["type"] == "BOOLEAN":
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            if len(bits) < length:
                raise FormatError(f"{len(bits)} bits for {length} features")
            return bits[:length].astype(bool)
        if prop["type"] == "ENUM":
            enum = enums[prop["enumType"]]
            names = {value["value"]: value["name"] for value in enum["values"]}
            numbers = np.frombuffer(data, _NUMBERS[enum.get("valueType", "UINT16")])
            if len(numbers) != length:
                raise FormatError(f"{len(numbers)} values for {length} features")
            return np.array([*(names[number] for number in numbers.tolist()), None], object)[:-1]
        if prop["type"] != "SCALAR":
            raise FormatError(f"property type {prop['type']} is not known here")
        dtype = np.dtype(_NUMBERS[prop["componentType"]])
        # A view of no values still has a byte: glTF allows no empty ones.
        values = np.frombuffer(data, dtype) if length else np.empty(0, dtype)
        if len(values) != length:
            raise FormatError(f"{len(values)} values for {length} features")
        return values

    def _offsets(self, view: int, count: int, kind: str) -> NDArray[np.int64]:
        offsets = np.frombuffer(self._view(view, alignment=8), _NUMBERS[kind]).astype(np.int64)
        if len(offsets) != count + 1 or (np.diff(offsets) < 0).any():
            raise FormatError("offsets are too few or decrease")
        return offsets


class _guard:
    """Turns what a damaged document makes Python raise into a `FormatError`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, DAMAGE):
            raise FormatError(f"the {self.what} of a glb is damaged: {error!r}") from error


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2 or length != len(data):
        raise FormatError(f"not a glb of {len(data)} bytes: {magic!r} {version} {length}")
    json_length, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON" or 20 + json_length > length:
        raise FormatError("the first chunk of a glb is not JSON")
    document = orjson.loads(data[20 : 20 + json_length])
    if not isinstance(document, dict):
        raise FormatError("the JSON of a glb is not an object")
    binary_length, kind = struct.unpack_from("<I4s", data, 20 + json_length)
    start = 28 + json_length
    if kind != b"BIN\0" or start + binary_length != length:
        raise FormatError("the second chunk of a glb is not its binary")
    if length % 8 or start % 8:
        raise FormatError(f"a glb of {length} bytes whose binary starts at {start}: not aligned")
    return document, data[start:]
