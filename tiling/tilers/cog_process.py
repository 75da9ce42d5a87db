"""GDAL's COG driver in a process of its own, so that it can be stopped and its memory ends with it.

The one idea: the driver does everything in one call that holds the interpreter and cannot be
interrupted, for an hour if the image is large. In a child it leaves the parent free to answer
Ctrl-C, and whatever happens to the child is a message. Run as ``python -m
tiling.tilers.cog_process``, it reads one job as JSON from its standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what `rasterio.shutil.copy` raises; exported nowhere
from rasterio.errors import NotGeoreferencedWarning, RasterioError

if TYPE_CHECKING:  # the child starts faster without it
    from tiling.tilers.base import Progress

_POLL_S = 0.1
_FAILED = 3
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class CopyFailed(Exception):
    """GDAL could not make the copy; the text is its own."""


def copy_apart(
    source: str | Path, out: Path, options: Mapping[str, str], cache_nbytes: int, progress: Progress
) -> None:
    """Copy a dataset with a driver of GDAL in a child process.

    Args:
        source: what GDAL opens: a path, ``/vsizip/...`` or the text of a VRT.
        out: the file to make; GDAL's own scratch files lie beside it and begin with its name.
        options: creation options; ``driver`` names the driver.
        cache_nbytes: size of GDAL's block cache.
        progress: asked for cancellation ten times a second.

    Raises:
        CopyFailed: with GDAL's words, or how the process ended.
        Cancelled: the user asked to stop; the process has ended.
    """
    job = {
        "source": str(source),
        "out": str(out),
        "options": dict(options),
        "cache_nbytes": cache_nbytes,
    }
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # GDAL prints warnings of its own there; what failed comes back on standard output.
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ) as child:
        assert child.stdin is not None  # a pipe was asked for
        try:
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
            while True:
                try:
                    child.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    progress.advance(0)
        except BaseException:
            child.kill()
            raise
        assert child.stdout is not None  # a pipe was asked for
        text = child.stdout.read().decode(errors="replace")
    if child.returncode == _FAILED:
        raise CopyFailed(text)
    if child.returncode:
        raise CopyFailed(
            f"the writing process ended with status {child.returncode}"
            + (" (killed: out of memory?)" if child.returncode == -signal.SIGKILL else "")
        )


def copy_here(
    source: str | Path, out: str | Path, options: Mapping[str, str], cache_nbytes: int
) -> None:
    """Copy as `copy_apart` does, but in this process: for what takes less than starting one.

    Raises:
        CopyFailed: with GDAL's words.
    """
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=cache_nbytes, GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(source) as dataset,
        ):
            rasterio.shutil.copy(dataset, out, **options)
    except (RasterioError, CPLE_BaseError, SystemError) as error:
        # rasterio raises SystemError where GDAL gives up without a word, as on a full disk.
        raise CopyFailed(innermost(error)) from error


def innermost(error: BaseException) -> str:
    """Return GDAL's own words about an error of rasterio."""
    # rasterio says "Read failed. See previous exception for details."; GDAL's words lie below.
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def main() -> int:
    """Do the job on standard input; return the status to exit with."""
    # The parent decides what Ctrl-C means; and a parent that was killed takes this process along.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a limit on files is an error like others
    job = json.loads(sys.stdin.buffer.read())
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    try:
        copy_here(job["source"], job["out"], job["options"], job["cache_nbytes"])
    except CopyFailed as error:
        print(error, end="")
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
