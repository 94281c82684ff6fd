"""Files of this machine, opened without waiting for anybody: pipes and devices are refused."""

from __future__ import annotations

import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from ctray.core.errors import StorageError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def open_local(url: str | Path) -> io.FileIO:
    """Open a local file for reading; `StorageError` for a pipe, a socket or a device.

    Opening one of those may wait for ever for somebody who writes into it.
    """
    _refuse_special(url, Path(url).stat().st_mode)
    # Not to wait either where a pipe takes the file's place meanwhile.
    number = os.open(url, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse_special(url, os.fstat(number).st_mode)
        return io.FileIO(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _refuse_special(url: str | Path, mode: int) -> None:
    special = special_kind(mode)
    if special is not None:
        raise StorageError(
            f"{url} is a {special}, not a file; it is never opened, move it elsewhere"
        )


class FileStore(LocalStore):
    """Zarr store of a local folder that opens files alone, see `open_local`."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Fetch one file or a part of it; None where it is not there."""
        path = self.root / key
        with suppress(FileNotFoundError, NotADirectoryError):
            _refuse_special(path, path.stat().st_mode)
        return await super().get(key, prototype, byte_range)


def special_kind(mode: int) -> str | None:
    """What a file is that is neither a regular one nor a folder."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")
