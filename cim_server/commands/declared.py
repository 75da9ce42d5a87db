"""What `cim plan` and `cim ingest` may be told about sources: one list for both commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.manifest import IngestOptions, merge_options, read_manifest

SourcesArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="SOURCE...", help="Files or folders.")
]
TextOption = Annotated[str | None, typer.Option()]
ZoomOption = Annotated[int | None, typer.Option(min=0, max=24)]
FileOption = Annotated[Path | None, typer.Option()]

# Option of `IngestOptions` -> how it is given; in the order in which help shows them.
_DECLARED: dict[str, Any] = {
    "sources": SourcesArgument,
    "id": TextOption,
    "kind": TextOption,
    "title": TextOption,
    "collection": TextOption,
    "description": TextOption,
    "layer": Annotated[
        str | None, typer.Option(help="Of a source with several; '*': all, as layers of tiles.")
    ],
    "crs": TextOption,
    "assume_crs": TextOption,
    "vertical": TextOption,
    "assume_vertical": TextOption,
    "encoding": TextOption,
    "height_field": TextOption,
    "base_field": TextOption,
    "roof_field": TextOption,
    "floors_field": TextOption,
    "key": Annotated[
        str | None, typer.Option(help="Column that identifies features, for later updates.")
    ],
    "height_mode": TextOption,
    "min_height_mode": TextOption,
    "bad_heights": TextOption,
    "min_zoom": ZoomOption,
    "max_zoom": ZoomOption,
    "layer_zooms": Annotated[
        list[str] | None,
        typer.Option(metavar="[LAYER=]LOW[-HIGH]", help="Zooms of a layer: roads=8-16."),
    ],
    "attributes": Annotated[
        list[str] | None,
        typer.Option(metavar="[LAYER=]A,B", help="Fields in the vector tiles; default: all."),
    ],
    "rename": Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="What a field is called in the vector tiles."),
    ],
    "rank": Annotated[
        list[str] | None,
        typer.Option(metavar="[LAYER=]FIELD[:asc|:desc]", help="Who stays where features crowd."),
    ],
    "bake": Annotated[
        str | None,
        typer.Option(help="Terrain tiles made at once: all, none or down to a level."),
    ],
    "terrain": TextOption,
    "parent": Annotated[
        str | None,
        typer.Option(help="Terrain asset that surrounds this terrain, and fills it up."),
    ],
    "water": Annotated[
        str | None,
        typer.Option(help="Vector asset whose polygons are water in the tiles of a terrain."),
    ],
    "place": TextOption,
    "up": TextOption,
    "compress": Annotated[
        str | None,
        typer.Option(help="Of imagery: auto, jpeg, webp, deflate, zstd or lerc."),
    ],
    "quality": Annotated[int | None, typer.Option(help="Of JPEG and WebP, 1 to 100.")],
    "max_error": Annotated[float | None, typer.Option(help="Largest error LERC may make.")],
    "order": Annotated[
        str | None,
        typer.Option(help="Which sheets win where they overlap: finest, newest or given."),
    ],
    "fill_voids": Annotated[
        int | None,
        typer.Option(help="Pixels over which enclosed voids of a terrain are interpolated."),
    ],
    "despike": Annotated[
        bool | None,
        typer.Option("--despike", help="Replace spikes and pits of a terrain."),
    ],
    "nodata": Annotated[
        float | None,
        typer.Option(help="Value of absent pixels, where files declare none or a wrong one."),
    ],
    "mosaic": Annotated[
        str | None,
        typer.Option(help="Of imagery: join its sheets into one, or keep them: sheets."),
    ],
    "height_unit": Annotated[
        str | None,
        typer.Option(help="Of the heights of points: metre, foot or us-foot."),
    ],
    "point_columns": Annotated[
        str | None,
        typer.Option(help="Of text files of points: x,y,z,intensity,... and - for none."),
    ],
    "withheld": Annotated[
        str | None, typer.Option(help="Points with the withheld flag: keep or drop.")
    ],
    "colour_depth": Annotated[
        int | None, typer.Option(help="Bits in 16-bit colours of points: 8 or 16.")
    ],
    "copc": Annotated[
        str | None,
        typer.Option(
            metavar="whole|METRES",
            help="Store a COPC beside the tiles of points: whole, or thinned to a distance.",
        ),
    ],
    "area": TextOption,
    "attribution": TextOption,
    "manifest": FileOption,
}

Declared = dict[str, Any]
_LISTS = ("sources", "layer_zooms", "attributes", "rename", "rank")


def declares(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of an ingest; it gets what was given as ``declared``."""
    own = inspect.signature(command, eval_str=True).parameters
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _DECLARED.items()
    ]
    parameters += [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.items()
        if name != "declared"
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        declared = {name: values.pop(name) for name in _DECLARED}
        for name in _LISTS:
            declared[name] = tuple(declared[name] or ())
        command(declared=declared, **values)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def options_of(declared: Declared) -> IngestOptions:
    """Return the options that were given, completed by the manifest if one was named.

    Raises:
        ConfigError: contradicting or unknown values.
    """
    return merge_options(**_layers(declared))


def given(declared: Declared) -> dict[str, Any]:
    """Return only what was given, here or in the manifest."""
    layers = _layers(declared)
    named = {k: v for k, v in layers["declared"].items() if v not in (None, ())}
    return {**layers["manifest"], **named}


def _layers(declared: Declared) -> dict[str, dict[str, Any]]:
    values = dict(declared)
    manifest = values.pop("manifest")
    return {"declared": values, "manifest": read_manifest(manifest) if manifest else {}}
