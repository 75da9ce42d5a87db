"""Text sources (GeoJSON, CSV) brought into the one form GDAL reads: UTF-8 without surprises.

A file that is already plain UTF-8 is read where it lies. One with a byte order mark, in GBK or
UTF-16, or a bare JSON array of features, is streamed into a scratch file first; memory stays
bounded by a block.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from ingest.encoding import MAX_SAMPLE_VALUES, EncodingDecision, codec, decide
from tiling.errors import EncodingUndecided, SourceUnreadable

_BLOCK_NBYTES = 4 * 1024 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
# Cut at bytes below 0x30 only: no double-byte character contains one.
_PIECE = re.compile(rb"[^\",\r\n\t]*[\x80-\xff][^\",\r\n\t]*")

_X_NAMES = ("x", "lon", "lng", "long", "longitude", "easting", "经度", "东经")
_Y_NAMES = ("y", "lat", "lat", "lat", "latitude", "northing", "纬度", "北纬")
_WKT_NAMES = ("wkt", "geometry", "geom", "the_geom", "shape", "wkb", "center_wkb", "几何")


@dataclass(frozen=True, slots=True)
class TextForm:
    """How a text file is coded.

    Attributes:
        codec: Python codec of the text after the byte order mark.
        bom_nbytes: length of the byte order mark.
        decision: for the report.
    """

    codec: str
    bom_nbytes: int
    decision: EncodingDecision

    @property
    def is_plain(self) -> bool:
        """Whether GDAL can read the file as it is."""
        return self.bom_nbytes == 0 and self.codec in ("utf-8", "ascii")


def text_form(path: Path, override: str | None = None) -> TextForm:
    """Decide the encoding of a whole text file from its mark or its bytes.

    Raises:
        EncodingUndecided: the bytes fit nothing, or contradict `override`.
    """
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name, shown in _BOMS:
        if head.startswith(mark):
            decision = EncodingDecision(shown, "it begins with a byte order mark", "certain")
            return TextForm(name, len(mark), decision)
    pieces = _sample(path)
    if override is None and pieces is None:
        return TextForm("utf-8", 0, EncodingDecision("UTF-8", "the whole file is UTF-8", "certain"))
    decision = decide(pieces or (), override=override, source=path)
    decided = codec(decision.encoding)
    assert decided is not None  # decide() returns names of codecs it has used
    return TextForm(decided, 0, decision)


def _sample(path: Path) -> list[bytes] | None:
    """Return non-ASCII pieces of the file, or None when all of it is valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces: list[bytes] = []
    valid = True
    with path.open("rb") as file:
        while block := file.read(_BLOCK_NBYTES):
            if not block.isascii() and len(pieces) < MAX_SAMPLE_VALUES:
                # The first and last piece may be cut by the block: leave them out if others exist.
                found = _PIECE.findall(block)
                pieces += (found[1:-1] or found)[: MAX_SAMPLE_VALUES - len(pieces)]
            if valid:
                valid = _still_valid(decoder, block)
    return None if valid and _still_valid(decoder, b"", final=True) else pieces


def _still_valid(decoder: codecs.IncrementalDecoder, block: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def first_character(path: Path, form: TextForm) -> str:
    """Return the first character that is not white space, or ``""``."""
    with path.open("rb") as file:
        file.seek(form.bom_nbytes)
        return file.read(4096).decode(form.codec, "replace").lstrip()[:1]


def rewrite(path: Path, form: TextForm, target: Path, *, array: bool = False) -> None:
    """Write `path` to `target` as UTF-8 without a mark, streamed.

    Args:
        path: the source.
        form: how it is coded.
        target: the file to write.
        array: wrap a JSON array of features into a FeatureCollection.

    Raises:
        EncodingUndecided: a byte that the decided encoding does not have.
    """
    decoder = codecs.getincrementaldecoder(form.codec)()
    with path.open("rb") as source, target.open("wb") as sink:
        source.seek(form.bom_nbytes)
        sink.write(b'{"type":"FeatureCollection","features":' if array else b"")
        try:
            while block := source.read(_BLOCK_NBYTES):
                sink.write(decoder.decode(block).encode("utf-8"))
            sink.write(decoder.decode(b"", final=True).encode("utf-8"))
        except UnicodeError as error:
            raise EncodingUndecided(
                f"decided as {form.decision.encoding} ({form.decision.evidence}), but byte "
                f"{source.tell()} or one shortly before it does not decode: {error}",
                source=path,
                remedy="declare the encoding with --encoding, or mend the file",
            ) from error
        sink.write(b"}" if array else b"")


def csv_geometry_options(path: Path, source: Path) -> dict[str, str]:
    """Say where a CSV keeps its geometry, as open options of GDAL's CSV driver.

    Args:
        path: the CSV as UTF-8.
        source: the file to name in messages.

    Raises:
        SourceUnreadable: no column pair or column is known to hold positions.
    """
    with path.open("rb") as file:
        head = io.StringIO(file.read(64 * 1024).decode("utf-8", "replace"))
    try:
        names = next(csv.reader([head.readline()], delimiter=_delimiter(head.getvalue())), [])
    except csv.Error as error:
        raise SourceUnreadable(f"not a CSV: {error}", source=source) from error
    # GDAL types columns from all of the file; numbers with leading zeros stay text.
    typed = {
        "AUTODETECT_TYPE": "YES",
        "AUTODETECT_SIZE_LIMIT": "0",
        "EMPTY_STRING_AS_NULL": "YES",
    }
    for x_name, y_name in zip(_X_NAMES, _Y_NAMES, strict=True):
        x, y = _column(names, x_name), _column(names, y_name)
        if x and y:
            return typed | {"X_POSSIBLE_NAMES": x, "Y_POSSIBLE_NAMES": y}
    for wanted in _WKT_NAMES:
        if found := _column(names, wanted):
            return typed | {"GEOM_POSSIBLE_NAMES": found}
    raise SourceUnreadable(
        f"no column of positions among {', '.join(map(repr, names[:20]))}",
        source=source,
        remedy=f"name the columns lon/lat (or one of {', '.join(_X_NAMES)}) or WKT",
    )


def _delimiter(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return max((",", ";", "\t", "|"), key=first.count)


def _column(names: list[str], wanted: str) -> str | None:
    """Find a column by its name alone or followed by a frame (``longitude_gcj02``)."""
    for name in names:
        if name.strip().lower() == wanted:
            return name
    return next((n for n in names if n.strip().lower().startswith(f"{wanted}_")), None)
