"""Errors, boxes and grids, threads and processes: the ground of all other packages."""
