"""The catalog of an archive: built from metadata alone, written and read as a Parquet file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.archive.catalog_entry import Catalog, CatalogEntry, Status
from ctray.archive.coverage import Coverage, count_formats
from ctray.archive.findings import Candidate, Findings
from ctray.archive.inspection import Inspected, inspect_all, parts_of_others
from ctray.archive.name_filter import DEFAULT_EXCLUDE, NameFilter
from ctray.archive.volume_ids import volume_ids
from ctray.archive.walk import find_volumes, root_name
from ctray.core.errors import InvalidVolumeError, NotFoundError, StorageError, one_line
from ctray.core.geometry import AXES, VoxelSize
from ctray.formats.opening import detect_kind
from ctray.formats.registry import FORMATS, reader_of
from ctray.formats.slices.folder import is_pattern
from ctray.formats.slices.stacks import MIN_FILES, natural_key
from ctray.storage import store
from ctray.storage.zipped import is_zipped_zarr


def build_catalog(
    archive_url: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = DEFAULT_EXCLUDE,
    dataset: str | None = None,
    max_workers: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Find the volumes under `archive_url`; a bad volume is a failed entry, never an error.

    A volume is anything that `ctray.formats.opening.open_source` opens; a stack of slices has at
    least three numbered files. Everything else is listed in the catalog's `coverage`, except
    hidden files and files that hold no voxels by their names. Only metadata are read. A volume
    that does not open within `CTRAY_ENTRY_TIMEOUT_S` seconds (600) is a failed entry.

    Parameters
    ----------
    archive_url
        A folder or prefix, or a single volume.
    include
        Glob patterns; if any are given, only matching names or paths below the archive are taken.
    exclude
        Glob patterns of names and paths that are left out; default: names of masks and labels.
    dataset
        Path inside every HDF5 file.
    max_workers
        Folders listed, and volumes opened, at once.
    progress
        Called after every volume with the number done and the total.

    Raises
    ------
    NotFoundError
        If nothing is at `archive_url`, or if it holds no volume.
    AccessError, StorageError
        If the archive itself cannot be listed.
    """
    archive_url = store.normalize(archive_url)
    names = NameFilter(include=tuple(include), exclude=tuple(exclude))
    findings = _find(archive_url, names, max_workers)
    candidates = findings.candidates
    inspected = inspect_all(candidates, dataset, archive_url, max_workers, progress)
    pairs = list(zip(candidates, inspected, strict=True))
    parts = parts_of_others({candidate.url: one for candidate, one in pairs})
    volumes = [
        (candidate.path, one.entry)
        for candidate, one in pairs
        if one.entry is not None and candidate.url not in parts
    ]
    coverage = _coverage(findings, inspected, tuple(exclude) != DEFAULT_EXCLUDE)
    if not volumes:
        raise _nothing_found(archive_url, names, coverage)
    ids = volume_ids([path for path, _ in volumes])
    entries = tuple(
        replace(entry, volume_id=volume_id)
        for (_, entry), volume_id in zip(volumes, ids, strict=True)
    )
    return Catalog(entries=entries, coverage=coverage)


def write_catalog(catalog: Catalog | Iterable[CatalogEntry], url: str) -> None:
    """Write a catalog as one Parquet file: one row per entry, the coverage as metadata."""
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
        If it is not a catalog.
    """
    data = store.read_bytes(url)
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        return [_from_row(row) for row in rows]
    except (
        InvalidVolumeError,
        pa.ArrowException,
        OSError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        what = one_line(error)[:200]
        raise StorageError(f"{url}: not a catalog ({what}); make one with ctray catalog") from error


def read_coverage(url: str) -> Coverage:
    """Coverage in a file that `write_catalog` wrote.

    Raises
    ------
    NotFoundError
        If nothing is at `url`.
    StorageError
        If it is not a catalog.
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
_PLAIN = (
    *("volume_id", "url", "kind", "dataset", "within", "dtype", "num_bytes"),
    *("status", "reason", "notes"),
)


def _row(entry: CatalogEntry) -> dict[str, Any]:
    shape = entry.shape or (None, None, None)
    size = entry.voxel_size.um if entry.voxel_size else (None, None, None)
    return {
        **{name: getattr(entry, name) for name in _PLAIN},
        **{f"shape_{axis}": n for axis, n in zip(AXES, shape, strict=True)},
        **{f"voxel_size_um_{axis}": um for axis, um in zip(AXES, size, strict=True)},
    }


def _from_row(row: dict[str, Any]) -> CatalogEntry:
    shape = [row[f"shape_{axis}"] for axis in AXES]
    size = [row[f"voxel_size_um_{axis}"] for axis in AXES]
    if row["status"] not in get_args(Status):
        raise ValueError(f"status {row['status']!r}")
    reader_of(row["kind"])
    return CatalogEntry(
        shape=None if None in shape else (shape[0], shape[1], shape[2]),
        voxel_size=None if None in size else VoxelSize.of(size),
        **{name: row[name] for name in _PLAIN},
    )


def _find(archive_url: str, names: NameFilter, max_workers: int) -> Findings:
    """Candidates in natural order; an archive that is a file or pattern is the only candidate."""
    kind = detect_kind(archive_url)
    above, _, name = archive_url.rpartition("/")
    is_single = not reader_of(kind).is_folder or is_zipped_zarr(name) or is_pattern(archive_url)
    if is_single:
        single = Candidate(url=archive_url, path=(root_name(above), name), kind=kind)
        return Findings(candidates=[single])
    findings = find_volumes(archive_url, names, max_workers=max_workers)
    findings.candidates.sort(key=lambda f: natural_key("/".join(f.path)))
    return findings


def _coverage(findings: Findings, inspected: Sequence[Inspected], exclude_asked: bool) -> Coverage:
    claimed = {url for one in inspected for url in one.parts}
    others = [o for o in findings.others if not (o.needs_header and o.url in claimed)]
    left_out = [*findings.left_out, *(o.left_out for o in inspected if o.left_out is not None)]
    return Coverage(
        excluded=tuple(sorted(findings.excluded)),
        exclude_asked=exclude_asked,
        without_volume=tuple(left_out),
        other_formats=count_formats((o.format_name, o.url) for o in others),
    )


def _nothing_found(archive_url: str, names: NameFilter, coverage: Coverage) -> NotFoundError:
    asked = f" that match {', '.join(names.include)}" if names.include else ""
    told = "; ".join(line.strip() for line in coverage.lines()).replace(":; ", ": ")
    read = ", ".join(known.name for known in FORMATS if known.file or known.slices)
    return NotFoundError(
        f"{archive_url}: no volumes{asked}; looked for {read}; slices need at least {MIN_FILES} "
        "numbered files in one folder" + (f"; {told}" if told else "")
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
