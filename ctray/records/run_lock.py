"""The lock of a run folder: one process at a time writes into a run.

`RUN/lock.json` names its owner. It is created only if absent (`ctray.storage.exclusive`), renewed
every few seconds, and removed at the end. If the owner is gone, the next process takes the lock
over. An owner on the same machine is gone if its process has ended. An owner on another machine is
gone if it stops renewing. Clocks of two machines may differ, so an old lock is watched for a while
before it counts as abandoned.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from ctray.core.errors import CtrayError, NotFoundError, RunInUseError, StorageError
from ctray.core.processes import Process, is_alive, this_process
from ctray.records.run_folder import LOCK
from ctray.storage import store

RENEW_S = 20.0
# An owner on another machine is gone if it did not renew its lock for this long.
STALE_S = 180.0
# If the lock was renewed within this time, another process is refused at once.
_FRESH_S = 3 * RENEW_S
_LOOK_S = 1.0
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that holds a run.

    Parameters
    ----------
    process
        The process that writes, or that starts and ends the writing processes.
    job
        Id of its cluster job; empty if it has none.
    since, renewed
        Start and last renewal, in seconds since 1970 by the owner's clock.
    token
        Random text that identifies this owner.
    """

    process: Process
    job: str = ""
    since: float
    renewed: float
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_bytes(self) -> bytes:
        """Content of the lock."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Owner | None:
        """Owner in the content of a lock; None if it is damaged, for example by a full disk."""
        try:
            told = json.loads(data)
            process = Process(**told.pop("process"))
            known = {f.name for f in fields(cls)}
            owner = cls(process=process, **{k: v for k, v in told.items() if k in known})
            return replace(owner, since=float(owner.since), renewed=float(owner.renewed))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return None

    def __str__(self) -> str:
        job = f"job {self.job}, " if self.job else ""
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"{job}process {self.process.pid} on {self.process.host} (since {at})"


@contextmanager
def hold_run(
    run_url: str,
    *,
    job: str | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
    renew_s: float = RENEW_S,
    stale_s: float = STALE_S,
) -> Iterator[None]:
    """Hold the lock of a run while the block runs.

    A nested block of the same thread has no effect. If another process takes the lock over
    meanwhile, because it found no sign of life, the main thread is interrupted.

    Parameters
    ----------
    run_url
        Folder of the run. It is created if necessary, and removed again if it stays empty.
    job
        Id of the cluster job of this process; None uses CTRAY_JOB_ID.
    on_wait
        Called with a line when an old lock of another machine is watched.
    renew_s, stale_s
        Seconds between renewals, and seconds without a renewal after which an owner on another
        machine counts as gone.

    Raises
    ------
    RunInUseError
        If another process holds the run, or took it over meanwhile.
    """
    url = store.normalize(run_url)
    if (url, threading.get_ident()) in _held:
        yield
        return
    made = _missing_folders(url)
    name = os.environ.get("CTRAY_JOB_ID", "") if job is None else job
    lock = _acquire(store.join(url, LOCK), name, on_wait, renew_s, stale_s)
    _held.add((url, threading.get_ident()))
    renewals = _Renewals(lock, renew_s)
    try:
        _clear_partials(url)
        yield
    except KeyboardInterrupt:
        if renewals.lost:
            raise _lost(url) from None
        raise
    finally:
        _held.discard((url, threading.get_ident()))
        renewals.end()
        _remove_if_empty(made)
    if renewals.lost:
        raise _lost(url)


_held: set[tuple[str, int]] = set()


@dataclass(kw_only=True, slots=True)
class _Lock:
    """The lock as this process last wrote it."""

    url: str
    owner: Owner
    data: bytes


def _acquire(
    url: str, job: str, on_wait: Callable[[str], None], renew_s: float, stale_s: float
) -> _Lock:
    for _ in range(_ATTEMPTS):
        now = time.time()
        owner = Owner(process=this_process(), job=job, since=now, renewed=now)
        data = owner.to_bytes()
        if store.create(url, data):
            return _Lock(url=url, owner=owner, data=data)
        try:
            seen = store.read_bytes(url)
        except NotFoundError:
            continue
        _refuse_alive(url, seen, patient=bool(job), on_wait=on_wait, stale_s=stale_s)
        if store.replace(url, seen, data):
            return _Lock(url=url, owner=owner, data=data)
    raise RunInUseError(f"{_run_of(url)}: several processes ask for the run at once; try again")


def _refuse_alive(
    url: str, seen: bytes, *, patient: bool, on_wait: Callable[[str], None], stale_s: float
) -> None:
    """Return if the owner of a lock is gone; raise `RunInUseError` if it is alive."""
    owner = Owner.from_bytes(seen)
    if owner is not None:
        alive = is_alive(owner.process)
        age = abs(time.time() - owner.renewed)
        # A cluster may restart a job seconds after it lost the node of the first attempt, so a job
        # waits even if the lock is fresh.
        if alive or (alive is None and age < min(_FRESH_S, stale_s) and not patient):
            raise _in_use(url, owner, stale_s)
        if alive is False:
            return
    left = stale_s if owner is None else max(1.5 * RENEW_S, stale_s - age)
    left = min(left, stale_s)
    who = "an owner that cannot be read" if owner is None else str(owner)
    on_wait(f"the run is held by {who}; waiting up to {left:.0f} s for a sign of life")
    until = time.monotonic() + left
    while time.monotonic() < until:
        time.sleep(min(_LOOK_S, left / 4))
        try:
            now = store.read_bytes(url)
        except NotFoundError:
            return
        if now != seen:
            raise _in_use(url, Owner.from_bytes(now) or owner, stale_s)


def _in_use(url: str, owner: Owner | None, stale_s: float) -> RunInUseError:
    return RunInUseError(
        f"{_run_of(url)} is in use by {owner or 'another process'}; wait for its end, or stop it "
        f"there. If it is gone, its lock is taken over {stale_s:.0f} s after its last sign of life"
    )


def _lost(url: str) -> RunInUseError:
    return RunInUseError(
        f"{url} was taken over by another process, which had no sign of life of this one for "
        "minutes; this one has stopped"
    )


def _run_of(lock_url: str) -> str:
    return lock_url.removesuffix(f"/{LOCK}")


class _Renewals:
    """A thread that renews a lock until the end, and notices when it is lost."""

    def __init__(self, lock: _Lock, every_s: float) -> None:
        self.lost = False
        self._lock = lock
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(
            target=self._run, args=(every_s,), name="ctray-lock", daemon=True
        )
        self._thread.start()

    def _run(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            owner = replace(self._lock.owner, renewed=time.time())
            data = owner.to_bytes()
            try:
                renewed = store.replace(self._lock.url, self._lock.data, data)
            except CtrayError:
                # A failing store fails for all processes. The next renewal tries again.
                continue
            if renewed:
                self._lock.owner, self._lock.data = owner, data
            elif self._owned_by_another():
                self.lost = True
                if self._interrupts and not self._ended.is_set():
                    _interrupt_main_thread()
                return

    def _owned_by_another(self) -> bool:
        """Whether the lock is gone or another's; False if only the reply of the store was lost."""
        try:
            found = store.read_bytes(self._lock.url)
        except NotFoundError:
            return True
        except CtrayError:
            return False
        owner = Owner.from_bytes(found)
        if owner is not None and owner.token == self._lock.owner.token:
            self._lock.owner, self._lock.data = owner, found
            return False
        return True

    def end(self) -> None:
        """Stop, and remove the lock unless another process owns it."""
        if os.getpid() != self._pid:
            return
        self._ended.set()
        self._thread.join()
        try:
            store.delete_unchanged(self._lock.url, self._lock.data)
        except StorageError:
            # The lock stays. This process ends, so the next one takes the lock over.
            return


def _interrupt_main_thread() -> None:
    """Raise `KeyboardInterrupt` in the main thread, even if SIGINT is ignored (background jobs)."""
    main = threading.main_thread().ident
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    if main is not None and handled:
        signal.pthread_kill(main, handled[0])


def _clear_partials(url: str) -> None:
    """Remove unfinished small files of a killed process, before this process writes any.

    Object stores have no such files, and unfinished volumes have their own marker.
    """
    if not store.is_local(url):
        return
    for folder in ("", "receipts", "previews", "working", "checkpoint", "report"):
        for path in (Path(url) / folder).glob("*.partial"):
            path.unlink(missing_ok=True)


def _missing_folders(url: str) -> list[Path]:
    """Local folders that do not exist yet: the run's, then its parents."""
    if not store.is_local(url):
        return []
    path = Path(url)
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _remove_if_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
