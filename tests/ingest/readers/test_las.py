"""LAS, LAZ and COPC against laspy's own reading; every version, every point format."""

from __future__ import annotations

import math
import pickle
import struct
import tempfile
import time
from pathlib import Path

import copclib
import laspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.point_chunks import PointChunk, PointOptions
from ingest.readers.point_colours import ColourEvidence
from ingest.readers.points import chunk_findings, read_chunk
from tiling.batches import PointBatch
from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import CrsMissing, NothingToTile, SourceError, SourceUnreadable
from tiling.findings import Findings

DATA = Path(__file__).parents[2] / "data" / "pointcloud"
UNREADABLE = {
    "pdrf7-v4-1.4.laz": "coding version 4",
    "pdrf9-1.5.laz": "coding version 4",
    "pdrf10-1.5.laz": "coding version 4",
    "bad_vlr_count.las": "announces 3 variable length records",
    "1.2-no-points.las": "counts 1065 points",
}
# What laspy cannot read either, or what holds nothing; each has a test of its own.
ELSEWHERE = {"no-points.las", "simple-laszip-compressor-version-1.2r0.laz"}
READABLE = sorted(
    p.name
    for p in DATA.glob("*.la[sz]")
    if p.name not in UNREADABLE.keys() | ELSEWHERE and not p.name.endswith(".copc.laz")
)


def chunks_of(path: Path, max_points: int = 1_000_000) -> list[PointChunk]:
    with open_source(path, ReadOptions(crs="EPSG:4547")) as reader:
        return reader.chunks(max_points)


def read_all(path: Path, max_points: int = 1_000_000) -> PointBatch:
    batches = [read_chunk(pickle.loads(pickle.dumps(c))) for c in chunks_of(path, max_points)]
    assert [b.first for b in batches] == np.cumsum([0, *(len(b) for b in batches)])[:-1].tolist()
    columns = {
        name: np.concatenate([b.columns[name] for b in batches]) for name in batches[0].columns
    }
    return PointBatch(batches[0].ref, 0, np.concatenate([b.xyz for b in batches]), columns)


def a_cloud(kind: int, count: int, crs: str | None = None) -> laspy.LasData:
    """Return seeded points near Suizhou in EPSG:4547 numbers."""
    rng = np.random.default_rng(kind)
    header = laspy.LasHeader(point_format=kind, version="1.4" if kind > 5 else "1.3")
    header.scales, header.offsets = [0.001] * 3, [441_000, 3_507_000, 0]
    if crs is not None:
        header.add_crs(CRS(crs))
    cloud = laspy.LasData(header)
    cloud.x = 441_000 + rng.random(count) * 100
    cloud.y = 3_507_000 + rng.random(count) * 100
    cloud.z = 80 + rng.random(count)
    cloud.intensity = rng.integers(0, 2**16, count)
    cloud.classification = rng.integers(0, 32, count)
    if kind in (2, 3, 5, 7, 8, 10):
        cloud.red = rng.integers(0, 2**16, count)
    return cloud


def write(cloud: laspy.LasData, path: Path) -> Path:
    cloud.write(path)
    return path


def assert_same(a: PointBatch, b: PointBatch) -> None:
    assert np.array_equal(a.xyz, b.xyz) and a.columns.keys() == b.columns.keys()
    for name, values in a.columns.items():
        assert values.dtype == b.columns[name].dtype
        assert np.array_equal(values, b.columns[name], equal_nan=values.dtype.kind == "f")


def laspy_column(points: laspy.LasData, name: str) -> np.ndarray:
    if name == "rgb":
        return np.stack([points.red, points.green, points.blue], axis=1)
    if name == "scan_angle":
        old = points.point_format.id < 6
        angle = points.scan_angle_rank if old else points.scan_angle * 0.006
        return np.asarray(angle, np.float32)
    return np.asarray(points[name])


