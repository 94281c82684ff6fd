"""The benchmark as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ctray.evaluate.benchmark_table import Group, VolumeScore, table_rows
from ctray.report.benchmark_text import ablation, markdown, overview

GROUP = Group(archive="phantoms", variant="main", family="fish", scene="easy")


def score(**values: Any) -> VolumeScore:
    plain: dict[str, Any] = {
        **dict.fromkeys(["error_voxels", "error_of_side", "error_of_box", "error_apart_voxels"]),
        **dict.fromkeys(["iou", "lost", "saved"]),
        "group": GROUP,
        "volume_id": "v",
        "method": "ctray",
        "supervised": False,
        "outcome": "located",
    }
    return VolumeScore(**(plain | values))


def test_text_has_a_line_a_group_and_a_column_a_variant() -> None:
    scores = [
        score(error_of_side=0.0123),
        score(method="raw-best", supervised=True, error_of_side=0.0456),
        score(group=replace(GROUP, variant="otsu"), error_of_side=0.0789),
    ]
    rows = table_rows(scores)
    headings, lines = overview(rows)
    assert len(lines) == 1
    assert len(headings) == len(lines[0])
    assert lines[0][:4] == ["fish", "easy", "1", "1.23"]
    assert "4.56" in lines[0]
    assert ablation(rows) == (
        ("volumes", "scene", "main %", "otsu %"),
        [["fish", "easy", "1.23", "7.89"]],
    )
    about = {
        "plan": {"purpose": "tuning", "size": 32},
        "machine": {"cpu": "abacus", "cores": 2, "gpu": None},
        "seeds": {"fish-easy": 10201},
        "versions": {"python": "3.11"},
        "volumes": {"phantoms": 1},
        "date": "2026-11-22",
        "ctray_version": "0",
        "seconds": {"phantoms/main": 90.0},
        "command": "ctray benchmark localization",
        "variants": {"otsu": ["localize.threshold=otsu"]},
    }
    page = markdown(about, rows)
    for word in ("abacus, 2 cores", "10201", "90.0 s", "| fish | easy |", "## Ablation"):
        assert word in page
