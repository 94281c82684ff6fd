"""Finding the volumes of an archive, without loading torch or Ray."""

from __future__ import annotations

from ctray.archive.catalog import DEFAULT_EXCLUDE, Catalog, build_catalog
from ctray.config import RunConfig
from ctray.core.errors import InvalidVolumeError
from ctray.records.events import Event, OnEvent, ignore


def find_archive(archive_url: str, config: RunConfig, on_event: OnEvent = ignore) -> Catalog:
    """Find the volumes of an archive with the settings of a configuration. Writes nothing.

    Raises
    ------
    NotFoundError
        If the archive contains no volume.
    InvalidVolumeError
        If none of the volumes can be read.
    """
    exclude = config.catalog.exclude
    catalog = build_catalog(
        archive_url,
        include=config.catalog.include,
        exclude=DEFAULT_EXCLUDE if exclude is None else exclude,
        dataset=config.catalog.dataset,
        progress=lambda done, total: on_event(Event(stage="catalog", done=done, total=total)),
    )
    if not catalog.ok:
        raise InvalidVolumeError(
            f"none of the {len(catalog)} volumes in {archive_url} can be read (see ctray "
            f"catalog); the first: {catalog.failed[0].reason}"
        )
    return catalog
