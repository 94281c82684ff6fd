"""The folder of a run: the location of each file, and the receipts and previews.

The folder contains run.json, catalog.parquet, imported/, pyramids/, working/, checkpoint/,
receipts/, previews/, maps/, localizations.parquet, crops/ and report/index.html.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

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
from ctray.records.receipt import MAX_RECEIPT_BYTES, from_receipt, to_receipt
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.storage.urls import is_inside

# Name of the lock file, which identifies the process that writes into a run; see
# `ctray.records.run_lock`.
LOCK = "lock.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """Locations in the folder of a run.

    Parameters
    ----------
    url
        Path or URL of the folder.
    """

    url: str

    def at(self, *parts: str) -> str:
        """URL of a file or folder in the run folder."""
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
        """URL of the crop of a volume, or of one of its specimens, counted from 1."""
        return self.at("crops", f"{volume_id}-{specimen}.zarr" if specimen else f"{volume_id}.zarr")

    def pyramid(self, volume_id: str) -> str:
        """URL of the coarse levels that the run keeps for a volume without its own."""
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

    def write_receipt(self, record: VolumeRecord) -> None:
        """Write the receipt of a volume. All other files of the volume must be written before."""
        store.write_json(self.receipt(record.volume_id), to_receipt(record))

    def read_receipt(self, volume_id: str) -> VolumeRecord | None:
        """Record in the receipt of a volume; None if there is none.

        Raises
        ------
        CtrayError
            If the file is not a receipt of this volume.
        """
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
            return from_receipt(data, volume_id)
        except CtrayError as error:
            raise CtrayError(f"{url} is no receipt ({one_line(error)}); {remedy}") from error

    def receipt_or_failure(self, volume_id: str) -> VolumeRecord | None:
        """Like `read_receipt`, but a damaged receipt gives a `failed` record with the reason."""
        try:
            return self.read_receipt(volume_id)
        except StoreUnavailableError:
            raise
        except CtrayError as error:
            reason = f"its receipt cannot be read: {one_line(error)}"
            return VolumeRecord(volume_id=volume_id, source_url="", status="failed", reason=reason)

    def receipt_ids(self) -> list[str]:
        """Ids of the volumes that have a receipt, sorted; `NotFoundError` if there are none."""
        entries = store.list_dir(self.at("receipts"))
        return sorted(e.name[: -len(".json")] for e in entries if e.name.endswith(".json"))

    def receipts(self) -> list[VolumeRecord]:
        """Records in all receipts, by volume id; see `receipt_or_failure`."""
        try:
            ids = self.receipt_ids()
        except NotFoundError:
            return []
        found = [self.receipt_or_failure(volume_id) for volume_id in ids]
        return [record for record in found if record is not None]

    def write_preview(self, volume_id: str, pictures: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Write preview pictures, 2D uint8 arrays by name."""
        buffer = io.BytesIO()
        # The type stub mistakes every keyword for one of NumPy's own.
        np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
        store.write_bytes(self.preview(volume_id), buffer.getvalue())

    def delete_preview(self, volume_id: str) -> None:
        """Remove preview pictures, if there are any."""
        store.delete_file(self.preview(volume_id))

    def read_preview(self, volume_id: str) -> dict[str, npt.NDArray[np.uint8]]:
        """Preview pictures by name (`slice-z`, `projection-z`, ...); empty if there are none."""
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
    """Refuse an output that would harm the archive or existing files.

    Raises
    ------
    NotFoundError
        If `archive_url` does not exist.
    OutputExistsError
        If `out_url` is the archive, is inside it, or is a folder with other files.
    """
    archive, out = store.normalize(archive_url), store.normalize(out_url)
    # A pattern such as scan_*.tif matches files of a folder, so it does not exist itself.
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
        # A run that has just begun contains only its lock.
        found = [entry for entry in store.list_dir(out) if entry.name != LOCK]
    except NotADirectoryError:
        found = []
    if found:
        raise OutputExistsError(
            f"--out {out_url} exists and is no run (it holds {found[0].name} and no run.json); "
            "give a new or empty folder"
        )
