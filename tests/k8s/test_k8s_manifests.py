"""Every overlay builds and is what an API server would take, field by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

Document = dict[str, Any]
Findings = Callable[[Document], Sequence[str]]


def is_ray(document: Document) -> bool:
    return str(document["apiVersion"]).startswith("ray.io/")


def the(documents: list[Document], kind: str, name: str) -> Document:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def rename(mapping: Document, key: str, wrong: str) -> None:
    mapping[wrong] = mapping.pop(key)


def test_ray_kinds_fit_their_definitions(documents: list[Document], ray_findings: Findings) -> None:
    checked = [document for document in documents if is_ray(document)]
    assert {d["kind"] for d in checked} == {"RayCluster", "RayJob"}
    assert [finding for d in checked for finding in ray_findings(d)] == []


def test_other_kinds_fit_their_schemas(documents: list[Document], kube_findings: Findings) -> None:
    checked = [document for document in documents if not is_ray(document)]
    assert len(checked) > 10
    assert [finding for d in checked for finding in kube_findings(d)] == []


@pytest.mark.parametrize(
    ("kind", "name", "where", "key", "wrong"),
    [
        ("RayCluster", "ctray", ["workerGroupSpecs", 0], "maxReplicas", "maxReplica"),
        ("RayCluster", "ctray", ["autoscalerOptions"], "idleTimeoutSeconds", "idleTimeoutSecond"),
        ("RayCluster", "ctray", [], "authOptions", "authOption"),
        ("RayJob", "ctray-archive", [], "shutdownAfterJobFinishes", "shutdownAfterJobFinished"),
        ("RayJob", "ctray-archive", ["submitterConfig"], "backoffLimit", "backOffLimit"),
    ],
)
def test_a_misspelt_field_of_a_ray_kind_is_found(
    build: Callable[[str], list[Document]],
    ray_findings: Findings,
    kind: str,
    name: str,
    where: list[Any],
    key: str,
    wrong: str,
) -> None:
    document = the(build("overlays/gpu"), kind, name)
    place = document["spec"]
    for step in where:
        place = place[step]
    rename(place, key, wrong)
    (finding,) = ray_findings(document)
    assert f"unknown field (did you mean '{key}'?)" in finding


def test_a_wrong_value_of_a_ray_kind_is_found(
    build: Callable[[str], list[Document]], ray_findings: Findings
) -> None:
    cluster = the(build("overlays/cpu"), "RayCluster", "ctray")
    cluster["spec"]["autoscalerOptions"]["version"] = "v3"
    assert any("'v3' is not one of" in finding for finding in ray_findings(cluster))


@pytest.mark.parametrize(
    ("kind", "name", "where", "key", "wrong"),
    [
        ("CronJob", "ctray-nightly", ["spec"], "concurrencyPolicy", "concurencyPolicy"),
        ("NetworkPolicy", "ctray-ray", ["spec"], "podSelector", "podSelectors"),
        ("PodDisruptionBudget", "ctray", ["spec"], "minAvailable", "minAvailible"),
        ("StatefulSet", "ctray-redis", ["spec", "template", "spec"], "containers", "container"),
        ("Role", "ctray-nightly", ["rules", 0], "resources", "resource"),
    ],
)
def test_a_misspelt_field_of_another_kind_is_found(
    build: Callable[[str], list[Document]],
    kube_findings: Findings,
    kind: str,
    name: str,
    where: list[Any],
    key: str,
    wrong: str,
) -> None:
    document = the(build("overlays/cpu"), kind, name)
    place: Any = document
    for step in where:
        place = place[step]
    rename(place, key, wrong)
    assert any(wrong in finding for finding in kube_findings(document))


def test_the_dashboard_builds_as_a_config_map(
    build: Callable[[str], list[Document]], kube_findings: Findings
) -> None:
    (dashboard,) = build("grafana")
    assert dashboard["kind"] == "ConfigMap"
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert kube_findings(dashboard) == []
