"""The laws of a COPC: every node decodes, and its points lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiling.errors import StoreError
from tiling.findings import Finding, Findings
from tiling.formats.copc import CopcFile, Node


def check_copc(path: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Check a file, and say what it holds."""
    findings = Findings()
    facts: dict[str, Any] = {}
    try:
        file = CopcFile.open(path)
        held = sum(count for _, _, count in file.nodes.values())
        if held != file.count:
            message = f"the header says {file.count} points, the hierarchy {held}"
            findings.add("copc-count", "error", message)
        check_nodes(path, list(file.nodes))
        facts = {"copc_points": held, "copc_nodes": len(file.nodes)}
    except StoreError as error:
        findings.add("copc-damaged", "error", str(error))
    return list(findings), facts


def check_nodes(path: Path, nodes: Sequence[Node]) -> None:
    """Decode nodes and look where their points lie.

    Raises:
        StoreError: a node does not decode, or holds a point that lies outside of it.
    """
    file = CopcFile.open(path)
    scales, offsets = np.array(file.scales), np.array(file.offsets)
    for node in nodes:
        stored = np.ascontiguousarray(file.read(node)[:, :12]).view("<i4")
        side = file.cube.side / 2.0**node.level
        low = np.array(file.cube.low) + np.array(node[1:]) * side
        # At the cube's faces a stored coordinate may be a step beside them.
        slack = scales + 1e-9 * file.cube.side
        for values, pick in ((stored.min(axis=0), 0), (stored.max(axis=0), 1)):
            place = values * scales + offsets
            if pick == 0 and (place < low - slack).any() or (place > low + side + slack).any():
                raise StoreError(f"{path}: node {tuple(node)} holds points that lie beside it")
