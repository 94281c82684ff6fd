"""Ray's autoscaler with the shipped RayCluster: nodes come for work, up to the limit, and go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Document = dict[str, Any]
SCRIPT = Path(__file__).with_name("scale_fake_nodes.py")


@pytest.fixture
def cluster(build: Callable[[str], list[Document]]) -> Document:
    """The RayCluster of the GPU overlay, with two CPU nodes at most: all run on this machine."""
    (document,) = [d for d in build("overlays/gpu") if d["kind"] == "RayCluster"]
    cpu, gpu = document["spec"]["workerGroupSpecs"]
    assert (cpu["groupName"], gpu["groupName"]) == ("cpu", "gpu")
    cpu["maxReplicas"] = 2
    return document


@pytest.fixture
def folder() -> Iterator[Path]:
    # Sockets live in there: the path must be short.
    path = Path(tempfile.mkdtemp(prefix="ct-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_nodes_come_for_work_and_go(cluster: Document, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "cluster.json"), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "at first": {},
        "CPUs of the head": 0,
        "nodes of the localizers": 1,
        "nodes of the readers": 2,
        "readers that wait": 1,
        "at most": {"8 CPU 0 GPU": 2, "4 CPU 1 GPU": 1},
        "at last": {},
    }
