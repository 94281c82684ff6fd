"""The benchmark: makes archives, runs ctray on each, and scores boxes, crops and baselines.

What is done stays done: phantoms, runs, receipts and the baselines' boxes are kept in its folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.benchmark.archives import (
    BenchmarkArchive,
    make_archive,
    phantom_archive,
    scan_archives,
)
from ctray.benchmark.machine import describe_machine
from ctray.benchmark.variants import VARIANTS, run_variant
from ctray.config import (
    BOX_KINDS,
    KEPT_KINDS,
    RunConfig,
    changed_settings,
    load_config,
    override,
    recorded_config,
)
from ctray.core.errors import ConfigError, NotFoundError, OutputExistsError
from ctray.core.geometry import Box, Triple
from ctray.core.version import __version__
from ctray.evaluate.against_truth import evaluate_receipts, find_baselines
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
from ctray.executors.executor import Executor, executor_session
from ctray.phantom import Kind
from ctray.phantom.scenes import FAMILIES, REAL_FAMILIES, SCENES, Purpose, benchmark_seed
from ctray.pipeline.run import run_archive
from ctray.records.events import OnEvent, nobody
from ctray.records.run_lock import hold_run
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

_SHARED = {"archives", "baselines"}
OnBaselines = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkPlan:
    """What is measured.

    Parameters
    ----------
    purpose
        What for: it decides the seeds, and nothing else does.
    families, scenes, count, size
        Phantoms: `count` of each family in each scene, shape (z, y, x) or one side.
    data
        Folder of real scans, None for none.
    real_families
        What is made of them.
    variants
        `section.key=value` settings of further runs, by name.
    """

    purpose: Purpose = "tuning"
    families: tuple[Kind, ...] = FAMILIES
    scenes: tuple[str, ...] = tuple(SCENES)
    count: int = 4
    size: int | Triple = 128
    data: str | None = None
    real_families: tuple[str, ...] = REAL_FAMILIES
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def archives(self, url: str) -> list[BenchmarkArchive]:
        """Archives of the plan, below `url` as far as they have to be made."""
        found = []
        if self.families and self.scenes:
            found.append(
                phantom_archive(
                    store.join(url, "phantoms"),
                    self.purpose,
                    families=self.families,
                    scenes=self.scenes,
                    count=self.count,
                    size=self.size,
                )
            )
        if self.data is not None and self.real_families:
            found += scan_archives(url, self.data, self.purpose, self.real_families)
        if not found:
            raise ConfigError("nothing to measure: give a family and a scene, or --data")
        return found

    def to_json(self) -> dict[str, Any]:
        """What binds a folder: everything but real scans and variants, which may come later."""
        return {
            "purpose": self.purpose,
            "families": list(self.families),
            "scenes": list(self.scenes),
            "count": self.count,
            "size": self.size if isinstance(self.size, int) else list(self.size),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult:
    """What was measured, and where it is written.

    Parameters
    ----------
    rows, scores
        Of groups and of single volumes.
    about
        Purpose, seeds, configuration, machine, date, versions.
    url
        The folder.
    """

    rows: tuple[TableRow, ...]
    scores: tuple[VolumeScore, ...]
    about: dict[str, Any]
    url: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for `benchmark.json`."""
        return {**self.about, "rows": [row.to_row() for row in self.rows]}


def committed_config() -> RunConfig:
    """Settings of the benchmark; `configs/benchmark.yaml` of the repository is the same file."""
    return load_config(Path(__file__).with_name("benchmark.yaml"))


def benchmark_config(
    purpose: Purpose, path: str | Path | None = None, overrides: tuple[str, ...] = ()
) -> RunConfig:
    """Settings that a purpose may be run with.

    Raises
    ------
    ConfigError
        If final figures are to be measured with other settings than the committed ones.
    """
    if purpose == "final" and overrides:
        raise ConfigError(
            f"--purpose final takes no --set ({overrides[0]}): nobody tunes on its seeds; use "
            "--purpose tuning, then change configs/benchmark.yaml"
        )
    base = committed_config() if path is None else load_config(path)
    config = override(base, overrides)
    _check_final(purpose, config)
    return config


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
    """Make, run and score everything of a plan that is missing.

    Parameters
    ----------
    out_url
        Folder of the benchmark: new, or begun with the same plan and settings.
    plan, config
        What is measured, with which settings.
    baselines
        Whether to run the classical baselines as well, which takes as long as all the rest.
    command
        Command line, to be noted.
    on_event, on_baselines, on_note
        Progress, and lines about what is waited for.

    Raises
    ------
    ConfigError
        If the folder was begun for another purpose, plan or settings, or final figures are asked
        for with other settings than the committed ones.
    """
    _check_final(plan.purpose, config, plan.variants)
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
    """Scores of one archive, main run first; without `on_baselines` none are run."""
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
        baselines = _kept_baselines(kept, own, truths, config, on_baselines) if on_baselines else []
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


