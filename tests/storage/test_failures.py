"""What a store refuses or cannot do becomes one clear line, soon."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctray.core.errors import (
    AccessError,
    ConfigError,
    CtrayError,
    DiskFullError,
    KeysError,
    NotFoundError,
    StorageError,
)
from ctray.core.geometry import Box
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SIDE = 64


def create(url: str) -> Any:
    return create_volume(url, shape=(SIDE,) * 3, dtype=np.uint16, voxel_size=None, num_levels=1)


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2**16, (SIDE,) * 3, dtype=np.uint16)


def whole() -> Box:
    return Box.whole((SIDE,) * 3)


def failure_of(call: Callable[[], object], kind: type[CtrayError]) -> str:
    """Message of the error, after checking that it is one line of sensible length."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


CALLS: dict[str, Callable[[str], object]] = {
    "read": store.read_bytes,
    "write": lambda url: store.write_bytes(url, b"1"),
    "list": store.list_dir,
    "exists": store.exists,
    "remove": store.delete_tree,
    "open": open_volume,
    "create": create,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("variable", "code"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKey")],
)
def test_wrong_keys(
    ceph: object, monkeypatch: pytest.MonkeyPatch, call: str, variable: str, code: str
) -> None:
    monkeypatch.setenv(variable, "wrong")
    # A HEAD request has no body that could carry the code.
    kind = AccessError if call == "exists" else KeysError
    text = failure_of(lambda: CALLS[call]("s3://archive/x"), kind)
    assert "s3://archive/x" in text
    assert code in text or call == "exists"


def test_keys_are_asked_for_anew(ceph: object, monkeypatch: pytest.MonkeyPatch) -> None:
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    store.write_bytes("s3://archive/keys", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    failure_of(lambda: store.read_bytes("s3://archive/keys"), AccessError)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", right)
    assert store.read_bytes("s3://archive/keys") == b"1"


@pytest.mark.parametrize("call", ["read", "write", "list", "open", "create"])
def test_missing_bucket(ceph: object, call: str) -> None:
    text = failure_of(lambda: CALLS[call]("s3://no-such-bucket/x"), NotFoundError)
    assert "bucket does not exist" in text
    assert not store.exists("s3://no-such-bucket/x")


@pytest.mark.parametrize("call", ["read", "write", "list", "open", "create"])
def test_no_server(ceph: object, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    text = failure_of(lambda: CALLS[call]("s3://archive/x"), StorageError)
    assert "does not answer" in text


def test_frozen_server(ceph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRAY_S3_TIMEOUT_S", "0.3")
    monkeypatch.setenv("CTRAY_S3_RETRIES", "1")
    url = "s3://archive/frozen.zarr"
    written = create(url)
    written.write(whole(), noise())
    written.commit({})
    volume = open_volume(url)
    other = create("s3://archive/frozen-too.zarr")
    ceph.freeze()
    try:
        for call in (
            lambda: volume.read(whole()),
            lambda: other.write(whole(), noise()),
            lambda: store.read_json(url + "/zarr.json"),
            lambda: store.write_bytes(url + "/note", b"1"),
            lambda: store.list_dir(url),
        ):
            started = time.monotonic()
            assert "does not answer" in failure_of(call, StorageError)
            assert time.monotonic() - started < 5
    finally:
        ceph.thaw()
    np.testing.assert_array_equal(volume.read(whole()), noise())


def test_environment_that_makes_no_sense(ceph: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRAY_S3_TIMEOUT_S", "soon")
    assert "'soon'" in failure_of(lambda: store.read_bytes("s3://archive/x"), ConfigError)
    failure_of(lambda: store.read_bytes("s3:///x"), ConfigError)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a small file system is not permitted: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_full_disk(small_disk: Path) -> None:
    url = str(small_disk / "v.zarr")
    voxels = noise()
    # Half a megabyte of noise fits once, not twice.
    writer = create(url)
    writer.write(whole(), voxels)
    text = failure_of(lambda: create(url + "2").write(whole(), np.roll(voxels, 1)), DiskFullError)
    # 64³ voxels of 2 bytes are 0.5 MiB; the first volume stays whole.
    assert "no space left" in text
    writer.commit({})
    np.testing.assert_array_equal(open_volume(url).read(whole()), voxels)
    failure_of(lambda: store.write_bytes(str(small_disk / "big"), b"x" * 2**20), DiskFullError)
    assert not list(small_disk.rglob("*.partial*"))
    assert not is_committed(url + "2")


def test_folder_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "file").write_bytes(b"")
        # Root may write anywhere; a file in the way refuses everybody.
        failure_of(lambda: store.write_bytes(str(tmp_path / "file" / "x"), b"1"), StorageError)
        return
    tmp_path.chmod(0o500)
    failure_of(lambda: store.write_bytes(str(tmp_path / "x"), b"1"), AccessError)


def test_unknown_kind_of_url() -> None:
    assert "nonsense" in failure_of(lambda: store.read_bytes("nonsense://x/y"), StorageError)


def test_defects_are_not_disguised() -> None:
    with pytest.raises(ZeroDivisionError), store.mapped_errors("memory://x"):
        _ = 1 / 0


def test_spellings_of_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.normalize("a/") == str(tmp_path / "a")
    assert store.normalize(f"file://{tmp_path}/a") == str(tmp_path / "a")
    assert store.normalize("s3://b/k/") == "s3://b/k"
    assert store.join("s3://b/", "/k/", "", "l") == "s3://b/k/l"
    assert store.is_local("a")
    assert not store.is_local("memory://a")
