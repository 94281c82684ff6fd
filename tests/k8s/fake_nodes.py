"""Ray's own autoscaler over the node types of a RayCluster, with nodes that are only processes.

The configuration is what KubeRay's autoscaler derives from the RayCluster; its provider is replaced
by Ray's fake one, which starts a raylet for every node on this machine.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive_config,
)
from ray_head import RayHead, free_port, ray_head

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
# The fake provider knows its head by this name alone.
HEAD_TYPE = "ray.head.default"
OBJECT_STORE_BYTES = 80 * 2**20


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


@contextmanager
def fake_cluster(
    cluster: dict[str, Any], folder: Path, idle_s: float, environment: Mapping[str, str]
) -> Iterator[RayHead]:
    """Start the head of a RayCluster with the autoscaler, and end both and all nodes."""
    port = free_port()
    path = folder / "autoscaler.json"
    path.write_text(json.dumps(fake_config(cluster, port, idle_s)), encoding="utf-8")
    variables = {
        **environment,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        # A node that dies is known to have died after 3 s.
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "6",
    }
    num_cpus = int(cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"])
    config = f"--autoscaling-config={path}"
    with ray_head(config, num_cpus=num_cpus, environment=variables, port=port) as head:
        yield head
