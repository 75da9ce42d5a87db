"""Characters as maps write them: a font cut into ranges of 256 code points, for any MapLibre.

``make setup`` draws the font once (`styles.glyph_builder`) into ``fonts/<font>/0-255.pbf.gz`` …
beside this file; an installation without that folder has no fonts, and its map styles name none.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "fonts"
FONT = "Noto Sans SC Regular"
SPAN = 256
_CODES = 0x110000


@cache
def font_names() -> tuple[str, ...]:
    """Return the fonts that were built, sorted."""
    if not FOLDER.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in FOLDER.iterdir() if entry.is_dir()))


def first_font(stack: str) -> str | None:
    """Return the first font that is here of those that a style names, commas between them."""
    return next((name for name in stack.split(",") if name in font_names()), None)


def load_glyphs(font: str, start: int) -> bytes:
    """Return the glyphs of code points `start` to ``start + 255``: a gzip member of glyph PBF.

    A range of which the font has nothing is empty rather than missing: MapLibre Native draws none
    of a tile's texts as long as a range of one of them is refused.

    Raises:
        KeyError: there is no such font, or no range begins there.
    """
    if font not in font_names():
        raise KeyError(f"no font {font!r}; there are {', '.join(font_names()) or 'none'}")
    if start % SPAN or not 0 <= start < _CODES:
        raise KeyError(f"ranges begin at 0, {SPAN} … up to {_CODES - SPAN}, not at {start}")
    path = FOLDER / font / f"{start}-{start + SPAN - 1}.pbf.gz"
    return path.read_bytes() if path.is_file() else gzip.compress(b"", mtime=0)