@pytest.mark.parametrize("name", READABLE)
def test_every_version_and_format_reads_as_laspy_reads_it(name: str) -> None:
    ours, theirs = read_all(DATA / name), laspy.read(DATA / name)
    assert np.array_equal(ours.xyz, theirs.xyz)
    assert len(ours) == len(theirs.points)
    for column, values in ours.columns.items():
        assert np.array_equal(values, laspy_column(theirs, column), equal_nan=values.dtype == "f8")


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_lies_or_is_of_an_unknown_variant_is_refused_with_what_is_wrong(
    name: str,
) -> None:
    with pytest.raises(SourceUnreadable, match=UNREADABLE[name]) as caught:
        chunks_of(DATA / name)
    assert caught.value.source.endswith(name) and caught.value.remedy


def test_an_empty_file_is_said_to_be_empty() -> None:
    with pytest.raises(NothingToTile, match="holds no points"):
        chunks_of(DATA / "no-points.las")


def test_laz_without_chunks_reads_as_the_las_it_was_made_of() -> None:
    old = read_all(DATA / "simple-laszip-compressor-version-1.2r0.laz")
    las = read_all(DATA / "1.2-with-color.las")
    assert_same(old, las)


def test_copc_reads_as_another_library_reads_it() -> None:
    ours = read_all(DATA / "1.2-with-color.copc.laz")
    theirs = copclib.FileReader(str(DATA / "1.2-with-color.copc.laz")).GetAllPoints()
    key = lambda xyz: xyz[np.lexsort(xyz.T)]  # noqa: E731
    assert np.allclose(key(ours.xyz), key(np.array([[p.x, p.y, p.z] for p in theirs])), atol=1e-9)


@pytest.mark.parametrize("max_points", [1, 7, 500, 1024])
@pytest.mark.parametrize("name", ["pdrf8-1.4.las", "pdrf8-1.4.laz", "pdrf5-1.3.laz"])
def test_chunks_of_any_size_give_the_same_points(name: str, max_points: int) -> None:
    chunks = chunks_of(DATA / name, max_points)
    assert all(0 < c.count <= max_points for c in chunks)
    if max_points > 1:
        assert_same(read_all(DATA / name, max_points), read_all(DATA / name))


@pytest.mark.parametrize("kind", range(11))
def test_las_is_laz_in_every_point_format(tmp_path: Path, kind: int) -> None:
    cloud = a_cloud(kind, 300)
    las, laz = write(cloud, tmp_path / "a.las"), write(cloud, tmp_path / "a.laz")
    assert_same(read_all(las), read_all(laz))
    assert np.array_equal(read_all(las).xyz, cloud.xyz)


def test_columns_left_out_do_not_change_the_others() -> None:
    (chunk,) = chunks_of(DATA / "pdrf8-1.4.laz")
    whole = read_chunk(chunk)
    for names in (["rgb"], ["gps_time", "classification"], [], ["withheld", "return_number"]):
        part = read_chunk(chunk, names)
        assert list(part.columns) == names and np.array_equal(part.xyz, whole.xyz)
        for name in names:
            assert np.array_equal(part.columns[name], whole.columns[name])
    with pytest.raises(KeyError):
        read_chunk(chunk, ["没有"])


def test_chunks_end_where_those_of_laz_do(tmp_path: Path) -> None:
    path = write(a_cloud(7, 120_000), tmp_path / "a.laz")
    assert [c.count for c in chunks_of(path, 60_000)] == [50_000, 50_000, 20_000]
    assert [c.count for c in chunks_of(path, 100_000)] == [100_000, 20_000]


def test_extra_bytes_are_typed_scaled_and_told_from_their_no_data(tmp_path: Path) -> None:
    cloud = a_cloud(6, 4)
    add = lambda **k: cloud.add_extra_dim(laspy.ExtraBytesParams(**k))  # noqa: E731
    add(name="高度", type="i4", scales=np.array([0.01]), offsets=np.array([100.0]))
    add(name="plain", type="u2", no_data=np.array([7]))
    add(name="classification_", type="f4")
    add(name="normal", type="3f8")
    cloud["高度"] = [101.5, 99.0, 100.0, 102.25]
    cloud["plain"] = [1, 7, 3, 65535]
    cloud["normal"] = np.arange(12.0).reshape(4, 3)
    with open_source(write(cloud, tmp_path / "a.laz"), ReadOptions(crs="EPSG:4547")) as reader:
        (chunk,) = reader.chunks()
        batch = read_chunk(chunk)
    by_name = {c.name: c for c in chunk.columns}
    assert batch.columns["高度"] == pytest.approx([101.5, 99.0, 100.0, 102.25])
    assert by_name["高度"].dtype == "float64" and by_name["plain"].no_data == 7
    assert batch.columns["plain"].tolist() == [1, 7, 3, 65535]
    assert batch.columns["plain"].dtype == np.uint16
    assert np.array_equal(batch.columns["normal"], np.arange(12.0).reshape(4, 3))


