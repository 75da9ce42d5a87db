"""What lies at a path: its format by content, its files, its encoding, how GDAL opens it.

Formats are told by their first bytes, not by their names; a name only decides where bytes say
nothing (CSV). Everything GDAL would guess in silence is decided here instead.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from ingest.encoding import EncodingDecision, decide
from ingest.readers.archive import is_vector_archive, unpack
from ingest.readers.base import ReadOptions
from ingest.readers.shapefile import MAGIC, Shapefile
from ingest.readers.textfile import csv_geometry_options, first_character, rewrite, text_form
from tiling.errors import EncodingUndecided, GeometryInvalid, SourceError, SourceUnreadable
from tiling.findings import Finding, Findings

_HEAD_NBYTES = _TAIL_NBYTES = 32 * 1024
_BY_FORMAT = EncodingDecision("UTF-8", "the format prescribes it", "certain")
_OTHER_ZIPS = (".3tz", ".xlsx", ".docx", ".pptx", ".ods", ".kmz", ".jar", ".whl")
_CITY_MARK = re.compile(rb'"type"\s*:\s*"CityJSON')
_SEQUENCE_ENDINGS = (".geojsonl", ".geojsons", ".ndjson", ".ndgeojson", ".jsonl")
_TABLE_ENDINGS = (".csv", ".tsv")
_FEATURE_MARKS = re.compile(rb'"(?:Feature|FeatureCollection|coordinates|features)"')
# Every code point of ISO-8859-1 is one byte, so text read with it can be decoded here.
_RAW_TEXT = "ISO-8859-1"
# DXF versions from AutoCAD 2007 on are UTF-8.
_DXF_UTF8_SINCE = "AC1021"
# GDAL 3.12's own Arrow stream of FlatGeobuf hands out damaged arrays for rows without geometry.
_CONFIG = {"flatgeobuf": {"OGR_FLATGEOBUF_STREAM_BASE_IMPL": "YES"}}
_CONFIG_LOCK = threading.Lock()
# GDAL refuses large GeoJSON features (200 MB by its own count of what it parses, which is several
# times the text). No other format has this limit, so it is raised once, without a lock; a user's
# own limit wins.
_GEOJSON_LIMIT = "OGR_GEOJSON_MAX_OBJ_SIZE"
_GEOJSON_LIMIT_MB = "16384"
_GDAL_ERRORS = (
    DataSourceError,
    DataLayerError,
    FeatureError,
    FieldError,
    GeometryError,
    pa.ArrowException,
    OSError,
    UnicodeDecodeError,
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Something GDAL can open.

    Attributes:
        path: what to name in messages: the user's file.
        location: what GDAL opens; a file in the scratch folder where the source needed rewriting.
        format: ``shapefile``, ``gpkg``, ``geojson``, ``geojsonseq``, ``flatgeobuf``, ``filegdb``,
            ``dxf`` or ``csv``.
        files: the user's files that are read.
        nbytes: size of what GDAL reads.
        encoding: how text is decoded.
        raw_text: GDAL hands text out as raw bytes, and the reader decodes them.
        open_options: of the GDAL driver.
        config: GDAL configuration while the dataset is open.
        shapefile: its checked parts, if it is one.
    """

    path: Path
    location: str
    format: str
    files: tuple[Path, ...]
    nbytes: int
    encoding: EncodingDecision
    raw_text: bool = False
    open_options: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    shapefile: Shapefile | None = None

    @property
    def has_one_layer(self) -> bool:
        """Whether the format holds one layer, so that GDAL need not be asked for a list."""
        return self.format in ("shapefile", "geojson", "geojsonseq", "flatgeobuf", "csv", "dxf")

    @property
    def gdal_encoding(self) -> str | None:
        """The encoding to name to GDAL; None where the format knows its own."""
        return _RAW_TEXT if self.shapefile is not None else None


def sniff_format(path: Path) -> str | None:
    """Return the format of a file or folder from its first bytes, or None; reads <= 64 KiB."""
    if path.is_dir():
        return _sniff_folder(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_NBYTES)
        ending = path.suffix.lower()
        if head.startswith(b"PK\x03\x04"):
            file.seek(max(0, path.stat().st_size - _TAIL_NBYTES))
            vector = ending not in _OTHER_ZIPS and is_vector_archive(head, file.read())
            return "zip" if vector else None
    if head[:4] == MAGIC:
        return "shapefile" if ending == ".shp" else None
    if head.startswith(b"SQLite format 3\0"):
        return "gpkg" if head[68:70] == b"GP" or ending == ".gpkg" else None
    if head.startswith(b"fgb"):
        return "flatgeobuf"
    return _sniff_text(head, ending)


