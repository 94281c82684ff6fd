"""Folders for the time of a process, and removing those of processes that were killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ctray.core.processes import Process, is_alive, this_process, uses

_OWNER = "ctray-owner.json"
# A folder without an owner is one that is being made, or of an earlier version.
_UNOWNED_S = 600.0
# Workers of Ray end a second or two after the process that started Ray was killed; Ray's agents on
# the node lived on for 40 s at least (seen with Ray 2.60).
_PATIENCE_S = 5.0
_END_S = 5.0


def own_folder(prefix: str, base: str | None = None) -> str:
    """Make a folder for the time of this process, and remove those of processes that were killed.

    Parameters
    ----------
    prefix
        Begins the name of the folder, and of those that are removed, once nothing uses them.
    base
        Where; None takes the folder for temporary files.
    """
    place = Path(base or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(prefix, place)
    folder = tempfile.mkdtemp(prefix=prefix, dir=place)
    (Path(folder) / _OWNER).write_text(json.dumps(asdict(this_process())), encoding="utf-8")
    return folder


@contextmanager
def scratch_folder(prefix: str, base: str | None = None) -> Iterator[str]:
    """`own_folder` that is removed at the end of the block."""
    folder = own_folder(prefix, base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(prefix: str, base: Path, *, patience_s: float = _PATIENCE_S) -> None:
    """Remove the folders in `base` whose process was killed.

    What its workers still do they must not do beside those of a new one: they are waited for, and
    those that Ray started are killed after `patience_s`. A folder that something else uses, such
    as a person who reads its logs, stays for the next time.
    """
    until = time.monotonic() + patience_s
    for folder in base.glob(f"{prefix}*"):
        if _is_left(folder) and _is_unused(folder, until):
            shutil.rmtree(folder, ignore_errors=True)


def _is_unused(folder: Path, until: float) -> bool:
    """Whether nobody uses a folder any more, after `until` without what Ray started in it."""
    while in_use := uses(folder):
        now = time.monotonic()
        if now > until + _END_S:
            return False
        if now > until:
            rays = [pid for pid in in_use if _is_rays(pid)]
            if not rays:
                return False
            for pid in rays:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    return True


def _is_rays(pid: int) -> bool:
    """Whether a process is one of Ray's, by its call: a worker, or a program of Ray's package."""
    try:
        called = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return called.startswith(b"ray::") or b"/ray/" in called


def _is_left(folder: Path) -> bool:
    """Whether the owner of a folder of ours is known to be gone; of other users' nothing is."""
    try:
        about = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or about.st_uid != os.getuid():
            return False
        owner = Process(**json.loads((folder / _OWNER).read_bytes()))
    except FileNotFoundError:
        return time.time() - about.st_mtime > _UNOWNED_S
    except (OSError, ValueError, TypeError):
        return False
    return is_alive(owner) is False
