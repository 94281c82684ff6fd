"""Cutting boxes out of volumes, and putting the volume together again."""
