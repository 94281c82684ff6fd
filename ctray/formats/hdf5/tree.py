"""What an HDF5 file holds: groups, datasets and broken links, each visited once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from ctray.core.errors import InvalidVolumeError, KeysError
from ctray.formats.hdf5.files import LOST, Hdf5Files
from ctray.formats.hdf5.links import (
    Place,
    attribute,
    id_of,
    link_of,
    names_of,
    open_object,
    resolve,
    small_value,
    text_of,
)
from ctray.formats.hdf5.virtual import is_endless, sources_of

# Scans have some hundred objects. A walk over this many takes seconds.
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
    """A group and its NeXus attributes."""

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
    """A dataset of any type: its first path, and all groups that hold it (`homes`).

    If `shape` or `dtype` is unknown, it is None and `problem` says why.
    """

    path: str
    place: Place
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    is_enum: bool = False
    is_virtual: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)
    homes: list[tuple[str, Group]] = field(default_factory=list)
    problem: str | None = None

    @property
    def sides(self) -> list[int]:
        """Lengths of the axes that have more than one voxel."""
        return [n for n in self.shape or () if n > 1]

    @property
    def may_be_volume(self) -> bool:
        """Whether it has at least three axes, or an unknown number of axes."""
        return self.shape is None or len(self.shape) >= 3

    @property
    def label(self) -> str:
        """Path, shape and type, for messages."""
        shape = " x ".join(map(str, self.shape)) if self.shape else "scalar"
        return f"{self.path} ({shape} {self.dtype})"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Broken:
    """A link that cannot be followed, and the reason."""

    path: str
    home: Group
    error: str


@dataclass(kw_only=True, slots=True)
class Tree:
    """All groups and datasets of a file, and those that its links reach inside the archive."""

    root: Group
    groups: dict[str, Group] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    is_complete: bool = True

    def at(self, files: Hdf5Files, path: str, start: Group | None = None) -> Array | Group | None:
        """Dataset or group of the tree at a path; None without one."""
        place = resolve(files, (start or self.root).place, path)
        if place is None:
            return None
        key = id_of(files, place)
        return self.arrays.get(key) or self.groups.get(key)


def read_tree(files: Hdf5Files) -> Tree:
    """Walk through a file and its links, each object once; only metadata are read."""
    root = Group(path="/", place=Place(url=files.url, path="/"), parent=None)
    tree = Tree(root=root)
    todo = deque([root])
    left = _MAX_OBJECTS
    while todo and tree.is_complete:
        group = todo.popleft()
        item = files.item(group.place.url, group.place.path)
        key = id_of(files, group.place, item)
        if key in tree.groups:
            continue
        tree.groups[key] = group
        _describe(item, group)
        names = [name for name, _ in zip(names_of(item), range(left + 1), strict=False)]
        left -= len(names)
        tree.is_complete = left >= 0 and group.path.count("/") <= _MAX_DEPTH
        todo.extend(_visit(files, tree, group, names) if tree.is_complete else ())
    return tree


def _visit(files: Hdf5Files, tree: Tree, group: Group, names: list[str]) -> list[Group]:
    """Note what the names of a group lead to; return the groups to walk next."""
    item = files.item(group.place.url, group.place.path)
    below: list[Group] = []
    linked: list[str] = []
    # An object keeps the path without links, if it has one.
    for name in names:
        if not isinstance(link_of(item, name), h5py.HardLink):
            linked.append(name)
            continue
        path = f"{group.place.path.rstrip('/')}/{name}"
        place = Place(url=group.place.url, path=path)
        below.extend(_note(files, tree, group, name, place, open_object(item, name)))
    for name in linked:
        path = f"{group.path.rstrip('/')}/{name}"
        try:
            found = resolve(files, group.place, name)
            if found is None:
                raise InvalidVolumeError(
                    f"{files.url}: link {path} has no target; repair or remove it"
                )
            opened = files.item(found.url, found.path)
        except LOST as error:
            if isinstance(error, KeysError):
                raise
            why = str(error)
            if not why.startswith(files.url):
                why = f"{files.url}: link {path}: {why}"
            group.broken[name] = Broken(path=path, home=group, error=why)
            continue
        below.extend(_note(files, tree, group, name, found, opened))
    return below


def _note(
    files: Hdf5Files, tree: Tree, group: Group, name: str, place: Place, item: Any
) -> Iterator[Group]:
    """Note an object under a name of a group; yield it if it is a group itself."""
    path = f"{group.path.rstrip('/')}/{name}"
    if isinstance(item, h5py.Group):
        group.groups[name] = Group(path=path, place=place, parent=group)
        yield group.groups[name]
    elif isinstance(item, h5py.Dataset):
        key = id_of(files, place, item)
        if key not in tree.arrays:
            tree.arrays[key] = read_array(place, path, item)
        tree.arrays[key].homes.append((name, group))
        group.arrays[name] = tree.arrays[key]


def note_origin(files: Hdf5Files, array: Array) -> None:
    """Add the group of the file that really holds a linked dataset to its `homes`.

    For a virtual dataset, the first part stands for all parts.
    """
    first = next(sources_of(files, array.place), None) if array.is_virtual else None
    for place in (array.place, first):
        if place is not None and place.url != files.url:
            array.homes.append((place.path.rpartition("/")[2], _home(files, place)))


def _home(files: Hdf5Files, place: Place) -> Group:
    """Group of a dataset, with the groups above it and the datasets beside it."""
    item = files.item(place.url, "/")
    group = Group(path="/", place=Place(url=place.url, path="/"), parent=None)
    _describe(item, group)
    for name in place.path.split("/")[1:-1]:
        item = open_object(item, name)
        path = f"{group.path.rstrip('/')}/{name}"
        group = Group(path=path, place=Place(url=place.url, path=path), parent=group)
        _describe(item, group)
    for name, _ in zip(names_of(item), range(_MAX_BESIDE), strict=False):
        if isinstance(link_of(item, name), h5py.HardLink):
            data = open_object(item, name)
            path = f"{group.path.rstrip('/')}/{name}"
            if isinstance(data, h5py.Dataset):
                group.arrays[name] = read_array(Place(url=place.url, path=path), path, data)
    return group


def read_array(place: Place, path: str, data: h5py.Dataset) -> Array:
    """Read shape, type and informative attributes of a dataset."""
    found = Array(path=path, place=place, shape=None, dtype=None)
    plan = data.id.get_create_plist()
    found.is_virtual = plan.get_layout() == h5py.h5d.VIRTUAL
    if found.is_virtual and is_endless(plan):
        found.problem = "ctray does not read virtual datasets that grow with their parts"
        return found
    try:
        found.dtype = data.dtype
        found.is_enum = h5py.check_enum_dtype(data.dtype) is not None
    except (TypeError, ValueError):
        # A type that NumPy does not have holds no grey values.
        found.problem = "NumPy does not know its type"
    found.shape = None if data.shape is None else tuple(int(n) for n in data.shape)
    if found.may_be_volume:
        said = {name: attribute(data, name) for name in _DATASET_ATTRIBUTES}
        found.attrs = {name: value for name, value in said.items() if value is not None}
    return found


def _describe(item: h5py.Group, group: Group) -> None:
    group.nx_class = text_of(attribute(item, "NX_class")) or ""
    found = {name: attribute(item, name) for name in _GROUP_ATTRIBUTES}
    group.attrs = {name: value for name, value in found.items() if value is not None}
    group.definition = text_of(attribute(item, "definition")) or ""
    definition = link_of(item, "definition")
    if isinstance(definition, h5py.HardLink):
        data = item["definition"]
        value = small_value(data) if isinstance(data, h5py.Dataset) else None
        group.definition = text_of(value) or group.definition
