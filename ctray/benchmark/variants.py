"""The ablation: runs over the same archive with one part of the method left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctray.archive.catalog import CatalogEntry, read_catalog, write_catalog
from ctray.config import Binds, RunConfig, changed_settings
from ctray.executors.protocol import Executor
from ctray.pipeline.run import (
    check_trained,
    localize_stage,
    open_run,
    pretrain_stage,
    resume_run,
)
from ctray.records.events import OnEvent
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

VARIANTS: dict[str, tuple[str, ...]] = {
    "no-container": ("preprocess.container=off",),
    "no-drift-removal": ("preprocess.drift=off",),
    "no-rings": ("preprocess.rings=off",),
    "no-streaks": ("preprocess.streaks=off",),
    "no-self-training": ("self_train.enabled=false",),
    "no-neighbours": ("self_train.neighbours=0",),
    "no-cues": ("self_train.cues=false",),
    "no-added-drift": ("rotation.drift=0",),
    "no-clear-faces": ("self_train.clear_faces=off",),
    # Clear faces do not use the threshold.
    "fixed-threshold": ("self_train.threshold=0.3", "self_train.clear_faces=off"),
    "even-threshold": ("self_train.threshold=0.5", "self_train.clear_faces=off"),
    "otsu": ("self_train.enabled=false", "localize.threshold=otsu"),
}


def run_variant(
    main: RunFolder,
    out_url: str,
    config: RunConfig,
    changed: RunConfig,
    on_event: OnEvent,
    executor: Executor,
) -> Sequence[VolumeRecord]:
    """Find boxes in the volumes of the main run with other settings; writes no crops.

    Parameters
    ----------
    main
        Finished run with `config`. Its imported volumes are used in place. Its checkpoint is copied
        if the settings of training are the same; otherwise the variant trains.
    out_url
        Folder of the variant's run.
    config, changed
        Settings of the main run and of the variant.
    on_event
        Called with progress.
    executor
        Runs the processes.

    Raises
    ------
    CtrayError
        If training fails or the output cannot be written.
    """
    _, _, archive_url = resume_run(main.url)
    run = open_run(archive_url, out_url, changed)
    entries = _in_place(main, read_catalog(main.catalog))
    write_catalog(entries, run.catalog)
    for entry in entries:
        receipt = main.receipt_or_failure(entry.volume_id)
        if receipt is not None and receipt.status == "failed":
            # It cannot be read with any settings.
            run.write_receipt(receipt)
    if not changed_settings(config, changed, Binds.TRAINING):
        check_trained(main, config, archive_url)
        _copy_training(main, run, slabs=_same_self_training(config, changed))
    readable = [e for e in entries if e.status == "ok"]
    pretrain_stage(run, changed, readable, on_event, executor)
    return localize_stage(run, changed, entries, crop=False, on_event=on_event, executor=executor)


def _in_place(main: RunFolder, entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    """Return entries with the volumes that the main run imported in place of their sources."""
    return [
        replace(entry, url=main.imported(entry.volume_id), kind="ome-zarr", dataset=None)
        if store.exists(main.imported(entry.volume_id))
        else entry
        for entry in entries
    ]


def _same_self_training(config: RunConfig, changed: RunConfig) -> bool:
    """Whether both configurations give the same self-trained network."""
    return config.self_train.enabled and not changed_settings(config, changed, Binds.SELF_TRAINING)


def _copy_training(main: RunFolder, run: RunFolder, *, slabs: bool) -> None:
    """Copy the checkpoint, its manifest last, and the list of training volumes.

    `slabs` False leaves out the self-trained network.
    """
    if store.exists(store.join(run.checkpoint, "checkpoint.json")):
        return
    store.write_bytes(run.training_index, store.read_bytes(main.training_index))
    files = sorted(store.list_dir(main.checkpoint), key=lambda e: e.name == "checkpoint.json")
    for entry in files:
        if not entry.is_dir and (slabs or not entry.name.startswith("self-trained.")):
            data = store.read_bytes(entry.url)
            store.write_bytes(store.join(run.checkpoint, entry.name), data)
