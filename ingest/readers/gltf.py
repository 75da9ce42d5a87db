"""glTF 2.0 and glb as models: one part for each node that shows a mesh.

Textures keep the bytes they have. Compressed geometry (Draco, meshopt) is refused with a remedy;
whatever lies outside of the file's own folder is never read.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.parts import WHITE, Beside, Model, Part, texture
from tiling.errors import FormatError, SourceUnreadable
from tiling.findings import Findings
from tiling.formats.primitive import Texture
from tiling.validate.contents import parse_json, read_content

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_UNREADABLE = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu")


def read_gltf(path: Path, findings: Findings) -> Model:
    """Read a model.

    Raises:
        SourceUnreadable: damaged, compressed, or without triangles.
    """
    data = path.read_bytes()
    try:
        read_content(data)
        parts, images, files = _Reading(path, data, findings).model()
    except FormatError as error:
        raise SourceUnreadable(str(error), source=path, remedy="export it again") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise SourceUnreadable(
            f"it is damaged: {error!r}", source=path, remedy="export it again"
        ) from error
    if not parts:
        raise SourceUnreadable("no node shows triangles", source=path, remedy="export it again")
    return Model(parts, images, files)


class _Reading:
    """One file while it is read."""

    def __init__(self, path: Path, data: bytes, findings: Findings) -> None:
        self.beside = Beside(path, findings)
        self.findings = findings
        self.binary = b""
        text = data
        if data[:4] == b"glTF":
            (nbytes,) = struct.unpack_from("<I", data, 12)
            text = data[20 : 20 + nbytes]
            if len(data) >= 28 + nbytes:
                (length,) = struct.unpack_from("<I", data, 20 + nbytes)
                self.binary = data[28 + nbytes : 28 + nbytes + length]
        self.document = parse_json(text)[0]
        required = [n for n in self.document.get("extensionsRequired", []) if n in _UNREADABLE]
        if required:
            raise SourceUnreadable(
                f"it is compressed by {', '.join(required)}",
                source=path,
                remedy="export it without compression",
            )
        self.buffers: dict[int, bytes] = {}
        self.images: list[Texture] = []
        self.image_of: dict[int, int] = {}

    def model(self) -> tuple[list[Part], list[Texture], list[Path]]:
        parts = [part for node, matrix in self._nodes() for part in self._part(node, matrix)]
        return parts, self.images, self.beside.files

    def _nodes(self) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
        """Yield every node of the scene that has a mesh, with its matrix."""
        nodes = self.document.get("nodes", [])
        scenes = self.document.get("scenes")
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        else:
            children = {c for node in nodes for c in node.get("children", [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        seen: set[int] = set()
        pending = [(index, np.eye(4)) for index in reversed(roots)]
        while pending:
            index, above = pending.pop()
            if index in seen:
                raise FormatError(f"node {index} has two parents, or is its own")
            seen.add(index)
            node = nodes[index]
            matrix = above @ _matrix(node)
            if "mesh" in node:
                yield node, matrix
            pending.extend((child, matrix) for child in reversed(node.get("children", [])))

    def _part(self, node: dict[str, Any], matrix: NDArray[np.float64]) -> Iterator[Part]:
        mesh = self.document["meshes"][node["mesh"]]
        pieces = [p for each in mesh["primitives"] for p in self._primitive(each)]
        if not pieces:
            return
        offset, vertices, triangles = 0, [], []
        for points, faces, *_ in pieces:
            vertices.append(points @ matrix[:3, :3].T + matrix[:3, 3])
            triangles.append(faces + offset)
            offset += len(points)
        turned = np.concatenate(triangles)
        if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns triangles inside out
            turned = turned[:, [0, 2, 1]]
        colors, uv, image = (np.concatenate([p[i] for p in pieces]) for i in (2, 3, 4))
        if np.linalg.det(matrix[:3, :3]) < 0:
            uv = uv[:, [0, 2, 1]]
        names = tuple(dict.fromkeys(p[5] for p in pieces if p[5]))
        name = str(node.get("name") or mesh.get("name") or "")
        yield Part(name, names, np.concatenate(vertices), turned, colors, uv, image)

    def _primitive(self, primitive: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_TRIANGLES, _STRIP, _FAN):
            self.findings.add("primitive-dropped", "drop", "points and lines of models")
            return
        attributes = primitive["attributes"]
        points = self._accessor(attributes["POSITION"]).astype(np.float64)
        if not np.isfinite(points).all():
            raise FormatError("a vertex is not a finite number")
        index = np.arange(len(points))
        if "indices" in primitive:
            index = self._accessor(primitive["indices"])[:, 0].astype(np.int64)
        faces = _triangles(index, mode)
        if len(faces) and faces.max() >= len(points):
            raise FormatError(f"a triangle names vertex {faces.max()} of {len(points)}")
        material: dict[str, Any] = {}
        if "material" in primitive:
            material = self.document["materials"][primitive["material"]]
        factor, image, info = self._material(material)
        tints = np.broadcast_to(factor, (len(faces), 4))
        if "COLOR_0" in attributes:
            shade = np.ones((len(points), 4))
            found = self._accessor(attributes["COLOR_0"])
            shade[:, : found.shape[1]] = found
            tints = tints * shade[faces].mean(axis=1)
        uv = np.zeros((len(faces), 3, 2), np.float32)
        coordinates = f"TEXCOORD_{info.get('texCoord', 0)}"
        if image >= 0 and coordinates in attributes:
            uv = _moved(self._accessor(attributes[coordinates]), info)[faces].astype(np.float32)
        else:
            image = -1
        colors = np.rint(np.clip(tints, 0, 1) * 255).astype(np.uint8)
        images = np.full(len(faces), image, np.int32)
        yield points, faces, colors, uv, images, str(material.get("name", ""))

    def _material(
        self, material: dict[str, Any]
    ) -> tuple[NDArray[np.float64], int, dict[str, Any]]:
        """Return linear RGBA of 0 to 1, the image, and how its coordinates are meant."""
        old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        pbr = material.get("pbrMetallicRoughness", {})
        factor = pbr.get("baseColorFactor", [1.0] * 4)
        info = pbr.get("baseColorTexture")
        if old is not None and not pbr:
            factor, info = old.get("diffuseFactor", factor), old.get("diffuseTexture")
        color = np.array(factor, np.float64)
        if color.shape != (len(WHITE),) or not np.isfinite(color).all():
            raise FormatError(f"the colour of a material is {factor!r}")
        if info is None:
            return color, -1, {}
        described = self.document["textures"][info["index"]]
        webp = described.get("extensions", {}).get("EXT_texture_webp", {})
        source = described.get("source", webp.get("source"))
        return color, -1 if source is None else self._image(source), info

    def _image(self, index: int) -> int:
        if index not in self.image_of:
            described = self.document["images"][index]
            if "bufferView" in described:
                data: bytes | None = self._view(described["bufferView"])[0]
            else:
                data = self._uri(described["uri"], "texture")
            self.image_of[index] = -1 if data is None else len(self.images)
            if data is not None:
                self.images.append(texture(data))
        return self.image_of[index]

    def _uri(self, uri: str, what: str) -> bytes | None:
        if not uri.startswith("data:"):
            return self.beside.read(uri, what)
        try:
            return base64.b64decode(uri.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise FormatError(f"an embedded {what} is no Base64: {error}") from error

    def _buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            described = self.document["buffers"][index]
            data: bytes | None = self.binary
            if "uri" in described:
                data = self._uri(described["uri"], "buffer")
            if data is None or len(data) < described["byteLength"]:
                raise FormatError(f"buffer {index} is missing or shorter than it claims")
            self.buffers[index] = data
        return self.buffers[index]

    def _view(self, index: int) -> tuple[bytes, int]:
        view = self.document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        data = self._buffer(view["buffer"])[start : start + view["byteLength"]]
        return data, view.get("byteStride", 0)

    def _accessor(self, index: int) -> NDArray[Any]:
        """Return (N, width) values; integers that mean 0 to 1 or -1 to 1 as such."""
        accessor = self.document["accessors"][index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise FormatError("sparse accessors are not read")
        dtype, width = np.dtype(_DTYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        data, stride = self._view(accessor["bufferView"])
        values = np.ndarray(
            (accessor["count"], width),
            dtype,
            data,
            accessor.get("byteOffset", 0),
            (stride or dtype.itemsize * width, dtype.itemsize),
        )
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / np.iinfo(dtype).max, -1.0)
        return values


def _matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _triangles(index: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if mode == _TRIANGLES:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    if len(index) < 3:
        return np.empty((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([np.full(len(index) - 2, index[0]), index[1:-1], index[2:]], axis=1)
    strip = np.stack([index[:-2], index[1:-1], index[2:]], axis=1)
    strip[1::2] = strip[1::2][:, [1, 0, 2]]
    return strip


def _moved(uv: NDArray[Any], info: dict[str, Any]) -> NDArray[np.float64]:
    """Apply KHR_texture_transform."""
    found = uv.astype(np.float64)
    change = info.get("extensions", {}).get("KHR_texture_transform")
    if change is None:
        return found
    turn = change.get("rotation", 0.0)
    cos, sin = np.cos(turn), np.sin(turn)
    found = found * np.array(change.get("scale", (1, 1)), np.float64)
    found = np.stack(
        [found[:, 0] * cos + found[:, 1] * sin, found[:, 1] * cos - found[:, 0] * sin], axis=1
    )
    return found + np.array(change.get("offset", (0, 0)), np.float64)