def test_keys_beyond_those_counted_are_not_taken(tmp_path: Path) -> None:
    raw = (DATA / "1.0_0.las").read_bytes()
    at = raw.index(b"LASF_Projection") - 2
    head = bytearray(raw[at : at + 54])
    struct.pack_into("<H", head, 20, 64 + 8)
    padded = bytearray(raw[:at] + head + raw[at + 54 : at + 54 + 64] + bytes(8) + raw[at + 118 :])
    struct.pack_into("<I", padded, 96, struct.unpack_from("<I", raw, 96)[0] + 8)
    path = tmp_path / "a.las"
    path.write_bytes(padded)
    with open_source(path) as reader:
        assert reader.info().layers[0].ref.code == "EPSG:26915"


def test_names_that_a_file_gives_its_classes_are_kept(tmp_path: Path) -> None:
    cloud = a_cloud(6, 3)
    rows = [(2, "地面".encode("gbk")), (64, "桥面".encode()), (65, b"")]
    table = b"".join(bytes([n]) + name.ljust(15, b"\0") for n, name in rows)
    cloud.header.vlrs.append(laspy.VLR("LASF_Spec", 0, "lookup", table))
    with open_source(write(cloud, tmp_path / "a.laz")) as reader:
        (column,) = (c for c in reader.columns if c.name == "classification")
    assert column.description == "2 地面; 64 桥面"


def test_several_records_of_extra_bytes_follow_one_another(tmp_path: Path) -> None:
    cloud = a_cloud(6, 3)
    for name, kind in (("confidence", "u1"), ("deviation", "f4")):
        cloud.add_extra_dim(laspy.ExtraBytesParams(name=name, type=kind))
    cloud["confidence"], cloud["deviation"] = [1, 2, 3], [0.5, 1.5, -2.5]
    path = write(cloud, tmp_path / "a.las")
    raw = path.read_bytes()
    points_at, count = struct.unpack_from("<II", raw, 96)
    at = raw.index(b"LASF_Spec") - 2
    head, both = bytearray(raw[at : at + 54]), raw[at + 54 : at + 54 + 384]
    struct.pack_into("<H", head, 20, 192)
    parted = head + both[:192] + head + both[192:]
    whole = bytearray(raw[:at] + parted + raw[at + 54 + 384 :])
    struct.pack_into("<II", whole, 96, points_at + 54, count + 1)
    path.write_bytes(whole)
    batch = read_all(path)
    assert batch.columns["confidence"].tolist() == [1, 2, 3]
    assert batch.columns["deviation"].tolist() == [0.5, 1.5, -2.5]


def test_extra_bytes_that_records_do_not_have_are_refused(tmp_path: Path) -> None:
    cloud = a_cloud(6, 3)
    cloud.add_extra_dim(laspy.ExtraBytesParams(name="confidence", type="u1"))
    path = write(cloud, tmp_path / "a.las")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"LASF_Spec") - 2 + 54 + 2] = 10  # a double
    path.write_bytes(raw)
    with pytest.raises(SourceUnreadable, match="extra bytes 'confidence'"):
        chunks_of(path)


def test_the_header_says_which_of_two_frames_counts(tmp_path: Path) -> None:
    path = write(a_cloud(6, 3, "EPSG:4547"), tmp_path / "a.las")
    old = (DATA / "1.0_0.las").read_bytes()  # holds the keys of EPSG:26915
    begin = old.index(b"LASF_Projection") - 2
    keys = old[begin : begin + 54 + 64]
    raw = path.read_bytes()
    points_at, count = struct.unpack_from("<II", raw, 96)
    both = bytearray(raw[:points_at] + keys + raw[points_at:])
    struct.pack_into("<II", both, 96, points_at + len(keys), count + 1)
    for wkt, code in ((16, "EPSG:4547"), (0, "EPSG:26915")):
        both[6] = both[6] & ~16 | wkt
        path.write_bytes(both)
        with open_source(path) as reader:
            assert reader.info().layers[0].ref.code == code
            assert "crs-contradiction" in [f.rule for f in reader.info().findings]


