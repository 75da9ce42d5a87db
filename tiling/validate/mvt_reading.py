"""Reading vector tiles to judge them: shares no code with the encoder but the varints.

The messages of features are walked one by one; their geometry is then decoded for the whole layer
at once, one command of every feature per step. What the specification knows must have the wire
type that it gives; fields that it does not know are passed over, but for those of values, which
would leave an attribute without a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.varint import decode_varints, unzigzag

Ints = NDArray[np.int64]
MOVE_TO, LINE_TO, CLOSE_PATH = 1, 2, 7

# Tags as they are written: the number of the field and its wire type.
_LAYER = 0x1A
_NAME, _FEATURE, _KEY, _VALUE, _EXTENT, _VERSION = 0x0A, 0x12, 0x1A, 0x22, 0x28, 0x78
_ID, _TAGS, _KIND, _GEOMETRY = 0x08, 0x12, 0x18, 0x22
_STRING = b"\x0a"
_NUMBERS = frozenset((b"\x20", b"\x28", b"\x30", b"\x38"))  # int64, uint64, sint64, bool
_FIXED = {b"\x15": 5, b"\x19": 9}  # float and double, with their sizes
_LAYER_NUMBERS = frozenset({1, 2, 3, 4, 5, 15})
_FEATURE_NUMBERS = frozenset({1, 2, 3, 4})
_VERSIONS = (1, 2)


@dataclass(frozen=True, slots=True)
class ReadLayer:
    """One layer of a tile as it was found.

    Attributes:
        name, version, extent: of the layer.
        keys: attribute names.
        values: number of values.
        ids: (N,) int64, -1 where a feature has none; above 2**63 they wrap around.
        kinds: (N,) int64 geometry types.
        tags: (T,) int64, pairs of key and value index of all features, end to end.
        tag_counts: (N,) int64.
        commands: (C, 4) int64: feature, position, command, count; by position.
        xy: (P, 2) int64 cursor positions, tile units, of all features, end to end.
        points_of: (P,) int64, the row of `commands` that each belongs to.
    """

    name: str
    version: int
    extent: int
    keys: list[str]
    values: int
    ids: Ints
    kinds: Ints
    tags: Ints
    tag_counts: Ints
    commands: Ints
    xy: Ints
    points_of: Ints


def read_tile(data: bytes) -> list[ReadLayer]:
    """Decode a tile.

    Raises:
        FormatError: the bytes are no vector tile of version 1 or 2.
    """
    return [_layer(body) for tag, body in _fields(data) if _is(tag, _LAYER)]


def _is(tag: int, layer: int) -> bool:
    if tag != layer:
        _pass_over(tag, frozenset({layer >> 3}), "a tile")
    return tag == layer


def _pass_over(tag: int, known: frozenset[int], where: str) -> None:
    if tag >> 3 in known:
        raise FormatError(f"field {tag >> 3} of {where} has the wrong wire type {tag & 7}")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    # Yields tag and payload; numbers come as their little-endian varint bytes.
    position, end = 0, len(data)
    while position < end:
        # Nearly all tags and most lengths are one byte: no call for those.
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = _varint(data, position - 1)
        kind = tag & 7
        start = position
        if kind == 2:
            length, start = _varint(data, position)
            position = start + length
        elif kind == 0:
            while position < end and data[position] >= 0x80:
                position += 1
            position += 1
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise FormatError(f"wire type {kind} is unknown")
        if position > end:
            raise FormatError("a message is cut off")
        yield tag, data[start:position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    if position < len(data) and data[position] < 0x80:
        return data[position], position + 1
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise FormatError("a varint is cut off or too long")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _layer(body: bytes) -> ReadLayer:
    name: str | None = None
    version, extent = 0, 4096
    keys: list[str] = []
    values = 0
    ids: list[int] = []
    kinds: list[int] = []
    tags: list[bytes] = []
    geometry: list[bytes] = []
    for tag, payload in _fields(body):
        if tag == _FEATURE:
            identity, kind, tag_bytes, geometry_bytes = _feature(payload)
            ids.append(identity)
            kinds.append(kind)
            tags.append(tag_bytes)
            geometry.append(geometry_bytes)
        elif tag == _KEY:
            keys.append(_text(payload))
        elif tag == _VALUE:
            _judge_value(payload)
            values += 1
        elif tag == _NAME:
            name = _text(payload)
        elif tag == _VERSION:
            version = _varint(payload, 0)[0]
        elif tag == _EXTENT:
            extent = _varint(payload, 0)[0]
        else:
            _pass_over(tag, _LAYER_NUMBERS, "a layer")
    if not name:
        raise FormatError("a layer has no name")
    if version not in _VERSIONS:
        raise FormatError(f"layer {name!r} is of version {version or 'none'}, not 1 or 2")
    tag_numbers, tag_counts = _numbers(tags)
    commands, xy, points_of = _decode(*_numbers(geometry))
    return ReadLayer(
        name,
        version,
        extent,
        keys,
        values,
        np.array([i if i < 1 << 63 else i - (1 << 64) for i in ids], dtype=np.int64),
        np.array(kinds, dtype=np.int64),
        tag_numbers,
        tag_counts,
        commands,
        xy,
        points_of,
    )


def _feature(message: bytes) -> tuple[int, int, bytes, bytes]:
    identity, kind, tags = -1, 0, b""
    geometry: bytes | None = None
    for tag, part in _fields(message):
        if tag == _ID:
            identity = _varint(part, 0)[0]
        elif tag == _TAGS:
            tags = part
        elif tag == _KIND:
            kind = _varint(part, 0)[0]
        elif tag == _GEOMETRY:
            if geometry is not None:
                raise FormatError("a feature has two geometries")
            geometry = part
        else:
            _pass_over(tag, _FEATURE_NUMBERS, "a feature")
    return identity, kind, tags, geometry or b""


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"a name is not UTF-8: {error}") from error


def _judge_value(message: bytes) -> None:
    """Refuse a value that is not exactly one of the seven that there are."""
    tag, size = message[:1], len(message)
    if tag == _STRING:
        length, start = _varint(message, 1)
        sound = start + length == size
        _text(message[start:])
    elif tag in _NUMBERS:
        sound = _varint(message, 1)[1] == size
    else:
        sound = size == _FIXED.get(tag)
    if not sound:
        raise FormatError(f"a value is none of the seven that there are: {message[:20].hex()}")


def _numbers(parts: list[bytes]) -> tuple[Ints, Ints]:
    # All numbers end to end, and how many each part holds.
    joined = np.frombuffer(b"".join(parts), dtype=np.uint8)
    ends = np.concatenate(([0], np.cumsum(joined < 0x80)))
    stops = np.cumsum([len(p) for p in parts], dtype=np.int64)
    counts = np.diff(ends[np.concatenate(([0], stops)).astype(np.int64)])
    filled = stops[stops > 0] - 1
    if (joined[filled] >= 0x80).any():
        raise FormatError("the last number of a feature is cut off")
    return decode_varints(joined).astype(np.int64), counts.astype(np.int64)


def _decode(numbers: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
    stops = np.cumsum(counts)
    feature = np.flatnonzero(counts > 0)
    position = (stops - counts)[feature]
    found = []
    while len(feature):
        command, count = numbers[position] & 7, numbers[position] >> 3
        drawn = command != CLOSE_PATH
        if not np.isin(command, (MOVE_TO, LINE_TO, CLOSE_PATH)).all() or (count < 1).any():
            raise FormatError("a geometry holds an unknown or empty command")
        following = position + 1 + np.where(drawn, 2 * count, 0)
        if (following > stops[feature]).any():
            raise FormatError("a geometry ends within a command")
        found.append(np.stack([feature, position, command, count], axis=1))
        more = following < stops[feature]
        feature, position = feature[more], following[more]
    if not found:
        empty = np.empty((0, 4), dtype=np.int64)
        return empty, np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)
    commands = np.concatenate(found)
    commands = commands[np.argsort(commands[:, 1])]
    header = np.zeros(len(numbers), dtype=bool)
    header[commands[:, 1]] = True
    deltas = unzigzag(numbers[~header].astype(np.uint64)).reshape(-1, 2)
    drawn = np.where(commands[:, 2] == CLOSE_PATH, 0, commands[:, 3])
    points_of = np.repeat(np.arange(len(commands)), drawn)
    # The cursor starts anew in every feature: take off what the sum had reached before it.
    sums = np.cumsum(deltas, axis=0)
    owner = commands[points_of, 0]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    before = (sums - deltas)[starts]
    lengths = np.diff(np.append(starts, len(owner)))
    return commands, sums - np.repeat(before, lengths, axis=0), points_of
