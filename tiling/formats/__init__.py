"""Tile formats: bytes <-> content, nothing else. One format per file."""
