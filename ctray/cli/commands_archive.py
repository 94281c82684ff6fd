"""Commands for big archives: what a run would come to, and the run with that shown first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.commands_run import asked_settings, finish, held_output, look_first, run_facts
from ctray.cli.options import (
    archive_names_options,
    config_options,
    echo,
    print_json,
    ray_options,
    say,
    shared_options,
    specimens_option,
    surround_option,
)

if TYPE_CHECKING:
    from ctray.archive.catalog import Catalog
    from ctray.config import RunConfig
    from ctray.pipeline.plan import ArchivePlan

_sample = click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Volumes that are looked at, drawn at random.",
)


@click.command(short_help="Say what a run would save and take; change nothing.")
@click.argument("archive")
@click.option("--out", metavar="RUN", help="Run whose receipts or trained model are to be used.")
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
    """Say how many volumes ARCHIVE holds, what cropping would save, and how long it would take.

    Reads the metadata of all volumes and the voxels of a few, and changes nothing. What the figures
    rest on is printed with them: the receipts of the run --out, else its trained model on the
    sample, else a rough guess from the sample's grey values. The settings are those of the run,
    with what --config and --set say on top.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config, on_top_of

    given = load_config(config, overrides)
    with reporter() as progress:
        progress.note(f"looking for volumes in {archive}")
        settings = given
        if out is not None:
            from ctray.pipeline.run import resume_run

            settings = on_top_of(resume_run(out)[1], given)
        from ctray.pipeline.finding import find_archive

        catalog = find_archive(archive, settings, progress)
        found = _plan(catalog, out, settings, sample, progress)
    if as_json:
        print_json(found.to_json())
        return
    from ctray.cli.tables import plan_lines

    for line in plan_lines(found):
        echo(line)


@click.command(name="archive", short_help="As run, for big archives: shows the plan first.")
@click.argument("archive")
@click.option("--out", required=True, metavar="RUN", help="Folder of the run: path or URL.")
@click.option("--yes", is_flag=True, help="Begin without asking.")
@click.option(
    "--write-pyramid",
    is_flag=True,
    help="Keep the coarse levels of Zarr volumes without a pyramid in RUN/pyramids.",
)
@_sample
@config_options
@archive_names_options
@specimens_option
@surround_option
@ray_options
@shared_options()
def archive_(
    archive: str,
    out: str,
    yes: bool,
    write_pyramid: bool,
    sample: int,
    config: str | None,
    overrides: tuple[str, ...],
    specimens: bool,
    keep_surround: bool,
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the volumes of ARCHIVE, show the plan, and after a yes do all that `ctray run` does.

    For archives that take hours or cost money: the plan comes before anything is written.
    `ctray run` does the same without a plan and without asking. Without a terminal, or with --json,
    nothing is asked, and --yes must be given. The same command takes up what was interrupted.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes to begin at once")
    asked = asked_settings(specimens, keep_surround)
    asked += ("pool.write_pyramid=true",) * write_pyramid
    given = load_config(config, (*asked, *ray, *overrides))
    with reporter() as progress:
        catalog = look_first(archive, out, given, progress)
        from ctray.pipeline.taking_up import settings_for

        settings = settings_for(out, given)
        if catalog is None:
            from ctray.pipeline.finding import find_archive

            catalog = find_archive(archive, settings, progress)
        found = _plan(catalog, out, settings, sample, progress)
    from ctray.cli.tables import plan_lines

    for line in plan_lines(found):
        say(line)
    if not yes:
        click.confirm("begin?", abort=True, err=True)
    with reporter() as progress, held_output(archive, out, progress.note):
        from ctray.pipeline.run import run_archive

        folder, receipts = run_archive(archive, out, settings, progress, catalog, progress.note)
        facts = run_facts(folder, receipts, report=True)
    finish(facts | {"plan": found.to_json()}, as_json)


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
        on_look=lambda done, total, name: progress.update("look", done, total, name),
        on_note=progress.note,
    )
