from __future__ import annotations

import gzip
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tiling.errors import Cancelled, NothingToTile
from tiling.findings import Finding, Findings
from tiling.stores.base import Encoding, StoreInfo
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.pipeline import SerialExecutor, Tile, UnitResult, build_units, compress


class MemoryWriter:
    def __init__(self) -> None:
        self.tiles: list[tuple[str, bytes, Encoding]] = []

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        self.tiles.append((key, data, encoding))

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        raise AssertionError("the pipeline never commits")

    def abort(self) -> None:
        raise AssertionError("the pipeline never aborts")


class StopAfter(SilentProgress):
    def __init__(self, units: int) -> None:
        self.left = units

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise Cancelled("stopped")


def square(unit: int) -> UnitResult:
    tiles = [Tile(f"{unit}/{i}", compress(bytes([unit] * i)), "gzip") for i in range(3)]
    finding = Finding("odd", "info", "an odd unit", unit % 2 or 1, (unit,))
    return UnitResult(tiles, {"unit": unit}, [finding] if unit % 2 else [])


def refuse_three(unit: int) -> UnitResult:
    if unit == 3:
        raise NothingToTile("there is nothing", source="三.shp", remedy="look elsewhere")
    return square(unit)


def run(scratch: Path, executor: Executor, progress: Any = None) -> tuple[Run, MemoryWriter]:
    writer = MemoryWriter()
    made = Run(
        writer=writer,
        scratch=scratch,
        executor=executor,
        workers=2,
        memory_nbytes=2**28,
        progress=progress or SilentProgress(),
        findings=Findings(),
    )
    return made, writer


def test_parallel_equals_serial(tmp_path: Path) -> None:
    serial, serial_writer = run(tmp_path / "a", SerialExecutor())
    facts = build_units("tiles", range(7), square, serial)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        parallel, parallel_writer = run(tmp_path / "b", pool)
        assert build_units("tiles", range(7), square, parallel) == facts
    assert parallel_writer.tiles == serial_writer.tiles
    assert [f["unit"] for f in facts] == list(range(7))
    assert parallel.findings.to_json() == serial.findings.to_json()
    assert serial.findings.count("info") == 3


def test_resumed_equals_uninterrupted_and_repeats_no_finished_unit(tmp_path: Path) -> None:
    stopped, writer = run(tmp_path, SerialExecutor(), StopAfter(4))
    with pytest.raises(Cancelled):
        build_units("tiles", range(7), square, stopped)
    assert writer.tiles == []
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "tiles").glob("*.part")}
    assert finished
    resumed, writer = run(tmp_path, SerialExecutor())
    build_units("tiles", range(7), square, resumed)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    whole, expected = run(tmp_path / "other", SerialExecutor())
    build_units("tiles", range(7), square, whole)
    assert writer.tiles == expected.tiles


def test_the_first_failure_is_raised_with_its_message(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        broken, writer = run(tmp_path, pool)
        with pytest.raises(NothingToTile, match="三.shp: there is nothing\n  remedy: look"):
            build_units("tiles", range(7), refuse_three, broken)
    assert writer.tiles == []


def test_compressing_twice_gives_equal_bytes_without_a_time() -> None:
    data = "城市信息模型".encode() * 100
    assert compress(data) == compress(data)
    assert gzip.decompress(compress(data)) == data
    assert compress(data)[4:8] == b"\0\0\0\0"
