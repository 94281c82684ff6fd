"""Number of CPUs, and number of threads of each process.

All executors use the same numbers, because the number of threads affects the last bits of a result.
"""

from __future__ import annotations

import os
from pathlib import Path

from ctray.config import PoolConfig, RayConfig, RunConfig

_CGROUP = Path("/sys/fs/cgroup")


def local_cpus(config: RayConfig) -> int:
    """Return the CPUs of plain processes: as configured, else those of this process."""
    return config.num_cpus or machine_cpus()


def machine_cpus() -> int:
    """Return the CPUs that this process may use, within the limit of its container."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(found or 1, _container_limit() or found or 1))


def _container_limit() -> int | None:
    """Return the whole CPUs of the container's quota; None without a quota."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        # cgroup v2 has both numbers in one file, v1 in two.
        try:
            text = " ".join((_CGROUP / name).read_text(encoding="utf-8") for name in names)
            quota, period = (int(word) for word in text.split())
        except (OSError, ValueError):
            continue
        return max(1, quota // period) if quota > 0 and period > 0 else None
    return None


def pool_threads(config: PoolConfig, cpus: float) -> int:
    """Return the threads of one process of a pool, such that a full pool uses each CPU once."""
    return max(1, machine_cpus() // max(1, min(config.max_size, int(cpus))))


def training_threads(config: RunConfig, cpus: float) -> int:
    """Return the threads of one training process, such that all of them use each CPU once."""
    return max(1, min(machine_cpus(), int(cpus)) // config.train.num_workers)
