"""Draws a font into glyph PBF, once, at setup: ``python -m styles.glyph_builder PACKAGE``.

``PACKAGE`` is the folder of a variable font as Fontsource publishes it: WOFF2 files, each with some
of the characters, and ``unicode.json``, which says which.

Glyph PBF is what node-fontnik writes (its ``proto/glyphs.proto``): for each character a bitmap of
distances to its outline, as it is at 24 pixels an em, with a border of 3 pixels. A byte is
``255 − 255·(d/8 + ¼)`` with *d* in pixels, negative inside. The outline is drawn three times as
large, so that the middle pixel of nine is the place whose distance is told; distances are those to
the nearest pixel beyond the edge, less what of it is covered, as in TinySDF.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from styles.glyphs import FOLDER, FONT, SPAN

EM = 24
BORDER = 3
RADIUS = 8.0
CUTOFF = 0.25
WEIGHT = 400
_LARGER = 3
_FAR = np.float32(1e6)
_OUTSIDE = int(RADIUS * (1 - CUTOFF)) * _LARGER  # beyond it a byte is 0
_INSIDE = int(RADIUS * CUTOFF) * _LARGER  # beyond it a byte is 255
_NO_CHARACTER = chr(0x10FFFF)


class Glyph(NamedTuple):
    """A character drawn.

    Attributes:
        code: its code point.
        width, height: pixels, without the border.
        left: of its left edge, pixels right of the pen.
        top: of its upper edge, pixels above the font's ascender (so nearly always negative).
        advance: of the pen, pixels.
        bitmap: (height + 6, width + 6) uint8; empty where nothing is seen, as of a space.
    """

    code: int
    width: int
    height: int
    left: int
    top: int
    advance: int
    bitmap: NDArray[np.uint8]


def distance_fields(coverage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how far each pixel is from an outline.

    Args:
        coverage: (N, 3·H, 3·W) uint8, 255 inside.

    Returns:
        (N, H, W) uint8.
    """
    part = coverage.astype(np.float32) / np.float32(255)
    off = np.maximum(np.float32(0.5) - part, 0) ** 2
    outer = np.where(part == 0, _FAR, off)
    off = np.maximum(part - np.float32(0.5), 0) ** 2
    inner = np.where(part == 1, _FAR, off)
    away = np.sqrt(_nearest(outer, _OUTSIDE)) - np.sqrt(_nearest(inner, _INSIDE))
    level = 255 - 255 * (away / (_LARGER * RADIUS) + CUTOFF)
    levels: NDArray[np.uint8] = np.clip(np.rint(level), 0, 255).astype(np.uint8)
    return levels


