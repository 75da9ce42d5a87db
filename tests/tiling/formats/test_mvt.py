"""The vector tile encoder, judged by an independent decoder and by the specification's examples."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import FormatError
from tiling.findings import Finding
from tiling.formats.json_text import json_text
from tiling.formats.mvt import LayerContent, encode_tile, field_types, plain_attributes
from tiling.formats.varint import decode_varints, encode_varints, unzigzag, zigzag
from tiling.stores.base import StoredTile
from tiling.validate.mvt_reading import ReadLayer, read_tile
from tiling.validate.vectortiles import check_vector_tiles

FIXTURES = Path(__file__).parent.parent.parent / "data" / "mvt"


def geometries(*texts: str) -> Any:
    return np.array([shapely.from_wkt(t) for t in texts], dtype=object)


def encode(geometry: Any, table: pa.Table | None = None, name: str = "层") -> tuple[bytes, Any]:
    rows = len(geometry)
    if table is None:
        table = pa.table({"n": list(range(rows))})
    plain, _ = plain_attributes(table)
    data, (kept,) = encode_tile([LayerContent(name, np.arange(rows), geometry, plain)])
    return data, kept


def decode(data: bytes) -> dict[str, Any]:
    tile: dict[str, Any] = mapbox_vector_tile.decode(data, default_options={"y_coord_down": True})
    return tile


class OneTile:
    """A store of a single tile whose metadata declares what is in it."""

    def __init__(self, data: bytes, layers: dict[str, list[str]]) -> None:
        self.data = data
        self.metadata: dict[str, Any] = {
            "vector_layers": [
                {"id": name, "fields": dict.fromkeys(fields, "String"), "minzoom": 0, "maxzoom": 0}
                for name, fields in layers.items()
            ]
        }

    def keys(self) -> Any:
        yield "0/0/0.mvt"

    def get(self, key: str) -> StoredTile:
        return StoredTile(self.data, "", None, "")


def findings(data: bytes, **layers: list[str]) -> list[Finding]:
    return check_vector_tiles(OneTile(data, layers))[0]


# ---------------------------------------------------------------- the specification's examples

EXAMPLES = {
    "017": "POINT (25 17)",
    "018": "LINESTRING (2 2, 2 10, 10 10)",
    "019": "POLYGON ((3 6, 8 12, 20 34, 3 6))",
    "020": "MULTIPOINT ((5 7), (3 2))",
    "021": "MULTILINESTRING ((2 2, 2 10, 10 10), (1 1, 3 5))",
    "022": (
        "MULTIPOLYGON (((0 0, 10 0, 10 10, 0 10, 0 0)), "
        "((11 11, 20 11, 20 20, 11 20, 11 11), (13 13, 13 17, 17 17, 17 13, 13 13)))"
    ),
}


@pytest.mark.parametrize("number", EXAMPLES)
def test_the_examples_of_the_specification_come_out_command_for_command(number: str) -> None:
    expected = read_tile((FIXTURES / f"{number}.mvt").read_bytes())[0]
    found = read_tile(encode(geometries(EXAMPLES[number]))[0])[0]
    assert found.kinds.tolist() == expected.kinds.tolist()
    assert found.commands.tolist() == expected.commands.tolist()
    assert found.xy.tolist() == expected.xy.tolist()


@pytest.mark.parametrize("number", [*EXAMPLES, "038"])
def test_the_check_accepts_valid_tiles(number: str) -> None:
    data = (FIXTURES / f"{number}.mvt").read_bytes()
    layer = read_tile(data)[0]
    assert findings(data, **{layer.name: layer.keys}) == []


ALL = json.loads((FIXTURES / "fixtures.json").read_text("utf-8"))
# Valid by the letter, and yet refused: a MoveTo that promises 536,870,911 points and brings one.
REFUSED_ALTHOUGH_VALID = {"057"}
# Valid, with features of unknown type: they can be read, and we never write them.
OF_UNKNOWN_TYPE = {"016", "039"}
# What our own tiles promise beyond the specification.
HOUSE_RULES = {
    "field-undeclared",
    "id-missing",
    "key-unused",
    "layer-absent",
    "layer-header",
    "layer-undeclared",
    "outside-buffer",
    "tile-empty",
}
VALID = [n for n, fixture in ALL.items() if fixture["v2"] and n not in REFUSED_ALTHOUGH_VALID]


@pytest.mark.parametrize("number", VALID)
def test_every_valid_fixture_is_read_as_what_was_written(number: str) -> None:
    data = (FIXTURES / f"{number}.mvt").read_bytes()
    layers = read_tile(data)
    written = ALL[number]["tile"].get("layers", [])
    assert len(layers) == len(written)
    for layer, expected in zip(layers, written, strict=True):
        features = expected["features"]
        assert (layer.name, layer.version) == (expected["name"], expected["version"])
        assert layer.extent == expected.get("extent", 4096)
        assert (layer.keys, layer.values) == (expected["keys"], len(expected["values"]))
        assert layer.ids.tolist() == [f.get("id", -1) for f in features]
        assert layer.kinds.tolist() == [f["type"] for f in features]
        assert layer.tags.tolist() == [tag for f in features for tag in f["tags"]]
        assert layer.tag_counts.tolist() == [len(f["tags"]) for f in features]
        assert commands_of(layer) == [number for f in features for number in f["geometry"]]
    errors = {f.rule for f in findings(data)}
    assert errors - HOUSE_RULES == ({"commands"} if number in OF_UNKNOWN_TYPE else set())


def commands_of(layer: ReadLayer) -> list[int]:
    """Write the commands again that a layer was read from."""
    numbers: list[int] = []
    cursor, owner, drawn = np.zeros(2, dtype=np.int64), -1, 0
    for feature, _, command, count in layer.commands.tolist():
        if feature != owner:
            cursor, owner = np.zeros(2, dtype=np.int64), feature
        numbers.append(count << 3 | command)
        for point in layer.xy[drawn : drawn + count] if command != 7 else ():
            numbers += zigzag(point - cursor).tolist()
            cursor, drawn = point, drawn + 1
    return numbers


@pytest.mark.parametrize(
    "number", [n for n, fixture in ALL.items() if not fixture["v2"]] + [*REFUSED_ALTHOUGH_VALID]
)
def test_every_invalid_fixture_is_refused_for_what_is_wrong_with_it(number: str) -> None:
    errors = {f.rule for f in findings((FIXTURES / f"{number}.mvt").read_bytes(), hello=[])}
    assert errors - HOUSE_RULES == {REFUSED_FOR.get(number, "tile-unreadable")}


REFUSED_FOR = {
    "003": "commands",
    "004": "geometry-missing",
    "005": "tags-odd",
    "006": "commands",
    "015": "layer-repeated",
    "040": "tag-outside",
    "041": "tag-outside",
    "042": "tag-outside",
    "046": "point-repeated",
    "047": "commands",
}


def test_no_fixture_is_left_out() -> None:
    assert {p.stem for p in FIXTURES.glob("*.mvt")} == set(ALL) and len(ALL) == 74


# ---------------------------------------------------------------- geometry


def test_every_type_of_geometry_is_decoded_as_it_was() -> None:
    shapes = geometries(*EXAMPLES.values())
    features = decode(encode(shapes)[0])["层"]["features"]
    for feature, shape in zip(features, shapes, strict=True):
        assert shapely.equals(shapely.geometry.shape(feature["geometry"]), shape)
    assert [f["id"] for f in features] == list(range(len(shapes)))


def test_rings_are_wound_whatever_way_they_come() -> None:
    hole = "(2 2, 8 2, 8 8, 2 8, 2 2)"
    forward = shapely.from_wkt(f"POLYGON ((0 0, 10 0, 10 10, 0 10, 0 0), {hole})")
    data, _ = encode(np.array([forward, forward.reverse()], dtype=object))
    assert findings(data, 层=["n"]) == []
    for feature in decode(data)["层"]["features"]:
        outer, inner = feature["geometry"]["coordinates"]
        assert shapely.LinearRing(outer).is_ccw  # positive area where y counts downwards
        assert not shapely.LinearRing(inner).is_ccw


def test_what_collapses_when_rounded_is_left_out_and_told() -> None:
    shapes = geometries(
        "POLYGON ((0 0, 0.2 0, 0.2 0.2, 0 0.2, 0 0))",
        "POLYGON ((0 0, 9 0, 9 0.1, 0 0.1, 0 0))",
        "LINESTRING (3 3, 3.2 3.1)",
        "POLYGON EMPTY",
        "MULTIPOLYGON EMPTY",
        "POINT EMPTY",
        "LINESTRING (0 0, 5 5)",
    )
    data, kept = encode(shapes)
    assert kept.tolist() == [False] * 6 + [True]
    assert [f["id"] for f in decode(data)["层"]["features"]] == [6]


def test_a_hole_falls_with_its_ring_and_not_with_its_neighbours() -> None:
    shape = geometries(
        "MULTIPOLYGON (((0 0, 0.3 0, 0.3 0.3, 0 0), (0.1 0.1, 0.2 0.1, 0.2 0.2, 0.1 0.1)), "
        "((10 10, 20 10, 20 20, 10 20, 10 10), (12 12, 15 12, 15 15, 12 12)))"
    )
    (feature,) = decode(encode(shape)[0])["层"]["features"]
    assert shapely.geometry.shape(feature["geometry"]).area == 100 - 4.5


def test_a_tile_without_features_has_no_bytes() -> None:
    assert encode(geometries("POLYGON EMPTY"))[0] == b""
    assert encode_tile([]) == (b"", [])


def test_a_collection_is_refused() -> None:
    with pytest.raises(FormatError, match="collection"):
        encode(geometries("GEOMETRYCOLLECTION (POINT (1 1))"))


def star(center: tuple[int, int], radii: list[int]) -> shapely.Polygon:
    angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    x = np.rint(center[0] + np.array(radii) * np.cos(angles))
    y = np.rint(center[1] + np.array(radii) * np.sin(angles))
    return shapely.Polygon(np.stack([x, y], axis=1))


stars = st.builds(
    star,
    st.tuples(st.integers(500, 3500), st.integers(500, 3500)),
    st.lists(st.integers(20, 480), min_size=4, max_size=30),
).filter(lambda polygon: polygon.is_valid and polygon.area > 0)


@given(st.lists(stars, min_size=1, max_size=12))
def test_polygons_on_the_grid_survive_exactly(polygons: list[shapely.Polygon]) -> None:
    data, kept = encode(np.array(polygons, dtype=object))
    assert kept.all()
    assert findings(data, 层=["n"]) == []
    for feature, polygon in zip(decode(data)["层"]["features"], polygons, strict=True):
        decoded = shapely.geometry.shape(feature["geometry"])
        assert decoded.is_valid and shapely.equals(decoded, polygon)


# ---------------------------------------------------------------- attributes

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
columns = st.fixed_dictionaries(
    {
        "文本": st.lists(st.none() | texts, min_size=5, max_size=5),
        "text two": st.lists(st.none() | texts, min_size=5, max_size=5),
        "int": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5),
        "double": st.lists(
            st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5
        ),
        "bool": st.lists(st.none() | st.booleans(), min_size=5, max_size=5),
        "uint": st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=5, max_size=5),
    }
)
TYPES = {
    "文本": pa.string(),
    "text two": pa.large_string(),
    "int": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "uint": pa.uint64(),
}


@given(columns)
def test_attributes_keep_value_and_type_and_null_is_absent(rows: dict[str, list[Any]]) -> None:
    table = pa.table({n: pa.array(v, TYPES[n]) for n, v in rows.items()})
    data, _ = encode(np.full(5, shapely.Point(1, 1)), table)
    for i, feature in enumerate(decode(data)["层"]["features"]):
        expected = {n: v[i] for n, v in rows.items() if v[i] is not None}
        assert feature["properties"] == expected
        for name, value in feature["properties"].items():
            assert type(value) is type(expected[name])


def test_gdal_reads_shapes_and_attributes_to_the_last_bit(tmp_path: Path) -> None:
    shapes = geometries(*EXAMPLES.values())
    rows: dict[str, list[Any]] = {
        "int": [-(2**63), 2**63 - 1, -1, 0, None, 2**53 + 1],
        # GDAL has no word for what is above 2**63 - 1.
        "uint": [2**53 + 1, 2**63 - 1, None, 0, 1, 2],
        "bool": [True, False, None, True, None, False],
        "double": [0.1 + 0.2, -0.0, None, 1e300, 5e-324, -1.5],
        "文本": ["", "曾都区", None, "a", "", "𠮷"],
    }
    kinds = {"uint": pa.uint64(), "文本": pa.large_string()}
    table = pa.table({n: pa.array(v, kinds.get(n)) for n, v in rows.items()})
    path = tmp_path / "0.mvt"
    path.write_bytes(encode(shapes, table)[0])
    meta, found = pyogrio.read_arrow(path)
    wkb = found.column(meta["geometry_name"] or "wkb_geometry").to_numpy()
    upright = shapely.transform(shapes, lambda xy: xy * (1, -1) + (0, 4096))
    assert shapely.equals(shapely.from_wkb(wkb), upright).all()
    assert found.column("mvt_id").to_pylist() == list(range(len(shapes)))
    for name, values in rows.items():
        assert list(map(repr, found.column(name).to_pylist())) == list(map(repr, values))


def test_equal_numbers_of_two_types_are_two_values() -> None:
    table = pa.table(
        {"楼层": [73, 73], "高": [73.0, 73.0], "f": pa.array([73.0] * 2, pa.float32())}
    )
    data, _ = encode(np.full(2, shapely.Point(1, 1)), table)
    for feature in decode(data)["层"]["features"]:
        kinds = {name: type(value) for name, value in feature["properties"].items()}
        assert kinds == {"楼层": int, "高": float, "f": float}
    assert read_tile(data)[0].values == 3


def test_values_are_written_once_a_layer() -> None:
    table = pa.table({"a": ["曾都区"] * 50, "b": ["曾都区", "随县"] * 25})
    data, _ = encode(np.full(50, shapely.Point(1, 1)), table)
    assert data.count("曾都区".encode()) == 1
    assert read_tile(data)[0].values == 2


def test_keys_without_a_value_are_left_out() -> None:
    table = pa.table({"空": pa.array([None, None], pa.string()), "b": [None, 1]})
    layer = read_tile(encode(np.full(2, shapely.Point(1, 1)), table)[0])[0]
    assert (layer.keys, layer.values, layer.tag_counts.tolist()) == (["b"], 1, [0, 2])


def test_features_without_attributes_are_encoded() -> None:
    table = pa.table({"x": [1, 2]}).select([])
    data, _ = encode(geometries("POINT (1 1)", "POLYGON EMPTY"), table)
    assert decode(data)["层"]["features"][0]["properties"] == {}


def test_negative_numbers_do_not_take_ten_bytes() -> None:
    data, _ = encode(np.full(1, shapely.Point(1, 1)), pa.table({"n": [-5]}))
    assert bytes([0x30, 9]) in data


def test_arrow_types_become_what_a_tile_holds() -> None:
    moment = dt.datetime(2024, 5, 6, 7, 8, 9)
    table = pa.table(
        {
            "date": pa.array([dt.date(2024, 5, 6)]),
            "time": pa.array([dt.time(7, 8, 9)]),
            "when": pa.array([moment], pa.timestamp("ms")),
            "exact": pa.array([moment.replace(microsecond=250000)], pa.timestamp("us")),
            "zoned": pa.array([moment], pa.timestamp("s", tz="Asia/Shanghai")),
            "list": pa.array([["甲", None]]),
            "dict": pa.array(["住宅"]).dictionary_encode(),
            "small": pa.array([7], pa.int8()),
            "half": pa.array([1.5], pa.float32()),
            "decimal": pa.array([__import__("decimal").Decimal("12.50")]),
            "nan": pa.array([math.nan]),
            "inf": pa.array([math.inf], pa.float32()),
            "nothing": pa.nulls(1),
            "raw": pa.array([b"\x00"]),
        }
    )
    plain, omitted = plain_attributes(table)
    assert omitted == ["raw"]
    assert plain.to_pylist()[0] == {
        "date": "2024-05-06",
        "time": "07:08:09.000000",
        "when": "2024-05-06T07:08:09",
        "exact": "2024-05-06T07:08:09.250000",
        "zoned": "2024-05-06T07:08:09Z",
        "list": '["甲",null]',
        "dict": "住宅",
        "small": 7,
        "half": 1.5,
        "decimal": 12.5,
        "nan": None,
        "inf": None,
        "nothing": None,
    }
    words = field_types(plain.schema)
    assert (words["small"], words["list"], words["decimal"]) == ("Number", "String", "Number")
    assert plain_attributes(plain)[0].equals(plain)


def test_a_type_that_no_tile_holds_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match="日期"):
        table = pa.table({"日期": pa.array([dt.date(2024, 1, 1)])})
        encode_tile([LayerContent("a", np.arange(1), geometries("POINT (1 1)"), table)])


json_values = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.lists(
        st.none()
        | st.fixed_dictionaries(
            {
                'a"\n': st.none() | st.lists(st.none() | texts, max_size=3),
                "b": st.none() | st.lists(st.lists(st.integers(-9, 9), max_size=2), max_size=2),
                "c": st.none() | st.booleans(),
                "d": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            }
        ),
        max_size=5,
    )
)
def test_json_text_says_what_the_rows_say(rows: list[Any]) -> None:
    kind = pa.struct(
        [
            ('a"\n', pa.list_(pa.string())),
            ("b", pa.large_list(pa.list_(pa.int32()))),
            ("c", pa.bool_()),
            ("d", pa.float64()),
        ]
    )
    array = pa.array([None, *rows], kind).slice(1)
    found = [None if t is None else json.loads(t) for t in json_text(array).to_pylist()]
    assert found == array.to_pylist()


# ---------------------------------------------------------------- numbers


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_varints_survive_the_round_trip(values: list[int]) -> None:
    coded = encode_varints(np.array(values, dtype=np.uint64))
    assert decode_varints(coded.tobytes()).tolist() == values


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_zigzag_survives_the_round_trip(values: list[int]) -> None:
    assert unzigzag(zigzag(np.array(values, dtype=np.int64))).tolist() == values


def test_varints_are_those_of_protocol_buffers() -> None:
    assert encode_varints([1, 150, 300]).tobytes() == b"\x01\x96\x01\xac\x02"
    assert zigzag([0, -1, 1, -2, 2147483647]).tolist() == [0, 1, 2, 3, 4294967294]


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
def test_damaged_varints_are_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_varints(data)


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_tile(data)
    except FormatError:
        pass


@given(st.lists(stars, min_size=1, max_size=3), st.data())
def test_a_damaged_tile_is_judged_and_never_crashes_the_check(
    polygons: list[shapely.Polygon], data: st.DataObject
) -> None:
    raw = bytearray(encode(np.array(polygons, dtype=object))[0])
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    findings(bytes(raw), 层=["n"])


def test_doubles_are_written_bit_for_bit() -> None:
    value = 0.1 + 0.2
    data, _ = encode(np.full(1, shapely.Point(1, 1)), pa.table({"d": [value]}))
    assert struct.pack("<d", value) in data
