"""Texture atlases: faces show what they showed, whatever the images."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tiling.errors import FormatError
from tiling.findings import Findings
from tiling.formats.primitive import Texture
from tiling.tilers.atlas import MAX_REPEATS, pack


def encoded(picture: NDArray[np.uint8], kind: str = "PNG") -> Texture:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return Texture(out.getvalue(), f"image/{kind.lower()}")


def decoded(texture: Texture) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(texture.data)) as picture:
        assert texture.media_type == f"image/{(picture.format or '').lower()}"
        return np.asarray(picture.convert("RGBA"))


def gradient(width: int, height: int, blue: int, alpha: int | None = None) -> NDArray[np.uint8]:
    """Red grows with u, green with v: a colour says where in its image it was."""
    rows, columns = np.mgrid[:height, :width]
    layers = [columns * 255 / width, rows * 255 / height, np.full_like(rows, blue)]
    if alpha is not None:
        layers.append(np.full_like(rows, alpha))
    return np.stack(layers, axis=-1).astype(np.uint8)


def sampled(picture: NDArray[np.uint8], uv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours at texture coordinates, repeated beyond the image (glTF's default sampler)."""
    size = np.array(picture.shape[1::-1])
    at = np.floor((uv % 1.0) * size).astype(int).clip(0, size - 1)
    return picture[at[..., 1], at[..., 0]].astype(np.float64)


def test_every_face_shows_the_part_of_the_image_that_it_showed() -> None:
    pictures = [gradient(64, 32, 40), gradient(100, 80, 120), gradient(37, 53, 200)]
    rng = np.random.default_rng(1)
    uv = rng.uniform(0, 1, (30, 1, 2)) + rng.uniform(-0.1, 0.1, (30, 3, 2))
    uv = uv.clip(0, 1).astype(np.float32)
    image = rng.integers(0, 3, 30).astype(np.int32)
    texture, moved = pack([encoded(p) for p in pictures], uv, image, quality=95)
    atlas = decoded(texture)
    middle, moved_middle = uv.mean(axis=1), moved.mean(axis=1)
    for face in range(30):
        before = sampled(pictures[image[face]], middle[face])
        after = sampled(atlas, moved_middle[face])[:3]
        assert np.abs(before - after).max() < 12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.05, 3.0))
def test_coordinates_stay_inside_and_regions_of_different_images_apart(
    seed: int, faces: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    images = [encoded(np.broadcast_to(c, (24, 40, 3)).copy()) for c in colours]
    uv = rng.uniform(-spread, spread, (faces, 3, 2)).astype(np.float32)
    image = rng.integers(-1, 3, faces).astype(np.int32)
    texture, moved = pack(images, uv, image, quality=95)
    assert moved.min() >= 0 and moved.max() <= 1
    atlas = decoded(texture)
    weights = rng.dirichlet([1, 1, 1], 20)
    for face in range(faces):
        got = sampled(atlas, weights @ moved[face].astype(np.float64))[:, :3]
        want = colours[image[face]] if image[face] >= 0 else np.array([255, 255, 255])
        assert np.abs(got - want).max() < 40


def test_a_face_that_repeats_its_image_shows_it_as_often() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, 8:] = 255  # black left, white right
    uv = np.array([[[0, 0], [4, 0], [0, 0.9]]], np.float32)
    texture, moved = pack([encoded(picture)], uv, np.zeros(1, np.int32))
    atlas = decoded(texture)
    along = np.linspace(0.05, 3.95, 40)
    start, end = moved[0, 0].astype(float), moved[0, 1].astype(float)
    start[1] = end[1] = start[1] + 3 / atlas.shape[0]
    points = start + (along / 4)[:, None] * (end - start)
    clear = np.abs(along * 2 % 1 - 0.5) < 0.4
    want = np.where(along % 1 < 0.5, 0, 255)
    assert (np.abs(sampled(atlas, points)[:, 0] - want)[clear] < 60).all()


def test_what_repeats_too_often_is_stretched_and_counted() -> None:
    findings = Findings()
    uv = np.array([[[0, 0], [100, 0], [0, 1]], [[0, 0], [1, 0], [0, 1]]], np.float32)
    _, moved = pack([encoded(gradient(8, 8, 0))], uv, np.zeros(2, np.int32), findings=findings)
    (found,) = [f for f in findings if f.rule == "texture-stretched"]
    assert found.count == 1 and str(MAX_REPEATS) in found.message
    assert np.isfinite(moved).all()


def test_only_what_is_used_is_kept() -> None:
    uv = np.array([[[0.5, 0.5], [0.6, 0.5], [0.5, 0.6]]], np.float32)
    texture, _ = pack([encoded(gradient(1000, 1000, 0))], uv, np.zeros(1, np.int32))
    height, width = decoded(texture).shape[:2]
    assert width * height < 150 * 150


def test_two_distant_corners_of_one_image_do_not_drag_its_middle_along() -> None:
    near = np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.05]])
    uv = np.stack([near, near + 0.9]).astype(np.float32)
    texture, _ = pack([encoded(gradient(1000, 1000, 0))], uv, np.zeros(2, np.int32))
    height, width = decoded(texture).shape[:2]
    assert width * height < 150 * 150


