"""The directory of a TIFF: the tags of every page, each read independently of other pages.

A library that applies the tags of the first page to all pages reads noise from a page that another
program saved. Therefore the chain of page directories is walked here, and the few tags that say
how voxels are stored are compared page by page. This takes one small read per page.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damaged, file_size

# A directory has about 20 tags; one read gets all of it.
_READ_BYTES = 512
_MAX_TAGS = 4096
# Offsets and lengths of strips: a page that claims far more than it has rows is damaged.
_SPARE_SEGMENTS = 1024
# OME-XML of 100,000 planes.
_MAX_DESCRIPTION_BYTES = 16 << 20
_NO_COMPRESSION = 1

# The number of values of UIC2 is MetaMorph's number of planes; this tag of Zeiss leads to the axes.
METAMORPH, ZEISS_LSM = 33629, 34412
_SUB_DIRECTORIES = 330
# TIFF 6.0, section 2, and BigTIFF: type -> (bytes per value, struct format of unsigned integers).
_INTEGERS = {1: (1, "B"), 3: (2, "H"), 4: (4, "I"), 13: (4, "I"), 16: (8, "Q"), 18: (8, "Q")}
# Tag numbers that are read (TIFF 6.0; SGI volumes use 32997 and 32998).
_DESCRIPTION, _STRIPS, _TILES = 270, (273, 279), (324, 325)
# Compression, bit order, planes, predictor, strips, tiles.
_PACKING = (259, 266, 284, 317, 278, 322, 323, 32998)
_READ = frozenset(
    (*_PACKING, *_STRIPS, *_TILES, 254, 255, 256, 257, 258, 262, 274, 277, 339, 32997)
)


class PageForm(NamedTuple):
    """What all slices of one volume have in common."""

    height: int
    width: int
    depth: int
    bits: int
    sample_format: int
    samples: int
    photometric: int
    orientation: int

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of one voxel; None if TIFF has no such format."""
        code = tifffile.TIFF.SAMPLE_DTYPES.get((self.sample_format, self.bits))
        return None if code is None else np.dtype(code)

    @property
    def size_text(self) -> str:
        """Extent for messages."""
        text = f"{self.height} x {self.width}"
        return f"{self.depth} x {text}" if self.depth > 1 else text

    def difference(self, other: PageForm) -> str:
        """First difference from the `other` form, as text; empty without one."""
        if (self.depth, self.height, self.width) != (other.depth, other.height, other.width):
            return f"{self.size_text} voxels, not {other.size_text}"
        if self.samples != other.samples:
            return f"{self.samples} samples per pixel, not {other.samples}"
        if (self.bits, self.sample_format) != (other.bits, other.sample_format):
            return f"{self._type_text} values, not {other._type_text}"
        if self.photometric != other.photometric:
            return f"photometric interpretation {self.photometric}, not {other.photometric}"
        if self.orientation != other.orientation:
            return f"orientation {self.orientation}, not {other.orientation}"
        return ""

    @property
    def _type_text(self) -> str:
        dtype = self.dtype
        if dtype is None or dtype.itemsize * 8 != self.bits:
            return f"{self.bits} bit"
        return str(dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageTags:
    """One page, as its own tags describe it.

    Parameters
    ----------
    number
        Position in the chain, from 1, as viewers count pages.
    offset
        First byte of its directory.
    form
        Extent and type of the voxels.
    reduced, mask
        Whether it is marked as a smaller copy of another page, or as a transparency mask.
    compression
        Number of the method (tag 259).
    packing
        Values of all tags that say how the voxels are stored, for comparison.
    segments
        Number of strips or tiles.
    data
        First byte and length of the only strip or tile; None if there are several.
    plain
        Whether the bytes of the strips are the voxels, row after row.
    description
        First byte and length of the description; None without one.
    """

    number: int
    offset: int
    form: PageForm
    reduced: bool
    mask: bool
    compression: int
    packing: tuple[int | None, ...]
    segments: int
    data: tuple[int, int] | None
    plain: bool
    description: tuple[int, int] | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the decoded voxels, each in as many bytes as its type has."""
        form = self.form
        itemsize = form.dtype.itemsize if form.dtype else max(1, form.bits // 8)
        return form.height * form.width * form.depth * form.samples * itemsize

    @property
    def is_plain_piece(self) -> bool:
        """Whether all voxels lie in one piece, as in memory except for the byte order."""
        return self.plain and self.data is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """The pages of a file.

    Parameters
    ----------
    pages
        In the order of the chain.
    byte_order
        `<` or `>`.
    size
        Bytes of the file.
    private
        Count and first value (or offset) of tags of microscopy programs in the first page.
    """

    pages: tuple[PageTags, ...]
    byte_order: str
    size: int
    private: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def description(self, file: IO[bytes], page: PageTags) -> str:
        """Text of a page's description tag; empty without one."""
        if page.description is None:
            return ""
        offset, count = page.description
        file.seek(offset)
        return file.read(count).rstrip(b"\0").decode("utf-8", "replace")


def read_directory(url: str, file: IO[bytes], *, limit: int | None = None) -> Directory:
    """Pages of an open TIFF, all of them or the first `limit`.

    Raises
    ------
    InvalidVolumeError
        If the file is not a TIFF, or if the directory of a page is truncated, leads back to an
        earlier page or contradicts itself (the page is named).
    """
    size = file_size(url, file)
    chain = _Chain(url, file, size)
    pages: list[PageTags] = []
    for page in chain.pages():
        pages.append(page)
        if limit is not None and len(pages) >= limit:
            break
    if not pages:
        raise damaged(url, "TIFF", "the file holds no image")
    chain.refuse_larger_copies(pages[0])
    return Directory(pages=tuple(pages), byte_order=chain.order, size=size, private=chain.private)


class _Chain:
    """The directories of one file: TIFF 6.0, section 2, or BigTIFF."""

    def __init__(self, url: str, file: IO[bytes], size: int) -> None:
        self._url, self._file, self._size = url, file, size
        self.private: dict[int, tuple[int, int]] = {}
        head = file.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(self.order + "H", head[2:4])[0] if self.order else 0
        if len(head) < 8 or version not in (42, 43) or (version == 43 and len(head) < 16):
            raise damaged(url, "TIFF", "the first bytes are not those of a TIFF file")
        self._big = version == 43
        word = "Q" if self._big else "I"
        self._first = struct.unpack_from(self.order + word, head, 8 if self._big else 4)[0]
        self._count = struct.Struct(self.order + ("Q" if self._big else "H"))
        self._next = struct.Struct(self.order + word)
        self._tag = struct.Struct(f"{self.order}HH{word}{'8s' if self._big else '4s'}")

    def pages(self) -> Iterator[PageTags]:
        seen: dict[int, int] = {}
        offset, number = self._first, 1
        while offset:
            if offset in seen:
                self._broken(number - 1, f"is followed by page {seen[offset]} again")
            seen[offset] = number
            if offset >= self._size:
                self._broken(number, f"lies at byte {offset} of {self._size}: truncated")
            entries, following = self._entries(offset, number)
            yield self._page(offset, number, entries)
            offset, number = following, number + 1

    def refuse_larger_copies(self, first: PageTags) -> None:
        """Raise if the pages are previews of larger images in sub-directories."""
        count, offset = self.private.pop(_SUB_DIRECTORIES, (0, 0))
        if not count:
            return
        if count > 1:
            self._file.seek(offset)
            words = self._file.read(self._next.size)
            offset = self._next.unpack(words)[0] if len(words) == self._next.size else self._size
        if offset >= self._size:
            # Only a check: nothing is read from there.
            return
        entries, _ = self._entries(offset, 1)
        below = self._page(offset, -1, entries).form
        if below.height * below.width > first.form.height * first.form.width:
            raise InvalidVolumeError(
                f"{self._url}: its pages are previews of {first.form.size_text} pixels, and the "
                f"images of {below.size_text} lie in sub-directories; export it as a plain TIFF"
            )

    def _entries(self, offset: int, number: int) -> tuple[bytes, int]:
        """Tags of the directory at `offset`, as stored, and where the next directory is."""
        self._file.seek(offset)
        block = self._file.read(_READ_BYTES)
        if len(block) < self._count.size:
            self._broken(number, "has a truncated directory")
        (count,) = self._count.unpack_from(block)
        if not 0 < count <= _MAX_TAGS:
            self._broken(number, f"has a directory of {count} tags")
        start = self._count.size
        stop = start + count * self._tag.size
        missing = stop + self._next.size - len(block)
        if missing > 0:
            block += self._file.read(missing)
        if len(block) < stop:
            self._broken(number, "has a truncated directory")
        # Some programs omit the zero behind the last directory.
        behind = block[stop : stop + self._next.size]
        following = self._next.unpack(behind)[0] if len(behind) == self._next.size else 0
        return block[start:stop], following

    def _page(self, offset: int, number: int, entries: bytes) -> PageTags:
        values: dict[int, int] = {}
        counts: dict[int, int] = {}
        description = None
        for at, (code, kind, count, raw) in enumerate(self._tag.iter_unpack(entries)):
            if code in _READ:
                counts.setdefault(code, count)
                value = self._integer(kind, count, raw)
                if value is not None:
                    values.setdefault(code, value)
            elif code == _DESCRIPTION and description is None:
                inline = offset + self._count.size + at * self._tag.size + self._tag.size - len(raw)
                description = (inline if count <= len(raw) else self._next.unpack(raw)[0], count)
            elif number == 1 and code in (METAMORPH, ZEISS_LSM, _SUB_DIRECTORIES):
                self.private[code] = (count, self._next.unpack(raw)[0])
        if description is not None:
            self._check_description(number, *description)
        return self._described(offset, number, values, counts, description)

    def _integer(self, kind: int, count: int, raw: bytes) -> int | None:
        """First value of a tag whose values lie in the directory itself."""
        if kind not in _INTEGERS or count < 1:
            return None
        size, code = _INTEGERS[kind]
        if size * count > len(raw):
            return None
        return int(struct.unpack_from(self.order + code, raw)[0])

    def _described(
        self,
        offset: int,
        number: int,
        values: Mapping[int, int],
        counts: Mapping[int, int],
        description: tuple[int, int] | None,
    ) -> PageTags:
        width, height = values.get(256, 0), values.get(257, 0)
        samples = values.get(277, 1)
        form = PageForm(
            height=height,
            width=width,
            depth=values.get(32997, 1),
            # With several samples the bits are stored elsewhere; such pages are refused as colour.
            bits=values.get(258, 1 if 258 not in counts else 8),
            sample_format=values.get(339, 1),
            samples=samples,
            # Many cameras omit it and mean grey values.
            photometric=values.get(262, 1),
            orientation=values.get(274, 1),
        )
        if not (width and height and samples and form.depth):
            raise self._error(number, f"is {form.size_text} x {samples}")
        where, lengths = _TILES if _TILES[0] in counts else _STRIPS
        segments = counts.get(where, 0)
        if segments > _SPARE_SEGMENTS + 4 * self._expected_segments(form, values):
            raise self._error(number, f"has {segments} strips or tiles for {height} rows")
        compression = values.get(259, _NO_COMPRESSION)
        kind = values.get(254, 0)
        one = segments == 1 and where in values and lengths in values
        return PageTags(
            number=number,
            offset=offset,
            form=form,
            # Tag 255 is older; its value 2 means a smaller copy.
            reduced=bool(kind & 1) or values.get(255) == 2,
            mask=bool(kind & 4),
            compression=compression,
            packing=tuple(values.get(code) for code in _PACKING),
            segments=segments,
            data=(values[where], values[lengths]) if one else None,
            plain=compression == _NO_COMPRESSION
            and where == _STRIPS[0]
            and form.bits in (8, 16, 32, 64)
            and values.get(266, 1) == 1
            and values.get(317, 1) == 1,
            description=description,
        )

    @staticmethod
    def _expected_segments(form: PageForm, values: Mapping[int, int]) -> int:
        tile_x, tile_y = values.get(322, 0), values.get(323, 0)
        planes = form.depth * form.samples
        if tile_x and tile_y:
            return math.ceil(form.width / tile_x) * math.ceil(form.height / tile_y) * planes
        return math.ceil(form.height / max(1, values.get(278, form.height))) * planes

    def _check_description(self, number: int, start: int, count: int) -> None:
        if start + count > self._size:
            self._broken(number, "has a truncated description")
        if count > _MAX_DESCRIPTION_BYTES:
            raise self._error(number, f"has a description of {count >> 20} MiB")

    def _error(self, number: int, what: str) -> InvalidVolumeError:
        return damaged(self._url, "TIFF", f"page {number} {what}")

    def _broken(self, number: int, what: str) -> None:
        raise self._error(number, what)
