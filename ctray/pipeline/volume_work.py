"""The work of a pool process on one volume: import, prepare, localize and crop.

The process receives a catalog entry and returns a small record. Voxels are read and written inside
the process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ctray.archive.catalog import CatalogEntry
from ctray.archive.importing import import_volume
from ctray.archive.source_record import SourceRecord
from ctray.config import RunConfig
from ctray.core.errors import CtrayError, KeysError, OutageError, StorageError, one_line
from ctray.core.geometry import VoxelSize, as_triple
from ctray.core.version import __version__
from ctray.learn.pretext.checkpoint import load_model
from ctray.learn.pretext.rows import canvas_side
from ctray.learn.self_training.checkpoint import load_self_trained
from ctray.localization.decide import Evidence, decide
from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.localizer import Localizer
from ctray.localization.python_localize import record_of
from ctray.pipeline.cropping import Cut, commit_receipt, crop_located, names_taken, without_crops
from ctray.pipeline.source_changes import current_receipt, drop_stale_import, source_of
from ctray.preprocess.prepare import is_constant, prepare
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.report.preview import preview_of
from ctray.storage import store
from ctray.storage.patience import patiently
from ctray.volumes.group import is_committed
from ctray.volumes.maps import write_map
from ctray.volumes.pyramids import with_kept_pyramid
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRecord:
    """Result of preparing one volume for training.

    Parameters
    ----------
    volume_id
        Id of the volume.
    working_url
        URL of the prepared working level; None if the volume is constant or failed.
    side
        Side of the square canvas that fits its slices, pixels.
    failed
        Reason why the volume cannot be used; None if it can.
    validation
        Whether the volume is held out of the training.
    """

    volume_id: str
    working_url: str | None = None
    side: int = 0
    failed: str | None = None
    validation: bool = False


class PrepareVolume:
    """Imports a volume if necessary and writes its prepared working level."""

    def __init__(self, run: RunFolder, config: RunConfig) -> None:
        self._run = run
        self._config = config

    def __call__(self, entry: CatalogEntry) -> PreparedRecord | CtrayError:
        """Import and prepare the volume of an entry."""
        try:
            return patiently(lambda: self._prepare(entry), (entry.url, self._run.manifest))
        except Exception as error:
            if _ends_run(error, self._run):
                return CtrayError(_reason(error))
            return PreparedRecord(volume_id=entry.volume_id, failed=_reason(error))

    def _prepare(self, entry: CatalogEntry) -> PreparedRecord:
        volume, _ = open_entry(entry, self._run, self._config)
        working, factors = read_working(volume, self._config.preprocess.working_size)
        if is_constant(working):
            return PreparedRecord(volume_id=entry.volume_id)
        prepared = prepare(working, factors, self._config.preprocess)
        url = self._run.working(entry.volume_id)
        store.write_bytes(url, prepared.to_bytes())
        side = canvas_side(prepared.shape, self._config)
        return PreparedRecord(volume_id=entry.volume_id, working_url=url, side=side)


class LocalizeVolume:
    """Localizes a volume, writes its crop, and finally writes its receipt."""

    def __init__(self, run: RunFolder, config: RunConfig, crop: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        self._run = run
        self._config = config
        self._crop = crop
        # A process may start while the store is unavailable.
        patiently(self._load, (run.manifest,))

    def _load(self) -> None:
        self._cut = Cut.of(self._run, self._config)
        self._taken = names_taken(self._run)
        self._localizer = open_localizer(self._run, self._config)

    def __call__(self, entry: CatalogEntry) -> VolumeRecord | CtrayError:
        """Do the remaining work for a volume and return its record."""
        needed = (entry.url, self._run.manifest)
        try:
            try:
                record = patiently(lambda: self._localize(entry), needed)
            except Exception as error:
                if _ends_run(error, self._run):
                    raise
                record = failed_record(entry, _reason(error))
            patiently(lambda: commit_receipt(record, self._run, self._taken), needed)
        except (CtrayError, MemoryError) as error:
            return CtrayError(_reason(error))
        return record

    def _localize(self, entry: CatalogEntry) -> VolumeRecord:
        volume, source = open_entry(entry, self._run, self._config)
        record = current_receipt(entry, self._run, source)
        if record is None:
            record = self._found(entry, volume, source)
        return self._cropped(volume, record) if self._crop else self._cut.decide(record)

    def _found(
        self, entry: CatalogEntry, volume: Volume, source: SourceRecord | None
    ) -> VolumeRecord:
        """Localize a volume, write its pictures and its map, and return its record."""
        prepared = self._localizer.read(volume)
        found = self._localizer.find(prepared)
        record = of_entry(record_of(volume, found, self._localizer), entry, volume)
        if source is not None:
            record = replace(record, source=source.to_json())
        preview = preview_of(prepared, found)
        if preview is not None:
            self._run.write_preview(entry.volume_id, preview.pictures())
        if found.uncertainty is not None:
            record = replace(record, map_url=self._write_map(volume, record, found.uncertainty))
        return record

    def _cropped(self, volume: Volume, record: VolumeRecord) -> VolumeRecord:
        """Record with its crops, by the current settings and the current calibration."""
        if not self._cut.is_of(record):
            record = without_crops(record, self._run)
        if not record.crop_boxes or record.margins is None:
            record = self._cut.decide(record)
        if record.status != "located":
            return record
        return crop_located(volume, record, self._run, self._config, self._taken)

    def _write_map(self, volume: Volume, record: VolumeRecord, uncertainty: UncertaintyMap) -> str:
        """Write the map as a small OME-Zarr and return its URL."""
        url = self._run.map(record.volume_id)
        if is_committed(url):
            # The map belongs to an earlier receipt or an interrupted run; its source may differ.
            store.delete_tree(url)
        write_map(
            url,
            uncertainty.values,
            volume=volume,
            cell=uncertainty.cell,
            offset=uncertainty.offset,
            factors=as_triple(record.working["factors"], "factors"),
            provenance={
                "volume_id": record.volume_id,
                "source_url": record.source_url,
                "source_stamp": record.source.get("stamp"),
                "method": record.method,
                "model_digest": record.model_digest,
                "scale": uncertainty.scale,
            },
        )
        return url


def open_localizer(run: RunFolder, config: RunConfig) -> Localizer:
    """Localizer with the trained networks of a run."""
    trained = load_model(run.checkpoint)
    own = load_self_trained(run.checkpoint, trained) if config.self_train.enabled else None
    return Localizer(trained, config, own)


def open_entry(
    entry: CatalogEntry, run: RunFolder, config: RunConfig
) -> tuple[Volume, SourceRecord | None]:
    """Volume of `entry`, imported if necessary, and the state of its source; see `source_of`.

    The volume includes the coarse levels that the run keeps for it.
    """
    volume = open_volume(ensure_imported(entry, run, config))
    source = source_of(entry, volume)
    if source is not None:
        volume = with_kept_pyramid(
            volume,
            run.pyramid(entry.volume_id),
            config.preprocess.working_size,
            stamp=source.stamp,
            write=config.pool.write_pyramid,
        )
    return volume, source


def ensure_imported(entry: CatalogEntry, run: RunFolder, config: RunConfig) -> str:
    """URL of the Zarr volume of `entry`: its source, or its import, which is made if missing."""
    if entry.kind in ("ome-zarr", "zarr"):
        return entry.url
    url = run.imported(entry.volume_id)
    if is_committed(url):
        drop_stale_import(entry, run)
    if not is_committed(url):
        size = config.catalog.voxel_size_um
        import_volume(
            entry.url,
            url,
            dataset=entry.dataset,
            within=entry.within,
            voxel_size=entry.voxel_size or (VoxelSize.of(size) if size else None),
            ome_version=config.crop.ome_version,
        )
    return url


def of_entry(record: VolumeRecord, entry: CatalogEntry, volume: Volume) -> VolumeRecord:
    """Record of a localized volume, with the ids and URLs of its catalog entry."""
    return replace(
        record,
        volume_id=entry.volume_id,
        source_url=entry.url,
        imported_url=None if volume.url == entry.url else volume.url,
        notes=entry.notes,
    )


def failed_record(entry: CatalogEntry, reason: str) -> VolumeRecord:
    """Record of a volume that cannot be processed."""
    verdict = decide(Evidence(failure=reason))
    return VolumeRecord(
        volume_id=entry.volume_id,
        source_url=entry.url,
        status=verdict.status,
        reason=verdict.reason,
        notes=entry.notes,
        shape=list(entry.shape) if entry.shape else None,
        dtype=entry.dtype,
        bytes_total=entry.num_bytes,
        ctray_version=__version__,
    )


def _reason(error: BaseException) -> str:
    """Reason for a receipt, in one line, for expected and unexpected errors."""
    text = one_line(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {text}" if text else "out of memory"
    return text if isinstance(error, CtrayError) else f"{type(error).__name__}: {text}"


def _ends_run(error: BaseException, run: RunFolder) -> bool:
    """Whether other volumes would also fail because of the run's folder, its store or its keys."""
    if isinstance(error, OutageError | KeysError):
        return True
    return isinstance(error, StorageError) and run.url in str(error)
