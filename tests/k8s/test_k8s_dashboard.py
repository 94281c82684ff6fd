"""The dashboard asks for figures that ctray and Ray export, by their exact names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DASHBOARD = Path(__file__).resolve().parents[2] / "k8s" / "grafana" / "ctray.json"
OURS = {
    "ray_ctray_volumes_total": {"status"},
    "ray_ctray_bytes_read_total": set(),
    "ray_ctray_bytes_written_total": set(),
    "ray_ctray_stage_seconds_total": {"stage"},
    "ray_ctray_slices_per_second": {"stage"},
    "ray_ctray_training_loss": {"stage"},
}
RAYS = {"ray_cluster_active_nodes", "ray_cluster_idle_nodes", "ray_cluster_pending_nodes"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_all_figures_of_ctray_are_shown_and_no_other(dashboard: dict[str, Any]) -> None:
    text = " ".join(queries(dashboard))
    assert set(re.findall(r"\bray_\w+", text)) == OURS.keys() | RAYS


def test_figures_are_grouped_by_tags_that_they_have(dashboard: dict[str, Any]) -> None:
    for query in queries(dashboard):
        (name,) = set(re.findall(r"\bray_\w+", query))
        if name in RAYS:
            continue
        assert 'run=~"$run"' in query
        groups = re.findall(r"\bby \(([\w, ]+)\)", query)
        tags = {tag for group in groups for tag in group.split(", ")}
        assert tags <= OURS[name] | {"run"}


def test_panels_fit_on_the_page(dashboard: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & own
        cells |= own
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_it_takes_the_source_of_whoever_imports_it(dashboard: dict[str, Any]) -> None:
    sources = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert sources == {"${datasource}"}
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", " ".join(queries(dashboard)))) <= names | {
        "__rate_interval"
    }
