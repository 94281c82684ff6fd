"""The actor pool: every item once, dead workers, limits of growth, errors that end a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

from ctray.archive.catalog import CatalogEntry, build_catalog
from ctray.config import PoolConfig, RunConfig
from ctray.core.errors import CheckpointError, CtrayError, StorageError
from ctray.executors.ray import pool as ray_pool
from ctray.executors.ray.pool import run_pool
from ctray.pipeline import run as archive
from ctray.pipeline.plan import plan_archive
from ctray.pipeline.run import localize_stage
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.volume_record import VolumeRecord

pytestmark = pytest.mark.ray

ConfigOf = Callable[..., RunConfig]
SMALL = PoolConfig(num_cpus=0.5, max_size=2)


def worker_that(work: Callable[[Any], Any]) -> type:
    """A pool worker around a function; local, so that it travels to other processes as code."""

    class Worker:
        def __call__(self, item: Any) -> Any:
            return work(item)

    return Worker


def test_every_item_gives_its_result_once(ray_cpus: int) -> None:
    worker = worker_that(lambda item: (item, item**2))
    found = list(run_pool(worker, (), range(7), SMALL))
    assert sorted(found) == [(n, n**2) for n in range(7)]


def test_no_item_needs_no_worker(ray_cpus: int) -> None:
    assert list(run_pool(worker_that(lambda item: item), (), [], SMALL)) == []


def test_item_that_kills_its_worker_is_left_out_and_the_others_finish(
    ray_cpus: int, tmp_path: Path
) -> None:
    def work(item: int) -> int:
        with (tmp_path / f"tries-{item}").open("a") as file:
            file.write("x")
        if item == 2:
            os._exit(1)
        return item

    found = list(run_pool(worker_that(work), (), range(6), SMALL))
    assert sorted(found) == [0, 1, 3, 4, 5]
    # It was tried again once: the machine may have been short of memory for a moment.
    assert (tmp_path / "tries-2").read_text() == "xx"


@pytest.mark.parametrize(("largest", "expected"), [(1, 1), (2, 2)])
def test_pool_grows_to_its_limit(
    ray_cpus: int, tmp_path: Path, largest: int, expected: int
) -> None:
    def work(item: int) -> int:
        (tmp_path / str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        # So slow that a pool which may grow further has time to.
        time.sleep(0.7)
        return os.getpid()

    pool = PoolConfig(num_cpus=0.5, min_size=1, max_size=largest)
    pids = list(run_pool(worker_that(work), (), range(4 * largest), pool))
    assert len(pids) == 4 * largest
    assert len(set(pids)) == expected


def test_items_are_taken_as_they_are_worked_on(ray_cpus: int) -> None:
    """No more is in flight than the pool has actors, however slowly results are fetched."""
    taken = []

    def items() -> Iterator[int]:
        for n in range(12):
            taken.append(n)
            yield n

    for done, _ in enumerate(run_pool(worker_that(lambda item: item), (), items(), SMALL), 1):
        # One waits at the door.
        assert len(taken) <= done + SMALL.max_size + 1
    assert done == 12


def test_pool_shrinks_when_nothing_waits(ray_cpus: int, tmp_path: Path) -> None:
    """The last volume of a run must not hold the whole cluster."""

    def work(item: int) -> int:
        while item == 0 and not (tmp_path / "go").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        return item

    results = run_pool(worker_that(work), (), range(6), SMALL)
    assert {next(results) for _ in range(5)} == {1, 2, 3, 4, 5}
    held = 0.0
    try:
        # What is asked for next waits for the last item: look from outside meanwhile.
        with ThreadPoolExecutor(1) as thread:
            last = thread.submit(next, results)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                held = ray_cpus - ray.available_resources().get("CPU", 0.0)
                if held == SMALL.num_cpus:
                    break
                time.sleep(0.1)
            (tmp_path / "go").touch()
            assert last.result() == 0
    finally:
        results.close()
    assert held == SMALL.num_cpus


def test_actor_that_waits_for_room_goes_when_no_item_waits(
    ray_cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an autoscaler would add a node for it, on which nothing is left to do."""
    # As on a cluster that grows: what its nodes hold today is no limit.
    monkeypatch.setattr(ray_pool, "autoscales", lambda: True)

    class Waiter:
        def __call__(self, item: int) -> int:
            while not (tmp_path / f"go-{item}").exists():
                time.sleep(0.05)
            return item

    def states() -> list[str]:
        every = ray._private.state.actors().values()
        mine = [a["State"] for a in every if a["ActorClassName"] == "Waiter"]
        return sorted(state for state in mine if state != "DEAD")

    def wait_for(expected: list[str]) -> None:
        deadline = time.monotonic() + 60
        while states() != expected:
            assert time.monotonic() < deadline, states()
            time.sleep(0.1)

    pool = PoolConfig(num_cpus=float(ray_cpus), max_size=2)
    results = run_pool(Waiter, (), range(2), pool)
    with ThreadPoolExecutor(1) as thread:
        try:
            # What is asked for waits for its item: look from outside meanwhile.
            first = thread.submit(next, results)
            wait_for(["ALIVE", "PENDING_CREATION"])
            (tmp_path / "go-0").touch()
            assert first.result() == 0
            second = thread.submit(next, results)
            wait_for(["ALIVE"])
        finally:
            (tmp_path / "go-0").touch()
            (tmp_path / "go-1").touch()
        assert second.result() == 1
    results.close()


