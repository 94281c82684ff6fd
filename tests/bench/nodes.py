"""Rate of the pool by the number of nodes, on Ray's own cluster of several nodes on one machine.

    python -m tests.bench.nodes [--seconds 1] [--volumes 6] [--repeats 5]

Every volume is a sleep, and every node holds one actor, so that what is lost is what the pool
itself costs. Counted from when every actor has done a volume to the last one's end: starting the
processes costs the same once. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from ctray.config import PoolConfig
from ctray.executors.ray.pool import run_pool
from ctray.executors.ray.session import _QUIET
from tests.bench.measuring import machine, row, table_head

NODES = (1, 2, 4, 8)


class Sleeper:
    """Takes as long for every volume."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, item: int) -> int:
        time.sleep(self._seconds)
        return item


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="a volume")
    parser.add_argument("--volumes", type=int, default=6, help="a node, after its first")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Workers import this module by its name.
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    print(f"{machine()}, {options.seconds:g} s a volume\n")
    print(table_head("nodes", "volumes a second", "of so many times one node's"), flush=True)
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        os.environ["RAY_TMPDIR"] = folder
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            _measure(cluster, node, options.seconds, options.volumes, options.repeats)
        finally:
            ray.shutdown()
            cluster.shutdown()


def _measure(
    cluster: Cluster, node: dict[str, object], seconds: float, volumes: int, repeats: int
) -> None:
    one = 0.0
    for count in NODES:
        while len(cluster.list_all_nodes()) < count:
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        rates = [rate(count, seconds, volumes) for _ in range(repeats)]
        found = statistics.median(rates)
        one = one or found
        print(
            row(count, f"{found:.3f} ({min(rates):.3f} to {max(rates):.3f})", f"{found / one:.2f}"),
            flush=True,
        )


def rate(nodes: int, seconds: float, volumes: int) -> float:
    """Volumes a second with an actor on every node."""
    config = PoolConfig(min_size=nodes, max_size=nodes, num_cpus=1)
    began: dict[int, float] = {}
    for done, _ in enumerate(run_pool(Sleeper, (seconds,), range(10**6), config), start=1):
        now = time.monotonic()
        began.setdefault(done, now)
        if done == nodes * (volumes + 1):
            break
    return nodes * volumes / (now - began[nodes])


if __name__ == "__main__":
    main()
