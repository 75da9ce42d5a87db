"""Chunks of points that a worker reads at once: thousands of small files are a few pieces of work.

Like `ingest.readers.points`, picklable and without a debt to the process it runs in; it brings in
no more than decoding needs, because every worker that starts pays for what it imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from ingest.readers.point_chunks import PointChunk
from ingest.readers.points import chunk_findings, read_chunk
from tiling.batches import PointBatch
from tiling.findings import Finding, Findings

PointGroup: TypeAlias = tuple[PointChunk, ...]


def grouped(chunks: Sequence[PointChunk], max_points: int) -> Iterator[PointGroup]:
    """Yield consecutive chunks of one frame as long as they hold few enough points together."""
    group: list[PointChunk] = []
    count = 0
    for chunk in chunks:
        if group and (count + chunk.count > max_points or chunk.ref != group[0].ref):
            yield tuple(group)
            group, count = [], 0
        group.append(chunk)
        count += chunk.count
    if group:
        yield tuple(group)


def read_group(group: PointGroup) -> tuple[PointBatch, Sequence[Finding]]:
    """Return the points of a group, chunk by chunk, and what is strange about them."""
    findings = Findings()
    batches = []
    for chunk in group:
        batches.append(read_chunk(chunk))
        findings.merge(chunk_findings(chunk, batches[-1]))
    if len(batches) == 1:
        return batches[0], tuple(findings)
    columns = {
        name: np.concatenate([batch.columns[name] for batch in batches])
        for name in batches[0].columns
    }
    xyz = np.concatenate([batch.xyz for batch in batches])
    return PointBatch(group[0].ref, group[0].first, xyz, columns), tuple(findings)
