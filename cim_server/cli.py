"""The command line, a contract that people script against.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 2 usage, 3 the input was
refused, 4 the target is missing or conflicts, 130 cancelled (resumable), 1 a defect of ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.records import Item, StoreRef, Version
from cim_server.declared import Declared, declares, given, options_of
from cim_server.derive_command import derive_points
from cim_server.printed import JsonOption, emit
from cim_server.progress import ConsoleProgress
from ingest.height_rule import HeightRule
from ingest.manifest import merge_options, parse_memory
from ingest.plan import make_plan
from ingest.report import Report
from ingest.run import IngestFailed, Resources, ingest, update
from ingest.workspace import Workspace
from styles import load_style
from tiling.errors import CimError, ConfigError, Conflict, NotFound

app = typer.Typer(
    name="cim",
    help="城市信息模型核心 — city information model core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataOption = Annotated[
    Path, typer.Option("--data", help="The data folder.", envvar="CIM_DATA", show_default=True)
]
DEFAULT_DATA = Path("data")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cim-server {metadata.version('cim-server')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """城市信息模型核心 — city information model core."""


def _resources(memory: str, workers: int | None, executor: str) -> Resources:
    rule = HeightRule.from_json(load_style("buildings")["heights"])
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least one is needed")
    if executor != "local" and not executor.startswith("dask:"):
        raise ConfigError(f"--executor {executor!r} is neither local nor dask:URL")
    return Resources(
        memory_nbytes=parse_memory(memory), workers=workers, executor=executor, height_rule=rule
    )


@app.command("plan")
@declares
def plan_command(
    declared: Declared, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False
) -> None:
    """Say what an ingest would do: layers, frames, steps, tiles, bytes, refusals. Writes nothing.

    Exit code 3 when the ingest would be refused.
    """
    sources = declared["sources"]
    declared["id"] = declared["id"] or (sources[0].stem if sources else None)
    plan = make_plan(options_of(declared))
    if as_json:
        emit(plan.to_json())
    else:
        _print_plan(plan.to_json())
    if plan.refusal is not None:
        raise plan.refusal


def _print_plan(plan: dict[str, Any]) -> None:
    print(f"{plan['id']}: {plan['title']} — {plan['kind']} ({plan['kind_evidence']})")
    print(f"collection: {plan['collection']}")
    for source in plan["sources"]:
        print(f"source: {source['path']} ({source['reader']}, {source['nbytes']:,} bytes)")
        print(f"  layer {source['layer']}: {source['geometry']}, {source['features']:,} features")
        print(f"  CRS {source['crs'] or 'none'}, heights {source['vertical'] or 'undeclared'}")
        if source["encoding"]:
            print(f"  text {source['encoding']['name']}: {source['encoding']['evidence']}")
        for name, kind in source["fields"].items():
            print(f"  field {name}: {kind}")
    if plan["heights"]:
        print(f"heights: {plan['heights']}")
    print(f"steps: {' → '.join(plan['steps'])}")
    estimate = plan["estimate"]
    print(f"estimate: about {estimate['tiles']:,} tiles, {estimate['nbytes']:,} bytes")
    for finding in plan["findings"]:
        print(f"{finding['severity']}: {finding['message']} ({finding['count']})")
    for refusal in plan["refusals"]:
        print(f"refused: {refusal['source']}: {refusal['problem']}")


@app.command("ingest")
@declares
def ingest_command(
    declared: Declared,
    update_only: Annotated[
        bool, typer.Option("--update", help="SOURCE holds changed and added features only.")
    ] = False,
    delete: Annotated[
        list[str] | None, typer.Option(help="With --update: key of a feature to delete.")
    ] = None,
    delete_file: Annotated[
        Path | None, typer.Option(help="With --update: file of such keys, one a line.")
    ] = None,
    delete_area: Annotated[
        str | None,
        typer.Option(help="With --update: west,south,east,north; SOURCE replaces what lies there."),
    ] = None,
    memory: Annotated[str, typer.Option(help="Budget of all processes.")] = "2GB",
    workers: Annotated[int | None, typer.Option(help="Processes; default: as many as pay.")] = None,
    executor: Annotated[str, typer.Option(help="local or dask:URL")] = "local",
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Read, check, tile and publish sources as one asset; the same command resumes or updates."""
    resources = _resources(memory, workers, executor)
    keys = (*(delete or ()), *_keys(delete_file))
    if (keys or delete_area) and not update_only:
        raise ConfigError("--delete, --delete-file and --delete-area go with --update")
    if update_only:
        wanted = given(declared)
        if "id" not in wanted:
            raise ConfigError("--update needs --id: the asset to change")
        workspace = _existing(data)
        from ingest.update import Deletions

        deletions = Deletions(keys, delete_area)
        with ConsoleProgress(wanted["id"]) as progress:
            run = partial(update, wanted, deletions, workspace, resources, progress)
            made = _reported(report, run)
    else:
        options = options_of(declared)
        with ConsoleProgress(options.id) as progress:
            run = partial(ingest, options, Workspace(data), resources, progress)
            made = _reported(report, run)
    if as_json:
        emit(made.to_json())
    else:
        _print_result(made)


