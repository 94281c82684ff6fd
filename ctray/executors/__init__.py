"""Who runs the work of a run: plain processes of this machine, or Ray."""
