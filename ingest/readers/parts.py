"""What the files of models hold, whatever their format: parts with triangles and materials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tiling.findings import Findings
from tiling.formats.primitive import Texture

WHITE = (255, 255, 255, 255)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of a model that has a name of its own.

    Attributes:
        name: in the file; empty when it has none.
        materials: their names, in order of first use.
        vertices: (V, 3) float64, the model's own axes and units.
        triangles: (T, 3) int64, counter-clockwise from outside.
        colors: (T, 4) uint8, linear RGBA.
        uv: (T, 3, 2) float32, glTF texture coordinates (v downwards).
        image: (T,) int32, place in the images of the model; -1: none.
    """

    name: str
    materials: tuple[str, ...]
    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]
    colors: NDArray[np.uint8]
    uv: NDArray[np.float32]
    image: NDArray[np.int32]


@dataclass(slots=True)
class Model:
    """A model file.

    Attributes:
        parts: in file order.
        images: encoded images that the parts refer to.
        files: every file that was read.
    """

    parts: list[Part]
    images: list[Texture]
    files: list[Path]


class Beside:
    """Files that a model names: only those in its own folder and below are read."""

    def __init__(self, path: Path, findings: Findings) -> None:
        self.path = path
        self.folder = path.parent
        self.findings = findings
        self.files: list[Path] = [path]
        self._read: dict[str, bytes | None] = {}

    def read(self, name: str, what: str) -> bytes | None:
        """Return a file's bytes; None, and a finding, when it cannot be had.

        Args:
            name: as the model says it: a relative path or address.
            what: ``texture``, ``material library`` or ``buffer``.
        """
        if name not in self._read:
            found = self._find(name)
            self._read[name] = None if found is None else found.read_bytes()
            if found is None:
                self.findings.add(
                    f"{what.replace(' ', '-')}-missing",
                    "warning",
                    f"a {what} that is named is not beside the model; nothing is fetched",
                    samples=[name[:200]],
                )
            elif found not in self.files:
                self.files.append(found)
        return self._read[name]

    def _find(self, name: str) -> Path | None:
        if len(urlsplit(name).scheme) > 1:
            return None
        plain = name.strip().strip('"').replace("\\", "/")
        root = self.folder.resolve()
        # Exporters leave the paths of their own machine; the file usually lies beside the model.
        for each in (plain, unquote(plain), plain.rpartition("/")[2]):
            try:
                file = (root / each.lstrip("/")).resolve()
                if each and file.is_relative_to(root) and file.is_file():
                    return file
            except (OSError, ValueError):  # a name too long, or with a null character
                return None
        return None


def texture(data: bytes) -> Texture:
    """Return an image with the media type of what it begins with."""
    return Texture(data, "image/png" if data.startswith(b"\x89PNG") else "image/jpeg")


def linear(srgb: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (..., 3) sRGB of 0 to 1 as linear bytes (IEC 61966-2-1)."""
    c = np.clip(srgb, 0.0, 1.0)
    value = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear_bytes: NDArray[np.uint8] = np.rint(value * 255).astype(np.uint8)
    return linear_bytes
