"""Listings of object stores: without end, by broken endpoints, and with odd names."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile
from s3_servers import S3Server

from ctray.archive.catalog import build_catalog
from ctray.core.errors import ConfigError, StorageError
from ctray.storage import s3_listing, store

_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name>
<Prefix></Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>
<NextContinuationToken>{token}</NextContinuationToken>{objects}</ListBucketResult>"""
_OBJECT = "<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;0&quot;</ETag>\
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"


@pytest.fixture
def endless(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[int], list[str]]], None]]:
    """Serve pages of keys, a page number to keys, each with a next one."""
    keys: Callable[[int], list[str]] = lambda _: []  # noqa: E731
    count = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal count
            count += 1
            objects = "".join(_OBJECT.format(key=key) for key in keys(count))
            body = _PAGE.format(token=f"t{count}", objects=objects).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def serve(new: Callable[[int], list[str]]) -> None:
        nonlocal keys
        keys = new

    yield serve
    server.shutdown()
    server.server_close()


def test_the_same_page_again_and_again(
    endless: Callable[[Callable[[int], list[str]]], None],
) -> None:
    endless(lambda _: ["scans/a.tif", "scans/b.tif"])
    with pytest.raises(StorageError, match=r"s3://archive/scans.*does not end"):
        store.list_dir("s3://archive/scans")
    with pytest.raises(StorageError, match="does not end"):
        store.tree_bytes("s3://archive/scans")


def test_new_names_for_ever(
    endless: Callable[[Callable[[int], list[str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "_MAX_PAGES", 20)
    endless(lambda page: [f"scans/{page}_{i}.tif" for i in range(2)])
    with pytest.raises(StorageError, match=r"does not end \(page 21\)"):
        store.list_dir("s3://archive/scans")


def test_pages_without_names_for_ever(
    endless: Callable[[Callable[[int], list[str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "_MAX_PAGES", 20)
    endless(lambda _: [])
    with pytest.raises(StorageError, match="does not end"):
        store.list_dir("s3://archive/scans")


@pytest.mark.parametrize(
    "text", ["notaurl", "localhost:9000", "ftp://host", "http://", "http://h:x"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_no_url(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    for call in (store.list_dir, store.exists, store.read_bytes):
        with pytest.raises(ConfigError, match=rf"{name}='{text}' is no URL"):
            call("s3://archive/scans")


# --- names on a store that works ----------------------------------------------------------------

NAMES = ("昆虫", "a b", "a%20b", "a+b", "x#y", "q?", "-n", "[z]", "star*", "µ", "back\\s")


def test_names_that_a_store_takes_are_found_and_told(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    moto_server.use(monkeypatch)
    client = boto3.client("s3", endpoint_url=moto_server.endpoint)
    data = io.BytesIO()
    tifffile.imwrite(data, np.zeros((6, 7, 8), np.uint16), photometric="minisblack")
    for key in (*(f"names/{name}.tif" for name in NAMES), "names/a//lost.tif"):
        client.put_object(Bucket="archive", Key=key, Body=data.getvalue())
    catalog = build_catalog("s3://archive/names")
    assert {e.url for e in catalog.ok} == {f"s3://archive/names/{name}.tif" for name in NAMES}
    assert len(catalog) == len(NAMES)
    (left,) = catalog.without_volume
    assert left.reason.startswith("s3://archive/names/a: skipped, keys with two slashes in a row")
    for entry in catalog:
        assert store.read_bytes(entry.url) == data.getvalue()
        # Ids are names of objects, too.
        store.write_json(f"s3://archive/ids/{entry.volume_id}.json", {})
    found = {e.name for e in store.list_dir("s3://archive/ids")}
    assert found == {f"{entry.volume_id}.json" for entry in catalog}
