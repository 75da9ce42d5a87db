"""Parts of pictures show at each corner what the whole shows there."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ingest.readers.crops import Pictures
from tiling.formats.primitive import Texture


def picture(kind: str, seed: int = 0) -> Texture:
    """A smooth picture with noise enough not to be small."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (16, 24, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((960, 640), Image.Resampling.BICUBIC))
    noisy = smooth.astype(int) + rng.integers(-6, 6, smooth.shape)
    sink = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, kind, quality=95)
    return Texture(sink.getvalue(), f"image/{kind.lower()}")


def shown(texture: Texture, uv: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(texture.data)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    at = np.minimum((uv * pixels.shape[1::-1]).astype(int), np.array(pixels.shape[1::-1]) - 1)
    return pixels[at[..., 1], at[..., 0]]


@pytest.mark.parametrize(("kind", "off"), [("JPEG", 25.0), ("PNG", 0.0)])
@pytest.mark.parametrize("seed", range(6))
def test_a_part_shows_what_the_whole_shows(kind: str, off: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.7, 2)
    # The middle of pixels, so that rounding cannot step to a neighbour.
    pixels = np.floor((corner + rng.uniform(0, 0.3, (5, 3, 2))) * (960, 640)) + 0.5
    uv = (pixels / (960, 640)).astype(np.float32)
    whole = picture(kind, seed)
    part, moved = Pictures({4: whole}).part(4, uv)
    assert len(part.data) < len(whole.data) / 2 and part.media_type == whole.media_type
    assert moved.min() >= 0 and moved.max() <= 1
    assert np.abs(shown(part, moved) - shown(whole, uv)).max() <= off


@pytest.mark.parametrize(
    "uv", [[(0, 0), (0.9, 0), (0.9, 0.9)], [(0.1, 0.1), (1.2, 0.1), (0.2, 0.2)]]
)
def test_what_is_shown_mostly_or_repeats_stays_whole(uv: list[tuple[float, float]]) -> None:
    whole = picture("JPEG")
    given = np.array([uv], dtype=np.float32)
    part, moved = Pictures({0: whole}).part(0, given)
    assert part is whole and moved is given


def test_a_picture_that_cannot_be_decoded_stays_as_it_is() -> None:
    broken = Texture(picture("JPEG").data[:40_000], "image/jpeg")
    assert len(broken.data) == 40_000
    given = np.array([[(0.9, 0.9), (0.95, 0.9), (0.9, 0.95)]], dtype=np.float32)
    part, _ = Pictures({0: broken}).part(0, given)
    assert part is broken
