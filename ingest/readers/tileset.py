"""3D Tiles that are finished: a folder, its ``tileset.json``, or a 3TZ.

There is nothing to convert: opening walks the tileset as a viewer would and tells where it lies,
what it needs and what is missing. Contents are read only when it is taken in
(`ingest.tileset_import`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    SNIFF_NBYTES,
    Closing,
    Extent,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.errors import SourceError, SourceUnreadable, StoreError
from tiling.findings import Finding, Findings
from tiling.stores.base import StoredTile
from tiling.stores.directory import DirectoryReader
from tiling.stores.keys import is_key
from tiling.stores.zip3tz import INDEX_NAME, ThreeTzReader
from tiling.validate.foreign import ROOT, ForeignTileset
from tiling.validate.tileset3d import TileSource

_ZIP_MAGIC = b"PK\x03\x04"
_REMEDIES = {
    "uri-outside": "copy these files into the folder and make their addresses relative",
    "file-missing": "copy or export the tileset again, whole",
    "tileset-place": "georeference it where it was made (a root transform to Earth-centred "
    "coordinates); a single model can be placed with --place LON,LAT,HEIGHT",
    "tileset-cycle": "export the tileset again",
    "name-repeated": "pack the archive again",
}
_REMEDY = "copy or export the tileset again"


class TilesetReader(Closing):
    """Looks at tilesets made elsewhere; yields no features.

    Attributes:
        root: key of the root document in `open_store`.
    """

    name: ClassVar[str] = "tileset"
    kind: ClassVar[Kind] = "tileset"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self.findings = Findings()
        self.root = ROOT if self.path.is_dir() or not _is_json(self.path) else self.path.name
        self._store: TileSource | None = None
        self._info: SourceInfo | None = None

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most 64 KiB."""
        path = Path(path)
        if path.is_dir():
            return (path / ROOT).is_file()
        with path.open("rb") as file:
            head = file.read(SNIFF_NBYTES // 2)
            if _is_json(path):
                words = (b'"geometricError"', b'"boundingVolume"')
                return path.name == ROOT or all(word in head for word in words)
            if not head.startswith(_ZIP_MAGIC):
                return False
            file.seek(max(0, path.stat().st_size - SNIFF_NBYTES // 2))
            tail = file.read()
        if path.suffix.lower() == ".3tz":
            return True
        return INDEX_NAME.encode() in tail or ROOT.encode() in head + tail

    def info(self) -> SourceInfo:
        """Return where the tileset lies and what it needs.

        Raises:
            SourceUnreadable: damaged, incomplete, or with addresses that leave it; every reason
                is in the message.
        """
        if self._info is None:
            walk = self.walk(contents=False)
            region = walk.region
            assert region is not None  # without one `walk` refuses
            files: tuple[Path, ...] = (self.path,)
            if isinstance(self._store, Folder):
                files = tuple(self._store.path / key for key in sorted(walk.reached))
            facts = walk.facts()
            layer = LayerInfo(
                name=self.path.parent.name if _is_json(self.path) else self.path.stem,
                geometry_type="Tileset",
                features=-1,
                fields=(),
                extent=(region.west, region.south, region.east, region.north),
                ref=TILE_REF,
                encoding=None,
                has_z=True,
                extra={"format": "3D Tiles", "tiles": facts["tiles"], "files": facts["files"]},
            )
            self._info = SourceInfo(
                self.path,
                self.name,
                self.kind,
                (layer,),
                files,
                sum(f.stat().st_size for f in files),
                tuple(walk.findings),
            )
            self.findings.merge(walk.findings)
        return self._info

    def walk(
        self, *, contents: bool, progress: Callable[[], None] = lambda: None
    ) -> ForeignTileset:
        """Follow the whole tileset.

        Args:
            contents: whether contents are read too, or only looked for.
            progress: called for every file that is read; may raise to stop.

        Raises:
            SourceUnreadable: see `info`.
        """
        try:
            walk = ForeignTileset(self.open_store(), self.root, contents, progress=progress)
            walk.walk()
        except StoreError as error:
            raise SourceUnreadable(str(error), remedy="pack the archive again") from error
        walk.orphans()
        if isinstance(self._store, Folder):
            walk.findings.merge(self._store.findings)
        refuse(walk.findings, self.path)
        return walk

    def open_store(self) -> TileSource:
        """Return the files by key; closed with the reader.

        Raises:
            StoreError: the archive cannot be read, or holds names that leave it.
        """
        if self._store is None:
            if self.path.is_dir() or _is_json(self.path):
                self._store = Folder(self.path if self.path.is_dir() else self.path.parent)
            else:
                self._store = ThreeTzReader(self.path)
        return self._store

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield nothing: finished tiles are not taken apart."""
        return iter(())

    def close(self) -> None:
        """Close the archive."""
        if isinstance(self._store, ThreeTzReader):
            self._store.close()
        self._store = self._info = None


class Folder:
    """A folder of tiles as people have them: with names that no store could keep beside them.

    Attributes:
        path: the folder.
        findings: names that were passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings = Findings()
        self._reader = DirectoryReader(path)

    def get(self, key: str) -> StoredTile | None:
        """Return the file under `key`, or None."""
        return self._reader.get(key)

    def keys(self) -> Iterator[str]:
        """Yield every file whose name can be a key, links that stay inside included."""
        root = os.path.realpath(self.path)
        strange = []
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                key = os.path.relpath(file, root)
                if not is_key(key):
                    strange.append(os.fsencode(key).decode("utf-8", "backslashreplace"))
                elif os.path.realpath(file).startswith(root + os.sep):
                    yield key
        self.findings = Findings()
        self.findings.add(
            "name-strange",
            "warning",
            "file names that are not UTF-8, or hold control characters or backslashes, were "
            "passed over",
            len(strange),
            strange,
        )


def refuse(findings: Findings, path: Path) -> None:
    """Raise when a tileset has errors, with every kind of them and samples.

    Raises:
        SourceUnreadable: there are errors.
    """
    errors = [f for f in findings if f.severity == "error"]
    if not errors:
        return
    remedies = dict.fromkeys(_REMEDIES.get(f.rule, _REMEDY) for f in errors)
    raise SourceUnreadable(
        "; ".join(_sentence(f) for f in errors), source=path, remedy="; ".join(remedies)
    )


def _sentence(finding: Finding) -> str:
    samples = "".join(f"\n    {sample}" for sample in finding.samples)
    more = finding.count - len(finding.samples)
    return f"{finding.count} {finding.message}:{samples}" + (f"\n    and {more} more" * (more > 0))


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def single_tileset(paths: Sequence[Path]) -> Path:
    """Return the only path.

    Raises:
        SourceError: several tilesets cannot become one asset.
    """
    if len(paths) > 1:
        raise SourceError(
            f"{len(paths)} tilesets were named",
            source=paths[1],
            remedy="take in each as an asset of its own, or name one root tileset that links them",
        )
    return paths[0]
