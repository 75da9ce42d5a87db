"""Heights of footprints: which columns mean what, and what stands where they say nothing.

Chinese footprints carry up to three numbers: 楼高 (height above ground), 楼栋高 (elevation of the
roof) and 地面高 (elevation of the ground); others carry a height, a number of storeys, and for
building parts the height at which the part begins (OSM ``min_height``). The outcome is always the
same two columns for the tiler: the base as an ellipsoidal height and the height above it, metres,
plus a column that says where the height came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from ingest.height_columns import HeightColumns, number_column
from ingest.height_rule import HeightRule
from ingest.overrides import Overridden, Override, apply_overrides
from tiling.batches import (
    BASE_COLUMN,
    HEIGHT_COLUMN,
    HEIGHT_SOURCE_COLUMN,
    MESH_COLUMN,
    SKIRT_COLUMN,
    FeatureBatch,
)
from tiling.errors import FieldInvalid
from tiling.findings import Findings
from tiling.geoid import VerticalDatum
from tiling.meshes import mesh_heights

MISMATCH_M = 0.5
LOW_M = 0.5
# A shape of its own that stands farther than this from the terrain is reported.
OFF_GROUND_M = 5.0
MIN_SHAPE_M = 0.1

Floats = NDArray[np.float64]
# Decimals of metres that are kept: a millimetre; noise below it only costs bytes.
_DECIMALS = 3


class Ground(Protocol):
    """The ground of a terrain; picklable, so that workers can ask it."""

    def __call__(
        self, footprints: NDArray[np.object_], findings: Findings
    ) -> tuple[Floats, Floats]:
        """Return (N,) lowest and (N,) highest ellipsoidal heights along N outlines, metres."""
        ...


@dataclass(slots=True)
class HeightResolver:
    """Adds the base and height columns to batches of one source.

    Attributes:
        columns: which column means what.
        rule: what stands in for missing heights.
        vertical: datum of roof and ground elevations.
        ground: the terrain on which the buildings stand; None without.
        policy: what to do with missing and impossible heights.
        source: for messages.
        overrides: what is declared of single features; it wins over columns and terrain.
        findings: what calls of the resolver itself report to.
    """

    columns: HeightColumns
    rule: HeightRule
    vertical: VerticalDatum
    ground: Ground | None
    policy: str | None
    source: str
    findings: Findings
    overrides: tuple[Override, ...] = ()

    def __call__(self, batch: FeatureBatch) -> FeatureBatch:
        """Resolve a batch, reporting to the resolver's own findings."""
        return self.resolve(batch, self.findings)

    def resolve(self, batch: FeatureBatch, findings: Findings) -> FeatureBatch:
        """Return the batch with base, height, the height's origin and the skirt.

        The columns are `BASE_COLUMN`, `HEIGHT_COLUMN`, `SKIRT_COLUMN` (float64 metres, to the
        millimetre) and `HEIGHT_SOURCE_COLUMN`. The skirt is the relief of the terrain along the
        outline; 0 without a terrain and for parts that begin above the ground. Elevations turn
        ellipsoidal with the geoid at the centroid. Nothing of the resolver changes, so that
        workers may resolve batches in any order.

        Args:
            batch: footprints in lon/lat degrees.
            findings: receives every default, drop and mismatch.

        Features with a shape of their own take base and height from it.

        Raises:
            FieldInvalid: impossible heights under a policy that refuses them.
        """
        said = apply_overrides(self.overrides, batch, findings)
        if said.drop.any():
            findings.add(
                "override-dropped",
                "drop",
                "an override of the manifest leaves the feature out",
                int(said.drop.sum()),
                batch.ids[said.drop].tolist(),
            )
            batch, said = batch.take(~said.drop), said.take(~said.drop)
        if not len(batch):
            return batch
        if MESH_COLUMN not in batch.attributes.column_names:
            return self._extruded(batch, said, findings)
        meshes = batch.attributes.column(MESH_COLUMN)
        own = np.asarray(meshes.is_valid().to_numpy())
        stays = own & np.any([np.isfinite(v) for v in said.numbers.values()], axis=0)
        findings.add(
            "override-of-shape",
            "warning",
            "an override says heights of a feature with a shape of its own, which stays as it is",
            int(stays.sum()),
            batch.ids[stays].tolist(),
        )
        if not own.any():
            return self._extruded(batch, said, findings)
        shaped = self._shaped(batch.take(own), findings)
        if own.all():
            return shaped
        rest = batch.take(~own)
        extruded = self._extruded(rest, said.take(~own), findings)
        # In the order of their ids, as they came.
        ids = np.concatenate([shaped.ids, extruded.ids])
        order = np.argsort(ids, kind="stable")
        return FeatureBatch(
            batch.ref,
            ids[order],
            np.concatenate([shaped.geometry, extruded.geometry])[order],
            pa.concat_tables([shaped.attributes, extruded.attributes]).take(pa.array(order)),
        )

    def _shaped(self, batch: FeatureBatch, findings: Findings) -> FeatureBatch:
        low, high = mesh_heights(batch.attributes.column(MESH_COLUMN))
        if self.ground is not None:
            _, ground = self.ground(batch.geometry, findings)
            floats = np.abs(low - ground) > OFF_GROUND_M
            findings.add(
                "shape-off-ground",
                "warning",
                f"shapes whose lowest point is more than {OFF_GROUND_M:g} m off the terrain; they "
                "stay where their source puts them",
                int(floats.sum()),
                batch.ids[floats].tolist(),
            )
        # A shape that is flat still has a place in coarser levels.
        height = np.maximum(high - low, MIN_SHAPE_M)
        return (
            batch.with_column(BASE_COLUMN, np.round(low, _DECIMALS))
            .with_column(HEIGHT_COLUMN, np.round(height, _DECIMALS))
            .with_column(SKIRT_COLUMN, np.zeros(len(batch)))
            .with_column(HEIGHT_SOURCE_COLUMN, pa.array(["shape"] * len(batch), pa.string()))
        )

    def _extruded(self, batch: FeatureBatch, said: Overridden, findings: Findings) -> FeatureBatch:
        n = len(batch)
        read = {
            role: number_column(batch, name, self.source) if name else np.full(n, np.nan)
            for role, name in (
                ("height", self.columns.height),
                ("roof", self.columns.roof),
                ("ground", self.columns.ground),
                ("part_base", self.columns.part_base),
                ("floors", self.columns.floors),
            )
        }
        points = shapely.centroid(batch.geometry)
        separation = self.vertical.separation(shapely.get_x(points), shapely.get_y(points))
        base, skirt = self._base(batch, read["ground"], separation, findings)
        declared = said.numbers["base"] + separation
        told = np.isfinite(declared)
        if self.ground is not None:
            # Walls still reach down to the lowest ground.
            skirt = np.where(told, np.maximum(skirt, declared - base), skirt)
        base = np.where(told, declared, base)
        top = self._declared_height(said, base, separation)
        height, origin = self._height(batch, read, top, base, separation, findings)
        begins = read["part_base"]
        if self.columns.part_base_absolute:
            begins = begins + separation - base
        part = np.where(np.isfinite(begins), np.maximum(begins, 0.0), 0.0)
        above = part < height  # a part that begins above its own top says nothing useful
        findings.add(
            "part-base-above-top",
            "repair",
            f"{self.columns.part_base!r} is not below the top of the building: taken as 0",
            int((~above & (part > 0)).sum()),
            batch.ids[~above & (part > 0)].tolist(),
        )
        part = np.where(above, part, 0.0)
        batch = (
            batch.with_column(BASE_COLUMN, np.round(base + part, _DECIMALS))
            .with_column(HEIGHT_COLUMN, np.round(height - part, _DECIMALS))
            .with_column(SKIRT_COLUMN, np.round(np.where(part > 0, 0.0, skirt), _DECIMALS))
            .with_column(HEIGHT_SOURCE_COLUMN, pa.array(origin, type=pa.string()))
        )
        return batch.take(origin != "dropped") if (origin == "dropped").any() else batch

    def _base(
        self, batch: FeatureBatch, ground: Floats, separation: Floats, findings: Findings
    ) -> tuple[Floats, Floats]:
        if self.ground is not None:
            lowest, highest = self.ground(batch.geometry, findings)
            return lowest, highest - lowest
        missing = ~np.isfinite(ground)
        if self.columns.ground is not None:
            findings.add(
                "base-missing",
                "assumption",
                f"no ground elevation in {self.columns.ground!r}: 0 m in the vertical datum taken",
                int(missing.sum()),
                batch.ids[missing].tolist(),
            )
        else:
            findings.add(
                "base-zero",
                "assumption",
                "neither a terrain nor ground elevations: buildings stand at 0 m of the vertical "
                "datum",
                len(batch),
            )
        return np.where(missing, 0.0, ground) + separation, np.zeros(len(batch))

    def _declared_height(self, said: Overridden, base: Floats, separation: Floats) -> Floats:
        """Return the height that overrides say, (N,) metres, NaN where they say none."""
        height = said.numbers["floors"] * self.rule.storey_height_m
        roof = said.numbers["roof"] + separation - base
        height = np.where(np.isfinite(roof), roof, height)
        return np.where(np.isfinite(said.numbers["height"]), said.numbers["height"], height)

    def _height(
        self,
        batch: FeatureBatch,
        read: Mapping[str, Floats],
        declared: Floats,
        base: Floats,
        separation: Floats,
        findings: Findings,
    ) -> tuple[Floats, NDArray[np.object_]]:
        height = read["height"].copy()
        origin = np.full(len(batch), "field", dtype=object)
        from_roof = read["roof"] + separation - base
        if self.columns.height is None and self.columns.roof is not None:
            height = from_roof
            origin[:] = "roof - ground"
        elif self.columns.roof is not None and self.columns.ground is not None:
            gap = np.abs(read["roof"] - read["ground"] - height)
            off = gap > MISMATCH_M  # NaN compares false: unknown is no mismatch
            findings.add(
                "height-mismatch",
                "warning",
                f"|roof − ground − height| exceeds {MISMATCH_M} m: the height column was taken",
                int(off.sum()),
                batch.ids[off].tolist(),
            )
        told = np.isfinite(declared)
        height = np.where(told, declared, height)
        origin[told] = "override"
        unknown = ~np.isfinite(height) | (height == 0)
        impossible = ~unknown & ((height < 0) | (height > self.rule.max_m))
        self._judge(batch, height, unknown, impossible, findings)
        replace = unknown | impossible
        low = ~replace & (height < LOW_M)
        findings.add(
            "height-low",
            "warning",
            f"lower than {LOW_M:g} m: hardly a building; kept as it is",
            int(low.sum()),
            batch.ids[low].tolist(),
        )
        if not replace.any():
            return height, origin
        if self.policy == "drop":
            origin[replace] = "dropped"
            height[replace] = 1.0
            return height, origin
        return self._defaults(batch, height, origin, replace, read["floors"], findings)

    def _judge(
        self,
        batch: FeatureBatch,
        height: Floats,
        unknown: NDArray[np.bool_],
        impossible: NDArray[np.bool_],
        findings: Findings,
    ) -> None:
        name = self.columns.height or self.columns.roof
        bad = impossible if self.policy is None else impossible | unknown
        if self.policy in (None, "refuse") and bad.any():
            first = int(np.flatnonzero(bad)[0])
            said = f"says {height[first]:g} m" if np.isfinite(height[first]) else "says nothing"
            raise FieldInvalid(
                f"features have no possible height in {name!r} (above 0, up to "
                f"{self.rule.max_m:g} m): feature {int(batch.ids[first])} {said}",
                source=self.source,
                remedy="correct the column, or choose what happens to them: --bad-heights default "
                "(a height by storeys, class or rule) or --bad-heights drop",
            )
        if self.policy == "drop":
            findings.add(
                "height-dropped",
                "drop",
                f"no possible height in {name!r}: the feature was left out",
                int(bad.sum()),
                batch.ids[bad].tolist(),
            )
        elif self.policy == "default":
            findings.add(
                "height-impossible",
                "warning",
                f"negative or above {self.rule.max_m:g} m in {name!r}: replaced by a default",
                int(impossible.sum()),
                batch.ids[impossible].tolist(),
            )

    def _defaults(
        self,
        batch: FeatureBatch,
        height: Floats,
        origin: NDArray[np.object_],
        replace: NDArray[np.bool_],
        floors: Floats,
        findings: Findings,
    ) -> tuple[Floats, NDArray[np.object_]]:
        by_class = self._class_heights(batch)
        by_floors = np.where((floors >= 1) & (floors <= 250), floors, np.nan)
        by_floors = by_floors * self.rule.storey_height_m
        choices = (
            ("floors", f"storeys × {self.rule.storey_height_m:g} m", by_floors),
            ("class", "the default of its class", by_class),
            ("default", f"{self.rule.default_m:g} m", np.full(len(batch), self.rule.default_m)),
        )
        for word, meaning, values in choices:
            hit = replace & np.isfinite(values)
            height[hit], origin[hit] = values[hit], word
            replace = replace & ~hit
            findings.add(
                f"height-by-{word}",
                "assumption",
                f"no height: {meaning} taken",
                int(hit.sum()),
                batch.ids[hit].tolist(),
            )
        return height, origin

    def _class_heights(self, batch: FeatureBatch) -> Floats:
        heights = np.full(len(batch), np.nan)
        table = self.rule.by_class or {}
        names = pa.array(list(table), type=pa.string())
        values = np.array([*table.values(), np.nan])
        for name in self.rule.class_fields:
            if name not in batch.attributes.column_names or not table:
                continue
            column = batch.attributes.column(name)
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                continue
            index = pc.fill_null(pc.index_in(column.cast(pa.string()), names), len(table))
            found = values[index.to_numpy()]
            heights = np.where(np.isfinite(heights), heights, found)
        return heights
