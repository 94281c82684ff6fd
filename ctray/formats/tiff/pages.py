"""What TIFF files and TIFF folders share: opening, colours, damage, voxel sizes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import IO, Any

import tifffile

from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.formats.file_access import damage_as_error, damaged
from ctray.formats.tiff.directory import PageForm, read_directory
from ctray.formats.tiff.ome_xml import is_ome, ome_dict
from ctray.storage import store
from ctray.volumes import voxel_metadata
from ctray.volumes.voxel_metadata import FoundVoxelSize

_DENSE_BYTES = 256 << 10
# TIFF 6.0, tag 262.
_MIN_IS_WHITE, _PALETTE = 0, 3


def tiff_file(file: IO[bytes], url: str) -> tifffile.TiffFile:
    """Open a TIFF that reads from `file` only."""
    # tifffile treats the current position as the beginning of the file.
    file.seek(0)
    # Not _multifile: a remote OME file must not search this disk for its neighbours.
    return tifffile.TiffFile(file, name=url.rpartition("/")[2], _multifile=False)


def has_dense_pages(url: str) -> bool:
    """Whether the directory entries of a TIFF lie within a few kilobytes of each other."""
    with store.open_binary(url) as file, tiff_damage(url):
        # Not the first two: voxels in one piece would lie between them.
        pages = read_directory(url, file, limit=3).pages
        return len(pages) == 3 and abs(pages[2].offset - pages[1].offset) < _DENSE_BYTES


@contextlib.contextmanager
def tiff_damage(url: str) -> Iterator[None]:
    """Raise what tifffile only logs before it continues with some of the data."""
    logger = logging.getLogger("tifffile")
    collector = _Collector()
    logger.addHandler(collector)
    try:
        with damage_as_error(url, "TIFF"):
            yield
    except InvalidVolumeError:
        # A stack cut down to one page is damaged, not flat.
        if not collector.messages:
            raise
    finally:
        logger.removeHandler(collector)
    if collector.messages:
        raise damaged(url, "TIFF", collector.messages[0])


class _Collector(logging.Handler):
    """Errors logged by this thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message without the leading repr of the file."""
        if record.thread == self._thread:
            self.messages.append(record.getMessage().rpartition("> ")[2])


def refuse_colour(url: str, form: PageForm, *, alone: bool) -> None:
    """Raise for colours. An image that is `alone` in its file is a picture, not a failure."""
    if form.samples > 1:
        raise colour_error(url, f"{form.samples} samples per pixel", alone=alone)
    if form.photometric == _PALETTE:
        raise colour_error(url, "a colour palette", alone=alone)


def colour_error(url: str, found: str, *, alone: bool = False) -> InvalidVolumeError:
    """Error for colours: `NoVolumeError` for an image that is `alone` in its file."""
    kind = NoVolumeError if alone else InvalidVolumeError
    return kind(f"{url}: colour image ({found}); ctray reads grey values, export it as greyscale")


def form_notes(form: PageForm) -> tuple[str, ...]:
    """What a user should know about the way the grey values are stored."""
    if form.photometric == _MIN_IS_WHITE and form.bits > 1:
        return ("viewers show inverted grey values (MinIsWhite); the stored values are read",)
    return ()


def own_voxel_size(
    tif: tifffile.TiffFile, page: Any, *, image: int = 0, is_slice: bool = False
) -> FoundVoxelSize | None:
    """Voxel size that the file itself states; damaged metadata are ignored.

    Parameters
    ----------
    tif, page
        The open file and its first page.
    image
        Index of the image in the OME-XML.
    is_slice
        Whether the file holds one slice of a stack, so that its depth may be missing.
    """
    try:
        per_unit = (_ratio(page, "XResolution"), _ratio(page, "YResolution"))
        if is_ome(page.description):
            return voxel_metadata.from_ome(ome_dict(page.description), image)
        if tif.is_imagej:
            metadata = dict(tif.imagej_metadata or {})
            if is_slice and "spacing" not in metadata and per_unit[1] > 0:
                # Isotropic, as reconstructions are.
                metadata["spacing"] = 1 / per_unit[1]
                metadata.pop("zunit", None)
            return voxel_metadata.from_imagej(metadata, per_unit)
        tag = page.tags.get("ResolutionUnit")
        return voxel_metadata.from_resolution(per_unit, int(tag.value) if tag else None)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, SyntaxError):
        return None


def _ratio(page: Any, name: str) -> float:
    tag = page.tags.get(name)
    if tag is None:
        return 0.0
    numerator, denominator = tag.value
    return float(numerator) / float(denominator) if denominator else 0.0
