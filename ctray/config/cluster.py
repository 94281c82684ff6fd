"""Settings of what work runs on: jobs, Kubernetes nodes, the actor pool, the Ray session."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ctray.config.section import MOST_WORKERS, Section

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|PRIVATE", re.IGNORECASE)


class JobConfig(Section):
    """What a job works on (`jobs/`, `ctray submit`); other commands take it as arguments."""

    archive: str | None = None
    """Archive: a URL, or an absolute path that every node of the cluster has."""
    run: str | None = None
    """Folder of the run, likewise; what was begun there goes on."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of a submitted job, such as AWS_ENDPOINT_URL; never keys, which belong
    into the environment of the cluster's nodes."""
    log_format: Literal["text", "json"] = "text"
    """What a job prints: lines for people, or one JSON document a line."""

    @field_validator("archive", "run")
    @classmethod
    def _holds_no_keys(cls, url: str | None) -> str | None:
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("keys do not belong into a URL, but into the environment")
        return url

    @field_validator("env")
    @classmethod
    def _names_no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if _SECRET_NAME.search(name):
                raise ValueError(
                    f"{name} belongs into the environment of the cluster's nodes (on Kubernetes: "
                    "a Secret) and into no configuration"
                )
        return env


# Names of Kubernetes objects, and images.
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_Image = Annotated[str, Field(pattern=r"^[\w.:/@-]+$")]


class KubeConfig(Section):
    """The KubeRay RayJob of `ctray submit --kube`: one job on a cluster of its own."""

    namespace: _Name = "ctray"
    """Namespace, with the service accounts and Secrets of k8s/base."""
    image: _Image | None = None
    """Image of the head and of nodes without GPUs; null is ctray:VERSION-cpu."""
    gpu_image: _Image | None = None
    """Image of nodes with GPUs; null is ctray:VERSION-gpu."""
    keys_from: _Name = "ctray-s3"
    """Secret whose AWS_* variables the nodes get; the service account may carry the right
    instead."""
    cpu_nodes: int = Field(default=4, ge=0, le=MOST_WORKERS)
    """Nodes without GPUs at most; none while nothing is to be done."""
    cpu_node_cpus: int = Field(default=8, ge=1, le=MOST_WORKERS)
    """CPUs of such a node."""
    cpu_node_memory_gib: int = Field(default=32, ge=4, le=65_536)
    """Memory of such a node."""
    gpu_nodes: int = Field(default=0, ge=0, le=MOST_WORKERS)
    """Nodes with one GPU at most."""
    gpu_node_cpus: int = Field(default=8, ge=1, le=MOST_WORKERS)
    """CPUs of such a node."""
    gpu_node_memory_gib: int = Field(default=64, ge=4, le=65_536)
    """Memory of such a node."""
    spill_gib: int = Field(default=80, ge=1, le=1_000_000)
    """Disk of a node for what does not fit into its memory."""
    max_hours: int = Field(default=22, ge=1, le=10_000)
    """Longest time of a job; submit it again to go on from there."""


class PoolConfig(Section):
    """The actor pool that imports, localizes and crops."""

    min_size: int = Field(default=1, ge=1, le=MOST_WORKERS)
    """Actors at the start, and at least while there is work."""
    max_size: int = Field(default=2, ge=1, le=MOST_WORKERS)
    """Actors at most."""
    num_cpus: float = Field(default=1.0, gt=0, le=MOST_WORKERS)
    """Logical CPUs an actor."""
    num_gpus: float | None = Field(default=None, ge=0, le=1024)
    """GPUs an actor, fractions allowed; null takes a quarter where the cluster has some."""
    write_pyramid: bool = False
    """Whether the coarse levels of Zarr volumes that have none are kept in `pyramids/` of the run,
    so that only the first pass reads such a volume whole."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self


class RayConfig(Section):
    """The Ray session that a command starts when it is not given a cluster."""

    local: bool = False
    """Whether a run works without Ray, in plain processes of this machine."""
    address: str | None = None
    """Address of a running cluster; null starts a session on this machine."""
    start_timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds in which the own session must start; after that a run goes on without Ray."""
    num_cpus: int | None = Field(default=None, ge=1, le=65_536)
    """Logical CPUs of the own session or of the plain processes; null takes the machine's."""
    object_store_mb: int = Field(default=512, ge=80, le=2**24)
    """Object store of the own session, MB."""

    @model_validator(mode="after")
    def _in_one_place(self) -> RayConfig:
        if self.local and self.address is not None:
            raise ValueError(
                f"local (--local) works on this machine and address is {self.address}; leave out "
                "one of them"
            )
        return self
