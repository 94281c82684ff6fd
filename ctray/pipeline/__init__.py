"""The stages of a run, from catalog to crops, and the work on one volume."""
