"""The folder of a run: where everything lies, and its receipts.

It holds run.json, catalog.parquet, imported/, pyramids/, working/, checkpoint/, receipts/,
previews/, maps/, localizations.parquet, crops/ and report/index.html.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ctray.core.errors import (
    CtrayError,
    InvalidVolumeError,
    NotFoundError,
    OutputExistsError,
    StorageError,
    StoreUnavailableError,
    one_line,
)
from ctray.core.geometry import Box
from ctray.crops.old_names import modern_receipt
from ctray.records.receipt_checks import MAX_RECEIPT_BYTES, check_receipt
from ctray.records.specimen_receipt import SpecimenReceipt
from ctray.storage import store
from ctray.storage.urls import is_inside

# Names the process that writes into a run; see `ctray.records.run_lock`.
LOCK = "lock.json"
Status = Literal["located", "empty", "uncertain", "failed"]
FACES = ("z0", "z1", "y0", "y1", "x0", "x1")
BOXES = ("sample_box", "asked_box", "crop_box")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one volume; its presence means that a rerun skips the volume.

    Parameters
    ----------
    volume_id, source_url
        Which volume; `source_url` is the archive's own file or folder.
    imported_url
        The Zarr that was made of the source; None where the source is a Zarr and was read itself.
    status, reason
        `located`, `empty`, `uncertain`, or `failed` with one line that says why.
    notes
        Oddities of the source that are no failure, such as slices missing in the numbering.
    method, model_digest, box_settings_digest
        What localized it: pretext task, digest of the networks' weights, and digest of the
        settings that move a box (`ctray.config.box_settings`).
    sample_box, asked_box, crop_box
        Box of the sample; the same with its margins; that box snapped outward to what is stored,
        which the crop holds. At level 0, in JSON as [start, stop) pairs (z, y, x).
    confidence, face_confidence
        Certainty in [0, 1] of the least certain face, and of z0, z1, y0, y1, x0, x1.
    scales, margins
        Level-0 voxels of the six faces: how open each is (None without self-training), and the
        margin that is added for it.
    promise
        `calibrated`, `not calibrated` or `fixed margin`; None where nothing is to be cropped.
    max_loss, coverage
        What is promised of a crop that is `calibrated`: at most this fraction of the sample's
        voxels is lost, in this fraction of all volumes at least. None where no rate is stated.
    shape, dtype, voxel_size_um
        Of level 0; voxel size (z, y, x) in micrometres.
    plain_scale
        Voxel size in words where metadata give numbers without a unit of length.
    bytes_total, bytes_read, bytes_written
        Bytes of level 0 without compression; fetched while localizing and cropping; stored in
        the crop.
    seconds
        Wall time of localizing and cropping.
    crop_url, checksum
        Crop and its checksum.
    specimens
        Several specimens, the largest first, each with its own crop in place of the volume's;
        empty where there is one, None where nobody looked. `sample_box` is the one around all.
    map_url
        Uncertainty map of the sorting method.
    profiles, stretches
        Certainty per slice of the working level (for the sorting method its largest relative
        variance), and range, threshold and background found in it, by axis.
    refined
        What the slab network says: probability per slice that it holds sample, and faces.
    working
        Shape, factors, window and field of view of the working level.
    source
        What was kept of the source: a `ctray.archive.source_record.SourceRecord`.
    crop_settings
        Digest of the settings that the crop was cut with.
    """

    volume_id: str
    source_url: str
    status: Status
    reason: str | None = None
    notes: str | None = None
    imported_url: str | None = None
    method: str | None = None
    model_digest: str | None = None
    box_settings_digest: str | None = None
    sample_box: Box | None = None
    asked_box: Box | None = None
    crop_box: Box | None = None
    confidence: float | None = None
    face_confidence: list[float] | None = None
    scales: list[float] | None = None
    margins: list[int] | None = None
    promise: str | None = None
    max_loss: float | None = None
    coverage: float | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    voxel_size_um: list[float] | None = None
    plain_scale: str | None = None
    bytes_total: int | None = None
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    crop_url: str | None = None
    checksum: str | None = None
    specimens: list[SpecimenReceipt] | None = None
    map_url: str | None = None
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Any] = field(default_factory=dict)
    refined: dict[str, Any] = field(default_factory=dict)
    working: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    crop_settings: str | None = None
    ctray_version: str | None = None

    @property
    def cut_url(self) -> str | None:
        """URL of the Zarr whose voxels were read; None where none could be."""
        return None if self.status == "failed" else self.imported_url or self.source_url

    @property
    def crops(self) -> list[str | None]:
        """URLs of the crops that a located volume is to have, None where one is missing."""
        if self.status != "located":
            return []
        return [i.crop_url for i in self.specimens] if self.specimens else [self.crop_url]

    @property
    def crop_boxes(self) -> list[Box]:
        """Boxes of the crops that are there."""
        boxes = [i.crop_box for i in self.specimens] if self.specimens else [self.crop_box]
        return [box for box in boxes if box is not None]

    def to_json(self) -> dict[str, Any]:
        """Plain values; boxes as [start, stop) pairs."""
        told = _shallow(self)
        if self.specimens is not None:
            told["specimens"] = [_shallow(specimen) for specimen in self.specimens]
        return told

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Receipt:
        """Inverse of `to_json`, also for receipts of earlier versions.

        What a later version added is left out.

        Raises
        ------
        AttributeError, LookupError, TypeError, ValueError, GeometryError
            For anything else. The values themselves are for
            `ctray.records.receipt_checks.check_receipt`.
        """
        known = {f.name for f in fields(cls)}
        told = {k: v for k, v in _with_boxes(modern_receipt(data)).items() if k in known}
        if told.get("specimens") is not None:
            told["specimens"] = [SpecimenReceipt(**_with_boxes(i)) for i in told["specimens"]]
        return cls(**told)


