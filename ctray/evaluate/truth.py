"""The truth about the sample of a volume: exact for phantoms, checked by hand for scans.

Only evaluation may read it; localization must not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ctray.core.errors import ConfigError, CtrayError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import AXES, Box, Triple, as_triple
from ctray.storage.store import (
    Entry,
    is_local,
    join,
    list_dir,
    mapped_errors,
    normalize,
    read_bytes,
    read_json,
)
from ctray.volumes.volume import open_volume

FACE_NAMES = ("z0", "z1", "y0", "y1", "x0", "x1")
# With a larger tolerance, the person who annotated the scan could not tell where the sample ends.
MAX_TOLERANCE_VOXELS = 2
SixInts = tuple[int, int, int, int, int, int]
SixBools = tuple[bool, bool, bool, bool, bool, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """True location of the sample in one volume.

    Parameters
    ----------
    volume_id
        Name of the volume, as in the catalog.
    shape
        Extent of the volume at level 0, voxels, (z, y, x).
    box
        Box around the whole sample at level 0; None if the volume is empty.
    specimens
        One box per specimen, if there are several.
    mask_url
        URL of the voxel mask of the sample (nonzero is sample) at level 0; None if there is none.
    tolerance
        Uncertainty of the truth, voxels per face, in the order z0, z1, y0, y1, x0, x1.
    touching
        Whether the sample extends beyond the volume at each face, in the same order.

    Raises
    ------
    GeometryError
        If a box exceeds the volume.
    """

    volume_id: str
    shape: Triple
    box: Box | None
    specimens: tuple[Box, ...] = ()
    mask_url: str | None = None
    tolerance: SixInts = (0, 0, 0, 0, 0, 0)
    touching: SixBools = (False, False, False, False, False, False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_triple(self.shape, "truth shape"))
        for box in (self.box, *self.specimens):
            if box is not None:
                box.check_inside(self.shape)

    @property
    def scored_faces(self) -> SixBools:
        """Whether each face is scored: it is inside the volume and known to 2 voxels or better.

        At a face on the volume's border, a box that is too large would count as correct. At a face
        with a large tolerance, the error would measure the person who annotated the scan.
        """
        flags = [
            self.box is not None and not touches and sure <= MAX_TOLERANCE_VOXELS
            for touches, sure in zip(self.touching, self.tolerance, strict=True)
        ]
        return _six_bools(flags)


def read_truths(url: str) -> dict[str, Truth]:
    """Truths of an archive by volume id.

    Two layouts are supported. Phantom archives have files ``<id>.json`` in `url` or in its folder
    ``truth``. Each file has ``box`` (three [start, stop] pairs, or null for an empty volume),
    ``shape`` and optionally ``specimens``, ``tolerance`` and ``touching`` (six values, as in
    `Truth`). The mask is in ``<id>-mask.zarr`` in the same folder.

    Scans have folders with a ``meta.json``: `url` itself or folders in it. The file has
    ``bbox_zyx_half_open``, ``shape``, ``bbox_tolerance_voxels_per_face`` and
    ``faces_touching_volume_border``. The mask is in ``mask.tif``, and the folder's name is the
    volume id. A ``meta.json`` without a box is ignored.

    Raises
    ------
    NotFoundError
        If `url` does not exist or contains no truth.
    ConfigError
        If a truth cannot be used; the message names its URL.
    """
    url = normalize(url)
    entries = list_dir(url)
    names = {e.name for e in entries}
    found: list[Truth]
    if "meta.json" in names:
        found = _scan_truths([Entry(url=url, name="", is_dir=True, size=None)])
    elif any(e.name == "truth" and e.is_dir for e in entries):
        found = _phantom_truths(list_dir(join(url, "truth")))
    else:
        found = _phantom_truths(entries) or _scan_truths(entries)
    truths = {t.volume_id: t for t in found}
    if not truths:
        raise NotFoundError(
            f"{url} holds no truth; give a folder with truth/<id>.json files "
            "or with <id>/meta.json files that hold bbox_zyx_half_open"
        )
    return truths


def iter_mask(truth: Truth) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Sample mask of a volume in slabs along z: (first z index, bool (z, y, x)).

    Raises
    ------
    NotFoundError
        If the truth has no mask, or the mask is missing.
    InvalidVolumeError
        If the mask cannot be read or has another shape than the volume.
    """
    if truth.mask_url is None:
        raise NotFoundError(f"truth of volume {truth.volume_id!r} has no mask")
    if truth.mask_url.endswith((".tif", ".tiff")):
        yield 0, _read_tiff(truth.mask_url, truth.shape)
        return
    volume = open_volume(truth.mask_url)
    _check_mask_shape(truth.mask_url, tuple(volume.shape), truth.shape)
    for box, slab in volume.iter_slabs():
        yield box.start[0], slab != 0