def _nearest(costs: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return the least sum of cost and squared distance, at the middle of each nine pixels.

    Args:
        costs: (N, 3·H, 3·W) float32.
        reach: how far is looked along an axis, in pixels of `costs`.

    Returns:
        (N, H, W) float32, squared pixels of `costs`.
    """
    for axis in (2, 1):
        margins = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.moveaxis(np.pad(costs, margins, constant_values=_FAR), axis, 0)
        count = costs.shape[axis] // _LARGER
        first = reach + _LARGER // 2
        best = np.full((count, *padded.shape[1:]), _FAR, dtype=np.float32)
        for shift in range(-reach, reach + 1):
            there = padded[first + shift :: _LARGER][:count]
            np.minimum(best, there + np.float32(shift * shift), out=best)
        costs = np.moveaxis(best, 0, axis)
    return costs


def draw_range(fonts: Sequence[tuple[int, ImageFont.FreeTypeFont]]) -> list[Glyph]:
    """Return the glyphs of some characters, at least one.

    Args:
        fonts: code points, ascending, each with a font that has it, at three times `EM`.
    """
    drawn = [(code, font, _box(font, chr(code))) for code, font in fonts]
    side = [max(b[k + 2] - b[k] for *_, b in drawn) + 2 * BORDER for k in (0, 1)]
    canvas = np.zeros((len(drawn), _LARGER * side[1], _LARGER * side[0]), dtype=np.uint8)
    for row, (code, font, (left, top, *_)) in enumerate(drawn):
        image = Image.new("L", (canvas.shape[2], canvas.shape[1]))
        pen = (_LARGER * (BORDER - left), _LARGER * (BORDER - top))
        ImageDraw.Draw(image).text(pen, chr(code), fill=255, font=font, anchor="ls")
        canvas[row] = np.asarray(image)
    glyphs = []
    for field, (code, font, (left, top, right, bottom)) in zip(
        distance_fields(canvas), drawn, strict=True
    ):
        width, height = right - left, bottom - top
        bitmap = field[: height + 2 * BORDER, : width + 2 * BORDER]
        ascender = round(font.getmetrics()[0] / _LARGER)
        advance = round(font.getlength(chr(code)) / _LARGER)
        if width == 0 or height == 0:
            glyphs.append(Glyph(code, 0, 0, 0, 0, advance, np.empty((0, 0), dtype=np.uint8)))
        else:
            glyphs.append(Glyph(code, width, height, left, -top - ascender, advance, bitmap))
    return glyphs


def _box(font: ImageFont.FreeTypeFont, character: str) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a glyph: pixels from the pen, downwards."""
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    return (
        math.floor(left / _LARGER),
        math.floor(top / _LARGER),
        math.ceil(right / _LARGER),
        math.ceil(bottom / _LARGER),
    )


def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return bytes(font.getmask(character)) != _stand_in(font)


@cache
def _stand_in(font: ImageFont.FreeTypeFont) -> bytes:
    """Return what a font draws for characters that it does not have."""
    return bytes(font.getmask(_NO_CHARACTER))


def encode_glyphs(font: str, start: int, glyphs: Sequence[Glyph]) -> bytes:
    """Return the glyph PBF of the range of code points that begins at `start`."""
    stack = _bytes_field(1, font.encode()) + _bytes_field(2, f"{start}-{start + SPAN - 1}".encode())
    for glyph in glyphs:
        message = _number(1, glyph.code)
        if glyph.bitmap.size:
            message += _bytes_field(2, glyph.bitmap.tobytes())
        message += _number(3, glyph.width) + _number(4, glyph.height)
        message += _number(5, _zigzag(glyph.left)) + _number(6, _zigzag(glyph.top))
        stack += _bytes_field(3, message + _number(7, glyph.advance))
    return _bytes_field(1, stack)


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes((*encoded, value))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes_field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def characters(package: Path) -> dict[int, list[Path]]:
    """Return the files that may draw each code point, the first that has it being the one.

    Their ranges overlap, and in the style sheet of such a package the last one holds.
    """
    slices = json.loads((package / "unicode.json").read_text("utf-8"))
    name = package.name
    files: dict[int, list[Path]] = {}
    for key, ranges in slices.items():
        path = package / "files" / f"{name}-{key.strip('[]')}-wght-normal.woff2"
        for span in ranges.split(","):
            low, _, high = span.strip().removeprefix("U+").partition("-")
            for code in range(int(low, 16), int(high or low, 16) + 1):
                files.setdefault(code, []).insert(0, path)
    return files


@cache
def _opened(path: Path) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(path, EM * _LARGER, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_axes([WEIGHT])
    return font


def ranges(package: Path) -> Iterator[tuple[int, list[Glyph]]]:
    """Yield the start of each range of which a font has characters, with their glyphs."""
    files = characters(package)
    for start in sorted({code - code % SPAN for code in files}):
        codes = [code for code in range(start, start + SPAN) if code in files]
        fonts = [(code, font) for code in codes if (font := _font_of(code, files[code]))]
        if fonts:
            yield start, draw_range(fonts)


def _font_of(code: int, files: Sequence[Path]) -> ImageFont.FreeTypeFont | None:
    return next((font for font in map(_opened, files) if _has(font, chr(code))), None)


def build(package: Path, folder: Path = FOLDER / FONT) -> int:
    """Draw the font of a package into `folder`, in place of what is there.

    Returns:
        how many characters were drawn.
    """
    staged = folder.with_name(folder.name + ".new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    count = 0
    for start, glyphs in ranges(package):
        data = encode_glyphs(FONT, start, glyphs)
        path = staged / f"{start}-{start + SPAN - 1}.pbf.gz"
        path.write_bytes(gzip.compress(data, 9, mtime=0))
        count += len(glyphs)
    shutil.copyfile(package / "LICENSE", staged / "OFL.txt")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw a font into glyph PBF.")
    parser.add_argument("package", type=Path, help="folder of a Fontsource variable font")
    print(f"{build(parser.parse_args().package)} characters")
