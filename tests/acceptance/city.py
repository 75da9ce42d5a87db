"""A thousand random buildings as a Chinese surveying office would hand them over.

A Shapefile in CGCS2000 / 3-degree Gauss-Kruger CM 114E, its text in GBK without a ``.cpg``, ground
elevations (地面高) in the 1985 datum and heights (楼高), nulls in every column that may have them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

CRS = 4547
COUNT = 1000
# EPSG:4547, about the centre of Suizhou; buildings lie within 35 km of it.
_CENTRE = (441_464.178, 3_507_677.309)
_REACH_M = 35_000.0
_USES = ("住宅", "商业用房", "“东”/西街·商住", "学校", "医院", "龘靐仓库", "C&D <三号>")
_ROADS = ("解放路", "汉东路", "烈山大道", "炎帝大道", "O'Brien 路")

# Outlines in units of the building's width; courtyards are listed after a shell.
_L = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
_U = [(0, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2)]
_BOX = [(0, 0), (1.6, 0), (1.6, 1), (0, 1)]
_SHAPES = (
    shapely.Polygon(_BOX),
    shapely.Polygon(_L),
    shapely.Polygon(_U),
    shapely.Polygon([(0, 0), (1, -0.4), (2, 0), (2.2, 0.9), (1, 1.5), (-0.2, 0.9)]),
    shapely.Polygon([(0, 0), (2, 0), (2, 2), (0, 2)], [[(0.5, 0.5), (0.5, 1.5), (1.5, 1.4)]]),
    shapely.MultiPolygon([shapely.Polygon(_BOX), shapely.Polygon([(2, 2), (3, 2), (3, 3)])]),
)


@dataclass(frozen=True)
class City:
    """The city and where it lies.

    Attributes:
        path: the Shapefile.
        outlines: (N,) polygons and multipolygons, EPSG:4547 metres.
        rows: the attributes of each, None for null.
    """

    path: Path
    outlines: NDArray[np.object_]
    rows: list[dict[str, Any]]


def write_city(folder: Path, seed: int = 4547) -> City:
    """Write the city; the same seed gives the same city."""
    rng = np.random.default_rng(seed)
    outlines = np.array([_outline(rng, i) for i in range(COUNT)], dtype=object)
    rows = [_row(rng, i) for i in range(COUNT)]
    path = folder / "随州建筑.shp"
    names = list(rows[0])
    masks = [np.array([row[name] is None for row in rows]) for name in names]
    pyogrio.raw.write(
        path,
        shapely.to_wkb(outlines),
        field_data=[_array(rows, name) for name in names],
        field_mask=[mask if mask.any() else None for mask in masks],
        fields=names,
        geometry_type="Polygon",
        crs=f"EPSG:{CRS}",
        driver="ESRI Shapefile",
        encoding="GBK",
    )
    path.with_suffix(".cpg").unlink()
    assert "编钟".encode("gbk") in path.with_suffix(".dbf").read_bytes()
    return City(path, outlines, rows)


def _outline(rng: np.random.Generator, index: int) -> Any:
    shape = _SHAPES[index % len(_SHAPES)]
    # A few are as large as an exhibition hall, 300 m across, so that they lie in several tiles.
    width = rng.uniform(60, 100) if index % 20 == 0 else rng.uniform(6, 30)
    angle = rng.uniform(0, 2 * np.pi)
    turn = width * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array(_CENTRE) + rng.uniform(-_REACH_M, _REACH_M, 2)
    return shapely.transform(shape, lambda xy: xy @ turn + centre)


def _row(rng: np.random.Generator, index: int) -> dict[str, Any]:
    def sometimes(share: float, value: Any) -> Any:
        return value if rng.random() < share else None

    floors = int(rng.integers(1, 60))
    return {
        "编号": f"楼{index:04d}",
        "名称": sometimes(0.7, f"编钟大厦{rng.integers(1, 99)}座"),
        "用途": str(rng.choice(_USES)),
        "地址": sometimes(0.9, f"{rng.choice(_ROADS)}{rng.integers(1, 400)}号"),
        "备注": sometimes(0.2, "曾侯乙墓出土编钟六十五件" * int(rng.integers(1, 10))),
        "楼层": sometimes(0.8, floors),
        "编码": sometimes(0.9, int(rng.integers(2**33, 2**50))),
        "单价": sometimes(0.8, round(float(rng.uniform(-3e3, 2e4)), 2)),
        "普查": sometimes(0.8, dt.date(1990, 1, 1) + dt.timedelta(int(rng.integers(12_000)))),
        "楼高": round(floors * float(rng.uniform(2.8, 3.6)), 2),
        "地面高": round(float(rng.uniform(20, 600)), 2),
    }


def _array(rows: list[dict[str, Any]], name: str) -> NDArray[Any]:
    values = [row[name] for row in rows]
    known = next(value for value in values if value is not None)
    if isinstance(known, str):
        return np.array(values, dtype=object)
    if isinstance(known, dt.date):
        return np.array([np.datetime64(value or "NaT", "D") for value in values])
    return np.array([0 if value is None else value for value in values], dtype=type(known))
