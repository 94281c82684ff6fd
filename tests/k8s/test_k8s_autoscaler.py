"""An archive run on the shipped RayCluster with Ray's autoscaler: nodes come, die, and all go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from fake_nodes import fake_cluster
from faulty_proxy import FaultyProxy, faulty_proxy
from ray_head import RayHead
from s3_servers import S3Server

from ctray.cli.main import cli
from ctray.cluster.job_log import parse_line
from ctray.cluster.orders import job_id
from ctray.cluster.submit import Cluster
from ctray.config import parse_config
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.learn.pretext.checkpoint import save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline.run import catalog_stage, open_run
from ctray.pipeline.verifying import verify_run
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.storage import store

Document = dict[str, Any]

ARCHIVE, RUN = "s3://archive/scaled/scans", "s3://archive/scaled/run"
NUM_VOLUMES, SIDE = 12, 24
# Those whose crops hang: the last two, so that both nodes have one in the end.
HELD = ("embryo-0010", "embryo-0011")
GPU_NODE = "4 CPU 1 GPU"
PATIENCE_S = 150


@pytest.fixture
def raycluster(build: Callable[[str], list[Document]]) -> Document:
    """The RayCluster of the GPU overlay, with two GPU nodes at most: all run on this machine."""
    (document,) = [d for d in build("overlays/gpu") if d["kind"] == "RayCluster"]
    cpu, gpu = document["spec"]["workerGroupSpecs"]
    assert (cpu["groupName"], gpu["groupName"]) == ("cpu", "gpu")
    gpu["maxReplicas"] = 2
    return document


@pytest.fixture
def folder() -> Iterator[Path]:
    # Sockets live in there: the path must be short.
    path = Path(tempfile.mkdtemp(prefix="ct-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@dataclass(kw_only=True)
class Nodes:
    """Nodes of a cluster beside its head, and how many there were at most."""

    head: RayHead
    most: Counter[str] = field(default_factory=Counter)

    def now(self) -> dict[str, str]:
        """CPUs and GPUs by the id of the node."""
        found = {}
        for raylet in self._raylets():
            total = raylet.get("resourcesTotal", {})
            kind = f"{total.get('CPU', 0):g} CPU {total.get('GPU', 0):g} GPU"
            if raylet["isHeadNode"]:
                assert kind == "0 CPU 0 GPU"
            else:
                found[raylet["nodeId"]] = kind
        self.most |= Counter(found.values())
        return found

    def _raylets(self) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.head.token}"}
        url = f"{self.head.url}/nodes?view=summary"
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            summary = json.load(answer)["data"]["summary"]
        return [node["raylet"] for node in summary if node["raylet"].get("state") == "ALIVE"]

    def wait_until(self, reached: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        deadline = time.monotonic() + PATIENCE_S
        while not reached(now := self.now()):
            assert time.monotonic() < deadline, f"nodes after {PATIENCE_S} s: {now}"
            time.sleep(0.3)
        return now


@dataclass(frozen=True, kw_only=True)
class Site:
    """A cluster, its store, and a run with the settings of its job in a file."""

    head: RayHead
    server: S3Server
    file: Path
    run: RunFolder
    nodes: Nodes


def processes(*parts: str) -> list[int]:
    """Processes whose command line or environment says all of `parts`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            said = command + (entry / "environ").read_bytes() if command else b""
        except OSError:
            continue
        if entry.name.isdigit() and all(part.encode() in said for part in parts):
            found.append(int(entry.name))
    return found


def raylet_of(node_id: str, head: RayHead) -> int:
    """Process of a node that this cluster started."""
    (pid,) = processes("/raylet/raylet\0", node_id, head.token)
    return pid


