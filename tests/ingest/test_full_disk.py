"""The disk fills in the middle: exit code 3, nothing half-visible, and it resumes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from tests.commands import CIM

_NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from tiling.errors import StoreError
from tiling.formats.geoparquet import write_geoparquet
from tiling.testing.cities import synthetic_footprints

folder = Path(sys.argv[1])
batch = synthetic_footprints(2_000, seed=1)
assert write_geoparquet([batch], folder / "a.parquet", folder / "spool") == len(batch)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# Files may not grow beyond this: the magic bytes fit, the first row group does not.
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_geoparquet([batch], folder / "b.parquet", folder / "spool")
except StoreError as error:
    print(error)
"""


def test_features_whose_first_row_group_finds_no_room_are_an_error_of_the_disk(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NO_ROOM, tmp_path], capture_output=True, text=True, check=False
    )
    assert "b.parquet: cannot write" in done.stdout
    assert done.stderr == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "spool"]


@pytest.mark.parametrize(
    ("bands", "options", "size_kib"),
    [
        pytest.param(1, ["--vertical", "EPSG:5773"], 1500, id="terrain"),
        pytest.param(3, [], 900, id="imagery"),
    ],
)
def test_a_raster_that_finds_no_room_is_refused_and_resumes(
    bands: int, options: list[str], size_kib: int, tmp_path: Path
) -> None:
    mount, source = tmp_path / "small", tmp_path / "栅格.tif"
    mount.mkdir()
    dtype = "float32" if bands == 1 else "uint8"
    noise = np.random.default_rng(1).integers(0, 255, (bands, 640, 640)).astype(dtype)
    with rasterio.open(
        *(source, "w"),
        driver="GTiff",
        width=640,
        height=640,
        count=bands,
        dtype=dtype,
        crs="EPSG:4490",
        transform=from_origin(113.3, 31.8, 0.01, 0.01),
    ) as dataset:
        dataset.write(noise)
    folder = shlex.quote(str(mount))
    ingest = shlex.join(
        [str(CIM), "ingest", str(source), "--id", "x", "--data", str(mount), *options]
    )
    script = f"""
        mount -t tmpfs -o size={size_kib}k tmpfs {folder} || exit 99
        {ingest}; echo code=$?
        {CIM} list --data {folder}; echo listed
        mount -o remount,size=200m {folder}
        {ingest} >/dev/null; echo code=$?; ls {folder}/jobs; echo end
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.stdout == "code=3\nlisted\ncode=0\nend\n", done.stdout + done.stderr
    assert "the disk is full" in done.stderr
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
