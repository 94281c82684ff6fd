"""Every overlay keeps the rules of `k8s_rules`, and each rule finds what breaks it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from k8s_rules import amount, cluster_spec, findings, templates

import ctray
from ctray.config import RunConfig, parse_config

REPOSITORY = Path(__file__).resolve().parents[2]
Document = dict[str, Any]
Change = Callable[[dict[str, Document]], object]


def by_name(documents: list[Document]) -> dict[str, Document]:
    return {f"{d['kind']}/{d['metadata']['name']}": d for d in documents}


def test_overlays_keep_the_rules(documents: list[Document]) -> None:
    assert findings(documents) == []


def head(named: Mapping[str, Document]) -> Any:
    return named["RayCluster/ctray"]["spec"]["headGroupSpec"]


def worker(named: Mapping[str, Document]) -> Any:
    return named["RayCluster/ctray"]["spec"]["workerGroupSpecs"][0]


def pod(group: Document) -> Any:
    return group["template"]["spec"]


def container(group: Document) -> Any:
    return pod(group)["containers"][0]


def put(mapping: Document, key: str, value: Any) -> None:
    mapping[key] = value


BREAKS: dict[str, Change] = {
    "may run as root": lambda d: pod(worker(d))["securityContext"].pop("runAsNonRoot"),
    "no seccomp profile": lambda d: pod(head(d))["securityContext"].pop("seccompProfile"),
    "is the node's own folder": lambda d: pod(worker(d))["volumes"].append(
        {"name": "disk", "hostPath": {"path": "/data"}}
    ),
    "has no limit": lambda d: pod(worker(d))["volumes"][1]["emptyDir"].clear(),
    "gets a token of the API server": lambda d: put(
        d["RayJob/ctray-archive"]["spec"]["submitterPodTemplate"]["spec"],
        "automountServiceAccountToken",
        True,
    ),
    "may gain privileges": lambda d: container(head(d))["securityContext"].pop(
        "allowPrivilegeEscalation"
    ),
    "root file system can be written": lambda d: put(
        container(worker(d))["securityContext"], "readOnlyRootFilesystem", False
    ),
    "keeps capabilities": lambda d: container(worker(d))["securityContext"].pop("capabilities"),
    "AWS_SECRET_ACCESS_KEY stands in the manifest": lambda d: d["CronJob/ctray-nightly"]["spec"][
        "jobTemplate"
    ]["spec"]["template"]["spec"]["containers"][0].setdefault(
        "env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]
    ),
    "memory 32Gi asked for, up to 64Gi": lambda d: put(
        container(worker(d))["resources"]["limits"], "memory", "64Gi"
    ),
    "cpu 8 asked for, up to 9": lambda d: put(
        container(worker(d))["resources"]["limits"], "cpu", "9"
    ),
    "more than its limit of ephemeral-storage": lambda d: put(
        pod(worker(d))["volumes"][1]["emptyDir"], "sizeLimit", "90Gi"
    ),
    "has no version": lambda d: put(
        d["StatefulSet/ctray-redis"]["spec"]["template"]["spec"]["containers"][0], "image", "redis"
    ),
    "has no maxReplicas": lambda d: worker(d).pop("maxReplicas"),
    "does not begin at 0": lambda d: put(worker(d), "minReplicas", 1),
    "autoscaler is not v2": lambda d: put(
        d["RayJob/ctray-archive"]["spec"]["rayClusterSpec"]["autoscalerOptions"], "version", "v1"
    ),
    "the head takes work": lambda d: head(d)["rayStartParams"].pop("num-cpus"),
    "Ray asks for no token": lambda d: d["RayCluster/ctray"]["spec"].pop("authOptions"),
    "the head is offered outside": lambda d: put(head(d), "serviceType", "LoadBalancer"),
    "nothing to write to at /spill": lambda d: container(worker(d))["volumeMounts"].pop(1),
    "nothing to write to at /tmp": lambda d: container(head(d))["volumeMounts"].pop(0),
    "do not come from the Secret ctray-s3": lambda d: container(worker(d))["envFrom"].pop(),
    "does not take spot nodes": lambda d: pod(worker(d))["tolerations"].clear(),
    "restartPolicy is not Never": lambda d: put(pod(head(d)), "restartPolicy", "Always"),
    "looks like a key": lambda d: put(
        d["ConfigMap/ctray-environment"]["data"], "AWS_SECRET_ACCESS_KEY", "x"
    ),
    "a Secret with values": lambda d: put(d["Service/ctray-redis"], "kind", "Secret"),
    "no ServiceAccount ctray/nobody": lambda d: put(
        d["RoleBinding/ctray-nightly"]["subjects"][0], "name", "nobody"
    ),
    "no ConfigMap ctray-settings": lambda d: put(
        d["CronJob/ctray-nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"][0],
        "configMap",
        {"name": "ctray-settings"},
    ),
    "not in the namespace ctray": lambda d: put(
        d["NetworkPolicy/ctray-ray"]["metadata"], "namespace", "default"
    ),
}


@pytest.mark.parametrize("expected", BREAKS)
def test_a_rule_finds_what_breaks_it(build: Callable[[str], list[Document]], expected: str) -> None:
    documents = build("overlays/cpu")
    assert findings(documents) == []
    BREAKS[expected](by_name(documents))
    found = findings(documents)
    assert found
    assert all(expected in finding for finding in found)


def test_cpu_and_gpu_are_groups_of_their_own(build: Callable[[str], list[Document]]) -> None:
    groups = {
        overlay: {
            g["groupName"]: container(g)["resources"]["limits"].get("nvidia.com/gpu")
            for g in by_name(build(f"overlays/{overlay}"))["RayCluster/ctray"]["spec"][
                "workerGroupSpecs"
            ]
        }
        for overlay in ("cpu", "gpu", "dev")
    }
    assert groups == {"cpu": {"cpu": None}, "gpu": {"cpu": None, "gpu": "1"}, "dev": {"cpu": None}}


def test_the_job_runs_on_the_cluster_of_the_overlay(documents: list[Document]) -> None:
    named = by_name(documents)
    cluster = cluster_spec(named["RayCluster/ctray"])
    job = cluster_spec(named["RayJob/ctray-archive"])
    assert cluster is not None
    assert job is not None
    specimen = "app.kubernetes.io/instance"
    assert job["headGroupSpec"]["template"]["metadata"]["labels"].pop(specimen) == "ctray-archive"
    assert cluster["headGroupSpec"]["template"]["metadata"]["labels"].pop(specimen) == "ctray"
    assert job == cluster


def test_the_job_ends_and_is_begun_again_on_purpose(documents: list[Document]) -> None:
    job = by_name(documents)["RayJob/ctray-archive"]["spec"]
    assert {"backoffLimit"} <= job.keys()
    assert job["submitterConfig"] == {"backoffLimit": 0}
    # What is suspended must give its cluster back: the operator refuses it otherwise.
    assert job["suspend"] is True
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert 0 < job["activeDeadlineSeconds"] < 24 * 3600


def config_of(documents: list[Document]) -> RunConfig:
    text = by_name(documents)["ConfigMap/ctray-configs"]["data"]["archive.yaml"]
    return parse_config(yaml.safe_load(text))


def entrypoint_of(documents: list[Document]) -> str:
    return str(by_name(documents)["RayJob/ctray-archive"]["spec"]["entrypoint"])


def test_what_the_job_runs_is_in_the_image(documents: list[Document]) -> None:
    bash, option, line = shlex.split(entrypoint_of(documents))
    assert (bash, option) == ("bash", "-c")
    command, rest = line.split(" || ")
    assert rest == "[ $? -eq 3 ]"
    python, script, config, archive, run = command.split()
    assert python == "python"
    assert (REPOSITORY / "jobs" / script.removeprefix("/opt/ctray/jobs/")).is_file()
    assert config == "/etc/ctray/archive.yaml"
    assert archive.startswith("s3://")
    assert run.startswith("s3://")


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 0), (1, 1), (2, 1)])
def test_failed_volumes_fail_no_job(
    build: Callable[[str], list[Document]], tmp_path: Path, status: int, expected: int
) -> None:
    entrypoint = entrypoint_of(build("overlays/cpu"))
    # KubeRay writes the entrypoint into a shell's command; `ray job submit` joins the words that it
    # gets from there, and the cluster gives the line to a shell again.
    submit = f'{sys.executable} -c "import shlex, sys; print(shlex.join(sys.argv[1:]))"'
    joined = subprocess.run(
        ["bash", "-ce", "--", f"{submit} {entrypoint} ;"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$#" = 4 ] && exit {status}\nexit 9\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(joined, shell=True, env=environment, check=False)  # noqa: S602
    assert done.returncode == expected


def test_the_configuration_fits_the_cluster(documents: list[Document]) -> None:
    config = config_of(documents)
    assert config.ray.address == "auto"
    groups = by_name(documents)["RayCluster/ctray"]["spec"]["workerGroupSpecs"]
    per_actor = {"cpu": config.pool.num_cpus, "nvidia.com/gpu": config.pool.num_gpus}
    assert per_actor["nvidia.com/gpu"] is not None
    room = 0
    for group in groups:
        limits = container(group)["resources"]["limits"]
        has = {
            "cpu": float(group["rayStartParams"].get("num-cpus", limits["cpu"])),
            "nvidia.com/gpu": float(limits.get("nvidia.com/gpu", 0)),
        }
        each = min(int(has[name] / need) for name, need in per_actor.items() if need)
        room += group["maxReplicas"] * each
    assert config.pool.max_size <= room
    gpus = any("nvidia.com/gpu" in container(g)["resources"]["limits"] for g in groups)
    assert (config.train.num_gpus_per_worker == 1) is gpus


def test_a_head_that_restarts_finds_its_state(build: Callable[[str], list[Document]]) -> None:
    for overlay in ("cpu", "gpu"):
        named = by_name(build(f"overlays/{overlay}"))
        options = named["RayCluster/ctray"]["spec"]["gcsFaultToleranceOptions"]
        service, port = options["redisAddress"].split(":")
        (ports,) = named[f"Service/{service}"]["spec"]["ports"]
        assert ports["port"] == int(port)
        assert options["redisPassword"].keys() == {"valueFrom"}
        # A stated one would be shared by the RayCluster and every job.
        assert "externalStorageNamespace" not in options
    dev = by_name(build("overlays/dev"))
    assert "gcsFaultToleranceOptions" not in dev["RayCluster/ctray"]["spec"]
    assert not any(name.endswith("/ctray-redis") and "Policy" not in name for name in dev)


def test_a_budget_holds_each_head_and_no_worker(documents: list[Document]) -> None:
    budgets = [d["spec"] for d in documents if d["kind"] == "PodDisruptionBudget"]
    pods = {
        name: template["metadata"]["labels"]
        for document in documents
        if cluster_spec(document) is not None
        for name, template in templates(document)
    }
    held = [
        [name for name, labels in pods.items() if selects(budget["selector"], labels)]
        for budget in budgets
    ]
    assert sorted(held) == [["RayCluster/ctray head"], ["RayJob/ctray-archive head"]]
    # Kubernetes counts no percentages of pods that no controller of its own made.
    assert [budget["minAvailable"] for budget in budgets] == [1, 1]


def selects(selector: Document, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def may_call(
    documents: list[Document],
    pod_labels: Mapping[str, str],
    port: int,
    caller: Mapping[str, str],
    namespace: Mapping[str, str],
) -> bool:
    """Whether the NetworkPolicies let a caller in, as Kubernetes defines them."""
    own = {"kubernetes.io/metadata.name": documents[0]["metadata"]["name"]}
    policies = [d["spec"] for d in documents if d["kind"] == "NetworkPolicy"]
    policies = [p for p in policies if selects(p["podSelector"], pod_labels)]
    if not policies:
        return True
    for rule in (rule for policy in policies for rule in policy.get("ingress", [])):
        if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
            continue
        for peer in rule["from"]:
            where = peer.get("namespaceSelector", {"matchLabels": own})
            if selects(where, namespace) and selects(peer.get("podSelector", {}), caller):
                return True
    return False


RAY_NODE = {"ray.io/is-ray-node": "yes"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
SUBMITTER = {"app.kubernetes.io/component": "submitter"}
RAY_PORTS = (6379, 8265, 10001, 8080, 52365, 11000)


@pytest.mark.parametrize(
    ("caller", "namespace", "ports"),
    [
        (RAY_NODE, None, RAY_PORTS),
        (RAY_NODE, "elsewhere", ()),
        (SUBMITTER, None, (8265,)),
        (SUBMITTER, "elsewhere", ()),
        (OPERATOR, "operators", (8265,)),
        ({"app": "prometheus"}, "monitoring", (8080,)),
        ({"app": "notebook"}, "elsewhere", ()),
        ({"app": "notebook"}, None, ()),
    ],
)
def test_ray_is_open_to_its_own_alone(
    documents: list[Document],
    caller: Mapping[str, str],
    namespace: str | None,
    ports: tuple[int, ...],
) -> None:
    own = documents[0]["metadata"]["name"]
    where = {"kubernetes.io/metadata.name": namespace or own}
    reached = [p for p in RAY_PORTS if may_call(documents, RAY_NODE, p, caller, where)]
    assert reached == list(ports)


def test_the_store_of_the_head_is_open_to_its_namespace_alone(
    build: Callable[[str], list[Document]],
) -> None:
    documents = build("overlays/cpu")
    named = by_name(documents)
    labels = named["StatefulSet/ctray-redis"]["spec"]["template"]["metadata"]["labels"]
    for namespace, allowed in (("ctray", True), ("elsewhere", False)):
        where = {"kubernetes.io/metadata.name": namespace}
        assert may_call(documents, labels, 6379, RAY_NODE, where) is allowed


def test_the_nightly_job_may_do_what_it_does_and_no_more(documents: list[Document]) -> None:
    named = by_name(documents)
    (rule,) = named["Role/ctray-nightly"]["rules"]
    assert rule == {
        "apiGroups": ["ray.io"],
        "resources": ["rayjobs"],
        "verbs": ["get", "list", "create", "delete"],
    }
    nights = named["CronJob/ctray-nightly"]["spec"]
    assert nights["concurrencyPolicy"] == "Forbid"
    (job,) = nights["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert f"RayJob/{job['command'][2]}" in named


def test_quantities() -> None:
    assert amount("1500m") == amount("1.5")
    assert amount("1Gi") == amount("1024Mi") == 2**30


def test_the_overlay_of_the_readme_builds(
    tmp_path: Path,
    kustomize: Callable[[Path], list[Document]],
    build: Callable[[str], list[Document]],
) -> None:
    readme = (REPOSITORY / "k8s" / "README.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    # kustomize takes no absolute paths.
    above = os.path.relpath(REPOSITORY, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(textwrap.dedent(text).replace("PATH", above))
    documents = kustomize(tmp_path)
    assert findings(documents) == []
    named = by_name(documents)
    images = {
        box["image"]
        for document in documents
        for _, template in templates(document)
        for box in template["spec"]["containers"]
    }
    assert {image for image in images if not image.startswith("redis:")} == {
        f"REGISTRY/ctray:{ctray.__version__}-{variant}" for variant in ("cpu", "gpu")
    }
    template = entrypoint_of(build("overlays/gpu"))
    ours = template.replace("s3://scans/archive", "s3://scans/2026")
    assert entrypoint_of(documents) == ours != template
    environment = named["ConfigMap/ctray-environment"]["data"]
    assert environment["AWS_ENDPOINT_URL"] == "https://s3.example.org"
    assert environment["AWS_REGION"] == "us-east-1"
