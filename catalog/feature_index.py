"""The feature index: code, identifier or name -> where a feature is; one SQLite file per store.

A version's indices are ordered newest first, as its tiles are. An update's index replaces whole
base cells (level 14): what older indices say about these cells no longer holds. So an update and
a rebuild answer alike, and rollback and deletion need nothing of their own.

Coordinates rest as whole numbers of 1e-7 degrees (at most 1.1 cm; boxes are rounded outwards),
heights as millimetres: SQLite packs small integers, and half the file is coordinates.
"""

from __future__ import annotations

import heapq
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.access import EVERYTHING, AccessFilter
from catalog.database import Catalog
from tiling.errors import QueryInvalid, StoreError

By = Literal["code", "id", "name"]
BY: tuple[By, ...] = ("code", "id", "name")
MAX_TEXT = 200
MAX_LIMIT = 1_000
MAX_OFFSET = 10_000

# The first of these that a source has is its code, its name; compared without regard to case.
CODE_NAMES = (
    "统一编码",
    "建筑统一编码",
    "楼栋统一编码",
    "建筑编码",
    "房屋编码",
    "楼栋编码",
    "建筑物编码",
    "标识码",
    "编码",
    "建筑编号",
    "房屋编号",
    "楼栋编号",
    "编号",
    "代码",
    "bm",
    "bsm",
    "jzbm",
    "fwbm",
    "code",
    "building_code",
    "building_id",
    "gml_id",
    "gml:id",
    "identificatie",
    "osm_id",
    "fid",
)
NAME_NAMES = (
    "名称",
    "建筑名称",
    "建筑物名称",
    "房屋名称",
    "楼栋名称",
    "楼名",
    "小区名称",
    "mc",
    "name",
    "name:zh",
    "building_name",
    "name_zh",
    "title",
)

_APPLICATION_ID = 0x43494D46  # "CIMF"
_LAYOUT = 1
_CELL_LEVELS = 2 * 14 + 1
_PER_DEGREE = 1e7
_PER_METRE = 1e3
_COORDINATES = ("west", "south", "east", "north", "lon", "lat")
_ROUNDING = (np.floor, np.floor, np.ceil, np.ceil, np.rint, np.rint)
_HEIGHTS = ("base_m", "height_m")
_COLUMNS = ("id", "code", "name", "cell", *_COORDINATES, "base_mm", "height_mm")
_INT64 = range(-(2**63), 2**63)


