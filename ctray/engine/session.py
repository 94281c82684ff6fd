"""The Ray session that a command runs in: its own on this machine, or a cluster's."""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from ctray.config import RayConfig
from ctray.engine.leftovers import own_folder
from ctray.engine.stopping import kept_handlers
from ctray.errors import CtrayError, one_line

# Set before ray starts anything: warnings that a user can do nothing about stay away.
_QUIET = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Data's actor pools make Ray's core log an error for every pool that is none.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Run the block inside a Ray session.

    A session that runs already is used and left alone; an address is connected to, be it that of
    the configuration or RAY_ADDRESS, which Ray sets for jobs; else a session is started on this
    machine and ended afterwards.

    Raises
    ------
    CtrayError
        If no cluster answers at the address, or no session can be started.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    folder: str | None = None
    address = config.address or _address_from_environment()
    if address is None:
        # Sockets live below this folder, and their paths must stay under 107 bytes.
        folder = own_folder("ctray-ray-", os.environ.get("RAY_TMPDIR", "/tmp"))  # noqa: S108
        # Ray 2.60 asks for a token by default and would write one to the user's home; with one in
        # the environment it does not.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        with kept_handlers():
            _start(config, address, folder)
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the lines that Ray's core writes past Python while it starts away from the user."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _address_from_environment() -> str | None:
    """Address that Ray would connect to by itself; a dashboard's is none."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") or "://" in address else address


def _start(config: RayConfig, address: str | None, folder: str | None) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        options |= {"address": address}
    else:
        options |= {
            "address": "local",
            "num_cpus": config.num_cpus,
            "object_store_memory": config.object_store_mb * 2**20,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
    try:
        with _quiet_stderr():
            try:
                ray.init(**options)
            except (RuntimeError, TimeoutError):
                # Ray gives its own processes half a minute, which a busy machine can take.
                ray.shutdown()
                ray.init(**options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        if address is None:
            first = str(error).splitlines()[0]
            raise CtrayError(f"Ray cannot start a session of its own: {first}") from error
        raise CtrayError(_why_not(address, error)) from error
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _why_not(address: str, error: Exception) -> str:
    """Line that says why there is no session at an address."""
    text = one_line(error)
    if "Version mismatch" in text:
        theirs = re.findall(r"(Ray|Python): (\S+)", text)
        both = " and ".join(f"{name} {version}" for name, version in theirs[:2])
        return (
            f"the cluster at {address} runs {both}, and here are Ray {ray.__version__} and Python "
            f"{platform.python_version()}; both must be the same on all machines"
        )
    return f"Ray cannot connect to the cluster at {address}: {text.split('. ')[0]}"


def cluster_cpus() -> float:
    """Logical CPUs of the session."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def cluster_gpus() -> float:
    """Logical GPUs of the session."""
    return float(ray.cluster_resources().get("GPU", 0.0))
