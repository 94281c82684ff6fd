"""Links of HDF5 files, followed here because HDF5 itself would open any file that a link names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.hdf5.chunks import is_bounded
from ctray.formats.hdf5.files import Hdf5Files

# The limit of HDF5 itself (H5Pset_nlinks).
_MAX_LINKS = 16
# Attributes and small datasets are read whole.
_MAX_ATTRIBUTE_BYTES = 1 << 16
_MAX_VALUE_BYTES = 1 << 23


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An object of a file: the URL of the file, and a path without soft and external links."""

    url: str
    path: str


def id_of(files: Hdf5Files, place: Place, item: Any = None) -> str:
    """Identity of an object, whatever path leads to it: its file and its address in the file.

    `item` is the object, if it is open already.
    """
    item = files.item(place.url, place.path) if item is None else item
    return f"{files.real(place.url)}#{h5py.h5o.get_info(item.id).addr}"


def open_object(group: h5py.Group, name: str) -> Any:
    """The group or dataset that a hard link of `group` leads to; None for named types."""
    found = h5py.h5o.open(group.id, name.encode("utf-8", "surrogateescape"))
    if isinstance(found, h5py.h5d.DatasetID):
        return h5py.Dataset(found)
    return h5py.Group(found) if isinstance(found, h5py.h5g.GroupID) else None


def resolve(files: Hdf5Files, start: Place, path: str) -> Place | None:
    """Follow `path` from the group at `start`; None if it leads nowhere.

    Raises
    ------
    InvalidVolumeError
        If a link leaves the boundary, leads to a missing file, or forms a circle.
    """
    url = start.url
    at = "/" if path.startswith("/") else start.path
    todo = deque(path.split("/"))
    links = 0
    while todo:
        name = todo.popleft()
        if name in ("", "."):
            continue
        group = files.item(url, at)
        target = link_of(group, name) if isinstance(group, h5py.Group) else None
        if target is None:
            return None
        if isinstance(target, h5py.HardLink):
            at = _join(at, name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidVolumeError(
                f"{files.url}: link {_join(start.path, path)} forms a circle; repair or remove it"
            )
        if isinstance(target, h5py.ExternalLink):
            url = files.locate(url, target.filename, f"link {_join(at, name)}")
            at = "/"
        elif target.path.startswith("/"):
            at = "/"
        todo.extendleft(reversed(target.path.split("/")))
    return Place(url=url, path=at)


def link_of(group: h5py.Group, name: str) -> Any:
    """Link `name` of a group, not followed, as one of h5py's classes; None without one."""
    key = name.encode("utf-8", "surrogateescape")
    links = group.id.links
    if not links.exists(key):
        return None
    kind = links.get_info(key).type
    if kind == h5py.h5l.TYPE_HARD:
        return h5py.HardLink()
    if kind == h5py.h5l.TYPE_SOFT:
        return h5py.SoftLink(_decoded(links.get_val(key)))
    if kind == h5py.h5l.TYPE_EXTERNAL:
        file, path = links.get_val(key)
        return h5py.ExternalLink(_decoded(file), _decoded(path))
    return None


def attribute(item: Any, name: str) -> Any:
    """Value of an attribute; None if it does not exist or is too large to be of use."""
    key = name.encode("utf-8", "surrogateescape")
    try:
        if not h5py.h5a.exists(item.id, key):
            return None
        if item.attrs.get_id(name).get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            return None
        return item.attrs[name]
    except (OSError, TypeError, ValueError, KeyError, RuntimeError):
        # Unknown types and damaged attributes tell nothing about the volume.
        return None


def attributes(item: Any, most: int = 256) -> dict[str, Any]:
    """Readable attributes, at most `most`."""
    names = [n for n, _ in zip(item.attrs, range(most), strict=False) if isinstance(n, str)]
    return {name: value for name in names if (value := attribute(item, name)) is not None}


def text_of(value: Any) -> str | None:
    """Text of an attribute or a scalar dataset; None if it is not text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip("\0 ")
    return value.strip("\0 ") if isinstance(value, str) else None


def small_value(data: h5py.Dataset) -> Any:
    """Value of a small dataset; None if it is large, lies elsewhere, or may decompress to much."""
    try:
        plan = data.id.get_create_plist()
        layout = plan.get_layout()
        if layout == h5py.h5d.VIRTUAL or plan.get_external_count():
            return None
        if data.size is None or data.size * data.dtype.itemsize > _MAX_VALUE_BYTES:
            return None
        if layout == h5py.h5d.CHUNKED:
            chunk = int(np.prod(plan.get_chunk(), dtype=float)) * data.dtype.itemsize
            if chunk > _MAX_VALUE_BYTES or not is_bounded(data):
                return None
        return data[()]
    except (OSError, TypeError, ValueError, KeyError, RuntimeError):
        return None


def names_of(group: h5py.Group) -> Iterator[str]:
    """Names in a group, in the order of HDF5."""
    for key in group.id:
        yield _decoded(key)


def _decoded(value: bytes | str) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _join(path: str, name: str) -> str:
    return name if name.startswith("/") else f"{path.rstrip('/')}/{name}"
