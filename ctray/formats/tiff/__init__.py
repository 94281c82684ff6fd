"""Volumes in TIFF files and folders of them."""
