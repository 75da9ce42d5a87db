"""The columns of an asset made of several sources: what some lack is null, types that differ widen.

Forty districts deliver forty files, and no two tables are alike. Nothing is dropped for that; what
became of each column that differs is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ingest.readers.base import LayerInfo
from tiling.findings import Findings
from tiling.tilers.extsort import common_type

_SHOWN = 3


def note_differences(
    layers: Sequence[LayerInfo],
    names: Sequence[str],
    findings: Findings,
    groups: Sequence[str | None],
) -> None:
    """Report the columns that not every source has, or not with one type.

    Args:
        layers: one of each source.
        names: of the sources, as messages show them.
        findings: receives a finding for each such column, with the sources that differ.
        groups: one of each source; only sources of one group are expected to have the same columns.
    """
    kinds: dict[str, list[str | None]] = {}
    for number, layer in enumerate(layers):
        for field in layer.fields:
            kinds.setdefault(field.name, [None] * len(layers))[number] = field.type
    for column, types in kinds.items():
        having = {group for group, kind in zip(groups, types, strict=True) if kind is not None}
        rows = zip(names, types, groups, strict=True)
        lack = [name for name, kind, group in rows if kind is None and group in having]
        if lack:
            findings.add(
                "column-missing",
                "assumption",
                f"{len(lack)} of {len(names)} sources have no column {column!r}: null there",
                len(lack),
                lack,
            )
        distinct = sorted({kind for kind in types if kind is not None})
        if len(distinct) > 1:
            findings.add(
                "column-types",
                "assumption",
                f"column {column!r} is {' or '.join(distinct)}, depending on the source: taken as "
                f"{_widest(distinct)}",
                sum(kind is not None for kind in types),
            )


def _widest(kinds: Sequence[str]) -> str:
    try:
        types = [pa.type_for_alias(kind) for kind in kinds]
    except ValueError:  # a type with parameters: the spool decides by the data
        return "what holds all of them"
    widest = types[0]
    for kind in types[1:]:
        widest = common_type(widest, kind)
    return str(widest)