def field_among(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column that bears the first of the well-known `names`, in any case, or None."""
    folded = {column.casefold(): column for column in reversed(columns)}
    return next((folded[n.casefold()] for n in names if n.casefold() in folded), None)


@dataclass(frozen=True, slots=True)
class FeatureHit:
    """A feature that was found.

    Attributes:
        id: number of the feature within its asset.
        code: the source's own code, None without one.
        name: None without one.
        cell: Morton index of its base cell (level 14, `tiling.tilers.quadtree.cell_mortons`).
        bbox: west, south, east, north; WGS 84 degrees.
        lon, lat: a place in it; WGS 84 degrees.
        base_m: ellipsoidal height of its base, metres; None when unknown.
        height_m: height above the base, metres; None when unknown.
        matched: what the text was found in.
        exact: the text is all of it, not only its beginning.
    """

    id: int
    code: str | None
    name: str | None
    cell: int
    bbox: tuple[float, float, float, float]
    lon: float
    lat: float
    base_m: float | None
    height_m: float | None
    matched: By
    exact: bool


@dataclass(frozen=True, slots=True)
class FoundFeature:
    """A feature with the asset and version that hold it.

    Attributes:
        asset: id of the asset.
        collection: id of its collection.
        version: its current version.
        hit: the feature.
    """

    asset: str
    collection: str
    version: int
    hit: FeatureHit


class FeatureIndexWriter:
    """Writes an index; the same rows make the same bytes, however they are cut into tables.

    Args:
        path: the file; must not exist.

    Raises:
        StoreError: the file exists or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            raise StoreError(f"{path}: there is a file already; remove it first")
        self._held: pa.Table | None = None
        self._last_cell = -1
        self._cells: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            # A file that is not finished is thrown away, so nothing has to survive a crash.
            for pragma in (
                "page_size = 4096",
                "journal_mode = OFF",
                "synchronous = OFF",
                "locking_mode = EXCLUSIVE",
                "cache_size = -65536",
                f"application_id = {_APPLICATION_ID}",
                f"user_version = {_LAYOUT}",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("BEGIN")
            numbers = ", ".join(f"{name} INTEGER" for name in _COLUMNS[4:])
            self._db.execute(
                "CREATE TABLE features (id INTEGER NOT NULL, code TEXT, name TEXT, "
                f"cell INTEGER NOT NULL, {numbers})"
            )
        except sqlite3.Error as error:
            raise StoreError(f"{path}: the feature index cannot be written: {error}") from error

    def add(self, table: pa.Table) -> None:
        """Add features; cells ascend over all calls, the order within a cell is free.

        Args:
            table: columns ``id`` int64; ``code`` and ``name`` text or whole numbers, or null;
                ``cell`` uint64, level-14 Morton index; ``west``, ``south``, ``east``, ``north``,
                ``lon``, ``lat`` float64 degrees; ``base_m``, ``height_m`` metres, NaN or null
                where unknown.

        Raises:
            ValueError: cells that do not ascend, or are none of level 14.
            StoreError: the file cannot be written.
        """
        if not table.num_rows:
            return
        cells = table["cell"].to_numpy().astype(np.int64)
        if cells.min() < 0 or cells.max() >= 2**_CELL_LEVELS:
            raise ValueError(f"cells up to {cells.max()} are no cells of level 14")
        if cells[0] < self._last_cell or np.any(np.diff(cells) < 0):
            raise ValueError("the cells of a feature index must ascend; sort the rows by cell")
        self._last_cell = int(cells[-1])
        # The last cell may go on in the next table, and its rows are sorted as a whole.
        every = (
            table
            if self._held is None
            else pa.concat_tables([self._held, table], promote_options="permissive")
        )
        complete = every.num_rows - int(np.count_nonzero(cells == cells[-1]))
        if self._held is not None and int(self._held["cell"][0].as_py()) == self._last_cell:
            complete = 0
        self._held = every.slice(complete)
        if complete:
            self._insert(every.slice(0, complete))

    def _insert(self, table: pa.Table) -> None:
        ids = table["id"].to_numpy()
        cells = table["cell"].to_numpy().astype(np.int64)
        order = np.lexsort((ids, cells))
        if np.any(np.diff(order) != 1):
            table = table.take(pa.array(order))
            ids = table["id"].to_numpy()
        columns: list[list[Any]] = [ids.tolist(), _texts(table["code"]), _texts(table["name"])]
        columns.append(cells.tolist())
        for name, rounding in zip(_COORDINATES, _ROUNDING, strict=True):
            columns.append(_whole(table[name], _PER_DEGREE, rounding))
        for name in _HEIGHTS:
            columns.append(_whole(table[name], _PER_METRE, np.rint))
        places = ", ".join("?" * len(_COLUMNS))
        self._run(f"INSERT INTO features VALUES ({places})", zip(*columns, strict=True))
        distinct, counts = np.unique(cells, return_counts=True)
        self._cells.append(distinct)
        self._counts.append(counts)

    def _run(self, sql: str, rows: Any = ()) -> None:
        try:
            self._db.executemany(sql, rows) if rows else self._db.execute(sql)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path}: the feature index cannot be written: {error}; is the disk full?"
            ) from error

    def finish(self, cells: NDArray[np.uint64] | None = None) -> Path:
        """Write what is left and the indices, and close the file.

        Args:
            cells: (M,) uint64 base cells that this index replaces in older ones, those that
                became empty too; None for an index that stands alone.

        Raises:
            ValueError: a feature lies outside of the replaced cells.
            StoreError: the file cannot be written.
        """
        if self._held is not None:
            self._insert(self._held)
            self._held = None
        empty = np.empty(0, dtype=np.int64)
        held = np.concatenate([empty, *self._cells])
        counts = np.concatenate([empty, *self._counts])
        replaced = empty if cells is None else np.unique(cells).astype(np.int64)
        if cells is not None and not np.isin(held, replaced).all():
            raise ValueError("features lie in cells that the update does not replace")
        # Not every feature has a code or a name, and a null is never looked up.
        self._run("CREATE INDEX by_id ON features (id)")
        self._run("CREATE INDEX by_code ON features (code) WHERE code IS NOT NULL")
        self._run("CREATE INDEX by_name ON features (name) WHERE name IS NOT NULL")
        self._run("CREATE TABLE cells (cell INTEGER PRIMARY KEY, features INTEGER NOT NULL)")
        self._run("CREATE TABLE replaced (cell INTEGER PRIMARY KEY)")
        rows = zip(held.tolist(), counts.tolist(), strict=True)
        self._run("INSERT INTO cells VALUES (?, ?)", rows)
        self._run("INSERT INTO replaced VALUES (?)", ((c,) for c in replaced.tolist()))
        self._run("COMMIT")
        self._db.close()
        return self._path

    def abort(self) -> None:
        """Drop what was written."""
        self._db.close()
        self._path.unlink(missing_ok=True)


