"""How places are spelled: absolute paths of this machine, and URLs of everything else."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from urllib.parse import unquote


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine's file system."""
    return "://" not in url or url.startswith(("file://", "local://"))


def normalize(url: str | os.PathLike[str]) -> str:
    """Return the one spelling of `url`: an absolute path if local, no slash at the end."""
    text = os.fspath(url)
    if is_local(text):
        return str(Path(text.split("://", 1)[-1]).expanduser().absolute())
    scheme, rest = text.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def join(url: str, *parts: str) -> str:
    """Return `url` with `parts` below it."""
    tail = [p.strip("/") for p in parts if p.strip("/")]
    return "/".join([normalize(url).rstrip("/"), *tail])


def is_inside(url: str, folder: str) -> bool:
    """Whether `url` is `folder` or lies in it, also through a link, `..`, or another spelling.

    The answer is yes in cases of doubt: it decides whether ctray writes into an archive.
    """
    url, folder = normalize(url), normalize(folder)
    if is_local(url) != is_local(folder):
        return False
    if not is_local(url):
        inner, outer = _spelled(url), _spelled(folder)
        return inner == outer or inner.startswith(f"{outer}/")
    inner_path, outer_path = Path(os.path.realpath(url)), Path(os.path.realpath(folder))
    if inner_path.is_relative_to(outer_path):
        return True
    # A folder may be mounted twice, and its file system may ignore case.
    return any(_same(above, outer_path) for above in (inner_path, *inner_path.parents))


def _spelled(url: str) -> str:
    """Return one spelling of a remote URL: programs differ in decoding and shortening paths."""
    scheme, rest = url.split("://", 1)
    scheme = {"s3a": "s3", "s3n": "s3"}.get(scheme.lower(), scheme.lower())
    return f"{scheme}://{posixpath.normpath(unquote(rest)).lstrip('/')}"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