def _keys(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--delete-file {path}: not a readable text in UTF-8: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _reported(path: Path | None, run: Callable[[], Report]) -> Report:
    if path is not None:
        Report.prepare(path)
    try:
        report = run()
    except IngestFailed as failed:
        if path is not None:
            failed.report.write(path)
        raise failed.cause from None
    if path is not None:
        report.write(path)
    return report


def _print_result(report: Report) -> None:
    result = report.result
    state = "unchanged, still" if result["unchanged"] else "published as"
    features = f"{result['features']:,} features, " if result["features"] else ""
    print(
        f"{result['id']}: {state} version {result['version']} — {result['kind']}, "
        f"{features}{result['tiles']:,} tiles"
    )
    if "changed" in result:
        print(
            f"  {result['changed']:,} changed, {result['added']:,} added, "
            f"{result['deleted']:,} deleted"
        )
    if "tiles_changed" in result:
        print(
            f"  {result['tiles_built']:,} tiles made again, {result['tiles_changed']:,} of them "
            "changed"
        )
    for finding in report.findings:
        print(f"  {finding.severity}: {finding.message} ({finding.count})")
    if report.seconds:
        print("  " + ", ".join(f"{name} {spent:.1f} s" for name, spent in report.seconds.items()))


def _item_json(item: Item, versions: Sequence[Version]) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind,
        "collection": item.collection,
        "title": item.title,
        "description": item.description,
        "current": item.current,
        "created": item.created,
        "updated": item.updated,
        "properties": dict(item.properties),
        "versions": [_version_json(v) for v in versions],
    }


def _store_json(ref: StoreRef) -> dict[str, Any]:
    return {
        "role": ref.role,
        "format": ref.format,
        "path": ref.path,
        "sha256": ref.sha256,
        "bytes": ref.nbytes,
        "media_type": ref.media_type,
    }


def _version_json(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "created": version.created,
        "bbox": version.bounds.bbox3d(),
        "stores": [_store_json(ref) for ref in version.stores],
        "info": dict(version.info),
    }


def _existing(data: Path) -> Workspace:
    # Whoever mistypes --data should not be shown an empty city.
    if not data.exists():
        raise NotFound(f"there is no data folder {data}: name it with --data, or $CIM_DATA")
    return Workspace(data)


