"""Geometry and bytes: tiles, schemes, frames and stores. No HTTP, no database, no settings."""
