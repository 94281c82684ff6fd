"""Making the calibration that the package ships: phantoms with known truth, at given settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ctray.benchmark.machine import describe_machine
from ctray.benchmark.plan import BenchmarkPlan
from ctray.benchmark.run import run_benchmark
from ctray.config import RunConfig, override
from ctray.core.errors import ConfigError, StorageError
from ctray.core.version import __version__
from ctray.evaluate.benchmark_table import MAIN
from ctray.evaluate.calibrating import calibrate_runs
from ctray.localization import margins
from ctray.localization.margins import Calibration
from ctray.records.events import OnEvent
from ctray.records.run_folder import RunFolder
from ctray.storage import store


def run_calibration(
    out_url: str,
    plan: BenchmarkPlan,
    config: RunConfig,
    *,
    command: str | None = None,
    on_event: OnEvent = lambda event: None,
    on_volume: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Make the archives of a plan, run ctray on each, and calibrate on all of them together.

    Parameters
    ----------
    out_url
        Folder of it all: new, or begun with the same plan and settings. `calibration.json` is
        written into it.
    plan
        Which volumes; of the purpose ``calibration``.
    config
        Settings that the calibration will hold for.
    command
        Command line, to be noted.
    on_event, on_volume
        Progress of the runs, and of the calibration: (done, total).

    Raises
    ------
    ConfigError
        If the plan has another purpose, or what `crop` asks for is not kept by these volumes.
    """
    if plan.purpose != "calibration":
        raise ConfigError(
            f"margins are calibrated on calibration seeds, not those of {plan.purpose}"
        )
    # Margins of an earlier calibration would leave its own most open faces out of the next one.
    fixed = override(config, ("crop.margin=0",))
    result = run_benchmark(
        out_url, plan, fixed, baselines=False, command=command, on_event=on_event
    )
    runs = [
        (RunFolder(url=store.join(result.url, "runs", archive.name, MAIN)), archive.truth_url)
        for archive in plan.archives(store.join(result.url, "archives"))
    ]
    found = calibrate_runs(runs, on_volume)
    volumes = ", ".join(f"{n} of {name}" for name, n in result.about["volumes"].items())
    found = replace(
        found,
        about=f"{found.num_volumes} located samples of the calibration seeds ({volumes}; phantoms "
        f"of {plan.size} voxels a side)",
        made={"ctray_version": __version__, "command": command, **describe_machine()},
    )
    store.write_json(store.join(result.url, "calibration.json"), found.to_json())
    # One that cannot keep what is asked for is there to be looked at, and never shipped.
    found.factor(config.crop.max_loss, config.crop.coverage)
    return found


def ship_calibration(calibration: Calibration) -> str:
    """Make a calibration the package's own, and return the path of its file.

    Raises
    ------
    StorageError
        If the installed package cannot be written.
    """
    path = Path(margins.__file__).with_name("calibration.json")
    try:
        path.write_text(json.dumps(calibration.to_json()) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return str(path)
