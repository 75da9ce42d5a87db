"""What only PDAL reads: with PDAL where it is installed, with a message where it is not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.points import read_chunk
from tiling.errors import SourceUnreadable

HEAD = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z intensity
SIZE 8 8 8 4
TYPE F F F F
COUNT 1 1 1 1
WIDTH 3
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 3
DATA ascii
"""
OPTIONS = ReadOptions(crs="EPSG:4547")


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "点.pcd"
    path.write_text(HEAD + "441000.5 3507000 80 1\n441001 3507001 81 2\n441002 3507002 82 3\n")
    return path


@pytest.mark.skipif(find_spec("pdal") is not None, reason="PDAL is installed")
def test_without_pdal_the_message_names_the_extra(cloud: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"\.pcd are read by PDAL") as caught:
        open_source(cloud, OPTIONS).info()
    assert "cim-server[pdal]" in caught.value.remedy


@pytest.mark.parametrize("max_points", [1, 2, 10])
def test_with_pdal_its_points_are_read_in_chunks(cloud: Path, max_points: int) -> None:
    pytest.importorskip("pdal")
    with open_source(cloud, OPTIONS) as reader:
        assert reader.info().points.bounds == (441000.5, 3507000, 80, 441002, 3507002, 82)
        batches = [read_chunk(chunk) for chunk in reader.chunks(max_points)]
    xyz = np.concatenate([b.xyz for b in batches])
    assert xyz.tolist() == [[441000.5, 3507000, 80], [441001, 3507001, 81], [441002, 3507002, 82]]
    assert np.concatenate([b.columns["intensity"] for b in batches]).tolist() == [1, 2, 3]
