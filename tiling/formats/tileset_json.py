"""tileset.json of 3D Tiles 1.1: an explicit root over implicit quadtrees or octrees.

Regions go in as `Region` (degrees) and come out in radians; nothing else is converted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tiling.bounds import Region


@dataclass(frozen=True, slots=True)
class ImplicitRoot:
    """A tile that is the root of an implicit tree.

    Attributes:
        region: volume of everything below; its rectangle is what clients subdivide.
        geometric_error_m: metres; halves at every level below.
        content: template with ``{level}``, ``{x}``, ``{y}``, in octrees ``{z}``.
        subtrees: template with the same.
        subtree_levels: levels in each subtree.
        available_levels: levels that hold tiles, at least 1.
        refine: ``REPLACE`` or ``ADD``.
        scheme: ``QUADTREE`` or ``OCTREE``.
    """

    region: Region
    geometric_error_m: float
    content: str
    subtrees: str
    subtree_levels: int
    available_levels: int
    refine: str = "REPLACE"
    scheme: str = "QUADTREE"

    def to_json(self) -> dict[str, Any]:
        """Return the tile as JSON."""
        return {
            "boundingVolume": {"region": self.region.to_3dtiles()},
            "geometricError": self.geometric_error_m,
            "refine": self.refine,
            "content": {"uri": self.content},
            "implicitTiling": {
                "subdivisionScheme": self.scheme,
                "subtreeLevels": self.subtree_levels,
                "availableLevels": self.available_levels,
                "subtrees": {"uri": self.subtrees},
            },
        }


def encode_tileset(
    roots: Iterable[ImplicitRoot],
    geometric_error_m: float,
    root_error_m: float,
    schema: Mapping[str, Any],
    extras: Mapping[str, Any],
) -> bytes:
    """Return the bytes of a tileset.json; equal input gives equal bytes.

    Args:
        roots: at least one.
        geometric_error_m: error in metres when nothing is drawn.
        root_error_m: error in metres of the explicit root; below that of the tileset.
        schema: metadata schema of tiles and features.
        extras: facts for applications, put beside the asset's version.

    Raises:
        ValueError: there is no root, or errors do not decrease.
    """
    roots = list(roots)
    if not roots:
        raise ValueError("a tileset needs at least one tile")
    if not geometric_error_m > root_error_m > max(r.geometric_error_m for r in roots):
        raise ValueError("geometric errors must decrease from the tileset to its leaves")
    region = roots[0].region
    for root in roots[1:]:
        region = region.union(root.region)
    document = {
        "asset": {"version": "1.1", "extras": dict(extras)},
        "schema": dict(schema),
        "geometricError": geometric_error_m,
        "root": {
            "boundingVolume": {"region": region.to_3dtiles()},
            "geometricError": root_error_m,
            "refine": "REPLACE",
            "children": [root.to_json() for root in roots],
        },
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
