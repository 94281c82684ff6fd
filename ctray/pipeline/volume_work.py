"""What the actors of the pool do: import, prepare, localize and crop one volume after another.

What crosses a process boundary is a catalog entry one way and a small record back; voxels are
read and written inside the actor.
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
from ctray.learn.selftrain.checkpoint import load_slabs
from ctray.localization.localizer import Localization, Localizer
from ctray.localization.uncertainty import UncertaintyMap
from ctray.pipeline.cropping import Cut, commit_receipt, crop_located, names_taken, without_crops
from ctray.pipeline.source_changes import current_receipt, drop_stale_import, record_of
from ctray.preprocess.prepare import is_constant, prepare
from ctray.records.run_folder import Receipt, RunFolder
from ctray.records.specimen_receipt import SpecimenReceipt
from ctray.storage import store
from ctray.storage.patience import patiently
from ctray.volumes.group import is_committed
from ctray.volumes.maps import write_map
from ctray.volumes.pyramids import with_kept_pyramid
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRecord:
    """What became of one volume before training.

    Parameters
    ----------
    volume_id
        Which volume.
    working_url
        Prepared working level, None where there is nothing to learn from.
    side
        Side of the square that holds its slices, pixels.
    failed
        Why the volume cannot be used, None if it can.
    validation
        Whether it is held out of the training.
    """

    volume_id: str
    working_url: str | None = None
    side: int = 0
    failed: str | None = None
    validation: bool = False


class PrepareVolume:
    """Imports a volume where needed and writes its prepared working level."""

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
    """Localizes a volume, writes its crop, and last its receipt."""

    def __init__(self, run: RunFolder, config: RunConfig, crop: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        self._run = run
        self._config = config
        self._crop = crop
        # Actors start at any time of a run, also while its store is away.
        patiently(self._load, (run.manifest,))

    def _load(self) -> None:
        self._cut = Cut.of(self._run, self._config)
        self._taken = names_taken(self._run)
        self._localizer = open_localizer(self._run, self._config)

    def __call__(self, entry: CatalogEntry) -> Receipt | CtrayError:
        """Do what is left to do of a volume and return its receipt."""
        needed = (entry.url, self._run.manifest)
        try:
            try:
                receipt = patiently(lambda: self._localize(entry), needed)
            except Exception as error:
                if _ends_run(error, self._run):
                    raise
                receipt = failed_receipt(entry, _reason(error))
            patiently(lambda: commit_receipt(receipt, self._run, self._taken), needed)
        except (CtrayError, MemoryError) as error:
            return CtrayError(_reason(error))
        return receipt

    def _localize(self, entry: CatalogEntry) -> Receipt:
        volume, record = open_entry(entry, self._run, self._config)
        receipt = current_receipt(entry, self._run, record)
        if receipt is None:
            receipt = self._found(entry, volume, record)
        return self._cropped(volume, receipt) if self._crop else self._cut.decide(receipt)

    def _found(self, entry: CatalogEntry, volume: Volume, record: SourceRecord | None) -> Receipt:
        """Receipt of a volume that is localized now, with its pictures and its map."""
        found = self._localizer.localize(volume)
        receipt = receipt_of(entry, volume, found, self._localizer)
        if record is not None:
            receipt = replace(receipt, source=record.to_json())
        if found.preview is not None:
            self._run.write_preview(entry.volume_id, found.preview.pictures())
        if found.uncertainty is not None:
            receipt = replace(receipt, map_url=self._write_map(volume, receipt, found.uncertainty))
        return receipt

    def _cropped(self, volume: Volume, receipt: Receipt) -> Receipt:
        """Receipt with its crops, cut with the settings and the calibration of today."""
        if not self._cut.is_of(receipt):
            receipt = without_crops(receipt, self._run)
        if not receipt.crop_boxes or receipt.margins is None:
            receipt = self._cut.decide(receipt)
        if receipt.status != "located":
            return receipt
        return crop_located(volume, receipt, self._run, self._config, self._taken)

    def _write_map(self, volume: Volume, receipt: Receipt, uncertainty: UncertaintyMap) -> str:
        """Write the map as a small OME-Zarr and return its URL."""
        url = self._run.map(receipt.volume_id)
        if is_committed(url):
            # Of an earlier receipt, or of an interrupted run: of another source, it may be.
            store.delete_tree(url)
        write_map(
            url,
            uncertainty.values,
            volume=volume,
            cell=uncertainty.cell,
            offset=uncertainty.offset,
            factors=as_triple(receipt.working["factors"], "factors"),
            provenance={
                "volume_id": receipt.volume_id,
                "source_url": receipt.source_url,
                "source_stamp": receipt.source.get("stamp"),
                "method": receipt.method,
                "model_digest": receipt.model_digest,
                "scale": uncertainty.scale,
            },
        )
        return url


def open_localizer(run: RunFolder, config: RunConfig) -> Localizer:
    """Localizer with the trained networks of a run."""
    trained = load_model(run.checkpoint)
    slabs = load_slabs(run.checkpoint, trained) if config.self_train.enabled else None
    return Localizer(trained, config, slabs)


def open_entry(
    entry: CatalogEntry, run: RunFolder, config: RunConfig
) -> tuple[Volume, SourceRecord | None]:
    """Volume of `entry`, and what is kept of its source; see `record_of`.

    The volume is imported where needed, and has the coarse levels that the run keeps of it.
    """
    volume = open_volume(ensure_imported(entry, run, config))
    record = record_of(entry, volume)
    if record is not None:
        volume = with_kept_pyramid(
            volume,
            run.pyramid(entry.volume_id),
            config.preprocess.working_size,
            stamp=record.stamp,
            write=config.pool.write_pyramid,
        )
    return volume, record


def ensure_imported(entry: CatalogEntry, run: RunFolder, config: RunConfig) -> str:
    """URL of the Zarr volume of `entry`: itself, or its import, made now if it is not there."""
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


def receipt_of(
    entry: CatalogEntry, volume: Volume, found: Localization, localizer: Localizer
) -> Receipt:
    """Receipt of a volume that `localizer` localized, before its promise and its crop."""
    return Receipt(
        volume_id=entry.volume_id,
        source_url=entry.url,
        imported_url=None if volume.url == entry.url else volume.url,
        status=found.status,
        reason=found.reason,
        notes=entry.notes,
        method=localizer.config.task,
        model_digest=localizer.digest,
        box_settings_digest=localizer.box_settings_digest,
        sample_box=found.box,
        confidence=found.confidence,
        face_confidence=list(found.face_confidence) if found.face_confidence else None,
        shape=list(volume.shape),
        dtype=str(volume.dtype),
        voxel_size_um=list(volume.voxel_size.um) if volume.voxel_size else None,
        plain_scale=str(volume.plain_scale) if volume.plain_scale else None,
        bytes_total=volume.num_bytes,
        bytes_read=volume.bytes_read,
        seconds=found.seconds,
        profiles=found.profiles,
        refined=found.refined.to_json() if found.refined else {},
        scales=None if found.scales is None else [round(s, 3) for s in found.scales],
        specimens=_specimens(found),
        stretches={a: s.to_json() if s else None for a, s in found.stretches.items()},
        working=found.working,
        ctray_version=__version__,
    )


def failed_receipt(entry: CatalogEntry, reason: str) -> Receipt:
    """Receipt of a volume that cannot be worked on."""
    return Receipt(
        volume_id=entry.volume_id,
        source_url=entry.url,
        status="failed",
        reason=reason,
        notes=entry.notes,
        shape=list(entry.shape) if entry.shape else None,
        dtype=entry.dtype,
        bytes_total=entry.num_bytes,
        ctray_version=__version__,
    )


def _specimens(found: Localization) -> list[SpecimenReceipt] | None:
    if found.specimens is None:
        return None
    receipts = []
    for specimen in found.specimens:
        box, certainty, scales = specimen.box, specimen.certainty, specimen.scales()
        assert box is not None
        assert certainty is not None
        assert scales is not None
        receipts.append(
            SpecimenReceipt(
                sample_box=box,
                face_confidence=list(certainty),
                scales=[round(s, 3) for s in scales],
            )
        )
    return receipts


def _reason(error: BaseException) -> str:
    """Reason for a receipt: one volume's surprise must not end the work on the others."""
    text = one_line(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {text}" if text else "out of memory"
    return text if isinstance(error, CtrayError) else f"{type(error).__name__}: {text}"


def _ends_run(error: BaseException, run: RunFolder) -> bool:
    """Whether other volumes would fail as this one: by the run's own folder, store or keys."""
    if isinstance(error, OutageError | KeysError):
        return True
    return isinstance(error, StorageError) and run.url in str(error)
