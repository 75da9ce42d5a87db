"""How a raster looks: which bands or values, over which range, in which colours.

What a caller asks is checked here, before any pixel is read; what he leaves open follows from the
raster. Expressions go to numexpr, which would evaluate their constants in Python: an
expression is a tree of a few kinds of nodes, each with a band below it where it could grow.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numexpr
import numpy as np
from numpy.typing import NDArray
from rio_tiler.colormap import cmap
from rio_tiler.errors import InvalidExpression
from rio_tiler.expression import get_expression_blocks, parse_expression

from cim_server.errors import InvalidRequest
from styles import load_raster_style, raster_style_names

_MAX_EXPRESSION, _MAX_BLOCKS, _MAX_CONSTANT = 256, 4, 1e12
PARAMETERS = frozenset(("bidx", "expression", "rescale", "colormap_name", "style", "resampling"))


@dataclass(frozen=True, slots=True)
class Look:
    """What a caller asked for; None: as the raster has it.

    Attributes:
        bands: bands to show, from 1.
        expression: values computed from bands, blocks separated by ``;``.
        ranges: low and high of each band or block, one for all or one each.
        ramp: 256 RGBA colours as bytes.
        nearest: do not interpolate between pixels.
    """

    bands: tuple[int, ...] | None = None
    expression: str | None = None
    ranges: tuple[tuple[float, float], ...] | None = None
    ramp: bytes | None = None
    nearest: bool = False

    @classmethod
    def of(cls, query: Sequence[tuple[str, str]]) -> Look:
        """Read a look from a query.

        Raises:
            InvalidRequest: a value means nothing, or two contradict each other.
        """
        asked: dict[str, list[str]] = {}
        for name, value in query:
            asked.setdefault(name, []).append(value)
        look = _styled(asked.get("style"))
        if "bidx" in asked and "expression" in asked:
            raise InvalidRequest("bidx and expression are two answers to one question: give one")
        bands, expression, ranges, ramp = look.bands, look.expression, look.ranges, look.ramp
        if "bidx" in asked:
            bands, expression = _bands(asked["bidx"]), None
        if "expression" in asked:
            expression = check_expression(asked["expression"][-1])
        if "rescale" in asked:
            ranges = _ranges(asked["rescale"])
        if "colormap_name" in asked:
            ramp = _colormap(asked["colormap_name"][-1])
        resampling = asked.get("resampling", ["bilinear"])[-1]
        if resampling not in ("nearest", "bilinear"):
            raise InvalidRequest(f"resampling={resampling!r} is neither nearest nor bilinear")
        return cls(bands, expression, ranges, ramp, resampling == "nearest")

    def inputs(self) -> tuple[int, ...] | None:
        """Return the bands to read, None when the caller left them open."""
        if self.expression is not None:
            return tuple(sorted(set(parse_expression(self.expression))))
        return self.bands


def _styled(names: list[str] | None) -> Look:
    if not names:
        return Look()
    try:
        style = load_raster_style(names[-1])
    except KeyError:
        raise InvalidRequest(
            f"style={names[-1]!r}: there are {', '.join(raster_style_names())}"
        ) from None
    span = tuple(style["range"]) if "range" in style else None
    return Look(
        tuple(style["bands"]) if "bands" in style else None,
        style.get("expression"),
        (span,) if span else None,
        ramp_table(style["ramp"], *(span or (0.0, 1.0))) if "ramp" in style else None,
    )


def ramp_table(stops: Sequence[tuple[float, str]], low: float, high: float) -> bytes:
    """Return 256 RGBA colours between `low` and `high` of a ramp of ``(value, "#rrggbb")``."""
    at = np.array([value for value, _ in stops], np.float64)
    colours = np.array([list(bytes.fromhex(c.removeprefix("#"))) for _, c in stops], np.float64)
    places = np.linspace(low, high, 256)
    table = np.full((256, 4), 255, np.uint8)
    for channel in range(3):
        table[:, channel] = np.rint(np.interp(places, at, colours[:, channel]))
    return table.tobytes()


@lru_cache(maxsize=64)
def _colormap(name: str) -> bytes:
    colours = cmap.get(name) if name in cmap.list() else None
    if not isinstance(colours, Mapping) or sorted(colours) != list(range(256)):
        raise InvalidRequest(
            f"colormap_name={name!r} is no ramp of 256 colours; there are, among others, "
            f"viridis, terrain, rdylgn; styles of our own are {', '.join(raster_style_names())}"
        )
    return np.array([colours[i] for i in range(256)], dtype=np.uint8).tobytes()


def _bands(texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(t) for text in texts for t in text.split(","))
    except ValueError:
        raise InvalidRequest(f"bidx={','.join(texts)!r} is not a list of band numbers") from None


def _ranges(texts: list[str]) -> tuple[tuple[float, float], ...]:
    ranges = []
    for text in texts:
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 2 or not -1e12 < numbers[0] < numbers[1] < 1e12:
            raise InvalidRequest(f"rescale={text!r} is not two rising numbers: low,high")
        ranges.append((numbers[0], numbers[1]))
    return tuple(ranges)


@lru_cache(maxsize=1024)
def check_expression(text: str) -> str:
    """Return an expression that is safe to evaluate.

    Raises:
        InvalidRequest: it is too long, names no band, or its constants could grow without end.
    """
    if len(text) > _MAX_EXPRESSION:
        raise InvalidRequest(f"expression is longer than {_MAX_EXPRESSION} characters")
    try:
        parse_expression(text)
    except (InvalidExpression, ValueError) as error:
        raise InvalidRequest(f"expression {text!r} is refused: {error}") from error
    blocks = get_expression_blocks(text)
    if len(blocks) > _MAX_BLOCKS:
        raise InvalidRequest(f"expression has {len(blocks)} parts; at most {_MAX_BLOCKS}")
    for block in blocks:
        for node in ast.walk(ast.parse(block, mode="eval")):
            _check_node(node, text)
    return text


def _check_node(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.Constant) and not _is_number(node):
        raise InvalidRequest(f"expression {text!r}: {node.value!r} is no number of use here")
    # Python computes what stands between constants, without bound: 9**9**9**9.
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        bounded = _is_number(node.right, 16)
        if not bounded or not any(isinstance(n, ast.Name) for n in ast.walk(node.left)):
            raise InvalidRequest(
                f"expression {text!r}: powers are of bands, with an exponent up to 16"
            )


def _is_number(node: ast.AST, limit: float = _MAX_CONSTANT) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float):
        return False
    return abs(node.value) <= limit


def evaluate(expression: str, bands: Sequence[int], values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the blocks of a checked expression, (blocks, rows, columns) float32.

    Args:
        expression: as `check_expression` returned it.
        bands: numbers of the bands in `values`.
        values: (bands, rows, columns).
    """
    names = {f"b{band}": values[i].astype(np.float32) for i, band in enumerate(bands)}
    blocks = []
    for block in get_expression_blocks(expression):
        found = numexpr.evaluate(block.replace("B", "b"), local_dict=names, global_dict={})
        blocks.append(np.broadcast_to(found, values.shape[1:]).astype(np.float32))
    return np.stack(blocks)
