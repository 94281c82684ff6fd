"""Settings of processes and machines: pool, Ray session, jobs, Kubernetes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ctray.config.section import MOST_WORKERS, Section

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|PRIVATE", re.IGNORECASE)


class JobConfig(Section):
    """Archive and run of a job (`jobs/`, `ctray submit`). Other commands take them as arguments."""

    archive: str | None = None
    """Archive: a URL, or an absolute path that exists on every node of the cluster."""
    run: str | None = None
    """Run folder: a URL, or an absolute path that exists on every node. An existing run resumes."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of a submitted job, such as AWS_ENDPOINT_URL. Keys are refused: they
    belong in the environment of the cluster's nodes (on Kubernetes: a Secret)."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: `text` has lines for people, `json` has one JSON document per line."""

    @field_validator("archive", "run")
    @classmethod
    def _holds_no_keys(cls, url: str | None) -> str | None:
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("a URL must not contain keys; put them in the environment")
        return url

    @field_validator("env")
    @classmethod
    def _names_no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if _SECRET_NAME.search(name):
                raise ValueError(
                    f"{name} belongs in the environment of the cluster's nodes (on Kubernetes: a "
                    "Secret), not in a configuration"
                )
        return env


# Names of Kubernetes objects, and images.
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_Image = Annotated[str, Field(pattern=r"^[\w.:/@-]+$")]


class KubeConfig(Section):
    """The KubeRay RayJob of `ctray submit --kube`, which gives one job its own cluster."""

    namespace: _Name = "ctray"
    """Namespace that has the service accounts and Secrets of k8s/base."""
    image: _Image | None = None
    """Image of the head and of nodes without GPUs; null takes ctray:VERSION-cpu."""
    gpu_image: _Image | None = None
    """Image of nodes with GPUs; null takes ctray:VERSION-gpu."""
    keys_from: _Name = "ctray-s3"
    """Secret with the AWS_* variables of the nodes. It may be missing if the service account has
    access."""
    cpu_nodes: int = Field(default=4, ge=0, le=MOST_WORKERS)
    """Largest number of nodes without GPUs. Idle nodes are removed."""
    cpu_node_cpus: int = Field(default=8, ge=1, le=MOST_WORKERS)
    """CPUs of a node without GPUs."""
    cpu_node_memory_gib: int = Field(default=32, ge=4, le=65_536)
    """Memory of a node without GPUs, in GiB."""
    gpu_nodes: int = Field(default=0, ge=0, le=MOST_WORKERS)
    """Largest number of nodes with a GPU; each has one."""
    gpu_node_cpus: int = Field(default=8, ge=1, le=MOST_WORKERS)
    """CPUs of a node with a GPU."""
    gpu_node_memory_gib: int = Field(default=64, ge=4, le=65_536)
    """Memory of a node with a GPU, in GiB."""
    spill_gib: int = Field(default=80, ge=1, le=1_000_000)
    """Disk of a node for objects that do not fit into its memory, in GiB."""
    max_hours: int = Field(default=22, ge=1, le=10_000)
    """Longest time of a job in hours. To resume, submit the job again."""


class PoolConfig(Section):
    """The pool of processes that import, localize and crop."""

    min_size: int = Field(default=1, ge=1, le=MOST_WORKERS)
    """Least number of processes while there is work; with Ray only."""
    max_size: int = Field(default=2, ge=1, le=MOST_WORKERS)
    """Largest number of processes."""
    num_cpus: float = Field(default=1.0, gt=0, le=MOST_WORKERS)
    """Logical CPUs per process."""
    num_gpus: float | None = Field(default=None, ge=0, le=1024)
    """GPUs per process, also fractions; null takes a quarter if the cluster has GPUs."""
    write_pyramid: bool = False
    """Whether to keep pyramids of Zarr volumes that have none, in `pyramids/` of the run. Then only
    the first pass reads such a volume whole."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self


class RayConfig(Section):
    """The Ray session of a command, or the plain processes that replace it."""

    local: bool = False
    """Whether to work in plain processes of this machine, without Ray (`--local`)."""
    address: str | None = None
    """Address of a running cluster; null starts a session on this machine."""
    start_timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    """Time in seconds for a session to start on this machine (`--ray-timeout`). After that, the
    command continues without Ray."""
    num_cpus: int | None = Field(default=None, ge=1, le=65_536)
    """Logical CPUs of the session on this machine, or of the plain processes; null takes all of the
    machine."""
    object_store_mb: int = Field(default=512, ge=80, le=2**24)
    """Object store of the session on this machine, in MiB."""

    @model_validator(mode="after")
    def _in_one_place(self) -> RayConfig:
        if self.local and self.address is not None:
            raise ValueError(
                f"local (--local) and address {self.address} exclude each other; leave out one"
            )
        return self
