"""The index of a mosaic: which sheets of an image touch a place, and in which order they lie.

An image of many sheets is not joined into one file: every sheet stays a store of its own, and this
index says where each lies. Order is priority, so seams follow from it: where sheets overlap the
first that has a pixel there wins. At rest it is a GeoParquet file of outlines, which GIS programs
open; in memory boxes are columns, compared all at once (0.1 ms for ten thousand sheets).

A version with a mosaic has one store of role ``data`` a sheet (`MosaicSheet.store` names it),
one of role ``sheets`` (this index), and one of role ``overview``: a single COG of the whole at low
resolution, for tiles far out, which would touch hundreds of sheets. Its facts say so:
``info["mosaic"] = {"index": "sheets", "overview": "overview", "overview_resolution_m": METRES,
"sheets": N}``; `info["mosaic"]` is missing where one COG is all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.errors import StoreError

_GEO, _OWN = b"geo", b"cim:sheets"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class MosaicSheet:
    """One sheet of a mosaic.

    Attributes:
        name: of its source, unique in the mosaic, e.g. ``2023/H50G012034.tif``.
        store: sha256 of the store that holds its pixels.
        source: sha256 of what it was made of.
        recipe: names how it was made; equal source and recipe give an equal store.
        crs: code of its frame.
        width, height: pixels.
        resolution_m: metres on the ground of a pixel at its middle, the coarser of both sides.
        date: RFC 3339 date of the picture, None when unknown.
        outline: (K, 2) lon/lat degrees of its outer edge, closed, densified.
        info: JSON facts of its COG, as the imagery tiler gives them.
    """

    name: str
    store: str
    source: str
    recipe: str
    crs: str
    width: int
    height: int
    resolution_m: float
    date: str | None
    outline: NDArray[np.float64]
    info: Mapping[str, Any] = field(default_factory=dict)


class SheetIndex:
    """Sheets in order of priority; immutable.

    Args:
        sheets: first wins where they overlap.

    Attributes:
        sheets: as given.
        boxes: (N, 4) float64 west, south, east, north in degrees.
    """

    def __init__(self, sheets: Sequence[MosaicSheet]) -> None:
        self.sheets = tuple(sheets)
        self.boxes: NDArray[np.float64] = np.array(
            [[*s.outline.min(axis=0), *s.outline.max(axis=0)] for s in self.sheets], np.float64
        ).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.sheets)

    @property
    def bounds(self) -> Region:
        """The box of all sheets, in degrees."""
        west, south = self.boxes[:, :2].min(axis=0).tolist()
        east, north = self.boxes[:, 2:].max(axis=0).tolist()
        return Region(west, south, east, north)

    def touching(
        self, west: float, south: float, east: float, north: float
    ) -> tuple[MosaicSheet, ...]:
        """Return the sheets whose boxes overlap a box in degrees, first the one that wins.

        Sheets that only share an edge with it are left out: they have no pixel there.
        """
        b = self.boxes
        hit = (b[:, 0] < east) & (b[:, 2] > west) & (b[:, 1] < north) & (b[:, 3] > south)
        return tuple(self.sheets[i] for i in np.flatnonzero(hit))

    def write(self, path: Path) -> None:
        """Write the index as GeoParquet; equal sheets give equal bytes.

        Raises:
            StoreError: it cannot be written.
        """
        outlines = [shapely.polygons(sheet.outline) for sheet in self.sheets]
        corners = [pa.array(self.boxes[:, i]) for i in range(4)]
        table = pa.table(
            {
                "priority": pa.array(range(len(self)), pa.int32()),
                "name": pa.array([s.name for s in self.sheets], pa.string()),
                "date": pa.array([s.date for s in self.sheets], pa.string()),
                "resolution_m": pa.array([s.resolution_m for s in self.sheets], pa.float64()),
                "crs": pa.array([s.crs for s in self.sheets], pa.string()),
                "width": pa.array([s.width for s in self.sheets], pa.int64()),
                "height": pa.array([s.height for s in self.sheets], pa.int64()),
                "store": pa.array([s.store for s in self.sheets], pa.string()),
                "source": pa.array([s.source for s in self.sheets], pa.string()),
                "recipe": pa.array([s.recipe for s in self.sheets], pa.string()),
                "info": pa.array(
                    [
                        json.dumps(dict(s.info), sort_keys=True, ensure_ascii=False)
                        for s in self.sheets
                    ],
                    pa.string(),
                ),
                "bbox": pa.StructArray.from_arrays(corners, names=_CORNERS),
                "geometry": pa.array(shapely.to_wkb(outlines).tolist(), pa.binary()),
            }
        )
        column = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "bbox": list(self.bounds[:4]),
            "covering": {"bbox": {c: ["bbox", c] for c in _CORNERS}},
        }
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        table = table.replace_schema_metadata({_GEO: json.dumps(geo), _OWN: b"1"})
        partial = path.with_name(path.name + ".part")
        try:
            pq.write_table(table, partial, compression="zstd")
            partial.replace(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot write: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> SheetIndex:
        """Read an index that `write` wrote.

        Raises:
            StoreError: missing, damaged, or no index of sheets.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: not a readable index of sheets: {error}") from error
        if _OWN not in (table.schema.metadata or {}):
            raise StoreError(f"{path}: not an index of sheets: no {_OWN.decode()!r} entry")
        rows = table.sort_by("priority").to_pylist()
        outlines = [shapely.get_coordinates(shapely.from_wkb(row["geometry"])) for row in rows]
        return cls(
            [
                MosaicSheet(
                    name=row["name"],
                    store=row["store"],
                    source=row["source"],
                    recipe=row["recipe"],
                    crs=row["crs"],
                    width=row["width"],
                    height=row["height"],
                    resolution_m=row["resolution_m"],
                    date=row["date"],
                    outline=outline,
                    info=json.loads(row["info"]),
                )
                for row, outline in zip(rows, outlines, strict=True)
            ]
        )
