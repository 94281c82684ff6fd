"""The catalog: which volumes an archive holds, from their metadata alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.archive.candidates import Opened, open_all
from ctray.archive.catalog_entry import Catalog, CatalogEntry, Status
from ctray.archive.coverage import Coverage, count_formats
from ctray.archive.discovery import find_volumes, root_name
from ctray.archive.found import Findings, Found, NameFilter
from ctray.archive.volume_ids import volume_ids
from ctray.core.errors import NotFoundError, StorageError, one_line
from ctray.core.geometry import AXES, VoxelSize
from ctray.formats.opening import Kind, detect_kind, is_pattern
from ctray.formats.parts import parts_of_others
from ctray.formats.slices.stacks import natural_key
from ctray.formats.tiff.folder import MIN_STACK_FILES
from ctray.storage import store
from ctray.storage.zipped import is_zipped_zarr

# Annotations lie beside the volumes that they belong to, and are as large.
_ANNOTATIONS = ("mask", "masks", "label", "labels", "seg", "segmentation")
_SHAPES = ("{}", "{}.*", "{}[_-]*", "{}[0-9]*", "*[_-]{}", "*[_-]{}.*", "*[_-]{}[_-]*")
DEFAULT_EXCLUDE: tuple[str, ...] = (
    *(shape.format(word) for word in _ANNOTATIONS for shape in _SHAPES),
    *("truth", "truth.*", "*[_-]truth", "*[_-]truth.*", "ground[_-]truth", "annotations"),
)


def build_catalog(
    archive_url: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = DEFAULT_EXCLUDE,
    dataset: str | None = None,
    max_workers: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Find the volumes under `archive_url`; one bad volume is one failed entry, never an error.

    Volumes are what `ctray.formats.opening.open_source` opens; slices are at least three numbered
    files of a folder. What is there besides stands in the catalog's `coverage`; hidden files and
    those that hold no voxels by their names are passed over. Only metadata are read. What takes
    longer than `CTRAY_ENTRY_TIMEOUT_S` seconds (600) to open is a failed entry.

    Parameters
    ----------
    archive_url
        A folder or prefix, or one volume by itself.
    include
        Globs; if any are given, only names or paths below the archive that match are taken.
    exclude
        Globs of what is left out, by default what is named like a mask or label.
    dataset
        Path inside every HDF5 file.
    max_workers
        Folders listed, and volumes opened, at once.
    progress
        Called after every volume with how many are done and how many there are.

    Raises
    ------
    NotFoundError
        If nothing is at `archive_url`, or no volume is below it.
    AccessError, StorageError
        If the archive itself cannot be listed.
    """
    archive_url = store.normalize(archive_url)
    names = NameFilter(include=tuple(include), exclude=tuple(exclude))
    findings = _find(archive_url, names, max_workers)
    found = findings.volumes
    opened = open_all(found, dataset, archive_url, max_workers, progress)
    others = parts_of_others({f.url: o.voxels for f, o in zip(found, opened, strict=True)})
    volumes = [
        (f, o.entry)
        for f, o in zip(found, opened, strict=True)
        if o.entry is not None and f.url not in others
    ]
    coverage = _coverage(findings, opened, tuple(exclude) != DEFAULT_EXCLUDE)
    if not volumes:
        raise _nothing_found(archive_url, names, coverage)
    ids = volume_ids([f.path for f, _ in volumes])
    entries = tuple(
        replace(entry, volume_id=volume_id)
        for (_, entry), volume_id in zip(volumes, ids, strict=True)
    )
    return Catalog(entries=entries, coverage=coverage)


def write_catalog(catalog: Catalog | Iterable[CatalogEntry], url: str) -> None:
    """Write a catalog as one Parquet file: a row an entry, and its coverage as metadata."""
    coverage = catalog.coverage if isinstance(catalog, Catalog) else Coverage()
    schema = _SCHEMA.with_metadata({_COVERAGE: json.dumps(coverage.to_json()).encode()})
    rows = [_row(entry) for entry in catalog]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    store.write_bytes(url, sink.getvalue().to_pybytes())


def read_catalog(url: str) -> list[CatalogEntry]:
    """Entries of a file that `write_catalog` wrote.

    Raises
    ------
    NotFoundError
        If nothing is at `url`.
    StorageError
        If it is no catalog.
    """
    data = store.read_bytes(url)
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        return [_from_row(row) for row in rows]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise StorageError(f"{url}: no catalog ({what}); make it with ctray catalog") from error


