"""A pool of Ray actors that grows and shrinks between its limits.

Ray Data is not used here: it expects many blocks of similar size, and a volume can take seconds or
hours. Items and results are small records; an actor reads its volume from the store itself.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ctray.config import PoolConfig
from ctray.core.errors import CtrayError
from ctray.executors.ray.autoscaling import Patience, autoscales, no_room, wait_for_room
from ctray.executors.ray.errors import is_node_death, last_line, own_error
from ctray.executors.ray.session import cluster_cpus, cluster_gpus
from ctray.executors.threads import pool_threads
from ctray.records.events import nobody

# A volume that kills its worker this often is most likely too large for the memory.
_MAX_DEATHS = 2
# A node that dies is not the fault of the item on it, but the retries must end.
_MAX_NODE_DEATHS = 5
# Actors that die one after another before they are ready show a fault of the cluster.
_MAX_FAILED_STARTS = 3
# Nodes come and go: how often the limit of growth is updated.
_LIMIT_AGE_S = 5.0
_WAIT_S = 1.0


@dataclass(eq=False, kw_only=True, slots=True)
class _Item:
    """An item, and how often its worker or its node died."""

    value: Any
    deaths: int = 0
    node_deaths: int = 0


@dataclass(kw_only=True, slots=True)
class _Actor:
    """An actor: its handle, and its item; None while it starts or idles."""

    handle: Any
    item: _Item | None = None
    ready: bool = False


class _Host:
    """Holds the worker in the actor's process."""

    def __init__(self, worker: type, arguments: tuple[Any, ...]) -> None:
        self._worker = worker(*arguments)

    def ready(self) -> None:
        """Answer once the worker is made."""

    def work(self, item: Any) -> Any:
        """Return the worker's result for one item."""
        return self._worker(item)


@dataclass(kw_only=True, slots=True)
class _Pool:
    """Actors, the waiting items, and the answers that the driver waits for."""

    worker: type
    arguments: tuple[Any, ...]
    config: PoolConfig
    items: Iterator[Any]
    patience: Patience
    first: _Item | None = None
    again: deque[_Item] = field(default_factory=deque)
    awaited: dict[Any, _Actor] = field(default_factory=dict)
    idle: list[_Actor] = field(default_factory=list)
    failed_starts: int = 0
    limit: int = 1
    limit_from: float | None = None

    def results(self) -> Iterator[Any]:
        """Yield results in the order in which they are done."""
        while True:
            self._fill()
            # An actor that no item needs could wait for a node for ever.
            if not any(a.item for a in self.awaited.values()) and not self._has_items():
                return
            done, _ = ray.wait(list(self.awaited), num_returns=1, timeout=_WAIT_S)
            if any(actor.ready for actor in self.awaited.values()) or done:
                self.patience.over()
            else:
                # All nodes are gone, or new ones have not arrived yet.
                self.patience.wait()
            for answer in done:
                yield from self._take(answer)

    def close(self) -> None:
        """End all actors, even in the middle of an item."""
        for actor in (*self.awaited.values(), *self.idle):
            ray.kill(actor.handle)
        self.awaited.clear()
        self.idle.clear()

    def _fill(self) -> None:
        """Give every idle actor an item; grow while items wait, shrink when none do.

        An actor has one item at a time. So the size of the pool bounds the items in flight, and
        the item that killed a worker is known.
        """
        while self._has_items():
            if self.idle:
                actor = self.idle.pop()
                actor.item = self._next()
                self.awaited[actor.handle.work.remote(actor.item.value)] = actor
            elif self._may_grow():
                self._start()
            else:
                return
        # Starting actors go first: an autoscaler would add nodes for them that have nothing to do.
        starting = [answer for answer, actor in self.awaited.items() if not actor.ready]
        while self._size > self.config.min_size and (starting or self.idle):
            actor = self.awaited.pop(starting.pop()) if starting else self.idle.pop()
            ray.kill(actor.handle)

    @property
    def _size(self) -> int:
        return len(self.awaited) + len(self.idle)

    def _has_items(self) -> bool:
        if self.first is None:
            self.first = next((_Item(value=value) for value in self.items), None)
        return self.first is not None or bool(self.again)

    def _next(self) -> _Item:
        """Return a waiting item. Items that killed their worker come last and delay no other."""
        if self.first is None:
            return self.again.popleft()
        item, self.first = self.first, None
        return item

    def _may_grow(self) -> bool:
        """Whether another actor may start now.

        Above `min_size`, at most as many actors start at once as are working: an actor takes
        seconds to start, and a short job is done by then.
        """
        now = time.monotonic()
        if self.limit_from is None or now - self.limit_from >= _LIMIT_AGE_S:
            self.limit, self.limit_from = max(1, pool_capacity(self.config)), now
        starting = sum(not actor.ready for actor in self.awaited.values())
        at_once = max(self.config.min_size, self._size - starting)
        return self._size < min(self.limit, self.config.max_size) and starting < at_once

    def _start(self) -> None:
        options: dict[str, Any] = {"num_cpus": self.config.num_cpus, "max_restarts": 0}
        if gpus := actor_gpus(self.config):
            options["num_gpus"] = gpus
        # Ray names the process after its class, so `ps` on a node shows what it does.
        host = type(self.worker.__name__, (_Host,), {})
        handle = ray.remote(**options)(host).remote(self.worker, self.arguments)
        self.awaited[handle.ready.remote()] = _Actor(handle=handle)

    def _take(self, answer: Any) -> Iterator[Any]:
        """Yield the result of an answer, if it has one; then its actor idles or is gone."""
        actor = self.awaited.pop(answer)
        item, actor.item = actor.item, None
        try:
            result = ray.get(answer)
        except RayTaskError:
            self.idle.append(actor)
            raise
        except RayError as error:
            # An actor that is only out of reach may still write; it must not meet its successor.
            ray.kill(actor.handle)
            self._bury(item, error)
            return
        self.idle.append(actor)
        if item is None:
            actor.ready, self.failed_starts = True, 0
        else:
            yield result

    def _bury(self, item: _Item | None, error: RayError) -> None:
        """Queue the item of a dead actor again, unless it has used up its tries."""
        by_node = is_node_death(error)
        if item is None:
            self.failed_starts += not by_node
            if own_error(error) is not None or self.failed_starts >= _MAX_FAILED_STARTS:
                raise error
            return
        item.node_deaths += by_node
        item.deaths += not by_node
        if item.deaths < _MAX_DEATHS and item.node_deaths < _MAX_NODE_DEATHS:
            self.again.append(item)


