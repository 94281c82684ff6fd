"""Sources that change while a run goes on: what was made of the old ones is made anew."""

from __future__ import annotations

from ctray.archive.catalog import CatalogEntry
from ctray.archive.source_record import SourceRecord
from ctray.archive.source_stamp import stamp_of
from ctray.core.errors import NotFoundError
from ctray.records.run_folder import Receipt, RunFolder
from ctray.storage import store
from ctray.volumes.volume import Volume, open_volume


def record_of(entry: CatalogEntry, volume: Volume) -> SourceRecord:
    """What is kept of the source of a volume: as the import had it, or as a Zarr volume is now."""
    if volume.url != entry.url:
        kept = SourceRecord.from_json(volume.attributes.get("source"))
        if kept is not None:
            return kept
    stamp = stamp_of(entry.url, entry.kind, entry.dataset, entry.within)
    return SourceRecord(kind=entry.kind, dataset=entry.dataset, within=entry.within, stamp=stamp)


def is_current(entry: CatalogEntry, record: SourceRecord | None) -> bool:
    """Whether a source is what it was when `record` was kept of it.

    A source that is gone, and one that an earlier version kept nothing of, cannot be told from it.
    """
    if record is None:
        return True
    try:
        return stamp_of(entry.url, entry.kind, entry.dataset, entry.within) == record.stamp
    except NotFoundError:
        return True


def drop_stale_import(entry: CatalogEntry, run: RunFolder) -> None:
    """Remove the import of a volume whose source has changed since."""
    url = run.imported(entry.volume_id)
    kept = SourceRecord.from_json(open_volume(url).attributes.get("source"))
    if not is_current(entry, kept):
        store.delete_tree(url)


def current_receipt(entry: CatalogEntry, run: RunFolder) -> Receipt | None:
    """Receipt of a located volume that is to be cropped; None if it must be localized first.

    The box of a source that has changed since may cut what is there now: the volume is localized
    anew, and so are its coarse levels.
    """
    earlier = run.read_receipt(entry.volume_id)
    if earlier is None or earlier.status != "located":
        return None
    if is_current(entry, SourceRecord.from_json(earlier.source)):
        return earlier
    store.delete_tree(run.pyramid(entry.volume_id))
    store.delete_tree(run.map(entry.volume_id))
    return None
