"""Quality rules: one function each, numbered; what they see goes into the report.

A rule takes a batch and the findings and returns the batch that goes on: repaired, or without
what cannot be repaired. `RULES` lists them in the order in which they run, by kind of asset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingest.quality import geometry
from tiling.batches import FeatureBatch
from tiling.findings import Findings

Rule = Callable[[FeatureBatch, Findings], FeatureBatch]

RULES: Mapping[str, tuple[Rule, ...]] = {
    "buildings": (
        geometry.finite_coordinates,
        geometry.two_dimensional,
        geometry.polygons_only,
        geometry.valid_polygons,
        geometry.area_not_zero,
    ),
    "divisions": (
        geometry.finite_coordinates,
        geometry.two_dimensional,
        geometry.polygons_only,
        geometry.valid_polygons,
        geometry.area_not_zero,
    ),
    "vector": (
        geometry.finite_coordinates,
        geometry.two_dimensional,
        geometry.no_collections,
        geometry.valid_polygons,
        geometry.not_empty,
    ),
}


def apply_rules(kind: str, batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """Run the rules of `kind` over a batch."""
    for rule in RULES[kind]:
        batch = rule(batch, findings)
    return batch
