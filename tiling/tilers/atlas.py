"""Many images of a tile to one: what its faces use of each, side by side.

One idea: everything is decided from the sizes in the images' headers, so that an image is decoded
only as large as it will be drawn, one at a time. Faces that lie together in their image share one
region of the atlas. Texture coordinates are glTF's: u to the right, v downwards, 0 to 1 across the
image, repeating beyond.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tiling.errors import FormatError
from tiling.findings import Findings
from tiling.formats.primitive import Texture

# What CityGML, CityJSON, OBJ and glTF files refer to in practice. Pillow knows many more formats,
# some of which start other programs.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

# 8,192 x 8,192: the largest texture that a common graphics card takes.
MAX_IMAGE_PIXELS = 8_192 * 8_192

# A wall of which a picture repeats more often is drawn with this many, stretched.
MAX_REPEATS = 8

# Copies of a region's edge around it, so that filtering never mixes two regions.
GUTTER_PX = 2

JPEG_QUALITY = 80

_SHRINK = 0.93  # step of the search for a scale at which everything fits
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class _Regions:
    """Rectangles of images, in texture coordinates: (R, 4) left, top, right, bottom."""

    image: NDArray[np.int32]
    box: NDArray[np.float64]

    def pixels(self, sizes: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
        """Return the (R, 2) width and height in the atlas, without gutter."""
        extent = (self.box[:, 2:] - self.box[:, :2]) * sizes[self.image] * scale
        pixels: NDArray[np.int64] = np.maximum(np.ceil(extent - 1e-6), 1).astype(np.int64)
        return pixels


def pack(
    images: Sequence[Texture],
    uv: NDArray[np.float32],
    image: NDArray[np.int32],
    max_size: int = 2_048,
    *,
    scale: float = 1.0,
    quality: int = JPEG_QUALITY,
    findings: Findings | None = None,
) -> tuple[Texture, NDArray[np.float32]]:
    """Pack what triangles use of their images into one texture.

    Args:
        images: encoded images (`IMAGE_FORMATS`); what is broken shows white and is counted.
        uv: (T, 3, 2) float32 texture coordinates of the corners of triangles.
        image: (T,) int32, the image of each triangle; -1: none, drawn white.
        max_size: the texture is at most this many pixels wide and high.
        scale: of the images before the cap is applied; less than 1 for coarser tiles.
        quality: of the JPEG, 1 to 95.
        findings: where broken images, stretched repeats and shrinking are counted.

    Returns:
        The texture (JPEG; PNG when a used pixel is translucent) and the (T, 3, 2) float32
        coordinates in it. The same input gives the same bytes.

    Raises:
        FormatError: arguments of the wrong shape, an image index out of range, coordinates that
            are not finite, or more regions than the texture has pixels for.
    """
    findings = Findings() if findings is None else findings
    _check(images, uv, image)
    first, unique = _without_copies(images)
    wanted = np.where(image >= 0, first[image], -1).astype(np.int32)
    sizes, broken = _sizes(unique, np.unique(wanted[wanted >= 0]))
    corners = _wrapped(np.asarray(uv, np.float64), wanted, findings)
    while True:
        used = np.where(np.isin(wanted, np.fromiter(broken, np.int64)), -1, wanted)
        regions, region = _regions(corners, used, sizes)
        fit, extent, places, size = _fitted(regions, sizes, max_size, scale)
        picture = _painted(unique, regions, extent, places, size, broken)
        if picture is not None:
            break
        # An image proved truncated only when it was decoded: lay the others out without it.
    if fit < scale:
        findings.add(
            "texture-reduced",
            "info",
            f"images were reduced to fit a texture of {max_size} pixels",
            len(regions.image) - 1,
        )
    for index in sorted(broken):
        findings.add(
            "texture-unreadable",
            "drop",
            f"a texture cannot be read and its faces are white: {broken[index]}",
            int(np.count_nonzero(wanted == index)),
        )
    box = regions.box[region][:, None]
    inside = (corners - box[..., :2]) / np.maximum(box[..., 2:] - box[..., :2], 1e-12)
    inside = np.clip(inside, 0.0, 1.0)
    inside[used < 0] = 0.5
    moved = (places[region][:, None] + inside * extent[region][:, None]) / np.array(size)
    return _encoded(picture, quality), moved.astype(np.float32)


def _check(images: Sequence[Texture], uv: NDArray[np.float32], image: NDArray[np.int32]) -> None:
    if uv.ndim != 3 or uv.shape[1:] != (3, 2) or image.shape != uv.shape[:1]:
        raise FormatError(f"uv of shape {uv.shape} for image of shape {image.shape}")
    if len(image) and (image.min() < -1 or image.max() >= len(images)):
        raise FormatError(f"a triangle names image {image.max()} of {len(images)}")
    if not np.isfinite(uv[image >= 0]).all():
        raise FormatError("a texture coordinate is not a finite number")


def _without_copies(images: Sequence[Texture]) -> tuple[NDArray[np.int32], list[bytes]]:
    """Return for each image its place among the different ones, and those."""
    places: dict[bytes, int] = {}
    first = [places.setdefault(texture.data, len(places)) for texture in images]
    return np.array([*first, -1], np.int32), list(places)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open an image of a known format and bearable size; the reason as FormatError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_IMAGE_PIXELS:
                    raise FormatError(f"{width} x {height} pixels are too many")
                yield picture
    except UnidentifiedImageError as error:
        raise FormatError(f"{len(data)} bytes are none of {', '.join(IMAGE_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FormatError("too many pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, Warning) as error:
        # Pillow's decoders raise each of these on damaged files.
        raise FormatError(f"damaged image: {error}") from error


def _sizes(
    images: Sequence[bytes], used: NDArray[np.int32]
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return (I, 2) width and height of the used images, and why some cannot be used."""
    sizes = np.ones((len(images), 2))
    broken: dict[int, str] = {}
    for index in used.tolist():
        try:
            with _opened(images[index]) as picture:
                sizes[index] = picture.size
        except FormatError as error:
            broken[index] = str(error)
    return sizes, broken


