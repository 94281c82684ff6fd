"""Boxes against the truth: scores, classical baselines, calibration of margins."""
