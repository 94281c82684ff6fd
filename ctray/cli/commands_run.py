"""Commands that make a run: all of it, or one stage."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.options import (
    TASKS,
    archive_names_options,
    config_options,
    echo,
    instances_option,
    print_json,
    ray_options,
    run_argument,
    say,
    shared_options,
    surround_option,
)
from ctray.errors import ConfigError, PartialFailureError

if TYPE_CHECKING:
    from ctray.config import RunConfig
    from ctray.storage.catalog import Catalog
    from ctray.storage.run_folder import Receipt, RunFolder

_STATUSES = ("located", "empty", "uncertain", "failed")
_out = click.option("--out", required=True, metavar="RUN", help="Folder of the run: path or URL.")


@click.command(short_help="Everything: find volumes, learn, locate, crop, report.")
@click.argument("archive")
@_out
@config_options
@archive_names_options
@instances_option
@surround_option
@ray_options
@shared_options()
def run(
    archive: str,
    out: str,
    config: str | None,
    overrides: tuple[str, ...],
    instances: bool,
    keep_surround: bool,
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Do everything: find the volumes of ARCHIVE, learn, locate, crop, report.

    The archive stays as it is. The same command takes up again what was interrupted. For archives
    that take hours, `ctray archive` does the same and shows first what it would come to.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    settings = load_config(config, (*_asked(instances, keep_surround), *ray, *overrides))
    with reporter() as progress:
        folder, receipts = make_run(archive, out, settings, progress)
        progress.note("writing the report")
        facts = run_facts(folder, receipts, report=True)
    finish(facts, as_json)


@click.command(short_help="Find and import the volumes, train the encoder.")
@click.argument("archive")
@_out
@config_options
@archive_names_options
@ray_options
@shared_options()
def pretrain(
    archive: str,
    out: str,
    config: str | None,
    overrides: tuple[str, ...],
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the volumes of ARCHIVE, import what needs it, and train the encoder."""
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    settings = load_config(config, (*ray, *overrides))
    with reporter() as progress:
        found = look_first(archive, out, settings, progress)
        from ctray.engine.archive import begin_run, pretrain_stage
        from ctray.engine.executor import executor_session

        folder, catalog = begin_run(archive, out, settings, progress, found)
        with executor_session(settings.ray, progress.note) as executor:
            pretrain_stage(folder, settings, catalog.ok, progress, executor)
    failures = _failures(r for r in folder.receipts() if r.status == "failed")
    if as_json:
        print_json({"run": folder.url, "checkpoint": folder.checkpoint, **failures})
    else:
        echo(f"checkpoint {folder.checkpoint}")
        echo(f"next: ctray localize {out}")
    _end(failures["failed"], len(catalog))


