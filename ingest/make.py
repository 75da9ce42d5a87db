"""Makers: for each kind of asset, which tilers and writers make its stores.

The one idea: a maker is handed everything that a run shares and returns finished stores, checked
against the laws of their kind. `MAKERS` is the registry. What a kind needs is imported by its
maker: a run that makes terrain holds no tiler of buildings in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.records import StoreRef
from ingest.manifest import Kind
from ingest.overrides import note_unmatched
from ingest.plan import Plan
from ingest.readers.raster import RasterReader
from ingest.report import Report
from ingest.workspace import file_store
from tiling.errors import TilingError
from tiling.findings import Finding, Findings
from tiling.stores.base import StoreInfo
from tiling.stores.pmtiles import PmtilesWriter
from tiling.stores.zip3tz import ThreeTzWriter
from tiling.tilers.base import Progress, Run, TilesetInfo
from tiling.tilers.extsort import Spool

if TYPE_CHECKING:
    from ingest.mosaic_assets import Known
    from ingest.prepare import Prepared, ResolveHeights, SortKeys
    from ingest.terrain_parent import Parent
    from tiling.batches import FeatureBatch
    from tiling.tilers.terrain_water import WaterAreas


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a maker is given.

    Attributes:
        plan: the accepted plan.
        folder: scratch of the job; survives a kill.
        executor, workers, memory_nbytes, progress: see `tiling.tilers.base.Run`.
        report: receives findings, coordinate operations and timings.
        resolve_heights: adds the height columns of buildings.
        seen: what preparing the features finds; kept with them, so that a resumed run reports it
            once, as an uninterrupted one does.
        root: the data folder.
        known_sheets: see `ingest.mosaic_assets.known_sheets`.
        parent: the terrain that surrounds a terrain, if one was named.
        water: the polygons of water of a terrain, if an asset of them was named.
    """

    plan: Plan
    folder: Path
    executor: Executor
    workers: int
    memory_nbytes: int
    progress: Progress
    report: Report
    resolve_heights: ResolveHeights | None = None
    seen: Findings = field(default_factory=Findings)
    root: Path = Path()
    known_sheets: Known = field(default_factory=dict)
    parent: Parent | None = None
    water: StoreRef | None = None

    def run(self, writer: Any) -> Run:
        """Return a tiler's run that writes into `writer`."""
        return Run(
            writer=writer,
            scratch=self.folder,
            executor=self.executor,
            workers=self.workers,
            memory_nbytes=self.memory_nbytes,
            progress=self.progress,
            findings=self.report.findings,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """Finished stores by role, newest first, and what the tiler says of them.

    Attributes:
        stores: made by this run.
        info: of the whole asset.
        kept: stores of the version before that are part of this one too.
    """

    stores: tuple[tuple[str, StoreInfo], ...]
    info: TilesetInfo
    kept: tuple[StoreRef, ...] = ()


def make_buildings(making: Making) -> Made:
    """Footprints and shapes to 3D Tiles in a 3TZ, GeoParquet, and the feature index."""
    from ingest.building_stores import code_column, name_column, write_features, write_index
    from ingest.feature_keys import Identify
    from tiling.tilers.buildings import BuildingsTiler, sort_keys
    from tiling.validate.tileset3d import check_archive

    options = making.plan.options
    identify = None
    if options.key is not None:
        identify = Identify(options.key, str(making.plan.sources[0].path))
    prepared = _prepare(making, sort_keys=sort_keys, identify=identify)
    if identify is not None:
        identify.check_unique(prepared)
    folder = prepared.spool.folder
    names = prepared.spool.schema().names
    code, name = code_column(names, options.key), name_column(names)
    parquet, index = making.folder / "features.parquet", making.folder / "index.db"
    features = making.executor.submit(write_features, folder, parquet, None)
    indexing = making.executor.submit(write_index, folder, index, code, name, None)
    beside: list[Future[Any]] = [features, indexing]
    tiler = BuildingsTiler(
        key=options.key, **_given(min_level=options.min_zoom, max_level=options.max_zoom)
    )
    writer = ThreeTzWriter(fresh(making.folder / "tiles.3tz"))
    try:
        with making.report.step("tile"):
            info = tiler.run_sorted(folder, making.run(writer))
            tiles = writer.commit()
    finally:
        writer.abort()
        wait(beside)
    with making.report.step("features"):
        making.progress.begin("features")
        features.result()
        making.report.findings.merge(indexing.result())
    info = _with(info, code_field=code, name_field=name)
    with making.report.step("check"):
        making.progress.begin("check")
        findings, _ = check_archive(
            tiles.path, making.executor, making.workers, making.progress.advance
        )
    judge(making, findings)
    stores = (
        ("tiles", tiles),
        ("features", file_store(parquet, "geoparquet")),
        ("index", file_store(index, "sqlite")),
    )
    return Made(stores, info)


def make_vector(making: Making) -> Made:
    """Features to vector tiles in a PMTiles, and GeoParquet."""
    from ingest.feature_keys import Identify
    from tiling.tilers.vector import VectorTiler
    from tiling.validate.vectortiles import check_vector_archive

    options = making.plan.options
    identify = None
    if options.key is not None:
        identify = Identify(options.key, str(making.plan.sources[0].path))
    prepared = _prepare(making, identify=identify)
    if identify is not None:
        identify.check_unique(prepared)
    writer = PmtilesWriter(fresh(making.folder / "tiles.pmtiles"))
    tiler = VectorTiler(
        min_zoom=options.min_zoom,
        max_zoom=options.max_zoom,
        layer=options.id,
        coverage=making.plan.kind == "divisions",
        attribution=options.attribution,
        rules=making.plan.layer_rules(),
        key=options.key,
    )
    parquet = making.folder / "features.parquet"
    features = making.executor.submit(
        _write_features,
        prepared.spool.folder,
        prepared.chunk_rows,
        parquet,
        making.folder / "parquet-spool",
    )
    try:
        with making.report.step("tile"):
            info = tiler.run(prepared.batches(), making.run(writer))
            tiles = writer.commit(info.metadata)
    finally:
        writer.abort()
        wait([features])
    with making.report.step("features"):
        making.progress.begin("features")
        features.result()
    if making.plan.kind == "divisions":
        with making.report.step("divisions"):
            _check_divisions(parquet, making)
    making.progress.begin("check")
    with making.report.step("check"):
        findings, _ = check_vector_archive(
            tiles.path, making.executor, making.workers, making.progress.advance
        )
    judge(making, findings)
    return Made((("tiles", tiles), ("features", file_store(parquet, "geoparquet"))), info)


def _check_divisions(parquet: Path, making: Making) -> None:
    """Tell what is wrong with all divisions together: they are few enough to be held at once."""
    import numpy as np
    import pyarrow as pa

    from ingest.quality.divisions import check_divisions
    from tiling.batches import FeatureBatch
    from tiling.formats.geoparquet import read_geoparquet

    making.progress.begin("divisions")
    batches = list(read_geoparquet(parquet))
    whole = FeatureBatch(
        batches[0].ref,
        np.concatenate([batch.ids for batch in batches]),
        np.concatenate([batch.geometry for batch in batches]),
        pa.concat_tables([batch.attributes for batch in batches]),
    )
    check_divisions(whole, making.report.findings)


def make_terrain(making: Making) -> Made:
    """Any stack of DEMs to COGs in order of priority, and quantized-mesh tiles in a 3TZ."""
    from ingest.dem_pixels import DEFAULT_FILL_PIXELS, Cleaning
    from ingest.dem_rasters import make_stack
    from tiling.tilers.terrain import TerrainTiler
    from tiling.validate.terrain import check_terrain_archive

    plan, options = making.plan, making.plan.options
    vertical = plan.refs[0].vertical
    assert vertical is not None  # the plan refuses a terrain without
    parent = making.parent
    tiler = TerrainTiler(
        bake=options.bake_level(),
        name=plan.title,
        attribution=options.attribution,
        parent_url="" if parent is None else parent.url,
        water=_water_areas(making),
        **_given(min_level=options.min_zoom, max_level=options.max_zoom),
    )
    cleaning = Cleaning(
        DEFAULT_FILL_PIXELS if options.fill_voids is None else options.fill_voids,
        bool(options.despike),
    )
    writer = ThreeTzWriter(fresh(making.folder / "tiles.3tz"))
    run = making.run(writer)
    try:
        # Tiles come from what is stored, so that those made later from the store are the same.
        with making.report.step("cog"):
            surface = None if parent is None else parent.surface
            stack = make_stack(plan.groups, cleaning, run, surface)
        with making.report.step("tile"):
            info = tiler.run(stack, run)
            tiles = writer.commit()
    finally:
        writer.abort()
    known = info.metadata.get("terrain", {})
    info = _with(info, vertical=vertical.to_json(), terrain={**known, "dem": stack.to_json()})
    with making.report.step("check"):
        making.progress.begin("check")
        findings, _ = check_terrain_archive(tiles.path, making.executor, making.progress.advance)
    judge(making, findings)
    data = [("data", file_store(Path(layer.path), "cog")) for layer in stack.own]
    kept = () if parent is None else parent.stores
    if making.water is not None:
        kept = (*kept, making.water)
    return Made((("tiles", tiles), *data), info, kept)


def _water_areas(making: Making) -> WaterAreas | None:
    if making.water is None:
        return None
    from tiling.tilers.terrain_water import WaterAreas

    return WaterAreas(str(making.root / making.water.path))


def make_imagery(making: Making) -> Made:
    """An image to a COG; its sheets to a COG each if they are to stay sheets."""
    from ingest.mosaic_assets import make_mosaic, sheet_sources, stay_sheets
    from tiling.tilers.imagery import ImageryTiler

    options, findings = making.plan.options, making.report.findings
    readers = making.plan.raster_readers()
    if stay_sheets(readers, options):
        sources = sheet_sources(readers, options)
        for reader in readers:
            findings.merge(reader.findings)
        with making.report.step("cog"):
            made, kept, info = make_mosaic(
                sources,
                folder=making.folder,
                root=making.root,
                compression=options.compression(),
                order=options.order or "given",
                known=making.known_sheets,
                threads=making.workers,
                progress=making.progress,
                findings=findings,
            )
        return Made(tuple(made), info, tuple(kept))
    cog = making.folder / "image.tif"
    reader = RasterReader.joined(readers) if len(readers) > 1 else readers[0]
    with making.report.step("cog"):
        dataset = reader.dataset_path()
        findings.merge(reader.findings)
        info = ImageryTiler(options.compression()).run(dataset, cog, making.progress, findings)
    return Made((("data", file_store(cog, "cog")),), info)


def make_pointcloud(making: Making) -> Made:
    """Points to 3D Tiles in a 3TZ."""
    from ingest.pointcloud_stores import make_pointcloud

    return make_pointcloud(making)


Maker = Callable[[Making], Made]

MAKERS: Mapping[Kind, Maker] = {
    "buildings": make_buildings,
    "terrain": make_terrain,
    "imagery": make_imagery,
    "vector": make_vector,
    "divisions": make_vector,
    "pointcloud": make_pointcloud,
}


def fresh(path: Path) -> Path:
    """Return the path of a store to be written, with nothing there."""
    # A run that was killed between finishing a store and publishing it leaves it here; the parts
    # it was poured from are still there too.
    path.unlink(missing_ok=True)
    return path


def _given(**levels: int | None) -> dict[str, Any]:
    # A tiler's own default stands for what the user left open.
    return {name: level for name, level in levels.items() if level is not None}


def _prepare(
    making: Making,
    sort_keys: SortKeys | None = None,
    identify: Callable[[FeatureBatch], FeatureBatch] | None = None,
) -> Prepared:
    from ingest.prepare import by_ordinal, prepare

    try:
        with making.report.step("read"):
            prepared = prepare(
                making.plan,
                making.folder / "prepared",
                making.memory_nbytes,
                making.executor,
                making.workers,
                making.progress,
                making.seen,
                making.resolve_heights,
                sort_keys or by_ordinal,
                identify,
            )
        note_unmatched(making.plan.options.feature_overrides(), making.seen)
    finally:
        # A refusal is easier to understand beside what was seen until then.
        making.report.findings.merge(making.seen)
    making.report.shifts.extend(prepared.shifts)
    return prepared


def _write_features(folder: Path, chunk_rows: int, path: Path, scratch: Path) -> None:
    # In a worker, beside the tiles, from the same spool.
    from tiling.formats.geoparquet import write_geoparquet

    batches = (batch for _, batch in Spool(folder).chunks(chunk_rows))
    write_geoparquet(batches, path, scratch)


def judge(making: Making, findings: Iterable[Finding]) -> None:
    """Report what was found in finished tiles.

    Raises:
        TilingError: a law of their kind is broken.
    """
    findings = list(findings)
    making.report.findings.merge(findings)
    for finding in findings:
        if finding.severity == "error":
            raise TilingError(
                f"the finished tiles break a law of their kind: {finding.message} "
                f"({finding.count} times, e.g. {finding.samples[:3]}); nothing was published"
            )


def _with(info: TilesetInfo, **facts: Any) -> TilesetInfo:
    return TilesetInfo(
        info.bounds,
        info.min_level,
        info.max_level,
        info.tiles,
        info.features,
        {**info.metadata, **facts},
    )