def _sniff_folder(path: Path) -> str | None:
    endings = {p.suffix.lower() for p in path.iterdir()}
    if ".gdbtable" in endings:
        return "filegdb"
    return "folder" if ".shp" in endings else None


def _sniff_text(head: bytes, ending: str) -> str | None:
    if ending == ".dxf" and re.match(rb"\s*(?:0|999)\s*[\r\n]|AutoCAD Binary DXF", head):
        return "dxf"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _CITY_MARK.search(text):
        return None
    if text.startswith((b"{", b"[", b"\x1e")) and (
        _FEATURE_MARKS.search(text) or ending in (".geojson", *_SEQUENCE_ENDINGS)
    ):
        sequence = ending in _SEQUENCE_ENDINGS or text.startswith(b"\x1e")
        return "geojsonseq" if sequence else "geojson"
    return "csv" if ending in _TABLE_ENDINGS and text and b"\0" not in text else None


def find_datasets(path: Path, scratch: Path, options: ReadOptions) -> tuple[Dataset, ...]:
    """Return what can be opened at `path`, checked and brought into a form GDAL reads.

    Args:
        path: a file or folder that `sniff_format` knows.
        scratch: an empty folder that lives as long as the datasets.
        options: what the user declares.

    Raises:
        SourceError: a part is missing or damaged, or the encoding cannot be decided.
    """
    kind = sniff_format(path)
    if kind == "zip":
        inside = scratch / "zip"
        inside.mkdir()
        unpack(path, inside)
        found = [p for p in _walk(inside) if sniff_format(p) not in (None, "zip", "folder")]
        if not found:
            raise SourceUnreadable("the archive holds no vector data", source=path, remedy="")
        return tuple(_prepare(p, path, scratch / str(i), options) for i, p in enumerate(found))
    if kind == "folder":
        members = sorted(p for p in path.iterdir() if p.suffix.lower() == ".shp")
        return tuple(_prepare(p, p, scratch / str(i), options) for i, p in enumerate(members))
    return (_prepare(path, path, scratch, options),)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__MACOSX")):
            continue
        if path.is_dir() and _sniff_folder(path) != "filegdb":
            yield from _walk(path)
        else:
            yield path


def _prepare(path: Path, shown: Path, scratch: Path, options: ReadOptions) -> Dataset:
    """Prepare one dataset; `shown` is the user's file (the archive, where there is one)."""
    scratch.mkdir(exist_ok=True)
    kind = sniff_format(path)
    if kind == "shapefile":
        return _shapefile(path, shown, scratch, options)
    if kind in ("geojson", "geojsonseq", "csv"):
        return _text(path, shown, kind, scratch, options)
    if kind == "dxf":
        return _dxf(path, shown, scratch, options)
    assert kind is not None  # the caller has sniffed it
    inside = tuple(sorted(p for p in path.rglob("*") if p.is_file())) if path.is_dir() else (path,)
    if kind == "gpkg" and (wal := path.with_name(path.name + "-wal")).exists():
        inside += (wal,)
    return _dataset(path, shown, scratch, kind, inside, _BY_FORMAT, config=_CONFIG.get(kind))


def _location(path: Path, inside: tuple[Path, ...], scratch: Path) -> str:
    """Return a path that pyogrio takes literally: it reads ``!`` as the seam of an archive."""
    if "!" not in str(path):
        return str(path)
    parts = (path,) if path.is_dir() else inside
    for part in parts:
        (scratch / _without_seam(part.name)).symlink_to(part.resolve())
    return str(scratch / _without_seam(path.name))


def _without_seam(name: str) -> str:
    return name.replace("!", "\uff01")  # the full-width mark


def _dataset(
    path: Path,
    shown: Path,
    scratch: Path,
    kind: str,
    inside: tuple[Path, ...],
    encoding: EncodingDecision,
    raw_text: bool = False,
    config: Mapping[str, str] | None = None,
    shapefile: Shapefile | None = None,
) -> Dataset:
    # What was unpacked from an archive is read in its place, but the user's file is the archive.
    files = inside if shown == path else (shown,)
    return Dataset(
        shown,
        _location(path, inside, scratch),
        kind,
        files,
        sum(p.stat().st_size for p in inside),
        encoding,
        raw_text,
        config=config or {},
        shapefile=shapefile,
    )


def _shapefile(path: Path, shown: Path, scratch: Path, options: ReadOptions) -> Dataset:
    parts = Shapefile.open(path)
    decision = parts.encoding(options.encoding)
    return _dataset(
        path, shown, scratch, "shapefile", parts.files, decision, raw_text=True, shapefile=parts
    )


