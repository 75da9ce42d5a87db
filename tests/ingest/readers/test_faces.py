"""Faces to triangles: area and orientation are kept in every plane; damage never gets through."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.readers import open_source
from ingest.readers.faces import UNKNOWN, Faces, triangulated
from tests.ingest.readers.test_cityjson import textured, written
from tiling.errors import SourceError
from tiling.findings import Findings


def star(corners: int, rng: np.random.Generator, radius: float) -> np.ndarray:
    """A star-shaped ring around the origin, counter-clockwise, nowhere thinner than radius / 2."""
    angles = np.sort((np.arange(corners) + rng.uniform(0, 0.8, corners)) * 2 * np.pi / corners)
    reach = rng.uniform(radius / 2, radius, corners)
    return np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)


def shoelace(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.booleans(), st.booleans())
def test_triangles_cover_their_face_and_look_its_way(
    seed: int, corners: int, hole: bool, closed: bool
) -> None:
    rng = np.random.default_rng(seed)
    rings = [star(corners, rng, 10.0)]
    if hole:
        # Any way around: what is a hole follows from its place.
        inner = star(6, rng, 1.0)
        rings.append(inner[::-1] if seed % 2 else inner)
    area = shoelace(rings[0]) - sum(abs(shoelace(r)) for r in rings[1:])
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes[:, 2] *= np.linalg.det(axes)
    if closed:
        rings = [np.concatenate([r, r[:1]]) for r in rings]
    flat = np.concatenate(rings)
    points = np.column_stack([flat, np.zeros(len(flat))]) @ axes.T + (5e5, 3.4e6, 20)
    faces = Faces(
        points,
        np.arange(len(points)),
        np.array([len(r) for r in rings]),
        np.array([len(rings)]),
        np.array([UNKNOWN], np.uint8),
    ).compact()
    found = triangulated([[], [faces]], False, Findings(), ["a", "b"])
    assert found.start.tolist() == [0, 0, len(found.corners)]
    a, b, c = np.moveaxis((found.points - found.points[0])[found.corners], 1, 0)
    across = np.cross(b - a, c - a) / 2 @ axes[:, 2]
    assert (across > -1e-6).all()
    assert across.sum() == pytest.approx(area, rel=1e-5)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for key, value in enumerate(node):
            yield from places(value, (*path, key))


_DOCUMENT = textured("墙.png")
_PLACES = list(places(_DOCUMENT))
_ODD = st.sampled_from(
    [None, True, -1, 0, 3, 10**9, 10**30, 1.5, 1e308, "", "x", "2", [], [[]], [None], [[[[0]]]],
     {}, {"a": 1}, {"type": "Solid"}]
)  # fmt: skip


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(_PLACES), _ODD)
def test_a_document_with_anything_anywhere_is_read_or_refused(
    tmp_path: Path, place: tuple[Any, ...], odd: Any
) -> None:
    document: Any = {"": copy.deepcopy(_DOCUMENT)}
    node = document
    for key in ("", *place)[:-1]:
        node = node[key]
    node[("", *place)[-1]] = odd
    path = written(tmp_path, document[""])
    if not json.dumps(document[""]).startswith("{"):
        return
    try:
        with open_source(path) as reader:
            for batch in reader.batches():
                assert len(batch)
    except SourceError as error:
        assert error.source is None or "楼.city.json" in error.source
