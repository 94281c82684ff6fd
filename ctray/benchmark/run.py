"""Runs the benchmark: makes archives, runs ctray on each, and scores boxes, crops and baselines.

Its folder keeps phantoms, runs, receipts and the baselines' boxes, so that it can resume.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.benchmark.archives import (
    BenchmarkArchive,
    make_archive,
)
from ctray.benchmark.baseline_boxes import OnBaselines, kept_baselines
from ctray.benchmark.machine import describe_machine
from ctray.benchmark.plan import BenchmarkPlan, check_final
from ctray.benchmark.variants import run_variant
from ctray.config import (
    BOX_KINDS,
    KEPT_KINDS,
    RunConfig,
    changed_settings,
    override,
    recorded_config,
)
from ctray.core.errors import ConfigError, NotFoundError, OutputExistsError
from ctray.core.version import __version__
from ctray.evaluate.against_truth import evaluate_receipts
from ctray.evaluate.baselines import BaselineResult
from ctray.evaluate.benchmark_table import (
    MAIN,
    Group,
    TableRow,
    VolumeScore,
    table_rows,
    volume_scores,
)
from ctray.evaluate.truth import Truth, read_truths
from ctray.executors.protocol import Executor
from ctray.executors.session import executor_session
from ctray.phantom.scenes import benchmark_seed
from ctray.pipeline.run import run_archive
from ctray.records.events import OnEvent, nobody
from ctray.records.run_lock import hold_run
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

_SHARED = {"archives", "baselines"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult:
    """The result of a benchmark.

    Parameters
    ----------
    rows, scores
        Scores of groups and of single volumes.
    about
        Purpose, seeds, configuration, machine, date, versions.
    url
        Folder of the benchmark.
    """

    rows: tuple[TableRow, ...]
    scores: tuple[VolumeScore, ...]
    about: dict[str, Any]
    url: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `benchmark.json`."""
        return {**self.about, "rows": [row.to_row() for row in self.rows]}


def run_benchmark(
    out_url: str,
    plan: BenchmarkPlan,
    config: RunConfig,
    *,
    baselines: bool = True,
    command: str | None = None,
    on_event: OnEvent = lambda event: None,
    on_baselines: OnBaselines = lambda done, total: None,
    on_note: Callable[[str], None] = nobody,
) -> BenchmarkResult:
    """Make, run and score the missing parts of a plan.

    Parameters
    ----------
    out_url
        Folder of the benchmark: new, or with the same plan and settings.
    plan, config
        Volumes and settings.
    baselines
        Whether to also run the classical baselines, which takes as long as all the rest.
    command
        Command line, for the record.
    on_event, on_baselines, on_note
        Called with progress, and with lines about waiting.

    Raises
    ------
    ConfigError
        If the folder has another purpose, plan or settings, or if final figures are asked for
        with other settings than the committed ones.
    """
    check_final(plan.purpose, config, plan.variants)
    url = store.normalize(out_url)
    archives = plan.archives(store.join(url, "archives"))
    _claim(url, plan, config)
    scores: list[VolumeScore] = []
    spent: dict[str, float] = {}
    with executor_session(config.ray, on_note) as executor:
        for archive in archives:
            scores += _measure(
                url,
                archive,
                plan,
                config,
                spent,
                executor,
                on_event,
                on_baselines if baselines else None,
            )
    about = _about(url, plan, config, archives, command) | {"seconds": _add_seconds(url, spent)}
    result = BenchmarkResult(
        rows=tuple(table_rows(scores)), scores=tuple(scores), about=about, url=url
    )
    _write(result)
    return result


