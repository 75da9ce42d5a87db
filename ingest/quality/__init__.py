"""Quality rules: one function each, numbered; what they see goes into the report.

A rule takes a batch and the findings and returns the batch that goes on: repaired, or without
what cannot be repaired. `BEFORE_REFRAMING` run in the source's frame, on what could not be
transformed; `RULES` afterwards, in the order in which they stand, by kind of asset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ingest.quality import geometry, sizes
from tiling.batches import FeatureBatch
from tiling.findings import Findings

Rule = Callable[[FeatureBatch, Findings], FeatureBatch]

BEFORE_REFRAMING: tuple[Rule, ...] = (
    geometry.two_dimensional,
    geometry.not_empty,
    geometry.finite_coordinates,
)
RULES: Mapping[str, tuple[Rule, ...]] = {
    "buildings": (
        geometry.polygons_only,
        geometry.valid_polygons,
        geometry.area_not_zero,
        sizes.slivers,
        sizes.huge_outlines,
    ),
    "divisions": (
        geometry.polygons_only,
        geometry.valid_polygons,
        geometry.area_not_zero,
    ),
    "vector": (
        geometry.no_collections,
        geometry.valid_polygons,
        geometry.not_empty,
    ),
}


def apply_rules(rules: Sequence[Rule], batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """Run rules over a batch, in order."""
    for rule in rules:
        batch = rule(batch, findings)
    return batch
