"""A store that fails now and then is survived; one that fails on and on is one line, soon."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from faulty_proxy import KINDS, FaultyProxy, faulty_proxy
from s3_servers import S3Server

from ctray.core.errors import StoreUnavailableError
from ctray.core.geometry import Box
from ctray.core.grid import ShardGrid
from ctray.localization.python_crop import crop
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SIDE = 32


def noise(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 2**16, (side,) * 3, dtype=np.uint16)


def write(url: str, side: int = SIDE) -> None:
    voxels = noise(side)
    grid = ShardGrid.choose(voxels.shape, chunk=(side // 2,) * 3, shard=(side,) * 3)
    writer = create_volume(
        url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None, num_levels=2, grid=grid
    )
    writer.write(Box.whole(voxels.shape), voxels)
    writer.build_pyramid()
    writer.commit({})


def through_a_file(url: str) -> bytes:
    """As file formats are read that need an open file."""
    with store.mapped_errors(url, "read"), store.open_binary(url) as file:
        return bytes(file.read())


def whole(url: str) -> np.ndarray:
    return np.asarray(open_volume(url).read_level(0))


@pytest.fixture
def proxied(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., FaultyProxy]]:
    """Starts a proxy before moto, with which S3 is then reached."""
    monkeypatch.setenv("CTRAY_S3_TIMEOUT_S", "0.7")
    monkeypatch.setenv("CTRAY_S3_RETRIES", "2")
    moto_server.use(monkeypatch)
    with ExitStack() as stack:

        def start(**options: object) -> FaultyProxy:
            proxy = stack.enter_context(faulty_proxy(moto_server.endpoint, **options))  # type: ignore[arg-type]
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return proxy

        yield start


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_now_and_then_is_survived(proxied: Callable[..., FaultyProxy], kind: str) -> None:
    """Every request fails once in this way, and none of it shows."""
    proxy = proxied(kinds=(kind,), times=1)
    base = f"s3://archive/{uuid.uuid4().hex}"
    url = f"{base}/v.zarr"
    write(url)
    np.testing.assert_array_equal(whole(url), noise())
    crop(open_volume(url), Box(start=(3, 0, 5), stop=(20, 16, 32)), f"{base}/crop.zarr")
    made = open_volume(f"{base}/crop.zarr")
    box = Box.from_ranges(made.attributes["crop_box"])
    np.testing.assert_array_equal(made.read_level(0), noise()[box.slices])
    assert len(list(store.list_tree(url))) == 5
    store.write_bytes(f"{base}/note", b"12345")
    assert through_a_file(f"{base}/note") == b"12345"
    assert proxy.injected[kind] > 15


@pytest.mark.parametrize("seed", range(3))
def test_two_faults_of_any_kind_are_survived(
    proxied: Callable[..., FaultyProxy], seed: int
) -> None:
    proxy = proxied(seed=seed, kinds=tuple(k for k in KINDS if k != "freeze"), times=2)
    # What happens to a request follows from its name: the same in every run.
    url = f"s3://archive/two-faults-{seed}/v.zarr"
    write(url)
    np.testing.assert_array_equal(whole(url), noise())
    assert sum(proxy.injected.values()) > 20


def test_an_upload_in_parts_that_the_store_forgot(
    proxied: Callable[..., FaultyProxy], moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be called off either, and "not found" is what the client says of that."""
    url = f"s3://archive/{uuid.uuid4().hex}/v.zarr"
    calls_off = proxied(kinds=("lost answer",), times=1, only="uploadId=")
    with faulty_proxy(
        calls_off.endpoint, kinds=("500",), times=None, only="partNumber="
    ) as takes_no_part:
        monkeypatch.setenv("AWS_ENDPOINT_URL", takes_no_part.endpoint)
        with pytest.raises(StoreUnavailableError, match="an upload broke off"):
            write(url, side=160)
    assert takes_no_part.injected["500"] > 1
    assert calls_off.injected["lost answer"] == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    write(url, side=160)
    np.testing.assert_array_equal(whole(url), noise(160))


CALLS: dict[str, Callable[[str], object]] = {
    "voxels": whole,
    "crop": lambda url: crop(open_volume(url), Box.whole((SIDE,) * 3), url + "-crop"),
    "put": lambda url: store.write_bytes(url + "/note", b"1"),
    "list": lambda url: list(store.list_tree(url)),
    "exists": lambda url: store.exists(url + "/zarr.json"),
    "file": lambda url: through_a_file(url + "/zarr.json"),
}


# Bodies that are cut are resumed where they broke off, and come to their end.
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("delay", "cut")])
def test_a_store_that_fails_on_is_told_soon(proxied: Callable[..., FaultyProxy], kind: str) -> None:
    proxy = proxied(kinds=(kind,), times=None)
    proxy.enabled = False
    url = f"s3://archive/{uuid.uuid4().hex}/v.zarr"
    write(url)
    proxy.enabled = True
    for name, call in CALLS.items():
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            call(url)
        assert time.monotonic() - began < 15, name
        text = str(caught.value)
        assert text.startswith("s3://archive/")
        assert "\n" not in text
        assert len(text) < 600
