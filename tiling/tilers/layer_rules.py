"""What is declared of a layer of vector tiles: its zooms, its attributes, who matters most.

A rule is about the tiles alone: the features beside them keep every attribute under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_ZOOM = 24


@dataclass(frozen=True, slots=True)
class LayerRule:
    """How one layer is drawn; what is None is decided on the features.

    Attributes:
        min_zoom, max_zoom: of the layer; at the highest it is complete, beyond it absent.
        attributes: names in the source of the fields that tiles hold, in this order; None: all.
        rename: (name in the source, name in the tiles) of the fields called otherwise there.
        rank: the field, by its name in the source, that says which features matter most.
        ascending: whether small ranks matter more than large ones.
    """

    min_zoom: int | None = None
    max_zoom: int | None = None
    attributes: tuple[str, ...] | None = None
    rename: tuple[tuple[str, str], ...] = ()
    rank: str | None = None
    ascending: bool = False


LayerRules = Mapping[str, LayerRule]
_PLAIN = LayerRule()


def rule_of(rules: LayerRules, layer: str) -> LayerRule:
    """Return the rule of a layer; one that declares nothing where there is none."""
    return rules.get(layer, _PLAIN)


def key_name(rules: LayerRules, layer: str, key: str) -> str | None:
    """Return what the key of the source is called in the tiles of a layer; None: left out."""
    rule = rule_of(rules, layer)
    if rule.attributes is not None and key not in rule.attributes:
        return None
    return dict(rule.rename).get(key, key)
