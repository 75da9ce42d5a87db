"""Whatever polygons come, every one is in the tiles once and measures what it did.

Hypothesis makes the footprints, the tiler is called as a library, an independent reader decodes.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.acceptance.glb import Content, read_glb
from tests.acceptance.implicit import tree
from tests.acceptance.solid import nearest_m, solids, wanted
from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, HEIGHT_SOURCE_COLUMN, FeatureBatch
from tiling.crs import TILE_REF
from tiling.findings import Findings
from tiling.stores.directory import DirectoryReader, DirectoryWriter
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.buildings import BuildingsTiler
from tiling.tilers.pipeline import SerialExecutor

# A corner of a cell of level 14, so that towns lie across its borders.
CELL_DEG = 180 / 2**14
CORNER = (-180 + CELL_DEG * 26_706, -90 + CELL_DEG * 11_074)
METRE_DEG = 1 / 111_320
# Of walls or roofs in one plane all but one stand back, each two steps behind the one before.
STEP_BACK = 2

metres = st.floats(-900, 900).map(lambda v: round(v, 3))
sizes = st.floats(0.02, 80).map(lambda v: round(v, 3))


@st.composite
def outlines(draw: st.DrawFn) -> Any:
    """A polygon or multipolygon in metres: boxes, slivers, stars, courtyards, several parts."""
    kind = draw(st.sampled_from(["box", "star", "court", "parts", "sliver", "comb", "big"]))
    x, y = draw(metres), draw(metres)
    size = draw(sizes)
    if kind == "box":
        made = shapely.box(0, 0, size, draw(sizes))
    elif kind == "sliver":
        made = shapely.Polygon([(0, 0), (size + 1, draw(st.floats(1e-4, 0.05))), (2 * size + 2, 0)])
    elif kind in ("star", "big"):
        points = draw(st.integers(3, 40)) if kind == "star" else draw(st.integers(500, 3000))
        wild = np.random.default_rng(draw(st.integers(0, 2**32))).uniform(0.4, 1, points)
        turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
        radius = (size + 1) * (wild if kind == "star" else 0.97 + 0.03 * wild)
        made = shapely.Polygon(np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1))
    elif kind == "court":
        width = size + 3
        hole = shapely.box(width * 0.2, width * 0.2, width * 0.8, width * 0.7)
        made = shapely.box(0, 0, width, width).difference(hole)
        if draw(st.booleans()):
            island = shapely.box(width * 0.4, width * 0.4, width * 0.5, width * 0.5)
            made = shapely.union(made, island)
    elif kind == "parts":
        count = draw(st.integers(2, 5))
        made = shapely.MultiPolygon(
            [shapely.box(i * (size + 1), 0, i * (size + 1) + size, size) for i in range(count)]
        )
    else:
        teeth = draw(st.integers(2, 12))
        corners = [(k / 2, size if k % 4 in (1, 2) else 0.0) for k in range(4 * teeth)]
        made = shapely.Polygon([*corners, (2 * teeth, -3), (0, -3)])
    return shapely.transform(made, lambda xy: xy + [x, y])


@st.composite
def towns(draw: st.DrawFn) -> list[tuple[Any, float, float]]:
    """Outlines with base and height; some twice, some inside others."""
    shapes = draw(st.lists(outlines(), min_size=1, max_size=12))
    for index in draw(st.lists(st.integers(0, len(shapes) - 1), max_size=3, unique=True)):
        shapes.append(shapes[index])
    heights = st.floats(0.3, 600).map(lambda v: round(v, 2))
    bases = st.floats(-50, 4000).map(lambda v: round(v, 2))
    base = draw(bases)
    return [(s, base + draw(st.floats(0, 30)), draw(heights)) for s in shapes]


def tiled(town: list[tuple[Any, float, float]], folder: Path) -> tuple[list[Content], Any]:
    """Tile a town; returns its tiles of full detail and the outlines in degrees."""
    scale = METRE_DEG * np.array([1 / np.cos(np.radians(CORNER[1])), 1])
    plain = np.array([shape for shape, _, _ in town], dtype=object)
    lonlat = shapely.transform(plain, lambda xy: xy * scale + CORNER)
    count = len(town)
    table = pa.table(
        {
            "编号": pa.array([f"楼{n}" for n in range(count)]),
            BASE_COLUMN: pa.array([base for _, base, _ in town]),
            HEIGHT_COLUMN: pa.array([height for _, _, height in town]),
            HEIGHT_SOURCE_COLUMN: pa.array(["column:楼高"] * count),
        }
    )
    batch = FeatureBatch(TILE_REF, np.arange(count), lonlat, table)
    writer = DirectoryWriter(folder / "tiles")
    (folder / "scratch").mkdir()
    run = Run(
        writer=writer,
        scratch=folder / "scratch",
        executor=SerialExecutor(),
        workers=1,
        memory_nbytes=1 << 28,
        progress=SilentProgress(),
        findings=Findings(),
    )
    info = BuildingsTiler(tile_features=5, tile_vertices=20_000).run([batch], run)
    writer.commit()
    assert info.features == count
    reader = DirectoryReader(folder / "tiles")

    def fetch(name: str) -> bytes:
        stored = reader.get(name)
        assert stored is not None, f"{name} is available and missing"
        return gzip.decompress(stored.data) if stored.encoding else stored.data

    nodes = tree("tileset.json", fetch)
    assert all(node.uri for node in nodes)
    contents = [read_glb(fetch(node.uri)) for node in nodes if node.uri]
    reader.close()
    return [content for content in contents if content.cls == "feature"], lonlat


@settings(
    max_examples=25,
    # The same towns every time; hunts for others are made by hand, with many more.
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(towns())
def test_every_footprint_is_there_once_and_measures_what_it_did(
    town: list[tuple[Any, float, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        leaves, lonlat = tiled(town, Path(folder))
    names = [row["编号"] for content in leaves for row in content.rows]
    assert sorted(names) == sorted(f"楼{n}" for n in range(len(town)))
    for content in leaves:
        step = content.quantum_m
        for row, solid in zip(content.rows, solids(content), strict=True):
            number = int(row["编号"].removeprefix("楼"))
            _, base, height = town[number]
            want = wanted(content, lonlat[number], base, base + height)
            corners = np.concatenate([want.low, want.high])
            near = int(shapely.dwithin(lonlat, lonlat[number], METRE_DEG / 10).sum()) - 1
            back = STEP_BACK * near * step
            # What is thinner than two steps is widened to keep a roof.
            thin = want.area_m2 < want.perimeter_m * step
            reach = (1.5 if thin else 0.5) * step + 1e-4
            if thin and not near:
                for low, high in ((solid.corners, corners), (-solid.corners, -corners)):
                    assert np.abs(low.min(axis=0) - high.min(axis=0)).max() <= reach
            elif not near:
                assert nearest_m(solid.corners, corners).max() <= reach
                assert nearest_m(corners, solid.corners).max() <= reach
            slack = want.perimeter_m * (reach * 2**0.5 + back) + 40 * (step + back) ** 2
            assert abs(solid.area_m2 - want.area_m2) <= slack
            thick = slack * (want.height_m + 2 * step) + want.area_m2 * (2 * step + back)
            assert abs(solid.volume_m3 - want.area_m2 * want.height_m) <= thick
