"""Characters for maps: distances that are right, and bytes that another decoder reads."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image, ImageDraw

from styles.glyph_builder import BORDER, EM, Glyph, build, distance_fields, encode_glyphs
from styles.glyphs import FONT, SPAN, first_font, font_names, load_glyphs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cim_server/portal/node_modules/@fontsource-variable/noto-sans-sc"
NAMES = ROOT / "cim_server/demo/data/suizhou_towns_villages_gcj02.csv"

# proto/glyphs.proto of node-fontnik: name, number, type, and whether it repeats.
_FIELDS = {
    "glyph": [("id", 1, 13), ("bitmap", 2, 12), ("width", 3, 13), ("height", 4, 13),
              ("left", 5, 17), ("top", 6, 17), ("advance", 7, 13)],
    "fontstack": [("name", 1, 9), ("range", 2, 9), ("glyphs", 3, "glyph")],
    "glyphs": [("stacks", 1, "fontstack")],
}  # fmt: skip


@pytest.fixture(scope="module")
def decode() -> Any:
    """Return Google's decoder of the format."""
    file = descriptor_pb2.FileDescriptorProto(name="glyphs.proto", package="g", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            nested = isinstance(kind, str)
            added = message.field.add(name=field, number=number, label=3 if nested else 1)
            added.type = 11 if nested else kind
            if nested:
                added.type_name = f".g.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind_of_all = message_factory.GetMessageClass(pool.FindMessageTypeByName("g.glyphs"))
    return kind_of_all.FromString


def test_a_byte_tells_the_distance_to_the_outline() -> None:
    """Of a disk the distance is known everywhere; 255 steps of a byte are eight pixels."""
    side, radius = 30, 9.3
    image = Image.new("L", (24 * side, 24 * side))
    middle = 12 * side
    ImageDraw.Draw(image).circle((middle - 0.5, middle - 0.5), 24 * radius, fill=255)
    coverage = np.asarray(image.resize((3 * side, 3 * side), Image.Resampling.BOX))
    (field,) = distance_fields(coverage[None])
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    away = np.hypot(x, y) - radius
    wanted = np.clip(255 - 255 * (away / 8 + 0.25), 0, 255)
    assert field.shape == (side, side)
    assert np.abs(field - wanted).max() < 255 / 8 * 0.25  # a quarter of a pixel


def test_glyphs_decode_as_they_were_and_blanks_have_no_bitmap(decode: Any) -> None:
    bitmap = np.arange(8 * 9, dtype=np.uint8).reshape(8, 9)
    blank = Glyph(32, 0, 0, 0, 0, 6, np.empty((0, 0), dtype=np.uint8))
    drawn = Glyph(200, 3, 2, -4, -21, 24, bitmap)
    (stack,) = decode(encode_glyphs(FONT, 0, [blank, drawn])).stacks
    assert (stack.name, stack.range) == (FONT, "0-255")
    space, other = stack.glyphs
    assert (space.id, space.bitmap, space.width, space.advance) == (32, b"", 0, 6)
    assert (other.left, other.top, other.advance) == (-4, -21, 24)
    assert other.bitmap == bitmap.tobytes() and (other.width, other.height) == (3, 2)


@pytest.fixture(scope="module")
def built(decode: Any) -> Any:
    """Return the characters of a range as the setup built them."""
    assert FONT in font_names(), "the fonts were not built: run `make setup`"

    def glyphs(start: int) -> dict[int, Any]:
        stacks = decode(gzip.decompress(load_glyphs(FONT, start))).stacks
        return {glyph.id: glyph for stack in stacks for glyph in stack.glyphs}

    return glyphs


def test_every_character_of_the_names_of_a_city_can_be_written(built: Any) -> None:
    text = set(NAMES.read_text("utf-8")) - set("\r\n\ufeff")
    starts = {ord(character) // SPAN * SPAN for character in text}
    here = {code for start in starts for code in built(start)}
    # The font has no 骦 (骦马村); browsers write it with a font of their own.
    assert {c for c in text if ord(c) not in here} <= {"骦"}
    assert len({c for c in text if ord(c) > 0x3400}) > 500


def test_bitmaps_have_the_border_and_ink_and_stand_on_one_line(built: Any) -> None:
    han = [glyph for code, glyph in built(0x5E00).items() if code >= 0x5E00]
    assert len(han) > 100
    for glyph in han:
        assert len(glyph.bitmap) == (glyph.width + 2 * BORDER) * (glyph.height + 2 * BORDER)
        assert max(glyph.bitmap) > 192  # inside of the outline
        assert glyph.advance == EM
        assert glyph.left >= -1 and glyph.left + glyph.width <= EM + 1
    digits = built(0)
    bottoms = {digits[ord(c)].top - digits[ord(c)].height for c in "AEHLTZ"}
    assert len(bottoms) == 1


def test_a_range_without_characters_is_empty_and_a_wrong_one_refused(built: Any) -> None:
    assert built(0x0E00) == {}
    for start in (1, -256, 0x110000):
        with pytest.raises(KeyError, match="ranges begin"):
            load_glyphs(FONT, start)
    with pytest.raises(KeyError, match="no font"):
        load_glyphs("../maps", 0)
    assert first_font("Open Sans,Noto Sans SC Regular") == FONT
    assert first_font("../maps") is None


def test_a_package_cut_down_to_latin_gives_the_same_letters(
    built: Any, decode: Any, tmp_path: Path
) -> None:
    package = tmp_path / PACKAGE.name
    (package / "files").mkdir(parents=True)
    file = f"{PACKAGE.name}-latin-wght-normal.woff2"
    (package / "files" / file).write_bytes((PACKAGE / "files" / file).read_bytes())
    (package / "LICENSE").write_text("OFL", "utf-8")
    (package / "unicode.json").write_text('{"latin": "U+0000-00FF"}', "utf-8")
    assert build(package, tmp_path / FONT) > 150
    (stack,) = decode(gzip.decompress((tmp_path / FONT / "0-255.pbf.gz").read_bytes())).stacks
    letters = {g.id: g for g in stack.glyphs if chr(g.id).isalnum()}
    assert len(letters) > 62
    known = built(0)
    assert all(known[code] == glyph for code, glyph in letters.items())
    assert (tmp_path / FONT / "OFL.txt").is_file()
