"""HDF5 files of one volume: its own file, and linked files inside the archive."""

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
from ctray.formats.file_access import damage_as_error, empty_file, file_size
from ctray.storage import store
from ctray.storage.local_backend import special_kind

# Most files that are open at once. Master files of fast detectors link to thousands.
_MAX_OPEN = 16
# Messages of HDF5 for a file that another process has locked, and for one that was never closed.
_LOCKED = ("unable to lock file", "file locking flag values don't match")
_UNCLOSED = ("already open for write", "already open for SWMR write")
# Messages of file systems without locks.
_NO_LOCKS = ("No locks available", "Function not implemented")
# Errors of a broken link. A store that is temporarily unavailable raises another error.
LOST = (InvalidVolumeError, NotFoundError, AccessError)


class Hdf5Files:
    """Opens the file at `url` and the files that it refers to.

    Parameters
    ----------
    url
        The file, normalized. Every message names it, and it stays open.
    within
        Folder or prefix that no link may leave: the archive, or the folder of the file.

    Attributes
    ----------
    others
        Files found through links so far, in the order of discovery.
    voxels_ids, part_ids
        Datasets of the file that may be its volume, and datasets of other files that it uses.
    moved
        By URL, notes on files that were not at the target of the link but beside the file.
    """

    def __init__(self, url: str, within: str | None = None) -> None:
        self.url = url
        # If the archive is this one file, the boundary is its folder.
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
        """Open file at `url`. Do not keep its groups and datasets: it may be closed later."""
        if url in self._open:
            self._open.move_to_end(url)
            return self._open[url][1]
        while len(self._open) >= _MAX_OPEN:
            oldest = next(known for known in self._open if known != self.url)
            self._open.pop(oldest)[0].close()
        stack = contextlib.ExitStack()
        try:
            # Reads are close together within a chunk or an object header, and far apart otherwise.
            binary = (
                stack.enter_context(store.open_binary(url)) if not store.is_local(url) else None
            )
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
        """One name for each file, also if symbolic links lead to it."""
        if url not in self._real:
            self._real[url] = os.path.realpath(url) if store.is_local(url) else url
        return self._real[url]

    def locate(self, home: str, name: str, what: str) -> str:
        """URL of the file `name` that the file `home` refers to.

        Relative names start at the folder of `home`. If an absolute name does not exist, the file
        of the same name beside `home` is taken, as HDF5 does, because folders are moved.

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
            If the file is outside `within`, or is missing.
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
        # Only local names are checked for a target outside, and nothing is opened.
        elsewhere = store.is_local(folder) and os.path.lexists(Path(folder, name))
        moved = name.replace("\\", "/").rpartition("/")[2]
        if name.startswith("/") or "\\" in name or ":" in name:
            beside = self._inside(home, moved)
            if beside is not None and not elsewhere and store.exists(beside):
                self.moved[beside] = f"{what} points to {name}; read {moved} beside it instead"
                return beside
        if inside is None and (elsewhere or "://" in name or not name.startswith("/")):
            raise InvalidVolumeError(
                f"{self.url}: {what} points to {name}, which is outside {self.within} and is not "
                "read; copy that file beside this one, or give a folder that holds both, as the "
                "archive or with --within"
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
        # Symbolic links are resolved first: the boundary applies to the file that is opened. If
        # the file itself is such a link, its real folder is allowed too.
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
        """Forget the files and datasets that were found for datasets that are not read."""
        for found in (self.others, self.voxels_ids, self.part_ids):
            found.clear()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1][0].close()


def require_regular(url: str) -> None:
    """Refuse empty files and special files; reading a pipe would wait for ever."""
    with store.mapped_errors(url, doing="read"):
        found = Path(url).stat()
    if (special := special_kind(found.st_mode)) is not None:
        raise StorageError(f"{url} is a {special}, not a file; it is never opened")
    if found.st_size == 0:
        raise empty_file(url)


def load_filters() -> None:
    """Register Blosc, LZ4 and other filters, if the package hdf5plugin is installed."""
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
                f"{url}: another program has the file open for writing; run again when it is done"
            ) from error
        if any(words in said for words in _UNCLOSED):
            raise InvalidVolumeError(
                f"{url}: another program has the file open for writing, or ended without closing "
                f"it; run again when it is done, or repair it with h5clear -s"
            ) from error
        raise
