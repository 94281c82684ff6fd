"""The work of a run in plain processes of this machine."""
