"""What TIFF files and TIFF folders share: opening, judging a page, noticing damage."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator
from typing import IO, Any

import tifffile

from ctray.errors import InvalidVolumeError
from ctray.storage import voxel_metadata
from ctray.storage.source_types import (
    NoVolumeError,
    damage_as_error,
    damaged,
    file_size,
    open_binary,
)
from ctray.storage.voxel_metadata import FoundVoxelSize

_DENSE_BYTES = 256 << 10
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def is_tiff_name(name: str) -> bool:
    """Whether a file name is that of a TIFF."""
    return name.lower().endswith(TIFF_SUFFIXES) and not name.startswith(".")


def is_single_page(url: str) -> bool:
    """Whether a TIFF holds one plain 2D image, as the slices of a stack do."""
    with open_binary(url) as file, tiff_damage(url):
        file_size(url, file)
        with tiff_file(file, url) as tif:
            page = tif.pages.first
            # ImageJ keeps stacks beyond 4 GB behind a single page.
            return not tif.pages.is_multipage and math.prod(tif.series[0].shape) == math.prod(
                page.shape
            )


def tiff_file(file: IO[bytes], url: str) -> tifffile.TiffFile:
    """Open TIFF that reads from `file` alone."""
    # Not _multifile: a remote OME file must not go looking for its neighbours on this disk.
    return tifffile.TiffFile(file, name=url.rpartition("/")[2], _multifile=False)


def has_dense_pages(url: str) -> bool:
    """Whether the directory entries of a TIFF lie within a few kilobytes of each other."""
    with open_binary(url) as file, tiff_damage(url):
        file_size(url, file)
        with tiff_file(file, url) as tif:
            try:
                # Not the first two: voxels in one piece would lie between them.
                return abs(int(tif.pages[2].offset) - int(tif.pages[1].offset)) < _DENSE_BYTES
            except IndexError:
                return False


@contextlib.contextmanager
def tiff_damage(url: str) -> Iterator[None]:
    """Raise what tifffile only logs: a broken page chain shortens a stack without an error."""
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
        """Keep the message, without the repr of the file in front."""
        if record.thread == self._thread:
            self.messages.append(record.getMessage().rpartition("> ")[2])


def refuse_colour(url: str, page: Any, *, alone: bool) -> None:
    """Raise for colours; an image that is `alone` in its file is a picture, no failed volume."""
    if page.samplesperpixel > 1:
        raise colour_error(url, f"{page.samplesperpixel} samples a pixel", alone=alone)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise colour_error(url, "a colour palette", alone=alone)


def colour_error(url: str, found: str, *, alone: bool = False) -> InvalidVolumeError:
    """Error for colours; for an image `alone` in its file the one that means no volume."""
    kind = NoVolumeError if alone else InvalidVolumeError
    return kind(f"{url}: colour image ({found}); ctray takes grey values, export as greyscale")


def page_end(page: Any) -> int:
    """First byte behind the data of a page."""
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((int(offset) + int(count) for offset, count in parts), default=0)


def with_sidecar(own: FoundVoxelSize | None, url: str, *, is_folder: bool) -> FoundVoxelSize | None:
    """Return the file's own voxel size unless it is missing or weak and a sidecar has one."""
    if own is not None and not own.weak:
        return own
    return voxel_metadata.from_sidecar(url, is_folder=is_folder) or own


def own_voxel_size(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries | None, page: Any
) -> FoundVoxelSize | None:
    """Voxel size that the file itself tells; damaged metadata say nothing."""
    try:
        per_unit = (_ratio(page, "XResolution"), _ratio(page, "YResolution"))
        if tif.is_ome and series is not None:
            metadata = tifffile.xml2dict(tif.ome_metadata)
            return voxel_metadata.from_ome(metadata, tif.series.index(series))
        if tif.is_imagej:
            # A single slice knows no depth: isotropic, as reconstructions are.
            metadata = dict(tif.imagej_metadata or {})
            if series is None and "spacing" not in metadata and per_unit[1] > 0:
                metadata["spacing"] = 1 / per_unit[1]
            return voxel_metadata.from_imagej(metadata, per_unit)
        tag = page.tags.get("ResolutionUnit")
        return voxel_metadata.from_resolution(per_unit, int(tag.value) if tag else 2)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, SyntaxError):
        return None


def _ratio(page: Any, name: str) -> float:
    tag = page.tags.get(name)
    if tag is None:
        return 0.0
    numerator, denominator = tag.value
    return float(numerator) / float(denominator) if denominator else 0.0
