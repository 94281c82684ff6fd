"""Processes across machines: identity of this one, and whether another still runs."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """Identity of a process, different from a later process with the same number.

    Parameters
    ----------
    pid, host
        Number of the process, and name of its machine or container.
    machine
        Different for every machine, every boot, and every container with its own process numbers.
        Empty if the system does not provide it.
    started
        Start time in the machine's own count. Empty if the system does not provide it.
    """

    pid: int
    host: str
    machine: str = ""
    started: str = ""


def this_process() -> Process:
    """Return the identity of the current process."""
    pid = os.getpid()
    return Process(
        pid=pid, host=platform.node(), machine=_machine(), started=_state(pid)[1] if _PROC else ""
    )


def is_alive(process: Process) -> bool | None:
    """Whether a process runs; None if this machine cannot know."""
    if not process.machine or process.machine != _machine() or process.host != platform.node():
        return None
    state, started = _state(process.pid)
    return state not in ("", "Z", "X") and started == process.started


def uses(folder: Path) -> list[int]:
    """Processes of this machine that have a file below `folder` open, or name it in their call.

    Processes of other users are not visible.
    """
    place, found = f"{folder}/", []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            called = (entry / "cmdline").read_bytes().decode(errors="replace")
            if place in called or any(_opens(entry, place)):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


_PROC = Path("/proc/self/stat").exists()


def _opens(process: Path, place: str) -> list[str]:
    found = []
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            target = str(link.readlink())
            found += [target] if target.startswith(place) else []
    return found


def _machine() -> str:
    if not _PROC:
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, str]:
    """State and start time of a process; empty if it does not exist."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return "", ""
    # The program's name, in brackets, may contain blanks and brackets.
    words = text.rpartition(")")[2].split()
    return words[0], words[19]
