"""The attributes of features as their layers show them, and how much each feature matters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiling.errors import FieldInvalid
from tiling.tilers.layer_rules import LayerRule, LayerRules, rule_of

# "\x00" cannot begin a field of any source format.
_ROW = "\x00row"


def chosen_attributes(table: pa.Table, layers: pa.ChunkedArray, rules: LayerRules) -> pa.Table:
    """Leave of each feature the fields that its layer shows, under their names in the tiles.

    Args:
        table: N rows.
        layers: N names of layers, none null.
        rules: by layer.

    Returns:
        N rows in the same order, with the fields of all layers.

    Raises:
        FieldInvalid: a rule names a field that is not there, or two fields get one name.
    """
    if not any(rule.attributes is not None or rule.rename for rule in rules.values()):
        return table
    names = pc.unique(layers).to_pylist()
    if len(names) == 1:
        return _chosen(table, names[0], rule_of(rules, names[0]))
    parts = []
    for name in names:
        own = np.flatnonzero(pc.equal(layers, name).to_numpy(zero_copy_only=False))
        part = _chosen(table.take(pa.array(own)), name, rule_of(rules, name))
        parts.append(part.append_column(_ROW, pa.array(own)))
    whole = pa.concat_tables(parts, promote_options="permissive")
    order = np.argsort(whole.column(_ROW).to_numpy(), kind="stable")
    return whole.take(pa.array(order)).drop_columns([_ROW])


def _chosen(table: pa.Table, layer: str, rule: LayerRule) -> pa.Table:
    wanted = table.column_names if rule.attributes is None else list(rule.attributes)
    called = dict(rule.rename)
    for name in (*wanted, *called):
        _require(table, name, layer)
    names = [called.get(name, name) for name in wanted]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise FieldInvalid(
            f"layer {layer!r}: two fields would be called {repeated[0]!r} in the tiles",
            remedy="rename one of them otherwise, or leave one out",
        )
    return table.select(wanted).rename_columns(names)


def importance(table: pa.Table, layers: pa.ChunkedArray, rules: LayerRules) -> NDArray[np.float64]:
    """Return how much each of N features matters: (N,) float64, -inf where no rank says so.

    Args:
        table: N rows, with the fields of the source.
        layers: N names of layers, none null.
        rules: by layer.

    Raises:
        FieldInvalid: the field of the ranks is not there, or holds no numbers.
    """
    result = np.full(len(layers), -np.inf)
    for name in pc.unique(layers).to_pylist():
        rule = rule_of(rules, name)
        if rule.rank is None:
            continue
        _require(table, rule.rank, name)
        column = table.column(rule.rank)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise FieldInvalid(
                f"layer {name!r}: field {rule.rank!r} is {kind}, so it cannot rank features",
                remedy="rank by a field of numbers",
            )
        ranks = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
        ranks = -ranks if rule.ascending else ranks
        own = pc.equal(layers, name).to_numpy(zero_copy_only=False) & ~np.isnan(ranks)
        result[own] = ranks[own]
    return result


def _require(table: pa.Table, name: str, layer: str) -> None:
    if name not in table.column_names:
        raise FieldInvalid(
            f"layer {layer!r} has no field {name!r}",
            remedy=f"name some of {', '.join(table.column_names)}",
        )
