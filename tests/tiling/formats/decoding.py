"""Tiles decoded by others: pygltflib for the container, the meshoptimizer project's own decoder."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib

NODE = Path(__file__).parents[2] / "node"
_DTYPES = {5120: "<i1", 5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def meshopt_decoded(jobs: list[dict[str, Any]]) -> list[bytes | None]:
    """Decode compressed views: ``data`` bytes, ``count``, ``stride``, ``mode``; None: refused."""
    text = json.dumps([{**job, "data": base64.b64encode(job["data"]).decode()} for job in jobs])
    done = subprocess.run(
        ["node", NODE / "meshopt_decode.mjs"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return [None if x is None else base64.b64decode(x) for x in json.loads(done.stdout)]


def decoded(data: bytes) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """Return the JSON of a glb and the elements of every accessor."""
    gltf = pygltflib.GLTF2.load_from_bytes(data)
    document = json.loads(gltf.to_json())
    blob = gltf.binary_blob()
    views = document["bufferViews"]
    compressed = [v["extensions"]["EXT_meshopt_compression"] for v in views if "extensions" in v]
    raw = iter(
        meshopt_decoded(
            [
                {
                    "data": blob[e["byteOffset"] : e["byteOffset"] + e["byteLength"]],
                    "count": e["count"],
                    "stride": e["byteStride"],
                    "mode": e["mode"],
                }
                for e in compressed
            ]
        )
    )
    content = [
        next(raw)
        if "extensions" in view
        else blob[view.get("byteOffset", 0) : view.get("byteOffset", 0) + view["byteLength"]]
        for view in views
    ]
    found = []
    for accessor in document["accessors"]:
        dtype, width = np.dtype(_DTYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        stride = views[accessor["bufferView"]].get("byteStride") or width * dtype.itemsize
        values: np.ndarray[Any, Any] = np.ndarray(
            (accessor["count"], width),
            dtype,
            content[accessor["bufferView"]],
            accessor.get("byteOffset") or 0,
            (stride, dtype.itemsize),
        )
        found.append(values[:, 0] if width == 1 else values)
    return document, found
