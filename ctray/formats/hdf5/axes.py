"""Axes and voxel size of an HDF5 dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from ctray.formats.hdf5.files import Hdf5Files
from ctray.formats.hdf5.links import attribute, attributes, small_value, text_of
from ctray.formats.hdf5.tree import Array, Group
from ctray.volumes import voxel_metadata
from ctray.volumes.voxel_metadata import FoundVoxelSize

_ANGLES = frozenset({"theta", "angle", "angles", "rotation", "omega", "phi", "projection", "frame"})
_OTHERS = frozenset({"energy", "wavelength", "time", "channel", "channels", "t", "c", "colour"})
# Words that mean exactly one axis in tomography; "height" does not.
_WORDS = {"slice": "z", "slices": "z", "row": "y", "rows": "y", "column": "x", "columns": "x"}
# Groups with nabu's settings of a reconstruction, beside its results; sizes are in z, y, x order.
_NABU = ("configuration", "processing_options", "reconstruction")
# Steps along an axis may differ by rounding.
_EVEN = 1e-2


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What the file states about the axes of a dataset.

    Parameters
    ----------
    names
        One stored name per axis; "" for axes without a name.
    scales
        Dataset with the positions along each axis; None for axes without one.
    source
        Origin of the names, for messages.
    """

    names: tuple[str, ...]
    scales: tuple[Array | None, ...]
    source: str

    @property
    def letters(self) -> tuple[str, ...]:
        """Meaning of each axis: "x", "y", "z", "angle", "other", or "" for unknown."""
        return tuple(_letter(name) for name in self.names)

    def first(self, letter: str, shape: Sequence[int]) -> str | None:
        """Name of the first axis with meaning `letter` and several voxels; None without one."""
        axes = zip(self.names, self.letters, shape, strict=True)
        return next((name for name, found, n in axes if found == letter and n > 1), None)

    def order(self, kept: Sequence[int]) -> tuple[int, int, int] | None:
        """Positions of z, y and x among the three `kept` axes; None if the names do not tell.

        Two known axes determine the third.
        """
        letters = [self.letters[axis] for axis in kept]
        known = [letter for letter in letters if letter in ("x", "y", "z")]
        if len(set(known)) != len(known) or len(known) < 2:
            return None
        if len(known) == 2:
            at = next(i for i, letter in enumerate(letters) if letter not in known)
            if letters[at] in ("angle", "other"):
                return None
            letters[at] = next(letter for letter in "xyz" if letter not in known)
        return letters.index("z"), letters.index("y"), letters.index("x")


def axes_of(files: Hdf5Files, array: Array) -> Axes | None:
    """Axes according to NeXus, Data Exchange, dimension scales or vigra's tags; None without any.

    Singleton axes are included.
    """
    rank = len(array.shape or ())
    for found in _statements(files, array):
        if len(found.names) == rank and any(found.letters):
            return found
    return None


def kept_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes that remain if singletons are dropped from the left until three are left."""
    kept = list(range(len(shape)))
    for axis, n in enumerate(shape):
        if len(kept) > 3 and n == 1:
            kept.remove(axis)
    return tuple(kept)


def voxel_size_of(
    files: Hdf5Files, array: Array, axes: Axes | None, order: tuple[int, int, int]
) -> FoundVoxelSize | None:
    """Voxel size (z, y, x) from the axes, else from attributes and small datasets nearby.

    `order` says which of the kept axes of the dataset are z, y and x. Three numbers without names
    are (z, y, x) by custom. This is uncertain if the stored axes have another order, so they are
    used then only if all are equal.
    """
    steps = _steps(files, array, axes, order)
    if steps is not None and axes is not None:
        return voxel_metadata.from_mapping({"voxel_size_um": steps}, f"{axes.source}")
    for values, where in _mappings_nearby(files, array):
        found = voxel_metadata.from_mapping(values, where)
        if found is None:
            continue
        if order != (0, 1, 2) and len(set(found.size.um)) > 1:
            return None
        return found
    return None


def words_of(name: str) -> list[str]:
    """Words in a name, in lower case: "voxel_x", "voxelX" and "Voxel X 2" are two words."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return [word for word in re.split(r"[^a-z]+", apart) if word]


