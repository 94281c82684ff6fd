"""A run that is ended at any point is finished by the same command; nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    # So little training teaches nothing; boxes are to come out all the same.
    "localize.threshold=otsu",
    "localize.min_peak=0",
    "localize.last_look=off",
    "self_train.threshold=0",
    "self_train.min_agreement=0",
    "self_train.min_peak=-9",
    "crop.margin=0.05",
    "pool.max_size=1",
    "ray.num_cpus=2",
    "ray.object_store_mb=100",
)
# Two interruptions in localization each leave some of them to do.
NUM_GOOD = 8


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
def short_tmp(shared_ray: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A short folder for Ray's sockets; no other session of this process takes time."""
    shared_ray.end()
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp", ignore_cleanup_errors=True) as path:
        monkeypatch.setenv("RAY_TMPDIR", path)
        yield path


def start(archive: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", "from ctray.cli.main import main; main()"]
    words += ["run", str(archive), "--out", str(out), *more]
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


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait while the command runs until `reached`."""
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, f"ended before that: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "never reached the point at which to end it"
        time.sleep(0.02)


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """SIGKILL the command and its process group as soon as `reached`."""
    wait_until(process, reached)
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


def written(out: Path, pattern: str) -> dict[Path, int]:
    """When each file was last written."""
    return {path: path.stat().st_mtime_ns for path in out.glob(pattern)}


def located(out: Path) -> dict[Path, int]:
    """Receipts of good volumes, and when each was written."""
    return written(out, "receipts/scan_*.json")


def test_killed_three_times_and_terminated(archive: Path, tmp_path: Path, short_tmp: str) -> None:
    # In plain processes: a run on Ray, however often it is ended, gives the same.
    straight = tmp_path / "straight"
    messages = finish(start(archive, straight, "--local"))
    assert "broken" in messages
    expected = state(straight)
    assert Counter(expected["statuses"].values()) == {"located": NUM_GOOD, "failed": 1}

    out = tmp_path / "ended"
    kill_when(start(archive, out), lambda: bool(written(out, "imported/*.zarr/zarr.json")))
    assert step_of(out) == 0
    kill_when(start(archive, out), lambda: 0 < step_of(out) < 24)
    trained_to = step_of(out)
    kill_when(start(archive, out), lambda: bool(located(out)))
    assert step_of(out) == 24 > trained_to
    assert list(Path(short_tmp).glob("ctray-ray-*"))
    assert (out / "lock.json").exists()

    killed, imported = located(out), written(out, "imported/*.zarr/zarr.json")
    terminate_in_localization(start(archive, out), out, short_tmp)
    done = located(out)
    assert killed.items() <= done.items()
    assert len(done) < NUM_GOOD

    finish(start(archive, out))
    assert done.items() <= located(out).items()
    assert written(out, "imported/*.zarr/zarr.json") == imported
    assert state(out) == expected
    check_crops(archive, out)


def has_session(process: subprocess.Popen[str], short_tmp: str) -> bool:
    """Whether a command has begun its own Ray session, and removed those of killed ones."""
    for owner in Path(short_tmp).glob("ctray-ray-*/ctray-owner.json"):
        with suppress(FileNotFoundError):
            if f'"pid": {process.pid},' in owner.read_text():
                return True
    return False


def terminate_in_localization(process: subprocess.Popen[str], out: Path, short_tmp: str) -> None:
    """SIGTERM to the main process, in its calls into Ray's core: it ends in good order."""
    # By then the workers of the killed command are gone, with what they still wrote.
    wait_until(process, lambda: has_session(process, short_tmp))
    before = len(located(out))
    wait_until(process, lambda: len(located(out)) > before)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 143, messages
    assert messages.splitlines()[-1] == ("interrupted by SIGTERM; the same command resumes")
    assert "***" not in messages
    assert not list(Path(short_tmp).glob("ctray-ray-*"))
    assert not (out / "lock.json").exists()


def check_crops(archive: Path, out: Path) -> None:
    for receipt in RunFolder(url=str(out)).receipts():
        if receipt.status != "located":
            continue
        assert receipt.crop_url is not None
        assert receipt.crop_box is not None
        source = tifffile.imread(archive / f"{receipt.volume_id}.tif")
        crop = open_volume(receipt.crop_url)
        inside = receipt.crop_box.slices
        np.testing.assert_array_equal(crop.read_level(0), source[inside])