def _text(path: Path, shown: Path, kind: str, scratch: Path, options: ReadOptions) -> Dataset:
    form = text_form(path, options.encoding)
    array = kind == "geojson" and first_character(path, form) == "["
    plain = path
    if array or not form.is_plain:
        plain = scratch / _without_seam(path.stem + _ENDINGS[kind])
        rewrite(path, form, plain, array=array)
    else:
        plain = Path(_location(path, (path,), scratch))
    open_options = csv_geometry_options(plain, shown) if kind == "csv" else {}
    return Dataset(
        shown,
        str(plain),
        kind,
        (shown,),
        plain.stat().st_size,
        form.decision,
        open_options=open_options,
    )


_ENDINGS = {"geojson": ".geojson", "geojsonseq": ".geojsonl", "csv": ".csv"}


def _dxf(path: Path, shown: Path, scratch: Path, options: ReadOptions) -> Dataset:
    with path.open("rb") as file:
        head = file.read(_HEAD_NBYTES)
        if head.startswith(b"AutoCAD Binary DXF"):
            raise SourceUnreadable(
                "binary DXF is not supported", source=shown, remedy="save it as ASCII DXF"
            )
        version = re.search(rb"\$ACADVER\s+1\s+(AC\d+)", head)
        page = re.search(rb"\$DWGCODEPAGE\s+3\s+(\S+)", head)
        file.seek(0)
        lines = [s for line in file if not (s := line.strip()).isascii()]
    declared, by = None, ""
    if version and version[1].decode() >= _DXF_UTF8_SINCE:
        declared, by = "UTF-8", f"$ACADVER {version[1].decode()}"
    elif page and page[1].upper() != b"ANSI_1252":
        # ANSI_1252 is what programs write that do not care; it declares nothing.
        declared, by = page[1].decode("ascii", "replace"), "$DWGCODEPAGE"
    decision = decide(
        lines, declared=declared, declared_by=by, override=options.encoding, source=shown
    )
    config = {"DXF_ENCODING": _RAW_TEXT}
    return _dataset(path, shown, scratch, "dxf", (path,), decision, raw_text=True, config=config)


@contextmanager
def gdal(dataset: Dataset, findings: Findings) -> Iterator[None]:
    """Turn GDAL's errors into ours and its warnings into findings, for the length of a block."""
    elsewhere: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if pyogrio.get_gdal_config_option(_GEOJSON_LIMIT) is None:
                pyogrio.set_gdal_config_options({_GEOJSON_LIMIT: _GEOJSON_LIMIT_MB})
            with _configured(dataset.config):
                yield
        except _GDAL_ERRORS as error:
            raise _refusal(dataset, error) from error
        finally:
            for each in caught:
                if issubclass(each.category, (RuntimeWarning, UserWarning)):
                    _note(str(each.message), findings)
                else:
                    elsewhere.append(each)
    for each in elsewhere:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _note(message: str, findings: Findings) -> None:
    if message.startswith("Non closed ring detected"):
        return  # the finding ring-closed counts them
    if message.startswith("Several features with id ="):
        found = Finding(
            "duplicate-source-id",
            "info",
            "features share an id in the file; nothing depends on it, ids here are ordinals",
        )
    else:
        found = Finding("gdal-warning", "warning", message)
    # A file is opened several times, and warns every time.
    if all((f.rule, f.message) != (found.rule, found.message) for f in findings):
        findings.merge([found])


@contextmanager
def _configured(config: Mapping[str, str]) -> Iterator[None]:
    if not config:
        yield
        return
    with _CONFIG_LOCK:  # GDAL's configuration belongs to the process
        before = {name: pyogrio.get_gdal_config_option(name) for name in config}
        pyogrio.set_gdal_config_options(dict(config))
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options(before)


def _refusal(dataset: Dataset, error: Exception) -> SourceError:
    text = str(error).split("; It might help to specify")[0]
    if isinstance(error, GeometryError):
        return GeometryInvalid(
            f"the layer's geometry type is not supported: {text}",
            source=dataset.path,
            remedy=f"convert it first, e.g. ogr2ogr -nlt MULTIPOLYGON out.gpkg {dataset.path.name}",
        )
    if "UTF8" in text or isinstance(error, UnicodeDecodeError):
        return EncodingUndecided(
            f"it holds text that is not UTF-8, which the format ({dataset.format}) prescribes: "
            f"{text}",
            source=dataset.path,
            remedy="export it again as UTF-8",
        )
    if _GEOJSON_LIMIT in text:
        return SourceUnreadable(
            f"one of its features is too large to be read from {dataset.format}",
            source=dataset.path,
            remedy="save it as GeoPackage or FlatGeobuf",
        )
    return SourceUnreadable(
        f"damaged or cut short ({dataset.format}): {text}",
        source=dataset.path,
        remedy="copy or export it again; if other programs read it, save it as GeoPackage",
    )