def is_angle_name(name: str) -> bool:
    """Whether a name stands for rotation angles."""
    return any(word in _ANGLES for word in words_of(name))


def _letter(name: str) -> str:
    """Meaning of an axis name: "voxel_x", "x-axis", "X (um)" and "sampleX" are all "x"."""
    if is_angle_name(name):
        return "angle"
    found = words_of(name)
    if any(word in _OTHERS for word in found):
        return "other"
    for letters in (
        {word for word in found if word in ("x", "y", "z")},
        {_WORDS[word] for word in found if word in _WORDS},
    ):
        if len(letters) == 1:
            return letters.pop()
    return ""


def _statements(files: Hdf5Files, array: Array) -> Iterator[Axes]:
    """All statements about the axes, the most explicit first."""
    rank = len(array.shape or ())
    for name, group in array.homes:
        signal = text_of(group.attrs.get("signal"))
        if "axes" in group.attrs and signal in (None, name, *_texts(group, "auxiliary_signals")):
            names = _placed(files, group, rank)
            if names is not None:
                yield _axes(names, group, f"NeXus axes of {group.path}")
    if (own := array.attrs.get("axes")) is not None and array.homes:
        yield _axes(_split(own), array.homes[0][1], f"axes of {array.path}")
    data = files.item(array.place.url, array.place.path)
    yield from _dimension_scales(array, data)
    yield from _vigra(array)
    for _, group in array.homes:
        yield from _named_like_axes(array, group)


def _axes(names: Sequence[str], group: Group, source: str) -> Axes:
    scales = tuple(group.arrays.get(name) if name else None for name in names)
    return Axes(names=tuple(names), scales=scales, source=source)


