"""Divisions as a whole: do they cover their land once, and do their codes say who belongs to whom?

Codes follow GB/T 2260 and its extensions: two digits for the province, four for the city, six for
the county, nine for the town, twelve for the village, filled up with zeros; Tianditu writes ``156``
(China) before them. Development zones have codes of their own kind (``42137x``), which are taken as
they are; counties right below their province (``4290xx``) stand among its cities too. Only what is
of one level is a coverage; what is of the level above must hold it.

Nothing is changed here: everything seen is told, with an area and a place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from catalog.feature_index import NAME_NAMES, field_among
from tiling.batches import FeatureBatch
from tiling.findings import Findings

CODE_FIELDS = (
    "区划代码",
    "行政区划代码",
    "行政区代码",
    "政区代码",
    "xzqdm",
    "xzqhdm",
    "adcode",
    "gb",
    "pac",
    "code",
    "代码",
    "编码",
)
_DIGITS = re.compile(r"\d+")
_COUNTRY = "156"
# In place of a city: counties that the province administers itself.
_DIRECT = "90"
_LENGTHS = (2, 4, 6, 9, 12)
_LEVELS = {2: "provinces", 4: "cities", 6: "counties", 9: "towns", 12: "villages"}
_METRES = 111_195.0
# What is smaller is a rounding of coordinates.
_LEAST_M2 = 1.0
# Of a child, what may stick out of its parent: generalised borders differ by so much.
_OUTSIDE = 1e-3
_NARROW_DEG = 1e-4
_SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Code:
    """A code that says where a division stands.

    Attributes:
        key: its digits without country and zeros that fill up: ``4213`` for 156421300.
    """

    key: str

    @classmethod
    def parse(cls, text: str) -> Code | None:
        """Read a code; None for what is none."""
        digits = text.strip()
        if not _DIGITS.fullmatch(digits):
            return None
        if digits.startswith(_COUNTRY) and len(digits) - 3 in _LENGTHS and len(digits) > 6:
            digits = digits[3:]
        if len(digits) not in _LENGTHS:
            return None
        for length in _LENGTHS:
            rest = digits[length:]
            if length <= len(digits) and not rest.strip("0"):
                # A code of zeros alone is the whole country.
                return cls(digits[:length]) if digits.strip("0") else None
        return None

    @property
    def is_direct(self) -> bool:
        """Whether it is a county right below its province, as 仙桃 (429004) is."""
        return self.key[2:4] == _DIRECT and len(self.key) >= 6

    def parents(self) -> list[str]:
        """Return the keys of the levels above, the nearest first."""
        above = [self.key[:n] for n in reversed(_LENGTHS) if n < len(self.key)]
        return [key for key in above if len(key) != 4 or not self.is_direct]


def check_divisions(batch: FeatureBatch, findings: Findings) -> None:
    """Tell what is wrong with divisions.

    Args:
        batch: all divisions of an asset; polygons in lon/lat degrees.
        findings: receives what is seen.
    """
    names = _texts(batch, field_among(batch.attributes.column_names, NAME_NAMES))
    labels = [name or f"#{number}" for name, number in zip(names, batch.ids.tolist(), strict=True)]
    empty = [n for n, name in enumerate(names) if not name]
    if any(names):
        message = "divisions have no name"
        findings.add("D01-name-empty", "warning", message, len(empty), _ids(batch, empty))
    field = field_among(batch.attributes.column_names, CODE_FIELDS)
    if field is None:
        message = "divisions have no field of codes: whether they belong together is not checked"
        findings.add("D02-codes-missing", "info", message, len(batch))
        _check_coverage(batch.geometry, labels, "divisions", findings)
        return
    texts = _texts(batch, field)
    codes = [Code.parse(text) for text in texts]
    wrong = [n for n, code in enumerate(codes) if code is None]
    samples = [f"{labels[n]}: {texts[n] or 'empty'}" for n in wrong[:_SAMPLES]]
    message = f"codes in {field!r} are not of 2, 4, 6, 9 or 12 digits, with 156 before or without"
    findings.add("D03-code-format", "warning", message, len(wrong), samples)
    _check_repeated(codes, names, labels, findings)
    levels: dict[int, list[int]] = {}
    for row, code in enumerate(codes):
        if code is not None:
            levels.setdefault(len(code.key), []).append(row)
    for length, level in sorted(levels.items()):
        direct = [row for row in levels.get(6, ()) if (c := codes[row]) and c.is_direct]
        rows = _once(batch.geometry, codes, [*level, *(direct if length == 4 else ())])
        own = [labels[row] for row in rows]
        _check_coverage(batch.geometry[rows], own, _LEVELS[length], findings)
    _check_parents(batch.geometry, codes, labels, levels, findings)


def _once(
    polygons: NDArray[np.object_], codes: Sequence[Code | None], rows: Sequence[int]
) -> list[int]:
    """Leave out what a set of several levels holds twice: one code and one shape."""
    kept: dict[tuple[str, bytes], int] = {}
    for row in rows:
        code = codes[row]
        assert code is not None
        kept.setdefault((code.key, shapely.to_wkb(shapely.normalize(polygons[row]))), row)
    return list(kept.values())


def _texts(batch: FeatureBatch, field: str | None) -> list[str]:
    if field is None:
        return [""] * len(batch)
    values = batch.attributes.column(field)
    if pa.types.is_floating(values.type):
        # A code that went through a spreadsheet: 421303.0.
        return ["" if v is None or math.isnan(v) else f"{v:.0f}" for v in values.to_pylist()]
    return ["" if v is None else str(v).strip() for v in values.to_pylist()]


def _ids(batch: FeatureBatch, rows: Sequence[int]) -> list[int]:
    found: list[int] = batch.ids[list(rows[:_SAMPLES])].tolist()
    return found


def _check_repeated(
    codes: Sequence[Code | None], names: Sequence[str], labels: Sequence[str], findings: Findings
) -> None:
    seen: dict[str, list[int]] = {}
    for row, code in enumerate(codes):
        if code is not None:
            seen.setdefault(code.key, []).append(row)
    parts: list[tuple[str, list[int]]] = []
    shared: list[tuple[str, list[int]]] = []
    for key, rows in seen.items():
        if len(rows) > 1:
            same = len({names[row] for row in rows}) == 1
            (parts if same else shared).append((key, rows))
    message = "divisions of one name are several features with one code"
    told = [f"{key}: {labels[rows[0]]}" for key, rows in parts]
    findings.add("D04-code-parts", "info", message, sum(len(r) - 1 for _, r in parts), told)
    message = "divisions of several names share a code"
    told = [f"{key}: {', '.join(labels[row] for row in rows[:4])}" for key, rows in shared]
    findings.add("D05-code-repeated", "warning", message, sum(len(r) for _, r in shared), told)


def _check_coverage(
    polygons: NDArray[np.object_], labels: Sequence[str], level: str, findings: Findings
) -> None:
    """Tell of gaps and overlaps among divisions of one level."""
    # To a tenth of a millimetre: changes of frame leave roundings between neighbours.
    polygons = np.asarray(shapely.transform(polygons, lambda xy: np.round(xy, 9)), dtype=object)
    tree = shapely.STRtree(polygons)
    first, second = tree.query(polygons, predicate="intersects")
    pairs = first < second
    first, second = first[pairs], second[pairs]
    touching = shapely.touches(polygons[first], polygons[second])
    first, second = first[~touching], second[~touching]
    common = shapely.intersection(polygons[first], polygons[second])
    areas = _areas_m2(common)
    deep = np.flatnonzero(areas >= _LEAST_M2)
    deep = deep[np.argsort(-areas[deep])]
    told = [
        f"{labels[first[n]]} and {labels[second[n]]}: {areas[n]:,.0f} m² at {_place(common[n])}"
        for n in deep[:_SAMPLES].tolist()
    ]
    message = f"pairs of {level} overlap, by {areas[deep].sum():,.0f} m² together"
    findings.add("D06-overlap", "warning", message, len(deep), told)
    holes = _holes(polygons)
    areas = _areas_m2(holes)
    order = np.argsort(-areas)
    order = order[areas[order] >= _LEAST_M2]
    told = [f"{areas[n]:,.0f} m² at {_place(holes[n])}" for n in order[:_SAMPLES].tolist()]
    message = f"gaps among {level}, of {areas[order].sum():,.0f} m² together"
    findings.add("D07-gap", "warning", message, len(order), told)
    unmatched = ~shapely.is_empty(shapely.coverage_invalid_edges(polygons))
    narrow = ~shapely.is_empty(shapely.coverage_invalid_edges(polygons, gap_width=_NARROW_DEG))
    # Overlaps and differing vertices are told where the tiles are made.
    close = np.flatnonzero(narrow & ~unmatched)
    told = [labels[n] for n in close[:_SAMPLES].tolist()]
    message = f"{level} are less than about ten metres apart, and do not touch there"
    findings.add("D08-gap-narrow", "warning", message, len(close), told)


def _holes(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return what all polygons together enclose and none covers."""
    whole = shapely.get_parts(shapely.union_all(polygons))
    rings = shapely.get_rings(whole)
    # The first ring of every part is its outside.
    _, part = shapely.get_rings(whole, return_index=True)
    inner = np.concatenate([[False], part[1:] == part[:-1]]) if len(part) else np.zeros(0, bool)
    return np.asarray(shapely.polygons(rings[inner]), dtype=object)


