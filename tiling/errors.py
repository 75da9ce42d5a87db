"""Errors of the whole project: one tree, classes by cause.

    CimError
    ├── SourceError             the input is at fault: exit code 3, nothing published changes
    │   ├── UnknownFormat       no reader knows the file
    │   ├── SourceUnreadable    truncated, corrupt, or a part of it is missing
    │   ├── EncodingUndecided   the evidence about the text encoding contradicts itself
    │   ├── CrsMissing          no coordinate reference system, declared or embedded
    │   ├── DatumUndeclared     heights without a vertical datum
    │   ├── OutsideArea         coordinates outside the declared area (axes swapped, zone missing)
    │   ├── FieldInvalid        a named column is missing or of the wrong kind
    │   ├── GeometryInvalid     geometry that can be neither read nor repaired
    │   ├── NothingToTile       an empty layer, a raster of nodata
    │   └── RasterUnsupported   rotated, wrong type, wrong band count
    ├── TilingError             a tiler cannot keep its promise
    │   └── FormatError         bytes that are not what they claim to be
    ├── StoreError              a store is missing, damaged, or cannot be written
    │   └── StoreFull           no space left on the disk: exit code 3, nothing published changes
    ├── CatalogError            the catalogue refuses
    │   ├── NotFound            no such asset, version or collection: exit code 4
    │   ├── Conflict            the target exists or is being changed by another: exit code 4
    │   ├── RecordInvalid       an id, a text or bounds that the catalogue cannot keep: exit code 2
    │   └── QueryInvalid        a search that means nothing: bbox, interval, token: exit code 2
    ├── AccessError             the server refuses
    ├── ConfigError             settings or options contradict each other: exit code 2
    └── Cancelled               stopped on request; the same command resumes: exit code 130

A message names the file, the offending value and the remedy; ``SourceError``
takes them apart so that reports and problem+json bodies can show each.
"""

from __future__ import annotations

from pathlib import Path


class CimError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class SourceError(CimError):
    """The input cannot be taken as it is.

    Args:
        problem: what is wrong, with the offending value.
        source: the file (and layer) at fault.
        remedy: what the user can do about it.
    """

    exit_code = 3

    def __init__(self, problem: str, *, source: str | Path | None = None, remedy: str = "") -> None:
        self.problem = problem
        self.source = None if source is None else str(source)
        self.remedy = remedy
        super().__init__(problem, self.source, remedy)

    def __str__(self) -> str:
        head = f"{self.source}: {self.problem}" if self.source else self.problem
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.problem, self.source, self.remedy))


def _rebuild(cls: type[SourceError], problem: str, source: str | None, remedy: str) -> SourceError:
    # Keyword-only arguments do not survive the default pickling between worker processes.
    return cls(problem, source=source, remedy=remedy)


class UnknownFormat(SourceError):
    """No reader recognises the file."""


class SourceUnreadable(SourceError):
    """The file is truncated, corrupt, or one of its parts is missing."""


class EncodingUndecided(SourceError):
    """The evidence about the text encoding contradicts itself."""


class CrsMissing(SourceError):
    """The source has no coordinate reference system and none was declared."""


class DatumUndeclared(SourceError):
    """Heights were found whose vertical datum nobody declared."""


class OutsideArea(SourceError):
    """Coordinates lie outside the declared area."""


class FieldInvalid(SourceError):
    """A column that was named is missing or holds the wrong kind of value."""


class GeometryInvalid(SourceError):
    """Geometry that can be neither read nor repaired."""


class NothingToTile(SourceError):
    """The source holds nothing: an empty layer, a raster of nodata."""


class RasterUnsupported(SourceError):
    """A raster of a shape or type that the tiler cannot take."""


class TilingError(CimError):
    """A tiler cannot keep what it promises."""


class FormatError(TilingError):
    """Bytes are not what they claim to be."""


class StoreError(CimError):
    """A store is missing, damaged, or cannot be written."""


class StoreFull(StoreError):
    """There is no space left where a store is written."""

    exit_code = 3


class CatalogError(CimError):
    """The catalogue refuses a change."""


class NotFound(CatalogError):
    """There is no such asset, version or collection."""

    exit_code = 4


class Conflict(CatalogError):
    """The target exists already, or somebody else is changing it."""

    exit_code = 4


class RecordInvalid(CatalogError):
    """A record that the catalogue cannot keep: its id, text, times or bounds are at fault."""

    exit_code = 2


class QueryInvalid(CatalogError):
    """A search that means nothing: its bbox, interval, limit or token is at fault."""

    exit_code = 2


class AccessError(CimError):
    """The server refuses a request."""


class ConfigError(CimError):
    """Settings or options that contradict each other."""

    exit_code = 2


class Cancelled(CimError):
    """The work was stopped on request; the same command resumes it."""

    exit_code = 130