def _split(value: Any) -> list[str]:
    """Names of an `axes` attribute: a list, or one string such as "[z,y,x]" or "z:y:x"."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size != 1:
        return [text_of(v) or "" for v in value]
    text = text_of(value) or ""
    names = re.split(r"[:,]", text.strip("[] "))
    return ["" if name.strip() == "." else name.strip() for name in names]


def _texts(group: Group, name: str) -> list[str]:
    value = group.attrs.get(name)
    return [] if value is None else _split(value)


def _placed(files: Hdf5Files, group: Group, rank: int) -> list[str] | None:
    """Axis names of an NXdata group in the order of the axes, which `AXIS_indices` may change."""
    names = _split(group.attrs["axes"])
    item = files.item(group.place.url, group.place.path)
    placed = [""] * rank
    for at, name in enumerate(names):
        if not name:
            continue
        index = attribute(item, f"{name}_indices")
        where = np.atleast_1d(index) if index is not None else np.array([at])
        if where.size != 1 or where.dtype.kind not in "iu" or not 0 <= int(where[0]) < rank:
            return None
        placed[int(where[0])] = name
    return placed


def _dimension_scales(array: Array, data: h5py.Dataset) -> Iterator[Axes]:
    """Names of attached dimension scales, else the labels of the dimensions.

    HDF5 Dimension Scale Specification: attributes DIMENSION_LIST (references, by axis) and
    DIMENSION_LABELS. They are read here because HDF5's own functions do not check their types
    and corrupt memory if a file has others.
    """
    attached = _attached(data)
    labels = attribute(data, "DIMENSION_LABELS")
    labels = labels if isinstance(labels, np.ndarray) and labels.shape == (data.ndim,) else None
    by_path = {a.place.path: a for _, group in array.homes for a in group.arrays.values()}
    names: list[str] = []
    for axis, scale in enumerate(attached):
        said = text_of(attribute(scale, "NAME")) if scale is not None else None
        label = text_of(labels[axis]) if labels is not None else None
        path = str(scale.name) if scale is not None else ""
        names.append(said or label or path.rpartition("/")[2])
    if any(names):
        scales = [by_path.get(str(scale.name)) if scale is not None else None for scale in attached]
        yield Axes(
            names=tuple(names), scales=tuple(scales), source=f"dimension scales of {array.path}"
        )


def _attached(data: h5py.Dataset) -> list[h5py.Dataset | None]:
    """First dimension scale of each axis; None for axes without one."""
    nothing: list[h5py.Dataset | None] = [None] * data.ndim
    try:
        if "DIMENSION_LIST" not in data.attrs:
            return nothing
        kind = h5py.check_vlen_dtype(data.attrs.get_id("DIMENSION_LIST").dtype)
        if kind is None or h5py.check_ref_dtype(kind) is not h5py.Reference:
            return nothing
        lists = attribute(data, "DIMENSION_LIST")
        if lists is None or lists.shape != (data.ndim,):
            return nothing
        items = [data.file[refs[0]] if len(refs) and refs[0] else None for refs in lists]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        # Broken references: the file is damaged, or its program made an error.
        return nothing
    return [item if isinstance(item, h5py.Dataset) else None for item in items]


def _vigra(array: Array) -> Iterator[Axes]:
    """Axis tags of vigra and ilastik: JSON with one entry per axis."""
    try:
        tags = json.loads(text_of(array.attrs.get("axistags")) or "null")
        names = tuple(str(tag["key"]) for tag in tags["axes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    yield Axes(names=names, scales=(None,) * len(names), source=f"axistags of {array.path}")


def _named_like_axes(array: Array, group: Group) -> Iterator[Axes]:
    """Datasets x, y, z beside the voxels, as in NXtomoproc; their lengths tell the order."""
    beside = {
        letter: a
        for name, a in group.arrays.items()
        if (letter := _letter(name)) in ("x", "y", "z") and len(a.shape or ()) == 1
    }
    shape = array.shape or ()
    if len(beside) != 3 or len(shape) != 3:
        return
    for names in ("zyx", "xyz"):
        if all(beside[c].shape == (n,) for c, n in zip(names, shape, strict=True)):
            yield Axes(
                names=tuple(names),
                scales=tuple(beside[c] for c in names),
                source=f"datasets x, y, z of {group.path}",
            )
            return


def _steps(
    files: Hdf5Files, array: Array, axes: Axes | None, order: tuple[int, int, int]
) -> list[float] | None:
    """Distances of voxels along z, y, x in micrometres, if every axis states its own."""
    if axes is None or array.shape is None:
        return None
    kept = kept_axes(array.shape)
    found: list[float] = []
    for axis in (kept[i] for i in order):
        scale = axes.scales[axis]
        step = _step(files, scale, array.shape[axis]) if scale is not None else None
        if step is None:
            return None
        found.append(step)
    return found


def _step(files: Hdf5Files, scale: Array, length: int) -> float | None:
    """Constant step of an axis dataset with a unit, in micrometres."""
    if scale.shape not in ((length,), (length + 1,)) or length < 2:
        return None
    data = files.item(scale.place.url, scale.place.path)
    unit = text_of(attribute(data, "units")) or text_of(attribute(data, "unit"))
    values = small_value(data) if unit else None
    if values is None or unit is None or values.dtype.kind not in "iuf":
        return None
    steps = np.diff(values.astype(float))
    mean = float(steps.mean())
    if not np.allclose(steps, mean, rtol=_EVEN, atol=0):
        return None
    return voxel_metadata.in_micrometres(abs(mean), unit)


def _mappings_nearby(files: Hdf5Files, array: Array) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Attributes and small datasets of a dataset and the groups above it, the nearest first."""
    data = files.item(array.place.url, array.place.path)
    yield attributes(data), f"{array.path} attributes"
    for group in array.homes[0][1].above() if array.homes else ():
        yield attributes(files.item(group.place.url, group.place.path)), f"{group.path} attributes"
        yield from _small_datasets(files, group)
        settings: Group | None = group
        for name in _NABU:
            settings = settings.groups.get(name) if settings is not None else None
        if settings is not None:
            yield from _small_datasets(files, settings)


def _small_datasets(files: Hdf5Files, group: Group) -> Iterator[tuple[Mapping[str, Any], str]]:
    for name, small in group.arrays.items():
        if small.shape is None or not 0 < np.prod(small.shape) <= 3:
            continue
        data = files.item(small.place.url, small.place.path)
        value = small_value(data)
        if value is not None:
            yield {**attributes(data), name: value}, group.path
