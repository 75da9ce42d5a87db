"""Export: a published version as files that other programs open.

Tiles leave as an archive, a folder or MBTiles; features as GeoParquet or an exchange format;
rasters as the COG they rest in.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from catalog.records import Item, StoreRef, Version
from ingest.export_b3dm import export_b3dm
from ingest.export_features import export_features
from ingest.export_mbtiles import export_mbtiles
from ingest.export_pnts import export_pnts
from ingest.whole import whole_store
from ingest.workspace import Workspace
from tiling.errors import ConfigError, Conflict, StoreError, StoreFull
from tiling.findings import Findings
from tiling.stores import open_store
from tiling.stores.directory import DirectoryWriter
from tiling.tilers.base import Progress


@dataclass(frozen=True, slots=True)
class Exporting:
    """What an exporter is given: the resting file, where to write, and how."""

    source: Path
    out: Path
    format: str
    encoding: str
    progress: Progress
    findings: Findings
    kind: str


_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
Exporter = Callable[[Exporting], None]


def _copy(job: Exporting) -> None:
    partial = job.out.with_name(job.out.name + ".part")
    try:
        shutil.copyfile(job.source, partial)
        partial.replace(job.out)
    finally:
        partial.unlink(missing_ok=True)


def _directory(job: Exporting) -> None:
    store = open_store(job.source, job.source.suffix.removeprefix("."))
    writer = DirectoryWriter(job.out)
    try:
        job.progress.begin("export")
        for key in store.keys():
            tile = store.get(key)
            assert tile is not None  # the store has just listed it
            writer.put(key, tile.data, tile.encoding)
            job.progress.advance()
        writer.commit()
    finally:
        writer.abort()
        store.close()


def _mbtiles(job: Exporting) -> None:
    export_mbtiles(job.source, job.out, job.progress)


def _features(job: Exporting) -> None:
    export_features(job.source, job.out, job.format, encoding=job.encoding, findings=job.findings)


def _legacy(job: Exporting) -> None:
    write = export_pnts if job.kind == "pointcloud" else export_b3dm
    write(job.source, job.out, job.progress)


class Export(NamedTuple):
    """How a format is made: of which store, of which kinds (None: any that has the store).

    What takes tiles apart knows only our own (`own_tiles`), not those taken in as they are.
    """

    role: str
    stores: tuple[str, ...]
    write: Exporter
    kinds: tuple[str, ...] | None = None
    own_tiles: bool = False

    def source(self, item: Item, version: Version) -> StoreRef | None:
        """Return the store it is made of, None when the version has none for it."""
        if self.kinds is not None and item.kind not in self.kinds:
            return None
        if self.own_tiles and version.info.get("imported"):
            return None
        fitting = (s for s in version.stores if s.role == self.role and s.format in self.stores)
        return next(fitting, None)


EXPORTERS: Mapping[str, Export] = {
    "3tz": Export("tiles", ("3tz",), _copy),
    "3dtiles-1.0": Export("tiles", ("3tz",), _legacy, ("buildings", "pointcloud"), own_tiles=True),
    "pmtiles": Export("tiles", ("pmtiles",), _copy),
    "mbtiles": Export("tiles", ("pmtiles",), _mbtiles),
    "directory": Export("tiles", ("3tz", "pmtiles"), _directory),
    "geoparquet": Export("features", ("geoparquet",), _copy),
    "gpkg": Export("features", ("geoparquet",), _features),
    "shp": Export("features", ("geoparquet",), _features),
    "geojson": Export("features", ("geoparquet",), _features),
    "cog": Export("data", ("cog",), _copy),
    "copc": Export("data", ("copc",), _copy),
    "laz": Export("data", ("copc",), _copy),
}


def export(
    workspace: Workspace,
    item: Item,
    version: Version,
    out: Path,
    format: str,
    encoding: str,
    *,
    overwrite: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Write a version to `out`.

    Returns:
        path, size and findings (e.g. field names that Shapefiles cut), as JSON.

    Raises:
        ConfigError: the format is unknown, or this kind of asset does not hold what it needs.
        StoreError: `out` cannot be written; `StoreFull` when no space is left.
        Conflict: `out` exists and is not to be overwritten.
    """
    if format not in EXPORTERS:
        raise ConfigError(f"--format {format!r} is not one of {', '.join(EXPORTERS)}")
    source = EXPORTERS[format].source(item, version)
    if source is None:
        possible = [name for name, made in EXPORTERS.items() if made.source(item, version)]
        missing = ""
        if format in ("copc", "laz") and item.kind == "pointcloud":
            missing = "; ingest it with --copc whole to have its points as they were"
        raise ConfigError(
            f"{item.id} is of kind {item.kind}: --format can be {', '.join(possible)}{missing}"
        )
    if out.exists():
        if not overwrite:
            raise Conflict(f"{out} exists: name another file, or add --overwrite")
    findings = Findings()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            whole_store(workspace, version, source, out.parent, progress) as path,
            _set_aside(out),
        ):
            EXPORTERS[format].write(
                Exporting(path, out, format, encoding, progress, findings, item.kind)
            )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StoreFull if full else StoreError)(
            f"{out} cannot be written: {error.strerror}"
        ) from error
    return {
        "path": str(out),
        "format": format,
        "version": version.number,
        "nbytes": _size(out),
        "findings": findings.to_json(),
    }


@contextmanager
def _set_aside(out: Path) -> Iterator[None]:
    """Keep what lies at `out` until its replacement is complete; put it back on failure."""
    if not out.exists():
        yield
        return
    aside = out.with_name(f".{out.name}.replaced")
    out.rename(aside)
    complete = False
    try:
        yield
        complete = True
    finally:
        if not complete and not out.exists():
            aside.rename(out)
        elif aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink()


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    if path.suffix.lower() == ".shp":
        return sum(path.with_suffix(s).stat().st_size for s in _SHAPEFILE_PARTS)
    return path.stat().st_size
