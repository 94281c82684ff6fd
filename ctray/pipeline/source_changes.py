"""Sources that change during a run: files that were made from the old source are made again.

A run keeps these files of a source:

- an import, with the stamp of its source; it is removed when the stamp changes
  (`drop_stale_import`);
- coarse levels (`ctray.volumes.pyramids`), receipts (`current_receipt`) and crops
  (`ctray.pipeline.cropping`, which also removes crops that no receipt names), with the same stamp;
- maps and previews, which are written together with the receipt whenever a volume is localized;
- prepared working levels, which are used only for training. They stay unchanged after training
  begins, so that training can continue from its checkpoint. No box of a receipt comes from them.
"""

from __future__ import annotations

from ctray.archive.catalog import CatalogEntry
from ctray.archive.source_record import SourceRecord
from ctray.archive.source_stamp import stamp_of
from ctray.core.errors import NotFoundError
from ctray.localization.promise import is_too_open
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import Volume, open_volume


def source_of(entry: CatalogEntry, volume: Volume) -> SourceRecord | None:
    """State of the source of a volume: as recorded by the import, or the current state of a Zarr.

    Call this before reading voxels, so that a later comparison of stamps detects changes during
    reading. None if the source is gone and no state was recorded.
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

    A source that is gone, or whose state was not recorded, counts as unchanged.
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
    entry: CatalogEntry, run: RunFolder, source: SourceRecord | None
) -> VolumeRecord | None:
    """Record of a volume whose box is known; None if the volume must be localized first.

    If the source has changed, the old box may cut its sample, so the volume is localized again.

    Parameters
    ----------
    entry, run
        The volume and its run.
    source
        Current result of `source_of`.
    """
    earlier = run.read_receipt(entry.volume_id)
    if earlier is None or not (earlier.status == "located" or is_too_open(earlier)):
        return None
    then = SourceRecord.from_json(earlier.source)
    if then is None or source is None or then.stamp == source.stamp:
        return earlier
    return None