def _wrapped(
    uv: NDArray[np.float64], image: NDArray[np.int32], findings: Findings
) -> NDArray[np.float64]:
    """Move triangles by whole images next to the origin; stretch what repeats too often."""
    uv = np.where((image >= 0)[:, None, None], uv, 0.0)
    lowest = uv.min(axis=1)
    # 1.0000001 and -0.0000001 are the edges of the image, not its next copy.
    uv = uv - np.floor(lowest + _EPSILON)[:, None]
    repeats = uv.max(axis=1)
    stretched = repeats > MAX_REPEATS
    findings.add(
        "texture-stretched",
        "repair",
        f"faces that repeat their image more than {MAX_REPEATS} times show it stretched",
        int(np.count_nonzero(stretched.any(axis=1))),
    )
    uv *= np.where(stretched, MAX_REPEATS / np.maximum(repeats, 1.0), 1.0)[:, None]
    return np.where((uv < 0) & (uv > -2 * _EPSILON), 0.0, uv)


def _regions(
    uv: NDArray[np.float64], image: NDArray[np.int32], sizes: NDArray[np.float64]
) -> tuple[_Regions, NDArray[np.int64]]:
    """Group triangles whose boxes touch in their image; region 0 is a white spot."""
    images, boxes = [np.array([-1], np.int32)], [np.array([[0.0, 0.0, 1.0, 1.0]])]
    region = np.zeros(len(image), np.int64)
    count = 1
    order = np.argsort(image, kind="stable")
    for start, stop in _runs(image[order]):
        index = int(image[order[start]])
        if index < 0:
            continue
        faces = order[start:stop]
        pixel = 1.0 / sizes[index]
        # Whole pixels, and one more around for the filter to find its neighbours.
        low = np.floor(uv[faces].min(axis=1) / pixel + 1e-6) * pixel
        high = np.ceil(uv[faces].max(axis=1) / pixel - 1e-6) * pixel
        high = np.maximum(high, low + pixel)
        rectangles = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
        parts = shapely.get_parts(shapely.union_all(rectangles, grid_size=0.0))
        inner = shapely.point_on_surface(rectangles)
        inside, part = shapely.STRtree(parts).query(inner, predicate="intersects")
        chosen = np.zeros(len(faces), np.int64)
        chosen[inside[::-1]] = part[::-1]
        region[faces] = count + chosen
        images.append(np.full(len(parts), index, np.int32))
        boxes.append(shapely.bounds(parts))
        count += len(parts)
    return _Regions(np.concatenate(images), np.concatenate(boxes)), region


