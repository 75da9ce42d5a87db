"""Every style file loads, keeps the 3D Tiles style schema, and says what its users need."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from styles import load_style, style_names

SCHEMAS = Path(__file__).parent.parent / "schemas" / "3d-tiles"
BASE = "https://schemas.invalid/"


def _load(uri: str) -> Resource[Any]:
    document = json.loads((SCHEMAS / uri.removeprefix(BASE)).read_text("utf-8"))
    document["$id"] = uri
    return Resource.from_contents(document, default_specification=DRAFT202012)


def objections(style: dict[str, Any]) -> list[str]:
    schema = {"$ref": f"{BASE}Styling/style.schema.json"}
    registry: Registry[Any] = Registry(retrieve=_load)
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    return [error.message for error in validator.iter_errors(style)]


@pytest.mark.parametrize("name", style_names())
def test_every_style_keeps_the_schema(name: str) -> None:
    assert objections(load_style(name)) == []


def test_the_schema_does_object_to_what_is_wrong() -> None:
    assert objections({"color": {"conditions": [["true"]]}})


def test_buildings_are_among_the_styles() -> None:
    assert "buildings" in style_names()


@pytest.mark.parametrize("name", ["无", "", "../pyproject", "buildings.json"])
def test_an_unknown_style_is_named(name: str) -> None:
    with pytest.raises(KeyError, match=re.escape(repr(name))):
        load_style(name)


def test_height_colours_ask_from_the_highest_down_and_take_everything() -> None:
    unknown, *conditions = load_style("buildings")["color"]["conditions"]
    # Tiles made elsewhere have no such property, and a comparison with nothing stops the viewer.
    # Shapes of their own wear the colours of their source.
    when = "${cim_height_m} === undefined || ${cim_height_source} === 'shape'"
    assert unknown == [when, "color('white')"]
    limits = [
        float(re.fullmatch(r"\$\{cim_height_m\} >= ([\d.]+)", when)[1])  # type: ignore[index]
        for when, _ in conditions[:-1]
    ]
    assert limits == sorted(limits, reverse=True)
    assert conditions[-1][0] == "true"
    colors = [then for _, then in conditions]
    assert len(set(colors)) == len(colors)
    assert all(re.fullmatch(r"color\('#[0-9a-f]{6}'\)", color) for color in colors)


def test_default_heights_are_plausible() -> None:
    heights = load_style("buildings")["heights"]
    assert 2.4 <= heights["storey_height_m"] <= 4.5
    values = [heights["default_m"], *heights["by_class"].values()]
    assert all(2 <= value <= 100 < heights["max_m"] for value in values)
    assert "building" in heights["class_fields"] and "用途" in heights["class_fields"]


def test_classes_of_points_are_told_apart_and_survive_points_without_one() -> None:
    first, *conditions = load_style("pointcloud")["color"]["conditions"]
    # CesiumJS asks the style of the whole tile too, where no point is: comparisons would stop it.
    assert first == ["${classification} === undefined", "color('white')"]
    assert conditions[-1][0] == "true"
    colors = [then for _, then in conditions]
    assert len(set(colors)) == len(colors)
    # Ground, vegetation, buildings, noise and water have colours of their own.
    named = " ".join(when for when, _ in conditions)
    assert all(f"=== {number}.0" in named for number in (2, 3, 4, 5, 6, 7, 9))