def read_coverage(url: str) -> Coverage:
    """What a catalog that `write_catalog` wrote does not hold of its archive.

    Raises
    ------
    NotFoundError
        If nothing is at `url`.
    StorageError
        If it is no catalog.
    """
    data = store.read_bytes(url)
    try:
        metadata = pq.read_schema(io.BytesIO(data)).metadata or {}
        return Coverage.from_json(json.loads(metadata.get(_COVERAGE, _NOTHING)))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{url}: its coverage cannot be read ({one_line(error)})") from error


_COVERAGE = b"ctray.coverage"
_NOTHING = json.dumps(Coverage().to_json())
_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("volume_id", "url", "kind", "dataset", "within")],
        *[(f"shape_{axis}", pa.int64()) for axis in AXES],
        ("dtype", pa.string()),
        *[(f"voxel_size_um_{axis}", pa.float64()) for axis in AXES],
        ("num_bytes", pa.int64()),
        *[(name, pa.string()) for name in ("status", "reason", "notes")],
    ]
)
_PLAIN = ("volume_id", "url", "kind", "dataset", "dtype", "num_bytes", "status", "reason", "notes")


def _row(entry: CatalogEntry) -> dict[str, Any]:
    shape = entry.shape or (None, None, None)
    size = entry.voxel_size.um if entry.voxel_size else (None, None, None)
    return {
        **{name: getattr(entry, name) for name in (*_PLAIN, "within")},
        **{f"shape_{axis}": n for axis, n in zip(AXES, shape, strict=True)},
        **{f"voxel_size_um_{axis}": um for axis, um in zip(AXES, size, strict=True)},
    }


def _from_row(row: dict[str, Any]) -> CatalogEntry:
    shape = [row[f"shape_{axis}"] for axis in AXES]
    size = [row[f"voxel_size_um_{axis}"] for axis in AXES]
    if row["status"] not in get_args(Status) or row["kind"] not in get_args(Kind):
        raise ValueError(f"status {row['status']!r}, kind {row['kind']!r}")
    return CatalogEntry(
        shape=None if None in shape else (shape[0], shape[1], shape[2]),
        voxel_size=None if None in size else VoxelSize.of(size),
        within=row.get("within"),  # Catalogs of earlier versions have none.
        **{name: row[name] for name in _PLAIN},
    )


def _find(archive_url: str, names: NameFilter, max_workers: int) -> Findings:
    """Candidates in natural order; an archive that is one file or pattern is its only one."""
    kind = detect_kind(archive_url)
    above, _, name = archive_url.rpartition("/")
    if kind in ("tiff", "hdf5", "raw") or is_zipped_zarr(name) or is_pattern(archive_url):
        return Findings(volumes=[Found(url=archive_url, path=(root_name(above), name), kind=kind)])
    findings = find_volumes(archive_url, names, max_workers=max_workers)
    findings.volumes.sort(key=lambda f: natural_key("/".join(f.path)))
    return findings


def _coverage(findings: Findings, opened: Sequence[Opened], exclude_asked: bool) -> Coverage:
    claimed = {url for one in opened for url in one.parts}
    others = [o for o in findings.others if not (o.bare and o.url in claimed)]
    left_out = [*findings.left_out, *(o.left_out for o in opened if o.left_out is not None)]
    return Coverage(
        excluded=tuple(sorted(findings.excluded)),
        exclude_asked=exclude_asked,
        without_volume=tuple(left_out),
        other_formats=count_formats((o.format_name, o.url) for o in others),
    )


def _nothing_found(archive_url: str, names: NameFilter, coverage: Coverage) -> NotFoundError:
    asked = f" that match {', '.join(names.include)}" if names.include else ""
    told = "; ".join(line.strip() for line in coverage.lines()).replace(":; ", ": ")
    return NotFoundError(
        f"{archive_url}: no volumes{asked}; looked for multi-page TIFFs, folders of at least "
        f"{MIN_STACK_FILES} numbered slices, HDF5 or NeXus files, Zarr, and headers of raw voxels"
        + (f"; {told}" if told else "")
    )


__all__ = [
    "DEFAULT_EXCLUDE",
    "Catalog",
    "CatalogEntry",
    "build_catalog",
    "read_catalog",
    "read_coverage",
    "write_catalog",
]