def _runs(values: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Return start and stop of each run of equal values."""
    bounds = [*np.flatnonzero(np.diff(values, prepend=-2)).tolist(), len(values)]
    return list(itertools.pairwise(bounds))


def _fitted(
    regions: _Regions, sizes: NDArray[np.float64], max_size: int, scale: float
) -> tuple[float, NDArray[np.int64], NDArray[np.int64], tuple[int, int]]:
    """Return the scale at which all regions fit, their extents, places and the size of all."""
    sizes = np.vstack([sizes, [[1.0, 1.0]]])  # image -1: the white spot
    room = max_size - 2 * GUTTER_PX
    while True:
        extent = np.minimum(regions.pixels(sizes, scale), room)
        padded = extent + 2 * GUTTER_PX
        if int(np.prod(padded, axis=1).sum()) <= max_size * max_size:
            places, size = _shelves(padded, max_size)
            if max(size) <= max_size:
                return scale, extent, places + GUTTER_PX, size
        if (extent == 1).all():
            raise FormatError(f"{len(extent)} images do not fit a texture of {max_size} pixels")
        scale *= _SHRINK


def _shelves(extent: NDArray[np.int64], max_size: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Lay (R, 2) rectangles on shelves, the highest first; return places and the whole's size."""
    area = float(np.prod(extent, axis=1).sum())
    width = int(np.clip(max(np.ceil(np.sqrt(area)), extent[:, 0].max()), 1, max_size))
    order = np.lexsort((np.arange(len(extent)), -extent[:, 0], -extent[:, 1]))
    ends = np.cumsum(extent[order, 0])
    places = np.empty_like(extent)
    top = start = 0
    while start < len(order):
        left = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, left + width, side="right"))
        shelf = order[start:stop]
        places[shelf, 0] = ends[start:stop] - extent[shelf, 0] - left
        places[shelf, 1] = top
        top += int(extent[shelf[0], 1])
        start = stop
    return places, (int((places[:, 0] + extent[:, 0]).max()), top)


def _painted(
    images: Sequence[bytes],
    regions: _Regions,
    extent: NDArray[np.int64],
    places: NDArray[np.int64],
    size: tuple[int, int],
    broken: dict[int, str],
) -> NDArray[np.uint8] | None:
    """Return (H, W, 4) uint8 RGBA of the atlas; None when another image proved broken."""
    atlas = np.full((size[1], size[0], 4), 255, np.uint8)
    count = len(broken)
    for start, stop in _runs(regions.image):
        index = int(regions.image[start])
        if index < 0:
            continue
        box = regions.box[start:stop]
        finest = (extent[start:stop] / (box[:, 2:] - box[:, :2])).max(axis=0)
        try:
            with _opened(images[index]) as picture:
                if picture.format == "JPEG":  # decoded at 1/2, 1/4 or 1/8, whatever is enough
                    picture.draft("RGB", (int(np.ceil(finest[0])), int(np.ceil(finest[1]))))
                # Premultiplied, so that what cannot be seen does not tint what can.
                pixels = (
                    picture.convert("RGBA").convert("RGBa")
                    if _may_be_clear(picture)
                    else (picture.convert("RGB"))
                )
        except FormatError as error:
            broken[index] = str(error)
            continue
        for row in range(start, stop):
            _paint(atlas, pixels, regions.box[row], extent[row], places[row])
    return atlas if len(broken) == count else None


def _may_be_clear(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


def _resized(
    picture: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    small = picture.resize(size, Image.Resampling.BOX, box)
    return np.asarray(small.convert("RGBA"))


def _paint(
    atlas: NDArray[np.uint8],
    picture: Image.Image,
    box: NDArray[np.float64],
    extent: NDArray[np.int64],
    place: NDArray[np.int64],
) -> None:
    """Draw one region, its picture repeated where the box asks for it, and its gutter."""
    across, down = (int(n) for n in np.maximum(np.ceil(box[2:] - 1e-6), 1))
    width, height = int(extent[0]), int(extent[1])
    if across * down == 1:
        left, top, right, bottom = (box * np.tile(picture.size, 2)).tolist()
        source = (left, top, min(right, picture.width), min(bottom, picture.height))
        drawn = _resized(picture, (width, height), source)
    else:
        # One copy at its final size, then repeated: the whole is never larger than the atlas.
        one = np.maximum(np.rint(extent / (box[2:] - box[:2])), 1).astype(np.int64)
        copy = _resized(picture, (int(one[0]), int(one[1])))
        first, start = (box[:2] * one).astype(np.int64)
        columns = (first + np.arange(width) * (box[2] - box[0]) * one[0] / width) % one[0]
        rows = (start + np.arange(height) * (box[3] - box[1]) * one[1] / height) % one[1]
        drawn = copy[rows.astype(np.int64)][:, columns.astype(np.int64)]
    gutter = ((GUTTER_PX, GUTTER_PX), (GUTTER_PX, GUTTER_PX), (0, 0))
    x, y = int(place[0]) - GUTTER_PX, int(place[1]) - GUTTER_PX
    atlas[y : y + height + 2 * GUTTER_PX, x : x + width + 2 * GUTTER_PX] = np.pad(
        drawn, gutter, mode="edge"
    )


def _encoded(picture: NDArray[np.uint8], quality: int) -> Texture:
    out = io.BytesIO()
    if (picture[..., 3] < 255).any():
        Image.fromarray(picture, "RGBA").save(out, "PNG", optimize=False, compress_level=6)
        return Texture(out.getvalue(), "image/png")
    Image.fromarray(np.ascontiguousarray(picture[..., :3])).save(out, "JPEG", quality=quality)
    return Texture(out.getvalue(), "image/jpeg")
