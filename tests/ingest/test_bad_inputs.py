"""Bad input: a clear message with file, value and remedy, exit code 3, nothing published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import Affine, from_origin

BAD = Path(__file__).parent.parent / "data" / "bad"

SQUARE = [[113.38, 31.69], [113.381, 31.69], [113.381, 31.691], [113.38, 31.691], [113.38, 31.69]]


def geojson(
    path: Path,
    heights: list[Any],
    ring: list[list[float]] = SQUARE,
    crs: str | None = "urn:ogc:def:crs:EPSG::4490",
) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"name": f"楼{i}", **({"height": h} if h != "absent" else {})},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x + i * 0.002, y] for x, y in ring]],
            },
        }
        for i, h in enumerate(heights)
    ]
    data: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        data["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


def shapefile(
    folder: Path, ring: list[list[float]] = SQUARE, crs: str | None = "EPSG:4490"
) -> Path:
    path = folder / "楼.shp"
    geometry = np.array([shapely.to_wkb(shapely.polygons(ring))], dtype=object)
    pyogrio.raw.write(
        path,
        geometry,
        field_data=[np.array([12.0])],
        fields=["height"],
        geometry_type="Polygon",
        crs=crs or "EPSG:4490",
        driver="ESRI Shapefile",
    )
    if crs is None:
        path.with_suffix(".prj").unlink()
    return path


def raster(path: Path, values: np.ndarray, transform: Any = None, **profile: Any) -> Path:
    profile = {"crs": "EPSG:4490", "nodata": -9999.0, **profile}
    count = values.shape[0] if values.ndim == 3 else 1
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[-2],
        width=values.shape[-1],
        count=count,
        dtype=values.dtype,
        transform=transform or from_origin(113.3, 31.8, 0.001, 0.001),
        **profile,
    ) as dataset:
        dataset.write(values if values.ndim == 3 else values[None])
    return path


def without(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = shapefile(folder)
        path.with_suffix(suffix).unlink()
        return path

    return make


def truncated_tiff(folder: Path) -> Path:
    heights = np.random.default_rng(1).normal(100, 20, (512, 512)).astype(np.float32)
    path = raster(folder / "截断.tif", heights, compress="deflate")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def corrupt_zip(folder: Path) -> Path:
    source = shapefile(folder)
    archive = Path(shutil.make_archive(str(folder / "压缩"), "zip", folder))
    source.unlink()
    content = bytearray(archive.read_bytes())
    content[len(content) // 4 : len(content) // 2] = b"\xff" * (
        len(content) // 2 - len(content) // 4
    )
    archive.write_bytes(content[: len(content) - 40])
    return archive


V = ["--vertical", "EPSG:5737"]
B = ["--kind", "buildings", *V]
T = ["--kind", "terrain", *V]
SWAPPED = [[y, x] for x, y in SQUARE]

CASES: dict[str, tuple[Callable[[Path], Path], list[str], list[str]]] = {
    "no shx": (without(".shx"), B, [".shx"]),
    "no dbf": (without(".dbf"), B, [".dbf"]),
    "truncated GeoTIFF": (truncated_tiff, T, ["截断.tif"]),
    "corrupt archive": (corrupt_zip, B, ["压缩.zip"]),
    "no CRS": (lambda d: shapefile(d, crs=None), B, ["--crs", "楼.shp"]),
    "swapped axes": (
        lambda d: geojson(d / "反.geojson", [9.0], SWAPPED),
        B,
        ["反.geojson", "exchanged"],
    ),
    "outside the area": (
        lambda d: geojson(d / "外.geojson", [9.0], [[x - 200, y] for x, y in SQUARE]),
        B,
        ["外.geojson", "--area"],
    ),
    "undeclared vertical datum": (
        lambda d: geojson(d / "高.geojson", [9.0]),
        ["--kind", "buildings"],
        ["高.geojson", "--vertical"],
    ),
    "undeclared vertical datum of a DEM": (
        lambda d: raster(d / "高.tif", np.full((8, 8), 50, np.float32)),
        ["--kind", "terrain"],
        ["高.tif", "--vertical"],
    ),
    "height column missing": (
        lambda d: geojson(d / "缺.geojson", ["absent"]),
        [*B, "--height-field", "层高"],
        ["缺.geojson", "层高", "--height-field"],
    ),
    "height column of text": (
        lambda d: geojson(d / "字.geojson", ["十二米"]),
        B,
        ["字.geojson", "十二米", "--height-field"],
    ),
    "negative height": (
        lambda d: geojson(d / "负.geojson", [9.0, -4.0]),
        B,
        ["负.geojson", "-4", "--bad-heights"],
    ),
    "null height, to be refused": (
        lambda d: geojson(d / "空.geojson", [9.0, None]),
        [*B, "--bad-heights", "refuse"],
        ["空.geojson", "--bad-heights"],
    ),
    "empty layer": (lambda d: geojson(d / "无.geojson", []), B, ["无.geojson", "no features"]),
    "only zero-area polygons": (
        lambda d: geojson(d / "零.geojson", [9.0], [SQUARE[0], SQUARE[1], SQUARE[0]] * 2),
        B,
        ["零.geojson"],
    ),
    "a DEM with only nodata": (
        lambda d: raster(d / "空.tif", np.full((64, 64), -9999, np.float32)),
        T,
        ["空.tif", "nodata"],
    ),
    "a rotated raster": (
        lambda d: raster(
            d / "转.tif",
            np.full((8, 8), 50, np.float32),
            Affine(0.001, 0.0005, 113.3, 0.0005, -0.001, 31.8),
        ),
        T,
        ["转.tif", "gdalwarp"],
    ),
    "a raster without CRS": (
        lambda d: raster(d / "无.tif", np.full((8, 8), 50, np.float32), crs=None),
        T,
        ["无.tif", "--crs"],
    ),
    "no such file": (lambda d: d / "没有.shp", B, ["没有.shp"]),
    "not a format": (
        lambda d: (d / "乱.shp").write_bytes(b"\0\1\2" * 99) and d / "乱.shp",
        B,
        ["乱.shp"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_and_what_was_published_stays(
    name: str, tmp_path: Path, cim_here: Any
) -> None:
    make, options, fragments = CASES[name]
    data = tmp_path / "data"
    good = geojson(tmp_path / "好.geojson", [9.0, 12.0])
    assert cim_here("ingest", good, "--id", "x", *B, "--data", data).code == 0
    before = cim_here("show", "x", "--data", data, "--json").out
    folder = tmp_path / "坏"
    folder.mkdir()
    source = make(folder)
    report = tmp_path / "report.json"
    wanted = ["--id", "x" if options[1] == "buildings" else "y"]
    done = cim_here("ingest", source, *wanted, *options, "--data", data, "--report", report)
    assert done.code == 3, done.err
    for fragment in fragments:
        assert fragment in done.err, done.err
    assert "remedy" in done.err
    assert "Traceback" not in done.err
    assert cim_here("show", "x", "--data", data, "--json").out == before
    written = json.loads(report.read_text(encoding="utf-8"))
    assert written["status"] == "refused"
    assert written["error"]["remedy"]


def test_a_plan_shows_the_refusal_with_the_same_exit_code(tmp_path: Path, cim_here: Any) -> None:
    source = geojson(tmp_path / "高.geojson", [9.0])
    done = cim_here("plan", source, "--kind", "buildings", "--json")
    assert done.code == 3
    assert done.json()["refusals"][0]["error"] == "DatumUndeclared"
    assert cim_here("plan", source, *B).code == 0


def test_what_can_be_repaired_is_repaired_counted_and_listed(tmp_path: Path, cim_here: Any) -> None:
    bowtie = [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]
    features = [
        ("Polygon", [SQUARE]),
        ("Polygon", [bowtie]),
        ("Polygon", [[SQUARE[0], *SQUARE]]),
        ("Polygon", [[SQUARE[0], SQUARE[1], SQUARE[0], SQUARE[0]]]),
        ("Polygon", [[[*p, 7.0] for p in SQUARE]]),
        (
            "Polygon",
            [
                SQUARE,
                [
                    [113.3803, 31.6903],
                    [113.3806, 31.6903],
                    [113.3806, 31.6906],
                    [113.3803, 31.6903],
                ],
            ],
        ),
        ("MultiPolygon", [[SQUARE], [[[x + 0.01, y] for x, y in SQUARE]]]),
        ("Point", SQUARE[0]),
    ]
    source = tmp_path / "怪.geojson"
    source.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "properties": {
                            "name": "名\"'/\\😀" * (1000 if i == 0 else 1),
                            "height": None if i == 1 else 10,
                        },
                        "geometry": {"type": kind, "coordinates": coordinates},
                    }
                    for i, (kind, coordinates) in enumerate(features)
                ],
            },
            ensure_ascii=False,
        ),
        encoding="utf-8",
    )
    data, report = tmp_path / "data", tmp_path / "r.json"
    done = cim_here("ingest", source, "--id", "怪", *B, "--data", data, "--report", report)
    assert done.code == 0, done.err
    written = json.loads(report.read_text(encoding="utf-8"))
    found = {f["rule"]: f for f in written["findings"]}
    assert found["G5-invalid-polygon"]["count"] >= 1
    assert found["G5-repeated-vertex"]["count"] >= 1
    assert found["G3-no-polygon"] | {"message": ""} == {
        "rule": "G3-no-polygon",
        "severity": "drop",
        "message": "",
        "count": 1,
        "samples": [7],
    }
    assert found["height-by-default"]["samples"] == [1]
    assert written["result"]["features"] == 6
    assert cim_here("check", "怪", "--data", data).code == 0
    out = tmp_path / "out.geojson"
    assert cim_here("export", "怪", out, "--format", "geojson", "--data", data).code == 0
    names = [f["properties"]["name"] for f in json.loads(out.read_text("utf-8"))["features"]]
    assert "名\"'/\\😀" * 1000 in names
