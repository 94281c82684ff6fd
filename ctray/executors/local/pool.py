"""A pool of plain processes of this machine."""

from __future__ import annotations

import multiprocessing.connection
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ctray.config import PoolConfig
from ctray.core.errors import CtrayError
from ctray.executors.local.child import DONE, FAILED, READY, Child, ChildDiedError, start_child

# A volume that kills its process this often is most likely too large for the memory.
_MAX_DEATHS = 2
# Processes that die one after another before they are ready are no fault of a volume.
_MAX_FAILED_STARTS = 3


@dataclass(eq=False, kw_only=True, slots=True)
class _Item:
    """An item, and how often its process died."""

    value: Any
    deaths: int = 0


@dataclass(eq=False, kw_only=True, slots=True)
class _Process:
    """A process of the pool, and its item; None while it idles."""

    child: Child
    item: _Item | None
    ready: bool = False


@dataclass(kw_only=True, slots=True)
class _Pool:
    """Processes, and the waiting items."""

    worker: type
    arguments: tuple[Any, ...]
    size: int
    library_threads: int
    items: Iterator[Any]
    again: deque[_Item] = field(default_factory=deque)
    processes: list[_Process] = field(default_factory=list)
    failed_starts: int = 0

    def results(self) -> Iterator[Any]:
        """Yield results in the order in which they are done."""
        while True:
            self._fill()
            busy = {p.child.connection: p for p in self.processes if p.item is not None}
            if not busy:
                return
            for connection in multiprocessing.connection.wait(list(busy)):
                assert isinstance(connection, Connection)
                yield from self._take(busy[connection])

    def close(self) -> None:
        """End all processes, even in the middle of an item."""
        while self.processes:
            self.processes.pop().child.kill()

    def _fill(self) -> None:
        """Give every idle process an item, start more while items wait, and end the others."""
        for process in [p for p in self.processes if p.item is None]:
            item = self._next()
            if item is None:
                self._end(process)
            else:
                process.item = item
                process.child.send(item.value)
        while len(self.processes) < self.size and (item := self._next()) is not None:
            self._start(item)

    def _next(self) -> _Item | None:
        """Return a waiting item. Items that killed their process come last and delay no other."""
        for value in self.items:
            return _Item(value=value)
        return self.again.popleft() if self.again else None

    def _start(self, item: _Item) -> None:
        """Start a process, which takes its first item when its worker is ready."""
        child = start_child(
            f"ctray-{self.worker.__name__}",
            _serve,
            (self.worker, self.arguments),
            self.library_threads,
        )
        child.send(item.value)
        self.processes.append(_Process(child=child, item=item))

    def _end(self, process: _Process) -> None:
        self.processes.remove(process)
        process.child.kill()

    def _take(self, process: _Process) -> Iterator[Any]:
        """Yield the result of a process, if it has one; then it idles or is gone."""
        try:
            kind, value = process.child.receive()
        except ChildDiedError:
            self._bury(process)
            return
        if kind == FAILED:
            raise value
        if kind == READY:
            process.ready, self.failed_starts = True, 0
            return
        assert kind == DONE
        process.item = None
        yield value

    def _bury(self, process: _Process) -> None:
        """Queue the item of a dead process again, unless it has used up its tries."""
        item = process.item
        assert item is not None
        self._end(process)
        if process.ready:
            item.deaths += 1
        else:
            self.failed_starts += 1
            if self.failed_starts >= _MAX_FAILED_STARTS:
                raise CtrayError(
                    f"a process for {self.worker.__name__} died {self.failed_starts} times while "
                    "it started; the machine is probably out of memory: lower pool.max_size, or "
                    "close other programs"
                )
        if item.deaths < _MAX_DEATHS:
            self.again.append(item)


def _serve(connection: Connection, worker: type, arguments: tuple[Any, ...]) -> None:
    """Body of a process of the pool: one worker, one item at a time."""
    made = worker(*arguments)
    connection.send((READY, None))
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send((DONE, made(item)))


def run_pool(
    worker: type, arguments: tuple[Any, ...], items: Iterable[Any], config: PoolConfig, cpus: int
) -> Iterator[Any]:
    """Yield the results of `worker` over `items` on `cpus`.

    See `ctray.executors.protocol.Executor`.
    """
    pool = _Pool(
        worker=worker,
        arguments=arguments,
        size=min(config.max_size, pool_capacity(config, cpus)),
        library_threads=max(1, int(config.num_cpus)),
        items=iter(items),
    )
    try:
        for result in pool.results():
            if isinstance(result, CtrayError):
                raise result
            yield result
    finally:
        pool.close()


def pool_capacity(config: PoolConfig, cpus: int) -> int:
    """Return how many processes of the pool fit on a machine with `cpus`; at least one."""
    return max(1, int(cpus / config.num_cpus + 1e-9))
