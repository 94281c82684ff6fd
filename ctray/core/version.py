"""The installed version of ctray."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("ctray")
