"""Volumes of several datasets: virtual datasets, and series of numbered datasets.

HDF5 itself reads fill values for missing parts and opens parts on the local disk only. Here each
part is located, checked and read separately, so that parts may lie in an object store too.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import h5py
import numpy as np

from ctray.core.errors import InvalidVolumeError, KeysError
from ctray.formats.hdf5.files import LOST, Hdf5Files
from ctray.formats.hdf5.links import Place, id_of, resolve
from ctray.formats.hdf5.voxels import Range, Raw, Stored, Voxels, check_extent

# Parts may be virtual themselves.
_MAX_NESTED = 8
_MAX_PARTS = 20_000
# Most indices along one axis of all parts, and most cells that the parts divide the whole into.
_MAX_INDICES = 2**26


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One mapping from a part to the whole.

    `at` and `from_` hold one array of indices for each axis of the whole and of the part. `pairs`
    lists axes (whole, part) that correspond; on all other axes the mapping has a single index.
    """

    voxels: Voxels
    at: tuple[np.ndarray, ...]
    from_: tuple[np.ndarray, ...]
    pairs: tuple[tuple[int, int], ...]


class Assembled(Voxels):
    """A volume that its parts cover completely."""

    def __init__(self, where: str, shape: tuple[int, ...], parts: Sequence[_Part]) -> None:
        check_extent(where, shape)
        self.shape = shape
        self._parts = parts
        self.dtype = parts[0].voxels.dtype
        self.bytes_stored = sum(part.voxels.bytes_stored for part in parts)
        self.chunk = _common_chunk(len(shape), parts)
        _check_covered(where, shape, parts)

    def read_into(self, out: np.ndarray, box: Range) -> None:
        """Read a box; see `Voxels.read_into`."""
        for part in self._parts:
            _copy(part, out, box)


def open_voxels(files: Hdf5Files, place: Place, depth: int = 0) -> Voxels:
    """Voxels of a dataset, wherever they lie; everything it needs is located and checked.

    Raises
    ------
    InvalidVolumeError
        If a part is missing, outside the archive, incomplete or of another shape, or if its
        mapping is not supported.
    """
    data = files.item(place.url, place.path)
    plan = data.id.get_create_plist()
    if plan.get_external_count():
        return Raw(files, place)
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        return _open_virtual(files, place, depth)
    return Stored(files, place)


def _open_virtual(files: Hdf5Files, place: Place, depth: int) -> Voxels:
    data = files.item(place.url, place.path)
    plan = data.id.get_create_plist()
    where = f"{place.url}:{place.path}"
    count = plan.get_virtual_count()
    if depth >= _MAX_NESTED or count > _MAX_PARTS:
        raise InvalidVolumeError(
            f"{where}: ctray does not read a virtual dataset of {count} parts at nesting depth "
            f"{depth}; copy it into a plain dataset"
        )
    if count == 0:
        raise InvalidVolumeError(f"{where}: a virtual dataset without parts; write it again")
    if is_endless(plan):
        raise InvalidVolumeError(
            f"{where}: ctray does not read virtual datasets that grow with their parts; "
            "write it with a fixed shape"
        )
    shape, dtype = tuple(data.shape), data.dtype
    if count * max(shape, default=0) > _MAX_INDICES:
        raise InvalidVolumeError(
            f"{where}: a virtual dataset of shape {shape} in {count} parts is too large; copy it "
            "into a plain dataset"
        )
    parts = [_mapped(files, place, plan, shape, i, depth) for i in range(count)]
    for part in parts:
        if not np.can_cast(part.voxels.dtype, dtype, "safe"):
            raise InvalidVolumeError(
                f"{where}: dtype {dtype} cannot hold the {part.voxels.dtype} of a part; write it "
                "again"
            )
    whole = Assembled(where, shape, parts)
    whole.dtype = dtype
    return whole


def join_voxels(files: Hdf5Files, where: str, places: Sequence[Place]) -> Voxels:
    """Join datasets of equal height and width along the first axis."""
    voxels = [open_voxels(files, place) for place in places]
    first, depth, parts = voxels[0], 0, []
    for place, part in zip(places, voxels, strict=True):
        if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
            raise InvalidVolumeError(
                f"{where}: {place.url}:{place.path} is {part.shape} {part.dtype}, but the first "
                f"part is {first.shape} {first.dtype}; name one of them with --dataset"
            )
        rest = tuple(np.arange(n) for n in part.shape[1:])
        parts.append(
            _Part(
                voxels=part,
                at=(np.arange(depth, depth + part.shape[0]), *rest),
                from_=(np.arange(part.shape[0]), *rest),
                pairs=tuple((axis, axis) for axis in range(len(part.shape))),
            )
        )
        depth += part.shape[0]
    return Assembled(where, (depth, *first.shape[1:]), parts)


