"""What a version holds: ``cim export``, ``check``, ``find``."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cim_server.commands.data_folder import DEFAULT_DATA, DataOption, existing
from cim_server.commands.printed import JsonOption, emit
from cim_server.progress import ConsoleProgress
from tiling.errors import ConfigError


def export_command(
    id: str,
    out: Path,
    format: Annotated[str, typer.Option("--format", help="See the manual.")],
    version: Annotated[int | None, typer.Option(help="Default: the current one.")] = None,
    encoding: Annotated[str, typer.Option(help="Text encoding of Shapefiles.")] = "UTF-8",
    min_zoom: Annotated[int | None, typer.Option(min=0, max=24)] = None,
    max_zoom: Annotated[int | None, typer.Option(min=0, max=24)] = None,
    tile_format: Annotated[
        str | None, typer.Option(help="Of an image's PMTiles: webp (default), png or jpg.")
    ] = None,
    tile_size: Annotated[
        int | None, typer.Option(help="Of an image's PMTiles: 256 (default) or 512.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Write a version as 3tz, pmtiles, mbtiles, directory, geoparquet, gpkg, shp, geojson, cog."""
    from cim_server.raster_bake import bake, bake_options, can_bake
    from ingest.export import export

    workspace = existing(data)
    with workspace.open_catalog() as catalog, ConsoleProgress(id, quiet=as_json) as progress:
        item, chosen = catalog.item(id), catalog.version(id, version)
        baking = (min_zoom, max_zoom, tile_format, tile_size)
        if format == "pmtiles" and can_bake(item, chosen):
            written = bake(
                workspace,
                item,
                chosen,
                out,
                bake_options(*baking),
                workers=workers or os.cpu_count() or 1,
                overwrite=overwrite,
                progress=progress,
            )
        elif baking != (None, None, None, None):
            raise ConfigError(
                "--min-zoom, --max-zoom, --tile-format and --tile-size belong to "
                "--format pmtiles of imagery"
            )
        else:
            written = export(
                workspace,
                item,
                chosen,
                out,
                format,
                encoding,
                overwrite=overwrite,
                progress=progress,
            )
    if as_json:
        emit(written)
    else:
        print(f"{written['path']}: {written['nbytes']:,} bytes")
        for finding in written["findings"]:
            print(f"  {finding['severity']}: {finding['message']} ({finding['count']})")


def check_command(
    id: str,
    version: Annotated[int | None, typer.Option(help="Default: the current one.")] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Check a published version against the laws of its kind; exit code 1 when one is broken."""
    from ingest.check import check_version

    workspace = existing(data)
    with workspace.open_catalog() as catalog:
        item, chosen = catalog.item(id), catalog.version(id, version)
        findings, facts = check_version(workspace, item, chosen)
    broken = findings.count("error")
    if as_json:
        emit(
            {
                "id": id,
                "version": chosen.number,
                "ok": not broken,
                "facts": facts,
                "findings": findings.to_json(),
            }
        )
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding.rule}: {finding.message} ({finding.count})")
            for sample in finding.samples:
                print(f"    {sample}")
        for name, value in facts.items():
            print(f"{name}: {value}")
        print(f"{id} version {chosen.number}: {'BROKEN' if broken else 'ok'}")
    if broken:
        raise typer.Exit(1)


def find_command(
    text: str,
    asset: Annotated[str | None, typer.Option(help="Only in this asset.")] = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="Also what begins so.")] = False,
    limit: Annotated[int, typer.Option(help="Most features to show.")] = 10,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Find features by code, id or name in the current versions; exact matches first."""
    from catalog.feature_index import OpenIndexes, find_features

    workspace = existing(data)
    with (
        workspace.open_catalog() as catalog,
        contextlib.closing(OpenIndexes(workspace.root)) as indexes,
    ):
        found = find_features(catalog, indexes, text, asset=asset, prefix=prefix, limit=limit)
    if as_json:
        emit([{"asset": f.asset, "version": f.version, **asdict(f.hit)} for f in found])
        return
    for one in found:
        hit = one.hit
        words = f"{hit.code or '-'}\t{hit.name or '-'}\t{hit.lon:.7f},{hit.lat:.7f}"
        height = "-" if hit.height_m is None else f"{hit.height_m:.1f} m"
        print(f"{one.asset}\t{hit.id}\t{words}\t{height}")
    if not found:
        print(f"no feature has the code, id or name {text!r}", file=sys.stderr)