def _shallow(receipt: Receipt | SpecimenReceipt) -> dict[str, Any]:
    values = {f.name: getattr(receipt, f.name) for f in fields(receipt)}
    return {name: v.ranges if isinstance(v, Box) else v for name, v in values.items()}


def _with_boxes(told: dict[str, Any]) -> dict[str, Any]:
    made = {name: Box.from_ranges(told[name]) for name in BOXES if told.get(name) is not None}
    return {**told, **made}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """Places in the folder of a run.

    Parameters
    ----------
    url
        The folder: a path or a URL.
    """

    url: str

    def at(self, *parts: str) -> str:
        """URL of something in the folder."""
        return store.join(self.url, *parts)

    @property
    def manifest(self) -> str:
        """URL of `run.json`."""
        return self.at("run.json")

    @property
    def catalog(self) -> str:
        """URL of `catalog.parquet`."""
        return self.at("catalog.parquet")

    @property
    def checkpoint(self) -> str:
        """URL of the checkpoint's folder."""
        return self.at("checkpoint")

    @property
    def localizations(self) -> str:
        """URL of `localizations.parquet`."""
        return self.at("localizations.parquet")

    @property
    def calibration(self) -> str:
        """URL of the run's own calibration of margins."""
        return self.at("calibration.json")

    @property
    def report(self) -> str:
        """URL of the report page."""
        return self.at("report", "index.html")

    def imported(self, volume_id: str) -> str:
        """URL of an imported volume."""
        return self.at("imported", f"{volume_id}.zarr")

    @property
    def training_index(self) -> str:
        """URL of the list of volumes that the encoder is trained on."""
        return self.at("working", "index.json")

    def training_ids(self) -> frozenset[str]:
        """Ids of the volumes that the encoder is trained on; empty before training."""
        try:
            records = store.read_json(self.training_index)
        except NotFoundError:
            return frozenset()
        return frozenset(str(r["volume_id"]) for r in records if not r.get("validation"))

    def working(self, volume_id: str) -> str:
        """URL of a volume's prepared working level."""
        return self.at("working", f"{volume_id}.npz")

    def crop(self, volume_id: str, specimen: int = 0) -> str:
        """URL of a crop: of the volume, or of one of its specimens, counted from 1."""
        return self.at("crops", f"{volume_id}-{specimen}.zarr" if specimen else f"{volume_id}.zarr")

    def pyramid(self, volume_id: str) -> str:
        """URL of the coarse levels of a volume that has none."""
        return self.at("pyramids", f"{volume_id}.zarr")

    def map(self, volume_id: str) -> str:
        """URL of an uncertainty map."""
        return self.at("maps", f"{volume_id}.zarr")

    def receipt(self, volume_id: str) -> str:
        """URL of a receipt."""
        return self.at("receipts", f"{volume_id}.json")

    def preview(self, volume_id: str) -> str:
        """URL of a volume's preview pictures."""
        return self.at("previews", f"{volume_id}.npz")

    def write_receipt(self, receipt: Receipt) -> None:
        """Write a receipt; it is the last thing that is written for a volume."""
        store.write_json(self.receipt(receipt.volume_id), receipt.to_json())

    def read_receipt(self, volume_id: str) -> Receipt | None:
        """Receipt of a volume, None where there is none; `CtrayError` for what is no receipt."""
        url, remedy = self.receipt(volume_id), "delete it to do the volume anew"
        try:
            data = store.read_json(url, max_bytes=MAX_RECEIPT_BYTES)
        except NotFoundError:
            return None
        except StoreUnavailableError:
            raise
        except StorageError as error:
            raise StorageError(f"{one_line(error)}; {remedy}") from error
        try:
            receipt = Receipt.from_json(data)
            check_receipt(receipt, volume_id)
        except (AttributeError, LookupError, TypeError, ValueError, CtrayError) as error:
            raise CtrayError(f"{url} is no receipt ({one_line(error)}); {remedy}") from error
        return receipt

    def receipt_or_failure(self, volume_id: str) -> Receipt | None:
        """As `read_receipt`; a `failed` one that says why in place of one that is damaged."""
        try:
            return self.read_receipt(volume_id)
        except StoreUnavailableError:
            raise
        except CtrayError as error:
            reason = f"its receipt cannot be read: {one_line(error)}"
            return Receipt(volume_id=volume_id, source_url="", status="failed", reason=reason)

    def receipt_ids(self) -> list[str]:
        """Ids of the volumes that have a receipt, sorted; `NotFoundError` before the first."""
        entries = store.list_dir(self.at("receipts"))
        return sorted(e.name[: -len(".json")] for e in entries if e.name.endswith(".json"))

    def receipts(self) -> list[Receipt]:
        """All receipts, by volume id; see `receipt_or_failure`."""
        try:
            ids = self.receipt_ids()
        except NotFoundError:
            return []
        found = [self.receipt_or_failure(volume_id) for volume_id in ids]
        return [receipt for receipt in found if receipt is not None]

    def write_preview(self, volume_id: str, pictures: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Write preview pictures, 2D uint8 arrays by name."""
        buffer = io.BytesIO()
        # The stub takes every keyword for numpy's own.
        np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
        store.write_bytes(self.preview(volume_id), buffer.getvalue())

    def delete_preview(self, volume_id: str) -> None:
        """Remove preview pictures, if there are any."""
        store.delete_file(self.preview(volume_id))

    def read_preview(self, volume_id: str) -> dict[str, npt.NDArray[np.uint8]]:
        """Preview pictures by name (`slice-z`, `projection-z`, ...), empty where there are none."""
        try:
            data = store.read_bytes(self.preview(volume_id))
        except NotFoundError:
            return {}
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
                return {name: loaded[name] for name in loaded.files}
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidVolumeError(f"{self.preview(volume_id)} is damaged: {error}") from error


def check_output(archive_url: str, out_url: str) -> None:
    """Refuse an output that would harm the archive or what lies there already.

    Raises
    ------
    NotFoundError
        If nothing is at `archive_url`.
    OutputExistsError
        If `out_url` is the archive, lies in it, or is a folder with something else in it.
    """
    archive, out = store.normalize(archive_url), store.normalize(out_url)
    # A pattern such as scan_*.tif names files of a folder.
    if "*" not in archive.rpartition("/")[2] and not store.exists(archive):
        raise NotFoundError(f"{archive_url}: nothing is there; give a folder with volumes")
    if is_inside(out, archive):
        raise OutputExistsError(
            f"--out {out_url} lies in the archive {archive_url}, where the next run would take "
            "its crops for volumes; give a folder outside"
        )
    if store.exists(RunFolder(url=out).manifest) or not store.exists(out):
        return
    try:
        # A run that is just beginning has its lock alone.
        found = [entry for entry in store.list_dir(out) if entry.name != LOCK]
    except NotADirectoryError:
        found = []
    if found:
        raise OutputExistsError(
            f"--out {out_url} exists and is no run (it holds {found[0].name} and no run.json); "
            "give a new or empty folder"
        )
