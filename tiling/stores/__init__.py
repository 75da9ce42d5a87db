"""Stores: where tiles rest. One kind of store per file."""
