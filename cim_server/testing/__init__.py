"""Conformance tests that every service inherits."""
