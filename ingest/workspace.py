"""The data folder: the catalogue, the committed stores, and the jobs under way.

    DATA/catalog.db
    DATA/stores/<first two of sha256>/<sha256>.<ending>      immutable, named by content
    DATA/jobs/<key>/                                         scratch of one ingest, until published

Everything a job writes stays in its own folder until it is complete; a committed store is moved
by rename, which the file system does at once or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from catalog.database import Catalog
from catalog.records import StoreRef
from tiling.errors import ConfigError, Conflict, SourceError
from tiling.stores.base import StoreInfo

ENDINGS = {
    "3tz": ".3tz",
    "pmtiles": ".pmtiles",
    "geoparquet": ".parquet",
    "cog": ".tif",
    "copc": ".copc.laz",
    "sqlite": ".sqlite",
}
MEDIA_TYPES = {
    "3tz": "application/zip",
    "pmtiles": "application/vnd.pmtiles",
    "geoparquet": "application/vnd.apache.parquet",
    "cog": "image/tiff; application=geotiff; profile=cloud-optimized",
    "copc": "application/vnd.laszip+copc",
    "sqlite": "application/vnd.sqlite3",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """A data folder.

    Attributes:
        root: the folder; made when first written to.
        database_url: where the catalogue rests; empty: in ``catalog.db`` in the folder.
    """

    root: Path
    database_url: str = field(default="", repr=False)

    @property
    def catalog_url(self) -> str:
        """Database URL of the catalogue."""
        return self.database_url or f"sqlite:///{self.root.absolute() / 'catalog.db'}"

    def open_catalog(self) -> Catalog:
        """Open the catalogue; the folder is made if missing.

        Raises:
            ConfigError: it is no folder, or cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ConfigError(
                f"--data {self.root} cannot be a data folder: {error.strerror}"
            ) from error
        return Catalog.open(self.catalog_url)

    def store_path(self, ref: StoreRef) -> Path:
        """Return where a committed store rests."""
        return self.root / ref.path

    @contextlib.contextmanager
    def job(self, key: str) -> Iterator[Path]:
        """Hold the scratch folder of a job; another process with the same job is refused.

        The folder goes when the job is done and when its input is refused, as nothing could be
        resumed then. A job that was stopped or failed otherwise leaves it for the next run.

        Raises:
            Conflict: the same job is running.
        """
        folder = self.root / "jobs" / key
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"the same ingest is already running (job {key}); wait for it or stop it"
                ) from None
            try:
                yield folder
            except SourceError:
                shutil.rmtree(folder)
                raise
            shutil.rmtree(folder)

    def drop_job(self, key: str) -> None:
        """Remove what a job left that was stopped between publishing and cleaning up."""
        if (self.root / "jobs" / key).exists():
            with self.job(key):
                pass

    def adopt(self, staged: StoreInfo, role: str) -> StoreRef:
        """Move a committed store from the job's folder to its final name.

        The content names the file, so a store that is already there is the same store.
        """
        ending = ENDINGS[staged.format]
        relative = Path("stores") / staged.sha256[:2] / f"{staged.sha256}{ending}"
        target = self.root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged.path, target)
        _sync_folder(target.parent)
        return StoreRef(
            role=role,  # type: ignore[arg-type]
            format=staged.format,  # type: ignore[arg-type]
            path=relative.as_posix(),
            sha256=staged.sha256,
            nbytes=staged.nbytes,
            media_type=MEDIA_TYPES[staged.format],
        )

    def remove_stores(self, refs: list[StoreRef]) -> int:
        """Remove files that no version refers to any more; returns the bytes freed."""
        freed = 0
        for ref in refs:
            path = self.store_path(ref)
            if path.exists():
                freed += path.stat().st_size
                path.unlink()
        return freed


def file_store(path: Path, store_format: str) -> StoreInfo:
    """Describe a finished single file (COG, GeoParquet) as a committed store."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        os.fsync(file.fileno())
    return StoreInfo(path, store_format, digest.hexdigest(), path.stat().st_size, 1)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
