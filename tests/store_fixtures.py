"""The stores that every storage promise is tested on: memory, disk, moto and a Ceph gateway."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from s3_servers import S3Server

STORES = ("memory", "disk", "moto", "ceph")


@pytest.fixture
def ceph(ceph_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The Ceph gateway, with its keys in the environment."""
    ceph_server.use(monkeypatch)
    return ceph_server


@pytest.fixture(params=STORES)
def base_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A place of its own on each store; nothing is there yet."""
    name = f"run-{uuid.uuid4().hex}"
    if request.param == "memory":
        return f"memory://{name}"
    if request.param == "disk":
        return str(tmp_path / name)
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.use(monkeypatch)
    return f"s3://archive/{name}"
