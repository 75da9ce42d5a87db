"""The part of a picture that a building shows.

City models share one picture among many buildings; a building that carried all of it would make
its record, and those of its neighbours, as large as the picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tiling.formats.primitive import Texture

# Smaller pictures, and those of which most is shown, are kept as they are: encoding costs quality.
_WHOLE_NBYTES = 32 * 1024
_WHOLE_SHARE = 0.5
# Around what is shown, for filtering; edges fall on the blocks of JPEG.
_BLOCK_PX = 16
_JPEG_QUALITY = 90
_MAX_PIXELS = 8_192 * 8_192
_OPEN = 2


class Pictures:
    """Images of a batch, of which parts are cut; the last few stay decoded.

    Attributes:
        images: those at hand, by number.
    """

    def __init__(self, images: Mapping[int, Texture]) -> None:
        self.images = images
        self._open: dict[int, Image.Image | None] = {}

    def part(self, number: int, uv: NDArray[np.float32]) -> tuple[Texture, NDArray[np.float32]]:
        """Return what is shown of an image, and where in it.

        Args:
            number: of the image.
            uv: (T, 3, 2) texture coordinates, v downwards.

        Returns:
            the image and `uv` as they are, where cutting would not pay, where the image repeats,
            or where it cannot be decoded: whoever draws it says so.
        """
        whole = self.images[number]
        low, high = uv.min(axis=(0, 1)), uv.max(axis=(0, 1))
        if (
            len(whole.data) < _WHOLE_NBYTES
            or not (low.min() >= 0 and high.max() <= 1)
            or np.prod(high - low) > _WHOLE_SHARE
        ):
            return whole, uv
        picture = self._decoded(number)
        if picture is None:
            return whole, uv
        size = np.array(picture.size)
        first = np.maximum(np.floor(low * size / _BLOCK_PX) - 1, 0).astype(np.int64) * _BLOCK_PX
        last = np.minimum((np.ceil(high * size / _BLOCK_PX).astype(np.int64) + 1) * _BLOCK_PX, size)
        if np.prod(last - first) > _WHOLE_SHARE * np.prod(size):
            return whole, uv
        cut = picture.crop((int(first[0]), int(first[1]), int(last[0]), int(last[1])))
        sink = io.BytesIO()
        if whole.media_type == "image/png":
            cut.save(sink, "PNG")
        else:
            cut.convert("RGB").save(sink, "JPEG", quality=_JPEG_QUALITY)
        moved: NDArray[np.float32] = ((uv * size - first) / (last - first)).astype(np.float32)
        return Texture(sink.getvalue(), whole.media_type), moved

    def _decoded(self, number: int) -> Image.Image | None:
        if number not in self._open:
            if len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            self._open[number] = _decode(self.images[number].data)
        return self._open[number]


def _decode(data: bytes) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                return None
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
