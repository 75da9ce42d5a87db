"""Overrides: what a manifest says of single features, whatever their columns say.

``[[overrides]]`` tables name features by their columns and give a height, a base, a roof, a number
of storeys, or ``drop = true``. Where several name the same feature, the later one wins, value by
value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.errors import ConfigError
from tiling.findings import Findings

NUMBERS = ("height", "base", "roof", "floors")
MATCHED, UNMATCHED = "override-matched", "override-unmatched"
# Between the values of several columns; no text of a file holds it.
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Override:
    """What is said of the features that carry certain values.

    Attributes:
        match: column and value as text, by column; all must be equal.
        numbers: ``height``, ``base``, ``roof`` (metres; base and roof in the vertical datum) and
            ``floors``, those that were given.
        drop: whether the features are left out.
    """

    match: tuple[tuple[str, str], ...]
    numbers: tuple[tuple[str, float], ...]
    drop: bool

    @classmethod
    def from_table(cls, table: Any) -> Override:
        """Read one table of a manifest.

        Raises:
            ConfigError: it names no feature, says nothing of it, or something impossible.
        """
        match = table.get("match") if isinstance(table, Mapping) else None
        if not isinstance(match, Mapping) or not match:
            raise ConfigError(
                f'[[overrides]]: {table!r} names no feature: match = {{ "编码" = "A-1" }}'
            )
        values = {k: v for k, v in table.items() if k not in ("match", "drop")}
        if unknown := sorted(set(values) - set(NUMBERS)):
            raise ConfigError(
                f"[[overrides]]: unknown names {', '.join(unknown)}; known: match, drop, "
                f"{', '.join(NUMBERS)}"
            )
        said = cls(
            tuple((name, _text(name, match[name])) for name in sorted(match)),
            tuple((name, _number(name, value)) for name, value in values.items()),
            _flag(table.get("drop", False)),
        )
        if said.drop == bool(values):
            raise ConfigError(
                f"[[overrides]] of {said}: give one or more of {', '.join(NUMBERS)}, or drop = true"
            )
        return said

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value!r}" for name, value in self.match)


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"[[overrides]]: {name} = {value!r} is neither a text nor a number")
    if isinstance(value, str):
        return value
    import pyarrow as pa  # most runs declare nothing of single features

    # Numbers are compared in the spelling that columns of numbers get.
    return str(pa.scalar(value).cast(pa.string()))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"[[overrides]]: {name} = {value!r} is no number")
    if name in ("height", "floors") and value <= 0:
        raise ConfigError(f"[[overrides]]: {name} = {value!r} is not above 0")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"[[overrides]]: drop = {value!r} is not true or false")
    return value


@dataclass(frozen=True, slots=True)
class Overridden:
    """What overrides say of N features.

    Attributes:
        numbers: name of `NUMBERS` -> (N,) float64, NaN where nothing is said.
        drop: (N,) whether the feature is left out.
    """

    numbers: dict[str, NDArray[np.float64]]
    drop: NDArray[np.bool_]

    def take(self, rows: NDArray[np.bool_]) -> Overridden:
        """Return what is said of some of the features."""
        return Overridden({k: v[rows] for k, v in self.numbers.items()}, self.drop[rows])


def apply_overrides(
    overrides: Sequence[Override], batch: FeatureBatch, findings: Findings
) -> Overridden:
    """Look up what is said of each feature; every override that matches is a finding.

    Args:
        overrides: in the order of the manifest.
        batch: N features with the columns that overrides name; what lacks one matches nothing.
        findings: counts the features of each override.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    latest = {name: np.full(len(batch), -1) for name in (*NUMBERS, "drop")}
    by_columns: dict[tuple[str, ...], list[int]] = {}
    for number, each in enumerate(overrides):
        by_columns.setdefault(tuple(name for name, _ in each.match), []).append(number)
    for columns, members in by_columns.items():
        if any(name not in batch.attributes.column_names for name in columns):
            continue
        texts = [batch.attributes.column(name).cast(pa.string()) for name in columns]
        text = pc.binary_join_element_wise(*texts, _SEPARATOR) if len(texts) > 1 else texts[0]
        wanted = [_SEPARATOR.join(value for _, value in overrides[i].match) for i in members]
        for same in _rounds(wanted):
            place = pc.index_in(text, pa.array([wanted[i] for i in same], pa.string()))
            found = pc.fill_null(place, -1).to_numpy()
            numbers = np.array([members[i] for i in same])
            for name, last in latest.items():
                says = np.array([_says(overrides[i], name) for i in numbers])
                hit = np.where(found >= 0, np.where(says, numbers, -1)[found], -1)
                np.maximum(last, hit, out=last)
            counts = np.bincount(found[found >= 0], minlength=len(same))
            for i, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                findings.add(MATCHED, "info", f"override {i + 1}: {overrides[i]}", count)
    values = {
        name: np.array([dict(each.numbers).get(name, np.nan) for each in overrides] + [np.nan])
        for name in NUMBERS
    }
    # -1 is the last value, which says nothing.
    return Overridden(
        {name: values[name][latest[name]] for name in NUMBERS}, np.asarray(latest["drop"] >= 0)
    )


def _rounds(texts: Sequence[str]) -> list[list[int]]:
    """Return places of texts in lists that name no text twice, in order."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for place, text in enumerate(texts):
        turn = seen.get(text, 0)
        seen[text] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def _says(override: Override, name: str) -> bool:
    return override.drop if name == "drop" else name in dict(override.numbers)


def note_unmatched(overrides: Sequence[Override], findings: Findings) -> None:
    """Report the overrides of which no feature took notice, once all features have been seen."""
    matched = {f.message for f in findings if f.rule == MATCHED}
    unmatched = [
        str(each)
        for number, each in enumerate(overrides)
        if f"override {number + 1}: {each}" not in matched
    ]
    findings.add(
        UNMATCHED,
        "warning",
        "overrides of the manifest that match no feature",
        len(unmatched),
        unmatched,
    )
