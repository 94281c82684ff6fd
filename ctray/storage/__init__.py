"""Volumes on disk and object storage: open, read, write, crop, import, catalog."""
