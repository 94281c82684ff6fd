"""RayJobs that `ctray submit --kube` makes: as KubeRay defines them, and as k8s/ has its pods."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from click.testing import CliRunner, Result

from ctray.cli.main import cli
from ctray.cluster.kube import LONGEST_NAME, render, to_yaml
from ctray.cluster.orders import job_id
from ctray.config import RunConfig, load_config_text, parse_config
from ctray.core.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = REPOSITORY / "k8s" / "base" / "raycluster.yaml"
ARCHIVE, RUN = "s3://archive/scans", "s3://archive/a very long name of a run, of 2026-11-22"
Manifest = dict[str, Any]
VARIANTS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {"gpu_nodes": 3, "gpu_node_cpus": 12},
    "gpu alone": {"gpu_nodes": 2, "cpu_nodes": 0},
    "named": {
        "namespace": "beamline",
        "image": "registry.example:5000/ct/ray@sha256:ab",
        "max_hours": 1,
    },
}


def config_of(kube: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    job = {"archive": ARCHIVE, "run": RUN, "env": {"AWS_ENDPOINT_URL": "http://rgw:7480"}}
    return parse_config({"job": job, "kube": kube or {}, **sections})


@pytest.fixture(scope="module")
def findings() -> Callable[[Manifest], list[str]]:
    """What KubeRay's definitions find wrong in a manifest."""
    folder = Path(os.environ.get("CTRAY_KUBERAY", REPOSITORY.parent / "shared" / "k8s"))
    path = folder / "validate_manifests.py"
    if not path.is_file():
        pytest.skip(f"no KubeRay definitions in {folder}: set CTRAY_KUBERAY to their folder")
    spec = importlib.util.spec_from_file_location("validate_manifests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    definitions = module.load_crds(str(folder / "crds"))
    return lambda manifest: [
        f"{where}: {what}" for where, what in module.check(manifest, definitions)
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_job_fits_the_definition(name: str, findings: Callable[[Manifest], list[str]]) -> None:
    manifest = yaml.safe_load(to_yaml(render("archive", config_of(VARIANTS[name]), 2)))
    assert findings(manifest) == []


def test_a_misspelt_field_does_not(findings: Callable[[Manifest], list[str]]) -> None:
    manifest = render("archive", config_of())
    manifest["spec"]["backofLimit"] = manifest["spec"].pop("backoffLimit")
    assert any("backofLimit" in finding for finding in findings(manifest))


def containers(manifest: Manifest) -> Iterator[tuple[Manifest, Manifest]]:
    """Pod and container of every pod of a job."""
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    templates = [manifest["spec"]["submitterPodTemplate"], *(g["template"] for g in groups)]
    for template in templates:
        yield from ((template["spec"], container) for container in template["spec"]["containers"])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_job_keeps_the_rules(name: str) -> None:
    manifest = render("archive", config_of(VARIANTS[name]))
    spec = manifest["spec"]
    assert (spec["backoffLimit"], spec["submitterConfig"]["backoffLimit"]) == (2, 0)
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["jobId"] == manifest["metadata"]["name"] == job_id(RUN)
    assert len(render("archive", config_of(), 999)["metadata"]["name"]) <= LONGEST_NAME
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["maxReplicas"] > 0
    for pod, container in containers(manifest):
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["image"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        context = container["securityContext"]
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (
            True,
            False,
        )
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
        assert "spill" in mounts or container["name"] == "ray-job-submitter"


def test_a_job_says_what_it_works_on_and_holds_no_key() -> None:
    manifest = render("localize", config_of(pool={"max_size": 7}))
    line = shlex.split(manifest["spec"]["entrypoint"])
    assert line == ["bash", "-c", "ctray jobs run localize || [ $? -eq 3 ]"]
    assert manifest["spec"]["metadata"]["run"] == RUN
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item["value"] for item in head["env"]}
    settings = load_config_text(environment["CTRAY_JOB_SETTINGS"])
    assert (settings.job.run, settings.pool.max_size) == (RUN, 7)
    assert environment["CTRAY_JOB_ID"] == manifest["metadata"]["name"]
    assert environment["AWS_ENDPOINT_URL"] == "http://rgw:7480"
    assert {"secretRef": {"name": "ctray-s3", "optional": True}} in head["envFrom"]
    assert "AWS_SECRET" not in to_yaml(manifest)


def settings_in(manifest: Manifest) -> RunConfig:
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return load_config_text({i["name"]: i["value"] for i in head["env"]}["CTRAY_JOB_SETTINGS"])


def test_a_cluster_without_nodes_is_told_whether_there_are_gpus() -> None:
    """It cannot look: the first node comes for the first work."""
    without, some = (settings_in(render("archive", config_of({"gpu_nodes": n}))) for n in (0, 2))
    assert (without.train.num_gpus_per_worker, without.pool.num_gpus) == (0, 0)
    assert (some.train.num_gpus_per_worker, some.pool.num_gpus) == (1, 0.25)
    asked = config_of({"gpu_nodes": 2}, pool={"num_gpus": 0.5}, train={"num_gpus_per_worker": 0})
    kept = settings_in(render("archive", asked))
    assert (kept.train.num_gpus_per_worker, kept.pool.num_gpus) == (0, 0.5)


@pytest.mark.parametrize(
    ("kube", "sections", "said"),
    [
        (
            {},
            {"train": {"num_gpus_per_worker": 1}},
            "no node has a GPU; raise kube.gpu_nodes",
        ),
        ({}, {"pool": {"num_gpus": 0.5}}, "pool.num_gpus is 0.5 and no node has a GPU"),
        ({"cpu_nodes": 0}, {}, "the cluster has no nodes"),
    ],
)
def test_a_job_that_no_node_could_do(
    kube: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        render("archive", config_of(kube, **sections))


def test_pods_are_those_of_the_cluster_that_stays() -> None:
    theirs = yaml.safe_load(BASE.read_text(encoding="utf-8"))["spec"]
    ours = render("archive", config_of())["spec"]["rayClusterSpec"]
    # A job's cluster ends with its driver's node: no state of it outlives that.
    del theirs["gcsFaultToleranceOptions"]
    for spec in (theirs, ours):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            group["template"]["metadata"]["labels"].pop("app.kubernetes.io/instance", None)
            pod["volumes"] = [v for v in pod["volumes"] if v["name"] != "configs"]
            for container in pod["containers"]:
                mounts = container["volumeMounts"]
                container["volumeMounts"] = [m for m in mounts if m["name"] != "configs"]
                for key in ("image", "env", "envFrom"):
                    container.pop(key, None)
    assert ours == theirs


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Manifest]], Path]:
    """A program of that name, which knows some RayJobs and keeps what it is to create."""

    def put(jobs: list[Manifest]) -> Path:
        created = tmp_path / "created.yaml"
        (tmp_path / "jobs.json").write_text(json.dumps({"items": jobs}), encoding="utf-8")
        program = tmp_path / "kubectl"
        program.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            f"folder = pathlib.Path({str(tmp_path)!r})\n"
            "if sys.argv[1] == 'get':\n"
            "    print((folder / 'jobs.json').read_text())\n"
            "else:\n"
            "    (folder / 'created.yaml').write_text(sys.stdin.read())\n",
            encoding="utf-8",
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return created

    return put


