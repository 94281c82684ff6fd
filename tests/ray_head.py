"""A Ray head of its own for a test: another process, as on a cluster, with a dashboard and a token.

It has its own ports and folder, and is ended by its process group: another Ray on this machine
does not notice.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_LONGEST_START_S = 120.0


@dataclass(frozen=True, kw_only=True)
class RayHead:
    """A running head: URL of its dashboard, address of its GCS, its token and process."""

    url: str
    address: str
    token: str
    process: subprocess.Popen[bytes]


@contextmanager
def ray_head(
    *arguments: str,
    num_cpus: int = 2,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[RayHead]:
    """Start a head that finds this repository's ctray, and end it; `port` is that of its GCS."""
    # Sockets live in there: the path must be short.
    folder = Path(tempfile.mkdtemp(prefix="ct-", dir="/tmp"))
    token = secrets.token_hex(32)
    gcs = port or free_port()
    dashboard, client, agent = (free_port() for _ in range(3))
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *(f"--port={gcs}", f"--ray-client-server-port={client}", f"--temp-dir={folder}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--num-cpus={num_cpus}"),
        # Jobs are started by the agent, whose usual port another Ray on this machine may have.
        f"--dashboard-agent-listen-port={agent}",
        f"--object-store-memory={100 * 2**20}",
        *arguments,
    ]
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # Else it waits half a minute for work that ends by itself.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        **(environment or {}),
    }
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        variables.pop(name, None)
    log = folder / "head.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=variables, stdout=stream, stderr=stream, start_new_session=True
        )
    head = RayHead(
        url=f"http://127.0.0.1:{dashboard}",
        address=f"127.0.0.1:{gcs}",
        token=token,
        process=process,
    )
    try:
        _wait_for(head, log)
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            _end_group(process.pid)
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(head: RayHead, log: Path) -> None:
    headers = {"Authorization": f"Bearer {head.token}"}
    request = urllib.request.Request(f"{head.url}/api/jobs/", headers=headers)  # noqa: S310
    until = time.monotonic() + _LONGEST_START_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
            return
        except OSError as error:
            if head.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no head: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.2)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
