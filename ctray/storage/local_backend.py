"""Files of this machine. Pipes, sockets and devices are refused: opening one may block for ever."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from zarr.storage import LocalStore

from ctray.core.errors import StorageError
from ctray.storage.backend import Entry, ObjectInfo, Parts

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest


class LocalBackend:
    """Files and folders; see `ctray.storage.backend.Backend`."""

    def open(self, url: str, *, dense: bool) -> IO[bytes]:
        """Open a file."""
        return io.BufferedReader(open_local(url))

    def read(self, url: str, check: Callable[[int], None] | None = None) -> bytes:
        """Read a whole file."""
        with open_local(url) as file:
            if check is not None:
                check(os.fstat(file.fileno()).st_size)
            return file.read()

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read byte ranges."""
        with open_local(url) as file:
            return [os.pread(file.fileno(), b - a, a) for a, b in ranges]

    def read_suffix(self, url: str, num_bytes: int) -> bytes:
        """Read the last bytes."""
        with open_local(url) as file:
            size = os.fstat(file.fileno()).st_size
            return os.pread(file.fileno(), num_bytes, max(0, size - num_bytes))

    def write(self, url: str, parts: Parts, *, durable: bool) -> None:
        """Write a file under another name, then rename it within its folder."""
        path = Path(url)
        partial = _write_partial(path, parts, durable=durable)
        try:
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def create(self, url: str, data: bytes) -> bool:
        """Link a written file to its name, which fails if that name exists."""
        path = Path(url)
        partial = _write_partial(path, [data], durable=True)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links.
            return _create_plainly(path, data)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def replace(self, url: str, seen: bytes, data: bytes) -> bool:
        """Replace a file while its lock is held."""
        return _change(Path(url), seen, lambda: self.write(url, [data], durable=True))

    def delete_unchanged(self, url: str, seen: bytes) -> bool:
        """Delete a file while its lock is held."""
        return _change(Path(url), seen, lambda: self.delete(url))

    def stat(self, url: str) -> ObjectInfo:
        """Size and modification time."""
        found = Path(url).stat()
        return ObjectInfo(size=found.st_size, version=str(found.st_mtime_ns))

    def exists(self, url: str) -> bool:
        """Whether a file or a folder exists."""
        return Path(url).exists()

    def list(self, url: str) -> list[Entry]:
        """Entries of a folder."""
        with os.scandir(url) as names:
            return [_entry(name) for name in names]

    def tree(self, url: str) -> Iterator[ObjectInfo]:
        """All regular files below a folder; links to folders are not followed."""
        for folder, folders, names in os.walk(url):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file():
                    found, below = path.stat(), path.relative_to(url).as_posix()
                    version = str(found.st_mtime_ns)
                    yield ObjectInfo(path=below, size=found.st_size, version=version)

    def delete(self, url: str) -> None:
        """Delete a file."""
        Path(url).unlink()

    def delete_tree(self, url: str) -> None:
        """Delete a folder."""
        if Path(url).exists():
            shutil.rmtree(url)

    def zarr_store(self, url: str, *, read_only: bool) -> LocalStore:
        """Zarr store that refuses special files."""
        return FileStore(url, read_only=read_only)


class FileStore(LocalStore):
    """Zarr store of a local folder that reads regular files only, see `open_local`."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Fetch one file or a part of it; None if it does not exist."""
        path = self.root / key
        with suppress(FileNotFoundError, NotADirectoryError):
            _refuse_special(path, path.stat().st_mode)
        return await super().get(key, prototype, byte_range)


def open_local(url: str | Path) -> io.FileIO:
    """Open a local file for reading; `StorageError` for a pipe, a socket or a device."""
    _refuse_special(url, Path(url).stat().st_mode)
    # A pipe may take the file's place meanwhile: do not wait for its writer either.
    number = os.open(url, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse_special(url, os.fstat(number).st_mode)
        return io.FileIO(number, "rb")
    except BaseException:
        os.close(number)
        raise


def special_kind(mode: int) -> str | None:
    """Kind of a file that is neither a regular file nor a folder; None for those two."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _refuse_special(url: str | Path, mode: int) -> None:
    special = special_kind(mode)
    if special is not None:
        raise StorageError(f"{url} is a {special}, not a file, and is never opened; move it away")


def _write_partial(path: Path, parts: Parts, *, durable: bool) -> Path:
    """Write `parts` beside `path` under a name of its own, and return that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            if durable:
                # Else a power cut could leave the name on an empty file: a commit without content.
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _create_plainly(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _change(path: Path, seen: bytes, change: Callable[[], None]) -> bool:
    """Call `change` while this file is locked, if it still holds `seen`."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        # Some network file systems have no such locks: there, the comparison must do.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            same_file = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            return False
        if not same_file or file.read() != seen:
            return False
        change()
    return True


def _entry(name: os.DirEntry[str]) -> Entry:
    try:
        found = name.stat()
    except OSError:
        # A dangling link, or a file that may not be read: opening it gives the clear error.
        return Entry(url=name.path, name=name.name, is_dir=False, size=None)
    is_dir = stat.S_ISDIR(found.st_mode)
    return Entry(
        url=name.path,
        name=name.name,
        is_dir=is_dir,
        size=None if is_dir else found.st_size,
        version=str(found.st_mtime_ns),
        special=special_kind(found.st_mode),
    )
