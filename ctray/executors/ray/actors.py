"""One streaming loop over a pool of Ray actors that grows and shrinks between its limits.

Not Ray Data, whose blocks are of a size and many: here an item is a volume, of seconds or of hours.
What crosses a process boundary is an item one way and a small record back.
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
from ctray.executors.ray.causes import is_node_death, last_line, own_error
from ctray.executors.ray.room import Patience, autoscales, no_room, wait_for_room
from ctray.executors.ray.session import cluster_cpus, cluster_gpus
from ctray.executors.threads import pool_threads
from ctray.records.events import nobody

# A volume whose worker died this often takes its worker with it: too large, most likely.
_MAX_DEATHS = 2
# Deaths of the node that an item was on are not its fault, but they end somewhere.
_MAX_NODE_DEATHS = 5
# Actors that die before they are ready, one after another, are a fault of the cluster's.
_MAX_FAILED_STARTS = 3
# How often the limit of growth is asked for anew: nodes come and go.
_LIMIT_AGE_S = 5.0
_WAIT_S = 1.0


@dataclass(eq=False, kw_only=True, slots=True)
class _Item:
    """An item and how often its worker died of it, or its node."""

    value: Any
    deaths: int = 0
    node_deaths: int = 0


@dataclass(kw_only=True, slots=True)
class _Actor:
    """An actor: its handle, and what it works on, None while it starts or idles."""

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
        """Result of the worker for one item."""
        return self._worker(item)


@dataclass(kw_only=True, slots=True)
class _Pool:
    """Actors, the items that wait for them, and the answers that are awaited."""

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
        """Results in the order in which they are done."""
        while True:
            self._fill()
            # An actor that starts may wait for room for ever, and nobody needs it any more.
            if not any(a.item for a in self.awaited.values()) and not self._has_items():
                return
            done, _ = ray.wait(list(self.awaited), num_returns=1, timeout=_WAIT_S)
            if any(actor.ready for actor in self.awaited.values()) or done:
                self.patience.over()
            else:
                # All nodes are gone, or those that come are not there yet.
                self.patience.wait()
            for answer in done:
                yield from self._take(answer)

    def close(self) -> None:
        """End all actors, whatever they do."""
        for actor in (*self.awaited.values(), *self.idle):
            ray.kill(actor.handle)
        self.awaited.clear()
        self.idle.clear()

    def _fill(self) -> None:
        """Give every idle actor an item; grow while items wait, shrink when none do.

        An actor has one item at a time: what is in flight is bounded by the size of the pool, and
        which item a worker died of is known.
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
        # Those that start first: an autoscaler adds nodes for them, which would have nothing to do.
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
        """Item that waits; those whose worker died come last, so that they hold nobody up."""
        if self.first is None:
            return self.again.popleft()
        item, self.first = self.first, None
        return item

    def _may_grow(self) -> bool:
        """Whether another actor may start now.

        Beyond the smallest size no more start at once than work already: an actor takes seconds
        to start, in which a short job is done without it.
        """
        now = time.monotonic()
        if self.limit_from is None or now - self.limit_from >= _LIMIT_AGE_S:
            self.limit, self.limit_from = max(1, most_actors(self.config)), now
        starting = sum(not actor.ready for actor in self.awaited.values())
        at_once = max(self.config.min_size, self._size - starting)
        return self._size < min(self.limit, self.config.max_size) and starting < at_once

    def _start(self) -> None:
        options: dict[str, Any] = {"num_cpus": self.config.num_cpus, "max_restarts": 0}
        if gpus := actor_gpus(self.config):
            options["num_gpus"] = gpus
        # The process is called by its class: whoever looks at a node sees what it does.
        host = type(self.worker.__name__, (_Host,), {})
        handle = ray.remote(**options)(host).remote(self.worker, self.arguments)
        self.awaited[handle.ready.remote()] = _Actor(handle=handle)

    def _take(self, answer: Any) -> Iterator[Any]:
        """Result of an answer, if it has one; its actor idles then, or is gone."""
        actor = self.awaited.pop(answer)
        item, actor.item = actor.item, None
        try:
            result = ray.get(answer)
        except RayTaskError:
            self.idle.append(actor)
            raise
        except RayError as error:
            # One that is only out of reach may still write, and must not meet its successor.
            ray.kill(actor.handle)
            self._bury(item, error)
            return
        self.idle.append(actor)
        if item is None:
            actor.ready, self.failed_starts = True, 0
        else:
            yield result

    def _bury(self, item: _Item | None, error: RayError) -> None:
        """Give the item of a dead actor another chance, unless it has had its chances."""
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
    """Results of `worker` over `items`, in the order in which they are done.

    Items are taken one by one as actors come free, and no faster than results are asked for:
    neither items nor results pile up. The pool grows from `min_size` to `max_size` actors while
    items wait, follows nodes that join the cluster or leave it, and shrinks when no item waits.
    An item whose worker dies twice gives no result; the others go on.

    Parameters
    ----------
    worker
        Class of which every actor makes one, and calls it with an item at a time. A `CtrayError`
        that it returns or raises ends the run.
    arguments
        What it is made with.
    items
        Small records.
    config
        Limits of the pool, CPUs and GPUs of an actor.
    on_wait
        Called with a line now and then while no actor has a node to work on.

    Raises
    ------
    CtrayError
        If the cluster cannot hold a single actor, an actor cannot start, or the worker says so.
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
    """Raise `CtrayError` that says what is missing where no node can hold a single actor.

    Where an autoscaler adds nodes, waits for the first one, and tells `on_wait` of it.
    """
    if capacity(config):
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


def capacity(config: PoolConfig) -> int:
    """Actors that the cluster's nodes can hold at once, were nothing else to run on them."""
    return sum(
        min(int(node.get(name, 0.0) / n + 1e-9) for name, n in actor_bundle(config).items() if n)
        for node in _nodes()
    )


def most_actors(config: PoolConfig) -> int:
    """Actors that there is room for; where an autoscaler adds nodes, those that are asked for."""
    # An autoscaler adds nodes for actors that wait for room, and for nothing else.
    return config.max_size if autoscales() else capacity(config)


def actor_bundle(config: PoolConfig) -> dict[str, float]:
    """Logical resources of one actor."""
    return {"CPU": config.num_cpus, "GPU": actor_gpus(config)}


def actor_gpus(config: PoolConfig) -> float:
    """GPUs of one actor: as configured, else a quarter where the cluster has any."""
    if config.num_gpus is not None:
        return config.num_gpus
    return 0.25 if cluster_gpus() else 0.0


def threads_per_actor(config: PoolConfig) -> int:
    """Threads that one actor computes with, so that a full pool uses the machine once."""
    if autoscales():
        # The driver's machine is not the actors'.
        return max(1, int(config.num_cpus))
    return pool_threads(config, cluster_cpus())


def _nodes() -> list[dict[str, float]]:
    """Logical resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
