"""How many CPUs there are, and how many threads each process computes with.

The same for plain processes and for Ray: the number of threads decides the last bits of a result.
"""

from __future__ import annotations

import os
from pathlib import Path

from ctray.config import PoolConfig, RayConfig, RunConfig

_CGROUP = Path("/sys/fs/cgroup")


def local_cpus(config: RayConfig) -> int:
    """CPUs that plain processes may use: as configured, else those that this process has."""
    return config.num_cpus or machine_cpus()


def machine_cpus() -> int:
    """CPUs that this process may use: a container's limit counts, the machine behind it not."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(found or 1, _container_limit() or found or 1))


def _container_limit() -> int | None:
    """Whole CPUs of the container's quota, None where there is none."""
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
    """Threads of one process of a pool on `cpus`, so that a full pool uses the machine once."""
    return max(1, machine_cpus() // max(1, min(config.max_size, int(cpus))))


def training_threads(config: RunConfig, cpus: float) -> int:
    """Threads of one training process on `cpus`, so that all use the machine once."""
    return max(1, min(machine_cpus(), int(cpus)) // config.train.num_workers)
