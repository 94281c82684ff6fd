"""CPUs of a machine and of a container, and how many threads each process computes with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctray.config import PoolConfig, RayConfig, parse_config
from ctray.executors import threads
from ctray.executors.threads import local_cpus, machine_cpus, pool_threads, training_threads


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 CPUs, and the folder where its container's limits stand."""
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 16)],
)
def test_quota_of_a_container_counts(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu.max").write_text(f"{quota}\n")
    assert machine_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3)])
def test_quota_of_an_older_container_counts(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine_cpus() == expected


@pytest.mark.parametrize("text", ["", "max", "three four", "1 of 4", "100000 0"])
def test_what_is_no_quota_is_none(cgroup: Path, text: str) -> None:
    (cgroup / "cpu.max").write_text(text)
    assert machine_cpus() == 16


def test_settings_win_over_the_machine(cgroup: Path) -> None:
    assert local_cpus(RayConfig()) == 16
    assert local_cpus(RayConfig(num_cpus=3)) == 3


@pytest.mark.parametrize(
    ("max_size", "cpus", "expected"), [(2, 16, 8), (5, 16, 3), (32, 16, 1), (4, 2, 8), (1, 1, 16)]
)
def test_a_full_pool_uses_the_machine_once(
    cgroup: Path, max_size: int, cpus: int, expected: int
) -> None:
    assert pool_threads(PoolConfig(max_size=max_size), cpus) == expected


@pytest.mark.parametrize(("workers", "cpus", "expected"), [(1, 16, 16), (4, 8, 2), (8, 2, 1)])
def test_all_training_processes_use_their_cpus_once(
    cgroup: Path, workers: int, cpus: int, expected: int
) -> None:
    config = parse_config({"train": {"num_workers": workers, "interleave": 8}})
    assert training_threads(config, cpus) == expected
