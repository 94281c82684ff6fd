"""Jobs on a real cluster: a head with token authentication, on real data of a Ceph gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from faulty_proxy import faulty_proxy
from ray_head import RayHead, free_port, ray_head
from s3_servers import S3Server

from ctray.cli.main import cli
from ctray.cluster.job_log import parse_line
from ctray.cluster.orders import job_id, make_order
from ctray.cluster.submit import Cluster, lines_of, why_failed
from ctray.config import RunConfig, parse_config
from ctray.core.errors import AccessError, ConfigError, JobError, NotFoundError
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.learn.pretext.checkpoint import save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline.run import catalog_stage, open_run
from ctray.pipeline.verifying import verify_run
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.storage import store

ARCHIVE, RUN = "s3://archive/jobs/scans", "s3://archive/jobs/run"
NUM_VOLUMES, SIDE = 5, 24


@dataclass(frozen=True, kw_only=True)
class Site:
    """A cluster that has the keys of a store, and settings of a job in a file."""

    head: RayHead
    server: S3Server
    config: RunConfig
    file: Path
    secrets: tuple[str, ...]


@pytest.fixture(scope="module")
def site(
    shared_ray: Any,
    ceph_server: S3Server,
    settings_of: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    shared_ray.end()
    settings = settings_of(
        localize={"threshold": "otsu", "min_peak": 0.0},
        pool={"num_cpus": 0.5, "max_size": 1},
        job={"run": RUN, "log_format": "json", "env": {"CTRAY_S3_RETRIES": "2"}},
    )
    file = tmp_path_factory.mktemp("job") / "localize.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        ceph_server.use(patch)
        # The environment of the nodes, as a Secret makes it.
        with ray_head() as head:
            patch.setenv("RAY_AUTH_TOKEN", head.token)
            patch.setenv("RAY_API_SERVER_ADDRESS", head.url)
            yield Site(
                head=head,
                server=ceph_server,
                config=parse_config(settings),
                file=file,
                secrets=(ceph_server.key, ceph_server.secret, head.token),
            )


@pytest.fixture(scope="module")
def trained(site: Site) -> RunFolder:
    """A run whose training is done, as far as its files tell."""
    options = {"size": SIDE, "reconstruction_circle": False}
    write_phantoms(ARCHIVE, count=NUM_VOLUMES, **options)
    run = open_run(ARCHIVE, RUN, site.config)
    catalog_stage(run, ARCHIVE, site.config)
    trainer = Trainer(site.config, SIDE)
    trainer.step = site.config.train.steps
    save_checkpoint(run.checkpoint, trainer)
    return run


def ctray(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_refused_twice_stopped_and_resumed(
    site: Site, trained: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    cluster = Cluster(site.head.url)
    first = check_a_cluster_without_ctray(cluster, site)
    second = check_a_cluster_without_gpus(site)
    assert (first, second) == (job_id(RUN), job_id(RUN, 2))

    third = job_id(RUN, 3)
    last = f"embryo-{NUM_VOLUMES - 1:04d}"
    # Its last crop never comes to an end: the job is not done before it is stopped.
    with faulty_proxy(
        site.server.endpoint, kinds=("freeze",), times=None, only=f"/crops/{last}"
    ) as proxy:
        order = make_order("localize", site.config)
        through = replace(order, env={**order.env, "AWS_ENDPOINT_URL": proxy.endpoint})
        assert cluster.submit(through) == third
        with closing(cluster.follow(third)) as lines:
            seen = next(e for e in map(parse_line, lines) if isinstance(e, Event) and e.volume_id)
        assert (seen.stage, seen.total, seen.status) == ("localize", NUM_VOLUMES, "located")
        again = ctray("submit", "localize", "--config", site.file)
        assert again.exit_code == 1
        assert f"error: {third} is running" in again.stderr
        stopped = ctray("jobs", "stop", RUN, "--json")
        assert json.loads(stopped.stdout)["status"] == "STOPPED", stopped.stderr
    before = receipts_of(trained)
    done_before = {Path(key).stem for key in before}
    assert seen.volume_id in done_before
    assert last not in done_before

    done = ctray("submit", "localize", "--config", site.file)
    assert done.exit_code == 0, done.stderr
    fourth = job_id(RUN, 4)
    assert f"submitted {fourth} to {site.head.url}" in done.stderr
    assert f"{fourth}: SUCCEEDED" in done.stdout
    assert f"{NUM_VOLUMES} located" in done.stderr
    after = receipts_of(trained)
    assert len(after) == NUM_VOLUMES
    assert {key: after[key] for key in before} == before, "what was done stays done"
    checks = list(verify_run(trained, sources=True))
    assert [c.problem for c in checks] == [None] * NUM_VOLUMES
    check_what_is_told(cluster, site, fourth)


def check_a_cluster_without_ctray(cluster: Cluster, site: Site) -> str:
    """A path without its program is what an image without ctray comes to."""
    order = make_order("localize", site.config)
    submission_id = cluster.submit(replace(order, env={"PATH": "/usr/bin:/bin"}))
    lines = list(cluster.follow(submission_id))
    job = cluster.ended(submission_id)
    assert (job.status, job.exit_code) == ("FAILED", 127)
    assert "the image of the cluster has no ctray" in why_failed(job, lines)
    return submission_id


def check_a_cluster_without_gpus(site: Site) -> str:
    failed = ctray("submit", "localize", "--config", site.file, "--set", "pool.num_gpus=1")
    assert failed.exit_code == 1, failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert "needs 1 GPUs and Ray has 0; lower pool.num_gpus or add nodes with a GPU" in last
    submission_id, _, status = failed.stdout.strip().rpartition(": ")
    assert status == "FAILED"
    return submission_id


def check_what_is_told(cluster: Cluster, site: Site, submission_id: str) -> None:
    """Status, list and logs; JSON lines that name run and job, and no key in any of it."""
    status = ctray("jobs", "status", RUN, "--json")
    told = json.loads(status.stdout)
    assert (told["id"], told["status"], told["exit_code"]) == (submission_id, "SUCCEEDED", 0)
    assert told["progress"].startswith("report "), "the last stage"
    listed = json.loads(ctray("jobs", "list", "--json").stdout)
    assert [job["id"] for job in listed] == [job_id(RUN, n) for n in (4, 3, 2, 1)]
    assert [job["status"] for job in listed] == ["SUCCEEDED", "STOPPED", "FAILED", "FAILED"]
    logs = ctray("jobs", "logs", submission_id).stdout
    documents = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
    assert {(d["run"], d["job"]) for d in documents} == {(RUN, submission_id)}
    (total,) = {d["total"] for d in documents if "volume_id" in d}
    assert sum("volume_id" in d for d in documents) == total
    everything = logs + status.stdout + json.dumps(listed)
    assert not [secret for secret in site.secrets if secret in everything]
    with pytest.raises(NotFoundError, match="has no job s3://archive/other"):
        cluster.find("s3://archive/other")


def receipts_of(run: RunFolder) -> dict[str, bytes]:
    keys = [key for key, _ in store.list_tree(run.at("receipts"))]
    return {key: store.read_bytes(run.at("receipts", key)) for key in keys}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("token", "said"), [("", "asks for a token"), ("x" * 64, "refuses the")])
def test_a_token_is_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, token: str, said: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(AccessError, match=f"{said}.*set RAY_AUTH_TOKEN"):
        Cluster(site.head.url)


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Serves one answer to everything, at the URL that it returns."""
    servers: list[HTTPServer] = []

    def serve(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b'{"ray_version": "2.9.3"}', r"runs Ray 2\.9\.3 and ctray here needs Ray 2\.60"),
        (200, b"<html>", "is no Ray dashboard"),
        (200, b"[]", "is no Ray dashboard"),
        (404, b"", "is no Ray dashboard: it answers 404"),
    ],
)
def test_what_is_no_cluster_of_ours(
    answering: Callable[[int, bytes], str], status: int, body: bytes, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        Cluster(answering(status, body))


def test_no_cluster_at_the_address() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(JobError, match=f"no cluster answers at {address}.*--address"):
        Cluster(address)


@pytest.mark.parametrize("address", ["head:8265", "127.0.0.1", "ray://head:10001"])
def test_an_address_is_a_dashboard(address: str) -> None:
    with pytest.raises(
        ConfigError, match="is not a URL; give that of the dashboard, such as http://"
    ):
        Cluster(address)


def config_of_job(**job: Any) -> RunConfig:
    return parse_config({"job": job, "ray": {"num_cpus": 2}, "pool": {"max_size": 9}})


def test_what_is_sent_is_what_was_given() -> None:
    order = make_order(
        "archive",
        config_of_job(archive=ARCHIVE, run=f"{RUN}/", env={"AWS_ENDPOINT_URL": "http://x"}),
    )
    # Settings of this machine's session are nobody else's.
    assert yaml.safe_load(order.settings) == {
        "pool": {"max_size": 9},
        "job": {"archive": ARCHIVE, "run": f"{RUN}/"},
    }
    assert (order.run, order.env) == (RUN, {"AWS_ENDPOINT_URL": "http://x"})
    assert order.entrypoint == "ctray jobs run archive"


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"run": RUN}, "no archive: set job.archive"),
        ({"archive": ARCHIVE}, "no run: set job.run"),
        ({"archive": "scans", "run": RUN}, "job.archive scans is a relative path"),
        ({"archive": ARCHIVE, "run": "../run"}, "job.run ../run is a relative path"),
    ],
)
def test_an_order_that_no_cluster_could_follow(job: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_order("archive", config_of_job(**job))


def test_localizing_needs_no_archive() -> None:
    assert make_order("localize", config_of_job(run="/data/run")).run == "/data/run"


def test_ids_are_those_of_the_run() -> None:
    names = ["s3://b/run", "s3://b/other/run", "/data/" + "ä long Name, " * 20, "s3://b/-", "/x/1"]
    ids = [job_id(name) for name in names]
    assert len(set(ids)) == len(ids)
    for name, found in zip(names, ids, strict=True):
        assert found == job_id(f"{name}/")
        # What Kubernetes takes as the name of a RayJob, with the number of a late attempt.
        assert len(job_id(name, 9999)) <= 47
        assert all(c.isascii() and (c.isalnum() or c == "-") for c in found)
        assert found == found.lower()
        assert job_id(name, 2) == f"{found}-2"


def test_a_key_in_a_configuration_is_refused_and_not_told() -> None:
    for job in ({"env": {"AWS_SECRET_ACCESS_KEY": "hush"}}, {"run": "s3://me:hush@bucket/x"}):
        with pytest.raises(ConfigError, match="environment") as caught:
            parse_config({"job": job})
        assert "hush" not in str(caught.value)


def test_an_unknown_key_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "archive.yaml"
    file.write_text("job: {archve: s3://b/x}", encoding="utf-8")
    done = ctray("submit", "archive", "--config", file, "--address", "http://127.0.0.1:1")
    assert done.exit_code == 2
    assert done.stderr == f"error: {file}: unknown key job.archve; did you mean archive?\n"


def test_keys_that_a_node_misses_are_told_with_the_remedy(
    ceph_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceph_server.use(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CTRAY_JOB_SETTINGS", f"job: {{run: {RUN}}}")
    monkeypatch.setenv("CTRAY_JOB_ID", "ctray-run-1")
    done = ctray("jobs", "run", "localize")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert RUN in done.stderr
    assert "from the environment of the cluster's nodes (on Kubernetes: a Secret)" in done.stderr


# --- following a log -------------------------------------------------------------------------


def test_lines_come_whole_out_of_any_chunks() -> None:
    async def chunks() -> AsyncIterator[str]:
        for chunk in ("one\ntw", "o\n", "\nthr", "ee"):
            yield chunk

    assert list(lines_of(chunks())) == ["one", "two", "", "three"]


def test_ctrl_c_while_a_log_is_silent_is_an_interrupt_and_nothing_else() -> None:
    ended = []

    async def chunks() -> AsyncIterator[str]:
        try:
            yield "one\n"
            asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(600)
        finally:
            ended.append(True)

    lines = lines_of(chunks())
    assert next(lines) == "one"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(lines)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]


def test_whoever_stops_listening_ends_the_connection() -> None:
    ended = []

    async def chunks() -> AsyncIterator[str]:
        try:
            while True:
                yield "on and on\n"
        finally:
            ended.append(True)

    lines = lines_of(chunks())
    next(lines)
    lines.close()
    assert ended == [True]


def test_a_cluster_that_does_not_answer_is_told_without_loading_ray() -> None:
    code = (
        "import sys\n"
        "from ctray.cli.main import cli\n"
        "try:\n"
        "    cli(sys.argv[1:], prog_name='ctray')\n"
        "finally:\n"
        "    print([m for m in ('ray', 'torch') if m in sys.modules], file=sys.stderr)\n"
    )
    address = ("--address", f"http://127.0.0.1:{free_port()}")
    places = ("--archive", "s3://a/scans", "--out", "s3://a/run")
    for words in (("jobs", "list"), ("jobs", "status", "x"), ("submit", "archive", *places)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, *address], capture_output=True, text=True
        )
        assert done.returncode == 1
        *_, error, loaded = done.stderr.splitlines()
        assert error.startswith("error: no cluster answers at ")
        assert loaded == "[]"
