"""Points of PLY files and of rows of text, in every form these come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.point_chunks import PointOptions
from ingest.readers.points import chunk_findings, read_chunk
from ingest.readers.text_rows import index_rows, read_rows
from tiling.batches import PointBatch
from tiling.errors import FieldInvalid, SourceError, SourceUnreadable

XYZ = np.array([[441000.125, 3507000.5, 80.25], [441001.5, 3507002.25, -1.5], [0.1, 1e-3, 2e6]])


def options(columns: str = "") -> ReadOptions:
    named = tuple(columns.split(",")) if columns else ()
    return ReadOptions(crs="EPSG:4547", points=PointOptions(columns=named))


def read(path: Path, columns: str = "", max_points: int = 1000) -> PointBatch:
    with open_source(path, options(columns)) as reader:
        info = reader.info()
        batches = [read_chunk(c) for c in reader.chunks(max_points)]
    xyz = np.concatenate([b.xyz for b in batches])
    assert info.points.count == len(xyz) and info.kind == "pointcloud"
    assert info.points.bounds == (*xyz.min(axis=0), *xyz.max(axis=0))
    names = [c.name for c in info.points.columns]
    assert all(list(b.columns) == names for b in batches)
    return PointBatch(
        batches[0].ref,
        0,
        xyz,
        {n: np.concatenate([b.columns[n] for b in batches]) for n in names},
    )


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


ROWS = ["441000.125 3507000.5 80.25", "441001.5 3507002.25 -1.5", "0.1 1e-3 2e6"]


@pytest.mark.parametrize("mark", [" ", "\t", ",", ";", "   ", " , "])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_rows_read_the_same_however_they_are_parted(tmp_path: Path, mark: str, ending: str) -> None:
    content = ending.join(row.replace(" ", mark) for row in ROWS)
    for tail in ("", ending, ending * 3 + "  "):
        assert np.array_equal(read(text(tmp_path / "a.xyz", content + tail)).xyz, XYZ)
    assert np.array_equal(read(tmp_path / "a.xyz", max_points=1).xyz, XYZ)


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("X Y Z 强度\n", "gbk"),
        ("东坐标,北坐标,高程,intensity\n", "utf-8-sig"),
        ("//X Y Z Scalar_Intensity\n", "ascii"),
        ("# 飞行 2023\n# x;y;z;i\n", "utf-8"),
    ],
)
def test_a_line_of_names_says_what_columns_are(tmp_path: Path, head: str, encoding: str) -> None:
    rows = "\n".join(f"{row} {n}" for n, row in enumerate(ROWS))
    batch = read(text(tmp_path / "a.txt", head + rows, encoding))
    assert np.array_equal(batch.xyz, XYZ)
    assert batch.columns["intensity"].tolist() == [0, 1, 2]


def test_columns_may_be_named_left_out_and_turned(tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", "P1x,2,1,3,9,255,0,7\n".replace("P1x", "17") * 2)
    batch = read(path, "-,y,x,z,class,r,g,b")
    assert batch.xyz.tolist() == [[1, 2, 3]] * 2
    assert batch.columns["classification"].dtype == np.uint8
    assert batch.columns["rgb"].tolist() == [[255, 0, 7]] * 2


def test_columns_that_nobody_names_are_refused(tmp_path: Path) -> None:
    path = text(tmp_path / "a.xyz", "1 2 3 4 5\n")
    with pytest.raises(FieldInvalid, match="nothing says what its 5 columns are") as caught:
        open_source(path, options()).info()
    assert "--point-columns" in caught.value.remedy
    with pytest.raises(FieldInvalid, match="names 4 columns, its rows have 5"):
        open_source(path, options("x,y,z,intensity")).info()


def test_pts_counts_its_points_and_needs_no_names(tmp_path: Path) -> None:
    rows = "1 2 3 -100 255 0 1\n4 5 6 200 2 3 4\n"
    batch = read(text(tmp_path / "a.pts", "2\n" + rows))
    assert batch.columns["intensity"].tolist() == [-100, 200]
    assert batch.columns["rgb"].tolist() == [[255, 0, 1], [2, 3, 4]]
    with pytest.raises(SourceUnreadable, match="counts 3 points, and 2 rows follow"):
        read(text(tmp_path / "a.pts", "3\n" + rows))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1 2", "'1 2'"),
        ("1 2 3 4", "'1 2 3 4'"),
        ("1 2 x", "'1 2 x'"),
        ("1,5 2,5 3,5", "'1,5 2,5 3,5'"),
        ("", "''"),
    ],
)
def test_a_row_that_does_not_parse_is_refused_with_its_line(
    tmp_path: Path, row: str, problem: str
) -> None:
    rows = ["1 2 3"] * 9001
    rows[8500] = row
    path = text(tmp_path / "a.xyz", "x y z\n" + "\n".join(rows))
    with pytest.raises(SourceError) as caught:
        read(path, max_points=3000)
    assert problem in caught.value.problem
    assert "line 8502 " in caught.value.problem


def test_points_without_coordinates_are_left_out_and_counted(tmp_path: Path) -> None:
    path = text(tmp_path / "a.xyz", "x y z r g b\n1 2 3 1 1 1\nnan nan nan 2 2 2\n4 5 6 3 3 3\n")
    with open_source(path, options()) as reader:
        (chunk,) = reader.chunks()
        assert reader.info().points.bounds == (1, 2, 3, 4, 5, 6)
    batch = read_chunk(chunk)
    assert batch.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch.columns["rgb"].tolist() == [[1, 1, 1], [3, 3, 3]]
    assert [(f.rule, f.count) for f in chunk_findings(chunk, batch)] == [("points-invalid", 1)]


def test_an_empty_field_is_not_skipped(tmp_path: Path) -> None:
    path = text(tmp_path / "a.xyz", "x,y,z,i\n1,2,3,4\n1,,3,4\n")
    with pytest.raises(SourceUnreadable, match="line 3 "):
        read(path)


def test_a_number_that_does_not_fit_its_column_is_refused(tmp_path: Path) -> None:
    path = text(tmp_path / "a.xyz", "x y z class\n1 2 3 256\n")
    with pytest.raises(FieldInvalid, match="classification holds 256"):
        read(path)


def test_prose_and_elevation_grids_are_no_points(tmp_path: Path) -> None:
    grid = text(tmp_path / "a.asc", "ncols 3\nnrows 1\nxllcorner 0\nyllcorner 0\n1 2 3\n")
    prose = text(tmp_path / "a.txt", "说明 文字 内容\n第二 行 字\n")
    for path in (grid, prose):
        try:
            assert open_source(path).name != "xyz"
        except SourceError:
            pass


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 20_000),
    cuts=st.lists(st.integers(0, 20_000), max_size=4),
    blank=st.sampled_from(["", "\n", "\n\n"]),
)
def test_any_range_of_rows_is_found(tmp_path_factory, count, cuts, blank) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.txt"
    path.write_text("head\n" + "\n".join(f"{n} {n * 2}" for n in range(count)) + blank)
    index = index_rows(path, 5, 2)
    assert index.count == count
    edges = sorted({0, count, *(c for c in cuts if c < count)})
    for start, end in zip(edges, edges[1:], strict=False):
        table = read_rows(path, index.range(start, end), end - start, 2, b"")
        assert table[:, 0].tolist() == list(range(start, end))


PLY = np.array(
    [(1.5, 2.5, 3.5, 255, 0, 7, 1.25, 9), (4.0, 5.0, 6.0, 1, 2, 3, -2.0, 300)],
    dtype=[
        ("x", "f8"), ("y", "f8"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"),
        ("scalar_Intensity", "f4"), ("quality", "i4"),
    ],
)  # fmt: skip


def write_ply(path: Path, vertices: np.ndarray, **how) -> Path:
    faces = np.array([([0, 1, 0],)], dtype=[("vertex_indices", "i4", (3,))])
    elements = [
        plyfile.PlyElement.describe(vertices, "vertex"),
        plyfile.PlyElement.describe(faces, "face"),
    ]
    plyfile.PlyData(elements, **how).write(str(path))
    return path


@pytest.mark.parametrize("how", [{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}])
@pytest.mark.parametrize("max_points", [1, 1000])
def test_ply_reads_as_it_was_written(tmp_path: Path, how: dict, max_points: int) -> None:
    batch = read(write_ply(tmp_path / "a.ply", PLY, **how), max_points=max_points)
    assert batch.xyz.tolist() == [[1.5, 2.5, 3.5], [4.0, 5.0, 6.0]]
    assert batch.columns["rgb"].tolist() == [[255, 0, 7], [1, 2, 3]]
    assert batch.columns["rgb"].dtype == np.uint8
    assert batch.columns["intensity"].tolist() == [1.25, -2.0]
    assert batch.columns["quality"].tolist() == [9, 300]
    with open_source(tmp_path / "a.ply", options()) as reader:
        assert [(f.rule, f.count) for f in reader.info().findings] == [("elements-dropped", 1)]


def test_colours_of_a_ply_may_be_floats(tmp_path: Path) -> None:
    kinds = [(n, "f4") for n in ("x", "y", "z", "red", "green", "blue")]
    path = write_ply(tmp_path / "a.ply", np.array([(1, 2, 3, 0, 0.5, 1)], dtype=kinds))
    assert read(path).columns["rgb"].tolist() == [[0, 128, 255]]
    path = write_ply(tmp_path / "b.ply", np.array([(1, 2, 3, 0, 0.5, 90)], dtype=kinds))
    with pytest.raises(FieldInvalid, match="colours go from 0 to 90"):
        read(path)


@pytest.mark.parametrize("how", [{"text": True}, {"byte_order": "<"}])
def test_a_ply_that_is_cut_short_is_refused(tmp_path: Path, how: dict) -> None:
    vertices = np.resize(PLY, 50)
    raw = write_ply(tmp_path / "a.ply", vertices, **how).read_bytes()
    for length in (5, 60, raw.index(b"end_header") + 30, len(raw) * 2 // 3):
        (tmp_path / "a.ply").write_bytes(raw[:length])
        with pytest.raises(SourceError):
            read(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"element vertex 2", b"element vertex 9999999999999"),
        (b"element vertex 2", b"element vertex -2"),
        (b"format binary_little_endian", b"format binary_middle_endian"),
        (b"property double x", b"property quad x"),
        (b"property double x", b"property list uchar int x"),
        (b"element vertex", b"element points"),
    ],
)
def test_a_ply_header_that_lies_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = write_ply(tmp_path / "a.ply", PLY, byte_order="<")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(SourceError) as caught:
        read(path)
    assert caught.value.source == str(path) and caught.value.remedy
