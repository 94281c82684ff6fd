"""The work of a run in a Ray session."""
