"""CQL2 text and JSON -> the tree of CQL2 JSON, bounded in size and depth.

The grammar is the `cql2` package's. Its parser recurses as deep as the text says, and ends the
process when the stack ends; so what nests is counted before it is called. It also reads every
number as a double: whole numbers from 2^53 on would silently become others, and are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import cql2

from tiling.errors import QueryInvalid

MAX_TEXT = 100_000
MAX_DEPTH = 50
MAX_NODES = 25_000

Tree = Mapping[str, Any] | bool

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_PREFIXES = re.compile(r"[-+*/^%]|\bNOT\b|\bDIV\b", re.IGNORECASE)
_MAX_PREFIXES = 200
_EXACT = 2**53


def parse_text(text: str) -> Tree:
    """Read ``cql2-text``.

    Raises:
        QueryInvalid: no filter, or larger or deeper than the limits of this module.
    """
    if len(text) > MAX_TEXT:
        raise QueryInvalid(f"the filter is longer than {MAX_TEXT} characters; send it as JSON")
    bare = _NUMBER.sub("0", _QUOTED.sub("''", text))
    depth = deepest = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH or len(_PREFIXES.findall(bare)) > _MAX_PREFIXES:
        raise QueryInvalid(f"the filter nests deeper than {MAX_DEPTH} brackets or operators")
    try:
        return _checked(cql2.parse_text(text).to_json())
    except cql2.ParseError as error:
        raise QueryInvalid(f"the filter is no CQL2 text: {error}") from error


def parse_json(data: Any) -> Tree:
    """Read ``cql2-json``, as it comes from a JSON reader.

    Raises:
        QueryInvalid: no filter, or larger or deeper than the limits of this module.
    """
    _checked(data)
    try:
        return _checked(cql2.parse_json(json.dumps(data, allow_nan=False)).to_json())
    except (cql2.ParseError, ValueError, TypeError) as error:
        raise QueryInvalid(f"the filter is no CQL2 JSON: {error}") from error


def _checked(tree: Any) -> Tree:
    """Return a tree whose size, depth and numbers are within bounds."""
    if not isinstance(tree, dict | bool):
        raise QueryInvalid(f"the filter {str(tree)[:80]!r} is no condition")
    level: list[Any] = [tree]
    count = depth = 0
    while level:
        count += len(level)
        depth += 1
        # A geometry nests four deep by itself.
        if count > MAX_NODES or depth > 2 * MAX_DEPTH:
            raise QueryInvalid(f"the filter has more than {MAX_NODES} parts, or nests too deep")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
            elif isinstance(node, int | float) and not abs(node) < _EXACT:
                raise QueryInvalid(
                    f"the number {node:.17g} in the filter cannot be kept exactly; codes are text: "
                    "put them into quotes"
                )
        level = below
    return tree
