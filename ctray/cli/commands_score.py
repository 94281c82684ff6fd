"""Commands that score a run against the truth: evaluate, calibrate, demo."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.options import (
    echo,
    extents,
    print_json,
    ray_options,
    run_argument,
    say,
    shared_options,
    size_of,
)
from ctray.cli.running import finish, held_output, held_run, look_first, make_run, run_facts

if TYPE_CHECKING:
    from ctray.evaluate.against_truth import Evaluation
    from ctray.records.run_folder import RunFolder


@click.command(short_help="Score the boxes of a run against the truth.")
@run_argument
@click.option("--truth", required=True, metavar="TRUTH", help="Folder with the true boxes.")
@click.option("--no-baselines", is_flag=True, help="Do not score classical methods.")
@click.option("--held-out", is_flag=True, help="Score only volumes that were not trained on.")
@shared_options()
def evaluate(run_url: str, truth: str, no_baselines: bool, held_out: bool, as_json: bool) -> None:
    """Score the boxes of RUN and of classical methods against TRUTH.

    Writes scores.json and scores.parquet to RUN.
    """
    from ctray.cli.progress import reporter
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    folder = RunFolder(url=store.normalize(run_url))
    with reporter() as progress, held_run(folder.url, progress.note):
        scores = _evaluate(folder, truth, progress, baselines=not no_baselines, held_out=held_out)
    if as_json:
        print_json(scores.to_json())
        return
    _print_scores(scores)
    say(f"written: {folder.at('scores.json')}, {folder.at('scores.parquet')}")


@click.command(short_help="Fit the margins of a run to volumes with known boxes.")
@run_argument
@click.option("--truth", required=True, metavar="TRUTH", help="Folder with the true boxes.")
@click.option(
    "--out",
    metavar="FILE",
    help="Write to this file, a path or URL. [default: RUN/calibration.json]",
)
@shared_options()
def calibrate(run_url: str, truth: str, out: str | None, as_json: bool) -> None:
    """Fit the margins of RUN to its volumes in TRUTH.

    Writes calibration.json to RUN. Later crops of RUN take their margins from it instead of from
    the calibration on phantoms that comes with ctray. It is valid only for boxes that were found
    with the settings of RUN.
    """
    from ctray.benchmark.machine import describe_machine
    from ctray.cli.commands_benchmark import say_calibration
    from ctray.cli.progress import reporter
    from ctray.core.version import __version__
    from ctray.evaluate.calibrating import calibrate_run
    from ctray.pipeline.run import resume_run
    from ctray.storage import store

    folder, settings, _ = resume_run(run_url)
    with reporter() as progress, held_run(folder.url, progress.note):
        found = calibrate_run(
            folder, truth, lambda done, total: progress.update("calibrate", done, total)
        )
        found = replace(found, made={"ctray_version": __version__, **describe_machine()})
        # Before writing: too few volumes for the promised loss and coverage are an error.
        found.factor(settings.crop.max_loss, settings.crop.coverage)
        target = store.normalize(out) if out else folder.calibration
        store.write_json(target, found.to_json())
    say_calibration(found, settings, target, as_json)


@click.command(short_help="Try ctray on synthetic volumes, and score its boxes.")
@click.option(
    "--out", default="ctray-demo", show_default=True, metavar="FOLDER", help="Output folder."
)
@click.option("--count", type=int, help="Number of synthetic volumes. [default: 32]")
@click.option(
    "--size",
    type=extents,
    metavar="Z,Y,X",
    help="Their shape in voxels, one side or z,y,x. [default: 128]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change one setting of the run. Repeatable.",
)
@ray_options
@shared_options()
def demo(
    out: str,
    count: int | None,
    size: tuple[int, ...] | None,
    overrides: tuple[str, ...],
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make synthetic volumes, find and crop their samples, and score the boxes."""
    from ctray.benchmark.demo import DEMO_ARCHIVE, demo_config
    from ctray.cli.progress import reporter
    from ctray.evaluate.phantom_archive import write_phantoms
    from ctray.storage import store

    settings = demo_config((*ray, *overrides))
    archive, run_url = store.join(out, "archive"), store.join(out, "run")
    total = count or DEMO_ARCHIVE.count
    with ExitStack() as stack:
        progress = stack.enter_context(reporter())
        names: list[str] = []

        def made(record: Any) -> None:
            names.append(record.volume_id)
            progress.update("phantoms", len(names), total, record.volume_id)

        write_phantoms(
            archive,
            count=total,
            size=size_of(size) if size else DEMO_ARCHIVE.size,
            seed=DEMO_ARCHIVE.seed,
            kind=DEMO_ARCHIVE.kind,
            difficulty=DEMO_ARCHIVE.difficulty,
            progress=made,
        )
        stack.enter_context(held_output(archive, run_url, progress.note))
        found = look_first(archive, run_url, settings, progress)
        folder, receipts = make_run(archive, run_url, settings, progress, found)
        scores = _evaluate(folder, archive, progress, baselines=True)
        # The page shows the scores, so it comes after them.
        facts = run_facts(folder, receipts, report=True)
    picture = folder.at("report", "located.png")
    facts["picture"] = picture if store.exists(picture) else None
    if as_json:
        facts["scores"] = scores.to_json()["summary"]
    else:
        _print_scores(scores)
    finish(facts, as_json)


def _evaluate(
    folder: RunFolder, truth: str, progress: Any, *, baselines: bool, held_out: bool = False
) -> Evaluation:
    from ctray.evaluate.against_truth import evaluate_run, write_evaluation

    scores = evaluate_run(
        folder,
        truth,
        baselines=baselines,
        held_out=held_out,
        progress=lambda done, total: progress.update("baselines", done, total),
    )
    write_evaluation(scores, folder)
    return scores


def _print_scores(scores: Evaluation) -> None:
    from ctray.cli.tables import print_table, score_lines, score_table

    print_table(score_table(scores))
    for line in score_lines(scores):
        echo(line)
