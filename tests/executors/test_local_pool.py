"""The pool of plain processes: every item once, dead processes, errors that end a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctray.config import PoolConfig
from ctray.core.errors import CheckpointError, CtrayError
from ctray.executors.local.pool import pool_capacity, run_pool

CPUS = 2
TWO = PoolConfig(num_cpus=1.0, max_size=2)


# Workers are found by name in the processes of the pool, and so they live on the module's top.
class Square:
    def __call__(self, item: int) -> tuple[int, int]:
        return item, item**2


class Deadly:
    """Dies of one item, and notes every try of any."""

    def __init__(self, folder: Path, deadly: int) -> None:
        self._folder, self._deadly = folder, deadly

    def __call__(self, item: int) -> int:
        with (self._folder / f"tries-{item}").open("a") as file:
            file.write("x")
        if item == self._deadly:
            # As the kernel ends a process that takes too much memory.
            os.kill(os.getpid(), signal.SIGKILL)
        return item


class DeadOnArrival:
    def __init__(self) -> None:
        os._exit(1)


class NoModel:
    def __init__(self) -> None:
        raise CheckpointError("the folder holds no checkpoint")


class Failing:
    """Returns, raises or stumbles over the error that the item names."""

    def __call__(self, item: str) -> Any:
        if item == "returns":
            return CtrayError("the output cannot be written")
        if item == "raises":
            raise CtrayError("the output cannot be written")
        return [][1]


class Prints:
    def __call__(self, item: int) -> str:
        print("to stdout")
        os.write(2, b"to stderr")
        return os.environ["OMP_NUM_THREADS"]


class Pid:
    def __call__(self, folder: Path) -> int:
        (folder / str(os.getpid())).touch()
        time.sleep(600)
        return 0


def test_every_item_gives_its_result_once() -> None:
    found = list(run_pool(Square, (), range(7), TWO, CPUS))
    assert sorted(found) == [(n, n**2) for n in range(7)]


def test_no_item_needs_no_process() -> None:
    assert list(run_pool(DeadOnArrival, (), [], TWO, CPUS)) == []


def test_item_that_kills_its_process_is_tried_once_more_and_the_others_finish(
    tmp_path: Path,
) -> None:
    found = list(run_pool(Deadly, (tmp_path, 2), range(6), TWO, CPUS))
    assert sorted(found) == [0, 1, 3, 4, 5]
    assert (tmp_path / "tries-2").read_text() == "xx"
    # Nobody else's item was lost or done twice with it.
    assert [(tmp_path / f"tries-{n}").read_text() for n in (0, 1, 3, 4, 5)] == ["x"] * 5


def test_processes_that_cannot_start_end_the_run() -> None:
    with pytest.raises(CtrayError, match=r"DeadOnArrival died 3 times .* lower pool\.max_size"):
        list(run_pool(DeadOnArrival, (), range(3), TWO, CPUS))


def test_worker_that_cannot_be_made_says_why() -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        list(run_pool(NoModel, (), range(3), TWO, CPUS))


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_error_that_ends_the_run_arrives(how: str) -> None:
    with pytest.raises(CtrayError, match="the output cannot be written"):
        list(run_pool(Failing, (), [how], TWO, CPUS))


def test_what_nobody_foresaw_is_one_line_and_keeps_its_traceback() -> None:
    with pytest.raises(CtrayError, match="unexpected IndexError: list index") as caught:
        list(run_pool(Failing, (), ["stumbles"], TWO, CPUS))
    assert "in __call__" in caught.value.__notes__[0]


def test_items_are_taken_as_processes_come_free() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(9):
            taken.append(n)
            yield n

    for done, _ in enumerate(run_pool(Square, (), items(), TWO, CPUS), 1):
        assert len(taken) <= done + TWO.max_size
    assert done == 9


def test_processes_print_nothing_and_share_the_cpus(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(run_pool(Prints, (), [1], TWO, CPUS)) == ["1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert list(run_pool(Prints, (), [1], TWO, CPUS)) == ["3"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("num_cpus", "max_size", "cpus", "expected"),
    [(1.0, 2, 2, 2), (1.0, 8, 3, 3), (0.5, 8, 3, 6), (2.0, 8, 1, 1), (0.1, 8, 1, 10)],
)
def test_processes_share_the_cpus_and_one_always_fits(
    num_cpus: float, max_size: int, cpus: int, expected: int
) -> None:
    assert pool_capacity(PoolConfig(num_cpus=num_cpus, max_size=max_size), cpus) == expected


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What nobody waited for is dead all the same.
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_whoever_started_them(tmp_path: Path, sign: signal.Signals) -> None:
    """In the middle of a volume, too: what they wrote later would meet another run."""
    code = (
        # A shell's background jobs ignore the signal, and hand that on to what they start.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from test_local_pool import CPUS, TWO, Pid\n"
        "from ctray.executors.local.pool import run_pool\n"
        f"list(run_pool(Pid, (), [Path({str(tmp_path)!r})] * 2, TWO, CPUS))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.iterdir())) < 2:
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # The terminal sends Ctrl-C to the whole group.
        os.killpg(parent.pid, sign) if sign == signal.SIGINT else parent.send_signal(sign)
        parent.wait(60)
        pids = [int(path.name) for path in tmp_path.iterdir()]
        while any(is_running(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        _, messages = parent.communicate()
    # The parent's own KeyboardInterrupt, and no child's.
    assert messages.count(b"Traceback") == (sign == signal.SIGINT)
