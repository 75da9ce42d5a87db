"""What vector tiles leave out below full detail, told zoom by zoom."""

from __future__ import annotations

from collections.abc import Mapping

from tiling.findings import Findings

# Of the metadata's ``dropped`` -> the rule of the finding, and what happened.
_RULES = {
    "smaller_than_a_pixel": ("smaller-than-a-pixel", "lines smaller than a pixel are not drawn"),
    "collected": (
        "polygons-collected",
        "polygons smaller than a pixel are drawn together, as pixels of the same area",
    ),
    "collapsed": ("collapsed", "thin features have no area left and are not drawn"),
    "thinned": ("points-thinned", "where points crowd, the most important of them are drawn"),
    "over_budget": (
        "tile-over-budget",
        "the least important features of tiles over {nbytes} bytes are not drawn",
    ),
}


def report_drops(
    findings: Findings,
    dropped: Mapping[str, Mapping[str, int]],
    pixels: Mapping[str, int],
    tile_nbytes: int,
) -> None:
    """Add a finding for each rule and zoom.

    Args:
        findings: receives them.
        dropped: rule -> zoom -> features, as the metadata has it.
        pixels: zoom -> pixels that stand for what was collected.
        tile_nbytes: the budget of a tile.
    """
    for name, (rule, what) in _RULES.items():
        for zoom, count in dropped[name].items():
            told = what.format(nbytes=tile_nbytes)
            if name == "collected":
                told = f"{told} ({pixels.get(zoom, 0)} of them)"
            message = f"zoom {zoom}: {told}; they are present at full detail"
            findings.add(rule, "info", message, count)