def _texts(column: pa.ChunkedArray) -> list[Any]:
    """Return trimmed texts in NFC, None for nothing; whole numbers as they are written."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_floating(column.type):
        # Readers give whole numbers with nulls as floats; 12.0 is no code.
        whole = pc.all(pc.equal(column, pc.floor(column))).as_py() is not False
        column = pc.cast(column, pa.int64()) if whole else column
    text = pc.cast(column, pa.string())
    text = pc.utf8_trim_whitespace(text)
    if pc.all(pc.string_is_ascii(text)).as_py() is False:
        text = pc.utf8_normalize(text, form="NFC")
    values = text.to_numpy(zero_copy_only=False)
    return [value or None for value in values.tolist()]


def _whole(column: pa.ChunkedArray, scale: float, rounding: Any) -> list[Any]:
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    known = np.isfinite(values)
    # A double within 1e-9 of a unit is that unit: its box shall not grow by rounding alone.
    scaled = np.round(np.where(known, values, 0.0) * scale, 2)
    whole: list[Any] = rounding(scaled).astype(np.int64).tolist()
    if not known.all():
        for index in np.flatnonzero(~known).tolist():
            whole[index] = None
    return whole


class FeatureIndex:
    """The index of one version; safe to share between threads.

    Args:
        paths: the files, newest first.

    Raises:
        StoreError: a file is missing, damaged or no feature index.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._lock = threading.Lock()
        self._open: list[tuple[Path, sqlite3.Connection, frozenset[int]]] = []
        masked: frozenset[int] = frozenset()
        try:
            for path in paths:
                db = _connect(path)
                self._open.append((path, db, masked))
                with _told(path):
                    held = {cell for (cell,) in db.execute("SELECT cell FROM cells")}
                    newer = masked
                    masked |= {cell for (cell,) in db.execute("SELECT cell FROM replaced")}
                if held and held <= newer:
                    # Nothing of it shows: a search need not pass over all of its rows.
                    self._open.pop()
                    db.close()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, paths: Sequence[Path]) -> FeatureIndex:
        """Open the files of a version, newest first."""
        return cls(paths)

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for _, db, _ in self._open:
                db.close()
            self._open = []

    def __enter__(self) -> FeatureIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(
        self,
        text: str,
        *,
        by: Sequence[By] = BY,
        prefix: bool = False,
        limit: int = 10,
        offset: int = 0,
    ) -> list[FeatureHit]:
        """Return the features with this code, id or name, each once; exact ones first.

        Args:
            text: looked for as it is; wildcards mean nothing.
            by: where, in order of preference. An id is only ever found as a whole.
            prefix: also what only begins with the text.
            limit: most features to return.
            offset: how many to pass over.

        Raises:
            QueryInvalid: a text, limit or offset that means nothing.
            StoreError: a file is damaged.
        """
        text = check_query(text, by, min(limit, MAX_LIMIT), offset)
        with self._lock:
            return list(islice(self._hits(text, by, prefix), offset, offset + limit))

    def _hits(self, text: str, by: Sequence[By], prefix: bool) -> Iterator[FeatureHit]:
        seen: set[int] = set()
        for exact in (True, False) if prefix else (True,):
            for column in by:
                for hit in self._matches(column, text, exact):
                    if hit.id not in seen:
                        seen.add(hit.id)
                        yield hit

    def _matches(self, column: By, text: str, exact: bool) -> Iterator[FeatureHit]:
        values: tuple[Any, ...] = (text,)
        if column == "id":
            number = _number(text)
            if number is None or not exact:
                return
            where, values = "id = ?", (number,)
        elif exact:
            where = f"{column} = ?"
        else:
            where = f"{column} > ?"
            end = _after(text)
            if end is not None:
                where, values = f"{where} AND {column} < ?", (text, end)
        # The order of SQLite's index: what a single file would give, also from several.
        sql = f"SELECT * FROM features WHERE {where} ORDER BY {column}, rowid"
        rows = [self._rows(entry, sql, values) for entry in self._open]
        position = _COLUMNS.index(column)
        merged = heapq.merge(
            *rows, key=lambda row: (str(row[position]).encode(), int(row[3]), int(row[0]))
        )
        for row in merged:
            yield _hit(row, column, exact)

    def _rows(
        self, entry: tuple[Path, sqlite3.Connection, frozenset[int]], sql: str, values: Any
    ) -> Iterator[tuple[Any, ...]]:
        path, db, masked = entry
        with _told(path):
            for row in db.execute(sql, values):
                if row[3] not in masked:
                    yield row

    def get(self, feature_id: int) -> FeatureHit | None:
        """Return the feature with this id, or None."""
        found = self.find(str(feature_id), by=("id",), limit=1)
        return found[0] if found else None

    def _visible(self) -> Iterator[tuple[int, int]]:
        for path, db, masked in self._open:
            with _told(path):
                for cell, features in db.execute("SELECT cell, features FROM cells"):
                    if cell not in masked:
                        yield cell, features

    def count(self) -> int:
        """Return the number of features."""
        with self._lock:
            return sum(features for _, features in self._visible())

    def cells(self) -> NDArray[np.uint64]:
        """Return the (M,) base cells that hold features, ascending."""
        with self._lock:
            return np.array(sorted(cell for cell, _ in self._visible()), dtype=np.uint64)


