"""Commands for volumes outside of runs: catalog, import, phantom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from ctray.cli.options import (
    echo,
    extents,
    lengths,
    names_options,
    print_json,
    say,
    shared_options,
    size_of,
)

Command = TypeVar("Command", bound=Callable[..., Any])


@click.command(name="import", short_help="Convert one volume to OME-Zarr.")
@click.argument("src")
@click.argument("dst")
@click.option("--dataset", metavar="PATH", help="Path of the dataset in an HDF5 file.")
@click.option(
    "--within",
    metavar="FOLDER",
    help="Folder that links in an HDF5 file may lead to. [default: the folder of SRC]",
)
@click.option(
    "--voxel-size", type=lengths, metavar="Z,Y,X", help="Voxel size in µm, one value or z,y,x."
)
@click.option("--ome-version", type=click.Choice(["0.4", "0.5"]), default="0.5", show_default=True)
@shared_options()
def import_(
    src: str,
    dst: str,
    dataset: str | None,
    within: str | None,
    voxel_size: tuple[float, ...] | None,
    ome_version: str,
    as_json: bool,
) -> None:
    """Copy the volume SRC to an OME-Zarr at DST.

    SRC is a TIFF, an HDF5 or NeXus file, a Zarr, a folder of slices, or a header of raw voxels.
    """
    from ctray.archive.importing import import_volume
    from ctray.cli.progress import reporter
    from ctray.core.geometry import VoxelSize

    with reporter() as progress:
        result = import_volume(
            src,
            dst,
            dataset=dataset,
            within=within,
            voxel_size=VoxelSize.of(voxel_size) if voxel_size else None,
            ome_version=ome_version,
            progress=lambda done, total: progress.update("import", done, total),
        )
    for note in result.notes:
        say(f"note: {note}")
    if as_json:
        document = asdict(result) | {
            "voxel_size_um": result.voxel_size.um if result.voxel_size else None
        }
        del document["voxel_size"]
        print_json(document)
        return
    size = result.voxel_size
    known = f"voxels of {' × '.join(f'{um:g}' for um in size.um)} µm" if size else "no voxel size"
    if size is None:
        say("note: the source has no voxel size; give it with --voxel-size")
    shape = " × ".join(str(n) for n in result.shape)
    echo(f"{result.url}: {shape} {result.dtype}, {known}, {result.seconds:.1f} s")


@click.command(short_help="List the volumes of an archive.")
@click.argument("archive")
@click.option("--out", metavar="FILE", help="Write the catalog to this Parquet file.")
@names_options
@click.option("--dataset", metavar="PATH", help="Path of the dataset in HDF5 files.")
@shared_options()
def catalog(
    archive: str,
    out: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...] | None,
    dataset: str | None,
    as_json: bool,
) -> None:
    """List the volumes in ARCHIVE, in all formats, and the files that are skipped and why."""
    from ctray.archive.catalog import DEFAULT_EXCLUDE, build_catalog, write_catalog
    from ctray.cli.progress import reporter
    from ctray.cli.tables import catalog_lines, catalog_table, print_table

    with reporter() as progress:
        found = build_catalog(
            archive,
            include=include,
            exclude=DEFAULT_EXCLUDE if exclude is None else exclude,
            dataset=dataset,
            progress=lambda done, total: progress.update("catalog", done, total),
        )
    if out is not None:
        write_catalog(found, out)
    if as_json:
        volumes = [
            asdict(e) | {"voxel_size": e.voxel_size.um if e.voxel_size else None} for e in found
        ]
        print_json({"volumes": volumes, **found.coverage.to_json(limit=None)})
        return
    print_table(catalog_table(found))
    for line in catalog_lines(found):
        say(line)


def scene_options(function: Command) -> Command:
    """Add one option per field of `SceneSpec` and per further field of `PhantomSpec`."""
    switch = [
        ("--reconstruction-circle/--no-reconstruction-circle", "Set voxels outside of it to 0."),
        ("--touches-border/--no-touches-border", "Cut the sample off at the first and last slice."),
        ("--empty/--no-empty", "Make no sample."),
        ("--random-turn/--no-random-turn", "Fish: turn it about z by a random angle."),
        ("--head-first/--head-last", "Fish: head at low z."),
    ]
    number = [
        ("--medium-contrast", float, "Mean grey value of the sample minus that of the medium."),
        ("--noise", float, "Photon noise, in contrast units."),
        ("--rings", float, "Ring artefacts, in contrast units."),
        ("--cupping", float, "Decrease of grey values from rim to middle, in contrast units."),
        ("--distractors", int, "Number of bubbles and grains in the medium."),
        ("--streaks", float, "Streaks as metal makes them, in contrast units."),
        ("--span", float, "Fish: fraction of z from head to tail."),
        ("--tilt-degrees", float, "Fish: largest angle to z."),
        ("--specimens", int, "Multi: number of specimens."),
    ]
    command: Any = function
    for flag, text in reversed(switch):
        command = click.option(flag, default=None, help=text)(command)
    command = click.option(
        "--dtype", type=click.Choice(["uint8", "uint16"]), help="Type of the voxels."
    )(command)
    command = click.option(
        "--fill",
        type=(float, float),
        metavar="LOW HIGH",
        help="Range of the fraction of the volume in the box.",
    )(command)
    for flag, kind, text in reversed(number):
        command = click.option(flag, type=kind, help=text)(command)
    return click.option(  # type: ignore[no-any-return]
        "--container",
        type=click.Choice(["none", "centred", "offset", "tilted"]),
        help="Tube around the sample, brighter than it.",
    )(command)


@click.command(short_help="Write synthetic volumes with their true boxes.")
@click.argument("dst")
@click.option("--count", type=int, default=1, show_default=True, help="Number of volumes.")
@click.option(
    "--size",
    type=extents,
    metavar="Z,Y,X",
    default="64",
    show_default=True,
    help="Shape in voxels, one side or z,y,x.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all volumes.")
@click.option(
    "--kind",
    type=click.Choice(["embryo", "fish", "multi"]),
    default="embryo",
    show_default=True,
    help="Kind of sample.",
)
@click.option(
    "--difficulty",
    type=click.Choice(["easy", "paper", "hard"]),
    default="easy",
    show_default=True,
    help="Preset that the options below change.",
)
@scene_options
@shared_options()
def phantom(
    dst: str,
    count: int,
    size: tuple[int, ...],
    seed: int,
    kind: Any,
    difficulty: Any,
    as_json: bool,
    **scene: Any,
) -> None:
    """Write synthetic volumes to the archive DST, and their exact truth to DST/truth."""
    from ctray.cli.progress import reporter
    from ctray.evaluate.phantom_archive import PhantomRecord, write_phantoms

    with reporter() as progress:
        made: list[PhantomRecord] = []

        def show(record: PhantomRecord) -> None:
            made.append(record)
            progress.update("phantoms", len(made), count, record.volume_id)

        records = write_phantoms(
            dst,
            count=count,
            size=size_of(size),
            seed=seed,
            kind=kind,
            difficulty=difficulty,
            progress=show,
            **{name: value for name, value in scene.items() if value is not None},
        )
    if as_json:
        volumes = [asdict(r) | {"box": r.box.ranges if r.box else None} for r in records]
        print_json({"volumes": volumes})
        return
    known = sum(r.skipped for r in records)
    echo(f"{len(records)} phantoms in {dst}{f', {known} of them already there' * bool(known)}")
