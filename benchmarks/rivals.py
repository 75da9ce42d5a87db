"""The rivals' commands for the same job: what a person would run instead."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import solids
from benchmarks.bench import Contestant

BIN = Path(sys.executable).parent
NODE = Path(__file__).parent / "node" / "node_modules" / ".bin"


def solids_to_tiles(folder: Path, count: int) -> dict[str, Contestant]:
    """3D Tiles from ready-made solids of the same city, for none of them extrudes footprints.

    None keeps attributes or a level of detail of buildings: py3dtiles makes b3dm of 20 buildings
    without ids; obj2tiles simplifies the city as one mesh, Draco inside, no ids (it runs
    ``draco_encoder``, Debian package draco); obj23dtiles makes one b3dm of everything.
    """
    wkb, obj = solids.wkb_folder(folder, count), solids.obj_file(folder, count)
    return {
        "py3dtiles export": lambda out: [BIN / "py3dtiles", "export", "-d", wkb, "-s", out],
        "obj2tiles": lambda out: [
            BIN / "obj2tiles", obj, out / "tiles", "--lon", "113.4", "--lat", "31.7", "--no-viewer",
        ],
        "obj23dtiles": lambda out: [
            NODE / "obj23dtiles", "-i", obj, "-o", out / "city.b3dm", "--tileset", "--b3dm",
        ],
    }  # fmt: skip


def py3dtiles_points(source: Path, out: Path) -> list[str | Path]:
    """Points with colours; axes swapped back, or the cloud lies thousands of kilometres away."""
    flags = ["--srs_in", "4547", "--srs_out", "4978", "--pyproj-always-xy"]
    return [BIN / "py3dtiles", "convert", source, "--out", out / "tiles", *flags]


def tippecanoe(source: Path, out: Path) -> list[str]:
    """Vector tiles, every feature kept at z13 to z16."""
    flags = ["-q", "-Z13", "-z16", "-pf", "-pk", "-ps", "-l", "footprints"]
    return [str(BIN / "tippecanoe"), *flags, "-o", str(out / "tiles.pmtiles"), str(source)]


def delatin(source: Path, out: Path) -> list[str]:
    """The same terrain tiles through pydelatin and quantized-mesh-encoder, one after the other.

    ``pip install pydelatin quantized-mesh-encoder``; it is left out where they are not.
    """
    return [sys.executable, "-m", "benchmarks.delatin_tiles", str(source), str(out)]


def gdal_mvt(source: Path, out: Path) -> list[str]:
    """Vector tiles through GDAL's MVT driver, same zooms."""
    code = (
        "import sys, pyogrio\n"
        "meta, table = pyogrio.read_arrow(sys.argv[1])\n"
        "pyogrio.write_arrow(table, sys.argv[2], driver='MVT', layer='footprints',"
        " geometry_name=meta['geometry_name'] or 'wkb_geometry', geometry_type='Unknown',"
        " crs='EPSG:4326', dataset_options={'MINZOOM': 13, 'MAXZOOM': 16, 'FORMAT': 'MBTILES',"
        " 'MAX_SIZE': 10**9, 'MAX_FEATURES': 10**9, 'SIMPLIFICATION': 0})\n"
    )
    return [sys.executable, "-c", code, str(source), str(out / "tiles.mbtiles")]


def gdal_cog(source: Path, out: Path) -> list[str]:
    """A JPEG COG through GDAL's COG driver with all threads."""
    code = (
        "import sys\n"
        "from rasterio.shutil import copy\n"
        "copy(sys.argv[1], sys.argv[2], driver='COG', compress='JPEG', quality=90,"
        " num_threads='ALL_CPUS')\n"
    )
    return [sys.executable, "-c", code, str(source), str(out / "image.tif")]


def rio_cogeo(source: Path, out: Path) -> list[str]:
    """A JPEG COG through rio-cogeo."""
    quality = ["--co", "QUALITY=90"]
    return [
        str(BIN / "rio"), "cogeo", "create", "-p", "jpeg", *quality, "-q",
        str(source), str(out / "image.tif"),
    ]  # fmt: skip
