"""A store that is away, or refuses the keys, is not the fault of the volumes in it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import faulty_proxy
from poison import write_good
from s3_servers import S3Server

from ctray.archive.catalog import CatalogEntry, write_catalog
from ctray.config import RunConfig
from ctray.core.errors import CtrayError
from ctray.learn.pretext.checkpoint import save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store


@pytest.fixture
def archive(
    ceph_server: S3Server, monkeypatch: pytest.MonkeyPatch, phantom_of: Callable[..., Any]
) -> str:
    """One volume on the Ceph gateway."""
    ceph_server.use(monkeypatch)
    monkeypatch.setenv("CTRAY_S3_TIMEOUT_S", "1")
    monkeypatch.setenv("CTRAY_S3_RETRIES", "1")
    monkeypatch.setenv("CTRAY_STORE_PATIENCE_S", "60")
    url = f"s3://archive/{uuid.uuid4().hex}"
    write_good(store.join(url, "scan.zarr"), phantom_of(0).volume)
    return url


@pytest.fixture
def worker(archive_config: RunConfig, tmp_path: Path) -> LocalizeVolume:
    """A worker of a run that is kept on disk, in this process."""
    run = RunFolder(url=str(tmp_path / "run"))
    settings = archive_config.model_dump(mode="json")
    store.write_json(run.manifest, {"archive": "s3://archive", "config": settings})
    write_catalog((), run.catalog)
    trainer = Trainer(archive_config, 24)
    trainer.step = archive_config.train.steps
    save_checkpoint(run.checkpoint, trainer)
    return LocalizeVolume(run, archive_config, True, 1)


def entry_of(archive: str) -> CatalogEntry:
    return CatalogEntry(
        volume_id="scan", url=store.join(archive, "scan.zarr"), kind="ome-zarr", num_bytes=24**3
    )


def receipt_of(tmp_path: Path) -> VolumeRecord | None:
    return RunFolder(url=str(tmp_path / "run")).read_receipt("scan")


def test_volume_is_done_once_the_store_is_back(
    archive: str, worker: LocalizeVolume, ceph_server: S3Server
) -> None:
    ceph_server.kill()
    back = threading.Timer(2.0, ceph_server.start_again)
    back.start()
    try:
        receipt = worker(entry_of(archive))
    finally:
        back.join()
    assert isinstance(receipt, VolumeRecord), receipt
    assert receipt.status == "located", receipt.reason


def test_store_that_stays_away_ends_the_run_and_blames_no_volume(
    archive: str,
    worker: LocalizeVolume,
    ceph_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CTRAY_STORE_PATIENCE_S", "1")
    ceph_server.kill()
    began = time.monotonic()
    try:
        found = worker(entry_of(archive))
    finally:
        ceph_server.start_again()
    assert time.monotonic() - began < 30
    assert isinstance(found, CtrayError)
    assert "run the same command again once the store is back" in str(found)
    assert "\n" not in str(found)
    assert receipt_of(tmp_path) is None


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_keys_that_are_refused_end_the_run_and_blame_no_volume(
    archive: str,
    worker: LocalizeVolume,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, "expired")
    found = worker(entry_of(archive))
    assert isinstance(found, CtrayError)
    assert "check keys" in str(found)
    assert receipt_of(tmp_path) is None


def test_store_that_fails_on_one_volume_alone_fails_that_volume(
    archive: str,
    worker: LocalizeVolume,
    ceph_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Damaged disks answer so, for what lies on them."""
    with faulty_proxy(ceph_server.endpoint, kinds=("500",), times=None, only="/0/c/") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        receipt = worker(entry_of(archive))
    assert isinstance(receipt, VolumeRecord), receipt
    assert receipt.status == "failed"
    assert "scan.zarr" in (receipt.reason or "")
    # Three rounds of a request and its repeat.
    assert proxy.injected["500"] >= 6
    assert receipt_of(tmp_path) == receipt
