"""Ray's own autoscaler over the node types of a RayCluster, with nodes that are only processes.

The configuration is what KubeRay's autoscaler derives from the RayCluster; its provider is replaced
by Ray's fake one, which starts a raylet for every node on this machine.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive_config,
)

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
# The fake provider knows its head by this name alone.
HEAD_TYPE = "ray.head.default"
OBJECT_STORE_BYTES = 80 * 2**20


def free_port() -> int:
    """A port of this machine that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fake_config(cluster: dict[str, Any], port: int, idle_s: float) -> dict[str, Any]:
    """What the autoscaler reads: KubeRay's node types, and the fake provider.

    Memory is left out and times are short: the nodes share this machine. All else, groups, limits
    and logical resources, is as the RayCluster says.
    """
    config = derive_config(copy.deepcopy(cluster))
    types = config["available_node_types"]
    for node_type in types.values():
        node_type["resources"].pop("memory", None)
        node_type["resources"]["object_store_memory"] = OBJECT_STORE_BYTES
        if "idle_timeout_s" in node_type:
            node_type["idle_timeout_s"] = idle_s
    types[HEAD_TYPE] = types.pop(config["head_node_type"])
    config["head_node_type"] = HEAD_TYPE
    config["idle_timeout_minutes"] = idle_s / 60
    config["provider"] = {
        "type": "external",
        "module": PROVIDER,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "gcs_address": f"127.0.0.1:{port}",
    }
    return dict(config)


class FakeCluster:
    """A head with the autoscaler in a session folder of its own; ended by its own process ids."""

    def __init__(self, cluster: dict[str, Any], folder: Path, idle_s: float) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        path = folder / "autoscaler.json"
        path.write_text(json.dumps(fake_config(cluster, port, idle_s)))
        head = cluster["spec"]["headGroupSpec"]["rayStartParams"]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start"),
            *("--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"),
            *(f"--num-cpus={head['num-cpus']}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *("--include-dashboard=false", f"--ray-client-server-port={free_port()}"),
            *(f"--autoscaling-config={path}", f"--temp-dir={folder}", "--disable-usage-stats"),
        ]
        environment = {
            **os.environ,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        self._log = folder / "head.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_head(port)

    def _await_head(self, port: int) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                self.check()
                if time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.2)
            else:
                return

    def check(self) -> None:
        """Raise `AssertionError` with the head's last words where it has ended."""
        if self._process.poll() is not None:
            self.stop()
            raise AssertionError(self._log.read_text()[-2000:])

    def stop(self) -> None:
        """End the head and all that it started: they are one session of processes."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
