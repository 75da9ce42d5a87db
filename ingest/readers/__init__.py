"""Readers: one per family of source formats."""
