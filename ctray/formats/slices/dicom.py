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
from ctray.formats.file_access import damage_as_error, extra_package, file_size
from ctray.formats.slices.folder import READERS, SliceFolderSource, SliceHeader
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# Distances of slices may differ by this fraction: positions are written with few digits.
_EVEN = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a slice belongs: its series, its position along the normal, and its number."""

    name: str
    series: str
    millimetres: float | None
    number: int | None
    edges_yx: tuple[float, float] | None
    scaling: tuple[float, float]


class DicomSource(SliceFolderSource):
    """A folder with one DICOM series of single slices, in the order of their positions.

    The stored values are read. Rescale slope and intercept are not applied; a note states them.

    Raises
    ------
    InvalidVolumeError
        If pydicom is not installed, if the folder holds several series or files with several
        frames, if slices lack distinct positions and numbers, or if their rescale slopes differ.
    """

    kind = "dicom"
    suffixes = (".dcm", ".dicom", ".ima")

    def _ordered_names(self) -> Sequence[str]:
        names, pattern = list(self._sizes), self._pattern
        # The catalog's pattern, `*.dcm`, means all files of the folder, whatever their suffix.
        if pattern is not None and not pattern.startswith("*."):
            names = fnmatch.filter(names, pattern)
        if not names:
            raise NotFoundError(f"{self.url}: no DICOM files; check the path or URL")
        with ThreadPoolExecutor(READERS) as pool:
            places = list(pool.map(lambda name: _place(self._file(name), name), names))
        self._places = _ordered(self._folder, places)
        scaling = {place.scaling for place in places}
        if len(scaling) > 1:
            raise InvalidVolumeError(
                f"{self._folder}: the DICOM slices have different rescale slopes; convert them to "
                "TIFF"
            )
        notes = _gaps(self._places)
        if scaling != {(1.0, 0.0)}:
            slope, intercept = scaling.pop()
            notes.append(
                "stored values are read without rescaling (slope "
                f"{slope:g}, intercept {intercept:g})"
            )
        self.notes = tuple(notes)
        return [place.name for place in self._places]

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
    with store.open_binary(url) as file, damage_as_error(url, "DICOM"):
        file_size(url, file)
        yield pydicom.dcmread(file, stop_before_pixels=not voxels)


def _slice_header(url: str, data: Any) -> SliceHeader:
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise NoVolumeError(f"{url}: a colour picture, not grey values")
    if int(data.get("NumberOfFrames", 1) or 1) != 1:
        raise InvalidVolumeError(
            f"{url}: ctray does not read DICOM with several frames; export single slices"
        )
    bits = int(data.BitsAllocated)
    if bits not in (8, 16, 32):
        raise InvalidVolumeError(
            f"{url}: ctray reads DICOM with 8, 16 or 32 bits per pixel, not {bits}; convert it"
        )
    signed = int(data.get("PixelRepresentation", 0)) == 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    return SliceHeader(shape=(int(data.Rows), int(data.Columns)), dtype=dtype)


def _place(url: str, name: str) -> _Place:
    with _opened(url, voxels=False) as data:
        if "Rows" not in data:
            raise NoVolumeError(f"{url}: a DICOM file without an image")
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
    """Slices in order; an error unless they are one series with distinct positions or numbers."""
    if len({place.series for place in places}) > 1:
        raise InvalidVolumeError(
            f"{folder}: several DICOM series in one folder; move each to its own folder"
        )
    for keys in ([p.millimetres for p in places], [p.number for p in places]):
        if None not in keys and len(set(keys)) == len(keys):
            order = np.argsort(np.asarray(keys, float), kind="stable")
            return [places[i] for i in order]
    raise InvalidVolumeError(
        f"{folder}: the order of the DICOM slices is unknown, because neither their positions nor "
        "their numbers are distinct; export the series again"
    )


def _steps(places: Sequence[_Place]) -> list[float]:
    """Distances between slices in mm; empty if a position is unknown."""
    at = [place.millimetres for place in places]
    known = [value for value in at if value is not None]
    return list(np.diff(known)) if len(known) == len(at) else []


def _gaps(places: Sequence[_Place]) -> list[str]:
    steps = _steps(places)
    if not steps:
        return []
    step = float(np.median(steps))
    wide = [s for s in steps if s > step * (1 + _EVEN)]
    return [f"{len(wide)} gaps between slices that are {step:g} mm apart"] if wide else []
