"""Work units on a Dask cluster of separate processes give the bytes of a run in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyogrio
import pytest
import shapely

from tests.commands import Command
from tiling.testing.cities import synthetic_footprints

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def test_a_cluster_gives_the_bytes_of_one_process(
    cim: Command, scheduler: str, tmp_path: Path
) -> None:
    city = synthetic_footprints(4000, seed=5)
    source = tmp_path / "城.fgb"
    table = city.attributes.append_column(
        "geometry", pa.array(shapely.to_wkb(city.geometry), type=pa.binary())
    )
    pyogrio.write_arrow(
        table, source, geometry_name="geometry", geometry_type="Unknown", crs="EPSG:4490"
    )
    made = {}
    for executor in ("local", f"dask:{scheduler}"):
        data = tmp_path / executor[:4]
        done = cim(
            "ingest", source, "--id", "c", "--kind", "vector", "--executor", executor,
            "--data", data, "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        made[executor] = [s["sha256"] for s in done.json()["result"]["stores"]]
    first, second = made.values()
    assert first == second
