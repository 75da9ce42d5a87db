"""What columns of points are called elsewhere, and how they become those of a `PointBatch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import PointColumn
from tiling.errors import FieldInvalid

_KNOWN: dict[str, tuple[str, ...]] = {
    "x": ("x", "easting", "east", "coord_x", "东坐标", "横坐标"),
    "y": ("y", "northing", "north", "coord_y", "北坐标", "纵坐标"),
    "z": ("z", "h", "height", "elevation", "elev", "coord_z", "高程", "高度"),
    "red": ("red", "r", "diffuse_red", "colorred"),
    "green": ("green", "g", "diffuse_green", "colorgreen"),
    "blue": ("blue", "b", "diffuse_blue", "colorblue"),
    "intensity": ("intensity", "i", "scalar_intensity", "reflectance", "强度"),
    "classification": ("classification", "class", "scalar_classification", "label", "类别", "分类"),
    "gps_time": ("gps_time", "gpstime", "scalar_gpstime", "scalar_gps_time", "timestamp"),
    "return_number": ("return_number", "returnnumber", "scalar_returnnumber"),
    "number_of_returns": ("number_of_returns", "numberofreturns", "scalar_numberofreturns"),
    "point_source_id": ("point_source_id", "pointsourceid", "scalar_pointsourceid"),
}
_BY_NAME = {other: name for name, others in _KNOWN.items() for other in others}
_COLOURS = ("red", "green", "blue")


def known_name(name: str) -> str:
    """Return the name a column has here; one that is not known keeps its own."""
    return _BY_NAME.get(name.strip().casefold().replace(" ", "_"), name.strip())


def points_of(
    path: Path, names: Sequence[str], types: Sequence[str]
) -> tuple[tuple[PointColumn, ...], dict[str, str]]:
    """Return the columns that fields of a file make, and the type of each field.

    Args:
        path: the file, for messages.
        names: of its fields in order, as `known_name` has them; ``-`` for one that is left out.
        types: NumPy types of the fields.

    Returns:
        columns without coordinates, colours as one ``rgb``; and types by field name.

    Raises:
        FieldInvalid: x, y or z is missing, or two fields have one name.
    """
    fields = {name: kind for name, kind in zip(names, types, strict=True) if name != "-"}
    if len(fields) < len([name for name in names if name != "-"]):
        raise FieldInvalid(
            f"two of its columns have one name: {', '.join(names)}",
            source=path,
            remedy="rename one of them",
        )
    if missing := [axis for axis in "xyz" if axis not in fields]:
        raise FieldInvalid(
            f"it has no column for {', '.join(missing)} (its columns: {', '.join(names)})",
            source=path,
            remedy="name the columns in order: --point-columns x,y,z,intensity (- for one to skip)",
        )
    columns = [
        PointColumn(name, np.dtype(kind).name)
        for name, kind in fields.items()
        if name not in (*"xyz", *_COLOURS)
    ]
    if all(colour in fields for colour in _COLOURS):
        wide = [np.dtype(fields[colour]) for colour in _COLOURS]
        # Colours as floats go from 0 to 1, which 8 bits hold.
        floats = any(kind.kind == "f" for kind in wide)
        depth = "uint8" if floats or all(kind.itemsize == 1 for kind in wide) else "uint16"
        columns.append(PointColumn("rgb", depth, 3))
    else:
        columns += [PointColumn(c, np.dtype(fields[c]).name) for c in _COLOURS if c in fields]
    return tuple(columns), fields


def assemble(
    path: Path, fields: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Return coordinates and columns made of a file's fields.

    Args:
        path: the file, for messages.
        fields: (N,) each, by the names of `known_name`.
        names: columns wanted; those the file lacks are left out.

    Returns:
        (N, 3) coordinates, and columns by name; points whose coordinates are no numbers are left
        out, as scanners and organised clouds mark what they did not see.

    Raises:
        FieldInvalid: colours beyond what they can be.
    """
    xyz = np.stack([fields[axis].astype(np.float64) for axis in "xyz"], axis=1)
    seen = np.isfinite(xyz).all(axis=1)
    if not seen.all():
        xyz, fields = xyz[seen], {name: values[seen] for name, values in fields.items()}
    columns = {name: np.ascontiguousarray(fields[name]) for name in names if name in fields}
    if "rgb" in names and all(colour in fields for colour in _COLOURS):
        columns["rgb"] = _rgb(path, np.stack([fields[colour] for colour in _COLOURS], axis=1))
    return xyz, columns


def _rgb(path: Path, rgb: NDArray[Any]) -> NDArray[Any]:
    if rgb.dtype.kind == "u":
        return rgb
    low, high = (float(rgb.min()), float(rgb.max())) if rgb.size else (0.0, 0.0)
    floats = rgb.dtype.kind == "f"
    if not (0 <= low and high <= (1 if floats else 65535)):
        raise FieldInvalid(
            f"its colours go from {low:g} to {high:g}",
            source=path,
            remedy="write colours as integers from 0 to 255 or 65535, or as floats from 0 to 1",
        )
    return np.rint(rgb * 255).astype(np.uint8) if floats else rgb.astype(np.uint16)


def as_type(path: Path, name: str, values: NDArray[np.float64], kind: str) -> NDArray[Any]:
    """Return numbers that were read as text in the type of their column.

    Raises:
        FieldInvalid: a number does not fit it.
    """
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return values.astype(dtype)
    bounds = np.iinfo(dtype)
    bad = ~((values >= bounds.min) & (values <= bounds.max) & (values == np.rint(values)))
    if bad.any():
        raise FieldInvalid(
            f"its column {name} holds {values[bad][0]:g}, which is no whole number from "
            f"{bounds.min} to {bounds.max}",
            source=path,
            remedy="correct it, or name the column otherwise: --point-columns",
        )
    return values.astype(dtype)
