"""Volumes in HDF5 and NeXus files."""
