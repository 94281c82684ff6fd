"""Cutting boxes out of volumes, and rebuilding a volume from its crop."""
