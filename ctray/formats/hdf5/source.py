"""Volumes in HDF5 and NeXus files.

`hdf5_tree` walks through the file, `hdf5_meaning` says what its datasets are, `hdf5_choice` takes
the one that is the volume, `hdf5_axes` tells its axes, and `hdf5_stored`, `hdf5_virtual` read it.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from ctray.core.errors import InvalidVolumeError, printable
from ctray.core.geometry import as_triple
from ctray.formats.hdf5.axes import kept_axes, voxel_size_of
from ctray.formats.hdf5.choice import Choice, choose
from ctray.formats.hdf5.files import Hdf5Files
from ctray.formats.hdf5.layouts import is_unsigned
from ctray.formats.hdf5.stored import Voxels
from ctray.formats.hdf5.tree import read_tree
from ctray.formats.hdf5.virtual import join_voxels, note_ids, open_voxels, sources_of
from ctray.formats.source import (
    Kind,
    VolumeSource,
    check_dtype,
    check_shape,
    damage_as_error,
)
from ctray.volumes import voxel_metadata

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx", ".nexus")
# Where z is not the first axis that is stored, each read goes through all of the file; so much is
# read at once then.
_TURNED_BYTES = 256 << 20
_PARTS_SHOWN = 3


class Hdf5Source(VolumeSource):
    """A dataset in an HDF5 or NeXus file, turned to z, y, x.

    Parameters
    ----------
    url
        The file.
    dataset
        Path inside the file. Without one, what the file says of its datasets decides: a
        reconstruction, else the only 3D dataset that is no projections, mask or colour image.
    within
        Folder or prefix that links do not leave; without one, the folder of the file.

    Raises
    ------
    NotReconstructedError
        If the file is a raw scan.
    NoVolumeError
        If nothing 3D with grey values is inside.
    InvalidVolumeError
        If the file is damaged or in use, the dataset is missing (the error lists those that are
        there), the choice is open (likewise), the dataset is not 3D or holds no grey values, some
        of its voxels were never written, a part is missing or outside `within`, or a filter is
        not installed.
    """

    kind: Kind = "hdf5"

    def __init__(self, url: str, dataset: str | None = None, *, within: str | None = None) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._files = Hdf5Files(url, within)
        try:
            with damage_as_error(url, "HDF5"):
                self._describe(choose(self._files, read_tree(self._files), dataset))
        except InvalidVolumeError as caught:
            # What is wrong with another file, which this one links to, does not name this one.
            text = str(caught) if str(caught).startswith(url) else f"{url}: {caught}"
            error = type(caught)(printable(text))
            error.voxels_ids = tuple(self._files.voxels_ids)
            error.part_ids = tuple(self._files.part_ids)
            self._files.close()
            raise error from caught.__cause__
        except BaseException:
            self._files.close()
            raise

    def _describe(self, choice: Choice) -> None:
        first = choice.arrays[0]
        self.dataset = choice.path
        if printable(choice.path) != choice.path:
            raise InvalidVolumeError(
                f"{self.url}: dataset {choice.path} has a name that cannot be printed; rename it"
            )
        where = f"{self.url}:{self.dataset}"
        check_shape(where, first.shape or ())
        self.dtype = self._read_as = check_dtype(where, first.dtype)
        if is_unsigned(self.dataset, self.dtype):
            self.dtype = np.dtype(np.uint16)
        self._files.forget()
        self._voxels = self._opened(choice, where)
        stored = self._voxels.shape
        check_shape(where, stored)
        self._kept = kept_axes(stored)
        named = choice.axes.order(self._kept) if choice.axes is not None else None
        order = named or (0, 1, 2)
        self._order = tuple(self._kept[i] for i in order)
        self.shape = as_triple([stored[axis] for axis in self._order], "shape")
        self.bytes_stored = self._voxels.bytes_stored
        self.slab_depth = self._depth()
        self._take_voxel_size(
            voxel_size_of(self._files, first, choice.axes, order)
            or voxel_metadata.from_sidecar(self.url, is_folder=False)
        )
        self.parts = tuple(self._files.others)
        self.voxels_ids = tuple(self._files.voxels_ids)
        self.part_ids = tuple(self._files.part_ids)
        notes = (*choice.notes, *self._what_was_done(order))
        self.notes = tuple(printable(note) for note in notes)

    def _opened(self, choice: Choice, where: str) -> Voxels:
        places = [array.place for array in choice.arrays]
        note_ids(self._files, places)
        try:
            if len(places) == 1:
                return open_voxels(self._files, places[0])
            return join_voxels(self._files, where, places)
        except InvalidVolumeError:
            # One part is missing: the others are parts all the same.
            note_ids(self._files, [s for place in places for s in sources_of(self._files, place)])
            raise

    def _depth(self) -> int:
        """Slices that are best read at once."""
        z = self._order[0]
        depth = self._voxels.chunk[z]
        if z == self._kept[0]:
            return depth
        per_slice = math.prod(self.shape[1:]) * self.dtype.itemsize
        fit = max(1, _TURNED_BYTES // per_slice)
        return min(self.shape[0], max(depth, fit // depth * depth))

    def _what_was_done(self, order: tuple[int, ...]) -> list[str]:
        notes = []
        if order != (0, 1, 2):
            names = "".join("zyx"[order.index(axis)] for axis in range(3))
            notes.append(f"its axes are stored as {', '.join(names)} and were turned to z, y, x")
        if self.dtype != self._read_as:
            notes.append("its signed integers are read as unsigned, as BigDataViewer writes them")
        if self.parts:
            shown = ", ".join(url.rpartition("/")[2] for url in self.parts[:_PARTS_SHOWN])
            more = ", ..." if len(self.parts) > _PARTS_SHOWN else ""
            notes += [self._files.moved[url] for url in self.parts if url in self._files.moved]
            files = "another file" if len(self.parts) == 1 else f"{len(self.parts)} other files"
            notes.append(f"its voxels lie in {files} ({shown}{more})")
        return notes

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self._read_as)
        box = [slice(0, n) for n in self._voxels.shape]
        box[self._order[0]] = slice(start, stop)
        # A view of the slab in the axes of the file: nothing is copied to turn it.
        turned = slab.transpose([self._order.index(axis) for axis in self._kept])
        view = turned[
            tuple(slice(None) if axis in self._kept else None for axis in range(len(box)))
        ]
        with self._lock, damage_as_error(self.url, "HDF5"):
            self._voxels.read_into(view, tuple(box))
        self.bytes_read += round((self.bytes_stored or 0) * slab.size / math.prod(self.shape))
        return slab.view(self.dtype)

    def close(self) -> None:
        """Close the file and those that it links to."""
        self._files.close()


def is_hdf5_name(name: str) -> bool:
    """Whether a file name is that of an HDF5 or NeXus file."""
    return name.lower().endswith(HDF5_SUFFIXES) and not name.startswith(".")


__all__ = ["Hdf5Source", "is_hdf5_name"]
