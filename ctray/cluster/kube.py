"""Jobs on Kubernetes: a KubeRay RayJob gives one job its own cluster."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ctray.cluster.orders import JOB_ID, SETTINGS, Order, job_id, make_order
from ctray.config import KubeConfig, RunConfig
from ctray.core.errors import ConfigError, JobError, one_line
from ctray.core.version import __version__

Manifest = dict[str, Any]

_TEMPLATE = Path(__file__).with_name("rayjob.yaml")
# Longest name of a RayJob in KubeRay.
LONGEST_NAME = 47
_ENDED = ("Complete", "Failed")
_RUN_LABEL = "ctray/run"
# Disk of a node for logs and temporary files, besides spilled objects.
_DISK_BESIDE_SPILL_GIB = 20
# Few CPUs on a node with a GPU, so that work without GPUs does not keep the node busy.
_CPUS_PER_GPU_NODE = 4


def render(name: str, config: RunConfig, number: int = 1) -> Manifest:
    """Return the RayJob for the job `name` as plain values.

    Parameters
    ----------
    name
        archive, pretrain or localize.
    config
        With `job` and `kube`.
    number
        Number of the job within its run. Kubernetes needs a unique name, which follows from both.

    Raises
    ------
    ConfigError
        If the job needs GPUs and no group of nodes has them, or if there are no nodes.
    """
    config = _with_gpus(config)
    order, kube = make_order(name, config), config.kube
    base, own = job_id(order.run), job_id(order.run, number)
    assert len(own) <= LONGEST_NAME
    manifest: Manifest = yaml.safe_load(_TEMPLATE.read_text(encoding="utf-8"))
    manifest = json.loads(json.dumps(manifest))  # no two places share a mapping
    metadata, spec = manifest["metadata"], manifest["spec"]
    metadata |= {"name": own, "namespace": kube.namespace}
    metadata["labels"][_RUN_LABEL] = base
    metadata["annotations"] = {"ctray/run": order.run, "ctray/version": __version__}
    spec |= {
        # Exit code 3 counts as success: a retry would not repair the failed volumes. In quotes,
        # because KubeRay passes this to a shell.
        "entrypoint": f"bash -c '{order.entrypoint} || [ $? -eq 3 ]'",
        "jobId": own,
        "metadata": {"ctray": __version__, "job": order.name, "run": order.run},
        "activeDeadlineSeconds": kube.max_hours * 3600,
    }
    submitter = spec["submitterPodTemplate"]["spec"]["containers"][0]
    submitter["image"] = _image(kube)
    _fill_cluster(spec["rayClusterSpec"], order, kube, own)
    return manifest


def to_yaml(manifest: Manifest) -> str:
    """Return a manifest as YAML text."""
    return yaml.safe_dump(manifest, sort_keys=False, width=100)


def apply(name: str, config: RunConfig) -> Manifest:
    """Create the RayJob with kubectl, unless a job of the same run has not ended.

    Raises
    ------
    JobError
        If such a job exists, or kubectl fails.
    """
    first = render(name, config)
    namespace, base = config.kube.namespace, first["metadata"]["name"]
    found = _kubectl("get", "rayjobs.ray.io", "-n", namespace, "-l", f"{_RUN_LABEL}={base}")
    number = 1
    for job in json.loads(found or "{}").get("items", []):
        theirs = str(job["metadata"]["name"])
        state = job.get("status", {}).get("jobDeploymentStatus") or "new"
        if state not in _ENDED:
            run = first["metadata"]["annotations"]["ctray/run"]
            raise JobError(
                f"{theirs} is {state.lower()} and works on {run}; follow it with kubectl -n "
                f"{namespace} get rayjob {theirs} --watch, or stop it with kubectl -n "
                f"{namespace} delete rayjob {theirs}"
            )
        earlier = re.fullmatch(rf"{base}-(\d+)", theirs)
        number = max(number, (int(earlier[1]) if earlier else 1) + 1)
    manifest = render(name, config, number)
    # Not `kubectl apply`: it would change a job that someone else just created.
    _kubectl("create", "-f", "-", manifest=manifest)
    return manifest


def _kubectl(*arguments: str, manifest: Manifest | None = None) -> str:
    """Return the JSON output of kubectl."""
    try:
        done = subprocess.run(
            ["kubectl", *arguments, "-o", "json"],
            input=None if manifest is None else to_yaml(manifest),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise JobError(
            "kubectl cannot be run; install it, or leave out --apply and create the printed RayJob "
            "on a machine that has kubectl"
        ) from error
    if done.returncode:
        raise JobError(f"kubectl {arguments[0]}: {one_line(Exception(done.stderr))}")
    return done.stdout


def _with_gpus(config: RunConfig) -> RunConfig:
    """Return `config` with explicit numbers of GPUs, because the cluster starts without nodes."""
    kube, train, pool = config.kube, config.train, config.pool
    if not kube.cpu_nodes and not kube.gpu_nodes:
        raise ConfigError("the cluster has no nodes; raise kube.cpu_nodes or kube.gpu_nodes")
    wanted = {
        "train.num_gpus_per_worker": train.num_gpus_per_worker,
        "pool.num_gpus": pool.num_gpus,
    }
    if not kube.gpu_nodes:
        for key, number in wanted.items():
            if number:
                raise ConfigError(
                    f"{key} is {number:g} and no node has a GPU; raise kube.gpu_nodes, or set "
                    f"{key} to 0"
                )
    usual = {"train.num_gpus_per_worker": 1, "pool.num_gpus": 0.25} if kube.gpu_nodes else {}
    missing = [f"{k}={usual.get(k, 0)}" for k, number in wanted.items() if number is None]
    given = config.model_dump(mode="json", exclude_unset=True)
    for item in missing:
        key, _, value = item.partition("=")
        section, _, field = key.partition(".")
        given.setdefault(section, {})[field] = float(value)
    return RunConfig.model_validate(given)


def _fill_cluster(spec: Manifest, order: Order, kube: KubeConfig, own: str) -> None:
    spec["rayVersion"] = version("ray")
    head = spec["headGroupSpec"]["template"]
    head["metadata"]["labels"]["app.kubernetes.io/instance"] = own
    container = head["spec"]["containers"][0]
    container["image"] = _image(kube)
    container["envFrom"] = _environment(kube)
    settings = {SETTINGS: order.settings, JOB_ID: own}
    container["env"] = [{"name": k, "value": v} for k, v in {**order.env, **settings}.items()]
    group = spec["workerGroupSpecs"].pop()
    if kube.cpu_nodes:
        spec["workerGroupSpecs"].append(_cpu_group(copy.deepcopy(group), order, kube))
    if kube.gpu_nodes:
        spec["workerGroupSpecs"].append(_gpu_group(copy.deepcopy(group), order, kube))


def _cpu_group(group: Manifest, order: Order, kube: KubeConfig) -> Manifest:
    resources = {"cpu": str(kube.cpu_node_cpus), "memory": f"{kube.cpu_node_memory_gib}Gi"}
    return _filled(
        {"groupName": "cpu", **group}, kube.cpu_nodes, _image(kube), resources, order, kube
    )


def _gpu_group(group: Manifest, order: Order, kube: KubeConfig) -> Manifest:
    cpus = min(_CPUS_PER_GPU_NODE, kube.gpu_node_cpus) if kube.cpu_nodes else kube.gpu_node_cpus
    group["rayStartParams"] |= {"num-cpus": str(cpus), "num-gpus": "1"}
    group["idleTimeoutSeconds"] = 300
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    group["template"]["spec"]["tolerations"].insert(0, gpu)
    resources = {
        "cpu": str(kube.gpu_node_cpus),
        "memory": f"{kube.gpu_node_memory_gib}Gi",
        "nvidia.com/gpu": "1",
    }
    image = kube.gpu_image or f"ctray:{__version__}-gpu"
    group = {"groupName": "gpu", **group}
    return _filled(group, kube.gpu_nodes, image, resources, order, kube)


def _filled(
    group: Manifest,
    nodes: int,
    image: str,
    resources: dict[str, str],
    order: Order,
    kube: KubeConfig,
) -> Manifest:
    group["maxReplicas"] = nodes
    spec = group["template"]["spec"]
    whole = {**resources, "ephemeral-storage": f"{kube.spill_gib + _DISK_BESIDE_SPILL_GIB}Gi"}
    container = spec["containers"][0]
    container |= {
        "image": image,
        "envFrom": _environment(kube),
        "resources": {"requests": dict(whole), "limits": dict(whole)},
    }
    if order.env:
        container["env"] = [{"name": k, "value": v} for k, v in order.env.items()]
    spec["volumes"][1]["emptyDir"]["sizeLimit"] = f"{kube.spill_gib}Gi"
    return group


def _environment(kube: KubeConfig) -> list[Manifest]:
    """Return the variables of every node. Each source may be missing."""
    return [
        {"configMapRef": {"name": "ctray-environment", "optional": True}},
        {"secretRef": {"name": kube.keys_from, "optional": True}},
    ]


def _image(kube: KubeConfig) -> str:
    return kube.image or f"ctray:{__version__}-cpu"