def ctray(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@contextmanager
def submitted(site: Site, number: int) -> Iterator[tuple[str, FaultyProxy]]:
    """A job that a command has begun, and its way to the store: crops of `HELD` never end there."""
    upstream = site.server.endpoint
    with faulty_proxy(upstream, kinds=("freeze",), times=None, only="/crops/embryo-001") as proxy:
        env = json.dumps({"AWS_ENDPOINT_URL": proxy.endpoint, "CTRAY_S3_RETRIES": "5"})
        command = ("submit", "archive", "--config", site.file, "--set", f"job.env={env}")
        done = ctray(*command, "--detach", "--json")
        assert done.exit_code == 0, done.stderr
        submission_id = json.loads(done.stdout)["id"]
        assert submission_id == job_id(RUN, number)
        yield submission_id, proxy


def wait_until_held(proxy: FaultyProxy, nodes: Nodes) -> dict[str, str]:
    """Nodes, once both of them work on a volume that they cannot bring to an end."""
    return nodes.wait_until(
        lambda now: all(proxy.has_met(f"/crops/{name}") for name in HELD) and len(now) == 2
    )


def receipts_of(run: RunFolder) -> dict[str, bytes]:
    keys = [key for key, _ in store.list_tree(run.at("receipts"))]
    return {Path(key).stem: store.read_bytes(run.at("receipts", key)) for key in keys}


@pytest.fixture
def settings(settings_of: Callable[..., dict[str, Any]]) -> Document:
    made = settings_of(
        localize={"threshold": "otsu", "min_peak": 0.0},
        pool={"num_cpus": 1, "num_gpus": 1, "min_size": 2, "max_size": 3},
        job={"archive": ARCHIVE, "run": RUN},
    )
    del made["ray"]
    return made


@pytest.fixture
def trained(
    moto_server: S3Server, settings: Document, monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """A run whose training is done, as far as its files tell."""
    moto_server.use(monkeypatch)
    config = parse_config(settings)
    write_phantoms(ARCHIVE, count=NUM_VOLUMES, size=SIDE, reconstruction_circle=False)
    run = open_run(ARCHIVE, RUN, config)
    catalog_stage(run, ARCHIVE, config)
    trainer = Trainer(config, SIDE)
    trainer.step = config.train.steps
    save_checkpoint(run.checkpoint, trainer)
    return run


@pytest.fixture
def site(
    raycluster: Document,
    trained: RunFolder,
    settings: Document,
    moto_server: S3Server,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    file = tmp_path / "archive.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with fake_cluster(raycluster, folder, 4.0, {"OMP_NUM_THREADS": "1"}) as head:
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head.url)
        yield Site(head=head, server=moto_server, file=file, run=trained, nodes=Nodes(head=head))


@pytest.mark.ray
@pytest.mark.slow
def test_an_archive_is_done_while_nodes_come_die_and_go(site: Site) -> None:
    nodes = site.nodes
    assert nodes.now() == {}
    with submitted(site, 1) as (first, proxy):
        wait_until_held(proxy, nodes)
        check_refused(site, first)
        kill_driver(site, first)
    before = receipts_of(site.run)
    assert len(before) == NUM_VOLUMES - len(HELD)
    assert not set(HELD) & set(before)

    with submitted(site, 2) as (second, proxy):
        victim = min(wait_until_held(proxy, nodes))
        os.kill(raylet_of(victim, site.head), signal.SIGKILL)
        nodes.wait_until(lambda now: len(now) == 2 and victim not in now)
        assert not set(HELD) & set(receipts_of(site.run))
        proxy.enabled = False
        proxy.release()
        done = ctray("jobs", "logs", second, "--follow")
        assert done.exit_code == 0, done.stderr
    check_resumed(site, second, before)
    nodes.wait_until(lambda now: not now)
    # GPU work alone: a CPU node would have nothing to do.
    assert nodes.most == {GPU_NODE: 2}
    checks = list(verify_run(site.run, sources=True))
    assert [c.problem for c in checks] == [None] * NUM_VOLUMES


def check_refused(site: Site, running: str) -> None:
    again = ctray("submit", "archive", "--config", site.file)
    assert again.exit_code == 1
    assert f"error: {running} is running and works on {RUN}" in again.stderr


def kill_driver(site: Site, submission_id: str) -> None:
    (pid,) = processes("\0jobs\0run\0archive\0", submission_id, site.head.token)
    os.kill(pid, signal.SIGKILL)
    cluster = Cluster(site.head.url)
    list(cluster.follow(submission_id))
    assert cluster.ended(submission_id).status == "FAILED"


def check_resumed(site: Site, submission_id: str, before: dict[str, bytes]) -> None:
    """The second job did what the first one left, although a node died under it."""
    lines = Cluster(site.head.url).logs(submission_id).splitlines()
    events = [e for e in map(parse_line, lines) if isinstance(e, Event) and e.stage == "localize"]
    assert {e.total for e in events} == {len(HELD)}
    assert f"{NUM_VOLUMES} located" in lines
    after = receipts_of(site.run)
    assert len(after) == NUM_VOLUMES
    assert {name: after[name] for name in before} == before, "what was done stays done"
