"""Terrain, an image and buildings together: what CesiumJS draws, and how the walls meet it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.warp import transform

from tests.browser.views import Eye, Visit, arrive, browsing, look, serving, visiting
from tests.commands import DEMO_SOURCES, Command

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

STEEP = Path(__file__).parent.parent / "data" / "raster" / "big_tujunga.tif"
PLACES = ("washington", "tujunga")

# Heights of the finest meshes at places (degrees), as Cesium's own decoder reads the tiles.
MESH_HEIGHTS = """async ([level, places]) => {
  const provider = window.cim.viewer.scene.terrainProvider;
  const scheme = provider.tilingScheme;
  const radians = Math.PI / 180;
  const tiles = new Map();
  const heights = [];
  for (const [lon, lat] of places) {
    const at = {longitude: lon * radians, latitude: lat * radians, height: 0};
    const {x, y} = scheme.positionToTileXY(at, level);
    const key = `${x}/${y}`;
    if (!tiles.has(key)) tiles.set(key, await provider.requestTileGeometry(x, y, level));
    const rectangle = scheme.tileXYToRectangle(x, y, level);
    heights.push(tiles.get(key).interpolateHeight(rectangle, at.longitude, at.latitude));
  }
  return heights;
}"""

# The same on the triangles that are drawn now, and the level of the tile that each belongs to.
_DRAWN_HEIGHTS = """(places) => {
  const {globe} = window.cim.viewer.scene;
  const radians = Math.PI / 180;
  return places.map(([lon, lat]) => {
    const at = {longitude: lon * radians, latitude: lat * radians, height: 0};
    const tile = globe._surface._tilesToRender.find(({rectangle: r}) =>
      r.west <= at.longitude && at.longitude < r.east &&
      r.south <= at.latitude && at.latitude < r.north);
    return [tile?.level ?? null, globe.getHeight(at) ?? null];
  });
}"""


def _image(path: Path, dem: Path) -> Path:
    """Write a chequered image over the middle of a DEM, bright enough to be told from a globe."""
    with rasterio.open(dem) as source:
        rows, columns, frame, affine = source.height, source.width, source.crs, source.transform
    chequers = (np.add.outer(np.arange(rows) // 8, np.arange(columns) // 8) % 2).astype(np.uint8)
    bands = np.stack([200 - 140 * chequers, 90 + 80 * chequers, np.full_like(chequers, 40)])
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=columns, count=3, dtype="uint8", crs=frame,
        transform=affine, photometric="RGB",
    ) as sink:  # fmt: skip
        sink.write(bands)
    return path


def _slope_buildings(path: Path) -> Path:
    """Write 150 houses of 12 to 60 m on the slopes of Big Tujunga, turned at random."""
    with rasterio.open(STEEP) as source:
        west, south, east, north = source.bounds
        frame = source.crs
        held = source.read(1, masked=True)
    assert not np.ma.getmaskarray(held)[10:-10, 10:-10].any()
    random = np.random.default_rng(5)
    features = []
    for _ in range(150):
        x = random.uniform(west + 0.2 * (east - west), east - 0.2 * (east - west))
        y = random.uniform(south + 0.2 * (north - south), north - 0.2 * (north - south))
        wide, deep, turn = *random.uniform(6, 30, 2), random.uniform(0, math.pi)
        corners = np.array([[-wide, -deep], [wide, -deep], [wide, deep], [-wide, deep]])
        cos, sin = math.cos(turn), math.sin(turn)
        corners = corners @ [[cos, sin], [-sin, cos]] + [x, y]
        lon, lat = transform(frame, "EPSG:4326", *corners.T)
        ring = [*zip(lon, lat, strict=True), (lon[0], lat[0])]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {"height": float(random.uniform(6, 30))}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, cim: Command, tmp_path_factory: Any) -> tuple[str, Path]:
    """A data folder with terrain, an image and buildings."""
    name: str = request.param
    folder: Path = tmp_path_factory.mktemp(name)
    data = folder / "data"
    steep = name == "tujunga"
    dem = STEEP if steep else DEMO_SOURCES / "washington_dtm.tif"
    footprints = (
        _slope_buildings(folder / "houses.geojson")
        if steep
        else DEMO_SOURCES / "washington_buildings.shp"
    )
    image = _image(folder / "image.tif", dem)
    for source, *options in (
        (dem, "--id", "ground", "--kind", "terrain", "--vertical", "EPSG:5773"),
        (image, "--id", "image", "--kind", "imagery"),
        (footprints, "--id", "city", "--kind", "buildings", "--terrain", "ground"),
    ):
        done = cim("ingest", source, *options, "--area", "world", "--data", data)
        assert done.code == 0, done.err
    return name, data


@pytest.fixture(scope="module")
def seen(place: tuple[str, Path], tmp_path_factory: Any) -> Iterator[tuple[str, Path, Visit]]:
    name, data = place
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(data, log) as origin, browsing() as browser, visiting(browser, origin) as visit:
        arrive(visit)
        page = visit.watched.page
        page.evaluate("() => Promise.all([...window.cim.layers.values()].map((l) => l.show()))")
        visit.watched.settle()
        yield name, data, visit


def _finest_level(visit: Visit) -> int:
    request, origin = visit.watched.page.request, visit.watched.origin
    features = request.get(f"{origin}/stac/search?limit=9").json()["features"]
    assert {item["id"] for item in features} == {"ground", "image", "city"}
    (terrain,) = (item for item in features if item["id"] == "ground")
    document = next(a["href"] for a in terrain["assets"].values() if "layer.json" in a["href"])
    return len(request.get(document).json()["available"]) - 1


def _walls(data: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return places on and inside each footprint, every metre, and where its walls begin."""
    (parquet,) = (data / "stores").rglob("*.parquet")
    table = pq.read_table(parquet)
    places = []
    for footprint in shapely.from_wkb(table["geometry"].to_numpy()):
        outline = shapely.get_coordinates(shapely.segmentize(footprint, 1e-5))
        west, south, east, north = footprint.bounds
        grid = np.stack(np.meshgrid(np.arange(west, east, 2e-5), np.arange(south, north, 2e-5)))
        inside = grid.reshape(2, -1).T
        places.append(np.concatenate([outline, inside[shapely.contains_xy(footprint, inside)]]))
    return places, table["cim:base_m"].to_numpy()


