"""The image: one version of Ray everywhere, a lock that fits the package, a clean Dockerfile."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from k8s_rules import cluster_spec, templates
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ctray

Document = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "k8s" / "Dockerfile"
LOCK = REPOSITORY / "k8s" / "requirements.txt"
CUDA = re.compile(r"^(torch|torchvision|triton|nvidia-.*|cuda-.*)$")


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)(?:\[[^]]*\])?==(\S+)", LOCK.read_text(), re.M))


def argument(name: str) -> set[str]:
    """Defaults that a build argument has in the stages of the Dockerfile."""
    return set(re.findall(rf"^ARG {name}=(\S+)$", DOCKERFILE.read_text(), re.M))


def dependencies() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def test_one_version_of_ray(build: Callable[[str], list[Document]]) -> None:
    (image,) = argument("RAY_VERSION")
    manifests = {
        cluster["rayVersion"]
        for overlay in ("cpu", "gpu", "dev")
        for document in build(f"overlays/{overlay}")
        if (cluster := cluster_spec(document)) is not None
    }
    assert manifests == {image}
    assert locked()["ray"] == image
    (asked,) = [requirement for requirement in dependencies() if requirement.name == "ray"]
    assert image in asked.specifier
    assert importlib.metadata.version("ray") in asked.specifier


def test_images_have_the_version_of_the_package(build: Callable[[str], list[Document]]) -> None:
    images = {
        overlay: {
            container["image"]
            for document in build(f"overlays/{overlay}")
            for _, template in templates(document)
            for container in template["spec"]["containers"]
            if not container["image"].startswith("redis:")
        }
        for overlay in ("cpu", "gpu")
    }
    cpu, gpu = f"ctray:{ctray.__version__}-cpu", f"ctray:{ctray.__version__}-gpu"
    assert images == {"cpu": {cpu}, "gpu": {cpu, gpu}}
    assert argument("VERSION") == {ctray.__version__}


def test_the_lock_has_what_the_package_needs() -> None:
    versions = locked()
    for requirement in dependencies():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(version)), requirement


def test_the_lock_has_a_digest_for_every_file() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK.read_text(), flags=re.M)[1:]
    assert len(entries) == len(locked())
    assert [e.split()[0] for e in entries if "--hash=sha256:" not in e] == []


def test_the_cpu_variant_leaves_out_cuda_and_nothing_else() -> None:
    (program,) = re.findall(r"awk '(.*?)'", DOCKERFILE.read_text(), re.S)
    if shutil.which("awk") is None:
        pytest.skip("no awk on the PATH")
    answer = subprocess.run(
        ["awk", program, str(LOCK)], capture_output=True, text=True, timeout=60, check=True
    )
    kept = set(re.findall(r"^([a-z0-9][\w.-]*)==", answer.stdout, re.M))
    assert kept == {name for name in locked() if not CUDA.match(name)}
    assert {"ray", "zarr", "segmentation-models-pytorch"} <= kept
    # No digest of a package that is left out stays behind.
    assert answer.stdout.count("==") == len(kept)


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint on the PATH")
    answer = subprocess.run(
        [program, str(DOCKERFILE)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "")


def test_the_image_runs_as_nobody_special() -> None:
    text = DOCKERFILE.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.*)$", last, re.M) == ["1000:1000"]
    assert "HEALTHCHECK" in last
    assert not re.search(r"--chown|chmod|chown", last)


def test_what_the_image_copies_is_in_its_context() -> None:
    allowed = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.M)
        for name in line.split()
    ]
    assert set(copied) == allowed
    assert all((REPOSITORY / name).exists() for name in copied)
