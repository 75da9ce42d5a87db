"""What the tests of tiling share."""

from __future__ import annotations

from hypothesis import settings

# Timing is not what these tests state, and shared machines are uneven.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
