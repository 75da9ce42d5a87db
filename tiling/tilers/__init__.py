"""Tilers: batches of features or rasters in, tiles of one kind out."""
