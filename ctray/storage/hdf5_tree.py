"""What an HDF5 file holds: its groups, datasets and links that lead nowhere, each seen once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from ctray.errors import InvalidVolumeError, KeysError
from ctray.storage.hdf5_files import LOST, Hdf5Files
from ctray.storage.hdf5_links import (
    Place,
    attribute,
    id_of,
    link_of,
    names_of,
    resolve,
    small_value,
    words,
)
from ctray.storage.hdf5_virtual import is_endless, sources_of

# Scans have some hundred objects; a walk of so many takes seconds.
_MAX_OBJECTS = 20_000
_MAX_DEPTH = 32
_MAX_BESIDE = 100
_DATASET_ATTRIBUTES = (
    "axes",
    "axistags",
    "CLASS",
    "IMAGE_SUBCLASS",
    "INTERLACE_MODE",
    "interpretation",
    "signal",
)
_GROUP_ATTRIBUTES = ("default", "signal", "auxiliary_signals", "axes")


@dataclass(kw_only=True, slots=True, eq=False)
class Group:
    """A group, and what NeXus says of it."""

    path: str
    place: Place
    parent: Group | None
    nx_class: str = ""
    definition: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    broken: dict[str, Broken] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def above(self) -> list[Group]:
        """Return this group and those above it, the nearest first."""
        found: list[Group] = []
        at: Group | None = self
        while at is not None:
            found.append(at)
            at = at.parent
        return found


@dataclass(kw_only=True, slots=True, eq=False)
class Array:
    """A dataset of numbers or not: as its first path has it, and all groups that it is in.

    `shape` and `dtype` are None where they cannot be told; `problem` says why.
    """

    path: str
    place: Place
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    is_enum: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)
    homes: list[tuple[str, Group]] = field(default_factory=list)
    problem: str | None = None

    @property
    def sides(self) -> list[int]:
        """Lengths of the axes that have more than one voxel."""
        return [n for n in self.shape or () if n > 1]

    @property
    def label(self) -> str:
        """Path, shape and type, for messages."""
        shape = " x ".join(map(str, self.shape)) if self.shape else "scalar"
        return f"{self.path} ({shape} {self.dtype})"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Broken:
    """A link that cannot be followed, and why."""

    path: str
    home: Group
    error: str


@dataclass(kw_only=True, slots=True)
class Tree:
    """All groups and datasets of a file, with what its links lead to inside the archive."""

    root: Group
    groups: dict[str, Group] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    is_complete: bool = True

    def at(self, files: Hdf5Files, path: str, start: Group | None = None) -> Array | Group | None:
        """Dataset or group of the tree at a path; None where there is none."""
        place = resolve(files, (start or self.root).place, path)
        if place is None:
            return None
        key = id_of(files, place)
        return self.arrays.get(key) or self.groups.get(key)


def read_tree(files: Hdf5Files) -> Tree:
    """Walk through a file, links included, each object once; only metadata are read."""
    root = Group(path="/", place=Place(url=files.url, path="/"), parent=None)
    tree = Tree(root=root)
    todo = deque([root])
    count = 0
    while todo:
        group = todo.popleft()
        key = id_of(files, group.place)
        if key in tree.groups:
            continue
        tree.groups[key] = group
        _describe(files, group)
        depth = group.path.count("/")
        for name in _hard_links_first(files, group):
            count += 1
            if count > _MAX_OBJECTS or depth > _MAX_DEPTH:
                tree.is_complete = False
                break
            below = _visit(files, tree, group, name)
            if below is not None:
                todo.append(below)
    return tree


def note_origin(files: Hdf5Files, array: Array) -> None:
    """Note what the file says of a dataset that it really lies in, where that is another one.

    Of a virtual dataset, its first part speaks for all.
    """
    for place in (array.place, next(sources_of(files, array.place), None)):
        if place is not None and place.url != files.url:
            array.homes.append((place.path.rpartition("/")[2], _home(files, place)))


def _home(files: Hdf5Files, place: Place) -> Group:
    """Group that a dataset lies in, those above it, and the datasets beside it."""
    root = Place(url=place.url, path="/")
    group = Group(path="/", place=root, parent=None)
    _describe(files, group)
    for name in place.path.split("/")[1:-1]:
        path = f"{group.path.rstrip('/')}/{name}"
        group = Group(path=path, place=Place(url=place.url, path=path), parent=group)
        _describe(files, group)
    item = files.file(place.url)[group.place.path]
    for name, _ in zip(names_of(item), range(_MAX_BESIDE), strict=False):
        beside = Place(url=place.url, path=f"{group.path.rstrip('/')}/{name}")
        if isinstance(link_of(item, name), h5py.HardLink):
            if isinstance(files.file(place.url)[beside.path], h5py.Dataset):
                group.arrays[name] = read_array(files, beside, beside.path)
    return group


def read_array(files: Hdf5Files, place: Place, path: str) -> Array:
    """Shape, type and telling attributes of a dataset."""
    data = files.file(place.url)[place.path]
    attrs = {name: attribute(data, name) for name in _DATASET_ATTRIBUTES}
    found = Array(
        path=path,
        place=place,
        shape=None,
        dtype=None,
        attrs={name: value for name, value in attrs.items() if value is not None},
    )
    plan = data.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL and is_endless(plan):
        found.problem = "a virtual dataset that grows with its parts is not read"
        return found
    try:
        found.dtype = data.dtype
        found.is_enum = h5py.check_enum_dtype(data.dtype) is not None
    except (TypeError, ValueError):
        # A type that NumPy does not have holds no grey values.
        found.problem = "its type is not known to NumPy"
    found.shape = None if data.shape is None else tuple(int(n) for n in data.shape)
    return found


def _visit(files: Hdf5Files, tree: Tree, group: Group, name: str) -> Group | None:
    """Note what a name leads to; a group that is to be walked, or None."""
    path = f"{group.path.rstrip('/')}/{name}"
    try:
        place = resolve(files, group.place, name)
        if place is None:
            raise InvalidVolumeError(f"{files.url}: link {path} leads nowhere; mend or remove it")
        item = files.file(place.url)[place.path]
    except LOST as error:
        if isinstance(error, KeysError):
            raise
        why = str(error)
        if not why.startswith(files.url):
            why = f"{files.url}: link {path}: {why}"
        group.broken[name] = Broken(path=path, home=group, error=why)
        return None
    if isinstance(item, h5py.Group):
        found = Group(path=path, place=place, parent=group)
        group.groups[name] = found
        return found
    if isinstance(item, h5py.Dataset):
        key = id_of(files, place)
        if key not in tree.arrays:
            tree.arrays[key] = read_array(files, place, path)
        tree.arrays[key].homes.append((name, group))
        group.arrays[name] = tree.arrays[key]
    return None


def _hard_links_first(files: Hdf5Files, group: Group) -> list[str]:
    """Names of a group: an object is known by the path on which no link lies, if it has one."""
    item = files.file(group.place.url)[group.place.path]
    names = [name for name, _ in zip(names_of(item), range(_MAX_OBJECTS + 1), strict=False)]
    return sorted(names, key=lambda name: not isinstance(link_of(item, name), h5py.HardLink))


def _describe(files: Hdf5Files, group: Group) -> None:
    item = files.file(group.place.url)[group.place.path]
    group.nx_class = words(attribute(item, "NX_class")) or ""
    found = {name: attribute(item, name) for name in _GROUP_ATTRIBUTES}
    group.attrs = {name: value for name, value in found.items() if value is not None}
    group.definition = words(attribute(item, "definition")) or ""
    definition = link_of(item, "definition")
    if isinstance(definition, h5py.HardLink):
        data = item["definition"]
        value = small_value(data) if isinstance(data, h5py.Dataset) else None
        group.definition = words(value) or group.definition


__all__ = ["Array", "Broken", "Group", "Tree", "note_origin", "read_array", "read_tree"]
