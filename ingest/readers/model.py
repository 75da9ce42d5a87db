"""OBJ and glTF models with a placement: each of their parts a feature of its own.

A part is an object or group of an OBJ, a node of a glTF. Its geometry is its footprint, its shape
travels in the column `cim:mesh`. Models that are drawn in map coordinates need a CRS in place of
a placement. A model is read whole: it must fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    FieldInfo,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.gltf import read_gltf
from ingest.readers.obj import read_obj
from ingest.readers.parts import Model, Part
from ingest.readers.placement import FORM, Placement, Up
from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import ConfigError, CrsMissing, FieldInvalid, OutsideArea
from tiling.findings import Findings
from tiling.meshes import OTHER, FeatureMesh, encode_mesh

_FIELDS = {
    "name": pa.string(),
    "source": pa.string(),
    "material": pa.string(),
    "triangles": pa.int64(),
}
# No single model reaches this far from its origin; map coordinates always do.
_FAR_M = 50_000.0
# Footprints of more triangles are hulls: their union would take minutes and say no more.
_MAX_UNION = 20_000
_THIN_M = 0.05


@dataclass(frozen=True, slots=True)
class _Placed:
    """A model in its frame: for each part (V, 3) x, y and z, and its footprint."""

    model: Model
    vertices: list[NDArray[np.float64]]
    footprints: NDArray[np.object_]
    up: Up


class ModelReader(Closing):
    """Reads models of buildings and the like."""

    name: ClassVar[str] = "model"
    kind: ClassVar[Kind] = "vector"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self.findings = Findings()
        self._placed: _Placed | None = None
        self._info: SourceInfo | None = None

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most 64 KiB."""
        path = Path(path)
        if path.is_dir():
            return False
        with path.open("rb") as file:
            head = file.read(64 * 1024)
        if path.suffix.lower() == ".obj":
            lines = b"\n" + head.replace(b"\r", b"\n")
            return any(word in lines for word in (b"\nv ", b"\nmtllib ", b"\no ", b"\ng "))
        if path.suffix.lower() == ".gltf":
            return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        return head.startswith(b"glTF")

    def info(self) -> SourceInfo:
        """Return what the model holds.

        Raises:
            CrsMissing: neither a placement nor a CRS is declared.
            OutsideArea: a placement for coordinates that are those of a map.
            SourceUnreadable: the model is damaged.
        """
        if self._info is None:
            placed = self._read()
            bounds = shapely.total_bounds(placed.footprints).tolist()
            fields = tuple(FieldInfo(name, str(kind)) for name, kind in _FIELDS.items())
            layer = LayerInfo(
                name=self.path.stem,
                geometry_type="Polygon",
                features=len(placed.model.parts),
                fields=fields,
                extent=(bounds[0], bounds[1], bounds[2], bounds[3]),
                ref=self._ref(),
                encoding=None,
                has_z=True,
                extra={
                    "format": "OBJ" if self._is_obj() else "glTF",
                    "up": placed.up,
                    "mesh": True,
                    "images": len(placed.model.images),
                },
            )
            files = tuple(placed.model.files)
            nbytes = sum(f.stat().st_size for f in files)
            self._info = SourceInfo(
                self.path, self.name, self.kind, (layer,), files, nbytes, tuple(self.findings)
            )
        return self._info

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield the parts with their meshes; see `SourceReader.batches`."""
        self.info()
        placed = self._read()
        names = tuple(_FIELDS) if columns is None else tuple(columns)
        if unknown := [n for n in names if n not in _FIELDS]:
            raise FieldInvalid(
                f"there is no field {unknown[0]!r}",
                source=self.path,
                remedy=f"fields: {', '.join(_FIELDS)}",
            )
        ids = np.arange(len(placed.model.parts))
        if region is not None:
            ids = ids[shapely.intersects(placed.footprints, shapely.box(*region))]
        rows: list[int] = []
        meshes: list[bytes] = []
        nbytes = 0
        for row in ids.tolist():
            mesh = self._mesh(placed, row)
            if rows and nbytes + len(mesh) > max_nbytes:
                yield self._batch(placed, rows, meshes, names)
                rows, meshes, nbytes = [], [], 0
            rows.append(row)
            meshes.append(mesh)
            nbytes += len(mesh)
        if rows:
            yield self._batch(placed, rows, meshes, names)

    def _batch(
        self, placed: _Placed, rows: list[int], meshes: list[bytes], names: tuple[str, ...]
    ) -> FeatureBatch:
        parts = [placed.model.parts[row] for row in rows]
        values = {
            "name": [part.name or None for part in parts],
            "source": [self.path.name] * len(parts),
            "material": [", ".join(part.materials) or None for part in parts],
            "triangles": [len(part.triangles) for part in parts],
        }
        table = pa.table({name: pa.array(values[name], _FIELDS[name]) for name in names})
        table = table.append_column(MESH_COLUMN, pa.array(meshes, pa.large_binary()))
        ids = np.array(rows, np.int64)
        return FeatureBatch(self._ref(), ids, placed.footprints[rows], table)

    def _mesh(self, placed: _Placed, row: int) -> bytes:
        part = placed.model.parts[row]
        used, image = np.unique(part.image, return_inverse=True)
        kept = used[used >= 0].tolist()
        return encode_mesh(
            FeatureMesh(
                vertices=placed.vertices[row],
                triangles=part.triangles.astype(np.uint32),
                colors=part.colors,
                surfaces=np.full(len(part.triangles), OTHER, np.uint8),
                uv=part.uv if kept else None,
                image=(image.reshape(-1) - (len(used) - len(kept))).astype(np.int32),
                images=tuple(placed.model.images[i] for i in kept),
            )
        )

    def _read(self) -> _Placed:
        if self._placed is None:
            place, crs = self.options.place, self.options.crs
            if place is not None and crs is not None:
                raise ConfigError("a model has either a placement or a CRS: --place or --crs")
            model = (read_obj if self._is_obj() else read_gltf)(self.path, self.findings)
            self._check_place(model)
            up = self._up()
            upright = [_z_up(part.vertices) if up == "y" else part.vertices for part in model.parts]
            metres = [upright_part if place is None else place.enu(upright_part)
                      for upright_part in upright]  # fmt: skip
            outlines = _footprints(model.parts, metres, 1.0 if place or not self._degrees() else 0)
            if place is not None:
                metres, outlines = _on_earth(place, metres, outlines)
            self._placed = _Placed(model, metres, outlines, up)
        return self._placed

    def _check_place(self, model: Model) -> None:
        far = max(float(np.abs(part.vertices).max()) for part in model.parts)
        place = self.options.place
        reach = far * (1.0 if place is None else place.scale)
        if self.options.crs is not None:
            return
        if place is None:
            looks = f"; its coordinates reach {far:,.0f}, as those of a map do" * (far > _FAR_M)
            raise CrsMissing(
                f"nothing says where the model stands{looks}",
                source=self.path,
                remedy=f"place its origin with --place {FORM}, or, when x, y and z are map "
                "coordinates, declare them with --crs EPSG:...",
            )
        if reach > _FAR_M:
            raise OutsideArea(
                f"its vertices lie up to {reach:,.0f} m from its origin, as map coordinates do",
                source=self.path,
                remedy="declare --crs EPSG:... instead of --place, or correct the scale, or move "
                "the model to its origin before exporting it",
            )

    def _up(self) -> Up:
        if self.options.up is not None:
            return self.options.up
        # glTF says so; of OBJ most exporters write y, but maps have z up.
        up: Up = "z" if self._is_obj() and self.options.crs is not None else "y"
        if self._is_obj():
            self.findings.add(
                "model-up", "assumption", f"OBJ does not say which axis is up: taken as {up} (--up)"
            )
        return up

    def _degrees(self) -> bool:
        return self.options.crs is not None and self._ref().crs.is_geographic

    def _ref(self) -> SpatialRef:
        if self.options.crs is not None:
            return SpatialRef.parse(self.options.crs)
        return TILE_REF.with_vertical(None)

    def _is_obj(self) -> bool:
        return self.path.suffix.lower() == ".obj"

    def close(self) -> None:
        """Let go of the model."""
        self._placed = self._info = None


def _z_up(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn y-up into z-up: x stays east, what pointed at the viewer points south."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


def _footprints(
    parts: list[Part], vertices: list[NDArray[np.float64]], metres: float
) -> NDArray[np.object_]:
    """Return what each part covers seen from above: (N,) polygons.

    The union of its triangles, the hull of many; a wall without thickness gets 5 cm.
    """
    found = np.empty(len(parts), dtype=object)
    thin = _THIN_M * metres or _THIN_M / 111_320.0
    for row, (part, points) in enumerate(zip(parts, vertices, strict=True)):
        corners = points[part.triangles][:, :, :2]
        side, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = side[:, 0] * other[:, 1] - side[:, 1] * other[:, 0]
        flat = corners[np.abs(area) > 1e-9 * np.abs(area).max(initial=0.0)]
        outline = shapely.multipoints(points[:, :2])
        if len(flat) and len(flat) <= _MAX_UNION:
            outline = shapely.union_all(shapely.polygons(flat))
        if shapely.get_dimensions(outline) < 2 or shapely.area(outline) < thin * thin:
            outline = shapely.convex_hull(shapely.multipoints(points[:, :2]))
        if shapely.get_dimensions(outline) < 2:
            outline = shapely.buffer(outline, thin / 2, quad_segs=2, cap_style="square")
        found[row] = outline
    return found


def _on_earth(
    place: Placement, vertices: list[NDArray[np.float64]], outlines: NDArray[np.object_]
) -> tuple[list[NDArray[np.float64]], NDArray[np.object_]]:
    """Bring local metres to longitude, latitude and height."""
    placed = [place.geodetic(points) for points in vertices]

    def flat(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return place.geodetic(np.column_stack([points, np.zeros(len(points))]))[:, :2]

    return placed, np.asarray(shapely.transform(outlines, flat), dtype=object)
