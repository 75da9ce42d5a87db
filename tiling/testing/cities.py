"""Seeded synthetic cities: the same seed gives the same footprints everywhere.

Footprints stand on a 30 m grid; 40 % are L-shaped, 2 % have a courtyard. Eleven attributes, five
of them Chinese text, cover every kind of column with nulls among them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.batches import (
    BASE_COLUMN,
    HEIGHT_COLUMN,
    HEIGHT_SOURCE_COLUMN,
    FeatureBatch,
)
from tiling.crs import TILE_REF

PITCH_M = 30.0
_METRES_A_DEGREE = 111_320.0

_USES = np.array(["住宅", "商业", "办公", "学校", "医院", "工业", "仓储", "公共设施🏛"])
_STRUCTURES = np.array(["钢筋混凝土", "砖混", "钢结构", "木结构"])
_DISTRICTS = np.array(["曾都区", "随县", "广水市", "高新区"])
_ROADS = np.array(["解放路", "汉东路", "烈山大道", "青年路", "文峰路", "“东”/西街"])


def synthetic_footprints(
    n: int, seed: int = 0, lon: float = 113.38, lat: float = 31.69
) -> FeatureBatch:
    """Return `n` footprints of a made-up city.

    Args:
        n: number of buildings.
        seed: of NumPy's default generator.
        lon, lat: degrees of the south-west corner.

    Returns:
        features in `TILE_REF` with the columns that the buildings tiler requires.
    """
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    cell = np.arange(n)
    x = (cell % side) * PITCH_M + rng.uniform(0, 4, n)
    y = (cell // side) * PITCH_M + rng.uniform(0, 4, n)
    width, depth = rng.uniform(8, 24, n), rng.uniform(8, 24, n)
    shape = rng.random(n)
    geometry = _shapes(x, y, width, depth, shape)
    scale = np.array([_METRES_A_DEGREE * np.cos(np.radians(lat)), _METRES_A_DEGREE])
    geometry = shapely.transform(geometry, lambda xy: xy / scale + [lon, lat])
    return FeatureBatch(TILE_REF, cell.astype(np.int64), geometry, _attributes(n, rng))


def _shapes(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    width: NDArray[np.float64],
    depth: NDArray[np.float64],
    shape: NDArray[np.float64],
) -> NDArray[np.object_]:
    corners = np.stack([x, y, x + width, y, x + width, y + depth, x, y + depth], axis=1)
    geometry = shapely.polygons(corners.reshape(-1, 4, 2))
    bent = shape < 0.4
    w, d = width[bent], depth[bent]
    ell = np.stack(
        [0 * w, 0 * d, w, 0 * d, w, d / 2, w / 2, d / 2, w / 2, d, 0 * w, d], axis=1
    ).reshape(-1, 6, 2)
    geometry[bent] = shapely.polygons(ell + np.stack([x[bent], y[bent]], axis=1)[:, None])
    holed = (shape >= 0.4) & (shape < 0.42)
    geometry[holed] = shapely.difference(
        geometry[holed],
        shapely.box(
            (x + width / 3)[holed],
            (y + depth / 3)[holed],
            (x + 2 * width / 3)[holed],
            (y + 2 * depth / 3)[holed],
        ),
    )
    return np.asarray(geometry, dtype=np.object_)


def _attributes(n: int, rng: np.random.Generator) -> pa.Table:
    floors = rng.integers(1, 34, n).astype(np.int16)
    height = np.round(floors * rng.uniform(2.8, 3.6, n), 2)
    year = rng.integers(1950, 2024, n).astype(np.int32)
    days = rng.integers(0, 20_000, n).astype(np.int32)
    number = np.char.add(rng.integers(1, 400, n).astype(str), "号")
    return pa.table(
        {
            "名称": pa.array(
                np.char.add("建筑", np.arange(n).astype(str)), mask=rng.random(n) < 0.3
            ),
            "用途": pa.array(rng.choice(_USES, n)),
            "结构": pa.array(rng.choice(_STRUCTURES, n), mask=rng.random(n) < 0.1),
            "区划": pa.array(rng.choice(_DISTRICTS, n)),
            "地址": pa.array(np.char.add(rng.choice(_ROADS, n), number)),
            "楼层": pa.array(floors),
            "年份": pa.array(year, mask=rng.random(n) < 0.2),
            "单价": pa.array(rng.uniform(3e3, 2e4, n), mask=rng.random(n) < 0.2),
            "在用": pa.array(rng.random(n) < 0.9, mask=rng.random(n) < 0.05),
            "普查日期": pa.array(days).cast(pa.date32()),
            "code": pa.array(rng.integers(0, 2**40, n)),
            BASE_COLUMN: pa.array(np.round(rng.uniform(20, 60, n), 2)),
            HEIGHT_COLUMN: pa.array(height),
            HEIGHT_SOURCE_COLUMN: pa.array(np.full(n, "column:楼高")),
        }
    )