@app.command("list")
def list_command(data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """List the assets."""
    with _existing(data).open_catalog() as catalog:
        found = [(item, catalog.versions(item.id)) for item in catalog.items()]
    if as_json:
        emit([_item_json(item, versions) for item, versions in found])
        return
    for item, versions in found:
        size = sum(ref.nbytes for v in versions if v.number == item.current for ref in v.stores)
        print(f"{item.id}\t{item.kind}\tv{item.current}\t{size:,} bytes\t{item.title}")


@app.command("show")
def show_command(id: str, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """Show one asset: metadata, versions, stores, findings."""
    with _existing(data).open_catalog() as catalog:
        item, versions = catalog.item(id), catalog.versions(id)
    if as_json:
        emit(_item_json(item, versions))
        return
    print(f"{item.id}: {item.title}\nkind {item.kind}, collection {item.collection}")
    for name, value in item.properties.items():
        print(f"{name}: {value}")
    for version in versions:
        mark = "*" if version.number == item.current else " "
        print(f"{mark} version {version.number}, {version.created:%Y-%m-%d %H:%M:%S %Z}")
        print(f"    bbox {', '.join(f'{v:.7g}' for v in version.bounds.bbox3d())}")
        for ref in version.stores:
            print(f"    {ref.role}: {ref.path} ({ref.nbytes:,} bytes)")
        for finding in version.report.get("findings", ()):
            print(f"    {finding['severity']}: {finding['message']} ({finding['count']})")


@app.command("versions")
def versions_command(id: str, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """List the versions of an asset, newest first."""
    with _existing(data).open_catalog() as catalog:
        item, versions = catalog.item(id), catalog.versions(id)
    if as_json:
        emit([{**_version_json(v), "current": v.number == item.current} for v in versions])
        return
    for version in versions:
        mark = "*" if version.number == item.current else " "
        size = sum(ref.nbytes for ref in version.stores)
        print(f"{mark} {version.number}\t{version.created:%Y-%m-%dT%H:%M:%SZ}\t{size:,} bytes")


@app.command("rollback")
def rollback_command(
    id: str, version: int, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False
) -> None:
    """Make an earlier version the current one."""
    with _existing(data).open_catalog() as catalog:
        restored = catalog.rollback(id, version)
    if as_json:
        emit(_version_json(restored))
    else:
        print(f"{id}: version {restored.number} is current")


@app.command("delete")
def delete_command(
    id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Delete an asset, its versions, and the files nobody else uses."""
    workspace = _existing(data)
    with workspace.open_catalog() as catalog:
        item = catalog.item(id)
        if not yes and sys.stdin.isatty():
            typer.confirm(f"delete {item.id} ({item.title}) and all its versions?", abort=True)
        from ingest.terrain_parent import children

        if found := children(catalog, id):
            raise Conflict(
                f"{id!r} surrounds {', '.join(found)} (--parent): ingest these again without it, "
                "or delete them first"
            )
        orphans: list[StoreRef] = catalog.delete(id)
    freed = workspace.remove_stores(orphans)
    if as_json:
        emit({"id": id, "deleted": True, "freed_nbytes": freed})
    else:
        print(f"{id}: deleted, {freed:,} bytes freed")


@app.command("export")
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

    workspace = _existing(data)
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


app.command("derive")(derive_points)


@app.command("check")
def check_command(
    id: str,
    version: Annotated[int | None, typer.Option(help="Default: the current one.")] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Check a published version against the laws of its kind; exit code 1 when one is broken."""
    from ingest.check import check_version

    workspace = _existing(data)
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


@app.command("find")
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

    workspace = _existing(data)
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


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Serve the portal, tiles, catalogue and dynamic rasters."""
    from cim_server.serve import serve
    from cim_server.settings import Settings

    settings = replace(Settings.from_env(), data=data, host=host, port=port, workers=workers)
    serve(settings)


@app.command("demo")
def demo_command(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    check: Annotated[
        bool, typer.Option("--check", help="Check the page and a tile of every layer, then stop.")
    ] = False,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Default: on a desktop's terminal.")
    ] = None,
    data: DataOption = DEFAULT_DATA / "demo",
) -> None:
    """Ingest the bundled data, serve it, and show the portal."""
    from cim_server.demo import demo_manifests
    from cim_server.demo.check import check_demo
    from cim_server.serve import serve
    from cim_server.settings import Settings

    resources = _resources("2GB", 1, "local")
    for manifest in demo_manifests():
        options = merge_options({}, manifest)
        with ConsoleProgress(options.id, quiet=not sys.stderr.isatty()) as progress:
            run = partial(ingest, options, Workspace(data), resources, progress)
            _print_result(_reported(None, run))
    settings = replace(Settings.from_env(), data=data, host=host, port=port)
    if check:
        check_demo(settings)
        return
    url = f"http://{host}:{port}/"
    print(f"\n  门户 portal: {url}\n", flush=True)
    if _has_desktop() if open_browser is None else open_browser:
        threading.Thread(target=_open_when_served, args=(host, port, url), daemon=True).start()
    serve(settings)


def _has_desktop() -> bool:
    shown = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return shown and sys.stdout.isatty()


def _open_when_served(host: str, port: int, url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            webbrowser.open(url)
            return
        time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except CimError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        print("cancelled", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("cancelled at once; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # the base class keeps it private
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output went away (cim list | head): not an error worth a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
