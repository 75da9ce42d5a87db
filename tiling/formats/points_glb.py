"""Binary glTF of points for 3D Tiles: where they are, their colours, what was measured with them.

Positions are integers in steps of the grid, uint16 where the tile is small enough and float32
(exact up to 2**24) elsewhere; a scale makes metres of them, a matrix places those on the Earth.
Colours of glTF are linear and sources' are sRGB: 8-bit colours become uint16 linear ones, from
which each of the 256 values can be told again. Everything else is a property attribute
(EXT_structural_metadata), which styles of 3D Tiles name like any property.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.extent import axis_range, placed
from tiling.formats.glb import MESHOPT, Z_UP_TO_Y_UP, Document, packed
from tiling.formats.gltf_reading import Glb

# Metres of a step east, north and up. Rounding moves no point by more than half the diagonal,
# 0.97 mm; a cell of 76 m fits into 16 bits.
QUANTUM_M = (0.00117, 0.00117, 0.001)
ERROR_M = float(np.linalg.norm(QUANTUM_M) / 2)
MAX_SHORT = 65_535
MAX_FLOAT = 2**24
# Stands for NaN; a float32 that no measurement is.
_NO_DATA = float(np.finfo(np.float32).min)
_POINTS = 0
_Y_UP_TO_Z_UP = Z_UP_TO_Y_UP.T


@dataclass(frozen=True, slots=True)
class PointColumnType:
    """How a column of points stands in tiles.

    Attributes:
        id: of the property.
        name: of the column, for people.
        component: ``INT8``, ``UINT8``, ``INT16``, ``UINT16`` or ``FLOAT32``.
        relative: values count from the least one of the tile, which is the property's offset.
    """

    id: str
    name: str
    component: str
    relative: bool = False


_DTYPES: Mapping[str, str] = {
    "INT8": "<i1",
    "UINT8": "<u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "FLOAT32": "<f4",
}


def _srgb_to_linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # IEC 61966-2-1.
    high = ((values + 0.055) / 1.055) ** 2.4
    return np.where(values <= 0.04045, values / 12.92, high)


# Linear value, 16 bits, of each 8-bit sRGB value; strictly increasing.
LINEAR_OF_8 = np.round(_srgb_to_linear(np.arange(256) / 255.0) * 65535.0).astype(np.uint16)


@cache
def _linear_of_16() -> NDArray[np.uint16]:
    return np.round(_srgb_to_linear(np.arange(65_536) / 65535.0) * 65535.0).astype(np.uint16)


def linear_colours(rgb: NDArray[Any], depth: int) -> NDArray[np.uint16]:
    """Return sRGB colours as linear ones.

    Args:
        rgb: (N, 3) integers of `depth` bits; greater ones are cut off.
        depth: 8 or 16.

    Returns:
        (N, 3) uint16.
    """
    if depth == 8:
        found: NDArray[np.uint16] = LINEAR_OF_8[np.minimum(rgb, 255)]
    else:
        found = _linear_of_16()[rgb]
    return found


def srgb_colours(linear: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return (N, 3) 8-bit sRGB colours of (N, 3) linear ones: the nearest of those there are."""
    middles = (LINEAR_OF_8[1:].astype(np.float64) + LINEAR_OF_8[:-1]) / 2
    return np.searchsorted(middles, linear).astype(np.uint8)


