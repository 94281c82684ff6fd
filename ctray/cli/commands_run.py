"""Commands for a whole run: run (and its alias archive), and plan."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from ctray.cli.options import (
    Command,
    archive_names_options,
    config_options,
    echo,
    out_option,
    print_json,
    ray_options,
    say,
    shared_options,
    specimens_option,
    surround_option,
)
from ctray.cli.running import asked_settings, finish, held_output, look_first, make_run, run_facts

if TYPE_CHECKING:
    from ctray.archive.catalog import Catalog
    from ctray.config import RunConfig
    from ctray.pipeline.plan import ArchivePlan

# An archive above either limit is large: on a laptop, its run takes an hour or more.
LARGE_VOLUMES = 200
LARGE_BYTES = 100 * 10**9

_sample = click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Number of volumes that the plan looks into, drawn at random.",
)


def _whole_run_options(function: Command) -> Command:
    options: tuple[Callable[[Any], Any], ...] = (
        click.argument("archive"),
        out_option,
        click.option("--yes", is_flag=True, help="Start without asking."),
        _sample,
        click.option(
            "--write-pyramid",
            is_flag=True,
            help="Keep pyramids of Zarr volumes that have none, in RUN/pyramids.",
        ),
        config_options,
        archive_names_options,
        specimens_option,
        surround_option,
        ray_options,
        shared_options(),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(short_help="Find, localize and crop the samples of an archive.")
@_whole_run_options
def run(
    archive: str,
    out: str,
    yes: bool,
    sample: int,
    write_pyramid: bool,
    config: str | None,
    overrides: tuple[str, ...],
    specimens: bool,
    keep_surround: bool,
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the volumes of ARCHIVE, train, localize and crop the samples, and write a report.

    ARCHIVE is a folder or URL and is never changed. All results go to the run folder RUN. After an
    interruption, the same command resumes.

    For a new run over a large archive (more than 200 volumes or 100 GB of voxels), the command
    first shows a plan, as `ctray plan` does, and asks before it writes anything. --yes starts
    without asking.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    asked = asked_settings(specimens, keep_surround)
    asked += ("pool.write_pyramid=true",) * write_pyramid
    given = load_config(config, (*asked, *ray, *overrides))
    planned = None
    with reporter() as progress:
        found = look_first(archive, out, given, progress)
        if found is not None and _is_large(found):
            if not yes:
                _check_terminal(found)
            planned = _plan(found, out, given, sample, progress)
    if planned is not None:
        _show(planned, say)
        if not yes:
            click.confirm("Start the run?", abort=True, err=True)
    with reporter() as progress, held_output(archive, out, progress.note):
        folder, receipts = make_run(archive, out, given, progress, found)
        facts = run_facts(folder, receipts, report=True)
    finish(facts if planned is None else facts | {"plan": planned.to_json()}, as_json)


# The name of the same work as a job: `ctray submit archive`.
archive_ = click.Command(
    name="archive",
    callback=run.callback,
    params=run.params,
    help=f"The same command as `ctray run`.\n\n{cleandoc(run.help or '')}",
    hidden=True,
)


@click.command(short_help="Estimate savings and time of a run; write nothing.")
@click.argument("archive")
@click.option("--out", metavar="RUN", help="Run folder whose receipts or trained model to use.")
@_sample
@config_options
@archive_names_options
@shared_options()
def plan(
    archive: str,
    out: str | None,
    sample: int,
    config: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Estimate how much storage a run over ARCHIVE saves, and how long it takes.

    Reads the metadata of all volumes and the voxels of a few. Writes nothing. The estimate uses the
    receipts of the run --out, or its trained model. Without either, it is a rough guess from grey
    values. The output says which one it used. Settings are those of the run --out, with --config
    and --set on top.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config, on_top_of

    settings = load_config(config, overrides)
    with reporter() as progress:
        progress.note(f"looking for volumes in {archive}")
        if out is not None:
            from ctray.pipeline.run import resume_run

            settings = on_top_of(resume_run(out)[1], settings)
        from ctray.pipeline.find_volumes import find_archive

        catalog = find_archive(archive, settings, progress)
        found = _plan(catalog, out, settings, sample, progress)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found, echo)


def _is_large(catalog: Catalog) -> bool:
    return len(catalog.ok) > LARGE_VOLUMES or _num_bytes(catalog) > LARGE_BYTES


def _num_bytes(catalog: Catalog) -> int:
    return sum(entry.num_bytes or 0 for entry in catalog.ok)


def _check_terminal(catalog: Catalog) -> None:
    if not sys.stdin.isatty():
        size = decimal(_num_bytes(catalog))
        raise click.UsageError(
            f"The archive is large ({len(catalog.ok):,} volumes, {size}). Cannot prompt without a "
            "terminal; pass --yes to start."
        )


def _plan(
    catalog: Catalog, out: str | None, settings: RunConfig, sample: int, progress: Any
) -> ArchivePlan:
    from ctray.pipeline.plan import plan_archive
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    return plan_archive(
        catalog,
        settings,
        None if out is None else RunFolder(url=store.normalize(out)),
        num_sample=sample,
        on_look=lambda done, total, name: progress.update("plan", done, total, name),
        on_note=progress.note,
    )


def _show(plan: ArchivePlan, show: Callable[[str], None]) -> None:
    from ctray.cli.tables import plan_lines

    for line in plan_lines(plan):
        show(line)
