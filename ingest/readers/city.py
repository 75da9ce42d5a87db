"""City models: what readers of CityJSON and CityGML have in common.

A reader walks the objects of its file one by one; here they become batches. A building with all
its parts and installations is one feature: the attributes are the building's, what it does not say
those of its parts, the shape is that of all of them together. A first pass decides the types of
the columns, the order of the axes and the extent, a second one makes the shapes; so memory holds
one batch.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import shapely

from ingest.readers.attributes import AttributeTypes, column
from ingest.readers.axes import is_northing_first
from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    FieldInfo,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.crops import Pictures
from ingest.readers.faces import Faces, triangulated
from ingest.readers.parts import Beside, texture
from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.crs import SpatialRef
from tiling.errors import CrsMissing, FieldInvalid, SourceUnreadable
from tiling.findings import Findings
from tiling.formats.primitive import Texture

# Columns that say what the object itself is; attributes of these names are renamed.
OWN_FIELDS = ("id", "type", "lod")
# No frame has a place on the Earth with a coordinate above this, in metres or in feet.
_MAX_COORDINATE = 1e8
_CODE = re.compile(r"epsg(?:::|:|/[\d.]+/|:[\d.]+:|\.xml#)(\d{4,6})(?!\d)", re.IGNORECASE)
# Names of the German surveys that appear in CityGML.
_ADV = {f"ETRS89_UTM{zone}": f"EPSG:258{zone}" for zone in (31, 32, 33)}


@dataclass(frozen=True, slots=True)
class CityFeature:
    """A building and what belongs to it.

    Attributes:
        id, type: as the file says.
        lod: of the shape, e.g. ``2.2``; ``0`` for a footprint alone.
        attributes: values as JSON has them.
        faces: of the shape; empty for a footprint alone.
        outline: horizontal faces of a footprint, where the file has one.
    """

    id: str
    type: str
    lod: str | None
    attributes: Mapping[str, Any]
    faces: Sequence[Faces]
    outline: Sequence[Faces]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the first pass found: types of columns, size, place, bytes of each image."""

    types: dict[str, pa.DataType]
    features: int
    extent: Extent | None
    ref: SpatialRef | None
    swapped: bool
    image_nbytes: tuple[int, ...]
    info: SourceInfo


@dataclass(slots=True)
class _Waiting:
    """Features that wait for a batch."""

    rows: list[int] = field(default_factory=list)
    features: list[CityFeature] = field(default_factory=list)
    nbytes: int = 0

    def add(self, row: int, feature: CityFeature, image_nbytes: Sequence[int]) -> None:
        self.rows.append(row)
        self.features.append(feature)
        for faces in feature.faces:
            if faces.image is not None:
                used = np.unique(faces.image[faces.image >= 0]).tolist()
                self.nbytes += sum(image_nbytes[number] for number in used)
        self.nbytes += sum(
            24 * len(f.points) + 40 * len(f.corners) for f in (*feature.faces, *feature.outline)
        )


