"""The receipts of a run as a sequence of records that are read on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from ctray.core.errors import NotFoundError
from ctray.core.parallel import bounded_map
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord

# A receipt is one small object, so the number of simultaneous requests decides the speed.
RECEIPTS_AT_ONCE = 16
RECEIPT_BYTES = 2**20


class ReceiptList(Sequence[VolumeRecord]):
    """Records of volumes that have a receipt, in a given order; only their ids are in memory.

    Ten thousand receipts with their profiles take hundreds of megabytes. A caller that needs
    several values should collect them in one pass.
    """

    def __init__(self, run: RunFolder, volume_ids: Iterable[str]) -> None:
        self._run = run
        self._ids = tuple(volume_ids)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> VolumeRecord: ...
    @overload
    def __getitem__(self, index: slice) -> ReceiptList: ...
    def __getitem__(self, index: int | slice) -> VolumeRecord | ReceiptList:
        """One record, or the list of a slice."""
        if isinstance(index, slice):
            return ReceiptList(self._run, self._ids[index])
        volume_id = self._ids[index]
        return _there(volume_id, self._run.receipt_or_failure(volume_id), self._run)

    def __iter__(self) -> Iterator[VolumeRecord]:
        for volume_id, record in iter_receipts(self._run, self._ids):
            yield _there(volume_id, record, self._run)


def iter_receipts(
    run: RunFolder, volume_ids: Iterable[str]
) -> Iterator[tuple[str, VolumeRecord | None]]:
    """Ids in their order, each with the record in its receipt, or None if there is no receipt.

    A limited number of receipts is in memory at a time. A damaged receipt gives a `failed` record
    with that reason; the receipt is kept, and the other volumes continue.
    """

    def read(volume_id: str) -> tuple[str, VolumeRecord | None]:
        return volume_id, run.receipt_or_failure(volume_id)

    return bounded_map(read, volume_ids, bytes_per_item=RECEIPT_BYTES, max_threads=RECEIPTS_AT_ONCE)


def _there(volume_id: str, record: VolumeRecord | None, run: RunFolder) -> VolumeRecord:
    if record is None:
        raise NotFoundError(
            f"{run.receipt(volume_id)} was there and is gone; type the command again"
        )
    return record