def run_pool(
    worker: type,
    arguments: tuple[Any, ...],
    items: Iterable[Any],
    config: PoolConfig,
    on_wait: Callable[[str], None] = nobody,
) -> Iterator[Any]:
    """Yield the results of `worker` over `items`; see `ctray.executors.protocol.Executor`.

    Items are taken only as fast as the caller takes results, so neither pile up. The pool grows
    from `min_size` to `max_size` actors while items wait, follows nodes that join or leave the
    cluster, and shrinks when no item waits.
    """
    first = list(itertools.islice(source := iter(items), 1))
    if not first:
        return
    check_capacity(config, on_wait)
    pool = _Pool(
        worker=worker,
        arguments=arguments,
        config=config,
        items=itertools.chain(first, source),
        patience=Patience(bundle=actor_bundle(config), on_wait=on_wait),
    )
    try:
        for result in pool.results():
            if isinstance(result, CtrayError):
                raise result
            yield result
    except RayError as error:
        raise own_error(error) or CtrayError(f"the pool failed: {last_line(error)}") from error
    finally:
        pool.close()


def check_capacity(config: PoolConfig, on_wait: Callable[[str], None] = nobody) -> None:
    """Raise a `CtrayError` that says what is missing if no node can hold a single actor.

    If an autoscaler adds nodes, waits for the first one and tells `on_wait` so.
    """
    if _nodes_capacity(config):
        return
    if autoscales():
        wanted = actor_bundle(config)
        if wait_for_room([wanted], on_wait=on_wait):
            return
        lower = "pool.num_cpus or pool.num_gpus"
        raise CtrayError(no_room("an actor of the pool", wanted, lower))
    for name, needed, remedy in (
        ("CPU", config.num_cpus, "lower pool.num_cpus or raise ray.num_cpus"),
        ("GPU", actor_gpus(config), "lower pool.num_gpus or add nodes with a GPU"),
    ):
        found = [node.get(name, 0.0) for node in _nodes()]
        if max(found, default=0.0) < needed:
            whole = sum(found)
            largest = f", {max(found):g} on its largest node" if len(found) > 1 else ""
            raise CtrayError(
                f"an actor of the pool needs {needed:g} {name}s and Ray has {whole:g}{largest}; "
                f"{remedy}"
            )
    raise CtrayError(
        f"no node has both the {config.num_cpus:g} CPUs and the {actor_gpus(config):g} GPUs that "
        "an actor of the pool needs; lower pool.num_cpus or pool.num_gpus"
    )


def _nodes_capacity(config: PoolConfig) -> int:
    """Return how many actors fit on the cluster's nodes if nothing else runs there."""
    return sum(
        min(int(node.get(name, 0.0) / n + 1e-9) for name, n in actor_bundle(config).items() if n)
        for node in _nodes()
    )


def pool_capacity(config: PoolConfig) -> int:
    """Return how many actors fit, or `max_size` if an autoscaler adds nodes."""
    # An autoscaler adds nodes only for actors that wait.
    return config.max_size if autoscales() else _nodes_capacity(config)


def actor_bundle(config: PoolConfig) -> dict[str, float]:
    """Return the logical resources of one actor."""
    return {"CPU": config.num_cpus, "GPU": actor_gpus(config)}


def actor_gpus(config: PoolConfig) -> float:
    """Return the GPUs of one actor: as configured, else a quarter if the cluster has any."""
    if config.num_gpus is not None:
        return config.num_gpus
    return 0.25 if cluster_gpus() else 0.0


def threads_per_actor(config: PoolConfig) -> int:
    """Return the threads of one actor, such that a full pool uses every CPU once."""
    if autoscales():
        # The actors run on other machines than the driver.
        return max(1, int(config.num_cpus))
    return pool_threads(config, cluster_cpus())


def _nodes() -> list[dict[str, float]]:
    """Return the logical resources of all nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
