"""The lock of a run folder: one holder, on every store; dead owners' locks are taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctray.core.errors import RunInUseError
from ctray.core.processes import Process, is_alive, this_process
from ctray.records.run_lock import LOCK, Owner, hold_run
from ctray.storage import store

HOLDER = """
import sys, time
from ctray.records.run_lock import hold_run
with hold_run(sys.argv[1], job=sys.argv[2]):
    print("held", flush=True)
    time.sleep(100)
"""


def start_holder(url: str, job: str = "") -> subprocess.Popen[str]:
    """Another process that holds the run until it is ended."""
    words = [sys.executable, "-c", HOLDER, url, job]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(**changed: Any) -> Owner:
    """An owner on a machine that is not this one."""
    process = Process(pid=77, host="node-5", machine="other", started="3")
    now = time.time()
    return replace(Owner(process=process, since=now, renewed=now), **changed)


# --- objects that one writer makes ----------------------------------------------------------


def test_only_the_first_creates(base_url: str) -> None:
    url = store.join(base_url, "one")
    assert store.create(url, b"mine")
    assert not store.create(url, b"yours")
    assert store.read_bytes(url) == b"mine"


def test_only_what_was_seen_is_replaced_and_removed(base_url: str) -> None:
    url = store.join(base_url, "one")
    assert not store.replace(url, b"", b"new")
    store.create(url, b"first")
    assert not store.replace(url, b"other", b"new")
    assert store.replace(url, b"first", b"second")
    assert not store.delete_unchanged(url, b"first")
    assert store.read_bytes(url) == b"second"
    assert store.delete_unchanged(url, b"second")
    assert not store.exists(url)


def test_of_many_who_take_over_one_wins(base_url: str) -> None:
    """Twelve threads replace what all of them have seen."""
    url = store.join(base_url, "one")
    store.create(url, b"dead")
    begin, won = threading.Barrier(12), []

    def take(number: int) -> None:
        begin.wait()
        if store.replace(url, b"dead", b"owner %d" % number):
            won.append(number)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_bytes(url) == b"owner %d" % won[0]


def _take(url: str, begin: Any, won: Any) -> None:
    begin.wait()
    if store.create(url, str(os.getpid()).encode()):
        with won.get_lock():
            won.value += 1


def test_of_many_processes_one_creates(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    begin, won = spawn.Barrier(6), spawn.Value("i", 0)
    url = str(tmp_path / "one")
    processes = [spawn.Process(target=_take, args=(url, begin, won)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert won.value == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


# --- the lock -------------------------------------------------------------------------------


def test_one_holds_and_the_other_is_told_who(base_url: str) -> None:
    lock = store.join(base_url, LOCK)
    refused = []

    def other() -> None:
        try:
            with hold_run(base_url):
                pass
        except RunInUseError as error:
            refused.append(str(error))

    with hold_run(base_url, job="ctray-scans-1"):
        with hold_run(base_url):
            assert store.exists(lock)
        assert store.exists(lock), "an inner block of the same thread changes nothing"
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on {this_process().host}" in refused[0]
    assert "job ctray-scans-1" in refused[0]
    assert base_url in refused[0]
    assert not store.exists(lock)
    with hold_run(base_url):
        pass


def test_process_that_is_killed_leaves_a_lock_that_is_taken_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    holder = start_holder(str(run))
    with pytest.raises(RunInUseError, match=f"process {holder.pid} on "), hold_run(str(run)):
        pass
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(RunInUseError), hold_run(str(run)):
        pass
    holder.kill()
    # Not reaped yet: a zombie writes nothing.
    while is_alive(Owner.from_bytes((run / LOCK).read_bytes()).process):  # type: ignore[union-attr]
        time.sleep(0.01)
    with hold_run(str(run)):
        told = json.loads((run / LOCK).read_bytes())
        assert told["process"]["pid"] == os.getpid()
    holder.communicate()


def test_number_of_a_process_that_another_has_now_is_no_owner(tmp_path: Path) -> None:
    mine = replace(this_process(), started="1")
    lock = Owner(process=mine, since=time.time(), renewed=time.time())
    (tmp_path / LOCK).write_bytes(lock.to_bytes())
    with hold_run(str(tmp_path)):
        pass


def test_owner_elsewhere_is_believed_while_its_lock_is_fresh(base_url: str) -> None:
    store.write_bytes(store.join(base_url, LOCK), elsewhere(job="ctray-a").to_bytes())
    refused = pytest.raises(RunInUseError, match="job ctray-a, process 77 on node-5")
    with refused, hold_run(base_url):
        pass


@pytest.mark.parametrize("clock", [-4000.0, 0.0, 4000.0], ids=["behind", "same", "ahead"])
def test_owner_elsewhere_without_renewals_is_gone(tmp_path: Path, clock: float) -> None:
    """Whatever the clock of its machine says."""
    old = elsewhere(renewed=time.time() - 0.6 + clock)
    (tmp_path / LOCK).write_bytes(old.to_bytes())
    lines: list[str] = []
    with hold_run(str(tmp_path), stale_s=0.5, on_wait=lines.append):
        pass
    assert "node-5" in lines[0]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"process": 4}', b"[" * 10_000])
def test_damaged_lock_is_watched_and_taken_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / LOCK).write_bytes(data)
    with hold_run(str(tmp_path), stale_s=0.2):
        pass


def test_owner_elsewhere_that_renews_is_alive(tmp_path: Path) -> None:
    """Its clock is an hour behind: only the watching tells."""
    lock = tmp_path / LOCK
    owner = elsewhere(renewed=time.time() - 3600)
    lock.write_bytes(owner.to_bytes())

    def renew() -> None:
        time.sleep(0.2)
        store.write_bytes(str(lock), replace(owner, renewed=owner.renewed + 20).to_bytes())

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(RunInUseError, match="node-5"), hold_run(str(tmp_path), stale_s=30):
        pass
    thread.join()


def test_lock_is_renewed(base_url: str) -> None:
    lock = store.join(base_url, LOCK)
    with hold_run(base_url, renew_s=0.05):
        first = Owner.from_bytes(store.read_bytes(lock))
        assert first is not None
        while (now := Owner.from_bytes(store.read_bytes(lock))) is None or now == first:
            time.sleep(0.01)
        assert now.token == first.token
        assert now.renewed > first.renewed
    assert not store.exists(lock)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts this process, whatever a shell or an earlier Ray session made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


@pytest.mark.usefixtures("interruptible")
def test_lock_that_was_taken_over_ends_its_owner(tmp_path: Path) -> None:
    thief = elsewhere().to_bytes()

    def work() -> None:
        with hold_run(str(tmp_path), renew_s=0.05):
            store.write_bytes(str(tmp_path / LOCK), thief)
            time.sleep(20)

    with pytest.raises(RunInUseError, match="taken over"):
        work()
    assert (tmp_path / LOCK).read_bytes() == thief, "the lock of another stays"


def test_run_that_came_to_nothing_leaves_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "archive-run"
    with pytest.raises(KeyError), hold_run(str(run)):
        raise KeyError
    assert not run.exists()


def test_folders_above_that_came_to_nothing_go_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyError), hold_run(str(tmp_path / "mine" / "new" / "run")):
        raise KeyError
    assert list((tmp_path / "mine").iterdir()) == []


def test_half_written_receipts_of_a_killed_process_go(tmp_path: Path) -> None:
    (tmp_path / "receipts").mkdir()
    for name in ("receipts/a.json.00.partial", "run.json.11.partial", "receipts/b.json"):
        (tmp_path / name).write_bytes(b"{")
    with hold_run(str(tmp_path)):
        assert [p.name for p in (tmp_path / "receipts").iterdir()] == ["b.json"]
        assert not (tmp_path / "run.json.11.partial").exists()
