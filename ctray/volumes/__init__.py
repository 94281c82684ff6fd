"""Zarr volumes: levels, chunks, reading, writing, pyramids."""
