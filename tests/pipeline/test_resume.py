"""A run that is killed at any point is finished by the same command; nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from ctray.learn.pretext.checkpoint import load_model
from ctray.phantom import make_phantom, preset
from ctray.records.run_folder import RunFolder
from ctray.volumes.volume import open_volume

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = (
    "preprocess.working_size=32",
    "preprocess.container=off",
    "train.steps=24",
    "train.batch_size=8",
    "train.run_length=8",
    "train.interleave=4",
    "train.checkpoint_every=4",
    "train.num_readers=1",
    "encoder.widths=[8,8,8]",
    "self_train.steps=40",
    "self_train.slabs=24",
    "localize.orientations=1",
    # So little training teaches nothing; Otsu's threshold gives boxes all the same.
    "localize.threshold=otsu",
    "localize.min_peak=0",
    "pool.max_size=1",
    "ray.num_cpus=2",
    "ray.object_store_mb=100",
)
NUM_GOOD = 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for index in range(NUM_GOOD):
        phantom = make_phantom(preset("easy", seed=5, index=index, size=48))
        tifffile.imwrite(folder / f"scan_{index}.tif", phantom.volume, compression="zlib")
    whole = (folder / "scan_0.tif").read_bytes()
    (folder / "broken.tif").write_bytes(whole[: len(whole) // 3])
    return folder


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A short folder for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp", ignore_cleanup_errors=True) as path:
        monkeypatch.setenv("RAY_TMPDIR", path)
        yield path


def start(archive: Path, out: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", "from ctray.cli.main import main; main()"]
    words += ["run", str(archive), "--out", str(out)]
    for setting in SETTINGS:
        words += ["--set", setting]
    return subprocess.Popen(
        words,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """SIGKILL the command and its process group as soon as `reached`."""
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, f"ended before it was killed: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "never reached the point at which to kill it"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    _, messages = process.communicate(timeout=300)
    # 3: a volume failed, and the others came to their end.
    assert process.returncode == 3, messages
    return messages


def state(out: Path) -> dict[str, Any]:
    receipts = {r.volume_id: r for r in RunFolder(url=str(out)).receipts()}
    return {
        "digest": load_model(str(out / "checkpoint")).digest,
        "boxes": {name: r.sample_box for name, r in receipts.items()},
        "statuses": {name: r.status for name, r in receipts.items()},
        "checksums": {name: r.checksum for name, r in receipts.items()},
    }


def step_of(out: Path) -> int:
    manifest = out / "checkpoint" / "checkpoint.json"
    return int(json.loads(manifest.read_text())["step"]) if manifest.exists() else 0


def test_killed_at_three_points(archive: Path, tmp_path: Path, short_tmp: str) -> None:
    straight = tmp_path / "straight"
    messages = finish(start(archive, straight))
    assert "broken" in messages
    expected = state(straight)
    assert list(expected["statuses"].values()).count("failed") == 1

    out = tmp_path / "killed"
    kill_when(start(archive, out), lambda: any(out.glob("imported/*.zarr/zarr.json")))
    assert step_of(out) == 0
    kill_when(start(archive, out), lambda: 0 < step_of(out) < 24)
    trained_to = step_of(out)
    located = [f"receipts/scan_{i}.json" for i in range(NUM_GOOD)]
    kill_when(start(archive, out), lambda: any((out / name).exists() for name in located))
    assert step_of(out) == 24 > trained_to

    done = {name: (out / name).stat().st_mtime_ns for name in located if (out / name).exists()}
    imported = {p: p.stat().st_mtime_ns for p in out.glob("imported/*.zarr/zarr.json")}
    assert 0 < len(done) < NUM_GOOD
    finish(start(archive, out))
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    assert {p: p.stat().st_mtime_ns for p in imported} == imported
    assert state(out) == expected

    for receipt in RunFolder(url=str(out)).receipts():
        if receipt.status != "located":
            continue
        assert receipt.crop_url is not None
        assert receipt.crop_box is not None
        source = tifffile.imread(archive / f"{receipt.volume_id}.tif")
        crop = open_volume(receipt.crop_url)
        inside = receipt.crop_box.slices
        np.testing.assert_array_equal(crop.read_level(0), source[inside])


def test_sigterm_ends_a_run_cleanly(archive: Path, tmp_path: Path, short_tmp: str) -> None:
    """In localization, in the main process's calls into Ray's core; a killed one leaves its folder.

    The next command removes that.
    """
    out = tmp_path / "run"
    kill_when(start(archive, out), lambda: any(out.glob("checkpoint/slabs.json")))
    left = list(Path(short_tmp).glob("ctray-ray-*"))
    assert len(left) == 1
    assert (out / "lock.json").exists()

    process = start(archive, out)
    deadline = time.monotonic() + 240
    while not any((out / f"receipts/scan_{i}.json").exists() for i in range(NUM_GOOD)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 143, messages
    assert messages.splitlines()[-1] == ("interrupted by SIGTERM; the same command resumes")
    assert "***" not in messages
    assert not list(Path(short_tmp).glob("ctray-ray-*"))
    assert not (out / "lock.json").exists()
    finish(start(archive, out))
