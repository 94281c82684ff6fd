"""The Ray session of a command: its own on this machine, or the session of a cluster."""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

from ctray.config import RayConfig
from ctray.core.errors import CtrayError, RayStartError, one_line
from ctray.core.stopping import kept_handlers
from ctray.executors.ray.leftovers import own_folder
from ctray.records.events import nobody

# Set before Ray starts anything. Users can do nothing about the warnings that this hides.
_QUIET = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's core logs an error for every actor pool of Ray Data, for no reason.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# Least number of tries. A failure after more seconds than this is a time-out.
_TRIES, _LATE_S = 2, 10.0
# How long to wait for the end of killed processes.
_END_S = 5.0


@contextmanager
def ray_session(config: RayConfig, on_note: Callable[[str], None] = nobody) -> Iterator[None]:
    """Run the block inside a Ray session.

    A session that is already running is used and not ended. Otherwise the block connects to the
    configured address, or to RAY_ADDRESS, which Ray sets for jobs. Without an address, a session
    is started on this machine and ended afterwards. `on_note` is called with a line about what
    the command waits for.

    Raises
    ------
    RayStartError
        If no session starts on this machine within the configured time.
    CtrayError
        If no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = config.address or _address_from_environment()
    folder: str | None = None
    try:
        with kept_handlers():
            if address is not None:
                on_note(f"connecting to the cluster at {address}")
                _connect(address)
            else:
                on_note(f"starting Ray on this machine, at most {config.start_timeout_s:g} s")
                folder = _start(config, on_note)
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hide the lines that Ray's core writes to stderr, past Python, while it starts."""
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
    """Return the address that Ray would connect to by itself; a dashboard's URL is not one."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") or "://" in address else address


_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def _connect(address: str) -> None:
    """Connect to a cluster, with two tries."""
    try:
        with _quiet_stderr():
            try:
                ray.init(address=address, **_OPTIONS)
            except (RuntimeError, TimeoutError):
                ray.shutdown()
                ray.init(address=address, **_OPTIONS)
    # Ray raises a bare Exception for some time-outs.
    except Exception as error:
        raise CtrayError(_why_not(address, error)) from error


def _start(config: RayConfig, on_note: Callable[[str], None]) -> str:
    """Start a session on this machine and return its folder.

    Ray gives each of its processes half a minute, which cannot be changed and is too short on a
    busy machine. So this tries again, at least once, until the configured time is over.
    """
    # By default, Ray 2.60 writes a token to the user's home. With a token in the environment it
    # does not.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    began = time.monotonic()
    attempt = 0
    while True:
        attempt, since = attempt + 1, time.monotonic()
        # Ray's sockets are in this folder, and their paths must stay under 107 bytes. Each try has
        # its own folder, so that it does not meet the rest of the try before.
        folder = own_folder("ctray-ray-", os.environ.get("RAY_TMPDIR", "/tmp"))  # noqa: S108
        try:
            with _quiet_stderr(), _nothing_left(folder):
                ray.init(
                    address="local",
                    num_cpus=config.num_cpus,
                    object_store_memory=config.object_store_mb * 2**20,
                    include_dashboard=False,
                    _temp_dir=folder,
                    **_OPTIONS,
                )
        # Ray raises a bare Exception if its processes take too long.
        except Exception as error:
            now = time.monotonic()
            late = now - since >= _LATE_S
            if attempt >= _TRIES and not (late and now - began < config.start_timeout_s):
                raise RayStartError(_why_not_here(error, now - began, late=late)) from error
            on_note("Ray did not start; trying again")
        else:
            return folder


@contextmanager
def _nothing_left(folder: str) -> Iterator[None]:
    """End the processes of a session that does not start, and remove its folder.

    Ray itself leaves them running until this process ends.
    """
    # Ray ships psutil and puts it on the path when it is imported.
    import psutil

    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    try:
        yield
    except BaseException:
        ray.shutdown()
        left = [child for child in me.children(recursive=True) if child.pid not in before]
        for child in left:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(left, timeout=_END_S)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _why_not_here(error: Exception, spent_s: float, *, late: bool) -> str:
    """Return a line that says why there is no session on this machine."""
    text = one_line(error)
    if late or "timed out" in text.lower():
        return f"Ray did not start within {max(1.0, spent_s):.0f} s (the machine is busy)"
    return f"Ray did not start ({text.partition('. ')[0]})"


def _why_not(address: str, error: Exception) -> str:
    """Return a line that says why there is no session at an address."""
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
    """Return the logical CPUs of the session."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def cluster_gpus() -> float:
    """Return the logical GPUs of the session."""
    return float(ray.cluster_resources().get("GPU", 0.0))
