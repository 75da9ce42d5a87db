"""Processes that compute what is too heavy for the event loop and its threads.

Reliefs, contours and meshes hold the interpreter for milliseconds at a time, and their kernels
are compiled: they run in spawned processes, which import what the serving process never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from cim_server.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")
# Jobs that wait for each process: beyond them a client is better off asking again later.
_QUEUE = 64


class WorkerPool:
    """A pool of processes, started with the first job; used on the event loop only.

    Args:
        processes: most of them.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self.pending = 0
        self.finished = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a worker, with picklable arguments.

        Raises:
            Overloaded: too many jobs are waiting, or the worker died (of want of memory); the
                next job gets a new pool.
        """
        if self.pending >= self._processes * _QUEUE:
            raise Overloaded(f"{self.pending} computations are under way; ask again in a moment")
        if self._pool is None:
            # Not before it is needed: a server that has no terrain loads nothing of an ingest.
            from ingest.executors import spawned_pool

            self._pool = spawned_pool(self._processes)
        pool = self._pool
        self.pending += 1
        try:
            return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
                pool.shutdown(wait=False)
            raise Overloaded(
                "a worker process died, most likely for want of memory; ask again in a moment"
            ) from error
        finally:
            self.pending -= 1
            self.finished += 1

    def close(self) -> None:
        """End the processes; what they are doing is lost."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
