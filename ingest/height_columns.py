"""Which columns of a source are heights: declared, or known by their names; and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.manifest import IngestOptions
from tiling.batches import FeatureBatch
from tiling.errors import FieldInvalid

Floats = NDArray[np.float64]

HEIGHT_NAMES = ("height", "building:height", "height_m", "bldg_height", "楼高", "建筑高度", "高度")
# Names that leave no doubt that a height above ground is meant.
CLEAR_NAMES = ("building:height", "height_m", "bldg_height", "楼高", "建筑高度")
# Known only where the kind is: elsewhere they may be anything.
LOOSE_NAMES = ("h", "高")
# Taken where nothing else is a height, and something says where the ground is.
ELEVATION_NAMES = ("高程", "标高", "elevation", "elev")
ROOF_NAMES = ("楼栋高", "楼顶高", "楼顶高程", "屋顶高程", "roof_elevation", "roof_elev")
GROUND_NAMES = ("地面高", "地面高程", "base_elevation", "ground_elevation", "ground_elev")
PART_BASE_NAMES = ("min_height", "building:min_height")
FLOORS_NAMES = (
    "floors",
    "floor",
    "building:levels",
    "levels",
    "num_floors",
    "层数",
    "楼层",
    "楼层数",
)


@dataclass(frozen=True, slots=True)
class HeightColumns:
    """Which column means what; None: the source has none.

    Attributes:
        height: height above ground, metres.
        roof: elevation of the roof in the vertical datum.
        ground: elevation of the ground in the vertical datum.
        part_base: height above ground at which a building part begins.
        floors: number of storeys.
        evidence: how this was decided, for the report.
        part_base_absolute: whether `part_base` is an elevation.
    """

    height: str | None
    roof: str | None
    ground: str | None
    part_base: str | None
    floors: str | None
    evidence: str
    part_base_absolute: bool = False

    @property
    def uses_datum(self) -> bool:
        """Whether any elevation (not only heights above ground) enters."""
        elevations = self.roof is not None and self.height is None
        return self.ground is not None or elevations or self.part_base_absolute


def find_columns(
    names: Sequence[str], options: IngestOptions, source: str, loose: bool = False
) -> HeightColumns:
    """Decide which columns hold what, from the options or from well-known names.

    Args:
        names: of the source's columns.
        options: what was declared.
        source: for messages.
        loose: whether names count that mean a height only because these are buildings.

    Raises:
        FieldInvalid: a column named in the options does not exist, or the mode contradicts them.
    """
    by_fold = {n.casefold(): n for n in reversed(list(names))}

    def named(option: str, wanted: str | None) -> str | None:
        if wanted is None or wanted in names:
            return wanted
        raise FieldInvalid(
            f"there is no column {wanted!r} (named by {option}); it has: {', '.join(names)}",
            source=source,
            remedy=f"name one of its columns with {option}, or leave the option out",
        )

    def known(candidates: Sequence[str]) -> str | None:
        return next((by_fold[c.casefold()] for c in candidates if c.casefold() in by_fold), None)

    height = named("--height-field", options.height_field)
    roof = named("--roof-field", options.roof_field) or known(ROOF_NAMES)
    ground = named("--base-field", options.base_field) or known(GROUND_NAMES)
    floors = named("--floors-field", options.floors_field) or known(FLOORS_NAMES)
    declared = height is not None
    height = height or known(HEIGHT_NAMES)
    if loose and height is None and roof is None:
        height = known(LOOSE_NAMES)
        if floors is None and (ground is not None or options.terrain is not None):
            height = height or known(ELEVATION_NAMES)
    if options.height_mode == "absolute" and declared:
        roof, height = height, None
    elif options.height_mode == "absolute":
        roof, height = roof or height, None
    if options.height_mode == "absolute" and roof is None:
        raise FieldInvalid(
            "--height-mode absolute needs a column with roof elevations",
            source=source,
            remedy="name it with --height-field",
        )
    if roof is not None and ground is None and height is None and options.terrain is None:
        raise FieldInvalid(
            f"{roof!r} holds roof elevations, and nothing says where the ground is",
            source=source,
            remedy="name the ground elevations with --base-field, or the terrain with --terrain ID",
        )
    found = {"height": height, "roof": roof, "ground": ground, "floors": floors}
    part_base = known(PART_BASE_NAMES)
    evidence = ", ".join(f"{role} = {name!r}" for role, name in found.items() if name)
    if part_base:
        evidence += f", begins at = {part_base!r}"
    how = "declared" if declared or options.height_mode else "by well-known names"
    return HeightColumns(
        height, roof, ground, part_base, floors, f"{evidence or 'no height column'} ({how})"
    )


def number_column(batch: FeatureBatch, name: str, source: str) -> Floats:
    """Return a column as (N,) float64, null as NaN; text is taken when all of it is numbers.

    A column that other sources of the asset have, and this one has not, is null.

    Raises:
        FieldInvalid: the column holds something that is no number.
    """
    if name not in batch.attributes.column_names:
        return np.full(len(batch), np.nan)
    column = batch.attributes.column(name)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(batch), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
        try:
            column = text.cast(pa.float64())
        except pa.ArrowInvalid:
            is_number = pc.match_substring_regex(text, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
            bad = text.filter(pc.invert(pc.fill_null(is_number, True)))
            raise FieldInvalid(
                f"column {name!r} holds text that is no number, such as {bad[0].as_py()!r}",
                source=source,
                remedy="clean the column, or name another (--height-field, --floors-field, "
                "--base-field)",
            ) from None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise FieldInvalid(
            f"column {name!r} is {kind}, not a number",
            source=source,
            remedy="name a column of numbers (--height-field, --floors-field, --base-field)",
        )
    values = column.cast(pa.float64()).to_numpy()
    return np.asarray(values, dtype=np.float64)