def _kept_baselines(
    url: str,
    receipts: Sequence[VolumeRecord],
    truths: dict[str, Truth],
    config: RunConfig,
    on_baselines: OnBaselines,
) -> list[BaselineResult]:
    """Boxes of the baselines on one group, from `url` if an earlier run wrote them.

    Thresholds are chosen group by group: for an archive of one family in one scene, which is the
    best that a user could do with them.
    """
    ids = [r.volume_id for r in receipts if r.cut_url is not None]
    key = hashlib.sha256(
        json.dumps([ids, config.preprocess.model_dump(mode="json")]).encode()
    ).hexdigest()
    try:
        document = store.read_json(url)
    except NotFoundError:
        document = {}
    if document.get("key") != key:
        found = find_baselines(receipts, truths, config.preprocess, progress=on_baselines)
        document = {"key": key, "results": [_baseline_json(r) for r in found]}
        store.write_json(url, document)
    return [_baseline(values) for values in document["results"]]


def _baseline_json(result: BaselineResult) -> dict[str, Any]:
    boxes = {name: box.ranges if box else None for name, box in result.boxes.items()}
    return {
        "method": result.method,
        "supervised": result.supervised,
        "variant": result.variant,
        "boxes": boxes,
        "thresholds": result.thresholds,
    }


def _baseline(values: dict[str, Any]) -> BaselineResult:
    boxes = {n: Box.from_ranges(b) if b else None for n, b in values["boxes"].items()}
    return BaselineResult(**{**values, "boxes": boxes})


def _check_final(
    purpose: Purpose, config: RunConfig, variants: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    if purpose != "final":
        return
    if config != committed_config():
        raise ConfigError(
            "--purpose final measures with configs/benchmark.yaml as it is in the package, so "
            "that nobody tunes on its seeds; use --purpose tuning with other settings"
        )
    unknown = [n for n, settings in (variants or {}).items() if VARIANTS.get(n) != settings]
    if unknown:
        raise ConfigError(
            f"--purpose final takes the variants of the package alone, not {unknown[0]}"
        )


def _claim(url: str, plan: BenchmarkPlan, config: RunConfig) -> None:
    """Begin a folder, or check that it was begun for the same."""
    manifest = store.join(url, "benchmark.json")
    ours = {"plan": plan.to_json(), "config": config.model_dump(mode="json")}
    try:
        theirs = store.read_json(manifest)
    except NotFoundError:
        # Archives and baselines of another folder may be copied: they are checked one by one.
        if store.exists(url) and {e.name for e in store.list_dir(url)} - _SHARED:
            raise OutputExistsError(
                f"--out {url} exists and is no benchmark (it has no benchmark.json); give a new "
                "or empty folder"
            ) from None
        store.write_json(manifest, {**ours, "ctray_version": __version__})
        return
    if not {"plan", "config"} <= theirs.keys():
        raise OutputExistsError(f"{manifest} is no benchmark's; give another --out")
    changed = [k for k, v in ours["plan"].items() if theirs["plan"].get(k) != v]
    if "purpose" in changed:
        raise ConfigError(
            f"{url} was begun for the purpose {theirs['plan']['purpose']}, not {plan.purpose}; "
            "give another --out"
        )
    begun = recorded_config(theirs["config"], source=manifest)
    changed += changed_settings(begun, config, *BOX_KINDS, *KEPT_KINDS)
    if changed:
        raise ConfigError(
            f"{url} was begun with another {', '.join(changed)}; give another --out, or what "
            "benchmark.json holds"
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
    """Wall time of each run, over all the commands that it took."""
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
