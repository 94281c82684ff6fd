"""The report of a run: numbers, pictures and one HTML page."""

from ctray.report.page import write_report

__all__ = ["write_report"]