def test_the_cap_holds_and_shrinking_is_told() -> None:
    findings = Findings()
    images = [encoded(gradient(300, 200, n)) for n in range(12)]
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1]], np.float32), (12, 1, 1))
    texture, moved = pack(images, uv, np.arange(12, dtype=np.int32), 256, findings=findings)
    atlas = decoded(texture)
    assert max(atlas.shape[:2]) <= 256
    assert [f.rule for f in findings] == ["texture-reduced"]
    got = sampled(atlas, moved.mean(axis=1))[:, :3]
    assert np.abs(got - [170, 85, 6]).max() < 30


def test_a_jpeg_is_decoded_no_larger_than_it_is_drawn() -> None:
    picture = gradient(1600, 1600, 90)
    uv = np.array([[[0, 0], [1, 0], [1, 1]]], np.float32)
    texture, moved = pack([encoded(picture, "JPEG")], uv, np.zeros(1, np.int32), 128)
    got = sampled(decoded(texture), moved.mean(axis=1))[0, :3]
    assert np.abs(got - [170, 85, 90]).max() < 12


def test_the_scale_of_coarser_tiles_makes_the_texture_smaller() -> None:
    images = [encoded(gradient(512, 512, 3))]
    uv = np.array([[[0, 0], [1, 0], [1, 1]]], np.float32)
    fine = decoded(pack(images, uv, np.zeros(1, np.int32))[0])
    coarse = decoded(pack(images, uv, np.zeros(1, np.int32), scale=0.25)[0])
    assert coarse.shape[0] < fine.shape[0] / 3


def test_translucent_images_give_png_and_opaque_ones_jpeg() -> None:
    uv = np.array([[[0, 0], [1, 0], [1, 1]]], np.float32)
    zero = np.zeros(1, np.int32)
    assert pack([encoded(gradient(9, 9, 0, 128))], uv, zero)[0].media_type == "image/png"
    assert pack([encoded(gradient(9, 9, 0, 255))], uv, zero)[0].media_type == "image/jpeg"


def test_the_same_image_given_twice_is_drawn_once() -> None:
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1]], np.float32), (2, 1, 1))
    image = np.arange(2, dtype=np.int32)
    texture, moved = pack([encoded(gradient(64, 64, 0))] * 2, uv, image)
    assert (moved[0] == moved[1]).all()
    assert decoded(texture).shape[0] * decoded(texture).shape[1] < 2 * 64 * 64


def test_the_same_input_gives_the_same_bytes() -> None:
    rng = np.random.default_rng(5)
    images = [encoded(rng.integers(0, 256, (30, 30, 3)).astype(np.uint8)) for _ in range(5)]
    uv = rng.uniform(-1, 2, (40, 3, 2)).astype(np.float32)
    image = rng.integers(-1, 5, 40).astype(np.int32)
    one, two = pack(images, uv, image), pack(images, uv, image)
    assert one[0] == two[0] and (one[1] == two[1]).all()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 36,865 pixels each way."""
    data = bytearray(encoded(gradient(4, 4, 0)).data)
    data[16:24] = (36_865).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(gradient(400, 400, 0), "JPEG").data[:900], "damaged"),
        (encoded(gradient(400, 400, 0)).data[:200], "damaged"),
        (bomb(), "too many"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of"),
        (b"", "none of"),
    ],
)
def test_a_hostile_image_leaves_white_faces_and_a_count(data: bytes, said: str) -> None:
    findings = Findings()
    images = [Texture(data, "image/png"), encoded(gradient(32, 32, 90))]
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1]], np.float32), (3, 1, 1))
    texture, moved = pack(images, uv, np.array([0, 0, 1], np.int32), findings=findings)
    (found,) = findings
    assert (found.rule, found.severity, found.count) == ("texture-unreadable", "drop", 2)
    assert said in found.message
    atlas = decoded(texture)
    colours = sampled(atlas, moved.mean(axis=1))[:, :3]
    assert (colours[:2] > 245).all()
    assert np.abs(colours[2] - [170, 85, 90]).max() < 16


def test_random_bytes_after_a_header_never_raise_anything_of_pillows() -> None:
    rng = np.random.default_rng(3)
    uv = np.array([[[0, 0], [1, 0], [1, 1]]], np.float32)
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"):
        whole = bytearray(encoded(gradient(40, 40, 7), kind).data)
        for _ in range(20):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 6):
                data[at] = rng.integers(0, 256)
            texture, _ = pack([Texture(bytes(data), "image/png")], uv, np.zeros(1, np.int32))
            assert decoded(texture).size


def test_no_faces_and_no_images_give_a_white_spot() -> None:
    texture, moved = pack([], np.empty((0, 3, 2), np.float32), np.empty(0, np.int32))
    assert (decoded(texture)[..., :3] == 255).all() and moved.shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("uv", "image"),
    [
        (np.zeros((1, 3), np.float32), np.zeros(1, np.int32)),
        (np.zeros((2, 3, 2), np.float32), np.zeros(1, np.int32)),
        (np.zeros((1, 3, 2), np.float32), np.ones(1, np.int32)),
        (np.full((1, 3, 2), np.nan, np.float32), np.zeros(1, np.int32)),
    ],
)
def test_wrong_arguments_are_refused(uv: NDArray[np.float32], image: NDArray[np.int32]) -> None:
    with pytest.raises(FormatError):
        pack([encoded(gradient(4, 4, 0))], uv, image)


def test_more_images_than_pixels_is_refused() -> None:
    images = [encoded(gradient(4, 4, n)) for n in range(50)]
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1]], np.float32), (50, 1, 1))
    with pytest.raises(FormatError, match="do not fit"):
        pack(images, uv, np.arange(50, dtype=np.int32), 16)
