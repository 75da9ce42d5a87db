"""STAC JSON is valid, complete and says the same as the record it was made from."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pystac
import pytest
import stac_pydantic
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from catalog import stac
from catalog.records import KINDS, Item, StoreRef, Version, standard_collections
from catalog.search import Extent
from tiling.bounds import Region

COLLECTIONS = {c.id: c for c in standard_collections()}
FORMATS = {
    "buildings": "3tz",
    "pointcloud": "3tz",
    "terrain": "3tz",
    "imagery": "cog",
    "vector": "pmtiles",
    "divisions": "pmtiles",
}


def link(name: str, **params: str) -> str:
    query = "&".join(f"{k}={v}" for k, v in sorted(params.items()))
    return f"https://城市.example/{name}?{query}"


def an_item(kind: str, **properties: object) -> Item:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    return Item(
        id="随州-曾都区",
        collection="admin-divisions",
        kind=kind,  # type: ignore[arg-type]
        title="曾都区 \"白模\" '🏙️'",
        properties=properties,
        created=at,
        updated=at,
        current=3,
    )


def a_version(kind: str) -> Version:
    stores = (
        StoreRef("tiles", FORMATS[kind], "assets/新.bin", "ab" * 32, 7, "application/x"),  # type: ignore[arg-type]
        StoreRef("tiles", FORMATS[kind], "assets/旧.bin", "cd" * 32, 8, "application/x"),  # type: ignore[arg-type]
    )
    findings = [
        {"rule": "a", "severity": "drop", "count": 2},
        {"rule": "b", "severity": "drop", "count": 3},
        {"rule": "c", "severity": "info", "count": 1},
    ]
    return Version(
        "随州-曾都区",
        3,
        datetime(2026, 5, 6, tzinfo=UTC),
        Region(112.7, 31.3, 114.2, 32.5, -3.5, 1140.25),
        stores,
        {"tiles": 12, "fields": ["名称"], "tiler": {"key": "编码"}, "options": {"terrain": "/D"}},
        {"findings": findings},
    )


def validate(data: dict[str, object]) -> None:
    """Against the JSON Schemas of STAC 1.1.0 that pystac carries; no network."""
    plain = json.loads(json.dumps(data)) | {"stac_extensions": []}
    what = pystac.STACObjectType.ITEM if data["type"] == "Feature" else None
    what = what or pystac.STACObjectType.COLLECTION
    JsonSchemaSTACValidator().validate(plain, what, "1.1.0", [])


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_of_every_kind_is_valid_stac(kind: str) -> None:
    data = stac.item_to_stac(an_item(kind), a_version(kind), link, COLLECTIONS)
    validate(data)
    stac_pydantic.Item.model_validate(data)
    read = pystac.Item.from_dict(data)
    assert read.id == "随州-曾都区"
    assert read.bbox == [112.7, 31.3, -3.5, 114.2, 32.5, 1140.25]
    assert read.to_dict(transform_hrefs=False)["properties"] == data["properties"]


def test_validation_notices_a_broken_item() -> None:
    data = stac.item_to_stac(an_item("terrain"), a_version("terrain"), link, COLLECTIONS)
    del data["properties"]["datetime"]
    with pytest.raises(pystac.errors.STACValidationError):
        validate(data)


EXTENT = Extent(
    2,
    Region(112.7, 31, 122, 32.5, -3.5, 1140.25),
    datetime(1998, 12, 31, 16, tzinfo=UTC),
    datetime(2026, 5, 6, tzinfo=UTC),
)


@pytest.mark.parametrize("extent", [None, EXTENT])
def test_a_collection_is_valid_stac(extent: Extent | None) -> None:
    for collection in COLLECTIONS.values():
        data = stac.collection_to_stac(collection, extent, link, COLLECTIONS)
        validate(data)
        stac_pydantic.Collection.model_validate(data)


def test_a_collection_spans_its_assets() -> None:
    data = stac.collection_to_stac(COLLECTIONS["roads"], EXTENT, link, COLLECTIONS)
    extent = data["extent"]
    assert extent["spatial"]["bbox"] == [[112.7, 31, -3.5, 122, 32.5, 1140.25]]
    assert extent["temporal"]["interval"] == [["1998-12-31T16:00:00Z", "2026-05-06T00:00:00Z"]]
    assert data["cim:assets"] == 2


def test_the_properties_carry_the_facts_of_a_city_model() -> None:
    item = an_item("buildings", **{"cim:source_crs": "EPSG:4547+5737", "cim:division": "421303"})
    got = stac.item_to_stac(item, a_version("buildings"), link, COLLECTIONS)["properties"]
    assert got["cim:category"] == "时空基础/行政区划"
    assert got["cim:level"] == 1
    assert got["cim:quality"] == {"drop": 5, "info": 1}
    # How it was made, paths of the machine included, is nobody's business.
    assert got["cim:info"] == {"tiles": 12, "fields": ["名称"]}
    assert got["cim:division"] == "421303"
    assert got["proj:code"] == "EPSG:4547"
    assert got["version"] == "3"
    assert got["created"] == "2026-01-02T03:04:05.000678Z"
    assert got["title"] == "曾都区 \"白模\" '🏙️'"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, {"datetime": "2026-05-06T00:00:00Z"}),
        ({"datetime": "2024-01-01T08:00:00+08:00"}, {"datetime": "2024-01-01T00:00:00Z"}),
        (
            {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-12-31T00:00:00Z"},
            {
                "datetime": None,
                "start_datetime": "2024-01-01T00:00:00Z",
                "end_datetime": "2024-12-31T00:00:00Z",
            },
        ),
    ],
)
def test_the_time_is_that_of_the_data_when_it_is_known(
    properties: dict[str, str], expected: dict[str, object]
) -> None:
    data = stac.item_to_stac(
        an_item("vector", **properties), a_version("vector"), link, COLLECTIONS
    )
    assert expected.items() <= data["properties"].items()
    validate(data)


def test_every_store_is_listed_with_checksum_and_size() -> None:
    version = a_version("divisions")
    assets = stac.item_to_stac(an_item("divisions"), version, link, COLLECTIONS)["assets"]
    listed = [(a["file:checksum"], a["file:size"]) for a in assets.values() if "file:size" in a]
    assert listed == [("1220" + "ab" * 32, 7), ("1220" + "cd" * 32, 8)]
    newest, older = assets["tiles-pmtiles"]["href"], assets["tiles-pmtiles-2"]["href"]
    assert newest == link("pmtiles", asset="随州-曾都区", version="3")
    scheme, _, digest = older.partition(";")
    assert scheme == "ni:///sha-256"
    assert base64.urlsafe_b64decode(digest + "=").hex() == "cd" * 32


@pytest.mark.parametrize(
    ("kind", "rels"),
    [
        ("buildings", ["3d-tiles"]),
        ("pointcloud", ["3d-tiles"]),
        ("terrain", []),
        ("imagery", ["tilejson", "xyz"]),
        ("vector", ["tilejson", "xyz"]),
        ("divisions", ["tilejson", "xyz"]),
    ],
)
def test_map_links_follow_the_kind(kind: str, rels: list[str]) -> None:
    data = stac.item_to_stac(an_item(kind), a_version(kind), link, COLLECTIONS)
    general = {"self", "root", "parent", "collection", "alternate"}
    assert [x["rel"] for x in data["links"] if x["rel"] not in general] == rels
    # The extension's schema wants at least one such link wherever it is declared.
    assert (stac.WEB_MAP_LINKS_EXTENSION in data["stac_extensions"]) == bool(rels)
    for x in data["links"]:
        if x["rel"] == "xyz":
            assert "z={z}" in x["href"]


def test_an_archive_is_linked_where_it_is_the_whole_and_one_of_several_is_not() -> None:
    version = a_version("vector")
    whole = replace(version, stores=version.stores[:1])
    for each, wanted in (
        (whole, True),
        (version, False),
        (replace(whole, tombstones=("5/1/1.mvt",)), False),
    ):
        data = stac.item_to_stac(an_item("vector"), each, link, COLLECTIONS)
        assert ("pmtiles" in [x["rel"] for x in data["links"]]) is wanted


def test_a_terrain_that_keeps_its_elevation_model_leads_to_what_is_made_of_it() -> None:
    version = a_version("terrain")
    cog = StoreRef("data", "cog", "assets/dem.tif", "ef" * 32, 9, "image/tiff")
    kept = replace(version, stores=(*version.stores, cog))
    for known in (version, kept, replace(version, info={"vertical": {"code": "EPSG:5737"}})):
        data = stac.item_to_stac(an_item("terrain"), known, link, COLLECTIONS)
        assert stac.WEB_MAP_LINKS_EXTENSION not in data["stac_extensions"]
    whole = replace(kept, info={"vertical": {"code": "EPSG:5737"}})
    data = stac.item_to_stac(an_item("terrain"), whole, link, COLLECTIONS)
    validate(data)
    rels = [x["rel"] for x in data["links"]]
    assert rels.count("tilejson") == 3 and rels[-1] == "service"
    assert "product=terrainrgb&version=3" in "".join(x["href"] for x in data["links"])


def test_links_can_follow_the_current_version() -> None:
    data = stac.item_to_stac(
        an_item("buildings"), a_version("buildings"), link, COLLECTIONS, shown="current"
    )
    assert data["assets"]["tileset"]["href"].endswith("version=current")
