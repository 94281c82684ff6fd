"""The receipts of a run as a sequence that reads them when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from ctray.core.errors import NotFoundError
from ctray.core.parallel import bounded_map
from ctray.records.run_folder import Receipt, RunFolder

# A receipt is one small object: what counts is how many wait for the store at once.
RECEIPTS_AT_ONCE = 16
RECEIPT_BYTES = 2**20


class ReceiptList(Sequence[Receipt]):
    """Receipts of volumes that have one, in a given order; only their ids are held in memory.

    Ten thousand receipts with their profiles are hundreds of megabytes: whoever needs several
    things of them takes them in one pass.
    """

    def __init__(self, run: RunFolder, volume_ids: Iterable[str]) -> None:
        self._run = run
        self._ids = tuple(volume_ids)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> ReceiptList: ...
    def __getitem__(self, index: int | slice) -> Receipt | ReceiptList:
        """One receipt, or a list of some."""
        if isinstance(index, slice):
            return ReceiptList(self._run, self._ids[index])
        volume_id = self._ids[index]
        return _there(volume_id, self._run.receipt_or_failure(volume_id), self._run)

    def __iter__(self) -> Iterator[Receipt]:
        for volume_id, receipt in iter_receipts(self._run, self._ids):
            yield _there(volume_id, receipt, self._run)


def iter_receipts(
    run: RunFolder, volume_ids: Iterable[str]
) -> Iterator[tuple[str, Receipt | None]]:
    """Ids in their order, each with its receipt or None where there is none.

    A bounded number is read at once, and no more than that is held. A damaged receipt is a
    `failed` one that says so: it stays, and costs no other volume.
    """

    def read(volume_id: str) -> tuple[str, Receipt | None]:
        return volume_id, run.receipt_or_failure(volume_id)

    return bounded_map(read, volume_ids, bytes_per_item=RECEIPT_BYTES, max_threads=RECEIPTS_AT_ONCE)


def _there(volume_id: str, receipt: Receipt | None, run: RunFolder) -> Receipt:
    if receipt is None:
        raise NotFoundError(
            f"{run.receipt(volume_id)} was there and is gone; type the command again"
        )
    return receipt