def _lowest(heights: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    first = np.cumsum([0, *(len(p) for p in places[:-1])])
    return np.asarray(np.minimum.reduceat(heights, first))


def test_no_building_stands_more_than_10_cm_above_the_finest_terrain(
    seen: tuple[str, Path, Visit],
) -> None:
    name, data, visit = seen
    level = _finest_level(visit)
    places, bases = _walls(data)
    heights = np.array(
        visit.watched.page.evaluate(MESH_HEIGHTS, [level, np.concatenate(places).tolist()])
    )
    above = bases - _lowest(heights, places)
    print(
        f"{name}: {len(bases)} buildings, {len(heights)} places on level {level}: bases "
        f"{above.min():.3f} .. {above.max():.3f} m above the lowest drawn ground, "
        f"{(above > 0.1).sum()} more than 0.1 m"
    )
    assert len(bases) > 60
    assert above.max() <= 0.1
    # Nor is any sunk: it stands on the lower of the mesh and the elevation model.
    assert np.median(above) > -0.3


# The steep place takes minutes to draw in software; its meshes are compared above.
@pytest.mark.parametrize("place", ["washington"], indirect=True)
def test_what_is_on_the_screen_is_that_ground_with_the_image_on_it(
    seen: tuple[str, Path, Visit], tmp_path: Path
) -> None:
    name, data, visit = seen
    places, bases = _walls(data)
    middle = np.array([p.mean(axis=0) for p in places])
    near = int(np.argmin(np.linalg.norm(middle - np.median(middle, axis=0), axis=1)))
    lon, lat = middle[near]
    look(visit, Eye(lon, lat - 260 / 111_320, bases[near] + 190, 0.0, -35.0))
    page = visit.watched.page
    every = np.concatenate(places)
    drawn = page.evaluate(_DRAWN_HEIGHTS, every.tolist())
    level = _finest_level(visit)
    # Finer tiles of the screen are the finest terrain cut up for the image's sake. Near the edge
    # of a tile a vertical ray grazes the skirt, which hangs below the ground.
    tiles = np.array([tile or 0 for tile, _ in drawn])
    size = np.ldexp(180.0, -tiles)[:, None]
    along = (every + [180, 90]) % size
    inside = (np.minimum(along, size - along) > 1e-5).all(axis=1)
    at = inside & (tiles >= level) & np.array([height is not None for _, height in drawn])
    heights = np.array([np.inf if height is None else height for _, height in drawn])
    expected = np.array(page.evaluate(MESH_HEIGHTS, [level, every[at].tolist()]))
    off = np.abs(heights[at] - expected)
    print(f"{name}: {at.sum()} places of level {level}: the screen is {np.median(off):.4f} m "
          f"off the meshes, at most {off.max():.3f} m")  # fmt: skip
    lowest = _lowest(np.where(at, heights, np.inf), places)
    above = (bases - lowest)[np.isfinite(lowest)]
    print(f"{name}: {len(above)} buildings: at most {above.max():.3f} m above the screen's ground")
    # A building of which a corner alone is drawn that finely says nothing of its lowest ground.
    whole = np.logical_and.reduceat(at | ~inside, np.cumsum([0, *map(len, places[:-1])]))
    above = (bases - lowest)[whole & np.isfinite(lowest)]
    print(f"{name}: {len(above)} wholly: at most {above.max():.3f} m above it")
    assert len(above) >= 5
    assert np.median(off) < 0.02
    assert above.max() <= 0.1
    picture = page.screenshot(path=str(tmp_path / f"{name}.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(picture) as file, file.open() as image:
            red, green, blue = image.read([1, 2, 3]).astype(int)
    # The image's chequers, both colours of them, whatever the light on the slope.
    orange, olive = (red > 1.5 * green) & (red > 2 * blue), (green > 1.3 * red) & (green > 2 * blue)
    print(f"{name}: {orange.mean():.1%} orange, {olive.mean():.1%} olive: {tmp_path}")
    assert orange.mean() > 0.05 and olive.mean() > 0.05
    assert not visit.watched.trouble
