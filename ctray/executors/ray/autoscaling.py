"""Waits for nodes of a cluster whose autoscaler adds them.

Such a cluster may have no node at all when a job begins. Current nodes say nothing about capacity;
only the autoscaler knows what it can add.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group

from ctray.records.events import nobody

Bundle = dict[str, float]

# A compiled module without type hints for these names.
_raylet: Any = ray._raylet

_POLL_S = 1.0
# The autoscaler looks every few seconds, so a first refusal can be out of date.
_REFUSALS = 3
# When the first line about waiting comes, and how often it is repeated.
_FIRST_S, _EVERY_S = 10.0, 30.0


def autoscales() -> bool:
    """Whether an autoscaler adds nodes to the cluster of this session when work waits."""
    enabled = _internal_kv_get(
        _raylet.GCS_AUTOSCALER_V2_ENABLED_KEY, namespace=_raylet.GCS_AUTOSCALER_STATE_NAMESPACE
    )
    return bool(enabled == b"1")


@dataclass(kw_only=True, slots=True)
class Patience:
    """Reports now and then what a job waits for, so that it does not look dead.

    Parameters
    ----------
    bundle
        Logical resources that must be found on one node.
    on_wait
        Called with a line, first after `_FIRST_S` and then every `_EVERY_S`.
    count
        Number of such bundles that are needed at the same time.
    ready
        Line after the wait, if the wait was reported.
    clock
        Returns seconds since any moment.
    """

    bundle: Bundle
    on_wait: Callable[[str], None]
    count: int = 1
    ready: str = "Ray workers are ready"
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)
    _said: float | None = field(default=None, init=False)

    def wait(self) -> None:
        """Note that the wait goes on; reports it if it is time to."""
        now = self.clock()
        if self._since is None:
            self._since = now
        due = self._since + _FIRST_S if self._said is None else self._said + _EVERY_S
        if now >= due:
            self._said = now
            self.on_wait(f"{_what(self.bundle, self.count)}, {now - self._since:.0f} s so far")

    def over(self) -> None:
        """Note that the wait is over; reports it if the wait was reported."""
        told, self._since, self._said = self._said is not None, None, None
        if told:
            self.on_wait(self.ready)


def no_room(who: str, bundle: Bundle, settings: str, count: int = 1) -> str:
    """Return the error for a need that no node can meet: who, what, and which settings to lower."""
    return (
        f"{who} needs {_amounts(bundle, count)}, and no node group of the cluster is large "
        f"enough; lower {settings}, or add such a node group"
    )


def _amounts(bundle: Bundle, count: int) -> str:
    parts = [f"{n:g} {name}{'' if n == 1 else 's'}" for name, n in bundle.items() if n]
    return f"{count} times " * (count > 1) + " and ".join(parts)


def _what(bundle: Bundle, count: int) -> str:
    needed = _amounts(bundle, count)
    if count > 1:
        return f"waiting for room for {needed}"
    if not _fits_a_node(bundle):
        return f"waiting for the cluster to add a node with {needed}"
    return f"waiting for a process with {needed} to start"


def wait_for_room(
    bundles: Sequence[Bundle],
    refused: Callable[[Bundle], bool] | None = None,
    on_wait: Callable[[str], None] = nobody,
) -> bool:
    """Wait until all `bundles` fit on nodes at the same time; False if they never will.

    Added nodes stay for the autoscaler's idle time. The caller must start its work in that time.

    Parameters
    ----------
    bundles
        Logical resources; each must fit on one node.
    refused
        Returns whether the autoscaler can add no node for a bundle; None asks the autoscaler.
    on_wait
        Called with a line now and then during the wait.
    """
    refused = refused or _is_refused
    wanted = [{name: n for name, n in bundle.items() if n} for bundle in bundles]
    group = placement_group(wanted, strategy="PACK")
    refusals = 0
    patience = Patience(
        bundle=wanted[0],
        count=len(wanted),
        on_wait=on_wait,
        ready="the cluster has room",
    )
    try:
        ready = group.ready()
        while True:
            done, _ = ray.wait([ready], timeout=_POLL_S)
            if done:
                patience.over()
                return True
            patience.wait()
            # Busy nodes become free. Only a bundle that fits on no node is hopeless.
            hopeless = [b for b in wanted if not _fits_a_node(b)]
            refusals = refusals + 1 if any(refused(b) for b in hopeless) else 0
            if refusals >= _REFUSALS:
                return False
            time.sleep(_POLL_S)
    finally:
        remove_placement_group(group)


def _fits_a_node(bundle: Bundle) -> bool:
    return any(
        all(node["Resources"].get(name, 0.0) >= n for name, n in bundle.items())
        for node in ray.nodes()
        if node["Alive"]
    )


def _is_refused(bundle: Bundle) -> bool:
    """Whether the autoscaler reports that it has no node type for a bundle."""
    address = ray.get_runtime_context().gcs_address
    reply = GetClusterStatusReply()
    reply.ParseFromString(_raylet.GcsClient(address=address).get_cluster_status())
    state: Any = reply.autoscaling_state
    refused = [r for gang in state.infeasible_gang_resource_requests for r in gang.requests]
    refused += state.infeasible_resource_requests
    return any(_same(dict(r.resources_bundle), bundle) for r in refused)


def _same(theirs: Bundle, ours: Bundle) -> bool:
    """Whether a request is for a bundle. Ray adds its own marks to requests of a group."""
    marks = {"bundle_group", "node:"}
    plain = {k: v for k, v in theirs.items() if not any(k.startswith(m) for m in marks)}
    return plain.keys() == ours.keys() and all(abs(plain[k] - ours[k]) < 1e-6 for k in ours)
