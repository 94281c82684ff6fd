"""The catalog: which volumes an archive holds, from their metadata alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.errors import CtrayError, InvalidVolumeError, NotFoundError, StorageError
from ctray.geometry import AXES, Triple, VoxelSize
from ctray.storage import store
from ctray.storage.discovery import Found, NameFilter, find_volumes
from ctray.storage.parts import Parts, parts_of_others
from ctray.storage.sources import Kind, NoVolumeError, detect_kind, open_as
from ctray.storage.stacks import natural_key
from ctray.storage.tiff_folder import MIN_STACK_FILES
from ctray.storage.volume_ids import volume_ids

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
        Unique in the catalog, of characters `A-Za-z0-9._-`.
    url
        What `open_source` and `import_volume` take.
    kind
        How it is stored.
    dataset
        Path inside an HDF5 file.
    within
        Folder or prefix that the links of an HDF5 file do not leave; None for other kinds.
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
    within: str | None = None
    shape: Triple | None = None
    dtype: str | None = None
    voxel_size: VoxelSize | None = None
    num_bytes: int | None = None
    status: Status = "ok"
    reason: str | None = None
    notes: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """Entries in natural order of their paths, and what was passed over.

    Parameters
    ----------
    entries
        Volumes, failed ones included.
    excluded
        Paths that the exclude patterns left out; a stack of slices or a folder counts once.
    without_volume
        Paths of readable files that hold no volume: single 2D images, HDF5 files without 3D
        data. Previews and logs are no failures.
    """

    entries: tuple[CatalogEntry, ...]
    excluded: tuple[str, ...] = ()
    without_volume: tuple[str, ...] = ()

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

    Volumes are OME-Zarr images, bare Zarr arrays, multi-page TIFFs, folders (or groups of names
    in a folder) of at least three numbered single-page TIFFs, and HDF5 files. Other files and
    hidden ones are passed over silently. Only metadata are read.

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
    found, excluded = _find(archive_url, names, max_workers)
    opened: list[CatalogEntry | None] = []
    parts: dict[str, Parts] = {}
    with ThreadPoolExecutor(max_workers, thread_name_prefix="ctray-catalog") as pool:
        for entry in pool.map(lambda f: _entry(f, dataset, archive_url, parts), found):
            opened.append(entry)
            if progress is not None:
                progress(len(opened), len(found))
    others = parts_of_others(parts)
    volumes = [
        (f, e) for f, e in zip(found, opened, strict=True) if e is not None and f.url not in others
    ]
    without = tuple(f.url for f, e in zip(found, opened, strict=True) if e is None)
    if not volumes:
        raise _nothing_found(archive_url, names, len(excluded), len(without))
    ids = volume_ids([f.path for f, _ in volumes])
    entries = tuple(
        replace(entry, volume_id=volume_id)
        for (_, entry), volume_id in zip(volumes, ids, strict=True)
    )
    return Catalog(entries=entries, excluded=tuple(sorted(excluded)), without_volume=without)


def write_catalog(catalog: Iterable[CatalogEntry], url: str) -> None:
    """Write entries as one Parquet file, one row each; shape and voxel size by axis."""
    rows = [_row(entry) for entry in catalog]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
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


def _find(archive_url: str, names: NameFilter, max_workers: int) -> tuple[list[Found], list[str]]:
    """Candidates in natural order; an archive that is one file or pattern is its only one."""
    kind = detect_kind(archive_url)
    name = archive_url.rpartition("/")[2]
    if kind in ("tiff", "hdf5") or "*" in name:
        parent = archive_url.rpartition("/")[0].rpartition("/")[2]
        return [Found(url=archive_url, path=(parent, name), kind=kind)], []
    found, excluded = find_volumes(archive_url, names, max_workers=max_workers)
    return sorted(found, key=lambda f: natural_key("/".join(f.path))), excluded


def _entry(
    found: Found, dataset: str | None, within: str, parts: dict[str, Parts]
) -> CatalogEntry | None:
    """Entry of a candidate, its id still to come; None if it holds no volume.

    What the candidate is put together from is noted in `parts`.
    """
    if found.reason is not None:
        return _failed(found, found.reason)
    dataset = dataset if found.kind == "hdf5" else None
    try:
        if found.no_volume is not None:
            raise NoVolumeError(found.no_volume)
        with open_as(found.url, found.kind, dataset=dataset, within=within) as source:
            parts[found.url] = Parts.of(source)
            return CatalogEntry(
                volume_id="",
                url=found.url,
                kind=source.kind,
                dataset=source.dataset,
                within=within if source.kind == "hdf5" else None,
                shape=source.shape,
                dtype=str(source.dtype),
                voxel_size=source.voxel_size,
                num_bytes=math.prod(source.shape) * source.dtype.itemsize,
                notes="; ".join((*source.notes, *([found.note] if found.note else ()))) or None,
            )
    except NoVolumeError as error:
        parts[found.url] = Parts.of(error)
        return None
    except InvalidVolumeError as error:
        parts[found.url] = Parts.of(error)
        return _failed(found, str(error))
    except CtrayError as error:
        return _failed(found, str(error))
    except Exception as error:  # One file that no check foresaw must not cost the archive.
        return _failed(found, f"{found.url}: {type(error).__name__}: {error}")


def _failed(found: Found, reason: str) -> CatalogEntry:
    line = " ".join(reason.split())
    return CatalogEntry(volume_id="", url=found.url, kind=found.kind, status="failed", reason=line)


def _nothing_found(
    archive_url: str, names: NameFilter, num_excluded: int, num_without: int
) -> NotFoundError:
    left_out = f"; {num_excluded} left out by --exclude" if num_excluded else ""
    left_out += f"; {num_without} files without a 3D volume" if num_without else ""
    asked = f" that match {', '.join(names.include)}" if names.include else ""
    return NotFoundError(
        f"{archive_url}: no volumes{asked}; looked for multi-page TIFFs, folders of at least "
        f"{MIN_STACK_FILES} numbered TIFFs, HDF5 or NeXus files, and Zarr{left_out}"
    )