class CityReader(Closing):
    """Base of the readers of city models.

    A reader names itself and its format, walks its objects, and says its images and frame.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = "vector"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self.findings = Findings()
        self.images: list[str] = []
        self._numbers: dict[str, int] = {}
        self._survey: _Survey | None = None

    @abstractmethod
    def features(self, findings: Findings) -> Iterator[CityFeature]:
        """Walk the objects of the file, in its order; what is left out is a finding.

        Images are numbered in `images` as they are met.

        Raises:
            SourceUnreadable: the file is damaged, or contradicts itself.
        """

    @abstractmethod
    def reference(self) -> str | None:
        """Return the reference system as the file says it, known after a walk."""

    @abstractmethod
    def format(self) -> str:
        """Return the format with its version, known after a walk."""

    def image_number(self, name: str) -> int:
        """Return the place of an image among `images`."""
        number = self._numbers.setdefault(name, len(self.images))
        if number == len(self.images):
            self.images.append(name)
        return number

    def info(self) -> SourceInfo:
        """Return what the file holds; it is walked once.

        Raises:
            SourceUnreadable: the file is damaged, or contradicts itself.
        """
        return self._surveyed().info

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield buildings with their shapes in `MESH_COLUMN`; see `SourceReader.batches`.

        Named columns come without the shapes, unless these are named too.
        """
        survey = self._surveyed()
        if survey.ref is None:
            raise CrsMissing(
                "it has no reference system",
                source=self.path,
                remedy="declare it with --crs, e.g. --crs EPSG:4547",
            )
        known = (*survey.types, MESH_COLUMN)
        names = known if columns is None else tuple(columns)
        if unknown := [n for n in names if n not in known]:
            raise FieldInvalid(
                f"there is no field {unknown[0]!r}",
                source=self.path,
                remedy=f"fields: {', '.join(survey.types)}",
            )
        self.findings = Findings()
        self.findings.merge(survey.info.findings)
        waiting = _Waiting()
        for row, feature in enumerate(self.features(Findings())):
            if waiting.rows and waiting.nbytes + 1 > max_nbytes:
                yield from self._batch(waiting, survey, names, region)
                waiting = _Waiting()
            if feature.faces or feature.outline:
                waiting.add(row, feature, survey.image_nbytes)
        if waiting.rows:
            yield from self._batch(waiting, survey, names, region)

    def _batch(
        self, waiting: _Waiting, survey: _Survey, names: Sequence[str], region: Extent | None
    ) -> Iterator[FeatureBatch]:
        assert survey.ref is not None  # batches() refuses without
        features = waiting.features
        ids = [feature.id for feature in features]
        degrees = not survey.ref.is_projected
        shapes = [[_turned(f, survey.swapped) for f in feature.faces] for feature in features]
        flat = [[_turned(f, survey.swapped) for f in feature.outline] for feature in features]
        meshes = triangulated(shapes, degrees, self.findings, ids)
        outlines = triangulated(flat, degrees, Findings(), ids)
        geometry = np.empty(len(features), dtype=object)
        for row in range(len(features)):
            geometry[row] = outlines.outline(row) or meshes.outline(row)
        keep = np.array([g is not None for g in geometry])
        self.findings.add(
            "surface-missing",
            "drop",
            "objects without any face that covers ground are left out",
            int((~keep).sum()),
            [ids[i] for i in np.flatnonzero(~keep)],
        )
        if region is not None:
            keep[keep] = shapely.intersects(
                shapely.box(*region), shapely.envelope(geometry[keep].astype(object))
            )
        rows = np.flatnonzero(keep)
        if not len(rows):
            return
        chosen = [features[row] for row in rows.tolist()]
        table = pa.table({"": pa.nulls(len(rows))}).select([])
        for name in names:
            if name == MESH_COLUMN:
                used = np.unique(meshes.image)
                pictures = Pictures(self._images(used[used >= 0].tolist()))
                records = [meshes.record(row, pictures) for row in rows.tolist()]
                values = pa.array(records, pa.large_binary())
            else:
                values = column([_value(f, name) for f in chosen], survey.types[name])
            table = (
                table.append_column(name, values) if table.num_columns else pa.table({name: values})
            )
        numbers = np.array(waiting.rows, dtype=np.int64)[rows]
        yield FeatureBatch(survey.ref, numbers, geometry[rows], table)

    def _images(self, used: Sequence[int]) -> dict[int, Texture]:
        """Return the images of a batch that are at hand; they are read anew for each batch."""
        beside = Beside(self.path, Findings())
        found = {number: beside.read(self.images[number], "texture") for number in used}
        return {number: texture(data) for number, data in found.items() if data is not None}

    def _surveyed(self) -> _Survey:
        if self._survey is None:
            self._survey = self._look()
        return self._survey

    def _look(self) -> _Survey:
        findings = Findings()
        types, lods, empty = AttributeTypes(), Counter[str](), []
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        count = 0
        for feature in self.features(findings):
            count += 1
            types.add({name: _value(feature, name) for name in OWN_FIELDS})
            types.add(_renamed(feature.attributes))
            if not (feature.faces or feature.outline):
                empty.append(feature.id)
                continue
            lods[feature.lod or "?"] += 1
            for faces in (*feature.faces, *feature.outline):
                if len(faces.points):
                    self._check_reach(feature.id, faces)
                    low = np.minimum(low, faces.points.min(axis=0))
                    high = np.maximum(high, faces.points.max(axis=0))
        findings.add("geometry-missing", "drop", "objects without a shape are left out",
                     len(empty), empty)  # fmt: skip
        chosen = ", ".join(f"LoD {lod}: {n}" for lod, n in sorted(lods.items()))
        if lods:
            findings.add("lod", "info", f"the finest level of detail up to 2 is taken: {chosen}")
        columns = types.types(findings)
        stated = self.options.crs or self.reference()
        ref = None if stated is None else SpatialRef.parse(_plain_code(stated))
        extent: Extent | None = None
        swapped = False
        if np.isfinite(low).all():
            if ref is not None:
                swapped = is_northing_first(ref, low, high, findings)
            x, y = (1, 0) if swapped else (0, 1)
            extent = (float(low[x]), float(low[y]), float(high[x]), float(high[y]))
        if ref is not None and ref.note:
            findings.add("vertical-unknown", "info", ref.note)
        files = [self.path]
        image_nbytes = []
        for image in self.images:
            beside = Beside(self.path, findings)
            image_nbytes.append(len(beside.read(image, "texture") or b""))
            files += beside.files[1:]
        files = list(dict.fromkeys((*files, *self.also_read())))
        layer = LayerInfo(
            name=self.path.stem,
            geometry_type="Polygon",
            features=count,
            fields=tuple(FieldInfo(name, str(kind)) for name, kind in columns.items()),
            extent=extent,
            ref=ref,
            encoding=None,
            has_z=True,
            extra={
                "format": self.format(),
                "lod": dict(sorted(lods.items())),
                "mesh": True,
                "images": len(self.images),
            },
        )
        nbytes = sum(f.stat().st_size for f in files)
        info = SourceInfo(
            self.path, self.name, self.kind, (layer,), tuple(files), nbytes, tuple(findings)
        )
        self.findings = findings
        return _Survey(columns, count, extent, ref, swapped, tuple(image_nbytes), info)

    def _check_reach(self, name: str, faces: Faces) -> None:
        # Not within: NaN fails too.
        if not np.abs(faces.points).max() <= _MAX_COORDINATE:
            odd = faces.points[~(np.abs(faces.points).max(axis=1) <= _MAX_COORDINATE)][0]
            raise self.unreadable(f"object {name!r} has the position {odd.tolist()}")

    def also_read(self) -> Sequence[Path]:
        """Return files that were read beside the images and the file itself."""
        return ()

    def unreadable(self, problem: str) -> SourceUnreadable:
        """Return the error of a damaged file."""
        return SourceUnreadable(problem, source=self.path, remedy="export it again")

    def close(self) -> None:
        """Let go of what the first pass found."""
        self._survey = None


def _plain_code(text: str) -> str:
    """Turn the addresses and URNs of EPSG codes into ``EPSG:code``, or ``EPSG:code+vertical``."""
    for name, code in _ADV.items():
        if name in text:
            return code
    if "/" in text or "urn" in text.lower():
        codes = _CODE.findall(text)
        if codes:
            return f"EPSG:{'+'.join(codes[:2])}"
    return text


def _renamed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{n}_2" if n in OWN_FIELDS else n: v for n, v in attributes.items()}


def _value(feature: CityFeature, name: str) -> Any:
    if name in OWN_FIELDS:
        return getattr(feature, name)
    plain = name.removesuffix("_2")
    return feature.attributes.get(plain if plain in OWN_FIELDS else name)


def _turned(faces: Faces, swapped: bool) -> Faces:
    return replace(faces, points=faces.points[:, [1, 0, 2]]) if swapped else faces