def encode_points(
    to_ecef: NDArray[np.float64],
    steps: NDArray[np.int32],
    colours: NDArray[np.uint16] | None,
    columns: Sequence[tuple[PointColumnType, NDArray[Any]]],
) -> bytes:
    """Return a glb; equal input gives equal bytes.

    Args:
        to_ecef: (4, 4) float64; east-north-up metres of the tile to WGS 84 Earth-centred metres.
        steps: (N, 3) int32 in steps of `QUANTUM_M`, at least one point.
        colours: (N, 3) uint16, linear; None without.
        columns: (N,) values of each property.

    Raises:
        ValueError: a step cannot be stated exactly.
    """
    document = Document()
    low, high = axis_range(steps)
    # The lowest corner becomes the origin, so that small tiles need 16 bits wherever they are.
    if int((high - low).max()) <= MAX_SHORT:
        positions, origin = (steps - low).astype("<u2"), low
    else:
        middle = (low + high) // 2
        if int(np.abs(np.stack([low - middle, high - middle])).max()) > MAX_FLOAT:
            raise ValueError(f"points {low} to {high} lie too far apart for one tile")
        positions, origin = (steps - middle).astype("<f4"), middle
    first, last = axis_range(positions)
    attributes = {"POSITION": document.attribute(positions, min=first.tolist(), max=last.tolist())}
    if colours is not None:
        attributes["COLOR_0"] = document.attribute(colours.astype("<u2"), normalized=True)
    properties: dict[str, dict[str, Any]] = {}
    stated = {}
    for column, values in columns:
        offset = _offset(values) if column.relative else 0.0
        name = f"_{column.id.upper()}"
        stored = (values - offset if offset else values).astype(_DTYPES[column.component])
        properties[column.id] = {
            "name": column.name,
            "type": "SCALAR",
            "componentType": column.component,
        }
        missing = ~np.isfinite(stored)
        if missing.any():
            # glTF has only finite numbers.
            stored[missing] = _NO_DATA
            properties[column.id]["noData"] = _NO_DATA
        attributes[name] = document.attribute(stored)
        stated[column.id] = {"attribute": name, **({"offset": offset} if offset else {})}
    gltf: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "cim-server"},
        "extensionsUsed": sorted({MESHOPT, "KHR_mesh_quantization", "KHR_materials_unlit"}),
        "extensionsRequired": [MESHOPT, "KHR_mesh_quantization"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"matrix": (Z_UP_TO_Y_UP @ to_ecef).T.ravel().tolist(), "children": [1]},
            {
                "translation": (origin * np.array(QUANTUM_M)).tolist(),
                "scale": list(QUANTUM_M),
                "mesh": 0,
            },
        ],
        "meshes": [{"primitives": [{"attributes": attributes, "material": 0, "mode": _POINTS}]}],
        "materials": [
            {
                "extensions": {"KHR_materials_unlit": {}},
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            }
        ],
        "accessors": document.accessors,
        "bufferViews": document.views,
        "buffers": document.buffers(),
    }
    if properties:
        gltf["extensionsUsed"].append("EXT_structural_metadata")
        gltf["extensionsUsed"].sort()
        primitive = gltf["meshes"][0]["primitives"][0]
        primitive["extensions"] = {"EXT_structural_metadata": {"propertyAttributes": [0]}}
        gltf["extensions"] = {
            "EXT_structural_metadata": {
                "schema": {
                    "id": "cim",
                    "classes": {"point": {"name": "Point", "properties": properties}},
                },
                "propertyAttributes": [{"class": "point", "properties": stated}],
            }
        }
    return packed(gltf, bytes(document.binary))


def _offset(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(finite.min()) if finite.size else 0.0


@dataclass(frozen=True, slots=True)
class DecodedPoints:
    """Points as a client sees them.

    Attributes:
        ecef: (N, 3) float64, Earth-centred metres.
        colours: (N, 3) uint16 linear, or None.
        columns: (N,) values by property id, offsets added, NaN where nothing was measured.
    """

    ecef: NDArray[np.float64]
    colours: NDArray[np.uint16] | None
    columns: Mapping[str, NDArray[Any]]


def decode_points(data: bytes) -> DecodedPoints:
    """Read what `encode_points` wrote.

    Raises:
        FormatError: something else, or damaged.
    """
    glb = Glb(data)
    document = glb.document
    try:
        outer, inner = document["nodes"]
        primitive = document["meshes"][0]["primitives"][0]
        attributes = primitive["attributes"]
        local = glb.accessor(attributes["POSITION"]).astype(np.float64)
        declared = document["accessors"][attributes["POSITION"]]
        low, high = axis_range(local)
        if low.tolist() != declared["min"] or high.tolist() != declared["max"]:
            raise FormatError("the accessor's min and max are not those of its positions")
        # In the tile's own metres first: Earth-centred ones are too large to be rounded twice.
        local = local * np.array(inner["scale"]) + np.array(inner["translation"])
        matrix = _Y_UP_TO_Z_UP @ np.array(outer["matrix"]).reshape(4, 4).T
        colours = None
        if "COLOR_0" in attributes:
            colours = glb.accessor(attributes["COLOR_0"])
        columns = {}
        extension = document.get("extensions", {}).get("EXT_structural_metadata")
        if extension is not None:
            for name, stated in extension["propertyAttributes"][0]["properties"].items():
                values = glb.accessor(attributes[stated["attribute"]])
                offset = stated.get("offset", 0.0)
                known = values + np.float64(offset) if offset else values
                if values.dtype.kind == "f":
                    known = np.where(values == np.float32(_NO_DATA), np.nan, known)
                columns[name] = known
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FormatError(f"not a tile of points: {error!r}") from error
    return DecodedPoints(placed(local, matrix), colours, columns)