def submit(*arguments: str) -> Result:
    options = ["--archive", ARCHIVE, "--out", RUN, "--kube", *arguments]
    return CliRunner().invoke(cli, ["submit", "archive", *options])


def job_that_is(state: str | None, number: int = 1) -> Manifest:
    status = {} if state is None else {"jobDeploymentStatus": state}
    return {"metadata": {"name": job_id(RUN, number)}, "status": status}


def test_it_is_printed() -> None:
    done = submit()
    assert done.exit_code == 0, done.stderr
    assert yaml.safe_load(done.stdout) == render(
        "archive", parse_config({"job": {"archive": ARCHIVE, "run": RUN}})
    )


def test_a_job_that_has_ended_makes_room(kubectl: Callable[[list[Manifest]], Path]) -> None:
    created = kubectl([job_that_is("Failed"), job_that_is("Complete", 2)])
    done = submit("--apply")
    assert done.exit_code == 0, done.stderr
    assert yaml.safe_load(created.read_text())["metadata"]["name"] == job_id(RUN, 3)
    assert done.stdout == f"{job_id(RUN, 3)}\n"


@pytest.mark.parametrize("state", ["Running", "Initializing", None])
def test_a_job_that_runs_is_not_run_twice(
    kubectl: Callable[[list[Manifest]], Path], state: str | None
) -> None:
    created = kubectl([job_that_is("Complete"), job_that_is(state, 2)])
    done = submit("--apply")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert (
        f"error: {job_id(RUN, 2)} is {(state or 'new').lower()} and works on {RUN}" in done.stderr
    )
    assert not created.exists()


def test_without_kubectl_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = submit("--apply")
    assert done.exit_code == 1
    assert "kubectl cannot be run; install it, or leave out --apply" in done.stderr
