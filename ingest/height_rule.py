"""What stands in for a missing height of a building: plain numbers of a style."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HeightRule:
    """What stands in for a missing height.

    Attributes:
        storey_height_m: metres a storey counts.
        default_m: height of a building about which nothing is known.
        max_m: a height above this is taken for an error.
        class_fields: columns that may hold the class of the building, in order.
        by_class: height by class.
    """

    storey_height_m: float = 3.0
    default_m: float = 9.0
    max_m: float = 1000.0
    class_fields: tuple[str, ...] = ()
    by_class: Mapping[str, float] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeightRule:
        """Make a rule from the ``heights`` member of the buildings style."""
        return cls(
            storey_height_m=float(data["storey_height_m"]),
            default_m=float(data["default_m"]),
            max_m=float(data["max_m"]),
            class_fields=tuple(data["class_fields"]),
            by_class={str(k): float(v) for k, v in data["by_class"].items()},
        )
