"""Do 16-bit colour fields hold 8-bit colours? Decided over all points of a source, not per file.

Many programs write 0 to 255 where the LAS specification wants 0 to 65535. A dark file of a set of
16-bit files looks just like that, so only the largest value of all decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.findings import Findings


@dataclass(frozen=True, slots=True)
class ColourEvidence:
    """What was seen of 16-bit colours; evidence of chunks adds up, in any order.

    Attributes:
        count: points looked at.
        largest: largest value of any channel.
    """

    count: int = 0
    largest: int = 0

    @classmethod
    def of(cls, rgb: NDArray[Any]) -> ColourEvidence:
        """Look at (N, 3) colours."""
        return cls(len(rgb), int(rgb.max()) if len(rgb) else 0)

    def __add__(self, other: ColourEvidence) -> ColourEvidence:
        return ColourEvidence(self.count + other.count, max(self.largest, other.largest))

    def depth(self, declared: int | None, findings: Findings) -> int:
        """Return the bits that colours use, 8 or 16; exact when all points were looked at.

        Args:
            declared: what the user says; wins.
            findings: receives the decision and what it rests on.
        """
        found = 8 if self.largest <= np.iinfo(np.uint8).max else 16
        seen = f"the largest value of any channel is {self.largest}"
        if declared is None:
            findings.add("colour-depth", "info", f"colours have {found} bits: {seen}", self.count)
        elif declared == 8 < found:
            message = f"colours are declared to have 8 bits, and {seen}: brighter ones are cut off"
            findings.add("colour-depth", "warning", message, self.count)
        else:
            message = f"colours have {declared} bits, as declared; {seen}"
            findings.add("colour-depth", "assumption", message, self.count)
        return declared or found
