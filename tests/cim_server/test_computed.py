"""Tiles in memory: made once, weighed, never an error kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from cim_server.computed import ComputedTiles, TileKey
from cim_server.errors import Overloaded
from cim_server.workers import WorkerPool
from tiling.stores.base import StoredTile


def tile(nbytes: int) -> StoredTile:
    return StoredTile(bytes(nbytes), "x/y", None, "e")


def maker(
    made: list[object], result: StoredTile | None, name: object = None
) -> Callable[[], Awaitable[StoredTile | None]]:
    async def make() -> StoredTile | None:
        made.append(name)
        await asyncio.sleep(0.01)
        return result

    return make


def test_a_tile_is_made_once_however_many_ask() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(10_000), []
        answers = await asyncio.gather(
            *(cache.get(TileKey("s", "a"), maker(made, tile(5))) for _ in range(20)),
        )
        assert all(a is answers[0] for a in answers) and len(made) == 1
        assert await cache.get(TileKey("s", "a"), maker(made, None)) is answers[0]
        assert (cache.hits, cache.misses, len(made)) == (1, 1, 1)

    asyncio.run(run())


def test_what_is_used_least_goes_first_and_the_weight_holds() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(8_000), []
        for name in "abc":
            await cache.get(TileKey("s", name), maker(made, tile(1000), name))
        await cache.get(TileKey("s", "a"), maker(made, None))
        await cache.get(TileKey("s", "d"), maker(made, tile(1000), "d"))
        assert cache.nbytes <= 8_000 and len(cache) == 3
        for name in "acd":
            await cache.get(TileKey("s", name), maker(made, None, name))
        assert made == ["a", "b", "c", "d"]
        await cache.get(TileKey("s", "b"), maker(made, tile(1000), "b again"))
        assert made[-1] == "b again"
        await cache.get(TileKey("s", "huge"), maker(made, tile(9_000)))
        assert len(cache) == 3

    asyncio.run(run())


def test_that_there_is_no_tile_is_known_too_but_failures_are_forgotten() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(8_000), []
        for _ in range(3):
            assert await cache.get(TileKey("s", "none"), maker(made, None)) is None
        assert len(made) == 1

        async def fail() -> StoredTile | None:
            raise Overloaded("busy")

        for _ in range(2):
            with pytest.raises(Overloaded):
                await cache.get(TileKey("s", "x"), fail)
        assert await cache.get(TileKey("s", "x"), maker(made, tile(1))) is not None

    asyncio.run(run())


def test_one_who_leaves_does_not_stop_the_others() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(8_000), []
        first = asyncio.ensure_future(cache.get(TileKey("s", "a"), maker(made, tile(1))))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(cache.get(TileKey("s", "a"), maker(made, tile(1))))
        await asyncio.sleep(0)
        first.cancel()
        assert await second is not None and len(made) == 1

    asyncio.run(run())


def test_a_pool_whose_worker_dies_says_so_and_works_again() -> None:
    async def run() -> None:
        pool = WorkerPool(1)
        try:
            process = await pool.run(os.getpid)
            assert process != os.getpid()
            with pytest.raises(Overloaded, match="died"):
                await pool.run(os.kill, process, signal.SIGKILL)
            assert await pool.run(os.getpid) not in (process, os.getpid())
            pool.pending = 64
            with pytest.raises(Overloaded, match="under way"):
                await pool.run(os.getpid)
        finally:
            pool.close()

    asyncio.run(run())


def test_tiles_go_with_any_store_they_were_made_of() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(1 << 20), []
        for digests in ("a", "a b", "c"):
            await cache.get(TileKey(digests, 0), maker(made, tile(100)))
        cache.keep_only({"a", "c"})
        assert len(cache) == 2
        await cache.get(TileKey("a b", 0), maker(made, tile(100)))
        assert len(made) == 4
        cache.keep_only(set())
        assert len(cache) == 0 and cache.nbytes == 0

    asyncio.run(run())


def test_without_room_nothing_is_kept_but_work_is_still_shared() -> None:
    async def run() -> None:
        cache, made = ComputedTiles(0), []
        for _ in range(2):
            key = TileKey("a", 0)
            await asyncio.gather(*(cache.get(key, maker(made, tile(1))) for _ in range(3)))
        assert len(made) == 2 and len(cache) == 0 and cache.shared == 4

    asyncio.run(run())
