"""``cim plan`` and ``cim ingest``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cim_server.commands.data_folder import DEFAULT_DATA, DataOption, existing
from cim_server.commands.data_folder import workspace as workspace_of
from cim_server.commands.declared import Declared, declares, given, options_of
from cim_server.commands.printed import JsonOption, emit
from cim_server.progress import ConsoleProgress
from ingest.height_rule import HeightRule
from ingest.manifest import parse_memory
from ingest.plan import make_plan
from ingest.report import Report
from ingest.run import IngestFailed, Resources, ingest, update
from styles import load_style
from tiling.errors import ConfigError


def resources_of(memory: str, workers: int | None, executor: str) -> Resources:
    """Return what a run may use, as options say it.

    Raises:
        ConfigError: an option makes no sense.
    """
    rule = HeightRule.from_json(load_style("buildings")["heights"])
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least one is needed")
    if executor != "local" and not executor.startswith("dask:"):
        raise ConfigError(f"--executor {executor!r} is neither local nor dask:URL")
    return Resources(
        memory_nbytes=parse_memory(memory), workers=workers, executor=executor, height_rule=rule
    )


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
    resources = resources_of(memory, workers, executor)
    keys = (*(delete or ()), *_keys(delete_file))
    if (keys or delete_area) and not update_only:
        raise ConfigError("--delete, --delete-file and --delete-area go with --update")
    if update_only:
        wanted = given(declared)
        if "id" not in wanted:
            raise ConfigError("--update needs --id: the asset to change")
        workspace = existing(data)
        from ingest.update import Deletions

        deletions = Deletions(keys, delete_area)
        with ConsoleProgress(wanted["id"]) as progress:
            run = partial(update, wanted, deletions, workspace, resources, progress)
            made = _reported(report, run)
    else:
        options = options_of(declared)
        with ConsoleProgress(options.id) as progress:
            run = partial(ingest, options, workspace_of(data), resources, progress)
            made = _reported(report, run)
    if as_json:
        emit(made.to_json())
    else:
        print_result(made)


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


def print_result(report: Report) -> None:
    """Print what an ingest did, for people."""
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
