"""How the heights of an asset will be read: decided in the plan, on columns and on a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ingest.height_columns import HeightColumns, find_columns, number_column
from ingest.height_evidence import (
    Floats,
    is_ambiguous,
    judge_height,
    judge_part_base,
    read_differently,
    warn_of_numbers,
)
from ingest.manifest import HeightMode, IngestOptions
from ingest.readers import open_source
from ingest.readers.base import LayerInfo, ReadOptions, SourceInfo
from tiling.batches import LAYER_COLUMN
from tiling.errors import FieldInvalid, SourceError
from tiling.findings import Findings

# Rows of all sources together that are looked at.
SAMPLE_ROWS = 20_000
_SAMPLE_NBYTES = 4 << 20
_OPTIONS = ("height_field", "roof_field", "base_field", "floors_field")
_ROLES = ("height", "roof", "ground", "part_base", "floors")
_MEANING = {"relative": "heights above ground", "absolute": "elevations"}


@dataclass(frozen=True, slots=True)
class Sources:
    """What is planned, as far as heights are concerned.

    Attributes:
        options: what was declared.
        infos, layers: the sources, and the layer that is taken of each.
        read_options: index of a source -> how it is read.
    """

    options: IngestOptions
    infos: tuple[SourceInfo, ...]
    layers: tuple[LayerInfo, ...]
    read_options: Callable[[int], ReadOptions]


def decide_columns(
    sources: Sources, findings: Findings, refusals: list[SourceError]
) -> tuple[IngestOptions, HeightColumns | None]:
    """Decide how the heights of buildings are read, and report it.

    Args:
        sources: of the asset.
        findings: receives decisions and doubts.
        refusals: receives why it cannot be done.

    Returns:
        the options with what the sample decided, so that an update of a few features reads them
        as the whole was read; and the columns, None if refused.
    """
    _check_overrides(sources, refusals)
    options = sources.options
    try:
        columns = _common_columns(sources)
        read = _sample(sources, columns)
    except SourceError as error:
        refusals.append(error)
        return options, None
    if columns.height is not None and columns.roof is None and options.height_mode is None:
        options, columns = _decide_mode(options, columns, read, findings)
        if columns.height is None:
            read["roof"], read["height"] = read["height"], np.full(len(read["height"]), np.nan)
    if columns.part_base is not None:
        mode = options.min_height_mode or _part_mode(columns, read, findings)
        options = replace(options, min_height_mode=mode)
        columns = replace(columns, part_base_absolute=mode == "absolute")
    warn_of_numbers(columns, read, findings)
    findings.add("height-columns", "info", columns.evidence)
    return options, columns


def _decide_mode(
    options: IngestOptions, columns: HeightColumns, read: dict[str, Floats], findings: Findings
) -> tuple[IngestOptions, HeightColumns]:
    name = columns.height
    assert name is not None  # the caller knows
    verdict = judge_height(name, read["height"], read["ground"])
    if verdict is None:
        return options, columns
    if is_ambiguous(columns) and (columns.ground is not None or options.terrain is not None):
        findings.add(
            "height-mode",
            "info" if verdict.sure and verdict.mode == "relative" else "assumption",
            f"{name!r} is taken as {_MEANING[verdict.mode]}: {verdict.why} (--height-mode)",
        )
        options = replace(options, height_mode=verdict.mode, height_field=name)
        return options, read_differently(columns, verdict)
    if verdict.mode == "absolute":
        findings.add(
            "height-looks-absolute",
            "warning",
            f"{name!r} is taken as heights above ground, but {verdict.why}: if it holds "
            "elevations of roofs, give --height-mode absolute, and --base-field or --terrain for "
            "the ground",
        )
    return options, columns


def _part_mode(
    columns: HeightColumns, read: dict[str, Floats], findings: Findings
) -> HeightMode | None:
    top = read["height"] if columns.height else read["roof"] - read["ground"]
    verdict = judge_part_base(read["part_base"], top, read["ground"])
    if verdict is None:
        return None
    if not verdict.sure or verdict.mode == "absolute":
        findings.add(
            "min-height-mode",
            "assumption",
            f"{columns.part_base!r} is taken as {_MEANING[verdict.mode]}: {verdict.why} "
            "(--min-height-mode)",
        )
    return verdict.mode


def _common_columns(sources: Sources) -> HeightColumns:
    """Return what all sources together have; one may lack a column, none may mean another."""
    names = [[field.name for field in layer.fields] for layer in sources.layers]
    found = []
    for info, some in zip(sources.infos, names, strict=True):
        lacking: dict[str, Any] = {
            option: None for option in _OPTIONS if getattr(sources.options, option) not in some
        }
        options = replace(sources.options, **lacking)
        found.append(find_columns(some, options, str(info.path), loose=True))
    for role in _ROLES:
        said = Counter(name for columns in found if (name := getattr(columns, role)))
        for info, columns in zip(sources.infos, found, strict=True):
            name = getattr(columns, role)
            if name is not None and name != (usual := said.most_common(1)[0][0]):
                raise FieldInvalid(
                    f"its {role} is in {name!r}, that of other sources in {usual!r}",
                    source=info.path,
                    remedy="name the columns alike in all sources, or ingest the sources as "
                    "assets of their own",
                )
    every = list(dict.fromkeys(name for some in names for name in some))
    return find_columns(every, sources.options, str(sources.infos[0].path), loose=True)


def _sample(sources: Sources, columns: HeightColumns) -> dict[str, Floats]:
    """Return the first numbers of each role, over all sources; NaN where there are none."""
    names = {role: name for role in _ROLES if (name := getattr(columns, role)) is not None}
    wanted = sorted(set(names.values()))
    parts: dict[str, list[Floats]] = {role: [np.empty(0)] for role in _ROLES}
    for index, (info, layer) in enumerate(zip(sources.infos, sources.layers, strict=True)):
        # Shapes bring their heights; what has no frame is refused, and cannot be read.
        if not wanted or layer.extra.get("mesh") or layer.ref is None:
            continue
        left = -(-SAMPLE_ROWS // len(sources.infos))
        with open_source(info.path, sources.read_options(index)) as reader:
            here = [name for name in wanted if any(name == f.name for f in layer.fields)]
            batches = reader.batches(columns=here, max_nbytes=_SAMPLE_NBYTES)
            while left > 0 and (batch := next(batches, None)) is not None:
                batch = batch.take(np.arange(min(left, len(batch))))
                left -= len(batch)
                for role in _ROLES:
                    parts[role].append(
                        number_column(batch, names[role], str(info.path))
                        if role in names
                        else np.full(len(batch), np.nan)
                    )
    return {role: np.concatenate(part) for role, part in parts.items()}


def _check_overrides(sources: Sources, refusals: list[SourceError]) -> None:
    overrides = sources.options.feature_overrides()
    names = dict.fromkeys(f.name for layer in sources.layers for f in layer.fields)
    missing = {name for each in overrides for name, _ in each.match} - {*names, LAYER_COLUMN}
    if missing:
        refusals.append(
            FieldInvalid(
                f"there is no column {sorted(missing)[0]!r}, which an override of the "
                f"manifest names; it has: {', '.join(names)}",
                source=sources.infos[0].path,
                remedy="name features by columns that they have: match = {...}",
            )
        )
