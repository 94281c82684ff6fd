"""Measuring ctray itself: archives with known truth, runs over them, tables."""
