"""Volumes in folders of DICOM slices, read by pydicom."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctray.core.errors import GeometryError, InvalidVolumeError, NotFoundError, NoVolumeError
from ctray.core.geometry import VoxelSize
from ctray.formats.extras import extra_package
from ctray.formats.slices.folder import SliceFolderSource, SliceHeader, slices_of
from ctray.formats.source import Kind, damage_as_error, file_size, open_binary
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

_READERS = 4
# Steps between slices may differ by this fraction: positions are written with few digits.
_EVEN = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a slice belongs: its series, and its place along the normal in mm or its number."""

    name: str
    series: str
    millimetres: float | None
    number: int | None
    edges_yx: tuple[float, float] | None
    scaling: tuple[float, float]


class DicomSource(SliceFolderSource):
    """A folder with one DICOM series of single slices, in the order of their positions.

    Voxels are the stored ones: rescale slope and intercept are not applied, which a note tells.

    Raises
    ------
    InvalidVolumeError
        If pydicom is not installed, the folder holds several series or files of several frames,
        slices lack a position and a number or share one, or slices are rescaled differently.
    """

    kind: Kind = "dicom"

    def _find(self, url: str) -> tuple[str, Sequence[str], dict[str, int | None]]:
        folder, pattern, sizes = slices_of(url, self.kind)
        # The catalog's pattern, `*.dcm`, means all files of the folder, whatever their suffix.
        if pattern and not pattern.startswith("*."):
            sizes = {name: n for name, n in sizes.items() if fnmatch.fnmatchcase(name, pattern)}
        if not sizes:
            raise NotFoundError(f"{url}: no DICOM files; check the path or URL")
        with ThreadPoolExecutor(_READERS) as pool:
            places = list(pool.map(lambda name: _place(store.join(folder, name), name), sizes))
        self._places = _ordered(folder, places)
        scaling = {place.scaling for place in places}
        if len(scaling) > 1:
            raise InvalidVolumeError(
                f"{folder}: DICOM slices with different rescale slopes; convert them to TIFF"
            )
        notes = _gaps(self._places)
        if scaling != {(1.0, 0.0)}:
            slope, intercept = scaling.pop()
            notes.append(f"stored values; rescale slope {slope:g}, intercept {intercept:g}")
        self.notes = tuple(notes)
        return folder, [place.name for place in self._places], sizes

    def _header(self, url: str) -> SliceHeader:
        with _opened(url, voxels=False) as data:
            return _slice_header(url, data)

    def _plane(self, url: str) -> tuple[np.ndarray, int]:
        with _opened(url, voxels=True) as data, damage_as_error(url, "DICOM"):
            return np.asarray(data.pixel_array), store.file_bytes(url)

    def _own_voxel_size(self) -> FoundVoxelSize | None:
        first, steps = self._places[0], _steps(self._places)
        if first.edges_yx is None or not steps:
            return None
        try:
            size = VoxelSize.of((float(np.median(steps)), *first.edges_yx), "mm")
        except GeometryError:
            return None
        return FoundVoxelSize(size=size, source="DICOM positions and PixelSpacing")


@contextlib.contextmanager
def _opened(url: str, *, voxels: bool) -> Iterator[Any]:
    pydicom = extra_package("pydicom", url, "DICOM")
    with open_binary(url) as file, damage_as_error(url, "DICOM"):
        file_size(url, file)
        yield pydicom.dcmread(file, stop_before_pixels=not voxels)


def _slice_header(url: str, data: Any) -> SliceHeader:
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise NoVolumeError(f"{url}: a picture in colour, no grey values")
    if int(data.get("NumberOfFrames", 1) or 1) != 1:
        raise InvalidVolumeError(f"{url}: DICOM of several frames is not read; export its slices")
    bits = int(data.BitsAllocated)
    if bits not in (8, 16, 32):
        raise InvalidVolumeError(f"{url}: {bits} bits a pixel are not read")
    signed = int(data.get("PixelRepresentation", 0)) == 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    return SliceHeader(shape=(int(data.Rows), int(data.Columns)), dtype=dtype)


def _place(url: str, name: str) -> _Place:
    with _opened(url, voxels=False) as data:
        if "Rows" not in data:
            raise NoVolumeError(f"{url}: DICOM without an image")
        number = data.get("InstanceNumber")
        spacing = data.get("PixelSpacing")
        return _Place(
            name=name,
            series=str(data.get("SeriesInstanceUID", "")),
            millimetres=_along_normal(data),
            number=None if number is None else int(number),
            edges_yx=None if not spacing else (float(spacing[0]), float(spacing[1])),
            scaling=(
                float(data.get("RescaleSlope", 1) or 1),
                float(data.get("RescaleIntercept", 0) or 0),
            ),
        )


def _along_normal(data: Any) -> float | None:
    """Position of a slice along the normal of its plane (DICOM PS3.3, C.7.6.2.1.1)."""
    position, directions = data.get("ImagePositionPatient"), data.get("ImageOrientationPatient")
    if not position or not directions:
        return None
    vectors = np.asarray([float(v) for v in directions]).reshape(2, 3)
    return float(np.dot(np.cross(*vectors), [float(v) for v in position]))


def _ordered(folder: str, places: list[_Place]) -> list[_Place]:
    """Slices in order; an error unless they are one series and each has a place of its own."""
    if len({place.series for place in places}) > 1:
        raise InvalidVolumeError(
            f"{folder}: several DICOM series in one folder; give each a folder of its own"
        )
    for keys in ([p.millimetres for p in places], [p.number for p in places]):
        if None not in keys and len(set(keys)) == len(keys):
            order = np.argsort(np.asarray(keys, float), kind="stable")
            return [places[i] for i in order]
    raise InvalidVolumeError(
        f"{folder}: DICOM slices without places or numbers of their own; their order is unknown"
    )


def _steps(places: Sequence[_Place]) -> list[float]:
    """Millimetres from slice to slice; none where a position is unknown."""
    at = [place.millimetres for place in places]
    known = [value for value in at if value is not None]
    return list(np.diff(known)) if len(known) == len(at) else []


def _gaps(places: Sequence[_Place]) -> list[str]:
    steps = _steps(places)
    if not steps:
        return []
    step = float(np.median(steps))
    wide = [s for s in steps if s > step * (1 + _EVEN)]
    return [f"{len(wide)} gaps between slices, {step:g} mm apart elsewhere"] if wide else []
