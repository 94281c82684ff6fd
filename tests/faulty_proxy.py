"""A real HTTP proxy that stands before an S3 server and spoils answers by a seeded plan."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

# What can happen to a request.
KINDS = ("500", "503", "delay", "reset", "lost answer", "cut", "freeze")
_DELAY_S = 0.1
# Hop by hop; the rest is passed on as it is, or signatures would not fit.
_OWN = {"connection", "transfer-encoding", "keep-alive"}


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on; those of one kind for one object fail `times` times first.

    Parameters
    ----------
    upstream
        Endpoint of the server behind it.
    seed
        The same request meets the same faults, in whatever order requests come.
    kinds
        What may happen.
    times
        How often the same request fails before it is let through; None lets none through.
    only
        Only requests that contain this fail.
    """

    daemon_threads = True

    def __init__(
        self,
        upstream: str,
        *,
        seed: int = 0,
        kinds: tuple[str, ...] = KINDS,
        times: int | None = 1,
        only: str = "",
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.seed, self.kinds, self.times = seed, kinds, times
        self.only = only
        self.enabled = True
        self.injected: Counter[str] = Counter()
        self.over = threading.Event()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, request: str) -> str | None:
        """What happens to a request now."""
        if not self.enabled or self.only not in request:
            return None
        with self._lock:
            number = self._seen[request]
            if self.times is not None and number >= self.times:
                return None
            self._seen[request] += 1
            rng = np.random.default_rng([self.seed, zlib.crc32(request.encode()), number])
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            self.injected[kind] += 1
            return kind

    def has_met(self, part: str) -> bool:
        """Whether a request that contains `part` failed."""
        with self._lock:
            return any(part in request for request in self._seen)

    def release(self) -> None:
        """Cut off what is frozen now; its client tries again."""
        frozen, self.over = self.over, threading.Event()
        frozen.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away meanwhile are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # Without its range: what resumes a body that broke off is no new request.
        kind = self.server.fault(f"{self.command} {self.path}")
        if kind in ("500", "503"):
            self._refuse(int(kind))
        elif kind == "reset":
            self._reset()
        elif kind == "freeze":
            self.server.over.wait(30)
            self._reset()
        else:
            if kind == "delay":
                time.sleep(_DELAY_S)
            self._forward(body, kind)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

    def _forward(self, body: bytes, kind: str | None) -> None:
        link = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OWN:
                    link.putheader(name, value)
            link.endheaders(body)
            answer = link.getresponse()
            data = answer.read()
        finally:
            link.close()
        if kind == "lost answer":
            # Done, and nobody knows: a repeat must do no harm.
            self._reset()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {*_OWN, "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._close()
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int) -> None:
        code = {500: "InternalError", 503: "SlowDown"}[status]
        data = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._close()

    def _close(self) -> None:
        self.close_connection = True
        self.connection.close()


@contextmanager
def faulty_proxy(
    upstream: str,
    *,
    seed: int = 0,
    kinds: tuple[str, ...] = KINDS,
    times: int | None = 1,
    only: str = "",
) -> Iterator[FaultyProxy]:
    """A proxy that serves while the block runs."""
    proxy = FaultyProxy(upstream, seed=seed, kinds=kinds, times=times, only=only)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
