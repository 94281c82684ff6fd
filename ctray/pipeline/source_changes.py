"""Sources that change during a run: what was made of the old source is made again.

A run keeps of a source:

- an import, with the stamp of its source; it is removed when the stamp changes
  (`drop_stale_import`);
- coarse levels (`ctray.volumes.pyramids`), receipts (`current_receipt`) and crops
  (`ctray.pipeline.cropping`, which also removes crops that no receipt names), with the same stamp;
- maps and previews, which are written whenever a volume is localized, for the receipt of then;
- prepared working levels, which only teach the networks. They stay as they were when training
  began, so that training can go on from its checkpoint. No box of a receipt comes from them.
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
    """State of the source of a volume: as the import noted it, or of a Zarr as it is now.

    Call it before voxels are read: if the source changes meanwhile, its stamp tells later. None if
    the source is gone and nothing was noted.
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

    A source that is gone, or of which nothing was noted, counts as unchanged.
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

    The box of a changed source may cut its sample. So the volume is localized again.

    Parameters
    ----------
    entry, run
        The volume and its run.
    source
        From `source_of`, now.
    """
    earlier = run.read_receipt(entry.volume_id)
    if earlier is None or not (earlier.status == "located" or is_too_open(earlier)):
        return None
    then = SourceRecord.from_json(earlier.source)
    if then is None or source is None or then.stamp == source.stamp:
        return earlier
    return None
