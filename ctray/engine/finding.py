"""What is looked at before a run begins, its folder and its archive; nothing large is loaded."""

from __future__ import annotations

from ctray.config import RunConfig, recorded_config
from ctray.engine.binding import changed_settings
from ctray.engine.events import Event, OnEvent, ignore
from ctray.errors import ConfigError, InvalidVolumeError, NotFoundError
from ctray.storage import store
from ctray.storage.catalog import DEFAULT_EXCLUDE, Catalog, build_catalog
from ctray.storage.run_folder import RunFolder, check_output


def check_run(archive_url: str, out_url: str, config: RunConfig) -> bool:
    """Whether a run was begun in a folder with the same archive and configuration.

    Raises
    ------
    ConfigError
        If the folder belongs to a run of another archive or configuration.
    NotFoundError, OutputExistsError
        See `ctray.storage.run_folder.check_output`.
    """
    check_output(archive_url, out_url)
    archive_url, run = store.normalize(archive_url), RunFolder(url=store.normalize(out_url))
    ours = {"archive": archive_url, "config": config.model_dump(mode="json")}
    try:
        theirs = store.read_json(run.manifest)
    except NotFoundError:
        return False
    # Without a catalog nothing was done yet: a slip in the first command binds nobody.
    if {name: theirs.get(name) for name in ours} != ours and not store.exists(run.catalog):
        return False
    if theirs["archive"] != archive_url:
        raise ConfigError(
            f"{out_url} is a run over {theirs['archive']}, not {archive_url}; give another --out"
        )
    begun = recorded_config(theirs["config"], source=run.manifest).model_dump(mode="json")
    changed = changed_settings(begun, config.model_dump(mode="json"))
    if changed:
        raise ConfigError(
            f"{out_url} was begun with another {', '.join(changed)}; give another --out, or the "
            "configuration that run.json holds"
        )
    return True


def find_archive(archive_url: str, config: RunConfig, on_event: OnEvent = ignore) -> Catalog:
    """Find the volumes of an archive as the configuration wants them; nothing is written.

    Raises
    ------
    NotFoundError
        If the archive holds no volume.
    InvalidVolumeError
        If none of them can be read.
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
