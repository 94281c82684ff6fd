"""One way to open what holds a volume, whatever its format."""

from __future__ import annotations

from collections.abc import Callable

from ctray.core.errors import InvalidVolumeError, NotFoundError, NoVolumeError
from ctray.formats.hdf5.source import Hdf5Source, is_hdf5_name
from ctray.formats.names import format_of
from ctray.formats.raw.source import RawSource
from ctray.formats.slices.dicom import DicomSource
from ctray.formats.slices.edf import EdfSource
from ctray.formats.slices.images import ImageFolderSource
from ctray.formats.source import Kind, VolumeSource, open_binary
from ctray.formats.tiff.folder import TiffFolderSource
from ctray.formats.tiff.pages import is_tiff_name
from ctray.formats.tiff.source import TiffSource
from ctray.formats.zarr import ZarrSource
from ctray.storage import store
from ctray.storage.zipped import is_zipped_zarr, zip_url

# Names that a Zarr array or group of format 2 or 3 always or often has at its root.
ZARR_MARKERS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_source(url: str, *, dataset: str | None = None, within: str | None = None) -> VolumeSource:
    """Open the volume at `url` for reading slabs; use it in a `with` statement.

    Parameters
    ----------
    url
        A multi-page TIFF, a folder of single-page TIFFs, an HDF5 or NeXus file, a Zarr array or
        group (also zipped), a header of raw voxels (MetaImage, NRRD, .info, .vgi), or a folder
        of PNG, JPEG 2000, EDF or DICOM slices; local or any URL that fsspec knows.
    dataset
        Path inside an HDF5 file or a Zarr group.
    within
        Folder or prefix that the links of an HDF5 file do not leave, such as the archive;
        without one, the folder of the file.

    Raises
    ------
    InvalidVolumeError
        If there is no usable volume: unreadable, wrong dimensions, colour, no grey values.
    NotFoundError, AccessError, StorageError
        If the store does not give it.
    """
    url = store.normalize(url)
    return open_as(url, detect_kind(url), dataset=dataset, within=within)


def open_as(
    url: str, kind: Kind, *, dataset: str | None = None, within: str | None = None
) -> VolumeSource:
    """Open the volume at `url` (normalized) as `kind`; see `open_source`."""
    if kind == "hdf5":
        return Hdf5Source(url, dataset, within=within)
    if kind in ("zarr", "ome-zarr"):
        return ZarrSource(zip_url(url) if is_zipped_zarr(url) else url, dataset)
    if dataset is not None:
        raise InvalidVolumeError(
            f"{url}: a file of kind {kind} has no dataset {dataset!r} inside; leave --dataset out"
        )
    return _SOURCES[kind](url)


_SOURCES: dict[Kind, Callable[[str], VolumeSource]] = {
    "tiff": TiffSource,
    "tiff-folder": TiffFolderSource,
    "raw": RawSource,
    "image-folder": ImageFolderSource,
    "edf": EdfSource,
    "dicom": DicomSource,
}


def detect_kind(url: str) -> Kind:
    """Which source `url` is ("zarr" for OME-Zarr too), by name, listing, or first bytes.

    Raises
    ------
    NotFoundError
        If nothing is there.
    InvalidVolumeError
        If it is a file of another kind.
    """
    name = url.rpartition("/")[2]
    known = format_of(name)
    if is_pattern(url):
        return known.kind if known is not None and known.kind is not None else "tiff-folder"
    try:
        names = {entry.name for entry in store.list_dir(url)}
    except NotFoundError as error:
        # A file, unless it is nothing at all; then this error knows why (no such bucket, say).
        if not store.exists(url):
            raise error
    else:
        is_zarr = bool(names & ZARR_MARKERS) or name.lower().endswith((".zarr", ".ome.zarr"))
        return "zarr" if is_zarr else _kind_of_slices(names)
    if is_tiff_name(name):
        return "tiff"
    if is_hdf5_name(name):
        return "hdf5"
    if known is not None and known.kind is not None:
        if known.sliced:
            raise NoVolumeError(f"{url}: one slice; give its folder, or a pattern such as s_*.png")
        return known.kind
    with open_binary(url) as file:
        head = file.read(8)
    if head == _HDF5_MAGIC:
        return "hdf5"
    if head[:4] in _TIFF_MAGIC:
        return "tiff"
    if known is not None and known.is_bare:
        raise InvalidVolumeError(
            f"{url}: raw voxels; give the header that describes them: .mhd, .nhdr, .info or .vgi"
        )
    what = "neither TIFF, HDF5 nor Zarr" if known is None else f"{known.name} is not read"
    raise InvalidVolumeError(f"{url}: {what}; convert it to one of TIFF, HDF5 and Zarr")


def is_pattern(url: str) -> bool:
    """Whether `url` names the slices of a stack by an asterisk; a file may have one in its name."""
    return "*" in url.rpartition("/")[2] and not store.exists(url)


def _kind_of_slices(names: set[str]) -> Kind:
    """Kind of a folder: of its TIFFs if it has any, else of its slices of another format."""
    if not any(is_tiff_name(name) for name in names):
        known = (format_of(name) for name in sorted(names) if not name.startswith("."))
        kinds = (f.kind for f in known if f is not None and f.sliced and f.kind is not None)
        return next(kinds, "tiff-folder")
    return "tiff-folder"


__all__ = [
    "ZARR_MARKERS",
    "Kind",
    "VolumeSource",
    "ZarrSource",
    "detect_kind",
    "is_pattern",
    "open_as",
    "open_source",
]