def sources_of(files: Hdf5Files, place: Place) -> Iterator[Place]:
    """Existing parts of a virtual dataset; nothing for other datasets."""
    plan = files.item(place.url, place.path).id.get_create_plist()
    if plan.get_layout() != h5py.h5d.VIRTUAL:
        return
    for i in range(min(plan.get_virtual_count(), _MAX_PARTS)):
        with contextlib.suppress(*LOST):
            url = files.locate(place.url, plan.get_virtual_filename(i), f"part of {place.path}")
            source = resolve(files, Place(url=url, path="/"), plan.get_virtual_dsetname(i))
            if source is not None:
                yield source


def note_ids(files: Hdf5Files, places: Iterable[Place]) -> None:
    """Note which datasets of this file and of other files are the volume or parts of it."""
    for place in places:
        if place.url == files.url:
            files.voxels_ids[id_of(files, place)] = None
        else:
            files.others[place.url] = None
            files.part_ids[id_of(files, place)] = None


def is_endless(plan: Any) -> bool:
    """Whether a virtual dataset grows with its parts.

    HDF5 opens the parts of such a dataset just to find its shape.
    """
    for i in range(plan.get_virtual_count()):
        space = plan.get_virtual_vspace(i)
        if space.get_select_type() == h5py.h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
            _, _, count, block = space.get_regular_hyperslab()
            if h5py.h5s.UNLIMITED in (*count, *block):
                return True
        if "%b" in plan.get_virtual_filename(i):
            return True
    return False


def _mapped(
    files: Hdf5Files, place: Place, plan: Any, shape: tuple[int, ...], i: int, depth: int
) -> _Part:
    name, path = plan.get_virtual_filename(i), plan.get_virtual_dsetname(i)
    what = f"part {i + 1} of {plan.get_virtual_count()} of {place.path}"
    url = files.locate(place.url, name, what)
    source = resolve(files, Place(url=url, path="/"), path)
    found = files.item(source.url, source.path) if source is not None else None
    if source is None or not isinstance(found, h5py.Dataset):
        raise InvalidVolumeError(
            f"{files.url}: {what}: {url} holds no dataset {path}; copy or write it again"
        )
    note_ids(files, [source])
    try:
        voxels = open_voxels(files, source, depth + 1)
    except LOST as error:
        if isinstance(error, KeysError) or str(error).startswith(f"{files.url}: "):
            raise
        raise InvalidVolumeError(f"{files.url}: {what}: {error}") from error
    at = _selected(plan.get_virtual_vspace(i), shape, f"{files.url}: {what}")
    from_ = _selected(plan.get_virtual_srcspace(i), voxels.shape, f"{files.url}: {what}")
    for axis, (index, n) in enumerate(zip(from_, voxels.shape, strict=True)):
        if index[-1] >= n:
            raise InvalidVolumeError(
                f"{files.url}: {what}: {source.url} has {n} voxels along axis {axis}, but "
                f"{index[-1] + 1} are mapped; copy or write it again"
            )
    return _Part(voxels=voxels, at=at, from_=from_, pairs=_paired(at, from_, files.url, what))


def _selected(space: Any, shape: tuple[int, ...], what: str) -> tuple[np.ndarray, ...]:
    """Indices that a selection takes along each axis of `shape`."""
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        return tuple(_indices(0, 1, 1, n) for n in shape)
    if kind != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        raise InvalidVolumeError(f"{what}: ctray reads regular selections only; write it again")
    starts, strides, counts, blocks = space.get_regular_hyperslab()
    if len(starts) != len(shape):
        raise InvalidVolumeError(
            f"{what}: maps {len(starts)} axes, but the dataset has {len(shape)}; write it again"
        )
    found = []
    for start, stride, count, block, n in zip(starts, strides, counts, blocks, shape, strict=True):
        # Checked before any array is allocated: numbers in a file may have any value.
        is_inside = 0 < count * block <= n and start + (count - 1) * stride + block <= n
        if not is_inside or (count > 1 and stride < block):
            raise InvalidVolumeError(
                f"{what}: maps more than the {n} voxels along an axis; copy or write it again"
            )
        found.append(_indices(int(start), int(stride), int(count), int(block)))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _indices(start: int, stride: int, count: int, block: int) -> np.ndarray:
    """Indices of a regular selection along one axis; read-only, because parts share them."""
    found = (start + stride * np.arange(count)[:, None] + np.arange(block)).reshape(-1)
    found.flags.writeable = False
    return found


