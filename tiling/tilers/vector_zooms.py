"""The zooms of each layer of a tileset: as declared, else as suits what is in it."""

from __future__ import annotations

from tiling.errors import ConfigError
from tiling.tilers.layer_rules import MAX_ZOOM, LayerRules, rule_of
from tiling.tilers.vector_features import Summary


def resolve_zooms(
    summary: Summary, rules: LayerRules, min_zoom: int | None, max_zoom: int | None
) -> dict[str, tuple[int, int]]:
    """Return the lowest zoom of each layer, and that of its full detail.

    A layer without zooms of its own begins where its features can be seen and goes down to the
    highest zoom of the tileset: viewers enlarge the last tiles of a tileset, not of a layer.

    Args:
        summary: of all features.
        rules: by layer.
        min_zoom, max_zoom: of layers without zooms of their own; chosen from the features if None.

    Raises:
        ConfigError: zooms that contradict each other, or a rule for a layer that is not there.
    """
    if unknown := sorted(set(rules) - set(summary.layers)):
        raise ConfigError(
            f"there is no layer {unknown[0]!r}; the layers are {', '.join(summary.layers)}"
        )
    default = {name: entry["zooms"] for name, entry in summary.layers.items()}
    high = max_zoom
    if high is None:
        declared = [rule_of(rules, name).max_zoom for name in default]
        given = [last for last in declared if last is not None]
        open_ = [z[1] for z, last in zip(default.values(), declared, strict=True) if last is None]
        high = max([*given, *open_, min_zoom or 0])
    zooms = {}
    for name, (first, _) in default.items():
        rule = rule_of(rules, name)
        last = high if rule.max_zoom is None else rule.max_zoom
        if rule.min_zoom is not None:
            first = rule.min_zoom
        elif min_zoom is not None:
            first = min_zoom
        else:
            first = min(first, last)
        if not 0 <= first <= last <= MAX_ZOOM:
            raise ConfigError(
                f"layer {name!r}: zooms {first} to {last}: they must ascend within 0 to {MAX_ZOOM}"
            )
        zooms[name] = (first, last)
    return zooms
