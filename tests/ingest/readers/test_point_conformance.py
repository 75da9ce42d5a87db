"""Every reader of points keeps the promises of `PointReaderTests`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest.readers.e57 import E57Reader
from ingest.readers.las import LasReader
from ingest.readers.ply import PlyReader
from ingest.readers.xyz import XyzReader
from tests.ingest.readers.point_reader_tests import PointReaderTests
from tests.ingest.readers.test_e57 import a_scan, write
from tests.ingest.readers.test_las import a_cloud
from tests.ingest.readers.test_point_texts import PLY, write_ply


class LasTests(PointReaderTests):
    @pytest.fixture
    def reader_class(self):
        return LasReader


class TestLas(LasTests):
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "点云.las"
        a_cloud(3, 50).write(path)
        return path


class TestLaz(LasTests):
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "点云.laz"
        a_cloud(8, 50).write(path)
        return path


class TestLazWithoutChunks(LasTests):
    @pytest.fixture
    def source(self, tmp_path):
        data = Path(__file__).parents[2] / "data" / "pointcloud"
        name = "simple-laszip-compressor-version-1.2r0.laz"
        return Path(shutil.copy(data / name, tmp_path / "a.laz"))


class TestE57(PointReaderTests):
    @pytest.fixture
    def reader_class(self):
        return E57Reader

    @pytest.fixture
    def source(self, tmp_path):
        return write(tmp_path / "扫描.e57", a_scan(30, 1), a_scan(20, 2))


class TestPly(PointReaderTests):
    @pytest.fixture(params=[{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}], ids=str)
    def source(self, tmp_path, request):
        return write_ply(tmp_path / "a.ply", PLY.repeat(6), **request.param)

    @pytest.fixture
    def reader_class(self):
        return PlyReader


class TestXyz(PointReaderTests):
    @pytest.fixture
    def reader_class(self):
        return XyzReader

    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "a.xyz"
        rows = "".join(f"{n}.5\t{n * 2}\t80\t{n}\t{n}\t0\t1\n" for n in range(20))
        path.write_text("X Y Z Intensity R G B\n" + rows)
        return path
