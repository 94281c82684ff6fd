"""The command line: help, output, one-line errors and exit codes, on real small inputs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
import tifffile
import yaml
import zarr
from click.testing import CliRunner, Result

from ctray import __version__
from ctray.archive.catalog import read_catalog, write_catalog
from ctray.benchmark.demo import demo_config
from ctray.cli.main import cli
from ctray.cli.options import ray_options
from ctray.cli.running import asked_settings
from ctray.config import load_config, parse_config
from ctray.phantom import PhantomSpec, SceneSpec
from ctray.pipeline.run import open_run
from ctray.records.box_table import read_localizations
from ctray.records.run_folder import RunFolder
from ctray.volumes.volume import open_volume

SHAPE = (12, 10, 8)
SIZE = 32


def ctray(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args], prog_name="ctray")


def grey(shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def assert_one_error(result: Result, *words: str, code: int = 1) -> None:
    """Exit code, nothing on stdout, and one last line that says all of `words`."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line]
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:], result.stderr
    for word in words:
        assert word in errors[0]
    assert "Traceback" not in result.stderr


def subprocess_env(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


# --- help and usage


def test_help_and_version_import_neither_ray_nor_torch() -> None:
    code = (
        "import sys\n"
        "from ctray.cli.main import cli\n"
        "heavy = ('ray', 'torch', 'zarr', 'matplotlib', 'scipy')\n"
        "try:\n"
        "    cli(sys.argv[1:], prog_name='ctray')\n"
        "finally:\n"
        "    print([m for m in heavy if m in sys.modules], file=sys.stderr)\n"
    )
    for args in (["--help"], ["--version"], ["run", "--help"], ["benchmark", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
        )
        assert done.stderr.splitlines()[-1] == "[]"
        assert "ctray" in done.stdout


def test_version() -> None:
    assert ctray("--version").stdout == f"ctray {__version__}\n"


def commands() -> dict[str, click.Command]:
    """All commands by what is typed, those of groups included."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": c for inner, c in command.commands.items()}
    return found


# What they print is a job's own log, in the form that job.log_format asks for.
LOGS = {"jobs logs", "jobs run"}


def test_every_command_has_help_and_debug() -> None:
    for name, command in commands().items():
        result = ctray(*name.split(), "--help")
        assert result.exit_code == 0
        if isinstance(command, click.Group):
            continue
        needed = {"debug"} if name in LOGS else {"debug", "as_json"}
        assert needed <= {p.name for p in command.params}
        # A summary that is cut off tells nothing.
        assert command.get_short_help_str(limit=62)[-3:] != "..."


def test_phantom_has_an_option_for_every_field_of_its_scene() -> None:
    names = {p.name for p in cli.commands["phantom"].params}
    scene = {f.name for f in fields(SceneSpec)}
    own = {f.name for f in fields(PhantomSpec)} - {"scene", "index"}
    assert scene | own <= names


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "ARCHIVE"),
        (["run", "somewhere"], "--out"),
        (["import", "a", "b", "--voxel-size", "1,2"], "one or three numbers"),
        (["phantom", "a", "--size", "x"], "one or three integers"),
        (["catalog", "a", "--exclude", "b", "--no-exclude"], "not both"),
    ],
)
def test_usage_errors_are_one_line_with_a_remedy(args: list[str], word: str) -> None:
    assert_one_error(ctray(*args), word, "--help", code=2)


def test_debug_shows_the_traceback_and_still_the_line(tmp_path: Path) -> None:
    result = ctray("catalog", tmp_path / "nowhere", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


# --- import


def test_import_of_a_folder_of_slices(tmp_path: Path) -> None:
    voxels = grey()
    for z, plane in enumerate(voxels):
        (tmp_path / "scan").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "scan" / f"slice_{z:03d}.tif", plane)
    args = ["import", tmp_path / "scan", tmp_path / "out.zarr", "--voxel-size", "2,1.5,1"]
    result = ctray(*args, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["shape"] == list(SHAPE)
    assert document["voxel_size_um"] == [2, 1.5, 1]
    assert "import: " in result.stderr
    volume = open_volume(str(tmp_path / "out.zarr"))
    np.testing.assert_array_equal(volume.read_level(0), voxels)
    assert volume.voxel_size is not None
    assert volume.voxel_size.um == (2, 1.5, 1)
    # What is there stays there.
    assert_one_error(ctray(*args), "out.zarr")


def test_import_of_hdf5_asks_for_the_dataset_and_takes_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a/first"] = grey()
        file["b/second"] = grey() + 1
    assert_one_error(ctray("import", tmp_path / "two.h5", tmp_path / "o.zarr"), "a/first")
    missing = ctray("import", tmp_path / "two.h5", tmp_path / "o.zarr", "--dataset", "c/third")
    assert_one_error(missing, "c/third")
    result = ctray("import", tmp_path / "two.h5", tmp_path / "o.zarr", "--dataset", "b/second")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert "--voxel-size" in result.stderr  # the source tells none
    np.testing.assert_array_equal(open_volume(str(tmp_path / "o.zarr")).read_level(0), grey() + 1)


def unreadable_tiff(folder: Path) -> Path:
    (folder / "bad.tif").write_bytes(b"II*\0" + b"\xff" * 100)
    return folder / "bad.tif"


def truncated_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "cut.h5", "w") as file:
        file["volume"] = grey((40, 40, 40))
    data = (folder / "cut.h5").read_bytes()
    (folder / "cut.h5").write_bytes(data[: len(data) // 2])
    return folder / "cut.h5"


def hdf5_of(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with h5py.File(folder / "odd.h5", "w") as file:
            file.create_dataset("volume", data=np.zeros(shape, np.uint8))
        return folder / "odd.h5"

    return make


def zarr_of(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        zarr.create_array(str(folder / "odd.zarr"), shape=shape, dtype="uint8", chunks="auto")
        return folder / "odd.zarr"

    return make


def nothing(folder: Path) -> Path:
    return folder / "nothing.tif"


def text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no voxels here")
    return folder / "notes.txt"


@pytest.mark.parametrize(
    "make",
    [
        *(unreadable_tiff, truncated_hdf5, nothing, text_file),
        *(hdf5_of((5, 6)), hdf5_of((2, 3, 4, 5)), hdf5_of((4, 0, 3))),
        *(zarr_of((5, 6)), zarr_of((2, 3, 4, 5)), zarr_of((4, 0, 3))),
    ],
)
def test_import_of_what_is_no_volume(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path)
    assert_one_error(ctray("import", source, tmp_path / "out.zarr"), source.name)
    assert not (tmp_path / "out.zarr" / "zarr.json").exists()


def test_nans_and_constant_volumes_are_imported_as_they_are(tmp_path: Path) -> None:
    voxels = grey().astype(np.float32)
    voxels[3, 2] = np.nan
    for name, array in (("nan", voxels), ("same", np.full(SHAPE, 7, np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", array)
        result = ctray("import", tmp_path / f"{name}.tif", tmp_path / f"{name}.zarr")
        assert result.exit_code == 0, result.stderr
        read = open_volume(str(tmp_path / f"{name}.zarr")).read_level(0)
        np.testing.assert_array_equal(read, array)


# --- catalog and phantoms


def test_catalog_lists_fails_and_says_what_it_skips(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    tifffile.imwrite(archive / "good.tif", grey())
    tifffile.imwrite(archive / "good_mask.tif", grey())
    unreadable_tiff(archive)
    result = ctray("catalog", archive, "--out", tmp_path / "catalog.parquet")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[1:]}
    assert rows.keys() == {"good", "bad"}
    assert "12 × 10 × 8" in rows["good"]
    assert rows["bad"].split()[-1] == "failed"
    assert "failed bad: " in result.stderr
    assert "1 skipped" in result.stderr
    assert "--no-exclude" in result.stderr
    ids = [e.volume_id for e in read_catalog(str(tmp_path / "catalog.parquet"))]
    assert sorted(ids) == ["bad", "good"]

    document = json.loads(ctray("catalog", archive, "--no-exclude", "--json").stdout)
    assert {v["volume_id"] for v in document["volumes"]} == {"bad", "good", "good_mask"}
    only = json.loads(ctray("catalog", archive, "--exclude", "bad*", "--json").stdout)
    assert {v["volume_id"] for v in only["volumes"]} == {"good", "good_mask"}


def test_phantoms_take_scene_options_and_are_not_made_twice(tmp_path: Path) -> None:
    args = ["phantom", tmp_path, "--count", "2", "--size", "32", "--kind", "fish", "--noise", "0.3"]
    args += ["--no-reconstruction-circle", "--head-last", "--fill", "0.1", "0.2"]
    first = json.loads(ctray(*args, "--json").stdout)["volumes"]
    assert [v["volume_id"] for v in first] == ["fish-0000", "fish-0001"]
    spec = json.loads((tmp_path / "truth" / "fish-0000.json").read_text())["spec"]
    assert spec["scene"]["noise"] == 0.3
    assert spec["scene"]["reconstruction_circle"] is False
    assert spec["head_first"] is False
    assert spec["fill"] == [0.1, 0.2]
    assert "2 of them already there" in ctray(*args).stdout
    assert_one_error(ctray(*args, "--rings", "9"), "rings=9", code=2)


# --- what is refused before a run begins


def archive_of_one(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    tifffile.imwrite(tmp_path / "archive" / "a.tif", grey())
    return tmp_path / "archive"


@pytest.mark.parametrize("command", ["run", "pretrain"])
def test_output_inside_the_archive_is_refused(tmp_path: Path, command: str) -> None:
    archive = archive_of_one(tmp_path)
    for out in (archive, archive / "runs" / "first"):
        assert_one_error(ctray(command, archive, "--out", out), "lies in the archive", "outside")
    assert sorted(p.name for p in archive.iterdir()) == ["a.tif"]


def test_output_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    archive = archive_of_one(tmp_path)
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("precious")
    assert_one_error(ctray("run", archive, "--out", out), "chapter.tex", "empty folder")
    assert_one_error(ctray("run", archive, "--out", out / "chapter.tex"), "chapter.tex")
    assert (out / "chapter.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nothing, ["nothing is there"]),
        (text_file, ["notes.txt"]),
        (unreadable_tiff, ["none of the 1 volumes", "bad.tif"]),
        (lambda folder: folder / "empty", ["no volumes", "looked for"]),
    ],
)
def test_an_archive_without_volumes_is_refused_and_binds_nobody(
    tmp_path: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "run"
    for command in (("run",), ("pretrain",), ("archive", "--yes")):
        assert_one_error(ctray(*command, make(tmp_path), "--out", out), *words)
        assert not out.exists()


def test_what_is_refused_waits_for_neither_ray_nor_torch(tmp_path: Path) -> None:
    """On a busy machine those take half a minute to load; the line before is out at once."""
    text_file(tmp_path)
    (tmp_path / "empty").mkdir()
    code = (
        "import sys\n"
        "from ctray.cli.main import cli\n"
        "try:\n"
        "    cli(sys.argv[1:], prog_name='ctray')\n"
        "finally:\n"
        "    print([m for m in ('ray', 'torch') if m in sys.modules], file=sys.stderr)\n"
    )
    out = tmp_path / "run"
    for archive in ("nowhere", "empty", "notes.txt"):
        done = subprocess.run(
            [sys.executable, "-c", code, "run", tmp_path / archive, "--out", out],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        # What is not there at all is refused before anything else is said.
        looked = f"looking for volumes in {tmp_path / archive}" in lines
        assert looked == (archive != "nowhere")
        assert lines[-2].startswith("error: ")
        assert lines[-1] == "[]"
        assert not out.exists()


@pytest.mark.parametrize("name", ["archive", "pretrain"])
def test_a_job_refuses_a_bad_archive_before_ray_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "job.yaml").write_text("{}")
    out = tmp_path / "run"
    refused = ctray("jobs", "run", name, tmp_path / "job.yaml", tmp_path / "empty", out)
    assert refused.exit_code == 1
    assert "no volumes" in refused.stderr
    assert "Ray" not in refused.output
    assert not out.exists()


def test_a_run_of_other_settings_is_refused_before_its_archive_is_searched(tmp_path: Path) -> None:
    archive, out = archive_of_one(tmp_path), tmp_path / "run"
    folder = open_run(str(archive), str(out), parse_config({}))
    write_catalog((), folder.catalog)
    refused = ctray("run", archive, "--out", out, "--set", "train.seed=5")
    assert_one_error(refused, "another train.seed", code=2)
    assert "catalog: " not in refused.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ()),
        (["--local"], ("ray.local=true", "ray.address=null")),
        (["--no-local"], ("ray.local=false",)),
        (["--ray-timeout", "90"], ("ray.start_timeout_s=90",)),
    ],
)
def test_where_processes_run_is_a_setting(options: list[str], expected: tuple[str, ...]) -> None:
    given: list[tuple[str, ...]] = []

    @click.command()
    @ray_options
    def command(ray: tuple[str, ...]) -> None:
        given.append(ray)

    assert CliRunner().invoke(command, options).exit_code == 0
    assert given == [expected]
    load_config(None, given[0])
    for name in ("run", "archive", "pretrain", "localize", "crop"):
        assert {"local", "ray_timeout"} <= {p.name for p in cli.commands[name].params}


def test_a_cluster_and_this_machine_exclude_each_other(tmp_path: Path) -> None:
    args = ["--set", "ray.local=true", "--set", "ray.address=head:6379"]
    refused = ctray("run", archive_of_one(tmp_path), "--out", tmp_path / "run", *args)
    assert_one_error(refused, "local (--local)", "head:6379", code=2)


def test_unknown_settings_name_the_nearest_known_one(tmp_path: Path) -> None:
    archive = archive_of_one(tmp_path)
    args = ["run", archive, "--out", tmp_path / "run"]
    assert_one_error(ctray(*args, "--set", "train.step=3"), "train.step", "steps", code=2)
    (tmp_path / "c.yaml").write_text("preprocess: {workign_size: 64}\n")
    wrong = ctray(*args, "--config", tmp_path / "c.yaml")
    assert_one_error(wrong, "workign_size", "did you mean working_size", code=2)
    assert_one_error(ctray(*args, "--config", tmp_path / "no.yaml"), "no.yaml", code=2)
    assert not (tmp_path / "run").exists()


def test_specimens_is_a_setting_of_the_run_and_needs_self_training(tmp_path: Path) -> None:
    archive, out = unreadable_tiff(tmp_path), tmp_path / "run"
    without = ctray(
        "run", archive, "--out", out, "--specimens", "--set", "self_train.enabled=false"
    )
    assert_one_error(without, "--specimens", "self_train.enabled", code=2)
    assert not out.exists()
    assert asked_settings(True, False) == ("localize.specimens=true",)
    assert "--specimens" in ctray("localize", "--help").stdout


@pytest.mark.parametrize("command", ["localize", "crop", "report", "evaluate"])
def test_commands_on_a_run_refuse_what_is_none(tmp_path: Path, command: str) -> None:
    more = ["--truth", str(tmp_path)] if command == "evaluate" else []
    assert_one_error(ctray(command, tmp_path, *more), str(tmp_path), "run")


# --- whole runs


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, settings_of: Callable[..., dict[str, Any]]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Folder and outcome of a demonstration whose archive holds bad volumes among the good."""
    folder = tmp_path_factory.mktemp("demo")
    archive = folder / "archive"
    archive.mkdir()
    truncated_hdf5(archive)
    tifffile.imwrite(archive / "same.tif", np.full((SIZE,) * 3, 7, np.uint8))
    holes = np.random.default_rng(3).normal(size=(SIZE,) * 3).astype(np.float32)
    holes[4:9] = np.nan
    tifffile.imwrite(archive / "nan.tif", holes)
    # Every slice is certain enough, so that all is located however little was learned.
    localize = {"threshold": 0.0, "min_peak": 0.0}
    # What the demonstration's own configuration sets must stand in the file too.
    own = {"steps": demo_config().self_train.steps}
    settings = settings_of(localize=localize, crop={"margin": 0.0}, self_train=own)
    given = [
        f"--set={section}.{key}={json.dumps(value)}"
        for section, values in settings.items()
        for key, value in values.items()
    ]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-c", "from ctray.cli.main import main; main()", "demo"]
    done = subprocess.run(
        [*command, "--out", str(folder), "--count", "3", "--size", str(SIZE), "--json", *given],
        capture_output=True,
        text=True,
        check=False,
        env=subprocess_env(),
    )
    return folder, done


@pytest.mark.ray
def test_demo_does_everything_and_one_bad_volume_costs_only_itself(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = finished
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"] == {"located": 4, "empty": 1, "failed": 1}
    assert [f["volume_id"] for f in document["failed"]] == ["cut"]
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed ")]
    assert len(failed) == 1
    assert failed[0].startswith("failed cut: ")
    assert "Traceback" not in done.stderr
    own = document["scores"][0]
    assert (own["method"], own["num_volumes"], own["num_located"]) == ("ctray", 3, 3)
    assert own["mean_voxels"] > 0  # everything was located, the truth is smaller
    assert "raw-best" in {row["method"] for row in document["scores"]}
    assert Path(document["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert Path(document["picture"]).read_bytes().startswith(b"\x89PNG")
    rows = read_localizations(document["boxes"])
    assert sorted(r["status"] for r in rows) == sorted(["located"] * 4 + ["empty", "failed"])
    crops = sorted(p.name for p in (folder / "run" / "crops").iterdir())
    assert crops == ["embryo-0000.zarr", "embryo-0001.zarr", "embryo-0002.zarr", "nan.zarr"]


@pytest.mark.ray
def test_scores_and_report_of_a_finished_run(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    run = folder / "run"
    result = ctray("evaluate", run, "--truth", folder / "archive", "--no-baselines")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == [
        *("method", "ctray", "ctray-crop")
    ]
    assert "3 of 3 samples located" in result.stdout
    assert json.loads((run / "scores.json").read_text())["summary"][0]["method"] == "ctray"
    page = run / "report" / "index.html"
    page.unlink()
    assert ctray("report", run).stdout.strip() == str(page)
    assert page.exists()
    assert_one_error(ctray("evaluate", run, "--truth", folder / "run"), "no truth")


@pytest.fixture
def session() -> Iterator[None]:
    """One Ray session for several commands, which each would start one."""
    from ctray.config import RayConfig
    from ctray.executors.ray.session import ray_session

    with ray_session(RayConfig(num_cpus=2, object_store_mb=100)):
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("session")
# Ray Data warns of settings of its own whenever it copies them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_stages_alone_take_up_the_run(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    run = RunFolder(url=str(folder / "run"))
    args = [folder / "archive", "--out", run.url, "--config", folder / "config.yaml"]
    before = {r.volume_id: r for r in run.receipts()}
    for name in ("embryo-0000", "embryo-0001"):
        Path(run.receipt(name)).unlink()
    # One crop is to be made anew, one was committed before its receipt could be written.
    shutil.rmtree(folder / "run" / "crops" / "embryo-0000.zarr")

    weights = {p.name: p.stat().st_mtime_ns for p in (folder / "run" / "checkpoint").iterdir()}
    trained = ctray("pretrain", *args)
    assert trained.exit_code == 3, trained.stderr
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "run" / "checkpoint").iterdir()} == (
        weights
    )

    located = ctray("localize", run.url, "--no-crop", "--json")
    assert located.exit_code == 3, located.stderr
    assert json.loads(located.stdout)["counts"] == {"located": 4, "empty": 1, "failed": 1}
    receipt = run.read_receipt("embryo-0000")
    assert receipt is not None
    assert receipt.sample_box == before["embryo-0000"].sample_box
    assert receipt.crop_url is None
    assert run.read_receipt("embryo-0002") == before["embryo-0002"]

    cropped = ctray("crop", run.url)
    assert cropped.exit_code == 3, cropped.stderr
    assert "localize: 2/2" in cropped.stderr
    for name in ("embryo-0000", "embryo-0001"):
        after = run.read_receipt(name)
        assert after is not None
        assert (after.crop_box, after.checksum) == (
            before[name].crop_box,
            before[name].checksum,
        )
    again = ctray("run", *args)
    assert again.exit_code == 3, again.stderr
    assert "localize" not in again.stderr
    assert "6 volumes: 4 located, 1 empty, 1 failed" in again.stdout
    assert "report" in again.stdout

    wrong = ctray("localize", run.url, "--set", "task=sorting")
    assert_one_error(wrong, "begun with another", "task", code=2)
    task = ctray("pretrain", *args, "--task", "sorting")
    assert_one_error(task, "task", "another --out", code=2)
    other = ctray("run", *args, "--set", "train.seed=5")
    assert_one_error(other, "train.seed", "another --out", code=2)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "interrupted by SIGTERM"),
        (signal.SIGHUP, "interrupted by SIGHUP"),
    ],
)
def test_signal_ends_with_one_line(tmp_path: Path, number: signal.Signals, told: str) -> None:
    # A shell's background jobs ignore the signal, and hand that on to what they start.
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    )
    code = f"{heeding}; from ctray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "phantom"]
    process = subprocess.Popen(
        [*command, str(tmp_path), "--count", "500", "--size", "48"],
        stderr=subprocess.PIPE,
        text=True,
        env=subprocess_env(),
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*.zarr")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == f"{told}; the same command resumes"
    assert "Traceback" not in errors


def test_what_nobody_foresaw_is_one_line_too() -> None:
    from ctray.cli.options import errors_as_lines

    @click.command()
    def broken() -> None:
        with errors_as_lines(debug=False):
            raise ZeroDivisionError("seven\nlines")

    result = CliRunner().invoke(broken)
    assert_one_error(result, "unexpected ZeroDivisionError: seven lines", "--debug")
