"""The entry points that a cluster runs, as it runs them: as scripts of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctray.config import parse_config
from ctray.engine.archive import open_run
from ctray.engine.jobs import localize_job
from ctray.errors import ConfigError, NotFoundError
from ctray.storage import store
from ctray.storage.box_table import read_localizations
from ctray.storage.phantoms import write_phantoms
from ctray.storage.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def short_folder(shared_ray: Any) -> Iterator[str]:
    """A folder for Ray's sockets; no other session of this process takes time."""
    shared_ray.end()
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield folder


def job(name: str, *arguments: object, ray_folder: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"jobs/{name}.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **({"RAY_TMPDIR": ray_folder} if ray_folder else {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_training_and_boxes_as_two_jobs(
    settings_of: Callable[..., dict[str, Any]], tmp_path: Path, short_folder: str
) -> None:
    """The sorting task, with one volume that nobody can read."""
    archive, out = tmp_path / "archive", tmp_path / "run"
    write_phantoms(str(archive), count=4, size=24, kind="fish")
    (archive / "cut_off.tif").write_bytes(b"II*\0")
    settings = settings_of(
        task="sorting", encoder={"dropout": 0.2}, uncertainty={"samples": 2, "shifts": 1}
    )
    config = tmp_path / "sorting.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    trained = job("pretrain", config, archive, out, ray_folder=short_folder)
    assert trained.returncode == 3, trained.stderr
    assert "pretrain 9/9 loss" in trained.stdout
    assert "held out" in trained.stdout

    run = RunFolder(url=str(out))
    assert run.training_ids() < {f"fish-{i:04d}" for i in range(4)}

    located = job("localize", config, out, ray_folder=short_folder)
    assert located.returncode == 3, located.stderr
    rows = {row["volume_id"]: row for row in read_localizations(run.localizations)}
    assert len(rows) == 5
    assert rows["cut_off"]["status"] == "failed"
    assert len(run.training_ids()) == 3


@pytest.mark.parametrize("name", ["archive", "localize", "pretrain"])
def test_wrong_arguments_say_how_it_is_called(name: str) -> None:
    done = job(name, "one", "two", "three", "four")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{name} takes CONFIG, or CONFIG " in done.stderr
    assert "see ctray jobs run --help" in done.stderr


@pytest.mark.parametrize("style", ["text", "json"])
def test_error_is_one_line(tmp_path: Path, style: str) -> None:
    config = tmp_path / "localize.yaml"
    config.write_text(f"job: {{run: {tmp_path / 'nothing'}, log_format: {style}}}", "utf-8")
    done = job("localize", config)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    if style == "text":
        assert done.stderr.startswith("error: ")
        assert "is no run" in done.stderr
    else:
        told = json.loads(done.stderr)
        assert told["level"] == "error"
        assert told["run"] == str(tmp_path / "nothing")
        assert "is no run" in told["message"]


def test_jobs_are_short() -> None:
    for path in (REPOSITORY / "jobs").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 40


def test_localizing_keeps_to_what_binds_the_run(
    settings_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """What is free may differ: it comes as far as the training that is missing."""
    archive, out = tmp_path / "archive", str(tmp_path / "run")
    write_phantoms(str(archive), count=1, size=24)
    run = open_run(str(archive), out, parse_config(settings_of()))
    store.write_bytes(run.catalog, b"")
    job = {"run": out}
    other = parse_config({"encoder": {"widths": [2, 3]}, "job": job})
    with pytest.raises(ConfigError, match=r"begun with another encoder\.widths; leave that out"):
        localize_job(other, lambda event: None)
    free = parse_config({"pool": {"max_size": 7}, "train": {"log_every": 2}, "job": job})
    with pytest.raises(NotFoundError, match="trained for 0 of 9 steps"):
        localize_job(free, lambda event: None)