def test_withheld_points_are_kept_and_counted_or_dropped_and_counted(tmp_path: Path) -> None:
    cloud = a_cloud(6, 5)
    cloud.withheld = [0, 1, 0, 1, 0]
    path = write(cloud, tmp_path / "a.las")
    (kept,) = chunks_of(path)
    batch = read_chunk(kept)
    assert [f.rule for f in chunk_findings(kept, batch)] == ["points-withheld"]
    points = PointOptions(drop_withheld=True)
    with open_source(path, ReadOptions(crs="EPSG:4547", points=points)) as reader:
        (chunk,) = reader.chunks()
    fewer = read_chunk(chunk, ["intensity"])
    assert np.array_equal(fewer.xyz, batch.xyz[[0, 2, 4]])
    (said,) = chunk_findings(chunk, fewer)
    assert (said.rule, said.severity, said.count) == ("withheld-dropped", "drop", 2)


def test_points_outside_the_stated_bounds_are_counted(tmp_path: Path) -> None:
    path = write(a_cloud(3, 100), tmp_path / "a.las")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<d", raw, 179, struct.unpack_from("<d", raw, 187)[0] + 0.5)
    path.write_bytes(raw)
    (chunk,) = chunks_of(path)
    batch = read_chunk(chunk)
    (said,) = chunk_findings(chunk, batch)
    assert said.rule == "points-outside-bounds"
    assert said.count == (batch.xyz[:, 0] > batch.xyz[:, 0].min() + 0.5 + 0.001).sum() > 0


def test_bounds_that_mean_nothing_are_measured(tmp_path: Path) -> None:
    path = write(a_cloud(3, 100), tmp_path / "a.las")
    with open_source(path) as reader:
        true = reader.info().points.bounds
    raw = bytearray(path.read_bytes())
    struct.pack_into("<d", raw, 187, math.nan)
    path.write_bytes(raw)
    with open_source(path) as reader:
        info = reader.info()
    assert info.points.bounds == pytest.approx(true, abs=1e-9)
    assert "bounds-unusable" in [f.rule for f in info.findings]


def test_a_folder_is_one_cloud_with_the_columns_of_all_its_files(tmp_path: Path) -> None:
    write(a_cloud(6, 10, "EPSG:4547"), tmp_path / "b.laz")
    write(a_cloud(2, 20, "EPSG:4526"), tmp_path / "a.LAS")
    write(a_cloud(2, 0, "EPSG:4547"), tmp_path / "empty.las")
    (tmp_path / "readme.txt").write_text("说明")
    with open_source(tmp_path) as reader:
        info, chunks = reader.info(), reader.chunks()
    assert info.points.count == 30 and info.points.files == 2
    assert [(c.first, c.count, c.ref.code) for c in chunks] == [
        (0, 20, "EPSG:4526"),
        (20, 10, "EPSG:4547"),
    ]
    batches = [read_chunk(chunk) for chunk in chunks]
    assert batches[0].columns.keys() == batches[1].columns.keys()
    assert np.isnan(batches[0].columns["gps_time"]).all()
    assert not batches[1].columns["rgb"].any()
    said = {f.rule: f.count for f in info.findings}
    assert said["other-files"] == 1
    assert said["mixed-frames"] == 2 and said["empty-files"] == 1 and said["column-missing"] >= 10


def test_a_file_without_a_frame_is_refused_or_assumed_alone(tmp_path: Path) -> None:
    write(a_cloud(6, 10, "EPSG:4526"), tmp_path / "a.laz")
    write(a_cloud(6, 10), tmp_path / "b.laz")
    with open_source(tmp_path) as reader:
        assert reader.info().layers[0].ref is None
        with pytest.raises(CrsMissing, match=r"b\.laz"):
            reader.chunks()
    with open_source(tmp_path, ReadOptions(assume_crs="EPSG:4547")) as reader:
        assert [c.ref.code for c in reader.chunks()] == ["EPSG:4526", "EPSG:4547"]


