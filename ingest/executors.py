"""Where work units run: this process, spawned processes, or a Dask cluster.

The tilers only see a ``concurrent.futures.Executor``; the result never depends on which.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

from tiling.errors import ConfigError
from tiling.tilers.pipeline import SerialExecutor

# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_NBYTES = 1024**2

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def open_executor(spec: str, workers: int) -> Iterator[Executor]:
    """Open the executor that `spec` names.

    Args:
        spec: ``local``, or ``dask:URL`` with the address of a scheduler whose workers share the
            data folder.
        workers: processes on this machine; 1 runs in this process.

    Raises:
        ConfigError: the spec is neither, or Dask is not installed.
    """
    if spec == "local":
        if workers == 1:
            yield SerialExecutor()
            return
        pool = spawned_pool(workers)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    elif spec.startswith("dask:"):
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise ConfigError(
                "--executor dask:URL needs the extra: pip install 'cim-server[dask]'"
            ) from error
        client: Any = Client(spec.removeprefix("dask:"))  # type: ignore[no-untyped-call]
        with client:
            yield client.get_executor()
    else:
        raise ConfigError(f"--executor {spec!r} is neither local nor dask:URL")


def spawned_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes that end with this one and leave Ctrl-C to it.

    They are spawned when there is work for them, never forked: GDAL, BLAS and lazrs keep threads
    that do not survive a fork.

    Args:
        workers: most processes.
    """
    # One thread for each worker: BLAS and lazrs would start one for each core in each of them.
    for threads in ("OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(threads, "1")
    context = multiprocessing.get_context("spawn")
    return _DeafPool(workers, mp_context=context, initializer=_begin_worker)


class _DeafPool(ProcessPoolExecutor):
    """A pool whose workers never hear Ctrl-C, not even while they start.

    Ctrl-C reaches the whole process group; the parent alone decides what to cancel.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit as usual; workers that this starts inherit a mask that blocks SIGINT."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # Arrays of a megabyte and more go back to the system when they are freed; left alone, the
        # allocator raises that bound to 32 MB and keeps what lies below it.
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_NBYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT_NBYTES)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed cannot tell its workers, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a spawned process
    parent.join()
    os._exit(1)


def default_workers(units: int) -> int:
    """Return how many processes pay off: one for small inputs, where starting them costs more.

    Args:
        units: features, or hundreds of pixels, to be tiled.
    """
    return 1 if units < 20_000 else (os.cpu_count() or 1)
