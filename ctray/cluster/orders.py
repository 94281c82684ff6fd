"""The order for a cluster: a job, its settings, and an id that follows from its run."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import yaml

from ctray.config import RunConfig
from ctray.core.errors import ConfigError
from ctray.storage import store

# `ctray jobs run` on the cluster reads them.
SETTINGS, JOB_ID = "CTRAY_JOB_SETTINGS", "CTRAY_JOB_ID"
# The operating system limits the size of a variable; this leaves room for others.
_MOST_SETTINGS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order that is sent to a cluster.

    Parameters
    ----------
    name
        Job: archive, pretrain or localize.
    run
        Run folder, normalized.
    settings
        Given settings as YAML. The others are the defaults of the cluster's ctray.
    env
        Further environment variables.
    """

    name: str
    run: str
    settings: str
    env: dict[str, str]

    @property
    def entrypoint(self) -> str:
        """Command that the cluster runs."""
        return f"ctray jobs run {self.name}"


def make_order(name: str, config: RunConfig) -> Order:
    """Return the order for the job `name` with the given settings of `config`.

    Raises
    ------
    ConfigError
        If run or archive are missing or no cluster could find them.
    """
    check_job(name, config)
    for what, url in (("archive", config.job.archive), ("run", config.job.run)):
        if url is not None and store.is_local(url) and not url.startswith(("/", "file:")):
            raise ConfigError(
                f"job.{what} {url} is a relative path, which means nothing on another machine; "
                "give a URL, or an absolute path that exists on every node of the cluster"
            )
    given = config.model_dump(mode="json", exclude_unset=True)
    # They are about this machine and about getting a cluster; a job already runs on one.
    for section in ("ray", "kube"):
        given.pop(section, None)
    env = given.get("job", {}).pop("env", {})
    settings = yaml.safe_dump(given, sort_keys=False)
    if len(settings) > _MOST_SETTINGS:
        raise ConfigError(
            f"the settings are {len(settings)} characters, and {_MOST_SETTINGS} fit; shorten "
            "catalog.include and catalog.exclude"
        )
    return Order(name=name, run=store.normalize(run_of(config)), settings=settings, env=env)


def job_id(run_url: str, number: int = 1) -> str:
    """Return the submission id of a run's job: readable, unique, short enough for Kubernetes.

    `number` counts the jobs of one run.
    """
    url = store.normalize(run_url)
    words = re.sub(r"[^a-z0-9]+", "-", url.rpartition("/")[2].lower()).strip("-")[:20].strip("-")
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    base = "-".join(part for part in ("ctray", words, digest) if part)
    return base if number == 1 else f"{base}-{number}"


def settings_sent(order: Order) -> list[str]:
    """Return lines that say what is uploaded."""
    names = f", {', '.join(sorted(order.env))}" if order.env else ""
    return [f"sent: settings, {len(order.settings.encode())} bytes{names}; no code, no data"]


def run_of(config: RunConfig) -> str:
    """Return the run folder of a job; `ConfigError` without one."""
    if config.job.run is None:
        raise ConfigError("no run: set job.run in the configuration, or give --out")
    return config.job.run


def archive_of(config: RunConfig) -> str:
    """Return the archive of a job; `ConfigError` without one."""
    if config.job.archive is None:
        raise ConfigError("no archive: set job.archive in the configuration, or give --archive")
    return config.job.archive


def check_job(name: str, config: RunConfig) -> None:
    """Raise a `ConfigError` if a configuration has no archive or run for the job `name`."""
    run_of(config)
    if name != "localize":
        archive_of(config)
