"""Volumes in HDF5 and NeXus files.

`tree` lists the datasets of the file, `roles` says what each one is, `choice` picks the volume,
`axes` finds its axes and voxel size, and `voxels` and `virtual` read it.
"""

from __future__ import annotations

import math
import threading
from typing import Self

import numpy as np

from ctray.core.errors import InvalidVolumeError, printable
from ctray.core.geometry import as_triple
from ctray.formats.file_access import damage_as_error
from ctray.formats.hdf5.axes import kept_axes, voxel_size_of
from ctray.formats.hdf5.choice import Choice, choose
from ctray.formats.hdf5.files import Hdf5Files
from ctray.formats.hdf5.programs import is_unsigned
from ctray.formats.hdf5.tree import read_tree
from ctray.formats.hdf5.virtual import join_voxels, note_ids, open_voxels, sources_of
from ctray.formats.hdf5.voxels import Voxels
from ctray.formats.source import VolumeSource, check_dtype, check_shape

# If z is not the first stored axis, each read passes through the whole file. Larger slabs then
# need fewer passes.
_TURNED_BYTES = 256 << 20
_PARTS_SHOWN = 3


class Hdf5Source(VolumeSource):
    """A dataset in an HDF5 or NeXus file, with its axes in the order z, y, x.

    Parameters
    ----------
    url
        The file.
    dataset
        Path inside the file. Default: the reconstruction according to the metadata of the file,
        else the only 3D dataset that is not projections, a mask or a colour image.
    within
        Folder or prefix that links must not leave; default: the folder of the file.

    Raises
    ------
    NotReconstructedError
        If the file is a raw scan.
    NoVolumeError
        If the file holds no 3D dataset with grey values.
    InvalidVolumeError
        If the file is damaged or in use, if the dataset is missing or several may be the volume
        (the error lists them), if the dataset is not 3D, holds no grey values or was not written
        completely, if a part is missing or outside `within`, or if a filter is not installed.
    """

    kind = "hdf5"
    # While the library waits, such as for a pipe behind a link, no other Python thread runs, and
    # a damaged file can end the process.
    is_isolated = True

    def __init__(self, url: str, dataset: str | None = None, *, within: str | None = None) -> None:
        super().__init__(url)
        self.within = within
        self._lock = threading.Lock()
        self._files = Hdf5Files(url, within)
        try:
            with damage_as_error(url, "HDF5"):
                self._describe(choose(self._files, read_tree(self._files), dataset))
        except InvalidVolumeError as caught:
            # An error about another file, which this one links to, does not name this one.
            text = str(caught) if str(caught).startswith(url) else f"{url}: {caught}"
            error = type(caught)(printable(text))
            error.voxels_ids = tuple(self._files.voxels_ids)
            error.part_ids = tuple(self._files.part_ids)
            self._files.close()
            raise error from caught.__cause__
        except BaseException:
            self._files.close()
            raise

    @classmethod
    def open(cls, url: str, *, dataset: str | None = None, within: str | None = None) -> Self:
        """Open a dataset of the file at `url`."""
        return cls(url, dataset, within=within)

    def _describe(self, choice: Choice) -> None:
        first = choice.arrays[0]
        self.dataset = choice.path
        if printable(choice.path) != choice.path:
            raise InvalidVolumeError(
                f"{self.url}: the name of dataset {choice.path} cannot be printed; rename it"
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
        self._set_voxel_size(voxel_size_of(self._files, first, choice.axes, order))
        self.parts = tuple(self._files.others)
        self.voxels_ids = tuple(self._files.voxels_ids)
        self.part_ids = tuple(self._files.part_ids)
        notes = (*choice.notes, *self._own_notes(order))
        self.notes = tuple(printable(note) for note in notes)

    def _opened(self, choice: Choice, where: str) -> Voxels:
        places = [array.place for array in choice.arrays]
        note_ids(self._files, places)
        try:
            if len(places) == 1:
                return open_voxels(self._files, places[0])
            return join_voxels(self._files, where, places)
        except InvalidVolumeError:
            # One part is missing, but the others are parts nevertheless.
            note_ids(self._files, [s for place in places for s in sources_of(self._files, place)])
            raise

    def _depth(self) -> int:
        """Number of slices that are best read at once."""
        z = self._order[0]
        depth = self._voxels.chunk[z]
        if z == self._kept[0]:
            return depth
        per_slice = math.prod(self.shape[1:]) * self.dtype.itemsize
        fit = max(1, _TURNED_BYTES // per_slice)
        return min(self.shape[0], max(depth, fit // depth * depth))

    def _own_notes(self, order: tuple[int, ...]) -> list[str]:
        """Notes on axes, types and parts that are not as usual."""
        notes = []
        if order != (0, 1, 2):
            names = "".join("zyx"[order.index(axis)] for axis in range(3))
            notes.append(f"the axes are stored as {', '.join(names)} and read as z, y, x")
        if self.dtype != self._read_as:
            notes.append("signed integers are read as unsigned, because BigDataViewer wrote them")
        if self.parts:
            shown = ", ".join(url.rpartition("/")[2] for url in self.parts[:_PARTS_SHOWN])
            more = ", ..." if len(self.parts) > _PARTS_SHOWN else ""
            notes += [self._files.moved[url] for url in self.parts if url in self._files.moved]
            files = "another file" if len(self.parts) == 1 else f"{len(self.parts)} other files"
            notes.append(f"the voxels lie in {files} ({shown}{more})")
        return notes

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self._read_as)
        box = [slice(0, n) for n in self._voxels.shape]
        box[self._order[0]] = slice(start, stop)
        # A view of the slab in the axes of the file, so that turning it copies nothing.
        turned = slab.transpose([self._order.index(axis) for axis in self._kept])
        view = turned[
            tuple(slice(None) if axis in self._kept else None for axis in range(len(box)))
        ]
        with self._lock, damage_as_error(self.url, "HDF5"):
            self._voxels.read_into(view, tuple(box))
        self.bytes_read += round((self.bytes_stored or 0) * slab.size / math.prod(self.shape))
        return slab.view(self.dtype)

    def close(self) -> None:
        """Close the file and the files that it links to."""
        self._files.close()