def test_heights_in_feet_become_metres_by_what_is_stated_assumed_or_declared(
    tmp_path: Path,
) -> None:
    us_foot = 1200 / 3937
    path = write(a_cloud(6, 3, "EPSG:2274+6360"), tmp_path / "a.las")  # US survey feet, both
    plain = laspy.read(path)
    with open_source(path) as reader:
        (chunk,) = reader.chunks()
        assert "heights-converted" in [f.rule for f in reader.info().findings]
    batch = read_chunk(chunk)
    assert batch.xyz[:, :2] == pytest.approx(plain.xyz[:, :2])
    assert batch.xyz[:, 2] == pytest.approx(plain.z * us_foot)
    declared = ReadOptions(crs="EPSG:2274", points=PointOptions(height_unit="metre"))
    with open_source(path, declared) as reader:
        assert read_chunk(reader.chunks()[0]).xyz[:, 2] == pytest.approx(plain.z)
    alone = write(a_cloud(6, 3, "EPSG:2274"), tmp_path / "b.las")
    with open_source(alone) as reader:
        assert read_chunk(reader.chunks()[0]).xyz[:, 2] == pytest.approx(plain.z * us_foot)
        assert "height-unit-assumed" in [f.rule for f in reader.info().findings]


def test_geocentric_points_become_geodetic_and_those_inside_the_earth_are_not_believed(
    tmp_path: Path,
) -> None:
    lon, lat, height = np.array([113.1, 113.2]), np.array([31.5, 31.6]), np.array([50.0, 80.0])
    cloud = a_cloud(6, 2, "EPSG:4978")
    cloud.header.offsets, cloud.header.scales = np.array([-2e6, 5e6, 3e6]), np.full(3, 1e-3)
    cloud.x, cloud.y, cloud.z = geodetic_to_ecef(lon, lat, height).T
    with open_source(write(cloud, tmp_path / "a.las")) as reader:
        (chunk,) = reader.chunks()
        extent = reader.info().layers[0].extent
    batch = read_chunk(chunk)
    assert batch.ref.code == "EPSG:4326+ellipsoidal"
    assert batch.xyz[:, :2] == pytest.approx(np.stack([lon, lat], 1), abs=1e-8)
    assert batch.xyz[:, 2] == pytest.approx(height, abs=2e-3)
    assert extent[0] < 113.1001 and extent[3] > 31.5999 and extent[2] - extent[0] < 0.3
    deep = write(a_cloud(6, 2, "EPSG:4978"), tmp_path / "b.las")
    with open_source(deep) as reader:
        assert reader.info().layers[0].ref is None
        assert "crs-unusable" in [f.rule for f in reader.info().findings]


def test_old_and_new_statements_of_a_frame_are_read() -> None:
    codes = {}
    for name in ("1.0_0.las", "epsg_4326.las", "1.2-with-color.copc.laz"):
        with open_source(DATA / name) as reader:
            codes[name] = reader.info().layers[0].ref.code
    assert codes == {
        "1.0_0.las": "EPSG:26915",
        "epsg_4326.las": "EPSG:4326",
        "1.2-with-color.copc.laz": "EPSG:2991",
    }


def test_a_declared_frame_wins_and_does_not_take_back_the_unit_of_heights(tmp_path: Path) -> None:
    path = write(a_cloud(6, 3, "EPSG:4547+5773"), tmp_path / "a.las")
    with open_source(path, ReadOptions(crs="EPSG:4547")) as reader:
        assert reader.chunks()[0].ref.code == "EPSG:4547+5773"
    with open_source(path, ReadOptions(crs="EPSG:4526", vertical="ellipsoidal")) as reader:
        assert reader.chunks()[0].ref.code == "EPSG:4526+ellipsoidal"
        assert "crs-overridden" in [f.rule for f in reader.info().findings]


