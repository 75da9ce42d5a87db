"""Damaged and absurd rasters through the command, as terrain and as imagery: a message, no memory.

Real files: GDAL's own, made to break readers, and rasterio's. Memory is measured, in a process of
its own, where a header promises much.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import CIM, Command

BAD = Path(__file__).parent.parent / "data" / "bad" / "raster"
# The command itself takes 125 MB, GDAL's COG driver with it 200; a block of 60000 x 60000 pixels
# would take 3.6 GB.
MOST_KB = 300_000

# A child counts what its parent held when it was forked: a small process starts it, and says.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

HUGE = {
    "excessive-memory-TIFFFillTile.tif": (),
    "huge4GB.tif": (),
    "image_width_above_32bit.tif": ("2147483648",),
    "toomanyblocks.tif": ("60000",),
}
CASES = {
    "byte_truncated.tif": (),
    "corrupted_deflate_singlestrip.tif": (),
    "unknown_compression.tif": ("65535",),
    "rotated.tif": ("rotated",),
    "all-nodata.tif": ("nodata",),
    "float_nan.tif": ("--crs",),
}


def _command(name: str, kind: str, data: Path) -> list[str | Path]:
    frame = [] if name == "float_nan.tif" else ["--crs", "EPSG:4547"]
    datum = ["--vertical", "EPSG:5773"] if kind == "terrain" else []
    asset = ["--id", "x", "--kind", kind, "--area", "world", "--workers", "1", "--data", data]
    return ["ingest", BAD / name, *asset, *frame, *datum]


def _refused(name: str, words: tuple[str, ...], code: int, said: str) -> None:
    assert code == 3, said
    assert name in said and "remedy" in said and "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("kind", ["terrain", "imagery"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_a_remedy(
    name: str, kind: str, cim_here: Command, tmp_path: Path
) -> None:
    done = cim_here(*_command(name, kind, tmp_path / "data"))
    _refused(name, CASES[name], done.code, done.err)


@pytest.mark.parametrize("kind", ["terrain", "imagery"])
@pytest.mark.parametrize("name", HUGE)
def test_what_promises_much_is_refused_in_little_memory(
    name: str, kind: str, tmp_path: Path
) -> None:
    command = [CIM, *_command(name, kind, tmp_path / "data")]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, command)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    _refused(name, HUGE[name], done.returncode, done.stderr)
    most_kb = int(done.stdout.splitlines()[-1])
    print(f"{name} {kind}: {most_kb // 1024} MB: {done.stderr}")
    assert most_kb < MOST_KB