def count_sample_voxels(truth: Truth, boxes: Sequence[Box]) -> tuple[int, list[int]]:
    """Number of sample voxels in a volume, and in each of `boxes` (level 0).

    The mask is read once, in slabs, for any number of boxes.
    """
    total, inside = 0, [0] * len(boxes)
    for first, slab in iter_mask(truth):
        total += int(np.count_nonzero(slab))
        for i, box in enumerate(boxes):
            z, y, x = box.slices
            part = slab[max(0, z.start - first) : max(0, z.stop - first), y, x]
            inside[i] += int(np.count_nonzero(part))
    return total, inside


def _phantom_truths(entries: Sequence[Entry]) -> list[Truth]:
    names = {e.name for e in entries}
    found = []
    for entry in entries:
        if entry.is_dir or not entry.name.endswith(".json"):
            continue
        data = read_json(entry.url)
        # The folder of an archive may contain other JSON files.
        if not isinstance(data, Mapping) or not {"box", "shape"} <= data.keys():
            continue
        volume_id = entry.name.removesuffix(".json")
        mask = f"{volume_id}-mask.zarr"
        mask_url = entry.url.removesuffix(entry.name) + mask if mask in names else None
        found.append(_read_phantom(entry.url, volume_id, data, mask_url))
    return found


def _read_phantom(url: str, volume_id: str, data: Mapping[str, Any], mask_url: str | None) -> Truth:
    try:
        shape = as_triple(data["shape"], "truth shape")
        box = None if data["box"] is None else Box.from_ranges(data["box"])
        parts = data.get("specimens") or []
        # Phantoms may store an organ or a label with a specimen's box.
        ranges = [p["box"] if isinstance(p, Mapping) else p for p in parts]
        return Truth(
            volume_id=volume_id,
            shape=shape,
            box=box,
            specimens=tuple(Box.from_ranges(r) for r in ranges if r is not None),
            mask_url=mask_url,
            tolerance=_six_ints(data.get("tolerance") or (0,) * 6),
            touching=_six_bools(data.get("touching") or _border_faces(box, shape)),
        )
    except (CtrayError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unusable(url, error) from error


def _scan_truths(entries: Sequence[Entry]) -> list[Truth]:
    found = []
    for entry in entries:
        if not entry.is_dir:
            continue
        names = {e.name for e in list_dir(entry.url)}
        if "meta.json" not in names:
            continue
        url = join(entry.url, "meta.json")
        data = read_json(url)
        if isinstance(data, Mapping) and "bbox_zyx_half_open" in data:
            mask_url = join(entry.url, "mask.tif") if "mask.tif" in names else None
            found.append(_read_scan(url, data, mask_url))
    return found


def _read_scan(url: str, data: Mapping[str, Any], mask_url: str | None) -> Truth:
    try:
        shape = as_triple(data["shape"], "truth shape")
        box = Box.from_ranges(data["bbox_zyx_half_open"])
        named = set(data.get("faces_touching_volume_border", ()))
        if not named <= set(FACE_NAMES):
            raise ValueError(f"faces {sorted(named - set(FACE_NAMES))} are unknown")
        sure = data.get("bbox_tolerance_voxels_per_face") or {}
        tolerance = [v for axis in AXES for v in sure.get(axis, (0, 0))]
        on_border = _border_faces(box, shape)
        return Truth(
            volume_id=url.split("/")[-2],
            shape=shape,
            box=box,
            mask_url=mask_url,
            tolerance=_six_ints(tolerance),
            touching=_six_bools(
                [on or name in named for on, name in zip(on_border, FACE_NAMES, strict=True)]
            ),
        )
    except (CtrayError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _unusable(url, error) from error


def _border_faces(box: Box | None, shape: Triple) -> SixBools:
    if box is None:
        return _six_bools([False] * 6)
    ends = [end for n in shape for end in (0, n)]
    return _six_bools([face == end for face, end in zip(box.faces, ends, strict=True)])


def _six_bools(flags: Sequence[bool]) -> SixBools:
    z0, z1, y0, y1, x0, x1 = (bool(f) for f in flags)
    return (z0, z1, y0, y1, x0, x1)


def _six_ints(values: Sequence[int]) -> SixInts:
    z0, z1, y0, y1, x0, x1 = (int(v) for v in values)
    return (z0, z1, y0, y1, x0, x1)


def _unusable(url: str, error: Exception) -> ConfigError:
    what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
    return ConfigError(f"truth {url} cannot be used: {what}")


def _read_tiff(url: str, shape: Triple) -> npt.NDArray[np.bool_]:
    source = url if is_local(url) else io.BytesIO(read_bytes(url))
    with mapped_errors(url, "read"):
        mask: npt.NDArray[Any] = np.asarray(tifffile.imread(source))
    _check_mask_shape(url, mask.shape, shape)
    sample: npt.NDArray[np.bool_] = mask != 0
    return sample


def _check_mask_shape(url: str, found: tuple[int, ...], wanted: Triple) -> None:
    if found != wanted:
        raise InvalidVolumeError(
            f"mask {url} has shape {found}, its volume {wanted}; they must be equal at level 0"
        )
