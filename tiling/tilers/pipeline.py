"""Work units in, tiles out: run in any executor, in any order, resumed at any time.

A tiler splits its job into units (a picklable value each) and names a function that builds the
tiles of one unit. Each unit's tiles land in one *part* file, renamed into place when complete:
the part files are the journal, so a killed run repeats only the units whose part is missing. The
parts are then poured into the store in the order of the units. Hence parallel = serial = resumed,
byte for byte, without any bookkeeping beside the files themselves.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

import deflate

from tiling.errors import TilingError
from tiling.findings import Finding, Findings
from tiling.stores.base import Encoding
from tiling.tilers.base import Progress, Run

U = TypeVar("U")
T = TypeVar("T")
P = ParamSpec("P")
Put = Callable[[str, bytes, Encoding], None]

_RECORD = struct.Struct("<HBQ")  # length of key, encoding, length of data
_ENCODINGS: tuple[Encoding, ...] = (None, "gzip")
GZIP_LEVEL = 6


def compress(data: bytes, level: int = GZIP_LEVEL) -> bytes:
    """Return one gzip member without time or name: equal input gives equal bytes."""
    return bytes(deflate.gzip_compress(data, level))


@dataclass(frozen=True, slots=True)
class Tile:
    """A finished tile: its key in the store and its bytes."""

    key: str
    data: bytes
    encoding: Encoding = None


@dataclass(slots=True)
class UnitResult:
    """What building one unit gave.

    Attributes:
        tiles: in the order in which they enter the store.
        facts: JSON; returned to the tiler beside the other units' facts.
        findings: what was dropped, repaired or assumed.
    """

    tiles: Iterable[Tile]
    facts: dict[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()


def build_units(
    name: str,
    units: Sequence[U],
    build: Callable[[U], UnitResult],
    run: Run,
) -> list[dict[str, Any]]:
    """Build every unit, pour the tiles into the run's store, and return the units' facts.

    Args:
        name: names the step, the folder of its parts, and the progress bar.
        units: picklable values, in the order in which their tiles enter the store.
        build: picklable; called in a worker, never twice for a unit whose part is complete.
        run: the run; its findings receive those of the units.

    Returns:
        the facts of each unit, in order.

    Raises:
        Cancelled: asked to stop; finished parts stay and are used by the next run.
    """
    paths = build_parts(name, units, build, run, name)
    return [pour(path, run.writer.put, run.findings) for path in paths]


def build_parts(
    name: str,
    units: Sequence[U],
    build: Callable[[U], UnitResult],
    run: Run,
    step: str,
) -> list[Path]:
    """Build every unit and return the files of their tiles, in order; see `build_units`.

    Args:
        name: of the folder of the parts.
        step: names the progress bar.
    """
    folder = run.scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:06d}.part" for i in range(len(units))]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    run.progress.begin(step, len(units))
    run.progress.advance(len(units) - len(missing))
    jobs = ((_build_part, (build, units[i], paths[i])) for i in missing)
    drain(jobs, run.executor, run.workers * 2, run.progress)
    return paths


def drain(
    jobs: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]],
    executor: Executor,
    in_flight: int,
    progress: Progress,
) -> None:
    """Run jobs with a bounded number in flight; the first failure stops the rest.

    Raises:
        Cancelled: asked to stop; jobs under way are finished first.
        TilingError: a worker died.
    """
    pending: set[Future[Any]] = set()
    try:
        for function, arguments in jobs:
            pending.add(executor.submit(function, *arguments))
            if len(pending) >= in_flight:
                pending = _reap(pending, progress)
        while pending:
            pending = _reap(pending, progress)
    except BrokenExecutor as error:
        # Whoever stops us may have stopped the workers too: then that is what to say.
        progress.advance(0)
        raise TilingError(
            "a worker process died, most likely for want of memory; run the same command again "
            "with fewer --workers or less --memory: it resumes"
        ) from error
    finally:
        wait([f for f in pending if not f.cancel()])


def _reap(pending: set[Future[Any]], progress: Progress) -> set[Future[Any]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        progress.advance()
    return rest


def _build_part(build: Callable[[U], UnitResult], unit: U, path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    result = build(unit)
    with partial.open("wb") as file:
        for tile in result.tiles:
            key = tile.key.encode()
            file.write(_RECORD.pack(len(key), _ENCODINGS.index(tile.encoding), len(tile.data)))
            file.write(key)
            file.write(tile.data)
        file.write(_RECORD.pack(0, 0, 0))
        tail = {"facts": result.facts, "findings": [f.to_json() for f in result.findings]}
        file.write(json.dumps(tail).encode())
    partial.rename(path)


def pour(path: Path, put: Put, findings: Findings) -> dict[str, Any]:
    """Hand on the tiles of a finished part, and return its facts.

    Args:
        path: the part.
        put: takes key, bytes and encoding of each tile.
        findings: receives those of the unit.
    """
    with path.open("rb") as file:
        for tile in _read_records(file):
            put(tile.key, tile.data, tile.encoding)
        tail = json.loads(file.read())
    findings.merge(Finding.from_json(f) for f in tail["findings"])
    facts: dict[str, Any] = tail["facts"]
    return facts


def _read_records(file: BinaryIO) -> Iterator[Tile]:
    while True:
        key_length, encoding, nbytes = _RECORD.unpack(file.read(_RECORD.size))
        if key_length == 0:
            return
        key = file.read(key_length).decode()
        yield Tile(key, file.read(nbytes), _ENCODINGS[encoding])


class SerialExecutor(Executor):
    """Runs each job in the calling process at once: the reference for every other executor."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` now and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # carried to the caller by the future, not swallowed
            future.set_exception(error)
        return future