def _check_parents(
    polygons: NDArray[np.object_],
    codes: Sequence[Code | None],
    labels: Sequence[str],
    levels: Mapping[int, Sequence[int]],
    findings: Findings,
) -> None:
    by_key: dict[str, list[int]] = {}
    for row, code in enumerate(codes):
        if code is not None:
            by_key.setdefault(code.key, []).append(row)
    orphans: list[str] = []
    outside: list[tuple[float, str]] = []
    for row, code in enumerate(codes):
        if code is None:
            continue
        # The nearest level above that the data have at all.
        above = next((key for key in code.parents() if len(key) in levels), None)
        if above is None:
            continue
        if above not in by_key:
            orphans.append(f"{labels[row]} ({code.key})")
            continue
        parent = shapely.union_all(polygons[by_key[above]])
        beyond = shapely.difference(polygons[row], parent)
        area, own = _areas_m2(np.array([beyond, polygons[row]], dtype=object)).tolist()
        if area > max(own * _OUTSIDE, _LEAST_M2):
            where = f"{labels[row]} beyond {labels[by_key[above][0]]}: {area:,.0f} m²"
            outside.append((area, f"{where} at {_place(beyond)}"))
    message = "divisions name by their codes a parent that is not there"
    findings.add("D09-parent-missing", "warning", message, len(orphans), orphans[:_SAMPLES])
    told = [text for _, text in sorted(outside, reverse=True)[:_SAMPLES]]
    message = "divisions reach out of the parent that their codes name"
    findings.add("D10-outside-parent", "warning", message, len(outside), told)


def _areas_m2(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return areas in square metres, as if each lay on a plane at its own latitude (to 0.7 %)."""
    if not len(shapes):
        return np.zeros(0)
    bounds = shapely.bounds(shapes)
    middle = np.nan_to_num((bounds[:, 1] + bounds[:, 3]) / 2)
    return np.asarray(shapely.area(shapes) * _METRES**2 * np.cos(np.radians(middle)))


def _place(shape: shapely.Geometry) -> str:
    point = shapely.point_on_surface(shape)
    return f"{point.x:.5f}, {point.y:.5f}"