def _paired(
    at: tuple[np.ndarray, ...], from_: tuple[np.ndarray, ...], url: str, what: str
) -> tuple[tuple[int, int], ...]:
    """Axes (whole, part) that correspond: those with more than one index, in their order."""
    whole = [axis for axis, index in enumerate(at) if len(index) > 1]
    part = [axis for axis, index in enumerate(from_) if len(index) > 1]
    if [len(at[axis]) for axis in whole] != [len(from_[axis]) for axis in part]:
        raise InvalidVolumeError(
            f"{url}: {what}: {[len(i) for i in from_]} voxels of the part are mapped to "
            f"{[len(i) for i in at]} voxels; copy or write it again"
        )
    return tuple(zip(whole, part, strict=True))


def _check_covered(where: str, shape: tuple[int, ...], parts: Sequence[_Part]) -> None:
    """Refuse a whole with voxels that no part covers."""
    # Each axis is divided where any part begins or ends; voxels of a cell are in the same parts.
    cells, sizes = [], []
    for axis, n in enumerate(shape):
        known = {part.at[axis].tobytes(): part.at[axis] for part in parts}
        member = np.zeros((len(known), n), bool)
        for row, index in zip(member, known.values(), strict=True):
            row[index] = True
        _, cell, size = np.unique(member, axis=1, return_inverse=True, return_counts=True)
        cells.append(cell.reshape(-1))
        sizes.append(len(size))
    if math.prod(sizes) > _MAX_INDICES:
        raise InvalidVolumeError(
            f"{where}: its {len(parts)} parts are too scattered; copy it into a plain dataset"
        )
    covered = np.zeros(sizes, bool)
    for part in parts:
        covered[np.ix_(*(np.unique(c[i]) for c, i in zip(cells, part.at, strict=True)))] = True
    if covered.all():
        return
    hole = np.argwhere(~covered)[0]
    first = tuple(int(np.flatnonzero(c == h)[0]) for c, h in zip(cells, hole, strict=True))
    raise InvalidVolumeError(
        f"{where}: no part covers the voxels from {first}; write it again with all parts"
    )


def _common_chunk(rank: int, parts: Sequence[_Part]) -> tuple[int, ...]:
    """Largest chunk of any part along each axis of the whole."""
    chunk = [1] * rank
    for part in parts:
        for whole, axis in part.pairs:
            chunk[whole] = max(chunk[whole], part.voxels.chunk[axis])
    return tuple(chunk)


def _copy(part: _Part, out: np.ndarray, box: Range) -> None:
    """Read the voxels of a box that lie in a part."""
    spans = []
    for index, b in zip(part.at, box, strict=True):
        first, last = np.searchsorted(index, [b.start, b.stop])
        if first == last:
            return
        spans.append((int(first), int(last)))
    partner = dict(part.pairs)
    stretches = [
        list(_stretches(index[first:last] - b.start, part.from_[partner[axis]][first:last]))
        if axis in partner
        else [(slice(int(index[0]) - b.start, int(index[0]) - b.start + 1), None)]
        for axis, (index, b, (first, last)) in enumerate(zip(part.at, box, spans, strict=True))
    ]
    for piece in product(*stretches):
        target = out[tuple(to for to, _ in piece)]
        source = [slice(int(index[0]), int(index[0]) + 1) for index in part.from_]
        for whole, axis in part.pairs:
            chosen = piece[whole][1]
            assert chosen is not None
            source[axis] = chosen
        part.voxels.read_into(_in_axes_of_part(target, part), tuple(source))


def _in_axes_of_part(target: np.ndarray, part: _Part) -> np.ndarray:
    """View of a target with the axes of a part instead of the axes of the whole."""
    whole = {axis for axis, _ in part.pairs}
    theirs = {axis for _, axis in part.pairs}
    view = target[tuple(slice(None) if axis in whole else 0 for axis in range(target.ndim))]
    return view[tuple(slice(None) if axis in theirs else None for axis in range(len(part.from_)))]


def _stretches(to: np.ndarray, source: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Divide two lists of indices into stretches: even in the target, dense in the source."""
    start = 0
    while start < len(to):
        step = int(to[start + 1] - to[start]) if start + 1 < len(to) else 1
        stop = start + 1
        while (
            stop < len(to)
            and source[stop] == source[stop - 1] + 1
            and to[stop] - to[stop - 1] == step
        ):
            stop += 1
        yield (
            slice(int(to[start]), int(to[stop - 1]) + 1, step),
            slice(int(source[start]), int(source[stop - 1]) + 1),
        )
        start = stop
