"""Packages that only some formats need."""

from __future__ import annotations

import importlib
from typing import Any

from ctray.core.errors import InvalidVolumeError


def extra_package(name: str, url: str, what: str) -> Any:
    """Package `name`, which reads `what`.

    Raises
    ------
    InvalidVolumeError
        If it is not installed: the volume at `url` is named, and the remedy.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidVolumeError(
            f"{url}: {what} needs the package {name}, which is not installed; "
            "pip install 'ctray[formats]'"
        ) from error
