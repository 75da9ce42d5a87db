"""A point cloud in a real browser: its colours, its classes, at the height it was measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.browser.views import Visit, browsing, serving, visiting
from tests.commands import Command
from tiling.crs import TILE_REF, SpatialRef, transform_points

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

RED, BLUE = (200, 40, 30), (30, 60, 190)
GROUND, BUILDING = (0xB0, 0x8D, 0x57), (0xE0, 0x5A, 0x3C)
# CesiumJS takes 2.2 for the exponent of sRGB.
NEAR = 12
HEIGHT_M = 100.0
FRAME = SpatialRef.parse("EPSG:4547+5737")
MIDDLE = (560_060.0, 3_510_060.0)


def slab(path: Path) -> Path:
    """Write a level square of 120 m: red ground in the west, blue buildings in the east."""
    x, y = (g.ravel() for g in np.meshgrid(np.arange(0, 120, 0.4), np.arange(0, 120, 0.4)))
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [560_000, 3_510_000, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = 560_000 + x, 3_510_000 + y, np.full(len(x), HEIGHT_M)
    east = x > 60
    for channel, name in enumerate(("red", "green", "blue")):
        las[name] = np.where(east, BLUE[channel], RED[channel])
    las.classification = np.where(east, 6, 2)
    las.write(path)
    return path


def shown(visit: Visit) -> NDArray[np.int64]:
    """Return the pixels of the globe once everything is drawn: (height, width, 3)."""
    visit.watched.settle()
    picture = visit.watched.page.screenshot(clip=visit.watched.globe_box())  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(np.int64)


def count(pixels: NDArray[np.int64], colour: Any) -> int:
    return int((np.abs(pixels - np.array(colour)).max(axis=2) <= NEAR).sum())


def test_points_have_their_colours_their_classes_and_their_height(
    cim: Command, tmp_path: Path
) -> None:
    source = slab(tmp_path / "点云.las")
    data = tmp_path / "data"
    options = ("--id", "pc", "--crs", "EPSG:4547", "--vertical", "EPSG:5737")
    done = cim("ingest", source, *options, "--data", data)
    assert done.code == 0, done.err
    lon, lat, height = transform_points(FRAME, TILE_REF, *(np.array([v]) for v in MIDDLE),
                                        np.array([HEIGHT_M]))  # fmt: skip
    assert height is not None
    with (
        serving(data, tmp_path / "log.txt") as origin,
        browsing() as browser,
        visiting(browser, origin, 900, 600) as visit,
    ):
        visit.watched.open("&asset=pc")
        page = visit.watched.page
        page.evaluate(
            """([lon, lat, height]) => {
              const {camera, scene} = window.cim.viewer;
              const {ellipsoid} = scene.globe;
              const radians = Math.PI / 180;
              const destination = ellipsoid.cartographicToCartesian(
                {longitude: lon * radians, latitude: lat * radians, height});
              const orientation = {heading: 0, pitch: -Math.PI / 2, roll: 0};
              camera.setView({destination, orientation});
              scene.requestRender();
            }""",
            [float(lon[0]), float(lat[0]), float(height[0]) + 150.0],
        )
        own = shown(visit)
        assert count(own, RED) > 10_000 and count(own, BLUE) > 10_000
        assert count(own, GROUND) == count(own, BUILDING) == 0
        page.evaluate("window.cim.layers.get('pc').setColouring('class')")
        classes = shown(visit)
        assert count(classes, GROUND) > 10_000 and count(classes, BUILDING) > 10_000
        assert count(classes, RED) == count(classes, BLUE) == 0
        # North is up: what lies in the west is on the left.
        columns = np.nonzero(np.abs(classes - np.array(GROUND)).max(axis=2) <= NEAR)[1]
        assert (
            columns.mean()
            < np.nonzero(np.abs(classes - np.array(BUILDING)).max(axis=2) <= NEAR)[1].mean()
        )
        found = page.evaluate(
            """() => {
              const {scene, canvas} = window.cim.viewer;
              scene.pickTranslucentDepth = true;
              const at = {x: canvas.clientWidth / 2 - 40, y: canvas.clientHeight / 2};
              return scene.globe.ellipsoid.cartesianToCartographic(scene.pickPosition(at)).height;
            }"""
        )
        assert abs(found - float(height[0])) < 0.5
        assert visit.watched.trouble == []
