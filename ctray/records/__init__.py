"""Records of a run: `VolumeRecord` and its views, run folder, table of boxes, lock, events."""