def test_gpu_that_is_not_there_is_named(ray_cpus: int) -> None:
    pool = PoolConfig(num_cpus=0.5, num_gpus=1)
    with pytest.raises(CtrayError, match=r"needs 1 GPUs and Ray has 0; lower pool\.num_gpus"):
        list(run_pool(worker_that(lambda item: item), (), [1], pool))


def test_pool_larger_than_the_cluster_is_as_large_as_the_cluster(ray_cpus: int) -> None:
    pool = PoolConfig(num_cpus=1.0, min_size=5, max_size=9)
    found = list(run_pool(worker_that(lambda item: item), (), range(3), pool))
    assert sorted(found) == [0, 1, 2]


def test_actor_larger_than_the_cluster_is_told_at_once(ray_cpus: int) -> None:
    pool = PoolConfig(num_cpus=64)
    with pytest.raises(CtrayError, match=r"needs 64 CPUs and Ray has 2; lower pool\.num_cpus"):
        list(run_pool(worker_that(lambda item: item), (), [1], pool))


def test_error_that_ends_the_run_arrives(ray_cpus: int) -> None:
    def work(item: int) -> Any:
        return CtrayError("the output cannot be written") if item == 1 else item

    with pytest.raises(CtrayError, match="the output cannot be written"):
        list(run_pool(worker_that(work), (), range(3), SMALL))


def test_plan_asks_the_cluster_for_its_room(
    ray_cpus: int,
    mixed_archive: tuple[Path, Any],
    config_of: ConfigOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TIFF folder, HDF5 and OME-Zarr are looked at; the cut-off TIFF is named."""
    config = config_of(pool={"num_cpus": 0.5, "max_size": 3}, ray={"address": "auto"})
    found = plan_archive(build_catalog(str(mixed_archive[0])), config)
    assert (found.num_actors, found.could_hold) == (3, 4)
    assert (found.num_volumes, found.num_unreadable, found.num_looked_at) == (3, 1, 3)
    assert sorted(found.kinds) == ["hdf5 uint8", "ome-zarr uint8", "tiff-folder uint8"]

    more = config.model_copy(update={"pool": PoolConfig(num_cpus=0.5, max_size=9)})
    for grows, expected in ((False, 4), (True, 9)):
        monkeypatch.setattr(ray_pool, "autoscales", lambda grows=grows: grows)
        assert plan_archive(build_catalog(str(mixed_archive[0])), more).num_actors == expected


# --- localizing -----------------------------------------------------------------------------


def test_volume_whose_worker_dies_becomes_a_failed_receipt(
    ray_cpus: int,
    begun: tuple[Any, Any],
    archive_config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out of memory, a segmentation fault in a codec: the process is gone without a word."""

    class Dying(LocalizeVolume):
        def __call__(self, entry: CatalogEntry) -> VolumeRecord | CtrayError:
            if entry.volume_id == "embryo_b":
                os._exit(1)
            return super().__call__(entry)

    run, catalog = begun
    monkeypatch.setattr(archive, "LocalizeVolume", Dying)
    receipts = localize_stage(run, archive_config, catalog.entries)
    status = {receipt.volume_id: receipt.status for receipt in receipts}
    assert status.pop("embryo_b") == "failed"
    assert status.pop("cut_off") == "failed"
    assert set(status.values()) == {"located"}
    receipt = run.read_receipt("embryo_b")
    assert "its worker died" in receipt.reason
    assert run.read_receipt("embryo_a").crop_url is not None


def test_missing_checkpoint_ends_the_run_with_its_reason(
    ray_cpus: int, begun: tuple[Any, Any], archive_config: RunConfig
) -> None:
    """An actor that cannot start must not be started for ever."""
    run, catalog = begun
    (Path(run.checkpoint) / "checkpoint.json").unlink()
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="holds no checkpoint") as caught:
        localize_stage(run, archive_config, catalog.entries)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 90
    # Nothing was said about volumes that nobody looked at.
    assert run.read_receipt("embryo_a") is None


def test_output_that_cannot_be_written_ends_the_run(
    ray_cpus: int, begun: tuple[Any, Any], archive_config: RunConfig
) -> None:
    """A file in the way of the folder of crops: no volume is to blame."""
    run, catalog = begun
    Path(run.at("crops")).write_text("in the way")
    with pytest.raises(CtrayError, match="crops") as caught:
        localize_stage(run, archive_config, catalog.entries)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, StorageError) or run.url in str(caught.value)
    located = [r for r in run.receipts() if r.status == "failed"]
    assert [r.volume_id for r in located] == ["cut_off"]
