"""What `test_k8s_autoscaler` looks at: `python scale_fake_nodes.py RAYCLUSTER.json FOLDER`.

A process of its own, since the one of the tests may already be a driver of another Ray session.
Prints one JSON document; FOLDER is empty and its path short, since sockets live in it.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Read when Ray is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

import ray
from fake_nodes import FakeCluster

PATIENCE_S = 120
READERS, LOCALIZERS = 3, 4


def workers() -> dict[str, int]:
    """Nodes beside the head, by their CPUs and GPUs."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    beside = [has for has in found if "node:__internal_head__" not in has]
    return dict(Counter(f"{has.get('CPU', 0):g} CPU {has.get('GPU', 0):g} GPU" for has in beside))


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            sys.exit(f"nodes after {PATIENCE_S} s: {workers()}")
        time.sleep(0.3)


class Actor:
    """Work that holds its node."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def scale() -> dict[str, object]:
    """Ask for more than there may be, and let go."""
    seen: dict[str, object] = {"at first": workers()}
    head_cpus = [n["Resources"].get("CPU", 0) for n in ray.nodes()]
    seen["CPUs of the head"] = head_cpus[0]
    # Each as large as a CPU node, and one more than there may be of them.
    readers = [ray.remote(Actor).options(num_cpus=8).remote() for _ in range(READERS)]
    # As ctray's actors share a GPU.
    share = {"num_cpus": 1, "num_gpus": 1 / LOCALIZERS}
    localizers = [ray.remote(Actor).options(**share).remote() for _ in range(LOCALIZERS)]
    places = ray.get([actor.node.remote() for actor in localizers], timeout=PATIENCE_S)
    seen["nodes of the localizers"] = len(set(places))
    ready, waiting = ray.wait(
        [actor.node.remote() for actor in readers], num_returns=READERS - 1, timeout=PATIENCE_S
    )
    seen["nodes of the readers"] = len(set(ray.get(ready)))
    seen["readers that wait"] = len(waiting)
    seen["at most"] = workers()
    del readers, localizers, ready, waiting
    wait_until(lambda: not workers())
    seen["at last"] = workers()
    return seen


def connect(head: FakeCluster) -> None:
    """Become a driver; a head on a busy machine takes longer to start than Ray waits for it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            ray.init(address=head.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError):
            ray.shutdown()
            head.check()
            if time.monotonic() > deadline:
                raise
        else:
            return


def main() -> None:
    cluster, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    head = FakeCluster(cluster, folder, idle_s=4)
    try:
        connect(head)
        print(json.dumps(scale()))
    finally:
        ray.shutdown()
        head.stop()


if __name__ == "__main__":
    main()
