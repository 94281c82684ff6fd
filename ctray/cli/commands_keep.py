"""Commands about what was written: check it, ask about it, undo it."""

from __future__ import annotations

import csv
import sys

import click

from ctray.cli.options import echo, print_json, run_argument, say, shared_options
from ctray.core.errors import ConfigError, printable

STATUSES = ("located", "empty", "uncertain", "failed", "unreadable")


@click.command(short_help="Rebuild a volume of the source's shape from a crop.")
@click.argument("crop_url", metavar="CROP")
@click.option("--out", required=True, metavar="URL", help="Where the volume goes: path or URL.")
@click.option("--ome-version", type=click.Choice(["0.4", "0.5"]), default="0.5", show_default=True)
@shared_options()
def restore(crop_url: str, out: str, ome_version: str, as_json: bool) -> None:
    """Rebuild a volume of the shape that the source of CROP had.

    The crop is in it voxel for voxel. The rest is what --keep-surround kept, or the fill value.
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
        "the fill value, since the crop kept no surround"
        if result.factors is None
        else f"the surround at {' × '.join(str(f) for f in result.factors)} voxels a voxel"
    )
    echo(f"{result.url}: {shape}; outside {result.box.ranges} {rest}")


@click.command(short_help="Check the crops of a run against checksums and sources.")
@run_argument
@click.option("--sources", is_flag=True, help="Compare voxels with the sources too.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="PART",
    help="Compare this part of each crop's shards with the source, at least one; implies "
    "--sources.",
)
@shared_options()
def verify(run_url: str, sources: bool, sample: float | None, as_json: bool) -> None:
    """Read all crops of RUN again and compare them with what was written.

    Exits with 1 if a crop is missing, damaged, or not what its source holds.
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


@click.command(short_help="Ask what became of the volumes of a run.")
@run_argument
@click.option(
    "--status", metavar="STATUS,...", help=f"Only these: {', '.join(STATUSES)}, comma-separated."
)
@click.option("--volume", "volumes", multiple=True, metavar="ID", help="Only this; repeatable.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="FIELD<VALUE",
    help="Only where a field compares so: = != < <= > >=, or ~ for text that it contains, such as "
    "'confidence<0.5' or 'reason~time'; repeatable.",
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
    """List the receipts of RUN that meet all conditions, one row a volume."""
    from ctray.cli.tables import print_table, receipt_table
    from ctray.records.receipt_query import DERIVED, FIELDS, Condition, query_receipts
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    statuses = tuple(s.strip() for s in status.split(",")) if status else ()
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise ConfigError(f"--status {unknown[0]!r} is none of {', '.join(STATUSES)}")
    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other; give one")
    run = RunFolder(url=store.normalize(run_url))
    rows = query_receipts(
        run,
        statuses=statuses,
        volumes=volumes,
        where=[Condition.parse(text) for text in conditions],
    )
    if as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=[*FIELDS, *DERIVED], lineterminator="\n")
        writer.writeheader()
        # What a terminal would obey is made visible; --json has every name as it is.
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
