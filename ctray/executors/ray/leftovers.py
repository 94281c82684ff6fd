"""Temporary folders of a process, and the removal of folders that killed processes left."""

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
# A younger folder without an owner may just be in the making.
_UNOWNED_S = 600.0
# After the process that started Ray is killed, Ray's workers end within two seconds; its agents
# live on for at least 40 s (seen with Ray 2.60).
_PATIENCE_S = 5.0
_END_S = 5.0


def own_folder(prefix: str, base: str | None = None) -> str:
    """Make a folder for this process, and remove folders that killed processes left.

    Parameters
    ----------
    prefix
        Start of the folder's name. Unused folders with the same prefix are removed.
    base
        Parent folder; None takes the folder for temporary files.
    """
    place = Path(base or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(prefix, place)
    folder = tempfile.mkdtemp(prefix=prefix, dir=place)
    (Path(folder) / _OWNER).write_text(json.dumps(asdict(this_process())), encoding="utf-8")
    return folder


@contextmanager
def scratch_folder(prefix: str, base: str | None = None) -> Iterator[str]:
    """Make an `own_folder` and remove it at the end of the block."""
    folder = own_folder(prefix, base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(prefix: str, base: Path, *, patience_s: float = _PATIENCE_S) -> None:
    """Remove the folders in `base` whose owner was killed.

    The workers of the killed process must not run beside those of a new one. So this waits for
    them, and kills those that Ray started after `patience_s`. A folder that something else uses
    stays, for example while a person reads its logs.
    """
    until = time.monotonic() + patience_s
    for folder in base.glob(f"{prefix}*"):
        if _is_left(folder) and _is_unused(folder, until):
            shutil.rmtree(folder, ignore_errors=True)


def _is_unused(folder: Path, until: float) -> bool:
    """Whether no process uses a folder; after `until`, kills the processes of Ray in it."""
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
    """Whether the command line of a process is that of a worker or a program of Ray."""
    try:
        called = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return called.startswith(b"ray::") or b"/ray/" in called


def _is_left(folder: Path) -> bool:
    """Whether this user owns the folder and its process is known to be gone."""
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
