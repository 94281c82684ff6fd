"""What the manifests hold to and no schema asks for: each rule gives what breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Document = dict[str, Any]

# Pods that talk to the API server: the autoscaler beside the head, and the nightly job.
MAY_CALL_THE_API = {"ctray-head", "ctray-nightly"}
SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
UNITS = {"": 1, "m": Fraction(1, 1000), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: object) -> Fraction:
    """Number that a Kubernetes quantity stands for."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi|Ti)?", str(quantity))
    assert found is not None, f"{quantity!r} is no quantity that these tests know"
    return Fraction(found[1]) * UNITS[found[2] or ""]


def cluster_spec(document: Document) -> Document | None:
    """Specification of the Ray cluster in a document, if it has one."""
    if document["kind"] == "RayCluster":
        return dict(document["spec"])
    if document["kind"] == "RayJob":
        return dict(document["spec"]["rayClusterSpec"])
    return None


def templates(document: Document) -> Iterator[tuple[str, Document]]:
    """Name and pod template of every kind of pod that a document makes."""
    name, spec = f"{document['kind']}/{document['metadata']['name']}", document.get("spec", {})
    cluster = cluster_spec(document)
    if cluster is not None:
        yield f"{name} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]
    if "submitterPodTemplate" in spec:
        yield f"{name} submitter", spec["submitterPodTemplate"]
    if "jobTemplate" in spec:
        yield name, spec["jobTemplate"]["spec"]["template"]
    if document["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet"):
        yield name, spec["template"]


def pod_findings(documents: list[Document]) -> Iterator[str]:
    """Pods: without rights that they do not need, and of sizes that hold."""
    for document in documents:
        for name, template in templates(document):
            pod = template["spec"]
            yield from (f"{name}: {what}" for what in _pod_rights(pod))
            for container in pod["containers"] + pod.get("initContainers", []):
                where = f"{name} {container['name']}"
                yield from (f"{where}: {what}" for what in _container_rights(container))
                yield from (f"{where}: {what}" for what in _sizes(container, pod))
                if not re.search(r"[:@][\w.-]*\d", container["image"]) and not container[
                    "image"
                ].endswith(":dev"):
                    yield f"{where}: image {container['image']} has no version"


def _pod_rights(pod: Document) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is on"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is the node's own folder"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no limit"
    account = pod.get("serviceAccountName")
    if account not in MAY_CALL_THE_API and pod.get("automountServiceAccountToken") is not False:
        yield "gets a token of the API server"


def _container_rights(container: Document) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "root file system can be written"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if security.get("privileged"):
        yield "is privileged"
    for variable in container.get("env", []):
        if "value" in variable and SECRET_NAME.search(variable["name"]):
            yield f"{variable['name']} stands in the manifest"


def _sizes(container: Document, pod: Document) -> Iterator[str]:
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    if "memory" not in requests or "cpu" not in requests:
        yield "asks for no memory or no CPU"
    if requests.get("memory") != limits.get("memory"):
        yield f"memory {requests.get('memory')} asked for, up to {limits.get('memory')}"
    for name in limits.keys() & requests.keys() - {"memory"}:
        if amount(limits[name]) != amount(requests[name]):
            yield f"{name} {requests[name]} asked for, up to {limits[name]}"
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    folders = [
        v["emptyDir"] for v in pod.get("volumes", []) if v["name"] in mounted and "emptyDir" in v
    ]
    if "ephemeral-storage" in limits:
        needed = sum(amount(f.get("sizeLimit", 0)) for f in folders)
        if needed > amount(limits["ephemeral-storage"]):
            yield "its volumes hold more than its limit of ephemeral-storage"


def cluster_findings(documents: list[Document]) -> Iterator[str]:
    """Ray clusters: from nothing to a stated size, closed, and with room to spill."""
    for document in documents:
        cluster = cluster_spec(document)
        if cluster is None:
            continue
        name = f"{document['kind']}/{document['metadata']['name']}"
        yield from (f"{name}: {what}" for what in _autoscaling(cluster))
        if cluster.get("authOptions") != {"mode": "token"}:
            yield f"{name}: Ray asks for no token"
        if cluster["headGroupSpec"].get("serviceType") != "ClusterIP":
            yield f"{name}: the head is offered outside"
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            yield from (
                f"{name} {group.get('groupName', 'head')}: {what}" for what in _ray_pod(group)
            )


def _autoscaling(cluster: Document) -> Iterator[str]:
    if not cluster.get("enableInTreeAutoscaling"):
        yield "does not scale"
    if cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "autoscaler is not v2"
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield "the head takes work"
    for group in cluster["workerGroupSpecs"]:
        # The definition's own default is 2147483647.
        if "maxReplicas" not in group:
            yield f"group {group['groupName']} has no maxReplicas"
        if group.get("minReplicas") != 0 or group.get("replicas") != 0:
            yield f"group {group['groupName']} does not begin at 0"
        if "idleTimeoutSeconds" not in group:
            yield f"group {group['groupName']} has no idleTimeoutSeconds"


def _ray_pod(group: Document) -> Iterator[str]:
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    if pod.get("restartPolicy") != "Never":
        yield "restartPolicy is not Never, which the autoscaler needs"
    spill = group["rayStartParams"].get("object-spilling-directory")
    by_path = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path in ("/tmp", spill):  # noqa: S108 - of the pod
        if "emptyDir" not in volumes.get(by_path.get(path, ""), {}):
            yield f"nothing to write to at {path}"
    if {"secretRef": {"name": "ctray-s3", "optional": True}} not in container.get("envFrom", []):
        yield "keys of the object store do not come from the Secret ctray-s3"
    spot = [t for t in pod.get("tolerations", []) if "spot" in str(t)]
    if "groupName" in group and not spot:
        yield "does not take spot nodes"
    if "groupName" not in group and spot:
        yield "the head would go with a spot node"


def secret_findings(documents: list[Document]) -> Iterator[str]:
    """Secrets are made by whoever installs; a manifest names them at most."""
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Secret":
            yield f"{name}: a Secret with values in the repository"
        if document["kind"] == "ConfigMap":
            for key, text in document.get("data", {}).items():
                if SECRET_NAME.search(key) or re.search(r"AWS_SECRET|\bAKIA[A-Z0-9]{16}\b", text):
                    yield f"{name}: {key} looks like a key"


def reference_findings(documents: list[Document]) -> Iterator[str]:
    """Accounts and ConfigMaps that are named exist, and live in the one namespace."""
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    (namespace,) = [d["metadata"]["name"] for d in documents if d["kind"] == "Namespace"]
    for document in documents:
        own = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") != namespace:
            yield f"{own}: not in the namespace {namespace}"
        for subject in document.get("subjects", []):
            if (subject["kind"], subject["name"]) not in names or subject["namespace"] != namespace:
                yield f"{own}: no {subject['kind']} {subject['namespace']}/{subject['name']}"
        if "roleRef" in document and (
            (document["roleRef"]["kind"], document["roleRef"]["name"]) not in names
        ):
            yield f"{own}: no {document['roleRef']['kind']} {document['roleRef']['name']}"
        for where, template in templates(document):
            for kind, name in _named(template["spec"]):
                if (kind, name) not in names:
                    yield f"{where}: no {kind} {name}"


def _named(pod: Document) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"]
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"]["name"]


def findings(documents: list[Document]) -> list[str]:
    """All of the above."""
    return [
        *pod_findings(documents),
        *cluster_findings(documents),
        *secret_findings(documents),
        *reference_findings(documents),
    ]
