"""Tilesets made elsewhere: taken in byte for byte, or refused with a list of what is wrong."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from py3dtiles.tileset.content import B3dm

from ingest.check import check_version
from ingest.manifest import IngestOptions
from ingest.report import Report
from ingest.run import IngestFailed, Resources, ingest
from ingest.workspace import Workspace
from tests.commands import Command
from tiling.bounds import Region
from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import ConfigError, FormatError, SourceError
from tiling.findings import Finding
from tiling.stores.directory import DirectoryReader
from tiling.stores.gzip_member import content
from tiling.stores.zip3tz import ThreeTzReader, ThreeTzWriter
from tiling.tilers.base import SilentProgress
from tiling.validate.contents import read_content
from tiling.validate.foreign import ForeignTileset, check_foreign
from tiling.validate.volumes import volume_region

DATA = Path(__file__).parent.parent / "data" / "tilesets"
NESTED = DATA / "TilesetOfTilesets"
WUHAN = (114.3, 30.5, 40.0)


def glb(document: dict[str, Any] | None = None, binary: bytes = b"") -> bytes:
    text = json.dumps(document or {"asset": {"version": "2.0"}}).encode()
    text += b" " * (-len(text) % 8)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def old(kind: str, body: bytes, table: dict[str, Any], binary: bytes = b"") -> bytes:
    """Make a b3dm, i3dm (with its model inside) or pnts."""
    text = json.dumps(table).encode()
    start = 32 if kind == "i3dm" else 28
    text += b" " * (-(start + len(text)) % 8)
    head = struct.pack(
        "<4s6I", kind.encode(), 1, start + len(text) + len(binary) + len(body),
        len(text), len(binary), 0, 0,
    )  # fmt: skip
    return head + (struct.pack("<I", 1) if kind == "i3dm" else b"") + text + binary + body


def composite(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<4s3I", b"cmpt", 1, 16 + len(body), len(parts)) + body


POINTS = old("pnts", b"", {"POINTS_LENGTH": 2, "POSITION": {"byteOffset": 0}}, bytes(24))
CONTENTS = {
    "a.b3dm": old("b3dm", glb(), {"BATCH_LENGTH": 0}),
    "b.i3dm": old("i3dm", glb(), {"INSTANCES_LENGTH": 0}),
    "c.pnts": POINTS,
    "d.cmpt": composite(POINTS, old("b3dm", glb(), {"BATCH_LENGTH": 0})),
    "楼/e.glb": glb(),
}


def tile(uri: str | None = None, error: float = 0.0, **more: Any) -> dict[str, Any]:
    made = {"boundingVolume": {"box": [0, 0, 10, 50, 0, 0, 0, 50, 0, 0, 0, 10]}, **more}
    made["geometricError"] = error
    return made if uri is None else made | {"content": {"uri": uri}}


def document(*children: dict[str, Any], **root: Any) -> dict[str, Any]:
    placed = enu_to_ecef_matrix(*WUHAN).T.ravel().tolist()
    top = tile(None, 20.0, refine="ADD", transform=placed, children=list(children)) | root
    return {"asset": {"version": "1.0"}, "geometricError": 40.0, "root": top}


def folder(path: Path, files: dict[str, bytes], *children: dict[str, Any], **root: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    text = json.dumps(document(*children, **root), ensure_ascii=False)
    (path / "tileset.json").write_text(text, "utf-8")
    return path


def city(path: Path, **root: Any) -> Path:
    return folder(path, CONTENTS, *(tile(name) for name in CONTENTS), **root)


def take(source: Path, data: Path, **options: Any) -> Report:
    declared = IngestOptions(sources=(source,), id="t", **{"area": "world", **options})
    return ingest(declared, Workspace(data), Resources(workers=1), SilentProgress())


def published(data: Path) -> ThreeTzReader:
    workspace = Workspace(data)
    with workspace.open_catalog() as catalog:
        version = catalog.version("t")
        findings, _ = check_version(workspace, catalog.item("t"), version)
    assert [f for f in findings if f.severity == "error"] == []
    (store,) = version.stores
    return ThreeTzReader(workspace.store_path(store))


def refused(source: Path, data: Path) -> str:
    with pytest.raises((IngestFailed, SourceError)) as caught:
        take(source, data)
    error = caught.value.cause if isinstance(caught.value, IngestFailed) else caught.value
    assert isinstance(error, SourceError) and error.exit_code == 3
    assert error.remedy
    return str(error)


def errors(findings: list[Finding]) -> dict[str, int]:
    return {f.rule: f.count for f in findings if f.severity == "error"}


def test_a_real_nested_tileset_is_published_byte_for_byte(tmp_path: Path) -> None:
    report = take(NESTED, tmp_path / "data")
    assert report.result["tiles"] == 5
    store = published(tmp_path / "data")
    files = {p.relative_to(NESTED).as_posix(): p for p in NESTED.rglob("*") if p.is_file()}
    assert set(store.keys()) == set(files)
    for key, path in files.items():
        tile = store.get(key)
        assert tile is not None and content(tile) == path.read_bytes()
    store.close()


def test_every_kind_of_content_is_taken_with_chinese_names(tmp_path: Path) -> None:
    source = city(tmp_path / "倾斜 摄影")
    report = take(source, tmp_path / "data", area="china")
    west, south, low, east, north, high = report.result["bbox"]
    assert Region(west, south, east, north, low, high).contains(
        Region(*WUHAN[:2], *WUHAN[:2], 50, 50)
    )
    assert east - west < 0.0012 and 18 < high - low < 21
    store = published(tmp_path / "data")
    assert set(store.keys()) == {"tileset.json", *CONTENTS}
    store.close()


def test_the_same_tileset_as_folder_file_and_archive_gives_the_same_store(tmp_path: Path) -> None:
    source = city(tmp_path / "a")
    writer = ThreeTzWriter(tmp_path / "b.3tz")
    reader = DirectoryReader(source)
    for key in reader.keys():
        stored = reader.get(key)
        assert stored is not None
        writer.put(key, stored.data, stored.encoding)
    writer.commit()
    with zipfile.ZipFile(tmp_path / "c.3tz", "w") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(source).as_posix())
    digests = set()
    for i, path in enumerate(
        [source, source / "tileset.json", tmp_path / "b.3tz", tmp_path / "c.3tz"]
    ):
        report = take(path, tmp_path / f"data{i}")
        digests.add(report.result["stores"][0]["sha256"])
    assert len(digests) == 1


def test_the_same_command_changes_nothing_and_a_changed_tile_makes_a_version(
    tmp_path: Path,
) -> None:
    source = city(tmp_path / "s")
    assert take(source, tmp_path / "d").result["version"] == 1
    assert take(source, tmp_path / "d").result["unchanged"]
    (source / "c.pnts").write_bytes(composite(POINTS))
    assert take(source, tmp_path / "d").result["version"] == 2


def test_a_root_of_another_name_becomes_tileset_json(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    (source / "tileset.json").rename(source / "scene.json")
    take(source / "scene.json", tmp_path / "data")
    store = published(tmp_path / "data")
    assert "tileset.json" in set(store.keys()) and store.get("scene.json") is None
    store.close()


def test_what_was_compressed_for_a_server_stays_compressed(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    plain = (source / "a.b3dm").read_bytes()
    packed = gzip.compress(plain)
    (source / "a.b3dm").write_bytes(packed)
    take(source, tmp_path / "data")
    store = published(tmp_path / "data")
    tile = store.get("a.b3dm")
    assert tile is not None and tile.encoding == "gzip" and content(tile) == plain
    assert tile.data[10:] == packed[10:]  # the very stream, under a header of our own
    store.close()


def test_files_to_which_nothing_leads_stay_behind_and_are_counted(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    (source / "Thumbs.db").write_bytes(b"junk")
    report = take(source, tmp_path / "data")
    (unused,) = [f for f in report.findings if f.rule == "file-unused"]
    assert unused.samples == ("Thumbs.db",)
    store = published(tmp_path / "data")
    assert store.get("Thumbs.db") is None
    store.close()


def test_textures_and_buffers_beside_a_model_come_along(tmp_path: Path) -> None:
    model = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "m%20x.bin", "byteLength": 4}],
        "images": [{"uri": "../皮/墙.jpg"}],
    }
    files = {"楼/m.gltf": json.dumps(model).encode(), "楼/m x.bin": b"1234", "皮/墙.jpg": b"jpeg"}
    source = folder(tmp_path / "s", files, tile("楼/m.gltf"))
    take(source, tmp_path / "data")
    store = published(tmp_path / "data")
    assert set(store.keys()) == {"tileset.json", *files}
    store.close()
    (source / "皮" / "墙.jpg").unlink()
    assert "皮/墙.jpg" in refused(source, tmp_path / "data")


@pytest.mark.parametrize("path", sorted((DATA / "broken").glob("*.json")), ids=lambda p: p.stem)
def test_every_broken_tileset_of_the_corpus_is_refused_for_its_own_fault(path: Path) -> None:
    walk = ForeignTileset(DirectoryReader(path.parent), path.name)
    walk.walk()
    found = set(errors(list(walk.findings))) - {"tileset-place", "file-missing"}
    assert found, list(walk.findings)


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("cut", [0, 3, 11, 20, 30, -1])
def test_a_truncated_content_is_refused_by_name(tmp_path: Path, name: str, cut: int) -> None:
    source = city(tmp_path / "s")
    (source / name).write_bytes(CONTENTS[name][:cut])
    assert name in refused(source, tmp_path / "data")


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    (source / "a.b3dm").write_bytes(b"b3dm")
    (source / "楼" / "e.glb").write_bytes(b"<html>404</html>")
    said = refused(source, tmp_path / "data")
    assert "a.b3dm" in said and "楼/e.glb" in said and "2 contents" in said


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("http://example.com/x.b3dm", "uri-outside"),
        ("//example.com/x.b3dm", "uri-outside"),
        ("file:///etc/passwd", "uri-outside"),
        ("C:\\tiles\\x.b3dm", "uri-outside"),
        ("/etc/passwd", "uri-outside"),
        ("../secret.b3dm", "uri-outside"),
        ("a/../../secret.b3dm", "uri-outside"),
        ("%2e%2e/secret.b3dm", "uri-outside"),
        ("..\\secret.b3dm", "uri-outside"),
        ("gone.b3dm", "file-missing"),
        ("A.B3DM", "file-missing"),
        ("", "uri-invalid"),
        (7, "uri-invalid"),
    ],
)
def test_addresses_that_leave_the_tileset_or_lead_nowhere_are_refused(
    tmp_path: Path, uri: Any, rule: str
) -> None:
    (tmp_path / "secret.b3dm").write_bytes(CONTENTS["a.b3dm"])
    source = folder(tmp_path / "s", CONTENTS, tile(uri))
    findings, _ = check_foreign(DirectoryReader(source))
    assert errors(findings) == {rule: 1}
    refused(source, tmp_path / "data")


def test_letter_case_is_pointed_out(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", CONTENTS, tile("A.B3DM"))
    assert "there is a.b3dm: letter case counts" in refused(source, tmp_path / "data")


def test_backslashes_and_queries_lead_where_a_browser_goes(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", CONTENTS, tile("楼\\e.glb"), tile("./a.b3dm?v=3"))
    findings, facts = check_foreign(DirectoryReader(source))
    assert errors(findings) == {} and facts["tiles"] == 2


def test_links_that_leave_the_folder_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "secret.b3dm").write_bytes(CONTENTS["a.b3dm"])
    source = folder(tmp_path / "s", {}, tile("a.b3dm"))
    (source / "a.b3dm").symlink_to(tmp_path / "secret.b3dm")
    assert "a.b3dm" in refused(source, tmp_path / "data")


def test_a_tileset_without_a_place_is_refused(tmp_path: Path) -> None:
    source = city(tmp_path / "s", transform=np.eye(4).ravel().tolist())
    assert "no place on the Earth" in refused(source, tmp_path / "data")


def test_a_tileset_outside_of_the_declared_area_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestFailed, match="outside the declared area"):
        take(NESTED, tmp_path / "data", area="china")


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"geometricError": 1}', "\xff"])
def test_a_damaged_root_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    source = city(tmp_path / "s")
    (source / "tileset.json").write_bytes(damage.encode("latin-1"))
    assert "tileset.json" in refused(source, tmp_path / "data")


def test_a_very_deep_tileset_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    text = '{"asset":{"version":"1.0"},"geometricError":1,"root":' + '{"children":[' * 5000
    (tmp_path / "tileset.json").write_text(text + "]}" * 5000 + "}")
    assert "not JSON" in refused(tmp_path / "tileset.json", tmp_path / "data")


def test_growing_errors_are_a_warning(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", CONTENTS, tile("a.b3dm", 30.0))
    findings, _ = check_foreign(DirectoryReader(source))
    assert [f.count for f in findings if f.rule == "error-increases"] == [1]
    assert errors(findings) == {}


@pytest.mark.parametrize("scheme", ["QUADTREE", "OCTREE"])
@pytest.mark.parametrize("binary", [False, True])
def test_implicit_tilesets_are_followed_to_their_last_tile(
    tmp_path: Path, scheme: str, binary: bool
) -> None:
    branching, axes = (4, "xy") if scheme == "QUADTREE" else (8, "xyz")
    where = "-".join(f"{{{a}}}" for a in ("level", *axes))
    rng = np.random.default_rng(7)
    nodes = 1 + branching
    leaves = rng.permutation(branching)[: branching // 2]
    tiles = np.zeros(nodes, bool)
    tiles[0] = tiles[1 + leaves] = True
    packed = np.packbits(tiles, bitorder="little").tobytes()
    subtree: dict[str, Any] = {
        "buffers": [{"byteLength": len(packed)} | ({} if binary else {"uri": "bits.bin"})],
        "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": len(packed)}],
        "tileAvailability": {"bitstream": 0},
        "contentAvailability": [{"bitstream": 0}],
        "childSubtreeAvailability": {"constant": 0},
    }
    text = json.dumps(subtree).encode()
    text += b" " * (-len(text) % 8)
    files = {"bits.bin": packed, "0-0-0.subtree": text, "0-0-0-0.subtree": text}
    if binary:
        body = packed.ljust(8, b"\0")
        whole = struct.pack("<4sI2Q", b"subt", 1, len(text), len(body)) + text + body
        files = dict.fromkeys(("0-0-0.subtree", "0-0-0-0.subtree"), whole)
    names = []
    for leaf in [None, *leaves.tolist()]:
        # Morton order: bit i of the node is axis i.
        cell = [0] * len(axes) if leaf is None else [leaf >> i & 1 for i in range(len(axes))]
        names.append("-".join(map(str, [int(leaf is not None), *cell])) + ".b3dm")
    files |= {name: CONTENTS["a.b3dm"] for name in names}
    source = folder(
        tmp_path / "s",
        files,
        content={"uri": where + ".b3dm"},
        children=[],
        implicitTiling={
            "subdivisionScheme": scheme,
            "subtreeLevels": 2,
            "availableLevels": 2,
            "subtrees": {"uri": where + ".subtree"},
        },
    )
    findings, facts = check_foreign(DirectoryReader(source))
    assert errors(findings) == {}
    assert facts["tiles"] == len(names) and facts["formats"]["b3dm"]["files"] == len(names)
    (source / names[-1]).unlink()
    assert errors(check_foreign(DirectoryReader(source))[0]) == {"file-missing": 1}


def test_hostile_archives_are_refused(tmp_path: Path) -> None:
    good = json.dumps(document(tile("a.b3dm"))).encode()
    for i, names in enumerate(
        (["../evil.b3dm"], ["/etc/x.b3dm"], ["a.b3dm", "a.b3dm"], ["a\\..\\..\\b"])
    ):
        path = tmp_path / f"{i}.3tz"
        with (
            zipfile.ZipFile(path, "w") as archive,
            pytest.warns(UserWarning) if i == 2 else _quiet(),
        ):
            archive.writestr("tileset.json", good)
            for name in names:
                archive.writestr(name, CONTENTS["a.b3dm"])
        refused(path, tmp_path / "data")


class _quiet:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.3tz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tileset.json", json.dumps(document(tile("a.b3dm"))))
        archive.writestr("a.b3dm", CONTENTS["a.b3dm"])
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, tmp_path / "data")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.3tz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tileset.json", json.dumps(document(tile("a.b3dm"))))
        with archive.open("a.b3dm", "w") as entry:
            for _ in range(300):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "bomb" in refused(path, tmp_path / "data")


def test_gbk_names_in_an_archive_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.3tz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tileset.json", json.dumps(document(tile("楼/e.b3dm"))))
        archive.writestr("PLACEHOLD.b3dm", CONTENTS["a.b3dm"])
    # As Windows in China writes it: GBK, without the flag that says UTF-8.
    name = "楼房/e.b3dm".encode("gbk").ljust(14, b"x")
    assert len(name) == 14
    path.write_bytes(path.read_bytes().replace(b"PLACEHOLD.b3dm", name))
    uri = name.decode("gbk")
    data = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "b.3tz", "w") as archive:
        archive.writestr("tileset.json", json.dumps(document(tile(uri))))
        archive.writestr("PLACEHOLD.b3dm", CONTENTS["a.b3dm"])
    other = tmp_path / "b.3tz"
    other.write_bytes(other.read_bytes().replace(b"PLACEHOLD.b3dm", name))
    assert data != other.read_bytes()
    take(other, tmp_path / "data")
    store = published(tmp_path / "data")
    assert set(store.keys()) == {"tileset.json", uri}
    store.close()


def test_names_on_disk_that_are_not_utf8_are_passed_over_and_told(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    strange = os.fsencode(source) + b"/" + "说明.txt".encode("gbk")
    Path(os.fsdecode(strange)).write_bytes(b"?")
    report = take(source, tmp_path / "data")
    assert [f.count for f in report.findings if f.rule == "name-strange"] == [1]


def test_options_that_cannot_apply_are_refused(tmp_path: Path) -> None:
    source = city(tmp_path / "s")
    with pytest.raises(IngestFailed) as caught:
        take(source, tmp_path / "data", terrain="dem")
    assert isinstance(caught.value.cause, ConfigError)
    with pytest.raises(IngestFailed, match="cannot be made of finished 3D Tiles"):
        take(source, tmp_path / "data", kind="vector")
    with pytest.raises(IngestFailed, match="2 tilesets were named"):
        options = IngestOptions(sources=(source, source), id="t")
        ingest(options, Workspace(tmp_path / "data"), Resources(workers=1), SilentProgress())


def test_py3dtiles_and_our_own_reading_agree_on_real_tiles() -> None:
    for path in NESTED.rglob("*.b3dm"):
        data = path.read_bytes()
        theirs = B3dm.from_bytes(data)
        ours = read_content(data, second_opinion=True)
        assert ours.features == theirs.body.feature_table.get_batch_length() == 10
        assert not any("py3dtiles" in doubt for doubt in ours.doubts)


def test_random_damage_never_raises_anything_else() -> None:
    rng = np.random.default_rng(11)
    samples = [*CONTENTS.values(), (NESTED / "parent.b3dm").read_bytes()]
    for sample in samples:
        for _ in range(60):
            data = bytearray(sample)
            for at in rng.integers(0, min(len(data), 400), 4):
                data[at] = rng.integers(0, 256)
            try:
                read_content(bytes(data))
            except FormatError:
                pass


def test_boxes_spheres_and_regions_of_one_place_agree() -> None:
    lon, lat, height = WUHAN
    placed = enu_to_ecef_matrix(lon, lat, height)
    box = volume_region({"box": [0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0, 100]}, placed)
    ball = volume_region({"sphere": [*geodetic_to_ecef(lon, lat, height).tolist(), 100]}, np.eye(4))
    assert box is not None and ball is not None
    np.testing.assert_allclose(box, ball, atol=0.02)
    region = volume_region({"region": box.to_3dtiles()}, placed)
    assert region is not None
    np.testing.assert_allclose(region, box, atol=1e-9)
    assert volume_region({"sphere": [0, 0, 0, 10]}, np.eye(4)) is None


def test_the_command_line_checks_and_exports_what_it_took(cim: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = city(tmp_path / "实景")
    done = cim("ingest", source, "--id", "实景", "--data", data)
    assert done.code == 0, done.err
    assert cim("check", "实景", "--data", data).code == 0
    for format, name in (("directory", "out"), ("3tz", "out.3tz")):
        done = cim("export", "实景", tmp_path / name, "--format", format, "--data", data)
        assert done.code == 0, done.err
    for path in source.rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(source)).read_bytes() == path.read_bytes()
    done = cim("export", "实景", tmp_path / "old", "--format", "3dtiles-1.0", "--data", data)
    assert done.code == 2 and "--format can be" in done.err
    shutil.rmtree(source)
    assert cim("check", "实景", "--data", data).code == 0
