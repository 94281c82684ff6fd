"""What a header states about the voxels of a raw file: where they lie, and their type."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctray.core.errors import GeometryError, InvalidVolumeError
from ctray.core.geometry import Triple, VoxelSize
from ctray.formats.source import check_shape
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RawLayout:
    """Voxels of a raw file, C order: x changes fastest.

    Parameters
    ----------
    data_url
        File that holds them.
    offset
        Byte at which they begin; None if they are the last bytes of the file.
    shape, dtype
        Voxels (z, y, x) and their type, byte order included.
    packed
        Whether they are one zlib or gzip stream.
    voxel_size
        None if the header states none.
    notes
        Assumptions about what the header does not state.
    """

    data_url: str
    offset: int | None
    shape: Triple
    dtype: np.dtype[Any]
    packed: bool = False
    voxel_size: FoundVoxelSize | None = None
    notes: tuple[str, ...] = ()


def read_header(url: str) -> bytes:
    """First bytes of a file, up to the longest header that is read."""
    with store.open_binary(url) as file:
        return file.read(HEADER_BYTES)


def header_error(url: str, problem: str) -> InvalidVolumeError:
    """Error for a header that is incomplete or not supported."""
    return InvalidVolumeError(f"{url}: {problem}; correct the header, or convert to TIFF or Zarr")


def data_beside(url: str, name: str) -> str:
    """URL of the data file that the header at `url` names, beside it or below.

    A header may come from anywhere: it must not make ctray read other files of this machine.

    Raises
    ------
    InvalidVolumeError
        If `name` leads out of the header's folder, also by a link.
    """
    folder = url.rpartition("/")[0]
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "~")) or ".." in parts or ":" in parts[0]:
        raise _outside(url, name)
    data_url = store.join(folder, *parts)
    if store.is_local(url):
        real = Path(os.path.realpath(data_url))
        homes = (os.path.realpath(folder), os.path.dirname(os.path.realpath(url)))  # noqa: PTH120
        if not any(real.is_relative_to(home) for home in homes):
            raise _outside(url, name)
    return data_url


def _outside(url: str, name: str) -> InvalidVolumeError:
    return header_error(url, f"its data file {name!r} lies outside the folder of the header")


def shape_of(url: str, sizes_xyz: Sequence[str] | Sequence[int]) -> Triple:
    """Shape (z, y, x) from sizes in the order x, y, z."""
    try:
        sizes = [int(n) for n in sizes_xyz]
    except ValueError:
        shown = " ".join(map(str, sizes_xyz))
        raise header_error(url, f"sizes {shown!r} are not whole numbers") from None
    if not sizes or min(sizes) < 0:
        raise header_error(url, f"sizes {' '.join(map(str, sizes))!r} are not lengths")
    return check_shape(url, sizes[::-1])


def spacing_of(
    edges_xyz: Sequence[str] | Sequence[float], unit: str | None, source: str
) -> FoundVoxelSize | None:
    """Voxel size from edge lengths in the order x, y, z; None if they are meaningless.

    Without a unit, millimetres are assumed, as MetaImage and NRRD programs do (ITK), unless all
    edges are 1, because programs write 1 when they know no voxel size.
    """
    try:
        edges = [abs(float(edge)) for edge in edges_xyz][::-1]
        if len(edges) != 3 or (unit is None and edges == [1.0, 1.0, 1.0]):
            return None
        size = VoxelSize.of(edges, unit or "mm")
    except (GeometryError, ValueError):
        return None
    said = source if unit else f"{source} (no unit given, millimetres assumed)"
    return FoundVoxelSize(size=size, source=said)


def fields_of(url: str, text: str, separator: str) -> dict[str, str]:
    """Keys, in lower case, and values of a header of one pair a line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, mark, value = line.partition(separator)
        if mark and key.strip():
            found[key.strip().lower()] = value.strip().strip("\0")
    if not found:
        raise header_error(url, "its header has no keys and values")
    return found


def needed(url: str, fields: dict[str, str], key: str) -> str:
    """Value of a key; an error that names the key if it is missing."""
    value = fields.get(key.lower(), "")
    if not value:
        raise header_error(url, f"the header has no {key}")
    return value