def test_colours_of_8_bits_are_told_by_the_largest_of_all() -> None:
    dark, bright = np.full((5, 3), 40, np.uint16), np.full((2, 3), 40_000, np.uint16)
    findings = Findings()
    assert ColourEvidence.of(dark).depth(None, findings) == 8
    both = ColourEvidence.of(dark) + ColourEvidence.of(bright)
    assert both.depth(None, findings) == 16 and both.count == 7
    assert both == ColourEvidence.of(bright) + ColourEvidence.of(dark)
    assert both.depth(8, findings) == 8 and findings.count("warning") == 7
    assert ColourEvidence.of(dark).depth(16, findings) == 16


def lie(raw: bytearray, at: int, form: str, value: float) -> bytearray:
    struct.pack_into(form, raw, at, value)
    return raw


LIES = {
    "the signature": (0, "<4s", b"LASE"),
    "the version": (25, "<B", 9),
    "the size of the header": (94, "<H", 60_000),
    "where points begin": (96, "<I", 2**32 - 1),
    "the number of records": (100, "<I", 2**32 - 1),
    "the point format": (104, "<B", 63),
    "the size of a point": (105, "<H", 3),
    "the number of points": (247, "<Q", 2**60),
    "the old number of points": (107, "<I", 77),
    "a scale of zero": (131, "<d", 0.0),
    "a scale that is no number": (139, "<d", math.nan),
    "an infinite offset": (155, "<d", math.inf),
    "the number of extended records": (243, "<I", 2**32 - 1),
    "the size of the first record": (375 + 20, "<H", 65535),
}


@pytest.mark.parametrize("ending", [".las", ".laz"])
@pytest.mark.parametrize("what", LIES)
def test_a_header_that_lies_is_refused_at_once(tmp_path: Path, what: str, ending: str) -> None:
    path = write(a_cloud(7, 1000, "EPSG:4547"), tmp_path / f"a{ending}")
    raw = bytearray(path.read_bytes())
    path.write_bytes(lie(raw, *LIES[what]))
    began = time.process_time()
    with pytest.raises(SourceError) as caught:
        chunks_of(path)
    assert time.process_time() - began < 2
    assert caught.value.source == str(path) and caught.value.remedy


@pytest.mark.parametrize("ending", [".las", ".laz"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, ending: str) -> None:
    raw = write(a_cloud(7, 1000), tmp_path / f"a{ending}").read_bytes()
    cut = tmp_path / f"b{ending}"
    for length in (0, 3, 100, 226, 374, 400, len(raw) // 2, len(raw) - 1):
        cut.write_bytes(raw[:length])
        with pytest.raises(SourceError):
            for chunk in chunks_of(cut):
                read_chunk(chunk)


def test_a_header_that_was_never_finished_is_not_taken_for_an_empty_file(tmp_path: Path) -> None:
    path = write(a_cloud(3, 50), tmp_path / "a.las")
    path.write_bytes(lie(bytearray(path.read_bytes()), 107, "<I", 0))
    with pytest.raises(SourceUnreadable, match="counts no points, and 1700 bytes"):
        chunks_of(path)


WHOLE = {
    name: (DATA / name).read_bytes()
    for name in ("pdrf8-1.4.laz", "1.2-with-color.copc.laz", "pdrf5-1.3.laz", "1.2-with-color.las")
}


@settings(max_examples=150, deadline=4000)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    bytes_=st.lists(st.tuples(st.integers(24, 700), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_bytes_changed_in_the_header_give_points_or_a_refusal(name, bytes_) -> None:
    raw = bytearray(WHOLE[name])
    for at, value in bytes_:
        raw[at] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(raw)
        try:
            chunks = chunks_of(path)
            assert sum(len(read_chunk(c)) for c in chunks) == sum(c.count for c in chunks)
        except SourceError as error:
            assert error.source == str(path)


@pytest.mark.parametrize("at", range(0, 3000, 97))
def test_damage_in_compressed_points_never_escapes_as_a_panic(tmp_path: Path, at: int) -> None:
    raw = bytearray(WHOLE["pdrf8-1.4.laz"])
    begin = struct.unpack_from("<I", raw, 96)[0] + 8
    raw[begin + at : begin + at + 16] = b"\xff" * 16
    path = tmp_path / "a.laz"
    path.write_bytes(raw)
    try:
        assert sum(len(read_chunk(c)) for c in chunks_of(path)) == 1024
    except SourceUnreadable as error:
        assert "damaged" in error.problem
