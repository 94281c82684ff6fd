"""The stages of a run: catalog, import, pretrain, localize and crop, report. Each can resume.

`run_archive` runs all stages. Commands, jobs and Python callers use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from ctray.archive.catalog import Catalog, CatalogEntry, write_catalog
from ctray.config import RunConfig
from ctray.core.errors import ConfigError, CtrayError, NotFoundError
from ctray.executors.protocol import Executor
from ctray.executors.session import executor_session, running_executor
from ctray.learn.pretext.checkpoint import checkpoint_step, load_model
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.checkpoint import has_self_trained
from ctray.localization.promise import check_promise
from ctray.pipeline.choosing import hold_out, training_ids, with_known_ids
from ctray.pipeline.cropping import Cut, commit_receipt, is_open, names_taken
from ctray.pipeline.find_volumes import find_archive
from ctray.pipeline.self_training import self_train
from ctray.pipeline.taking_up import begun_manifest, take_up
from ctray.pipeline.volume_work import LocalizeVolume, PreparedRecord, PrepareVolume, failed_record
from ctray.records.box_table import write_localizations
from ctray.records.events import Event, OnEvent, Volumes, ignore, nobody, training_event
from ctray.records.receipt_list import ReceiptList, iter_receipts
from ctray.records.run_folder import RunFolder, check_output
from ctray.records.run_lock import hold_run
from ctray.records.run_manifest import RunManifest, read_manifest, write_manifest
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.storage.patience import patiently


def open_run(archive_url: str, out_url: str, config: RunConfig) -> RunFolder:
    """Begin a new run or continue an existing one; see `ctray.pipeline.taking_up`.

    Raises
    ------
    ConfigError
        If the folder belongs to a run of another archive, or settings that move boxes differ.
    NotFoundError, OutputExistsError
        See `ctray.records.run_folder.check_output`.
    """
    check_output(archive_url, out_url)
    archive_url, run = store.normalize(archive_url), RunFolder(url=store.normalize(out_url))
    begun, ours = read_manifest(run), RunManifest(archive=archive_url, config=config)
    # Without a catalog, no work has been done, so all settings may change.
    if begun is None or (begun != ours and not store.exists(run.catalog)):
        write_manifest(run, ours)
        return run
    if begun.archive != archive_url:
        raise ConfigError(
            f"{out_url} is a run over {begun.archive}, not {archive_url}; give another --out"
        )
    take_up(run, config)
    return run


def resume_run(run_url: str) -> tuple[RunFolder, RunConfig, str]:
    """Folder, configuration and archive of an existing run.

    Raises
    ------
    NotFoundError
        If `run_url` is not a run.
    """
    run = RunFolder(url=store.normalize(run_url))
    manifest = begun_manifest(run)
    return run, manifest.config, manifest.archive


def catalog_stage(
    run: RunFolder,
    archive_url: str,
    config: RunConfig,
    on_event: OnEvent = ignore,
    found: Catalog | None = None,
) -> Catalog:
    """Find the volumes and write `catalog.parquet`; known volumes keep their ids.

    `found` is a result of `find_archive`; None searches the archive.
    """
    catalog = find_archive(archive_url, config, on_event) if found is None else found
    catalog = with_known_ids(catalog, run)
    write_catalog(catalog, run.catalog)
    _record_coverage(run, catalog)
    for line in (*catalog.notes(_FEW_NOTES), *catalog.coverage.lines()):
        told = Event(stage="catalog", done=len(catalog), total=len(catalog), text=line, stays=True)
        on_event(told)
    found_all = Event(stage="catalog", done=len(catalog), total=len(catalog), status="failed")
    for entry in catalog.failed:
        if run.receipt_or_failure(entry.volume_id) is None:
            run.write_receipt(failed_record(entry, entry.reason or "unreadable"))
            text = f"{entry.volume_id} failed"
            on_event(replace(found_all, text=text, volume_id=entry.volume_id))
    return catalog


def begin_run(
    archive_url: str,
    out_url: str,
    config: RunConfig,
    on_event: OnEvent = ignore,
    found: Catalog | None = None,
) -> tuple[RunFolder, Catalog]:
    """Open a run and write its catalog. If the archive is refused, no folder is created.

    `found` is a result of `find_archive`; None searches the archive. For errors see `open_run` and
    `find_archive`.
    """
    check_output(archive_url, out_url)
    begun = store.exists(RunFolder(url=store.normalize(out_url)).manifest)
    # An existing run must refuse changed settings before its archive is searched.
    if found is None and not begun:
        found = find_archive(archive_url, config, on_event)
    run = open_run(archive_url, out_url, config)
    return run, catalog_stage(run, archive_url, config, on_event, found)


def _record_coverage(run: RunFolder, catalog: Catalog) -> None:
    """Write to `run.json` the counts that show how much of its archive the run covers."""
    manifest = store.read_json(run.manifest)
    coverage = {"volumes": len(catalog.ok), "failed": len(catalog.failed)}
    coverage |= catalog.coverage.counts()
    if manifest.get("coverage") != coverage:
        store.write_json(run.manifest, {**manifest, "coverage": coverage})


def pretrain_stage(
    run: RunFolder,
    config: RunConfig,
    entries: Sequence[CatalogEntry],
    on_event: OnEvent = ignore,
    executor: Executor | None = None,
) -> None:
    """Import and prepare the training volumes, then train. Finished work is not repeated.

    Finally, the self-trained network is trained on the boxes of these volumes, see
    `ctray.learn.self_training.training`. If `executor` is None, the running Ray session is used.
    """
    executor = executor or running_executor()
    if (checkpoint_step(run.checkpoint) or 0) < config.train.steps:
        _train_encoder(run, config, entries, on_event, executor)

    self_train(run, config, executor, on_event)


def _train_encoder(
    run: RunFolder,
    config: RunConfig,
    entries: Sequence[CatalogEntry],
    on_event: OnEvent,
    executor: Executor,
) -> None:
    records = prepare_stage(run, config, entries, on_event, executor)
    ready = [r for r in records if r.working_url]
    learned = [r.working_url for r in ready if r.working_url and not r.validation]
    if not learned:
        raise CtrayError(
            f"none of {len(entries)} volumes can be trained on; see the receipts in "
            f"{run.at('receipts')}"
        )

    def log(row: dict[str, float]) -> None:
        on_event(training_event("pretrain", row, config.train.steps))

    begun = checkpoint_step(run.checkpoint) or 0

    def reach(step: int, text: str = "") -> None:
        on_event(Event(stage="pretrain", done=step, total=config.train.steps, text=text))

    held_out = [r.working_url for r in ready if r.working_url and r.validation]
    side = max(r.side for r in ready)
    training = EncoderTraining(
        config=config,
        side=side,
        checkpoint_url=run.checkpoint,
        training_urls=learned,
        validation_urls=held_out,
    )
    reach(begun)
    executor.train_encoder(training, log, reach, partial(reach, begun))


def prepare_stage(
    run: RunFolder,
    config: RunConfig,
    entries: Sequence[CatalogEntry],
    on_event: OnEvent,
    executor: Executor,
) -> list[PreparedRecord]:
    """Import the training volumes and write their prepared working levels.

    The result is kept in `working/index.json`. So a resumed run trains on the same volumes in the
    same order, even if volumes were added to the archive. The other volumes of a large archive are
    imported when they are localized.
    """
    index_url = run.training_index
    if store.exists(index_url):
        return [PreparedRecord(**record) for record in store.read_json(index_url)]
    received = {i for i, r in iter_receipts(run, [e.volume_id for e in entries]) if r is not None}
    open_entries = [entry for entry in entries if entry.volume_id not in received]
    chosen = training_ids(open_entries, config)
    items = [entry for entry in open_entries if entry.volume_id in chosen]
    by_id: dict[str, PreparedRecord] = {}
    volumes = Volumes("prepare", items, on_event)
    # This work uses no GPU.
    pool = config.pool.model_copy(update={"num_gpus": 0.0})
    volumes.wait("")
    for record in executor.run_pool(PrepareVolume, (run, config), items, pool, volumes.wait):
        by_id[record.volume_id] = record
        volumes.done(record.volume_id, "failed" if record.failed is not None else "")
    for entry in items:
        record = by_id.get(entry.volume_id)
        reason = _DIED if record is None else record.failed
        if reason is not None:
            run.write_receipt(failed_record(entry, reason))
    ordered = [by_id[e.volume_id] for e in items if e.volume_id in by_id]
    kept = hold_out([record for record in ordered if record.working_url], config)
    if kept:
        fields = ("volume_id", "working_url", "side", "validation")
        store.write_json(index_url, [{f: getattr(r, f) for f in fields} for r in kept])
    return kept


def check_trained(run: RunFolder, config: RunConfig, archive_url: str) -> None:
    """Refuse a run whose training is not finished: its receipts would never be replaced.

    Raises
    ------
    NotFoundError
        If the training of the run is not finished.
    """
    step = checkpoint_step(run.checkpoint) or 0
    if step < config.train.steps:
        raise NotFoundError(
            f"{run.url} is trained for {step} of {config.train.steps} steps; first run "
            f"ctray pretrain {archive_url} --out {run.url}, with the options that it was begun with"
        )
    if config.self_train.enabled and not has_self_trained(run.checkpoint):
        raise NotFoundError(
            f"{run.url} has an encoder, and its self-training is not finished; first run "
            f"ctray pretrain {archive_url} --out {run.url}, with the options that it was begun with"
        )


def localize_stage(
    run: RunFolder,
    config: RunConfig,
    entries: Sequence[CatalogEntry],
    *,
    crop: bool = True,
    on_event: OnEvent = ignore,
    executor: Executor | None = None,
) -> Sequence[VolumeRecord]:
    """Localize and crop the volumes without a receipt, and write `localizations.parquet`.

    Volumes go through the pool one by one. The driver holds only the catalog entry of each volume.
    The returned records are read on demand. If `executor` is None, the running Ray session is used.
    """
    executor = executor or running_executor()
    by_id = {entry.volume_id: entry for entry in entries}
    cut = Cut.of(run, config)
    needed = (run.manifest,)
    todo = patiently(
        lambda: [by_id[i] for i, r in iter_receipts(run, by_id) if is_open(r, crop, cut)], needed
    )
    if todo:
        # Load the model here first: without it, processes of the pool would restart endlessly.
        load_model(run.checkpoint)
        check_promise(run, config)
    arguments = (run, config, crop, executor.pool_threads(config.pool))
    missing = {entry.volume_id for entry in todo}
    volumes = Volumes("localize", todo, on_event)
    if todo:
        volumes.wait("")
    for record in executor.run_pool(LocalizeVolume, arguments, todo, config.pool, volumes.wait):
        missing.discard(record.volume_id)
        volumes.done(record.volume_id, record.status, record.bytes_read, record.bytes_written)
    for volume_id in sorted(missing):
        died = patiently(partial(_commit_death, by_id[volume_id], run), needed)
        volumes.done(volume_id, died.status)
    # Now every entry has a receipt: an earlier one, one from the pool, or one for a dead worker.
    receipts = ReceiptList(run, by_id)
    patiently(lambda: write_localizations(run.localizations, receipts), needed)
    return receipts


def _commit_death(entry: CatalogEntry, run: RunFolder) -> VolumeRecord:
    """Write the receipt of a volume whose worker died, and return its record."""
    died = failed_record(entry, _DIED)
    commit_receipt(died, run, names_taken(run))
    return died


def report_stage(run: RunFolder, on_event: OnEvent = ignore) -> None:
    """Write the report page of a run, finished or not.

    Raises
    ------
    NotFoundError
        If the folder contains no run.
    StorageError
        If the page cannot be written.
    """
    # Import here, because it loads matplotlib, which is not needed without a report.
    from ctray.report import write_report

    on_event(Event(stage="report", done=1, total=1, text="writing the report", stays=True))
    write_report(run)


def run_archive(
    archive_url: str,
    out_url: str,
    config: RunConfig,
    on_event: OnEvent = ignore,
    found: Catalog | None = None,
    on_note: Callable[[str], None] = nobody,
    executor: Executor | None = None,
    report: bool = True,
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """Run all stages from the catalog to the report; resume interrupted work.

    `found` is a result of `find_archive`; None searches the archive. `on_note` is called with lines
    that say why the start waits. If `executor` is None, the configuration chooses it: Ray or plain
    processes. If `report` is False, no report page is written.

    Raises
    ------
    ConfigError
        If the calibration cannot keep the promise that the settings of crops ask for.
    RunInUseError
        If another process works on the run.
    CtrayError
        If the archive contains no volume, the output cannot be written, or training fails. If a
        single volume fails, it gets a `failed` receipt instead.
    """
    check_output(archive_url, out_url)
    check_promise(RunFolder(url=store.normalize(out_url)), config)
    with hold_run(out_url):
        run, catalog = begin_run(archive_url, out_url, config, on_event, found)
        session = (
            executor_session(config.ray, on_note) if executor is None else nullcontext(executor)
        )
        with session as workers:
            pretrain_stage(run, config, catalog.ok, on_event, workers)
            receipts = localize_stage(
                run, config, catalog.entries, on_event=on_event, executor=workers
            )
        if report:
            report_stage(run, on_event)
    return run, receipts


def status_counts(receipts: Iterable[VolumeRecord]) -> dict[str, int]:
    """Number of receipts by status."""
    return dict(Counter(receipt.status for receipt in receipts))


# Number of notes that are shown. All notes are in the catalog, the receipts and the report.
_FEW_NOTES = 20
_DIED = "its worker died while working on it; it is probably too large for the memory at hand"
