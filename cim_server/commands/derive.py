"""``cim derive``: terrain and surface models, density, footprint and classes of point clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cim_server.commands.printed import JsonOption, emit
from cim_server.progress import ConsoleProgress
from tiling.errors import ConfigError

_TextOption = Annotated[str | None, typer.Option()]


def derive_command(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files or folders.")],
    dtm: Annotated[Path | None, typer.Option(help="COG of the ground.")] = None,
    dsm: Annotated[Path | None, typer.Option(help="COG of the highest first returns.")] = None,
    density: Annotated[Path | None, typer.Option(help="COG of points a square metre.")] = None,
    footprint: Annotated[Path | None, typer.Option(help="GeoJSON of what is covered.")] = None,
    classes: Annotated[Path | None, typer.Option(help="JSON: points by class.")] = None,
    cell: Annotated[
        float | None, typer.Option(help="Side of a cell, metres; from the density if not given.")
    ] = None,
    to_crs: Annotated[
        str | None, typer.Option(help="Frame of the products; the cloud's if not given.")
    ] = None,
    fill: Annotated[
        int, typer.Option(min=0, max=64, help="Cells over which enclosed voids are interpolated.")
    ] = 8,
    ground: Annotated[str, typer.Option(help="Classes that are the ground: 2 or 2,8,9.")] = "2",
    crs: _TextOption = None,
    vertical: _TextOption = None,
    assume_vertical: _TextOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    executor: Annotated[str, typer.Option(help="local or dask:URL")] = "local",
    as_json: JsonOption = False,
) -> None:
    """Derive terrain and surface models, density, footprint and classes of a point cloud."""
    # Imported when asked for: the command line starts without what rasters and points need.
    from ingest.derive import DeriveOptions, Products, derive
    from ingest.readers.base import ReadOptions

    if cell is not None and not cell > 0:
        raise ConfigError(f"--cell {cell:g}: cells have a side of more than 0 metres")
    options = DeriveOptions(
        read=ReadOptions(crs=crs, vertical=vertical, assume_vertical=assume_vertical),
        to_crs=to_crs,
        cell_m=cell,
        fill_cells=fill,
        ground=_classes(ground),
        overwrite=overwrite,
    )
    products = Products(dtm=dtm, dsm=dsm, density=density, footprint=footprint, classes=classes)
    with ConsoleProgress("derive", quiet=as_json) as progress:
        made = derive(sources, products, options, executor, workers, progress)
    if as_json:
        emit(made)
    else:
        _print(made)


def _classes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < 256 for part in parts):
        raise ConfigError(f"--ground {text!r} names no classes: write 2, or 2,8,9")
    return tuple(int(part) for part in parts)


def _print(made: dict[str, Any]) -> None:
    print(
        f"{made['points']:,} points in {made['crs']}: {made['columns']:,} × {made['rows']:,} cells "
        f"of {made['cell_m']:g} m"
    )
    for name, facts in made["products"].items():
        print(f"{name}: {facts['path']} ({facts['nbytes']:,} bytes)")
    for finding in made["findings"]:
        print(f"  {finding['severity']}: {finding['message']} ({finding['count']})")
