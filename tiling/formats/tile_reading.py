"""A glb of ours read back as it was written: grid, primitives, table.

`gltf_reading.Glb` sees what any client sees; this also knows how our tiles lie, so that coarser
levels, updates and exports can be made of finished tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.glb import Z_UP_TO_Y_UP
from tiling.formats.gltf_reading import DAMAGE, Glb
from tiling.formats.primitive import Grid, Layout, Primitive, Texture


@dataclass(frozen=True, slots=True)
class TileContent:
    """What `glb.encode_tile` encoded.

    Attributes:
        grid: of the positions.
        primitives: their vertices in the order in which they were written.
        table: one row a feature, columns under their names in the source.
        ids: property id of every column.
        class_name: id of the metadata class.
    """

    grid: Grid
    primitives: tuple[Primitive, ...]
    table: pa.Table
    ids: dict[str, str]
    class_name: str


def decode_tile(data: bytes) -> TileContent:
    """Read a tile of ours.

    What comes out may be handed to compiled code: every index in it names a vertex, every feature
    id a row of the table.

    Raises:
        FormatError: damaged, or no tile of ours.
    """
    glb = Glb(data)
    try:
        return _tile(glb)
    except DAMAGE as error:
        raise FormatError(f"not a tile of this project: {error!r}") from error


def _tile(glb: Glb) -> TileContent:
    document = glb.document
    outer = document["nodes"][0]
    inner = document["nodes"][outer["children"][0]]
    matrix = np.array(outer["matrix"], dtype=np.float64).reshape(4, 4).T
    # A turn by a quarter: its inverse is its transpose, without a rounding error.
    grid = Grid(Z_UP_TO_Y_UP.T @ matrix, float(inner["scale"][0]))
    extension = document["extensions"]["EXT_structural_metadata"]
    (class_name,) = extension["schema"]["classes"]
    properties = extension["schema"]["classes"][class_name]["properties"]
    count, columns = glb.features()
    names = {prop["name"]: identity for identity, prop in properties.items()}
    table = pa.table(
        {name: _column(columns.get(identity), count) for name, identity in names.items()}
    )
    found = document["meshes"][inner["mesh"]]["primitives"]
    primitives = tuple(_primitive(glb, primitive) for primitive in found)
    for primitive in primitives:
        _check(primitive, count)
    return TileContent(grid, primitives, table, names, class_name)


def _check(primitive: Primitive, features: int) -> None:
    vertices = len(primitive.positions)
    kinds: dict[str, tuple[NDArray[Any] | None, Any, tuple[int, ...]]] = {
        "positions": (primitive.positions, np.uint16, (vertices, 3)),
        "normals": (primitive.normals, np.int8, (vertices, 3)),
        "feature ids": (primitive.feature_ids, np.uint32, (vertices,)),
        "colours": (primitive.colors, np.uint8, (vertices, 4)),
        "texture coordinates": (primitive.uv, np.float32, (vertices, 2)),
    }
    for what, (values, dtype, shape) in kinds.items():
        if values is not None and (values.dtype != dtype or values.shape != shape):
            raise FormatError(f"{what} of type {values.dtype} and shape {values.shape}")
    if primitive.layout not in get_args(Layout):
        raise FormatError(f"vertices lie in no known way: {primitive.layout!r}")
    for what, indices, limit in (
        ("corner", primitive.triangles, vertices),
        ("end of an edge", primitive.edges, vertices),
        ("feature id", primitive.feature_ids, features),
    ):
        if indices.max(initial=0) >= limit:
            raise FormatError(f"a {what} is {indices.max()}, of {limit}")


def _column(values: NDArray[Any] | None, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count)
    return pa.array(values.tolist() if values.dtype == object else values)


def _primitive(glb: Glb, primitive: dict[str, Any]) -> Primitive:
    attributes = primitive["attributes"]

    def optional(name: str) -> Any:
        return glb.accessor(attributes[name]) if name in attributes else None

    outline = primitive["extensions"].get("CESIUM_primitive_outline")
    edges = np.empty(0, np.uint32) if outline is None else glb.accessor(outline["indices"])
    return Primitive(
        positions=glb.accessor(attributes["POSITION"]),
        normals=glb.accessor(attributes["NORMAL"]),
        colors=optional("COLOR_0"),
        feature_ids=glb.feature_ids(attributes["_FEATURE_ID_0"]).astype(np.uint32),
        triangles=glb.accessor(primitive["indices"]).astype(np.uint32).reshape(-1, 3),
        edges=edges.astype(np.uint32).reshape(-1, 2),
        layout=primitive["extras"]["layout"],
        uv=optional("TEXCOORD_0"),
        texture=_texture(glb, primitive),
    )


def _texture(glb: Glb, primitive: dict[str, Any]) -> Texture | None:
    document = glb.document
    look = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
    if "baseColorTexture" not in look:
        return None
    source = document["textures"][look["baseColorTexture"]["index"]]["source"]
    image = document["images"][source]
    return Texture(glb.view(image["bufferView"]), image["mimeType"])
