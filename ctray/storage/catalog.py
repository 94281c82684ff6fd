"""The catalog: which volumes an archive holds, from their metadata alone."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.errors import CtrayError, NotFoundError, StorageError, one_line
from ctray.geometry import AXES, Triple, VoxelSize
from ctray.storage import store
from ctray.storage.coverage import Coverage, LeftOut, OtherFormat, count_formats
from ctray.storage.discovery import find_volumes, root_name
from ctray.storage.found import Findings, Found, NameFilter
from ctray.storage.guard import guarded_map
from ctray.storage.isolated import Helpers
from ctray.storage.sources import (
    Kind,
    NoVolumeError,
    VolumeSource,
    detect_kind,
    is_pattern,
    open_as,
)
from ctray.storage.stacks import natural_key
from ctray.storage.tiff_folder import MIN_STACK_FILES
from ctray.storage.volume_ids import volume_ids
from ctray.storage.zipped import is_zipped_zarr

Status = Literal["ok", "failed"]

# Annotations lie beside the volumes that they belong to, and are as large.
_ANNOTATIONS = ("mask", "masks", "label", "labels", "seg", "segmentation")
_SHAPES = ("{}", "{}.*", "{}[_-]*", "{}[0-9]*", "*[_-]{}", "*[_-]{}.*", "*[_-]{}[_-]*")
DEFAULT_EXCLUDE: tuple[str, ...] = (
    *(shape.format(word) for word in _ANNOTATIONS for shape in _SHAPES),
    *("truth", "truth.*", "*[_-]truth", "*[_-]truth.*", "ground[_-]truth", "annotations"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """One volume of an archive.

    Parameters
    ----------
    volume_id
        Unique in the catalog, fit for a file name, see `ctray.storage.volume_ids`.
    url
        What `open_source` and `import_volume` take.
    kind
        How it is stored.
    dataset
        Path inside an HDF5 file.
    shape, dtype
        Voxels (z, y, x) and their type; None if the volume failed.
    voxel_size
        None where no metadata tell.
    num_bytes
        Bytes of all voxels, uncompressed.
    status, reason
        "ok", or "failed" with one line that says why.
    notes
        Oddities that are no failure, such as slices missing in the numbering.
    """

    volume_id: str
    url: str
    kind: Kind
    dataset: str | None = None
    shape: Triple | None = None
    dtype: str | None = None
    voxel_size: VoxelSize | None = None
    num_bytes: int | None = None
    status: Status = "ok"
    reason: str | None = None
    notes: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """Entries in natural order of their paths, and what else is there.

    Parameters
    ----------
    entries
        Volumes, failed ones included.
    coverage
        What is there and is not among the entries.
    """

    entries: tuple[CatalogEntry, ...]
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Paths that the exclude patterns left out; a stack of slices or a folder counts once."""
        return self.coverage.excluded

    @property
    def without_volume(self) -> tuple[LeftOut, ...]:
        """What was looked at and holds no volume, or was not looked at, with the reasons."""
        return self.coverage.without_volume

    @property
    def other_formats(self) -> tuple[OtherFormat, ...]:
        """Counts of what is there in formats that are not read."""
        return self.coverage.other_formats

    def lines(self) -> list[str]:
        """What whoever relies on the catalog must know: failures, oddities, what is not read."""
        lines = [f"failed {e.volume_id}: {e.reason}" for e in self.failed]
        return [*lines, *self.notes(), *self.coverage.lines()]

    def notes(self, limit: int | None = None) -> list[str]:
        """Oddities of volumes, such as gaps in the numbers of slices, a line each."""
        lines = [f"note on {e.volume_id}: {e.notes}" for e in self.ok if e.notes]
        if limit is None or len(lines) <= limit:
            return lines
        return [
            *lines[:limit],
            f"{len(lines) - limit:,} more volumes with notes; see ctray catalog",
        ]

    @property
    def ok(self) -> tuple[CatalogEntry, ...]:
        """Entries that can be worked on."""
        return tuple(entry for entry in self.entries if entry.status == "ok")

    @property
    def failed(self) -> tuple[CatalogEntry, ...]:
        """Entries that cannot, with their reasons."""
        return tuple(entry for entry in self.entries if entry.status == "failed")

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


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

    Volumes are what `ctray.storage.sources.open_source` opens; slices are at least three numbered
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
    opened = _open_all(found, dataset, max_workers, progress)
    volumes = [(f, o.entry) for f, o in zip(found, opened, strict=True) if o.entry is not None]
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


