"""An archive is worked through while actors, a node and the store fail: nothing is lost or wrong.

What happens when is a plan made of a seed. `CTRAY_CHAOS_SEEDS` says how many seeds run, 2 of them
by default.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from poison import BARREN, POISONS, write_poisoned
from ray.cluster_utils import Cluster
from s3_servers import SCRIPTS, S3Server

from ctray.config import RunConfig
from ctray.core.geometry import Box
from ctray.core.grid import ShardGrid
from ctray.executors.ray.session import _QUIET
from ctray.learn.pretext.checkpoint import save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline.run import catalog_stage, localize_stage, open_run
from ctray.pipeline.verifying import verify_run
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEEDS = range(int(os.environ.get("CTRAY_CHAOS_SEEDS", "2")))
NUM_VOLUMES, NUM_BROKEN = 40, 5
SIDE = 32
HAS_CEPH = (SCRIPTS / "start-rgw.sh").is_file() and shutil.which("radosgw") is not None


@pytest.fixture(scope="module")
def volumes(phantom_of: Callable[..., Any]) -> dict[str, np.ndarray]:
    """Voxels by name; five phantoms, turned and mirrored."""
    made = [phantom_of(i, SIDE).volume for i in range(5)]
    return {
        f"scan_{n:02d}": np.ascontiguousarray(
            np.rot90(np.flip(made[n % 5], axis=n // 5 % 3), k=n // 15, axes=(1, 2))
        )
        for n in range(NUM_VOLUMES)
    }


@pytest.fixture(scope="module")
def config(config_of: Callable[..., RunConfig]) -> RunConfig:
    return config_of(
        preprocess={"working_size": SIDE},
        # So little training teaches nothing; Otsu's threshold gives boxes all the same.
        localize={"threshold": "otsu", "min_peak": 0.0},
        pool={"num_cpus": 1.0, "min_size": 1, "max_size": 2},
    )


@pytest.fixture(scope="module")
def trainer(config: RunConfig) -> Trainer:
    made = Trainer(config, SIDE)
    made.step = config.train.steps
    return made


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server | None:
    """The Ceph gateway where it is installed; requests to it give up soon."""
    if not HAS_CEPH:
        return None
    found: S3Server = request.getfixturevalue("ceph_server")
    found.use(monkeypatch)
    monkeypatch.setenv("CTRAY_S3_TIMEOUT_S", "1")
    monkeypatch.setenv("CTRAY_S3_RETRIES", "1")
    monkeypatch.setenv("CTRAY_STORE_PATIENCE_S", "60")
    return found


@pytest.fixture
def cluster(
    shared_ray: Any, server: S3Server | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """Two nodes of one CPU each; workers inherit the environment, that of the store too."""
    shared_ray.end()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # A dead node is known after 3 s.
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 6}
    made = Cluster(initialize_head=True, head_node_args={**node, "_system_config": health})
    try:
        made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def write_archive(url: str, volumes: dict[str, np.ndarray]) -> None:
    for name, voxels in volumes.items():
        writer = create_volume(
            store.join(url, f"{name}.zarr"),
            shape=voxels.shape,
            dtype=voxels.dtype,
            voxel_size=None,
            num_levels=2,
            grid=ShardGrid.choose(voxels.shape, chunk=(8, 8, 8), shard=(16, 16, 16)),
        )
        writer.write(Box.whole(voxels.shape), voxels)
        writer.build_pyramid()
        writer.commit({})


@dataclass(kw_only=True)
class Chaos:
    """Does what the plan says once so many volumes are done, in a thread of its own."""

    seed: int
    cluster: Cluster
    server: S3Server | None
    done: int = 0
    happened: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    over: bool = False

    def plan(self) -> list[tuple[int, str]]:
        """What happens after how many volumes, in order."""
        events = ["kill actor", "kill actor", "remove node"]
        if self.server is not None:
            events += ["freeze store", "restart store"]
        rng = np.random.default_rng([self.seed, 1])
        # Late enough that work is under way, early enough that none is the last.
        after = sorted(int(n) for n in rng.choice(np.arange(2, 30), len(events), replace=False))
        return list(zip(after, rng.permutation(events).tolist(), strict=True))

    def tell(self, event: Event) -> None:
        self.done = event.done

    def run(self) -> None:
        try:
            for after, what in self.plan():
                while self.done < after:
                    if self.over:
                        return
                    time.sleep(0.01)
                getattr(self, what.replace(" ", "_"))()
                self.happened.append(what)
        except BaseException as error:
            self.errors.append(error)

    def kill_actor(self) -> None:
        """SIGKILL to one actor that works, soon after a moment of the plan."""
        deadline = time.monotonic() + 30
        while not (pids := self._actor_pids()):
            assert time.monotonic() < deadline, "no actor came up"
            time.sleep(0.05)
        rng = np.random.default_rng([self.seed, 2, len(self.happened)])
        time.sleep(float(rng.uniform(0, 0.3)))
        os.kill(pids[int(rng.integers(len(pids)))], signal.SIGKILL)

    def remove_node(self) -> None:
        (node,) = self.cluster.worker_nodes
        self.cluster.remove_node(node, allow_graceful=False)

    def freeze_store(self) -> None:
        assert self.server is not None
        self.server.freeze()
        time.sleep(4)
        self.server.thaw()

    def restart_store(self) -> None:
        assert self.server is not None
        self.server.kill()
        time.sleep(2)
        self.server.start_again()

    def _actor_pids(self) -> list[int]:
        """Processes of the pool, children of this cluster's nodes."""
        nodes = self.cluster.list_all_nodes()
        raylets = {n.all_processes["raylet"][0].process.pid for n in nodes}
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if not folder.name.isdigit():
                    continue
                title = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if title.startswith(b"ray::LocalizeVolume") and parent in raylets:
                found.append(int(folder.name))
        return sorted(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_archive_outlives_chaos(
    seed: int,
    cluster: Cluster,
    server: S3Server | None,
    volumes: dict[str, np.ndarray],
    config: RunConfig,
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = str(tmp_path) if server is None else f"s3://archive/chaos-{uuid.uuid4().hex[:8]}"
    archive = store.join(base, "archive")
    write_archive(archive, volumes)
    run = open_run(archive, store.join(base, "run"), config)
    catalog = catalog_stage(run, archive, config)
    assert {e.volume_id for e in catalog.ok} == set(volumes)
    save_checkpoint(run.checkpoint, trainer)
    broken = break_some(archive, volumes, seed)

    chaos = Chaos(seed=seed, cluster=cluster, server=server)
    thread = threading.Thread(target=chaos.run)
    thread.start()
    try:
        receipts = localize_stage(run, config, catalog.entries, on_event=chaos.tell)
    finally:
        chaos.over = True
        thread.join()
    # What looks at the outcome has the usual patience.
    for name in ("CTRAY_S3_TIMEOUT_S", "CTRAY_S3_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    assert not chaos.errors
    assert chaos.happened == [what for _, what in chaos.plan()]
    check_receipts(run, volumes, broken, list(receipts))
    check_crops(run, volumes, broken)

    before = dict(contents(run))
    told: list[Event] = []
    localize_stage(run, config, catalog.entries, on_event=told.append)
    assert told == []
    assert dict(contents(run)) == before


def break_some(archive: str, volumes: dict[str, np.ndarray], seed: int) -> dict[str, str]:
    """Break five volumes, each in another way; way by name."""
    rng = np.random.default_rng([seed, 3])
    names = rng.choice(sorted(volumes), NUM_BROKEN, replace=False).tolist()
    ways = rng.choice(sorted({**POISONS, **BARREN}), NUM_BROKEN, replace=False).tolist()
    for name, way in zip(names, ways, strict=True):
        url = store.join(archive, f"{name}.zarr")
        store.delete_tree(url)
        write_poisoned(url, way, volumes[name], seed)
    return dict(zip(names, ways, strict=True))


def check_receipts(
    run: RunFolder, volumes: dict[str, np.ndarray], broken: dict[str, str], receipts: list[Any]
) -> None:
    """Every volume has one; good ones are located, broken ones failed with a line that says why."""
    by_id = {receipt.volume_id: receipt for receipt in receipts}
    assert sorted(by_id) == sorted(volumes)
    statuses = {i: (r.status, r.reason) for i, r in by_id.items() if i not in broken}
    assert {s for s, _ in statuses.values()} == {"located"}, statuses
    for volume_id, way in broken.items():
        receipt = by_id[volume_id]
        assert receipt.status == "failed", (way, receipt.status)
        assert receipt.reason, way
        assert "\n" not in receipt.reason
        assert "worker died" not in receipt.reason, way
        assert not is_committed(run.crop(volume_id))


def check_crops(run: RunFolder, volumes: dict[str, np.ndarray], broken: dict[str, str]) -> None:
    """Every good volume's crop is as it was written, as its source, and as what we put there."""
    checks = {check.volume_id: check for check in verify_run(run, sources=True)}
    assert sorted(checks) == sorted(set(volumes) - set(broken))
    assert {c.problem for c in checks.values()} == {None}
    for volume_id, check in checks.items():
        assert check.crop_url is not None
        crop = open_volume(check.crop_url)
        box = Box.from_ranges(crop.attributes["crop_box"])
        np.testing.assert_array_equal(crop.read_level(0), volumes[volume_id][box.slices])


def contents(run: RunFolder) -> Iterator[tuple[str, bytes]]:
    """All that a run wrote, the table of boxes aside, which is made anew."""
    for key, _ in store.list_tree(run.url):
        if key.startswith(("crops/", "receipts/")):
            yield key, store.read_bytes(run.at(*key.split("/")))
