"""The terrain that one gets from pydelatin and quantized-mesh-encoder, tile by tile in a loop.

``python -m benchmarks.delatin_tiles DEM FOLDER``: every tile of every level that the DEM touches,
65 x 65 samples each, simplified to the error that `cim` allows at the level, with vertex normals,
gzipped into files. Heights stay as they are in the DEM and neighbours do not share their edges:
this is less than what `cim` makes.
"""

from __future__ import annotations

import gzip
import io
import math
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import from_bounds

SAMPLES = 65


def main() -> None:
    """Make the tiles and print how many there are."""
    from pydelatin import Delatin
    from pydelatin.util import rescale_positions
    from quantized_mesh_encoder import encode
    from quantized_mesh_encoder.extensions import VertexNormalsExtension

    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    count = nbytes = vertices = 0
    with rasterio.open(source) as dataset:
        west, south, east, north = dataset.bounds
        finest = math.ceil(math.log2(180 / (SAMPLES - 1) / dataset.res[0]) - 1e-9)
        for level in range(finest + 1):
            size = 180 / 2**level
            error = 77067.34 / 2**level * (0.3 if level == finest else 0.6)
            for x in range(int((west + 180) // size), int(math.ceil((east + 180) / size))):
                for y in range(int((south + 90) // size), int(math.ceil((north + 90) / size))):
                    box = (x * size - 180, y * size - 90, (x + 1) * size - 180, (y + 1) * size - 90)
                    heights = dataset.read(
                        1,
                        window=from_bounds(*box, transform=dataset.transform),
                        out_shape=(SAMPLES, SAMPLES),
                        boundless=True,
                        fill_value=0,
                        resampling=Resampling.bilinear,
                    )
                    mesh = Delatin(np.ascontiguousarray(heights), max_error=error)
                    positions = rescale_positions(mesh.vertices, box, flip_y=True)
                    triangles = mesh.triangles.ravel()
                    normals = VertexNormalsExtension(indices=triangles, positions=positions)
                    body = io.BytesIO()
                    encode(body, positions, triangles, bounds=box, extensions=(normals,))
                    path = folder / str(level) / str(x) / f"{y}.terrain"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(gzip.compress(body.getvalue(), 6))
                    count, nbytes = count + 1, nbytes + path.stat().st_size
                    vertices += len(positions)
    print(f"{count} tiles, {vertices} vertices, {nbytes} bytes")


if __name__ == "__main__":
    main()
