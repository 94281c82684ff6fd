"""Whether one place lies in another, however the two are spelled."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from urllib.parse import unquote

from ctray.storage import store


def is_inside(url: str, folder: str) -> bool:
    """Whether `url` is `folder` or lies in it, also by a link, `..`, or another spelling.

    Where it is not certain the answer is yes: what depends on it is whether something is written
    into an archive.
    """
    url, folder = store.normalize(url), store.normalize(folder)
    if store.is_local(url) != store.is_local(folder):
        return False
    if not store.is_local(url):
        inner, outer = _spelled(url), _spelled(folder)
        return inner == outer or inner.startswith(f"{outer}/")
    inner_path, outer_path = Path(os.path.realpath(url)), Path(os.path.realpath(folder))
    if inner_path.is_relative_to(outer_path):
        return True
    # A folder may be mounted twice, and its file system may know no case.
    return any(_same(above, outer_path) for above in (inner_path, *inner_path.parents))


def _spelled(url: str) -> str:
    """One spelling of a remote URL; programs differ in whether they decode and shorten paths."""
    scheme, rest = url.split("://", 1)
    scheme = {"s3a": "s3", "s3n": "s3"}.get(scheme.lower(), scheme.lower())
    return f"{scheme}://{posixpath.normpath(unquote(rest)).lstrip('/')}"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
