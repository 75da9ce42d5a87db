"""What workers compute of terrain meshes: tiles that were not baked, and the list of all.

Imported by the serving process for the names of its functions alone; what they need is imported
when they run, in a worker.
"""

from __future__ import annotations

import json

from cim_server.surfaces import Surface, open_source


def terrain_tile(surface: Surface, tile: tuple[int, int, int]) -> bytes | None:
    """Return a quantized-mesh tile as one gzip member: the bytes that baking makes.

    Args:
        surface: of a version that keeps the specification of its meshes.
        tile: level, column and row, from the south.

    Returns:
        the member; None when the tileset has no such tile.
    """
    from tiling.coords import TileCoord
    from tiling.tilers.pipeline import compress
    from tiling.tilers.terrain import TerrainSpec, build_tile

    spec, coord = TerrainSpec.from_json(json.loads(surface.terrain)), TileCoord(*tile)
    if not spec.has(coord):
        return None
    water = None
    if surface.water:
        from tiling.tilers.terrain_water import WaterAreas

        water = WaterAreas(surface.water)
    return compress(build_tile(open_source(surface), spec, coord, water))


def whole_layer(surface: Surface, baked: bytes) -> bytes:
    """Return ``layer.json`` of everything that is served, as one gzip member.

    Args:
        surface: of a version that keeps the specification of its meshes.
        baked: the document of the baked levels, not compressed.
    """
    from tiling.tilers.pipeline import compress
    from tiling.tilers.terrain import TerrainSpec
    from tiling.tilers.terrain_cells import available_levels

    spec = TerrainSpec.from_json(json.loads(surface.terrain))
    layer = json.loads(baked)
    layer["available"] = available_levels(spec.areas, spec.levels)
    layer["maxzoom"] = spec.levels[-1]
    return compress(json.dumps(layer, ensure_ascii=False, indent=1).encode())
