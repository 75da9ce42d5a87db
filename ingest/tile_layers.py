"""The layers of a vector tileset: which layer of which source each is made of, and how it is drawn.

A source layer becomes a layer of the tiles under its own name, under the asset's id if it is the
only one, under the file's if several files were named, or under the name of a ``[[layers]]`` table
of the manifest. Several source layers of one name become one layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tiling.errors import ConfigError
from tiling.tilers.layer_rules import MAX_ZOOM, LayerRule

# What ``--layer`` says to take every layer that has geometry.
EVERY_LAYER = "*"
_ZOOMS = re.compile(r"(\d{1,2})(?:-(\d{1,2}))?")
_TABLE = {
    "name": str,
    "source": str,
    "layer": str,
    "zooms": str,
    "attributes": list,
    "rename": dict,
    "rank": str,
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What one ``[[layers]]`` table says.

    Attributes:
        name: of the layer in the tiles.
        source: the file; None: the only one.
        layer: of the file; None: its only one, or that of the name.
        rule: how it is drawn.
    """

    name: str
    source: Path | None
    layer: str | None
    rule: LayerRule


@dataclass(frozen=True, slots=True)
class LayerWishes:
    """What options say of the layers of the tiles.

    Attributes:
        tables: one of each ``[[layers]]``.
        zooms, attributes, rank: texts as the command line has them: ``NAME=VALUE``, or ``VALUE``
            for all layers.
        rename: ``OLD=NEW``, for every layer that has the field.
    """

    tables: tuple[Declared, ...] = ()
    zooms: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rank: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        tables: Iterable[Mapping[str, Any]],
        zooms: Sequence[str],
        attributes: Sequence[str],
        rank: Sequence[str],
        rename: Sequence[str],
    ) -> LayerWishes:
        """Read the texts of the options.

        Raises:
            ConfigError: a text or a table that means nothing.
        """
        return cls(
            tuple(_declared(table) for table in tables),
            {name: _zooms(text) for name, text in map(_named, zooms)},
            {name: _names(text) for name, text in map(_named, attributes)},
            {name: _rank(text) for name, text in map(_named, rank)},
            dict(_renamed(text) for text in rename),
        )

    def __bool__(self) -> bool:
        """Whether anything is declared."""
        return bool(self.tables or self.zooms or self.attributes or self.rank or self.rename)

    def rules(self, fields: Mapping[str, Sequence[str]]) -> dict[str, LayerRule]:
        """Return the rule of each layer of the tiles.

        Args:
            fields: name in the tiles -> its fields in the sources.

        Raises:
            ConfigError: a layer that is not there, or a field that no layer has.
        """
        for given in (self.zooms, self.attributes, self.rank):
            for name in given:
                if name and name not in fields:
                    raise ConfigError(f"no layer {name!r}; the layers are {', '.join(fields)}")
        self._check_fields(fields)
        declared: dict[str, LayerRule] = {}
        for table in self.tables:
            if declared.setdefault(table.name, table.rule) != table.rule:
                raise ConfigError(
                    f"two [[layers]] of the name {table.name!r} differ: say the same of both"
                )
        rules = {name: self._rule(name, set(own), declared) for name, own in fields.items()}
        return {name: rule for name, rule in rules.items() if rule != LayerRule()}

    def _rule(self, name: str, own: set[str], declared: Mapping[str, LayerRule]) -> LayerRule:
        rule = declared.get(name, LayerRule())
        if (zooms := self.zooms.get(name, self.zooms.get(""))) is not None:
            rule = replace(rule, min_zoom=zooms[0], max_zoom=zooms[1])
        if name in self.attributes:
            rule = replace(rule, attributes=self.attributes[name])
        elif "" in self.attributes:
            rule = replace(rule, attributes=tuple(n for n in self.attributes[""] if n in own))
        rank = self.rank.get(name, self.rank.get(""))
        if rank is not None and (name in self.rank or rank[0] in own):
            rule = replace(rule, rank=rank[0], ascending=rank[1])
        extra = {old: new for old, new in self.rename.items() if old in own}
        if extra:
            rule = replace(rule, rename=tuple({**dict(rule.rename), **extra}.items()))
        return rule

    def _check_fields(self, fields: Mapping[str, Sequence[str]]) -> None:
        every = {name for own in fields.values() for name in own}
        wanted = [*self.attributes.get("", ()), *self.rename]
        if "" in self.rank:
            wanted.append(self.rank[""][0])
        per_layer = [(n, a) for layer, names in self.attributes.items() for a in names
                     for n in [layer] if layer]  # fmt: skip
        per_layer += [(layer, rank[0]) for layer, rank in self.rank.items() if layer]
        for table in self.tables:
            rule = table.rule
            named = (*(rule.attributes or ()), *dict(rule.rename), *filter(None, [rule.rank]))
            per_layer += [(table.name, name) for name in named]
        for name in wanted:
            if name not in every:
                raise ConfigError(f"no layer has a field {name!r}; there are {sorted(every)}")
        for layer, name in per_layer:
            if name not in fields.get(layer, ()):
                raise ConfigError(
                    f"layer {layer!r} has no field {name!r}; it has "
                    f"{', '.join(fields.get(layer, ())) or 'none'}"
                )


def parse_table(path: Path, table: Any) -> dict[str, Any]:
    """Return a ``[[layers]]`` table of a manifest, its source beside the manifest.

    Raises:
        ConfigError: it is not one.
    """
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ConfigError(f'{path}: a layer needs its name: name = "roads", not {table!r}')
    if unknown := sorted(set(table) - set(_TABLE)):
        raise ConfigError(
            f"{path}: unknown names in [[layers]]: {', '.join(unknown)}; known: {sorted(_TABLE)}"
        )
    for name, value in table.items():
        if not isinstance(value, _TABLE[name]):
            raise ConfigError(
                f"{path}: [[layers]] {name} = {value!r} is no {_TABLE[name].__name__}"
            )
    if "source" in table:
        return {**table, "source": str(path.parent / table["source"])}
    return dict(table)


def _declared(table: Mapping[str, Any]) -> Declared:
    low, high = _zooms(table["zooms"]) if "zooms" in table else (None, None)
    rank, ascending = _rank(table["rank"]) if "rank" in table else (None, False)
    attributes = tuple(table["attributes"]) if "attributes" in table else None
    rule = LayerRule(low, high, attributes, tuple(table.get("rename", {}).items()), rank, ascending)
    source = Path(table["source"]) if "source" in table else None
    return Declared(table["name"], source, table.get("layer"), rule)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if equals and not name:
        raise ConfigError(f"{text!r} names no layer before the '='")
    return name, value


def _zooms(text: str) -> tuple[int, int | None]:
    match = _ZOOMS.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"zooms {text!r} are neither like 8-16 nor like 8")
    low, high = int(match[1]), None if match[2] is None else int(match[2])
    if low > (MAX_ZOOM if high is None else high) or (high or 0) > MAX_ZOOM:
        raise ConfigError(f"zooms {text!r}: they must ascend within 0 to {MAX_ZOOM}")
    return low, high


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _rank(text: str) -> tuple[str, bool]:
    name, colon, order = text.rpartition(":")
    if not colon:
        return text, False
    if order not in ("asc", "desc") or not name:
        raise ConfigError(f"rank {text!r} is not like population:desc or grade:asc")
    return name, order == "asc"


def _renamed(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise ConfigError(f"--rename {text!r} is not like 名称=name")
    return old, new
