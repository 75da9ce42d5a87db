"""Batches: the values that flow from readers to tilers.

Arrays, never loose objects; every batch carries the frame of its coordinates (`SpatialRef`).
Longitude (easting) first, always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.crs import SpatialRef

if TYPE_CHECKING:  # rasters flow without Arrow
    import pyarrow as pa

# Columns that the ingest derives and tilers require. The prefix keeps them apart from the
# source's own attributes; writers that cannot hold a colon replace it by an underscore.
BASE_COLUMN = "cim:base_m"
HEIGHT_COLUMN = "cim:height_m"
HEIGHT_SOURCE_COLUMN = "cim:height_source"
LAYER_COLUMN = "cim:layer"
# Metres that walls reach below the base; set aside where attributes are shown.
SKIRT_COLUMN = "cim:skirt_m"
# The record of a feature's own three-dimensional shape (`tiling.meshes`); null: extruded.
MESH_COLUMN = "cim:mesh"


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """N features: geometry and attributes, column by column.

    Attributes:
        ref: the frame of the coordinates.
        ids: (N,) int64; the ordinal of the feature in its source, unique in a run.
        geometry: (N,) object array of shapely geometries, never None.
        attributes: Arrow table of N rows; nulls are nulls, types are the source's.
    """

    ref: SpatialRef
    ids: NDArray[np.int64]
    geometry: NDArray[np.object_]
    attributes: pa.Table

    def __post_init__(self) -> None:
        n = len(self.ids)
        if len(self.geometry) != n or self.attributes.num_rows != n:
            raise ValueError(
                f"columns disagree: {n} ids, {len(self.geometry)} geometries, "
                f"{self.attributes.num_rows} attribute rows"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Rough size in memory: coordinates (24 bytes each) and attributes."""
        vertices = int(shapely.get_num_coordinates(self.geometry).sum())
        return vertices * 24 + int(self.attributes.nbytes)

    def take(self, selection: NDArray[Any]) -> FeatureBatch:
        """Return the features chosen by a boolean mask or by (M,) positions."""
        index = np.flatnonzero(selection) if selection.dtype == bool else selection
        return replace(
            self,
            ids=self.ids[index],
            geometry=self.geometry[index],
            attributes=_take_rows(self.attributes, index),
        )

    def column(self, name: str) -> NDArray[Any]:
        """Return an attribute as a NumPy array (nulls of number columns become NaN)."""
        return np.asarray(self.attributes.column(name).to_numpy())

    def with_column(self, name: str, values: Any) -> FeatureBatch:
        """Return the batch with an attribute added or replaced."""
        import pyarrow as pa

        table = self.attributes
        column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
        return replace(self, attributes=table)

    def split(self, max_nbytes: int) -> Iterator[FeatureBatch]:
        """Yield consecutive parts of roughly `max_nbytes` each."""
        parts = max(1, -(-self.nbytes // max_nbytes))
        for index in np.array_split(np.arange(len(self)), min(parts, max(1, len(self)))):
            yield self.take(index)


def _take_rows(table: pa.Table, index: NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    if table.num_columns:
        return table.take(pa.array(index))
    # Arrow forgets how many rows a table without columns has once it takes from it.
    return pa.table({"": pa.nulls(len(index))}).select([])


@dataclass(frozen=True, slots=True)
class PointBatch:
    """N points: coordinates and what was measured with them, column by column.

    Attributes:
        ref: the frame of the coordinates.
        first: ordinal of the first point in its source; the others follow it.
        xyz: (N, 3) float64; easting or longitude first, heights in metres.
        columns: (N,) or (N, k) arrays by name, in the types of the source. Names of the LAS
            specification where it has one, in snake case (``classification``, ``intensity``,
            ``return_number``, ``gps_time`` ...); ``rgb`` is (N, 3) uint8 or uint16.
    """

    ref: SpatialRef
    first: int
    xyz: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        n = len(self.xyz)
        for name, column in self.columns.items():
            if len(column) != n:
                raise ValueError(f"column {name} has {len(column)} rows for {n} points")

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.xyz.nbytes + sum(column.nbytes for column in self.columns.values())

    def take(self, selection: NDArray[Any]) -> PointBatch:
        """Return the points chosen by a boolean mask or by (M,) positions; `first` stays."""
        columns = {name: column[selection] for name, column in self.columns.items()}
        return replace(self, xyz=self.xyz[selection], columns=columns)


class Lattice(NamedTuple):
    """Nodes of a regular grid: (i, j) lies at ``west + i * step, south + j * step``, degrees.

    Attributes:
        west_deg, south_deg: the first node.
        step_deg: 180 / 2**level / cells of a tile of a level, exact in binary.
        columns, rows: numbers of nodes.
    """

    west_deg: float
    south_deg: float
    step_deg: float
    columns: int
    rows: int


class TerrainSource(Protocol):
    """Ellipsoidal heights on any lattice; picklable, opens files when asked.

    The law of a source: the height of a node is a pure function of its place and of the step, never
    of the window it is asked in, bit for bit. Coarse steps may be read from coarse overviews.

    Attributes:
        extent: lon/lat degrees of the data's outer edges; range of its ellipsoidal heights.
        coverage: the same for every sheet.
        resolution_deg: size of the finest pixel, degrees.
    """

    @property
    def extent(self) -> Region:
        """The place."""
        ...

    @property
    def coverage(self) -> tuple[Region, ...]:
        """The places of the sheets."""
        ...

    @property
    def resolution_deg(self) -> float:
        """The size of a pixel."""
        ...

    def heights(self, lattice: Lattice) -> NDArray[np.float64]:
        """Return the heights of the nodes of a lattice within -180 .. 180 and -90 .. 90 degrees.

        Returns:
            (rows, columns) float64 ellipsoidal metres, row 0 the southernmost; NaN where void.
        """
        ...


@runtime_checkable
class PixelSource(Protocol):
    """A source that can also name its own pixels: what meshes are measured against."""

    def pixels(
        self, region: Region, limit: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return pixels inside a region, on an even stride when there are more than a limit.

        Args:
            region: degrees.
            limit: about how many at most.

        Returns:
            (N,) longitudes and latitudes of centres in degrees, and (N,) ellipsoidal heights,
            metres; pixels without data are left out.
        """
        ...
