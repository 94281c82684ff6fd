"""Sources that change while a run goes on: what was made of the old ones is made anew.

Everything that a run keeps of a source is one of these:

- an import has the stamp of its source, and is dropped when that changes (`drop_stale_import`);
- coarse levels have it too (`ctray.volumes.pyramids`), and so do receipts (`current_receipt`) and
  crops (`ctray.pipeline.cropping`, where those that no receipt names any more are removed);
- maps and previews are written whenever a volume is localized, and stand for that receipt alone;
- prepared working levels teach the networks and nothing else. They stay as training began with
  them, so that it can go on from its checkpoint; no box of a receipt comes from them.
"""

from __future__ import annotations

from ctray.archive.catalog import CatalogEntry
from ctray.archive.source_record import SourceRecord
from ctray.archive.source_stamp import stamp_of
from ctray.core.errors import NotFoundError
from ctray.localization.promise import is_too_open
from ctray.records.run_folder import Receipt, RunFolder
from ctray.storage import store
from ctray.volumes.volume import Volume, open_volume


def record_of(entry: CatalogEntry, volume: Volume) -> SourceRecord | None:
    """What is kept of the source of a volume: as the import had it, or as a Zarr volume is now.

    To be asked before voxels are read: a source that changes meanwhile is told by it later. None
    where the source is gone and its import, of an earlier version, does not tell.
    """
    if volume.url != entry.url:
        kept = SourceRecord.from_json(volume.attributes.get("source"))
        if kept is not None:
            return kept
    try:
        stamp = stamp_of(entry.url, entry.kind, entry.dataset, entry.within)
    except NotFoundError:
        return None
    return SourceRecord(kind=entry.kind, dataset=entry.dataset, within=entry.within, stamp=stamp)


def drop_stale_import(entry: CatalogEntry, run: RunFolder) -> None:
    """Remove the import of a volume whose source has changed since.

    A source that is gone, and one that an earlier version kept nothing of, cannot be told from it.
    """
    url = run.imported(entry.volume_id)
    kept = SourceRecord.from_json(open_volume(url).attributes.get("source"))
    if kept is None:
        return
    try:
        now = stamp_of(entry.url, entry.kind, entry.dataset, entry.within)
    except NotFoundError:
        return
    if now != kept.stamp:
        store.delete_tree(url)


def current_receipt(
    entry: CatalogEntry, run: RunFolder, record: SourceRecord | None
) -> Receipt | None:
    """Receipt of a volume whose box is known; None if the volume must be localized first.

    The box of a source that has changed since may cut what is there now: the volume is localized
    anew.

    Parameters
    ----------
    entry, run
        Which volume of which run.
    record
        From `record_of`, now.
    """
    earlier = run.read_receipt(entry.volume_id)
    if earlier is None or not (earlier.status == "located" or is_too_open(earlier)):
        return None
    then = SourceRecord.from_json(earlier.source)
    if then is None or record is None or then.stamp == record.stamp:
        return earlier
    return None
