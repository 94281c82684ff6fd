"""A session that starts, one that does not, and what a run does then."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ctray.config import RayConfig
from ctray.core.errors import RayStartError
from ctray.executors.local.executor import LocalExecutor
from ctray.executors.ray import session
from ctray.executors.ray.executor import RayExecutor
from ctray.executors.ray.session import ray_session
from ctray.executors.session import executor_session

pytestmark = pytest.mark.ray

SMALL = RayConfig(num_cpus=1, object_store_mb=100, start_timeout_s=0.5)


@pytest.fixture
def ray_folder(shared_ray: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No session, and a short folder for those that a test starts."""
    shared_ray.end()
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def slow_ray(ray_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray whose first process has no time at all to say that it is there."""
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "0")
    yield ray_folder
    gc.collect()


# Ray forgets the processes that it had started; ctray has ended them.
forgotten = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def children() -> set[int]:
    # Ray brings it.
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True)}


@forgotten
def test_ray_that_does_not_start_is_tried_again_and_then_done_without(slow_ray: Path) -> None:
    before, notes = children(), list[str]()
    with executor_session(SMALL, notes.append) as executor:
        assert isinstance(executor, LocalExecutor)
        assert not ray.is_initialized()
        # What Ray had started would go on beside the run.
        assert children() <= before
    assert notes[:3] == [
        "loading Ray",
        "starting Ray on this machine, at most 0.5 s",
        "Ray did not start; trying again",
    ]
    assert notes[3].startswith("Ray did not start within 1 s (the machine is busy). Continuing ")
    assert notes[3].endswith("without Ray; --ray-timeout waits longer.")
    assert list(slow_ray.iterdir()) == []


@forgotten
def test_ray_that_is_late_is_waited_for_until_the_time_is_over(
    slow_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself gives up after half a minute, however much time it is given."""
    # As if each try had taken long.
    monkeypatch.setattr(session, "_LATE_S", 0.0)
    notes: list[str] = []
    with (
        pytest.raises(RayStartError, match="the machine is busy"),
        ray_session(SMALL.model_copy(update={"start_timeout_s": 3.0}), notes.append),
    ):
        pass
    assert notes.count("Ray did not start; trying again") > 1


def test_what_is_no_matter_of_time_is_told(
    ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets whose path is too long: no second of waiting mends that."""
    deep = ray_folder / ("long-" * 20)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with pytest.raises(RayStartError, match=r"Ray did not start \(.*107 bytes"), ray_session(SMALL):
        pass
    assert list(deep.iterdir()) == []


def test_session_is_used_and_ended(ray_folder: Path) -> None:
    config = RayConfig(num_cpus=1, object_store_mb=100)
    with executor_session(config) as executor:
        assert isinstance(executor, RayExecutor)
        assert ray.is_initialized()
        with executor_session(config) as inner:
            assert isinstance(inner, RayExecutor)
        assert ray.is_initialized(), "whoever began it ends it"
        with executor_session(RayConfig(local=True)) as inner:
            assert isinstance(inner, LocalExecutor)
    assert not ray.is_initialized()
    assert list(ray_folder.iterdir()) == []
