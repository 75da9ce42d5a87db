"""Where buildings are and what they say, against PROJ, the raw geoid grid and the source itself.

Two centimetres in place and height, for a thousand random buildings; every attribute as it was.
"""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from tests.acceptance.city import COUNT, CRS, City
from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import from_ecef, reproject, to_ecef, undulation_m
from tests.acceptance.glb import Content, read_glb
from tests.acceptance.tilesets import walk

# Positions are whole steps of at most two centimetres, half the diagonal of whose cube is 17.3 mm;
# and a building 300 m wide stands level where the datum does not.
TOLERANCE_M = 0.02
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def contents(white_model: Assets) -> list[Content]:
    """Every glb of full detail that the tileset leads to, read with the standard library."""
    with zipfile.ZipFile(white_model.store("suizhou", "3tz")) as archive:
        found = list(walk("tileset.json", archive.read))
    made = [read_glb(f.data) for f in found if f.kind == "content"]
    return [content for content in made if content.cls == "feature"]


def buildings(contents: list[Content]) -> Iterator[tuple[int, Floats, dict[str, object]]]:
    """Yield each building: its number in the source, its vertices (ECEF), its attributes."""
    for content in contents:
        for row, attributes in enumerate(content.rows):
            number = int(str(attributes["编号"]).removeprefix("楼"))
            yield number, content.ecef[content.feature == row], attributes


def corners(city: City, number: int) -> tuple[Floats, Floats, float, float]:
    """Return longitudes, latitudes, and the elevations of base and roof above the datum."""
    x, y = shapely.get_coordinates(city.outlines[number]).T
    row = city.rows[number]
    return *reproject(CRS, 4490, x, y), row["地面高"], row["地面高"] + row["楼高"]


def test_every_building_is_there_once(contents: list[Content]) -> None:
    numbers = sorted(number for number, _, _ in buildings(contents))
    assert numbers == list(range(COUNT))
    assert len(contents) > 1


def test_every_corner_is_within_half_a_step_of_projs_answer(
    city: City, contents: list[Content]
) -> None:
    worst = 0.0
    for number, ecef, _ in buildings(contents):
        lon, lat, base, roof = corners(city, number)
        geoid = undulation_m(lon, lat)
        expected = np.concatenate([to_ecef(lon, lat, h + geoid) for h in (base, roof)], axis=0)
        apart = np.linalg.norm(ecef[:, None] - expected[None], axis=2)
        worst = max(worst, apart.min(axis=0).max(), apart.min(axis=1).max())
    print(f"greatest distance {worst * 1e3:.3f} mm")
    assert worst < TOLERANCE_M


def test_every_roof_and_wall_stands_at_datum_plus_grid(city: City, contents: list[Content]) -> None:
    worst = 0.0
    for number, ecef, attributes in buildings(contents):
        lon, lat, height = from_ecef(ecef)
        _, _, base, roof = corners(city, number)
        above_datum = height - undulation_m(lon, lat)
        level = np.where(above_datum > (base + roof) / 2, roof, base)
        worst = max(worst, np.abs(above_datum - level).max())
        assert len(np.unique(level)) == 2
        base_m, height_m = attributes["cim:base_m"], attributes["cim:height_m"]
        assert isinstance(base_m, float) and isinstance(height_m, float)
        worst = max(worst, abs(base_m - undulation_m(lon, lat).mean() - base))
        assert height_m == np.float32(city.rows[number]["楼高"])
    print(f"greatest difference in height {worst * 1e3:.3f} mm")
    assert worst < TOLERANCE_M


def test_every_attribute_of_every_building_is_as_in_the_source(
    city: City, contents: list[Content]
) -> None:
    compared = nulls = 0
    for number, _, attributes in buildings(contents):
        for name, value in city.rows[number].items():
            expected = value.isoformat() if isinstance(value, dt.date) else value
            found = attributes[name]
            assert found == expected, (number, name, expected, found)
            assert type(found) is type(expected) or {type(found), type(expected)} == {int, float}
            compared, nulls = compared + 1, nulls + (value is None)
    assert compared == COUNT * len(city.rows[0])
    assert nulls > COUNT


def test_roofs_and_walls_face_outwards_and_close(city: City, contents: list[Content]) -> None:
    for content in contents:
        a, b, c = (content.ecef[content.triangles[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        up = content.ecef.mean(axis=0)
        up = up / np.linalg.norm(up)
        # A model's roofs, seen from above, cover as much ground as its outlines.
        facing = normal @ up / 2
        roofs = np.abs(facing) > 0.5 * np.linalg.norm(normal, axis=1) / 2
        assert (facing[roofs] > 0).all()
        area = facing[roofs].sum()
        numbers = [int(row["编号"].removeprefix("楼")) for row in content.rows]
        wanted = float(shapely.area(city.outlines[numbers]).sum())
        # Gauss-Kruger stretches by up to (35 km / Earth's radius)² / 2, and 600 m up is wider;
        # every side may be off by half a step.
        sides_m = float(shapely.length(city.outlines[numbers]).sum())
        assert area == pytest.approx(wanted, rel=4e-4, abs=content.quantum_m * sides_m / 2)
