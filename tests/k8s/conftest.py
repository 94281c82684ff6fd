"""Overlays as kustomize builds them, and what validates them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "k8s"
OVERLAYS = ("cpu", "gpu", "dev")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "overlay" in metafunc.fixturenames:
        metafunc.parametrize("overlay", OVERLAYS)


@cache
def _kubectl() -> str:
    """Path of a kubectl with kustomize 5."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("no kubectl on the PATH to build the overlays with")
    command = [path, "version", "--client", "--output=json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    try:
        version = str(json.loads(answer.stdout)["kustomizeVersion"])
    except (ValueError, KeyError):
        version = "unknown"
    if not version.startswith("v5."):
        pytest.skip(f"{path} has kustomize {version} and the overlays need v5")
    return path


@cache
def _built(folder: Path) -> str:
    command = [_kubectl(), "kustomize", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    # Deprecated fields of a kustomization are warnings there.
    assert not answer.stderr, answer.stderr
    return answer.stdout


@pytest.fixture(scope="session")
def kustomize() -> Callable[[Path], list[dict[str, Any]]]:
    """Documents of a kustomization, by its folder; a new list at every call."""

    def documents(folder: Path) -> list[dict[str, Any]]:
        return list(yaml.load_all(_built(folder), Loader=yaml.CSafeLoader))

    return documents


@pytest.fixture(scope="session")
def build(
    kustomize: Callable[[Path], list[dict[str, Any]]],
) -> Callable[[str], list[dict[str, Any]]]:
    """Documents of a kustomization, by its folder below `k8s/`."""
    return lambda folder: kustomize(K8S / folder)


@pytest.fixture
def documents(overlay: str, build: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Documents of an overlay; the tests that ask for them run for every overlay."""
    return build(f"overlays/{overlay}")


Findings = Callable[[dict[str, Any]], Sequence[str]]


@pytest.fixture(scope="session")
def ray_findings() -> Findings:
    """What KubeRay's definitions find wrong in a document of ray.io."""
    folder = Path(os.environ.get("CTRAY_KUBERAY", REPOSITORY.parent / "shared" / "k8s"))
    if not (folder / "validate_manifests.py").is_file():
        pytest.skip(f"no KubeRay definitions in {folder}: set CTRAY_KUBERAY to their folder")
    validator = _module(folder / "validate_manifests.py")
    definitions = validator.load_crds(str(folder / "crds"))

    def findings(document: dict[str, Any]) -> list[str]:
        return [f"{path}: {what}" for path, what in validator.check(document, definitions)]

    return findings


@pytest.fixture(scope="session")
def kube_findings() -> Findings:
    """What the schemas of Kubernetes find wrong in a document of its own kinds."""
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate")
    version = validate.latest_version()

    def findings(document: dict[str, Any]) -> list[str]:
        try:
            validate.validate(document, version, strict=True)
        except validate.ValidationError as error:
            return [str(error.message)]
        return []

    return findings


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
