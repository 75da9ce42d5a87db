"""Takes meshopt compression off a glb with the decoder of the meshoptimizer project, in Node."""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from typing import IO

SCRIPT = Path(__file__).parents[1] / "node" / "plain_glb.mjs"


def without_meshopt(glb: bytes) -> bytes:
    """Return the same content with plain buffer views; what Cesium would work with."""
    if b"EXT_meshopt_compression" not in glb:
        return glb
    source, target = _decoder()
    source.write(struct.pack("<I", len(glb)) + glb)
    source.flush()
    (nbytes,) = struct.unpack("<I", _exactly(target, 4))
    return _exactly(target, nbytes)


def _exactly(stream: IO[bytes], nbytes: int) -> bytes:
    data = stream.read(nbytes)
    assert len(data) == nbytes, "the decoder refuses a tile; its reason is on stderr"
    return data


@cache
def _decoder() -> tuple[IO[bytes], IO[bytes]]:
    node = shutil.which("node")
    assert node, "node is missing"
    process = subprocess.Popen([node, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout

    def end() -> None:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.wait(10)
        process.stdout.close()

    atexit.register(end)
    return process.stdin, process.stdout
