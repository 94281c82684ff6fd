"""One way to open a volume, whatever its format."""

from __future__ import annotations

from ctray.core.errors import InvalidVolumeError, NotFoundError, NoVolumeError
from ctray.formats.registry import (
    TIFF,
    Format,
    format_by_content,
    format_of,
    reader_of,
)
from ctray.formats.slices.folder import is_pattern
from ctray.formats.source import VolumeSource
from ctray.formats.tiff.folder import TiffFolderSource
from ctray.formats.zarr import ZARR_MARKERS, ZarrSource
from ctray.storage import store

_HEAD_BYTES = 16


def open_source(url: str, *, dataset: str | None = None, within: str | None = None) -> VolumeSource:
    """Open the volume at `url` for reading slabs; use it in a `with` statement.

    Parameters
    ----------
    url
        A file, folder or prefix of any format that `ctray.formats.registry.FORMATS` has a reader
        for; local or any URL that fsspec knows. An asterisk in the last name selects one stack
        of a folder: `scan/slice_*.tif`.
    dataset
        Path inside an HDF5 file or a Zarr group.
    within
        Folder or prefix that the links of an HDF5 file must not leave, such as the archive;
        default: the folder of the file.

    Raises
    ------
    InvalidVolumeError
        If there is no usable volume: unreadable, wrong dimensions, colour, no grey values.
    NotFoundError, AccessError, StorageError
        If the store does not deliver it.
    """
    url = store.normalize(url)
    return open_as(url, detect_kind(url), dataset=dataset, within=within)


def open_as(
    url: str, kind: str, *, dataset: str | None = None, within: str | None = None
) -> VolumeSource:
    """Open the volume at `url` (normalized) with the reader of `kind`; see `open_source`."""
    return reader_of(kind).open(url, dataset=dataset, within=within)


def detect_kind(url: str) -> str:
    """Kind of the reader for `url` ("zarr" for OME-Zarr too), by name, listing or first bytes.

    Raises
    ------
    NotFoundError
        If nothing is there.
    NoVolumeError
        If it is a single slice.
    InvalidVolumeError
        If it is a file that no reader takes.
    """
    name = url.rpartition("/")[2]
    known = format_of(name)
    if is_pattern(url):
        return _kind_of_slices(known)
    try:
        names = {entry.name for entry in store.list_dir(url)}
    except NotFoundError as error:
        # A file, or nothing at all. In that case this error knows why (no such bucket, say).
        if not store.exists(url):
            raise error
    else:
        is_zarr = bool(names & ZARR_MARKERS) or name.lower().endswith(".zarr")
        return ZarrSource.kind if is_zarr else _kind_of_folder(names)
    if known is not None and known.file is not None:
        return known.file.kind
    if known is not None and known.slices is not None:
        raise NoVolumeError(f"{url}: one slice; give its folder, or a pattern such as s_*.png")
    with store.open_binary(url) as file:
        by_content = format_by_content(file.read(_HEAD_BYTES))
    if by_content is not None and by_content.file is not None:
        return by_content.file.kind
    if known is not None and known.needs_header:
        raise InvalidVolumeError(
            f"{url}: raw voxels; give the header that describes them: .mhd, .nhdr, .info or .vgi"
        )
    what = "its format is unknown" if known is None else f"ctray does not read {known.name}"
    raise InvalidVolumeError(f"{url}: {what}; convert it to TIFF, HDF5 or Zarr")


def _kind_of_folder(names: set[str]) -> str:
    """Kind of a folder: TIFF if it holds any, else its first format that has slices."""
    found = [
        known
        for name in sorted(names)
        if not name.startswith(".")
        and (known := format_of(name)) is not None
        and known.slices is not None
    ]
    return _kind_of_slices(None if TIFF in found else next(iter(found), None))


def _kind_of_slices(known: Format | None) -> str:
    """Kind of a folder of slices of a format; TIFF unless that format has a reader for them."""
    reader = known.slices if known is not None else None
    return TiffFolderSource.kind if reader is None else reader.kind
