"""Runs the work of a run in plain processes of this machine; imports no Ray."""
