"""Runs the work of a run on Ray; the only package that imports ray."""
