"""Servers that speak S3: moto in this process, and a real Ceph gateway."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = Path(os.environ.get("CTRAY_S3_SCRIPTS", REPOSITORY.parent / "shared" / "s3"))


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running S3 server with one empty bucket named "archive"."""

    endpoint: str
    key: str
    secret: str
    folder: Path | None = None

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def make_bucket(self) -> None:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )
        with closing(client):
            client.create_bucket(Bucket="archive")

    def freeze(self) -> None:
        os.kill(self._pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid(), signal.SIGCONT)

    def kill(self) -> None:
        """The gateway dies; what it stored stays."""
        os.kill(self._pid(), signal.SIGKILL)

    def start_again(self) -> None:
        """The gateway that was killed, at the same address."""
        assert self.folder is not None
        with (self.folder.parent / "start.log").open("ab") as log:
            subprocess.run(
                ["bash", SCRIPTS / "start-rgw.sh", self.folder],
                stdout=log,
                stderr=log,
                check=True,
                env={**os.environ, "RGW_ONLY": "1"},
            )

    def _pid(self) -> int:
        assert self.folder is not None
        return int((self.folder / "rgw.pid").read_text())


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made = S3Server(endpoint=f"http://{host}:{port}", key="any", secret="any")
    made.make_bucket()
    yield made
    server.stop()


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if shutil.which("radosgw") is None:
        pytest.skip("no Ceph gateway: the program radosgw is not installed")
    if not (SCRIPTS / "start-rgw.sh").is_file():
        pytest.skip("no start-rgw.sh: set CTRAY_S3_SCRIPTS to its folder")
    folder = tmp_path_factory.mktemp("ceph") / "rgw"
    with (folder.parent / "start.log").open("wb") as log:
        # To a file: the daemons inherit a pipe and would keep it open for ever.
        subprocess.run(
            ["bash", SCRIPTS / "start-rgw.sh", folder], stdout=log, stderr=log, check=True
        )
    try:
        lines = (folder / "env").read_text().splitlines()
        found = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        server = S3Server(
            endpoint=found["AWS_ENDPOINT_URL"],
            key=found["AWS_ACCESS_KEY_ID"],
            secret=found["AWS_SECRET_ACCESS_KEY"],
            folder=folder,
        )
        server.make_bucket()
        yield server
    finally:
        subprocess.run(["bash", SCRIPTS / "stop-rgw.sh", folder], check=True, capture_output=True)
