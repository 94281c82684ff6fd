"""The report of a run: numbers, pictures and one HTML page."""

from ctray.report.page import figure_located, write_report

__all__ = ["figure_located", "write_report"]
