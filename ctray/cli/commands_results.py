"""Commands for the results of a run: receipts, verify, restore."""

from __future__ import annotations

import csv
import sys

import click

from ctray.cli.options import echo, print_json, run_argument, say, shared_options
from ctray.core.errors import ConfigError, printable

STATUSES = ("located", "empty", "uncertain", "failed", "unreadable")


@click.command(short_help="Rebuild a volume with the shape of the source from a crop.")
@click.argument("crop_url", metavar="CROP")
@click.option("--out", required=True, metavar="URL", help="Path or URL of the new volume.")
@click.option("--ome-version", type=click.Choice(["0.4", "0.5"]), default="0.5", show_default=True)
@shared_options()
def restore(crop_url: str, out: str, ome_version: str, as_json: bool) -> None:
    """Rebuild a volume with the shape of the source of CROP.

    The voxels of the crop are exact. The voxels around it come from the coarse copy that
    --keep-surround kept, or are the fill value.
    """
    from ctray.cli.progress import reporter
    from ctray.crops.restoring import restore as restore_volume

    with reporter() as progress:
        result = restore_volume(
            crop_url,
            out,
            ome_version=ome_version,
            progress=lambda done, total: progress.update("restore", done, total),
        )
    if as_json:
        print_json(
            {
                "url": result.url,
                "shape": result.shape,
                "box": result.box.ranges,
                "surround_factors": result.factors,
                "checksum": result.checksum,
            }
        )
        return
    shape = " × ".join(str(n) for n in result.shape)
    rest = (
        "the fill value, because the crop has no surround"
        if result.factors is None
        else f"the surround, coarser by {' × '.join(str(f) for f in result.factors)}"
    )
    echo(f"{result.url}: {shape}; outside {result.box.ranges} {rest}")


@click.command(short_help="Check the crops of a run against their checksums and sources.")
@run_argument
@click.option("--sources", is_flag=True, help="Also compare the voxels with the sources.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Compare this fraction of the shards of each crop with the source, at least one. Implies "
    "--sources.",
)
@shared_options()
def verify(run_url: str, sources: bool, sample: float | None, as_json: bool) -> None:
    """Read all crops of RUN and compare them with their checksums.

    The exit code is 1 if a crop is missing, damaged, or differs from its source.
    """
    from ctray.cli.progress import reporter
    from ctray.cli.tables import check_table, print_table
    from ctray.pipeline.verifying import verify_run
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    run = RunFolder(url=store.normalize(run_url))
    with reporter() as progress:
        progress.note("reading crops")
        checks = []
        for check in verify_run(run, sources=sources or sample is not None, sample=sample or 1.0):
            checks.append(check)
            if check.problem is not None:
                say(f"bad {check.crop_url or check.volume_id}: {check.problem}")
    bad = [check for check in checks if check.problem is not None]
    compared = sum(check.voxels_compared for check in checks)
    if as_json:
        found = [
            {
                "volume_id": c.volume_id,
                "specimen": c.specimen,
                "crop_url": c.crop_url,
                "problem": c.problem,
                "voxels_compared": c.voxels_compared,
            }
            for c in checks
        ]
        print_json(
            {"run": run.url, "sound": len(checks) - len(bad), "bad": len(bad), "crops": found}
        )
    else:
        if bad:
            print_table(check_table(bad))
        against = f", {compared:,} voxels compared with their sources" if compared else ""
        echo(f"{len(checks)} crops: {len(checks) - len(bad)} sound, {len(bad)} bad{against}")
    if bad:
        sys.exit(1)


@click.command(short_help="List the status of the volumes of a run.")
@run_argument
@click.option(
    "--status",
    metavar="STATUS,...",
    help=f"Only these statuses, separated by commas: {', '.join(STATUSES)}.",
)
@click.option(
    "--volume", "volumes", multiple=True, metavar="ID", help="Only this volume. Repeatable."
)
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="SQL",
    help="Only volumes that meet this SQL expression over the columns of --csv, such as "
    '"confidence < 0.5" or "reason LIKE \'%time%\' OR crops > 1". Repeatable: all must hold.',
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@shared_options()
def receipts(
    run_url: str,
    status: str | None,
    volumes: tuple[str, ...],
    conditions: tuple[str, ...],
    as_csv: bool,
    as_json: bool,
) -> None:
    """List the receipts of RUN that meet all conditions, one row per volume.

    Conditions of --where have the syntax of SQLite: = != < <= > >= LIKE IN BETWEEN, IS NULL for
    an empty column, AND, OR, NOT, and parentheses. Texts are in single quotes.
    """
    from ctray.cli.tables import print_table, receipt_table
    from ctray.records.receipt_query import DERIVED, FIELDS, query_receipts
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    statuses = tuple(s.strip() for s in status.split(",")) if status else ()
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise ConfigError(f"--status {unknown[0]!r} is unknown; use one of {', '.join(STATUSES)}")
    if as_csv and as_json:
        raise ConfigError("--csv and --json cannot be combined; leave out one of them")
    run = RunFolder(url=store.normalize(run_url))
    rows = query_receipts(
        run,
        statuses=statuses,
        volumes=volumes,
        where=conditions,
    )
    if as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=[*FIELDS, *DERIVED], lineterminator="\n")
        writer.writeheader()
        # Control characters are made visible; --json has every name as it is.
        writer.writerows(
            {k: printable(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
        )
    elif as_json:
        print_json({"run": run.url, "receipts": list(rows)})
    else:
        table = receipt_table(rows)
        if table.row_count:
            print_table(table)
        echo(f"{table.row_count} receipts")
