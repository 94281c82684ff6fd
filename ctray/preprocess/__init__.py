"""Prepares volumes for the networks: grey value window, field of view, removal of artefacts."""
