"""Damaged and absurd rasters through the command, as terrain and as imagery: a message, no memory.

Real files: GDAL's own, made to break readers, and rasterio's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.commands import CIM

BAD = Path(__file__).parent.parent / "data" / "bad" / "raster"
# The command itself takes 125 MB, GDAL's COG driver with it 200; a block of 60000 x 60000 pixels
# would take 3.6 GB.
MOST_KB = 300_000

CASES = {
    "byte_truncated.tif": (),
    "corrupted_deflate_singlestrip.tif": (),
    "excessive-memory-TIFFFillTile.tif": (),
    "huge4GB.tif": (),
    "image_width_above_32bit.tif": ("2147483648",),
    "toomanyblocks.tif": ("60000",),
    "unknown_compression.tif": ("65535",),
    "rotated.tif": ("rotated",),
    "all-nodata.tif": ("nodata",),
    "float_nan.tif": ("--crs",),
}


@pytest.mark.parametrize("kind", ["terrain", "imagery"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_a_remedy_and_little_memory(
    name: str, kind: str, tmp_path: Path
) -> None:
    frame = [] if name == "float_nan.tif" else ["--crs", "EPSG:4547"]
    datum = ["--vertical", "EPSG:5773"] if kind == "terrain" else []
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [CIM, "ingest", BAD / name, "--id", "x", "--kind", kind, "--area", "world"]
        data = ["--data", tmp_path / "data", "--workers", "1"]
        child = subprocess.Popen([*command, *frame, *datum, *data], stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text("utf-8")
    print(f"{name} {kind}: {usage.ru_maxrss // 1024} MB, {usage.ru_utime:.2f} s: {said}")
    assert child.returncode == 3, said
    assert name in said and "remedy" in said and "Traceback" not in said
    for word in CASES[name]:
        assert word in said
    assert usage.ru_maxrss < MOST_KB
