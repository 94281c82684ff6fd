"""Volumes in raw files that a header describes."""
