"""The nightly job against an HTTPS server that keeps RayJobs as an API server does."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SCRIPT = Path(__file__).resolve().parents[2] / "k8s" / "base" / "nightly.py"
TOKEN = "a-token-of-the-account"
PATH = "/apis/ray.io/v1/namespaces/nights/rayjobs"


class RayJobs(ThreadingHTTPServer):
    """RayJobs by name; refuses whoever has no token."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.jobs: dict[str, dict[str, Any]] = {}

    def add(self, name: str, status: str | None = None, *, copy: bool = True) -> None:
        made = f"2026-03-{len(self.jobs) + 1:02d}T20:00:00Z"
        self.jobs[name] = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": name, "creationTimestamp": made, "resourceVersion": "7"},
            "spec": {"suspend": True, "entrypoint": "python job.py", "backoffLimit": 2},
            "status": {} if status is None else {"jobDeploymentStatus": status},
        }
        if copy:
            self.jobs[name]["metadata"]["labels"] = {"ctray/copy-of": "archive"}


class _Handler(BaseHTTPRequestHandler):
    server: RayJobs

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name of the base class
        pass

    def answer(self, code: int, body: Any) -> None:
        if code >= 400:
            body = {"kind": "Status", "code": code, "message": body}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def allowed(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self.answer(401, "Unauthorized")
        return False

    def do_GET(self) -> None:
        if not self.allowed():
            return
        asked = re.fullmatch(f"{PATH}\\?labelSelector=ctray/copy-of%3D(.*)", self.path)
        if asked is not None:
            jobs = self.server.jobs.values()
            labels = {"ctray/copy-of": asked[1]}
            items = [job for job in jobs if job["metadata"].get("labels") == labels]
            self.answer(200, {"items": items})
            return
        name = self.path.removeprefix(f"{PATH}/")
        if name in self.server.jobs:
            self.answer(200, self.server.jobs[name])
        else:
            self.answer(404, f'rayjobs.ray.io "{name}" not found')

    def do_DELETE(self) -> None:
        if self.allowed():
            self.answer(200, self.server.jobs.pop(self.path.removeprefix(f"{PATH}/")))

    def do_POST(self) -> None:
        if not self.allowed():
            return
        assert self.path == PATH
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.jobs[job["metadata"]["name"]] = job
        self.answer(201, job)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def api(certificate: Path) -> Iterator[RayJobs]:
    with RayJobs(certificate) as server:
        server.add("archive", copy=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


Night = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def night(api: RayJobs, certificate: Path, tmp_path: Path) -> Night:
    """Runs the script with an account's folder, as in its pod."""
    text = certificate.read_text()
    (tmp_path / "ca.crt").write_text(text[text.index("-----BEGIN CERTIFICATE") :])
    (tmp_path / "namespace").write_text("nights\n")

    def run(template: str = "archive", token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        (tmp_path / "token").write_text(token)
        host, port = api.server_address[:2]
        return subprocess.run(
            [sys.executable, "-I", str(SCRIPT), template, "night", str(tmp_path)],
            env={"KUBERNETES_SERVICE_HOST": str(host), "KUBERNETES_SERVICE_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_night_starts_a_copy(api: RayJobs, night: Night) -> None:
    done = night()
    assert done.returncode == 0, done.stderr
    (name,) = api.jobs.keys() - {"archive"}
    assert done.stdout == f"started {name}\n"
    assert re.fullmatch(r"night-\d{8}-\d{4}", name)
    assert api.jobs[name] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": {"ctray/copy-of": "archive"}},
        "spec": {"suspend": False, "entrypoint": "python job.py", "backoffLimit": 2},
    }


@pytest.mark.parametrize("status", [None, "Running", "Initializing", "Retrying"])
def test_nothing_is_started_beside_a_copy_that_runs(
    api: RayJobs, night: Night, status: str | None
) -> None:
    api.add("night-1", status)
    done = night()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "night-1 still runs: nothing is started\n"
    assert api.jobs.keys() == {"archive", "night-1"}


def test_a_job_of_somebody_else_does_not_hold_the_night_up(api: RayJobs, night: Night) -> None:
    api.add("theirs", "Running", copy=False)
    assert night().stdout.startswith("started night-")


def test_the_oldest_finished_copies_are_deleted(api: RayJobs, night: Night) -> None:
    for i in range(9):
        api.add(f"night-{i}", "Complete" if i % 2 else "Failed")
    assert night().returncode == 0
    kept = {name for name in api.jobs if re.fullmatch(r"night-\d", name)}
    assert kept == {f"night-{i}" for i in range(2, 9)}


def test_errors_are_one_line(api: RayJobs, night: Night) -> None:
    missing = night(template="archives")
    assert missing.returncode == 1
    expected = 'error: the API server refused: 404 rayjobs.ray.io "archives" not found\n'
    assert missing.stderr == expected
    refused = night(token="another")
    assert refused.returncode == 1
    assert refused.stderr == "error: the API server refused: 401 Unauthorized\n"
    assert api.jobs.keys() == {"archive"}
