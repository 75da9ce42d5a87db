"""Footprints of a made-up city of any size, written chunk by chunk, the same from the same seed.

Plain rows as an office would hand them over: EPSG:4547 metres, roof heights above ground (楼高),
ground elevations in the 1985 datum (地面高) and ten attributes, six of them text. Text is drawn
at random for every building, which costs a compressor more than a real street does. A chunk depends
on its own number alone, so memory does not grow with the city.

Two layouts: ``grid`` stands on a 30 m grid, 40 % L-shapes, 2 % with a courtyard, as in
`tiling.testing.cities`; ``natural`` gathers the same buildings, of lognormal size, in towns whose
density falls off from their centres; U-shapes, round and bayed outlines and pairs are among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyogrio
import shapely
from numpy.typing import NDArray

Layout = Literal["grid", "natural"]

CRS = "EPSG:4547"
# Easting and northing of the south-west corner, beside the centre of Suizhou.
ORIGIN = (441_000.0, 3_507_000.0)
PITCH_M = 30.0
CHUNK = 50_000
CODE, HEIGHT, BASE = "统一编码", "楼高", "地面高"
ATTRIBUTES = (CODE, "名称", "用途", "结构", "区划", "地址", "楼层", "年份", HEIGHT, "普查日期")

_USES = np.array(["住宅", "商业服务", "办公", "学校", "医院", "工业", "仓储", "公共设施🏛"])
_USE_SHARES = np.array([0.62, 0.12, 0.08, 0.03, 0.01, 0.08, 0.04, 0.02])
_STRUCTURES = np.array(["钢筋混凝土", "砖混", "钢结构", "砖木"])
_DISTRICTS = np.array(["曾都区", "随县", "广水市", "高新技术产业开发区"])
_PLACES = np.array(
    "编钟 擂鼓墩 季梁 神农 炎帝 汉东 白云湖 文峰 舜井 烈山 玉波门 望城岗 花溪 桃园 明珠 交通 "
    "龙门 清河 府河 吉祥".split()
)
_COMPLEXES = np.array(["花园", "小区", "大厦", "新村", "公寓", "家园"])
_ROADS = np.array(
    "解放路 汉东路 烈山大道 青年路 文峰路 沿河大道 交通大道 炎帝大道 玉石街 “东”/西街 舜井大道 "
    "清河路 迎宾大道 神农大道 编钟大道 擂鼓墩大道".split()
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some buildings.

    Attributes:
        geometry: (N,) polygons and multipolygons, EPSG:4547 metres.
        table: `ATTRIBUTES` and `BASE`.
    """

    geometry: NDArray[np.object_]
    table: pa.Table

    def as_arrow(self) -> pa.Table:
        """Return the rows with their geometry as WKB, column ``geometry``."""
        wkb = pa.array(shapely.to_wkb(self.geometry), type=pa.binary())
        return self.table.append_column("geometry", wkb)


def footprints(folder: Path, count: int, layout: Layout = "grid", seed: int = 7) -> Path:
    """Write the city as FlatGeobuf, once."""
    path = folder / f"city-{layout}-{count}.fgb"
    if not path.exists():
        write(path, chunks(count, layout, seed))
    return path


def write(path: Path, parts: Iterator[Rows]) -> None:
    """Write rows as FlatGeobuf; a file is there whole or not at all."""
    first = next(parts).as_arrow()

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for rows in parts:
            yield from rows.as_arrow().to_batches()

    staged = path.with_name(f"staged-{path.name}")
    staged.unlink(missing_ok=True)
    pyogrio.write_arrow(
        pa.RecordBatchReader.from_batches(first.schema, batches()),
        staged,
        driver="FlatGeobuf",
        layer=path.stem,
        geometry_name="geometry",
        geometry_type="Unknown",
        crs=CRS,
    )
    staged.rename(path)


