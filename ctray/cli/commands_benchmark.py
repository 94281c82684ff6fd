"""Commands that measure ctray itself on volumes with known boxes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctray.cli.options import (
    config_options,
    echo,
    extents,
    print_json,
    say,
    shared_options,
    size_of,
)

Command = TypeVar("Command", bound=Callable[..., Any])
# As in `ctray.phantom.scenes`, which would delay --help.
_FAMILIES: tuple[Any, ...] = ("embryo", "fish", "multi")
_REAL_FAMILIES = ("heads", "heads-noisy", "hybrid")
# There are too few unchanged real scans to calibrate with them.
_CALIBRATION_FAMILIES = ("heads-noisy", "hybrid")
_PURPOSES = ("tuning", "calibration", "final")


def _what_options(count: int) -> Callable[[Command], Command]:
    """Add the options that choose the volumes; `count` is the default of --count."""
    options = (
        click.option(
            "--data",
            metavar="FOLDER",
            envvar="CTRAY_TEST_DATA",
            show_envvar=True,
            help="Folder of real scans, each a folder with volume.tif, mask.tif and meta.json.",
        ),
        click.option(
            "--family",
            "families",
            multiple=True,
            type=click.Choice((*_FAMILIES, *_REAL_FAMILIES)),
            help="Only this family of samples. Repeatable.",
        ),
        click.option(
            "--scene",
            "scenes",
            multiple=True,
            metavar="NAME",
            help="Only this scene; `real` stands for real scans. Repeatable.",
        ),
        click.option(
            "--count",
            type=int,
            default=count,
            show_default=True,
            help="Number of phantoms of each family in each scene.",
        ),
        click.option(
            "--size",
            type=extents,
            default="128",
            show_default=True,
            metavar="Z,Y,X",
            help="Their shape in voxels, one side or z,y,x.",
        ),
    )

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(short_help="Measure ctray on volumes with known boxes.")
def benchmark() -> None:
    """Measure ctray on volumes with known boxes."""


@benchmark.command(short_help="Score boxes and crops on every family and scene.")
@click.option("--out", required=True, metavar="FOLDER", help="Output folder.")
@click.option(
    "--purpose",
    type=click.Choice(_PURPOSES),
    default="tuning",
    show_default=True,
    help="Purpose of the figures; it decides the seeds. final takes the package's settings only.",
)
@_what_options(count=4)
@click.option(
    "--ablation", is_flag=True, help="Also run variants that each leave out one step of the method."
)
@click.option("--no-baselines", is_flag=True, help="Do not score classical methods.")
@config_options
@shared_options()
def localization(
    out: str,
    purpose: Any,
    config: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    ablation: bool,
    no_baselines: bool,
    **what: Any,
) -> None:
    """Make volumes with known boxes, run ctray on them, and score it and classical methods.

    Writes benchmark.json, benchmark.md, rows.parquet and volumes.parquet to FOLDER. After an
    interruption, the same command resumes.
    """
    from ctray.cli.progress import reporter

    with reporter() as progress:
        progress.note("starting")
        from ctray.benchmark.plan import benchmark_config
        from ctray.benchmark.run import run_benchmark
        from ctray.benchmark.variants import VARIANTS

        settings = benchmark_config(purpose, config, overrides)
        plan = _plan(purpose=purpose, variants=VARIANTS if ablation else {}, **what)
        result = run_benchmark(
            out,
            plan,
            settings,
            baselines=not no_baselines,
            command=shlex.join(["ctray", *sys.argv[1:]]),
            on_event=progress,
            on_baselines=lambda done, total: progress.update("baselines", done, total),
            on_note=progress.note,
        )
    _finish(result, as_json)


@benchmark.command(short_help="Fit the margins that ctray comes with.")
@click.option("--out", required=True, metavar="FOLDER", help="Output folder.")
@_what_options(count=2)
@click.option("--ship", is_flag=True, help="Write the calibration into the installed package.")
@config_options
@shared_options()
def calibration(
    out: str,
    config: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    ship: bool,
    **what: Any,
) -> None:
    """Make volumes from the calibration seeds, run ctray on them, and fit margins to the truth.

    Writes FOLDER/calibration.json. The calibration is valid only for boxes that are found with the
    same settings: the defaults, changed by --config and --set. After an interruption, the same
    command resumes.
    """
    from ctray.cli.progress import reporter

    with reporter() as progress:
        progress.note("starting")
        from ctray.benchmark.calibration import run_calibration, ship_calibration
        from ctray.config import load_config

        settings = load_config(config, overrides)
        plan = _plan(
            purpose="calibration", variants={}, real_families=_CALIBRATION_FAMILIES, **what
        )
        found = run_calibration(
            out,
            plan,
            settings,
            command=shlex.join(["ctray", *sys.argv[1:]]),
            on_event=progress,
            on_volume=lambda done, total: progress.update("calibrate", done, total),
        )
    written = ship_calibration(found) if ship else f"{out.rstrip('/')}/calibration.json"
    say_calibration(found, settings, written, as_json)


def say_calibration(found: Any, settings: Any, written: str, as_json: bool) -> None:
    """Print a calibration and where it was written."""
    crop = settings.crop
    factor = found.factor(crop.max_loss, crop.coverage)
    if as_json:
        print_json({"calibration": written, "factor": factor, **found.to_json()})
        return
    echo(
        f"{found.num_volumes} volumes: margins of {factor:g} scales lose at most "
        f"{crop.max_loss:.2%} in {crop.coverage:.0%} of volumes"
    )
    echo(f"valid for boxes of settings {found.box_settings_digest}")
    echo(written)


def _plan(
    *,
    purpose: Any,
    variants: dict[str, tuple[str, ...]],
    data: str | None,
    families: tuple[Any, ...],
    scenes: tuple[str, ...],
    count: int,
    size: tuple[int, ...],
    real_families: tuple[str, ...] = _REAL_FAMILIES,
) -> Any:
    from ctray.benchmark.plan import BenchmarkPlan
    from ctray.phantom.scenes import REAL_SCENE, SCENES

    wanted = not scenes or REAL_SCENE in scenes
    real = tuple(f for f in real_families if wanted and (not families or f in families))
    if real and (families or scenes) and not data:
        raise click.UsageError(
            f"the family {real[0]} needs real scans; give their folder with --data"
        )
    return BenchmarkPlan(
        purpose=purpose,
        families=tuple(f for f in _FAMILIES if not families or f in families),
        scenes=tuple(s for s in scenes or SCENES if s != REAL_SCENE),
        count=count,
        size=size_of(size),
        data=data or None,
        real_families=real,
        variants=variants,
    )


def _finish(result: Any, as_json: bool) -> None:
    from ctray.cli.tables import benchmark_table, print_table
    from ctray.report.benchmark_text import markdown
    from ctray.storage import store

    page = store.join(result.url, "benchmark.md")
    store.write_bytes(page, markdown(result.about, result.rows).encode())
    if as_json:
        print_json(result.to_json())
        return
    print_table(benchmark_table(result.rows))
    echo("errors are fractions of the side; benchmark.md explains the columns")
    say(f"written: {page}, {store.join(result.url, 'benchmark.json')}")