# Each takes most of a second to start, and a core.
_HELPERS = min(4, store.NUM_CPUS)
_COVERAGE = b"ctray.coverage"
_NOTHING = json.dumps(Coverage().to_json())
_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("volume_id", "url", "kind", "dataset")],
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
        **{name: getattr(entry, name) for name in _PLAIN},
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
        **{name: row[name] for name in _PLAIN},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """What opening a candidate gave: an entry, its id still to come, or why it is no volume."""

    entry: CatalogEntry | None = None
    left_out: LeftOut | None = None
    parts: tuple[str, ...] = ()


def _find(archive_url: str, names: NameFilter, max_workers: int) -> Findings:
    """Candidates in natural order; an archive that is one file or pattern is its only one."""
    kind = detect_kind(archive_url)
    above, _, name = archive_url.rpartition("/")
    if kind in ("tiff", "hdf5", "raw") or is_zipped_zarr(name) or is_pattern(archive_url):
        return Findings(volumes=[Found(url=archive_url, path=(root_name(above), name), kind=kind)])
    findings = find_volumes(archive_url, names, max_workers=max_workers)
    findings.volumes.sort(key=lambda f: natural_key("/".join(f.path)))
    return findings


def _open_all(
    found: Sequence[Found],
    dataset: str | None,
    max_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[_Opened]:
    """What opening each candidate gave, whatever it did to its reader."""
    opened: dict[int, _Opened] = {}
    apart = [i for i, one in enumerate(found) if _is_apart(one)]
    together = [i for i, one in enumerate(found) if not _is_apart(one)]
    with Helpers() as helpers:
        for places, workers in ((together, max_workers), (apart, min(max_workers, _HELPERS))):

            def open_(one: Found) -> _Opened:
                if _is_apart(one):
                    return helpers.call(_open, one, dataset)
                return _open(one, dataset)

            results = guarded_map(open_, [found[i] for i in places], max_workers=workers)
            for i, result in zip(places, results, strict=True):
                if isinstance(result, BaseException):
                    result = _failed(found[i], result)
                opened[i] = result
                if progress is not None:
                    progress(len(opened), len(found))
    return [opened[i] for i in range(len(found))]


def _is_apart(found: Found) -> bool:
    """Whether a candidate is opened by another process, which its library may hang or crash."""
    # What is in the memory of this process is seen by no other.
    return found.kind == "hdf5" and not found.url.startswith("memory://")


def _open(found: Found, dataset: str | None) -> _Opened:
    """Open a candidate."""
    if found.reason is not None:
        return _failed(found, found.reason)
    dataset = dataset if found.kind == "hdf5" else None
    try:
        if found.no_volume is not None:
            raise NoVolumeError(found.no_volume)
        with open_as(found.url, found.kind, dataset=dataset) as source:
            return _Opened(entry=_entry(found, source), parts=source.parts)
    except NoVolumeError as error:
        return _Opened(left_out=LeftOut(url=found.url, reason=one_line(error)))


def _entry(found: Found, source: VolumeSource) -> CatalogEntry:
    return CatalogEntry(
        volume_id="",
        url=found.url,
        kind=source.kind,
        dataset=source.dataset,
        shape=source.shape,
        dtype=str(source.dtype),
        voxel_size=source.voxel_size,
        num_bytes=math.prod(source.shape) * source.dtype.itemsize,
        notes="; ".join([*source.notes, *filter(None, [found.note])]) or None,
    )


def _failed(found: Found, why: BaseException | str) -> _Opened:
    reason = str(why)
    if isinstance(why, BaseException) and (not isinstance(why, CtrayError) or not reason):
        reason = f"{type(why).__name__}: {reason}"
    line = " ".join(reason.split())
    if found.url.rpartition("/")[0] not in line:  # Not all errors know which file they are of.
        line = f"{found.url}: {line}"
    entry = CatalogEntry(volume_id="", url=found.url, kind=found.kind, status="failed", reason=line)
    return _Opened(entry=entry)


def _coverage(findings: Findings, opened: Sequence[_Opened], exclude_asked: bool) -> Coverage:
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
    told = "; ".join(line.strip() for line in coverage.lines())
    return NotFoundError(
        f"{archive_url}: no volumes{asked}; looked for multi-page TIFFs, folders of at least "
        f"{MIN_STACK_FILES} numbered slices, HDF5 or NeXus files, Zarr, and headers of raw voxels"
        + (f"; {told}" if told else "")
    )
