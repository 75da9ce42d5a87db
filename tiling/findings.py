"""Findings: what was dropped, repaired, assumed or noticed, with counts.

A law of the house: every drop, repair and assumption is counted in the report.
Whoever decides (reader, quality rule, tiler) adds a finding here; nobody logs it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "assumption", "repair", "drop", "warning", "error"]

MAX_SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about a source or a tileset.

    Attributes:
        rule: stable identifier in kebab-case, e.g. ``height-defaulted``.
        severity: what was done about it.
        message: a sentence for people.
        count: how many features, pixels or tiles it concerns.
        samples: at most ``MAX_SAMPLES`` identifiers or values, for looking them up.
    """

    rule: str
    severity: Severity
    message: str
    count: int = 1
    samples: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "message": self.message,
            "count": self.count,
            "samples": list(self.samples),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """Make a finding from what `to_json` returned."""
        return cls(
            data["rule"], data["severity"], data["message"], data["count"], tuple(data["samples"])
        )


@dataclass(slots=True)
class Findings:
    """A collection of findings; equal rule, severity and message add their counts."""

    _by_key: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    def add(
        self,
        rule: str,
        severity: Severity,
        message: str,
        count: int = 1,
        samples: Iterable[Any] = (),
    ) -> None:
        """Add a finding; a count of zero adds nothing."""
        if count:
            self.merge([Finding(rule, severity, message, count, tuple(samples)[:MAX_SAMPLES])])

    def merge(self, others: Iterable[Finding]) -> None:
        """Add every finding of `others`."""
        for new in others:
            key = (new.rule, new.severity, new.message)
            old = self._by_key.get(key)
            if old is not None:
                samples = (old.samples + new.samples)[:MAX_SAMPLES]
                new = Finding(new.rule, new.severity, new.message, old.count + new.count, samples)
            self._by_key[key] = new

    def count(self, severity: Severity) -> int:
        """Return the sum of the counts of one severity."""
        return sum(f.count for f in self if f.severity == severity)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the findings as JSON objects, in the order of their first appearance."""
        return [f.to_json() for f in self]

    def __iter__(self) -> Iterator[Finding]:
        return iter(tuple(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)
