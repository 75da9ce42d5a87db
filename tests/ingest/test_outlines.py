from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.quality.outlines import outline_hashes

X, Y = 113.37, 31.71


def hashes(*shapes: shapely.Geometry) -> list[int]:
    return [int(h) for h in outline_hashes(np.array(shapes, dtype=object))]


@given(first=st.integers(0, 5), backwards=st.booleans())
def test_an_outline_has_one_hash_wherever_and_whichever_way_it_begins(
    first: int, backwards: bool
) -> None:
    ring = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 4), (0, 4)]
    corners = [(X + x * 1e-4, Y + y * 1e-4) for x, y in ring]
    turned = corners[first:] + corners[:first]
    one, other = hashes(
        shapely.Polygon(corners), shapely.Polygon(turned[::-1] if backwards else turned)
    )
    assert one == other


@given(corner=st.integers(0, 3), dx=st.integers(-5, 5), dy=st.integers(-5, 5))
def test_a_corner_that_moves_changes_the_hash(corner: int, dx: int, dy: int) -> None:
    box = [(X, Y), (X + 2e-4, Y), (X + 2e-4, Y + 1e-4), (X, Y + 1e-4)]
    moved = [*box]
    moved[corner] = (box[corner][0] + dx * 1e-8, box[corner][1] + dy * 1e-8)
    one, other = hashes(shapely.Polygon(box), shapely.Polygon(moved))
    assert (one == other) == (dx == dy == 0)


def test_courtyards_and_parts_count_in_any_order() -> None:
    shell = shapely.box(X, Y, X + 1e-3, Y + 1e-3)
    holes = [
        shapely.box(X + d, Y + d, X + d + 1e-4, Y + d + 1e-4).exterior.coords for d in (1e-4, 6e-4)
    ]
    yard = shapely.Polygon(shell.exterior.coords, holes)
    same = shapely.Polygon(shell.exterior.coords, holes[::-1])
    far = shapely.box(X + 1, Y, X + 1.001, Y + 1e-3)
    plain, one, two, ab, ba, alone = hashes(
        shell,
        yard,
        same,
        shapely.MultiPolygon([shell, far]),
        shapely.MultiPolygon([far, shell]),
        shapely.MultiPolygon([shell]),
    )
    assert one == two != plain
    assert ab == ba != plain
    assert alone == plain


def test_a_hash_does_not_depend_on_the_batch() -> None:
    x = X + 1e-3 * np.arange(1000)
    boxes = shapely.box(x, Y, x + 5e-4, Y + 5e-4)
    whole = outline_hashes(boxes)
    assert len(np.unique(whole)) == 1000
    parts = [outline_hashes(part) for part in np.array_split(boxes, 7)]
    assert (np.concatenate(parts) == whole).all()
    assert len(outline_hashes(boxes[:0])) == 0
