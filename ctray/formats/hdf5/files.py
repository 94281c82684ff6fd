"""HDF5 files of one volume: its own, and those that it links to, inside the archive only."""

from __future__ import annotations

import contextlib
import importlib
import os
import posixpath
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py

from ctray.core.errors import AccessError, InvalidVolumeError, NotFoundError, StorageError
from ctray.formats.source import damage_as_error, file_size, open_binary
from ctray.storage import store
from ctray.storage.local_backend import special_kind

# Masters of fast detectors link to thousands of files; so many are open at once.
_MAX_OPEN = 16
# What HDF5 says of a file that another process has locked, and of one that was never closed.
_LOCKED = ("unable to lock file", "file locking flag values don't match")
_UNCLOSED = ("already open for write", "already open for SWMR write")
# File systems without locks say so instead of locking.
_NO_LOCKS = ("No locks available", "Function not implemented")
# Why a link may lead nowhere. A store that is away for a while is none of it.
LOST = (InvalidVolumeError, NotFoundError, AccessError)


class Hdf5Files:
    """Opens the file at `url` and the files that it refers to.

    Parameters
    ----------
    url
        The file, normalized; it leads every message and stays open.
    within
        Folder or prefix that no link may leave: the archive, or the folder of the file.

    Attributes
    ----------
    others
        Files that were found through links so far, in the order in which they were found.
    voxels_ids, part_ids
        Datasets of the file that may be its volume, and others that it is put together from.
    moved
        What is to be said of those that were not where the link points, but beside, by URL.
    """

    def __init__(self, url: str, within: str | None = None) -> None:
        self.url = url
        # An archive that is this one file is the folder that it lies in.
        root = store.normalize(within) if within else url
        self.within = url.rpartition("/")[0] if root == url else root
        self.others: dict[str, None] = {}
        self.voxels_ids: dict[str, None] = {}
        self.part_ids: dict[str, None] = {}
        self.moved: dict[str, str] = {}
        self._real: dict[str, str] = {}
        self._open: OrderedDict[str, tuple[contextlib.ExitStack, h5py.File]] = OrderedDict()
        load_filters()

    def file(self, url: str) -> h5py.File:
        """The open file at `url`. Groups and datasets of it are not kept: it may be closed."""
        if url in self._open:
            self._open.move_to_end(url)
            return self._open[url][1]
        while len(self._open) >= _MAX_OPEN:
            oldest = next(known for known in self._open if known != self.url)
            self._open.pop(oldest)[0].close()
        stack = contextlib.ExitStack()
        try:
            # Reads lie close together within a chunk or an object header, and far apart otherwise.
            binary = stack.enter_context(open_binary(url)) if not store.is_local(url) else None
            if binary is not None:
                file_size(url, binary)
            else:
                require_regular(url)
            with damage_as_error(url, "HDF5"):
                file = stack.enter_context(_open(url, binary if binary is not None else url))
        except BaseException:
            stack.close()
            raise
        self._open[url] = (stack, file)
        return file

    def item(self, url: str, path: str) -> Any:
        """Group or dataset of the file at `url`, at a path without soft and external links."""
        # Names need not be UTF-8, and h5py encodes text strictly.
        return self.file(url)[path.encode("utf-8", "surrogateescape")]

    def real(self, url: str) -> str:
        """One name a file, also where symbolic links lead to it."""
        if url not in self._real:
            self._real[url] = os.path.realpath(url) if store.is_local(url) else url
        return self._real[url]

    def locate(self, home: str, name: str, what: str) -> str:
        """URL of the file `name` that the file `home` refers to.

        Relative names start at the folder of `home`. Where an absolute name is not there, HDF5
        looks for the same file name beside `home`, since folders are moved; so does this.

        Parameters
        ----------
        home
            URL of the file with the reference.
        name
            File name as it is stored.
        what
            The reference in words, for the message.

        Raises
        ------
        InvalidVolumeError
            If the file is outside `within`, or is not there.
        """
        if name in ("", "."):
            return home
        url = self._beside(home, name, what)
        if url not in (self.url, home):
            self.others[url] = None
        return url

    def _beside(self, home: str, name: str, what: str) -> str:
        folder = home.rpartition("/")[0]
        inside = self._inside(home, name)
        if inside is not None and store.exists(inside):
            return inside
        # Whether something lies outside is asked for local names alone, and nothing is opened.
        elsewhere = store.is_local(folder) and os.path.lexists(Path(folder, name))
        moved = name.replace("\\", "/").rpartition("/")[2]
        if name.startswith("/") or "\\" in name or ":" in name:
            beside = self._inside(home, moved)
            if beside is not None and not elsewhere and store.exists(beside):
                self.moved[beside] = f"{what} points to {name}; {moved} beside it was read"
                return beside
        if inside is None and (elsewhere or "://" in name or not name.startswith("/")):
            raise InvalidVolumeError(
                f"{self.url}: {what} points to {name}, which is outside {self.within} and is not "
                "read; copy that file beside this one, or name a folder that holds both: as the "
                "archive, or with --within"
            )
        raise InvalidVolumeError(
            f"{self.url}: {what} points to {name}, which is missing; copy it to "
            f"{inside or f'{folder}/{moved}'}"
        )

    def _inside(self, home: str, name: str) -> str | None:
        """URL of `name` seen from the file `home`; None if it is outside the boundary."""
        folder = home.rpartition("/")[0]
        if "\0" in name or "://" in name:
            return None
        if not store.is_local(folder):
            scheme, rest = folder.split("://", 1)
            url = f"{scheme}://{posixpath.normpath(posixpath.join(rest, name))}"
            return url if url.startswith(f"{self.within}/") and not name.startswith("/") else None
        # Symbolic links are resolved first: the boundary holds for what is really opened. Where
        # the file itself is such a link, the folder that it really lies in is its own as well.
        roots = [os.path.realpath(self.within), self.real(self.url).rpartition("/")[0]]
        found = None
        for start in (folder, self.real(home).rpartition("/")[0]):
            real = os.path.realpath(Path(start, name))
            if any(real.startswith(root.rstrip("/") + "/") for root in roots):
                if Path(real).exists():
                    return real
                found = found or real
        return found

    def forget(self) -> None:
        """Forget what was found on the way, for datasets that are not read."""
        for found in (self.others, self.voxels_ids, self.part_ids):
            found.clear()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1][0].close()


def require_regular(url: str) -> None:
    """Refuse what is no regular file (a pipe would be waited for) and what is empty."""
    with store.mapped_errors(url, doing="read"):
        found = Path(url).stat()
    if (special := special_kind(found.st_mode)) is not None:
        raise StorageError(f"{url} is a {special}, not a file; it is never opened")
    if found.st_size == 0:
        raise InvalidVolumeError(f"{url}: file is empty (0 bytes); copy or export it again")


def load_filters() -> None:
    """Register Blosc, LZ4 and other filters where the package that brings them is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")


def _open(url: str, opened: Any) -> h5py.File:
    try:
        return h5py.File(opened, "r")
    except OSError as error:
        said = str(error)
        if any(words in said for words in _NO_LOCKS):
            return h5py.File(opened, "r", locking=False)
        if any(words in said for words in _LOCKED):
            raise InvalidVolumeError(
                f"{url}: another program has it open for writing; run again when it is done"
            ) from error
        if any(words in said for words in _UNCLOSED):
            raise InvalidVolumeError(
                f"{url}: another program has it open for writing, or ended without closing it; "
                f"run again when it is done, or repair it with h5clear -s"
            ) from error
        raise


__all__ = ["LOST", "Hdf5Files", "load_filters", "require_regular"]
