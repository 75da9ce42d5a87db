"""How layers of vector tiles look in MapLibre: a style for each kind, put together for an asset.

A file in ``maps/`` is one kind: ``geometry`` (of GeoJSON), ``order`` (what lies over what),
``words`` and ``fields`` by which a layer of that kind is known, ``layers`` as in the MapLibre style
specification but without a source. In them stand ``"$text"`` for the name of a feature and
``"$major"`` for whether its class (the first of ``classes`` that the layer has) is among ``major``.

``glyphs`` of a style is an address of the server's own (`styles.glyphs`). In browsers MapLibre
writes Chinese with the fonts of the viewer's machine all the same, which are sharper and need not
be sent, and takes digits and Latin from there; MapLibre Native takes everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from styles.glyphs import FONT

GEOMETRIES = ("Polygon", "LineString", "Point")
_NAMES = ("name", "名称", "NAME", "Name", "name:zh", "地名", "道路名称", "标准名称", "XZQMC", "MC")
_FONTS = [FONT, "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC",
          "WenQuanYi Zen Hei", "sans-serif"]  # fmt: skip
_PAPER = "#faf8f4"
_OVER = {"fill": 0, "line": 1, "circle": 2, "symbol": 3}


class MapLayer(NamedTuple):
    """What is known of a layer of vector tiles.

    Attributes:
        name: in the tiles.
        geometries: those of `GEOMETRIES` that it holds; all of them if that is not known.
        fields: of its features.
        labels: the layer of the points at which its polygons are named; None: there is none.
        features: how many; of several layers of a kind the one with fewer lies above, and its names
            are written first (cities before counties). Only areas are the other way round: the
            small ones are above, where a click finds them.
    """

    name: str
    geometries: tuple[str, ...]
    fields: tuple[str, ...]
    labels: str | None = None
    features: int = 0


@cache
def map_kinds() -> dict[str, dict[str, Any]]:
    """Return all kinds by name, sorted; shared, so not to be changed."""
    entries = sorted((files(__name__.rpartition(".")[0]) / "maps").iterdir(), key=lambda e: e.name)
    return {
        entry.name.removesuffix(".json"): json.loads(entry.read_text("utf-8"))
        for entry in entries
        if entry.name.endswith(".json")
    }


def map_kind(layer: MapLayer, geometry: str) -> str:
    """Return the kind of the features of one geometry in a layer.

    Polygons with a layer of labels are divisions. Else the name of the layer decides, then its
    fields, then the geometry alone: parcels, roads, points.
    """
    kinds = {name: k for name, k in map_kinds().items() if k["geometry"] == geometry}
    if geometry == "Polygon" and layer.labels is not None:
        return "divisions"
    called = layer.name.lower()
    for name, kind in kinds.items():
        if any(word in called for word in kind["words"]):
            return name
    for name, kind in kinds.items():
        if set(kind["fields"]) & set(layer.fields):
            return name
    return next(name for name, kind in kinds.items() if kind.get("default"))


def map_style(
    title: str, tilejson_url: str, layers: Iterable[MapLayer], glyphs: str | None = None
) -> dict[str, Any]:
    """Return a style of MapLibre (version 8) that draws all layers of a tileset.

    The member ``cim:order`` in the metadata of each layer says where it belongs when the styles of
    several assets are put into one map: within a type of layer, from below.

    Args:
        title: of the asset.
        tilejson_url: absolute.
        layers: of the tileset, those of labels not among them.
        glyphs: absolute URL template of the fonts, None where there are none.
    """
    drawn: list[tuple[int, int, int, dict[str, Any]]] = []
    # What comes later lies above, and its names have the first choice of place.
    for layer in layers:
        for geometry in layer.geometries:
            kind = map_kinds()[map_kind(layer, geometry)]
            for template in kind["layers"]:
                styled = _styled(layer, geometry, kind, template)
                if styled is not None:
                    few = layer.features if template["type"] == "fill" else -layer.features
                    drawn.append((_OVER[template["type"]], kind["order"], few, styled))
    drawn.sort(key=lambda entry: entry[:3])
    return {
        "version": 8,
        "name": title,
        **({} if glyphs is None else {"glyphs": glyphs}),
        "sources": {"tiles": {"type": "vector", "url": tilejson_url}},
        "layers": [
            {"id": "paper", "type": "background", "paint": {"background-color": _PAPER}},
            *(styled for *_, styled in drawn),
        ],
    }


def _styled(
    layer: MapLayer, geometry: str, kind: Mapping[str, Any], template: Mapping[str, Any]
) -> dict[str, Any] | None:
    source, shape = layer.name, geometry
    writes = template["type"] == "symbol"
    if writes and geometry == "Polygon" and layer.labels is not None:
        source, shape = layer.labels, "Point"
    names = [name for name in kind.get("text", _NAMES) if name in layer.fields]
    if writes and not names:
        return None
    classes = [name for name in kind.get("classes", ()) if name in layer.fields]
    known = ["to-string", ["coalesce", *(["get", name] for name in classes), ""]]
    values = {
        "$text": ["to-string", ["coalesce", *(["get", name] for name in names), ""]],
        "$major": ["in", known, ["literal", kind.get("major", [])]],
    }
    styled: dict[str, Any] = {
        **_filled(template, values),
        "id": f"{layer.name}:{geometry}:{template['id']}",
        "source": "tiles",
        "source-layer": source,
        "metadata": {"cim:order": kind["order"]},
        "filter": ["==", ["geometry-type"], shape],
    }
    if writes:
        styled["layout"]["text-font"] = _FONTS
    return styled


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(part, str):
        return values.get(part, part)
    if isinstance(part, list):
        return [_filled(item, values) for item in part]
    if isinstance(part, Mapping):
        return {name: _filled(item, values) for name, item in part.items()}
    return part