def chunks(count: int, layout: Layout = "grid", seed: int = 7) -> Iterator[Rows]:
    """Yield the city, `CHUNK` buildings at a time."""
    centres = _Towns.of(count, seed) if layout == "natural" else None
    for begin in range(0, count, CHUNK):
        index = np.arange(begin, min(begin + CHUNK, count))
        rng = np.random.default_rng([seed, begin // CHUNK])
        if centres is None:
            geometry, x, y = _grid(index, count, rng)
        else:
            geometry, x, y = centres.buildings(index, rng)
        yield Rows(geometry, _attributes(index, x, y, rng))


def block(count: int, size: int, seed: int = 7) -> Rows:
    """Return `size` neighbours in the middle of a ``grid`` city, a storey higher than they were."""
    side = int(np.ceil(np.sqrt(count)))
    width = int(np.ceil(np.sqrt(size)))
    at = np.arange(size)
    low = (side - width) // 2
    index = (low + at // width) * side + low + at % width
    return _raised(_picked(count, index, seed))


def scattered(count: int, size: int, seed: int = 7) -> Rows:
    """Return `size` buildings from all over a ``grid`` city, a storey higher than they were."""
    rng = np.random.default_rng([seed, 1_000_003])
    return _raised(_picked(count, rng.choice(count, size, replace=False), seed))


def _picked(count: int, index: NDArray[np.int64], seed: int) -> Rows:
    """Return some buildings of a ``grid`` city by their numbers."""
    geometry, tables = [], []
    for chunk in np.unique(index // CHUNK):
        begin = int(chunk) * CHUNK
        whole = np.arange(begin, min(begin + CHUNK, count))
        rng = np.random.default_rng([seed, int(chunk)])
        shapes, x, y = _grid(whole, count, rng)
        inside = index[index // CHUNK == chunk] - begin
        geometry.append(shapes[inside])
        tables.append(_attributes(whole, x, y, rng).take(pa.array(inside)))
    return Rows(np.concatenate(geometry), pa.concat_tables(tables))


def _raised(rows: Rows) -> Rows:
    table = rows.table
    raised = pc.round(pc.add(table[HEIGHT], 3.0), 1)
    table = table.set_column(table.schema.get_field_index(HEIGHT), HEIGHT, raised)
    floors = pc.add(table["楼层"], pa.scalar(1, pa.int16()))
    return Rows(
        rows.geometry, table.set_column(table.schema.get_field_index("楼层"), "楼层", floors)
    )


def _grid(
    index: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.object_], NDArray[np.float64], NDArray[np.float64]]:
    n, side = len(index), int(np.ceil(np.sqrt(count)))
    x = ORIGIN[0] + (index % side) * PITCH_M + rng.uniform(0, 4, n)
    y = ORIGIN[1] + (index // side) * PITCH_M + rng.uniform(0, 4, n)
    width, depth = rng.uniform(8, 24, n), rng.uniform(8, 24, n)
    shape = rng.random(n)
    origin = np.stack([x, y], axis=1)
    size = np.stack([width, depth], axis=1)
    geometry = _outlines(_BOX, size, origin, np.zeros(n))
    _put(geometry, shape < 0.4, _ELL, size, origin, np.zeros(n))
    holed = (shape >= 0.4) & (shape < 0.42)
    geometry[holed] = shapely.difference(
        geometry[holed], _outlines(_MIDDLE, size[holed], origin[holed], np.zeros(holed.sum()))
    )
    return geometry, x, y


_BOX = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
_MIDDLE = _BOX / 3 + 1 / 3
_ELL = np.array([[0, 0], [1, 0], [1, 0.5], [0.5, 0.5], [0.5, 1], [0, 1]], dtype=float)
_YOU = np.array(
    [[0, 0], [1, 0], [1, 1], [0.7, 1], [0.7, 0.4], [0.3, 0.4], [0.3, 1], [0, 1]], dtype=float
)
_TURNS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_ROUND = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1) / 2 + 0.5
# A façade with bays: twelve of them along the front.
_BAYS = np.concatenate(
    [
        [[0, 0]],
        [[k / 24, (0, 0.08)[(k + up) % 2]] for k in range(1, 24) for up in (0, 1)],
        [[1, 0], [1, 1], [0, 1]],
    ]
)


def _outlines(
    unit: NDArray[np.float64],
    size: NDArray[np.float64],
    origin: NDArray[np.float64],
    angle: NDArray[np.float64],
) -> NDArray[np.object_]:
    """Return (N,) polygons: an outline of the unit square, scaled (N, 2), turned, moved (N, 2)."""
    local = unit[None] * size[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack(
        [
            local[..., 0] * cos - local[..., 1] * sin + origin[:, :1],
            local[..., 0] * sin + local[..., 1] * cos + origin[:, 1:],
        ],
        axis=-1,
    )
    made: NDArray[np.object_] = shapely.polygons(turned)
    return made


def _put(
    geometry: NDArray[np.object_],
    where: NDArray[np.bool_],
    unit: NDArray[np.float64],
    size: NDArray[np.float64],
    origin: NDArray[np.float64],
    angle: NDArray[np.float64],
) -> None:
    geometry[where] = _outlines(unit, size[where], origin[where], angle[where])


@dataclass(frozen=True, slots=True)
class _Towns:
    """Where the buildings of a ``natural`` city stand.

    Attributes:
        centre: (T, 2) metres.
        pitch: (T,) metres between the plots of a town.
        angle: (T,) radians by which its streets are turned.
        first: (T + 1,) number of the first building of each.
    """

    centre: NDArray[np.float64]
    pitch: NDArray[np.float64]
    angle: NDArray[np.float64]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, count: int, seed: int) -> _Towns:
        """Return the towns of a city: sizes like Zipf's, none reaching into another."""
        rng = np.random.default_rng([seed, 999_983])
        towns = max(1, count // 1500)
        share = 1.0 / np.arange(1, towns + 1) ** 0.8
        size = np.maximum(1, np.floor(count * share / share.sum()).astype(np.int64))
        size[0] += count - size.sum()
        pitch = rng.uniform(22, 40, towns)
        # Plots fill a disc whose density falls off; `_spiral` reaches 1.35 sqrt(n) pitches.
        radius = 1.4 * np.sqrt(size) * pitch + 60
        reach = 1.6 * np.sqrt((radius**2).sum())
        centre = np.zeros((towns, 2))
        for town in range(1, towns):
            while True:
                at = rng.uniform(-reach, reach, 2)
                gap = np.hypot(*(centre[:town] - at).T)
                if (gap > radius[:town] + radius[town]).all():
                    break
            centre[town] = at
        low = (centre - radius[:, None]).min(axis=0)
        first = np.concatenate([[0], np.cumsum(size)])
        angle = rng.uniform(0, np.pi / 2, towns)
        return cls(centre - low + ORIGIN, pitch, angle, first)

    def buildings(
        self, index: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.object_], NDArray[np.float64], NDArray[np.float64]]:
        """Return outlines and positions of some buildings by their numbers."""
        n = len(index)
        town = np.searchsorted(self.first, index, side="right") - 1
        plot = _spiral(index - self.first[town])
        pitch, angle = self.pitch[town], self.angle[town]
        cos, sin = np.cos(angle), np.sin(angle)
        # Buildings of lognormal size, never larger than their plot.
        size = np.minimum(rng.lognormal(2.5, 0.35, (n, 2)), 0.9 * pitch[:, None])
        free = pitch[:, None] - size
        corner = plot * pitch[:, None] + rng.uniform(0, 1, (n, 2)) * free * 0.9
        x = self.centre[town, 0] + corner[:, 0] * cos - corner[:, 1] * sin
        y = self.centre[town, 1] + corner[:, 0] * sin + corner[:, 1] * cos
        origin, shape = np.stack([x, y], axis=1), rng.random(n)
        geometry = _outlines(_BOX, size, origin, angle)
        for low, high, unit in (
            (0.00, 0.25, _ELL), (0.25, 0.32, _YOU), (0.32, 0.34, _ROUND), (0.34, 0.42, _BAYS),
        ):  # fmt: skip
            _put(geometry, (shape >= low) & (shape < high), unit, size, origin, angle)
        holed = (shape >= 0.42) & (shape < 0.44)
        geometry[holed] = shapely.difference(
            geometry[holed], _outlines(_MIDDLE, size[holed], origin[holed], angle[holed])
        )
        pair = (shape >= 0.44) & (shape < 0.45)
        small = size[pair] * 0.45
        shift = np.stack([size[pair, 0] * 0.55 * cos[pair], size[pair, 0] * 0.55 * sin[pair]], 1)
        geometry[pair] = shapely.union(
            _outlines(_BOX, small, origin[pair], angle[pair]),
            _outlines(_BOX, small, origin[pair] + shift, angle[pair]),
        )
        return geometry, x, y


def _spiral(number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (N, 2) whole plots of a square spiral outwards, thinned with the distance.

    Ring k of a square spiral has 8 k plots; every town skips more of them further out.
    """
    spread = number + (number / 12.0) ** 1.08
    whole = np.floor(spread).astype(np.int64)
    ring = np.ceil((np.sqrt(whole + 1.0) - 1) / 2).astype(np.int64)
    inner = (2 * ring - 1) ** 2
    step = whole - np.where(ring > 0, inner, 0)
    side, along = np.divmod(step, np.maximum(2 * ring, 1))
    along = along - ring + 1
    x = np.select([side == 0, side == 1, side == 2], [ring, -along, -ring], along)
    y = np.select([side == 0, side == 1, side == 2], [along, ring, -along], -ring)
    return np.stack([np.where(ring > 0, x, 0), np.where(ring > 0, y, 0)], axis=1).astype(float)


def _attributes(
    index: NDArray[np.int64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    rng: np.random.Generator,
) -> pa.Table:
    n = len(index)
    district = ((x - ORIGIN[0]) // 9000 + (y - ORIGIN[1]) // 7000).astype(np.int64) % 4
    street = ((x // 3000) + (y // 3000)).astype(np.int64) % 30
    # County 6, street 3, community 2, serial 8 digits; the factor shares no divisor with 10^8, so
    # serials are each there once and in no order that a compressor could use.
    serial = (index * 73_856_093) % 10**8
    number = (421_301 + district) * 10**13 + street * 10**10 + (street * 7 % 12) * 10**8 + serial
    floors = 1 + np.minimum(rng.gamma(2.2, 3.0, n), 60).astype(np.int16)
    height = np.round(floors * rng.uniform(2.8, 3.3, n), 1)
    far = (x - ORIGIN[0]) / 5000, (y - ORIGIN[1]) / 7000
    ground = 70 + 18 * np.sin(far[0]) + 12 * np.cos(far[1]) + rng.uniform(0, 0.5, n)
    name = _joined(
        rng.choice(_PLACES, n), rng.choice(_COMPLEXES, n), rng.integers(1, 60, n), "号楼"
    )
    address = _joined(rng.choice(_ROADS, n), "", rng.integers(1, 600, n), "号")
    return pa.table(
        {
            CODE: pa.array(number).cast(pa.string()),
            "名称": pa.array(name, mask=rng.random(n) < 0.3),
            "用途": pa.array(rng.choice(_USES, n, p=_USE_SHARES)),
            "结构": pa.array(rng.choice(_STRUCTURES, n), mask=rng.random(n) < 0.1),
            "区划": pa.array(_DISTRICTS[district]),
            "地址": pa.array(address),
            "楼层": pa.array(floors.astype(np.int16)),
            "年份": pa.array(
                rng.integers(1960, 2025, n).astype(np.int16), mask=rng.random(n) < 0.2
            ),
            HEIGHT: pa.array(height),
            "普查日期": pa.array(rng.integers(17_500, 19_900, n).astype(np.int32)).cast(
                pa.date32()
            ),
            BASE: pa.array(np.round(ground, 2)),
        }
    )


def _joined(
    first: NDArray[np.str_], second: NDArray[np.str_] | str, number: NDArray[np.int64], last: str
) -> NDArray[np.str_]:
    made: NDArray[np.str_] = np.char.add(
        np.char.add(np.char.add(first, second), number.astype(str)), last
    )
    return made