def _measure(
    url: str,
    archive: BenchmarkArchive,
    plan: BenchmarkPlan,
    config: RunConfig,
    spent: dict[str, float],
    executor: Executor,
    on_event: OnEvent,
    on_baselines: OnBaselines | None,
) -> Iterator[VolumeScore]:
    """Yield the scores of one archive, main run first; `on_baselines` None runs no baselines."""
    make_archive(archive, config.pool, on_event, executor)
    truths = read_truths(archive.truth_url)
    began = time.monotonic()
    runs = store.join(url, "runs", archive.name)
    run, receipts = run_archive(
        archive.url, store.join(runs, MAIN), config, on_event, executor=executor, report=False
    )
    spent[f"{archive.name}/{MAIN}"] = time.monotonic() - began
    for group, ids in archive.groups.items():
        kept = store.join(url, "baselines", archive.name, f"{'-'.join(group)}.json")
        own = [r for r in receipts if r.volume_id in ids]
        baselines = kept_baselines(kept, own, truths, config, on_baselines) if on_baselines else []
        yield from _scored(archive.name, MAIN, group, own, truths, baselines)
    for variant, overrides in plan.variants.items():
        began = time.monotonic()
        changed = override(config, overrides)
        variant_url = store.join(runs, variant)
        with hold_run(variant_url):
            receipts = run_variant(run, variant_url, config, changed, on_event, executor)
        spent[f"{archive.name}/{variant}"] = time.monotonic() - began
        for group, ids in archive.groups.items():
            own = [r for r in receipts if r.volume_id in ids]
            yield from _scored(archive.name, variant, group, own, truths, ())


def _scored(
    archive: str,
    variant: str,
    names: tuple[str, str],
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    baselines: Sequence[BaselineResult],
) -> list[VolumeScore]:
    family, scene = names
    group = Group(archive=archive, variant=variant, family=family, scene=scene)
    evaluation = evaluate_receipts(receipts, truths, baselines)
    return volume_scores(group, evaluation, receipts, truths)


def _claim(url: str, plan: BenchmarkPlan, config: RunConfig) -> None:
    """Begin a folder, or check that an existing one has the same plan and settings."""
    manifest = store.join(url, "benchmark.json")
    ours = {"plan": plan.to_json(), "config": config.model_dump(mode="json")}
    try:
        theirs = store.read_json(manifest)
    except NotFoundError:
        # Copied archives and baselines of another folder are allowed: each is checked later.
        if store.exists(url) and {e.name for e in store.list_dir(url)} - _SHARED:
            raise OutputExistsError(
                f"--out {url} exists and is not a benchmark (it has no benchmark.json); give a "
                "new or empty folder"
            ) from None
        store.write_json(manifest, {**ours, "ctray_version": __version__})
        return
    if not {"plan", "config"} <= theirs.keys():
        raise OutputExistsError(f"{manifest} is not that of a benchmark; give another --out")
    changed = [k for k, v in ours["plan"].items() if theirs["plan"].get(k) != v]
    if "purpose" in changed:
        raise ConfigError(
            f"{url} has the purpose {theirs['plan']['purpose']}, not {plan.purpose}; "
            "give another --out"
        )
    begun = recorded_config(theirs["config"], source=manifest)
    changed += changed_settings(begun, config, *BOX_KINDS, *KEPT_KINDS)
    if changed:
        raise ConfigError(
            f"{url} was begun with another {', '.join(changed)}; give another --out, or the "
            "values in its benchmark.json"
        )


def _about(
    url: str,
    plan: BenchmarkPlan,
    config: RunConfig,
    archives: Sequence[BenchmarkArchive],
    command: str | None,
) -> dict[str, Any]:
    groups = [g for a in archives for g in a.groups if g[0] != "heads"]
    seeds = {f"{f}-{s}": benchmark_seed(plan.purpose, f, s) for f, s in groups}
    return {
        "plan": plan.to_json(),
        "config": config.model_dump(mode="json"),
        "ctray_version": __version__,
        "command": command,
        "variants": {name: list(settings) for name, settings in plan.variants.items()},
        "volumes": {a.name: sum(len(ids) for ids in a.groups.values()) for a in archives},
        "seeds": seeds,
        **describe_machine(),
    }


def _add_seconds(url: str, spent: dict[str, float]) -> dict[str, float]:
    """Add to the wall time of each run, and return the times over all commands."""
    timings = store.join(url, "seconds.json")
    try:
        before = store.read_json(timings)
    except NotFoundError:
        before = {}
    total = {**before, **{k: round(before.get(k, 0.0) + s, 1) for k, s in spent.items()}}
    store.write_json(timings, total)
    return total


def _write(result: BenchmarkResult) -> None:
    store.write_json(store.join(result.url, "benchmark.json"), result.to_json())
    for name, table in (("rows", result.rows), ("volumes", result.scores)):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([row.to_row() for row in table]), buffer)
        store.write_bytes(store.join(result.url, f"{name}.parquet"), buffer.getvalue())