class _told:
    """Turn the driver's complaints into an error that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, sqlite3.Error):
            raise StoreError(
                f"{self._path}: the feature index cannot be read: {error}; "
                "restore the file, or ingest the asset again"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    with _told(path):
        # Stores never change, so SQLite need not lock them or look for a journal.
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        try:
            kind = db.execute("PRAGMA application_id").fetchone()[0]
            layout = db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error:
            db.close()
            raise
    if (kind, layout) != (_APPLICATION_ID, _LAYOUT):
        db.close()
        raise StoreError(f"{path}: no feature index of layout {_LAYOUT}; ingest the asset again")
    return db


def _hit(row: tuple[Any, ...], matched: By, exact: bool) -> FeatureHit:
    west, south, east, north, lon, lat = (v / _PER_DEGREE for v in row[4:10])
    base, height = (None if v is None else v / _PER_METRE for v in row[10:12])
    code, name, cell = row[1:4]
    return FeatureHit(
        row[0], code, name, cell, (west, south, east, north), lon, lat, base, height, matched, exact
    )


def _number(text: str) -> int | None:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return None
    number = int(text)
    return number if str(number) == text and number in _INT64 else None


def _after(text: str) -> str | None:
    """Return the first text after all that begin with `text`, in code point order (= UTF-8)."""
    while text:
        point = ord(text[-1]) + 1
        if point < 0x110000:
            return text[:-1] + chr(0xE000 if point == 0xD800 else point)
        text = text[:-1]
    return None


def check_query(text: str, by: Sequence[str], limit: int, offset: int) -> str:
    """Return the text as it is looked up: trimmed, in NFC.

    Raises:
        QueryInvalid: an empty, long or impossible text; a wrong ``by``, limit or offset.
    """
    if len(text) > MAX_TEXT:
        raise QueryInvalid(f"the text has {len(text)} characters; the most is {MAX_TEXT}")
    if "\0" in text or any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise QueryInvalid(f"the text {text!r} holds characters that no code or name has")
    text = unicodedata.normalize("NFC", text.strip())
    if not text:
        raise QueryInvalid("the text is empty; give a code, an id or a name")
    if not by or not set(by) <= set(BY):
        raise QueryInvalid(f"by {','.join(by)!r} is not made of {', '.join(BY)}")
    if not 1 <= limit <= MAX_LIMIT:
        raise QueryInvalid(f"limit {limit} is not in 1..{MAX_LIMIT}")
    if not 0 <= offset <= MAX_OFFSET:
        raise QueryInvalid(f"offset {offset} is not in 0..{MAX_OFFSET}")
    return text


class OpenIndexes:
    """Indices kept open by the digests of their files; safe to share between threads.

    Args:
        root: the data folder.
        limit: most versions open at once.
    """

    def __init__(self, root: Path, limit: int = 64) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.RLock()
        self._open: dict[tuple[str, ...], FeatureIndex] = {}

    def __len__(self) -> int:
        return len(self._open)

    def find(self, stores: Sequence[tuple[str, str]], text: str, **how: Any) -> list[FeatureHit]:
        """Search the version with these stores (sha256, path), newest first."""
        key = tuple(sha256 for sha256, _ in stores)
        # One lookup at a time: it takes less than a thread switch, and none is closed meanwhile.
        with self._lock:
            index = self._open.pop(key, None)
            if index is None:
                index = FeatureIndex.open([self._root / path for _, path in stores])
            self._open[key] = index
            while len(self._open) > self._limit:
                self._open.pop(next(iter(self._open))).close()
            return index.find(text, **how)

    def keep_only(self, digests: frozenset[str]) -> None:
        """Close the indices of which a file belongs to no version any more."""
        with self._lock:
            for key in [k for k in self._open if not digests.issuperset(k)]:
                self._open.pop(key).close()

    def close(self) -> None:
        """Close all."""
        self.keep_only(frozenset())


def find_features(
    catalog: Catalog,
    indexes: OpenIndexes,
    text: str,
    access: AccessFilter = EVERYTHING,
    *,
    asset: str | None = None,
    by: Sequence[By] = BY,
    prefix: bool = False,
    limit: int = 10,
    offset: int = 0,
) -> list[FoundFeature]:
    """Search the current versions of all assets that may be seen, or of one; blocks.

    Returns:
        exact matches first, then in the order of `by`, then by asset.

    Raises:
        QueryInvalid: a text, limit or offset that means nothing.
        NotFound: there is no such asset, or none that may be seen.
        StoreError: an index is missing or damaged.
    """
    text = check_query(text, by, limit, offset)
    if asset is not None:
        catalog.item(asset, access)
    found = [
        FoundFeature(item_id, collection, number, hit)
        for (item_id, collection, number), stores in catalog.current_stores(
            "index", access, asset
        ).items()
        for hit in indexes.find(
            [(s.sha256, s.path) for s in stores],
            text,
            by=by,
            prefix=prefix,
            limit=offset + limit,
        )
    ]
    found.sort(key=lambda f: (not f.hit.exact, by.index(f.hit.matched)))
    return found[offset : offset + limit]
