"""Volumes in HDF5 and NeXus files."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import threading
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ctray.errors import InvalidVolumeError
from ctray.storage import voxel_metadata
from ctray.storage.source_types import (
    Kind,
    NoVolumeError,
    VolumeSource,
    check_dtype,
    check_shape,
    damage_as_error,
    file_size,
    open_binary,
)
from ctray.storage.voxel_metadata import FoundVoxelSize

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx", ".nexus")
# The largest dataset is the volume if the next one is at most this part of it: flat and dark
# fields are far smaller than what they belong to.
_CLEARLY_SMALLER = 0.5
_ANNOTATION_NAMES = ("*mask*", "*label*", "*segmentation*")


class Hdf5Source(VolumeSource):
    """A dataset in an HDF5 or NeXus file.

    Parameters
    ----------
    url
        The file.
    dataset
        Path inside the file. Without one: the default plot of a NeXus file (attributes
        `default` and `signal`), else the only 3D dataset, else the clearly largest.

    Raises
    ------
    InvalidVolumeError
        If the file is damaged, the dataset is missing (the error lists those that are there),
        the choice is open (likewise), or the dataset is not 3D or holds no grey values.
    """

    kind: Kind = "hdf5"

    def __init__(self, url: str, dataset: str | None = None) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        _load_filters()
        try:
            file = self._stack.enter_context(open_binary(url))
            with damage_as_error(url, "HDF5"):
                file_size(url, file)
                # h5py reads local files faster by itself than through a Python file.
                opened = url if "://" not in url else file
                self._file = self._stack.enter_context(h5py.File(opened, "r"))
                self._data = self._choose(dataset)
                self._describe()
        except BaseException:
            self._stack.close()
            raise

    def _describe(self) -> None:
        data = self._data
        self.dataset = str(data.name)
        where = f"{self.url}:{self.dataset}"
        self.shape = check_shape(where, data.shape)
        self.dtype = check_dtype(where, data.dtype)
        self.bytes_stored = int(data.id.get_storage_size())
        if data.chunks is not None:
            self.slab_depth = int(_z_chunk(data))
        self._take_voxel_size(
            _own_voxel_size(data) or voxel_metadata.from_sidecar(self.url, is_folder=False)
        )

    def _choose(self, dataset: str | None) -> h5py.Dataset:
        if dataset is not None:
            return self._named(dataset)
        default = _nexus_default(self._file)
        if default is not None and _is_volume(default):
            return default
        volumes = sorted(_datasets(self._file, volumes_only=True), key=lambda d: -d.size)
        grey = [d for d in volumes if not _is_annotation(str(d.name))] or volumes
        if not grey:
            raise NoVolumeError(
                f"{self.url}: no 3D dataset with numbers inside; it holds {self._inventory()}"
            )
        if len(grey) > 1 and grey[1].size > grey[0].size * _CLEARLY_SMALLER:
            shown = ", ".join(_label(d) for d in grey[:8])
            raise InvalidVolumeError(
                f"{self.url}: several 3D datasets ({shown}); name one with --dataset"
            )
        return grey[0]

    def _named(self, dataset: str) -> h5py.Dataset:
        try:
            found = self._file[dataset]
        except (KeyError, ValueError):
            found = None
        if not isinstance(found, h5py.Dataset):
            what = "is a group" if found is not None else "does not exist"
            raise InvalidVolumeError(
                f"{self.url}: dataset {dataset!r} {what}; the file holds {self._inventory()}"
            )
        return found

    def _inventory(self) -> str:
        found = [_label(d) for d in _datasets(self._file, volumes_only=False)]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        return ", ".join(found[:8]) + more if found else "no datasets"

    def _read(self, start: int, stop: int) -> np.ndarray:
        with self._lock, damage_as_error(self.url, "HDF5"):
            index = tuple(_squeeze_index(list(self._data.shape), slice(start, stop)))
            slab: np.ndarray = self._data[index]
            self.bytes_read += round((self.bytes_stored or 0) * slab.size / self._data.size)
            return slab

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def is_hdf5_name(name: str) -> bool:
    """Whether a file name is that of an HDF5 or NeXus file."""
    return name.lower().endswith(HDF5_SUFFIXES) and not name.startswith(".")


def _squeeze_index(shape: list[int], z: slice) -> Iterator[int | slice]:
    """Index that takes 0 on the singleton axes that `check_shape` drops, and `z` on the next."""
    drop = len(shape) - 3
    rest = [z, slice(None), slice(None)]
    for n in shape:
        if drop and n == 1:
            drop -= 1
            yield 0
        else:
            yield rest.pop(0)


def _z_chunk(data: h5py.Dataset) -> int:
    index = list(_squeeze_index(list(data.shape), slice(0, 1)))
    at = next(i for i, part in enumerate(index) if part == slice(0, 1))
    return int(data.chunks[at])


def _is_volume(data: h5py.Dataset) -> bool:
    return (
        data.shape is not None
        and data.dtype.kind in "iuf"
        and len([n for n in data.shape if n > 1]) == 3
    )


def _is_annotation(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _ANNOTATION_NAMES)


def _datasets(file: h5py.File, *, volumes_only: bool) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (not volumes_only or _is_volume(item)):
            found.append(item)

    file.visititems(visit)
    return found


def _label(data: h5py.Dataset) -> str:
    shape = " x ".join(map(str, data.shape or ())) or "scalar"
    return f"{data.name} ({shape} {data.dtype})"


def _nexus_default(file: h5py.File) -> h5py.Dataset | None:
    """Dataset that the attributes `default` (of groups) and `signal` (of NXdata) lead to.

    NeXus manual, "Associating plottable data using attributes" (version 3 scheme).
    """
    item: Any = file
    for _ in range(8):
        name = _text(item.attrs.get("default")) or _text(item.attrs.get("signal"))
        if not name:
            return None
        try:
            item = item[name]
        except (KeyError, ValueError):
            return None
        if isinstance(item, h5py.Dataset):
            return item
    return None


def _own_voxel_size(data: h5py.Dataset) -> FoundVoxelSize | None:
    """Voxel size from attributes or small datasets of the dataset and the groups above it."""
    found = voxel_metadata.from_mapping(dict(data.attrs), f"{data.name} attributes")
    group = data.parent
    for _ in range(16):
        if found is not None:
            return found
        found = voxel_metadata.from_mapping(dict(group.attrs), f"{group.name} attributes")
        found = found or _from_small_datasets(group) or _from_nexus_axes(data, group)
        if group.name == "/":
            return found
        group = group.parent
    return found


def _from_small_datasets(group: h5py.Group) -> FoundVoxelSize | None:
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and item.size is not None and 0 < item.size <= 3:
            values = {**dict(item.attrs), name: item[()]}
            found = voxel_metadata.from_mapping(values, f"{group.name}")
            if found is not None:
                return found
    return None


def _from_nexus_axes(data: h5py.Dataset, group: h5py.Group) -> FoundVoxelSize | None:
    """Voxel size from the axis datasets that NXdata names (attribute `axes`), units and all."""
    axes = group.attrs.get("axes")
    if axes is None or data.parent != group or len(axes) != len(data.shape) or len(axes) != 3:
        return None
    steps: list[float] = []
    for axis in axes:
        item = group.get(_text(axis) or "")
        unit = _text(item.attrs.get("units")) if isinstance(item, h5py.Dataset) else None
        if unit is None or item.size < 2:
            return None
        edge = voxel_metadata.in_micrometres(abs(float(item[1] - item[0])), unit)
        if edge is None:
            return None
        steps.append(edge)
    return voxel_metadata.from_mapping({"voxel_size_um": steps}, f"NeXus axes of {group.name}")


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _load_filters() -> None:
    """Register Blosc, LZ4 and other filters where the package that brings them is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")


__all__ = ["Hdf5Source", "is_hdf5_name"]