@click.command(short_help="Locate and crop what has no receipt yet.")
@run_argument
@click.option("--no-crop", is_flag=True, help="Write boxes only; ctray crop can follow.")
@click.option(
    "--method",
    type=click.Choice(TASKS),
    help="Way to the boxes; that of the run's own task, and refused if the run has another.",
)
@instances_option
@surround_option
@ray_options
@shared_options()
def localize(
    run_url: str,
    no_crop: bool,
    method: str | None,
    instances: bool,
    keep_surround: bool,
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the sample in every volume of RUN that has no receipt yet, and crop it."""
    asked = (*_asked(instances, keep_surround), *ray)
    _localize(
        run_url, as_json, crop=not no_crop, only_located=False, method=method, overrides=asked
    )


@click.command()
@run_argument
@surround_option
@ray_options
@shared_options()
def crop(run_url: str, keep_surround: bool, ray: tuple[str, ...], as_json: bool) -> None:
    """Write the crops of RUN that are missing."""
    asked = (*_asked(False, keep_surround), *ray)
    _localize(run_url, as_json, crop=True, only_located=True, overrides=asked)


@click.command(short_help="Write the report page of a run.")
@run_argument
@shared_options()
def report(run_url: str, as_json: bool) -> None:
    """Write the report page of RUN, finished or not."""
    from ctray.cli.progress import reporter
    from ctray.report import write_report
    from ctray.storage import store
    from ctray.storage.run_folder import RunFolder

    folder = RunFolder(url=store.normalize(run_url))
    with reporter() as progress:
        progress.note("writing the report")
        url = write_report(folder)
    if as_json:
        print_json({"run": folder.url, "report": url})
    else:
        echo(url)


def make_run(
    archive: str, out: str, settings: RunConfig, progress: Any
) -> tuple[RunFolder, Sequence[Receipt]]:
    """Check the output and do everything but the report; failed volumes are named on an error."""
    found = look_first(archive, out, settings, progress)
    from ctray.engine.archive import run_archive

    return run_archive(archive, out, settings, progress, found, progress.note)


def look_first(archive: str, out: str, settings: RunConfig, progress: Any) -> Catalog | None:
    """Volumes of an archive, where a run is not begun yet: what is refused is refused at once.

    Loading torch and Ray takes seconds, on a busy machine half a minute.
    """
    progress.note(f"looking for volumes in {archive}")
    from ctray.engine.finding import find_archive
    from ctray.storage import store
    from ctray.storage.run_folder import RunFolder, check_output

    check_output(archive, out)
    if store.exists(RunFolder(url=store.normalize(out)).manifest):
        return None
    return find_archive(archive, settings, progress)


def run_facts(folder: RunFolder, receipts: Sequence[Receipt], *, report: bool) -> dict[str, Any]:
    """Counts, sizes and places of a run, for the summary; writes the report if asked for it."""
    from ctray.report import write_report
    from ctray.report.summary import summarize_run
    from ctray.storage import store

    summary = summarize_run(folder)
    sizes = summary.sizes()
    counts: Counter[str] = Counter()
    failed: list[Receipt] = []
    cropped = False
    for receipt in receipts:  # once: they are read as they come
        counts[receipt.status] += 1
        cropped = cropped or bool(receipt.crop_boxes)
        failed += [receipt] if receipt.status == "failed" else []
    return {
        "run": folder.url,
        "counts": {s: counts[s] for s in _STATUSES if s in counts},
        "bytes_before": sizes.before,
        "bytes_after": sizes.after if cropped else None,
        "saved": sizes.saved if cropped else None,
        "boxes": folder.localizations if store.exists(folder.localizations) else None,
        "crops": folder.at("crops") if cropped else None,
        "report": write_report(folder) if report else None,
        "coverage": summary.coverage,
        **_failures(failed),
    }


def finish(facts: dict[str, Any], as_json: bool) -> None:
    """Print the summary; exit with 3 if volumes failed."""
    from ctray.cli.tables import run_lines

    if as_json:
        print_json(facts)
    else:
        for line in run_lines(facts):
            echo(line)
    _end(facts["failed"], sum(facts["counts"].values()))


def _asked(instances: bool, keep_surround: bool) -> tuple[str, ...]:
    """The long forms of flags; what ``--set`` says comes later and wins."""
    asked = {"localize.instances=true": instances, "crop.keep_surround=true": keep_surround}
    return tuple(text for text, given in asked.items() if given)


def _localize(
    run_url: str,
    as_json: bool,
    *,
    crop: bool,
    only_located: bool,
    method: str | None = None,
    overrides: tuple[str, ...] = (),
) -> None:
    from ctray.cli.progress import reporter
    from ctray.config import override

    with reporter() as progress:
        progress.note("starting")
        from ctray.engine.archive import check_trained, localize_stage, resume_run
        from ctray.engine.executor import executor_session
        from ctray.storage.catalog import read_catalog
        from ctray.storage.receipt_list import iter_receipts

        folder, settings, archive = resume_run(run_url)
        settings = override(settings, overrides) if overrides else settings
        if method not in (None, settings.task):
            raise ConfigError(
                f"{run_url} was trained on the {settings.task} task, which --method {method} "
                f"cannot use; train one with ctray pretrain {archive} --task {method}"
            )
        check_trained(folder, settings, archive)
        entries = read_catalog(folder.catalog)
        if only_located:
            ids = [entry.volume_id for entry in entries]
            received = {i for i, receipt in iter_receipts(folder, ids) if receipt is not None}
            entries = [e for e in entries if e.volume_id in received]
        with executor_session(settings.ray, progress.note) as executor:
            receipts = localize_stage(
                folder, settings, entries, crop=crop, on_event=progress, executor=executor
            )
    finish(run_facts(folder, receipts, report=False), as_json)


def _failures(failed: Iterable[Receipt]) -> dict[str, list[dict[str, Any]]]:
    return {
        "failed": [
            {"volume_id": r.volume_id, "source_url": r.source_url, "reason": r.reason}
            for r in failed
        ]
    }


def _end(failed: Sequence[dict[str, Any]], total: int) -> None:
    """Name the volumes that failed, one line each, and exit with 3 if there are any."""
    for failure in failed:
        say(f"failed {failure['volume_id']}: {failure['reason']}")
    if failed:
        say(
            f"{len(failed)} of {total} volumes failed; mend them and delete their receipts "
            "to try again"
        )
        sys.exit(PartialFailureError.exit_code)
