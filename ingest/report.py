"""The report of an ingest: what was declared, found, assumed, repaired, dropped, made and timed.

Written on success and on refusal; the same JSON rests in the catalogue beside the version.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.plan import Plan, error_json
from tiling.errors import CimError, ConfigError, SourceError
from tiling.findings import Findings


@dataclass(slots=True)
class Report:
    """Collects what an ingest did.

    Attributes:
        options: what was declared.
        plan: the plan, once there is one.
        findings: of all steps.
        shifts: coordinate operations that were applied.
        seconds: wall time by step.
        result: what was published.
        error: why it was refused or failed.
    """

    options: dict[str, Any]
    plan: Plan | None = None
    findings: Findings = field(default_factory=Findings)
    shifts: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)

    def fail(self, error: CimError) -> None:
        """Record why the ingest did not end well."""
        if isinstance(error, SourceError):
            self.error = error_json(error)
        else:
            self.error = {"error": type(error).__name__, "problem": str(error), "remedy": ""}

    def catalogued(self) -> dict[str, Any]:
        """Return the part that is a property of the data, equal for equal input."""
        plan = self.plan.to_json() if self.plan else None
        facts: dict[str, Any] = _finite(
            {
                "options": self.options,
                "plan": plan,
                "findings": self.findings.to_json(),
                "shifts": self.shifts,
            }
        )
        return facts

    def to_json(self) -> dict[str, Any]:
        """Return the whole report."""
        return {
            "status": "refused" if self.error else "ok",
            **self.catalogued(),
            "seconds": self.seconds,
            "result": self.result,
            "error": self.error,
        }

    @staticmethod
    def prepare(path: Path) -> None:
        """Make sure that a report can be written, before hours of work.

        Raises:
            ConfigError: it cannot.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            there = path.exists()
            path.open("a").close()
            if not there:
                path.unlink()
        except OSError as error:
            raise ConfigError(f"--report {path} cannot be written: {error.strerror}") from error

    def write(self, path: Path) -> None:
        """Write the report as UTF-8 JSON."""
        text = json.dumps(
            self.to_json(), ensure_ascii=False, indent=2, default=str, allow_nan=False
        )
        path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """Return JSON with numbers that JSON does not know as text: a nodata of NaN is normal."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
